"""How far a posterior with a density is from its target, by the weights that would correct it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ..models import BayesianModel
from ..models.calling import eval_mode
from ..priors import SettingError, choice_name
from .data import Data, Inputs, move, move_one, take
from .guide_posterior import GuidePosterior
from .mixture_posterior import MixturePosterior
from .pareto import SmoothedWeights, fewest_samples, smoothed
from .posterior import Posterior, store_as_it_was
from .prediction import slices

NUM_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Importance(SmoothedWeights):
    r"""Smoothed importance weights of a posterior's draws, and what they say of it.

    Args:
        log_weights, k_hat: See `SmoothedWeights`.
        log_ratios: :math:`\log p(y, w_s)^{1/T} - \log q(w_s)`, ``[S]``, float64; without priors that are flat the mean
            of their exponentials estimates the evidence where :math:`T = 1`.
        temperature: :math:`T` of the fit.
        kl_weight: That of the fit: the target has the likelihood to the power of its inverse.
    """

    log_ratios: Tensor
    temperature: float = 1.0
    kl_weight: float = 1.0

    @property
    def verdict(self) -> str:
        """What the shape of the tail says, in words."""
        target = "posterior" if self.temperature == self.kl_weight == 1 else "tempered posterior"
        said = f"k-hat {self.k_hat:.2f} of {self.num_samples} draws, "
        if self.usable:
            size = self.effective_sample_size
            return f"{said}at most {self.threshold:.2f}: weights are usable, worth {size:.0f} draws from the {target}"
        return (
            f"{said}above {self.threshold:.2f}: the approximation is far from the {target}, "
            "and weights of its draws cannot correct it"
        )


def psis(
    posterior: Posterior, data: Data, num_samples: int = NUM_DRAWS, *, seed: int = 0, batch_size: int = 256
) -> Importance:
    r"""Pareto-smoothed importance sampling from a posterior with a density to the posterior it approximates.

    .. math:: r_s = \tfrac1T \Big(\tfrac1\lambda \sum_n \log p(y_n \mid x_n, w_s) + \log p(w_s)\Big) - \log q(w_s),
              \qquad w_s \sim q

    The target is the one that the fit had: :math:`T` and :math:`\lambda` are its temperature and KL weight, 1 unless
    ``posterior.info`` says otherwise. Both densities are over the sites' own values, a change of variables included;
    point-estimated parameters are taken as given.

    The shape :math:`\hat k` of the tail of :math:`e^{r_s}` tells how many moments the weights have. Up to
    `Importance.threshold` they can be used. Of nets with many weights it is nearly always above: a guide that is a
    little too narrow or too wide in each of a thousand directions is far off in all of them together, and symmetries
    give the posterior modes that one guide leaves out. So it compares guides of small nets or of few random weights; a
    large value says that the weights' posterior was not found, not that predictions are bad, and above 1 or so how
    large it is says little.

    Args:
        posterior: A `GuidePosterior` of families with densities, without random attention rows.
        data: What it was fitted to; all training examples count, validation examples do not.
        num_samples: :math:`S`, at least 21, default 200. Time grows as their product with the number of examples.
        seed: Of the draws: they are those of ``posterior.draw(num_samples, seed=seed)``.
        batch_size: Examples that the net sees at once, default 256; memory does not grow with the data.

    Raises:
        SettingError: The posterior has no density (points, stored draws, mixtures, attention rows), the fit had no
            target (a KL weight of 0), or there are too few draws.

    Reference:
        Vehtari, Simpson, Gelman, Yao and Gabry, 2024, "Pareto smoothed importance sampling"; Yao, Vehtari, Simpson and
        Gelman, 2018, "Yes, but did it work? Evaluating variational inference", Algorithm 1.
    """
    if num_samples < fewest_samples():
        raise SettingError("num_samples", num_samples, f"a whole number of at least {fewest_samples()}")
    if (reason := refusal(posterior)) is not None:
        raise SettingError("posterior", choice_name(type(posterior)), reason)
    temperature, kl_weight = (float(posterior.info.get(key, 1.0)) for key in ("temperature", "kl_weight"))
    model, guide = posterior.model, posterior.guide
    assert guide is not None
    anchor = next(model.parameters())
    x, y = move(data.x, anchor.device, anchor.dtype), move_one(data.y, anchor.device, anchor.dtype)
    batch_size = min(batch_size, len(y))
    most = posterior.most_draws(x, batch_size)
    found = []
    with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.validation_enabled(False), store_as_it_was():
        torch.manual_seed(seed)
        with eval_mode(model):
            for _, draws in posterior.chunks(num_samples, most):
                likelihood, prior = log_joint(model, draws, x, y, batch_size)
                found.append((likelihood / kl_weight + prior) / temperature - guide.log_prob(draws).double())
    ratios = torch.cat(found).cpu()
    weights = smoothed(ratios)
    return Importance(weights.log_weights, weights.k_hat, ratios, temperature, kl_weight)


def refusal(posterior: Posterior) -> str | None:
    """Why a posterior has no importance weights, in words of what has; None when it has."""
    kind = "a posterior with a density, such as a mean-field guide"
    if isinstance(posterior, MixturePosterior):
        return f"{kind}; ask the members of a mixture one by one"
    if not isinstance(posterior, GuidePosterior):
        return f"{kind}; draws have none"
    if posterior.model.rows:
        return f"{kind}; attention rows have one for each input and none of their own"
    if not posterior.num_weights:
        return f"{kind}; here nothing is random"
    if posterior.info.get("kl_weight", 1.0) == 0:
        return "one with a target; a fit with the KL weight 0 has none"
    try:
        with torch.no_grad():
            posterior.guide.log_prob(posterior.draw(1))
    except NotImplementedError as error:
        return f"{kind}; {error}"
    return None


def log_joint(
    model: BayesianModel, draws: dict[str, Tensor], x: Inputs, y: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The log-likelihood of all observations and the log-prior of draws.

    Args:
        model: The model.
        draws: ``[S, ...]`` by site.
        x, y: The observations ``[N, ...]``.
        batch_size: Examples at once.

    Returns:
        Both ``[S]``, float64.
    """
    size = len(next(iter(draws.values())))
    lifted = {name: value.unsqueeze(1) for name, value in draws.items()}  # [S, 1, ...]: the data plate
    likelihood, prior = y.new_zeros(size, dtype=torch.float64), y.new_zeros(size, dtype=torch.float64)
    for where in slices(len(y), batch_size):
        with poutine.block(), pyro.plate("draws", size, dim=-2), poutine.trace() as tracer:
            poutine.condition(model, data=lifted)(take(x, where), y[where])
        sites = {name: site for name, site in tracer.trace.nodes.items() if site["type"] == "sample"}
        for name, site in sites.items():
            if name in draws and where.start == 0:
                prior += _log_prob(site, size)
            elif site["infer"].get("is_observation"):
                likelihood += _log_prob(site, size)
    return likelihood, prior


def _log_prob(site: dict[str, Any], size: int) -> Tensor:
    logs = scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])
    return logs.double().reshape(size, -1).sum(1)
