"""The improved variational online Newton method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..guides import Guide, MeanField
from ..guides.normal_priors import normal_parameters
from ..models import BayesianModel
from ..priors.settings import check, check_count, check_positive
from .data import Data
from .driver import Driver, Families, not_all_random
from .minibatched import Minibatched
from .monitor import Monitor
from .objective import OnePassELBO, Terms
from .optimize import Fit
from .posterior import Posterior
from .starting import Started, check_start
from .variational_newton import VariationalNewton


@dataclass(frozen=True, kw_only=True)
class IVON(Started, Minibatched):
    r"""Fits independent normal entries by natural gradients, at about the cost of Adam.

    .. math:: q(w) = \prod_i \mathcal N(w_i \mid m_i, \sigma_i^2), \qquad \sigma_i^2 = \frac1{\lambda (h_i + \delta_i)},
              \qquad \lambda = N / T, \qquad \delta_i = \frac1{N s_i^2}

    The mean takes Newton steps with the Hessian :math:`h` of the loss per example, whose diagonal is estimated from the
    gradients at the draws of the weights; the prior :math:`\mathcal N(\mu_i, s_i^2)` of each entry is its weight decay.
    What is found is what SVI with a mean-field guide looks for, and is such a guide. Priors have to be normal, or flat,
    and without hyper-sites; parameters that are learned as numbers have no Hessian estimate and are refused.

    With few examples the draws of a step lie far apart, and a net of several layers learns little from them at
    :math:`T = 1` from a random start: on digits it stays at guessing, and from a net that is trained first (``start``)
    it does not. A lower temperature with a small ``hess_init`` and ``clip_radius``, 1e-2 each, say, trains one too.

    Args:
        epochs, batch_size, schedule, warmup: See `Minibatched`.
        learning_rate: The largest length of a step, in Newton steps, above 0, default 0.1.
        beta1: The decay of the average of gradients, at least 0 and below 1, default 0.9 (a reconstruction).
        beta2: The decay of the average of Hessians, at least 0 and below 1, default 0.999. It should remember a good
            part of the steps: the estimates are noisy. The paper's is nearer 1, for many more steps.
        hess_init: :math:`h` at the start, above 0, default 1, with which the scales start near
            :math:`\lambda^{-1/2}`.
        samples: Draws of the weights a step, default 1.
        clip_radius: Largest change of an entry in a step before the learning rate, above 0, or None (default) for any.
        temperature: :math:`T > 0`, default 1: the target is :math:`p(w \mid y)^{1/T}`.
        start: How the net is trained before, ``ml`` or ``map`` with their settings, or None (default): not at all.
        validate_every, validation_samples, keep: See `Minibatched`.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Shen et al., 2024, "Variational learning is effective for large deep networks" (arXiv 2402.17641), Algorithm 1.
    """

    learning_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    hess_init: float = 1.0
    samples: int = 1
    clip_radius: float | None = None
    temperature: float = 1.0
    start: Driver | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("beta1", "beta2"):
            check(self, key, 0 <= getattr(self, key) < 1, "a number of at least 0 and below 1")
        check_positive(self, "hess_init", "temperature")
        check_count(self, "samples")
        check_start(self)
        check(self, "clip_radius", self.clip_radius is None or self.clip_radius > 0, "a number above 0, or null")

    @property
    def treatment(self) -> str:
        return "mean_field"

    def refusal(self, model: BayesianModel) -> str | None:
        if reason := not_all_random(model, "ivon", "fit"):
            return reason
        if other := next(iter({**model.hyper_sites, **model.likelihood.initial_values()}), None):
            return f"normal priors of weights alone, which are a weight decay: {other} is a site besides (svi fits it)"
        for name, prior in model.distributions().items():
            if normal_parameters(prior) is None:
                return f"normal or flat priors, which are a weight decay: that of {name} is another (svi fits it)"
        return None if self.start is None else self.start.refusal(model)

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        info: dict[str, Any] = {}
        if self.start is not None:
            model, info["start"] = self.begun(model, data, seed, monitor)
        built = Guide(model, MeanField(), data.example())
        (family,) = built.families
        assert isinstance(family, MeanField)
        center, precision = decay_of(model, family)
        optimizer = VariationalNewton(
            (family.loc, family.log_scale),
            learning_rate=self.learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            hess_init=self.hess_init,
            decay=precision / len(data),
            center=center,
            effective_size=len(data) / self.temperature,
            clip_radius=self.clip_radius,
        )
        objective = ExpectedLoss(num_particles=self.samples)
        posterior = Fit(self, built, data, objective, optimizer=lambda parameters: optimizer).run(seed, monitor)
        posterior.info.update(info, temperature=self.temperature)
        return posterior


class ExpectedLoss(OnePassELBO):
    """The expected log-likelihood alone is descended: the steps themselves know the prior and the entropy."""

    def loss_of(self, terms: Terms, beta: float = 1.0, row_beta: float = 1.0) -> Tensor:
        return -terms.log_likelihood


def decay_of(model: BayesianModel, family: MeanField) -> tuple[Tensor, Tensor]:
    """Location and precision of the normal priors, ``[P]`` each, in the order of the family."""
    locs, precisions, priors = [], [], model.distributions()
    for name, shape in family.shapes.items():
        found = normal_parameters(priors[name])
        assert found is not None
        locs.append(found[0].expand(shape).reshape(-1))
        precisions.append(found[1].square().expand(shape).reshape(-1))
    return torch.cat(locs).to(family.loc), torch.cat(precisions).to(family.loc)
