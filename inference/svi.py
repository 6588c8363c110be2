"""Stochastic variational inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..guides import Family, Guide
from ..guides.estimators import Estimator
from ..guides.guide import run_once
from ..models import BayesianModel
from ..priors.settings import SettingError, check, check_count, check_option, check_positive, choice_name, describe
from .bounds import ELBO, Bound
from .data import Data
from .driver import Driver, Families
from .monitor import Monitor
from .optimize import Fit, Optimizing
from .particle_bound import without_density
from .posterior import Posterior
from .starting import Started, check_start


@dataclass(frozen=True, kw_only=True)
class SVI(Started, Optimizing):
    r"""Fits a guide by stochastic gradients of the evidence lower bound.

    .. math:: \mathcal L_t = \tfrac NB\, E_q[\log p(y \mid w, A)]
              + \lambda \beta_t \big(E_q[\log p(w, A)] + T\, H[q]\big), \qquad \beta_t = \min(1, t / t_\text{warm})

    With another ``bound`` that is what is maximised, in the place of :math:`\mathcal L_t`.

    Args:
        particles: Draws from the guide a step, default 1.
        temperature: :math:`T > 0`, default 1: the target is :math:`p(w, A \mid y)^{1/T}`.
        kl_weight: :math:`\lambda \ge 0`, default 1: other values temper the KL alone, and the result is no posterior.
            Rows have a weight of their own besides, in their prior.
        kl_warmup: Share of the steps over which :math:`\beta_t` grows from 0 to 1, at least 0 and below 1, default 0.
            The best state is looked for after it, the last one included in any case.
        row_kl_warmup: The same for the KL of random attention rows alone, on top of ``kl_warmup`` and of the weight in
            their prior, default 0. The best state is looked for after both.
        estimator: What the sequences of a batch share in training. ``shared`` (default): one draw of the weights;
            ``flipout``: its noise, turned by random signs for every sequence; ``local_reparameterization``: nothing in
            layers that see one token a sequence, where pre-activations are drawn in the place of weights, and flipout
            elsewhere. Dropout families draw one mask for the batch with ``shared``, else one for every sequence. All
            tokens of a sequence share its weights, so the bound stays the same and its gradient varies less. Layers of
            pyroformer alone can use the last two; the posterior's ``info`` tells which did.
        start: How the net is trained before the guide is made around it: ``ml`` or ``map`` with their settings, or None
            (default): not at all. Attention rows are computed by softmax meanwhile.
        bound: ``elbo`` (default), ``importance_weighted`` or ``renyi``. The others weigh several draws a step, by their
            densities: they want ``particles``, no tempering, and guides with a density or point masses; with
            minibatches they are biased upwards where ``renyi`` is below 1.
        epochs, batch_size, learning_rate, optimizer, schedule, warmup, clip_norm: See `Optimizing`.
        weight_decay, compile: See `Optimizing`.
        validate_every, validation_samples, keep: See `Optimizing`.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range; or the estimator would change no weight matrix.

    Reference:
        Hoffman et al., 2013; Kingma and Welling, 2014. KL warm-up: Sønderby et al., 2016, Sec. 2.2. Estimators: Kingma,
        Salimans and Welling, 2015, Eq. 6; Wen et al., 2018, Eq. 4.
    """

    learning_rate: float = 3e-3
    particles: int = 1
    temperature: float = 1.0
    kl_weight: float = 1.0
    kl_warmup: float = 0.0
    row_kl_warmup: float = 0.0
    estimator: Estimator = "shared"
    start: Driver | None = None
    bound: Bound = field(default_factory=ELBO)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "particles")
        check_positive(self, "temperature")
        check_option(self, "estimator", Estimator)
        check(self, "kl_weight", 0 <= self.kl_weight < float("inf"), "a finite number of at least 0")
        for key in ("kl_warmup", "row_kl_warmup"):
            check(self, key, 0 <= getattr(self, key) < 1, "a share of the steps, at least 0 and below 1")
        check(self, "bound", isinstance(self.bound, Bound), "a bound: elbo, importance_weighted or renyi")
        if self.bound.weighs_draws:
            check(self, "particles", self.particles >= 2, "at least 2 for this bound: with one draw it is elbo")
            for key, plain in (("temperature", 1), ("kl_weight", 1), ("kl_warmup", 0)):
                check(self, key, getattr(self, key) == plain, f"{plain}: elbo is the only bound that can be tempered")
            accepted = "shared: this bound weighs draws that all of the batch shares"
            check(self, "estimator", self.estimator == "shared", accepted)
        check_start(self)

    @property
    def needs_guide(self) -> bool:
        return True

    def refusal(self, model: BayesianModel) -> str | None:
        if not model.sites and not model.rows and not model.likelihood.initial_values():
            return "a model with at least one random site; all parameters are fixed or learned (ml trains them)"
        if self.row_kl_warmup and not any(prior.kl_weight for prior in model.row_priors.values()):
            none = "gives no KL of rows a weight" if model.rows else "draws no attention rows"
            return f"the row_kl_warmup 0: the model {none}"
        if self.bound.weighs_draws and model.rows:
            return f"the bound elbo: the others weigh whole draws, and {model.rows[0]} is drawn for every example"
        return None if self.start is None else self.start.refusal(model.without_rows())

    def check(self, model: BayesianModel, guide: Families | None) -> None:
        super().check(model, guide)
        if self.start is not None and isinstance(guide, Guide):
            raise SettingError("guide", "Guide", "families: the guide is made after the start")
        for family in families_of(guide) if self.bound.weighs_draws else ():
            if not isinstance(family, Family):
                raise SettingError("guide", family, "a guide family, such as MeanField()")
            if without_density(family):
                raise SettingError(
                    "guide",
                    choice_name(type(family)),
                    "families with a density, by which this bound weighs draws, or point masses; or the bound elbo",
                )

    def beta(self, progress: float) -> float:
        """The weight of the KL when a share ``progress`` of the steps is done."""
        return self.kl_weight * (1.0 if progress >= self.kl_warmup else progress / self.kl_warmup)

    def row_beta(self, progress: float) -> float:
        """The factor on the weight of the rows' KL when a share ``progress`` of the steps is done."""
        return 1.0 if progress >= self.row_kl_warmup else progress / self.row_kl_warmup

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        assert guide is not None
        info: dict[str, Any] = {}
        objective = self.bound.objective(self.temperature, self.particles, self.estimator)
        if self.start is not None:
            objective.used(Guide(model, guide, data.example()), *data.example())  # refuses before the net is trained
            model, info["start"] = self.begun(model, data, seed, monitor)
        built = guide if isinstance(guide, Guide) else Guide(model, guide, data.example())
        used = objective.used(built, *data.example())
        full_from = max(self.kl_warmup, self.row_kl_warmup)
        fit = Fit(self, built, data, objective, self.beta, full_from, row_beta=self.row_beta)
        posterior = fit.run(seed, monitor)
        posterior.info.update(info, temperature=self.temperature, kl_weight=self.kl_weight)
        if model.rows:
            posterior.info["row_kl_weight"] = row_weight(model, self.kl_weight, *data.example())
        if self.bound.weighs_draws:
            posterior.info["bound"] = describe(self.bound)
        if used:
            posterior.info["estimator"] = {
                "setting": self.estimator,
                **{kind: [name for name in used if used[name] == kind] for kind in sorted(set(used.values()))},
                "shared": [name for name in built.sites if name not in used and name not in model.rows],
            }
        return posterior


def row_weight(model: BayesianModel, kl_weight: float, *example: Any) -> float | dict[str, float]:
    """The effective weight of the rows' KL, with its normalisation, in the mean over a few examples; by site where they
    differ. ``kl_weight`` is that of every KL."""
    with torch.random.fork_rng(devices=[]):
        sites = run_once(model, example)
    scales = {name: 0.0 if sites[name]["mask"] is False else sites[name]["scale"] for name in model.rows}
    means = {name: float(torch.as_tensor(scale, dtype=torch.float64).mean()) for name, scale in scales.items()}
    weights = {name: kl_weight * mean for name, mean in means.items()}
    found = set(weights.values())
    return found.pop() if len(found) == 1 else weights


def families_of(guide: Families | None) -> list[Family]:
    """The families of a guide, or those that one will be made of."""
    if isinstance(guide, Guide):
        return [family for family in guide.families if isinstance(family, Family)]
    return list(guide.values()) if isinstance(guide, Mapping) else [guide]  # type: ignore[list-item]
