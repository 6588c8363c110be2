"""Point estimates: maximum likelihood and maximum a posteriori."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.distributions import constraints

from ..guides import Delta, Guide
from ..models import BayesianModel
from ..priors import EmpiricalBayes, Prior
from ..priors.support import base
from .data import Data
from .driver import Families
from .monitor import Monitor
from .objective import OnePassELBO
from .optimize import Fit, Optimizing
from .posterior import Posterior


@dataclass(frozen=True, kw_only=True)
class MAP(Optimizing):
    r"""The maximum a posteriori of all sites.

    .. math:: \hat w = \arg\max_w \log p(y \mid w) + \log p(w)

    Args:
        epochs, batch_size, learning_rate, optimizer, schedule, warmup, clip_norm: See `Optimizing`.
        weight_decay, compile: See `Optimizing`.
        validate_every, validation_samples, keep: See `Optimizing`.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.
    """

    prior_weight = 1.0

    @property
    def treatment(self) -> str:
        return "point"

    @property
    def shared(self) -> bool:
        return True

    def refusal(self, model: BayesianModel) -> str | None:
        if model.rows:
            return f"svi with a row family such as dirichlet_rows: {model.rows[0]} has no point estimate"
        learned = [name for name, prior in model.chosen.items() if isinstance(prior, EmpiricalBayes)]
        if learned and self.prior_weight:
            return f"svi: the density of a learned scale and its weights has no maximum, as for {learned[0]}"
        if not model.initial_values() and not model.learned:
            return "a model with something to train; all its parameters are fixed"
        return None

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        built = Guide(model, Delta() if model.initial_values() else {}, data.example())
        return Fit(self, built, data, OnePassELBO(), lambda progress: self.prior_weight).run(seed, monitor)


@dataclass(frozen=True, kw_only=True)
class ML(MAP):
    r"""Maximum likelihood: ordinary training, with no prior.

    .. math:: \hat w = \arg\max_w \log p(y \mid w)

    Args:
        epochs, batch_size, learning_rate, optimizer, schedule, warmup, clip_norm: See `Optimizing`.
        weight_decay, compile: See `Optimizing`.
        validate_every, validation_samples, keep: See `Optimizing`.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.
    """

    prior_weight = 0.0

    def priors_of(self, model: BayesianModel) -> dict[str, Any]:
        # a prior that weights are drawn from as they are, anywhere on the line, changes nothing here
        priors, made = super().priors_of(model), {} if model.hyper_sites else model.distributions()
        for name, prior in model.chosen.items():
            if isinstance(prior, Prior) and name in made and base(made[name].support) is constraints.real:
                priors[name] = "real"
        return priors
