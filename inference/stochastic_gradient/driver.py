"""What drivers of stochastic-gradient MCMC have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from ...models import BayesianModel
from ...priors.settings import check, check_count, check_positive, choice_name
from ..chain_starts import find, refusal
from ..chained import Chained
from ..data import Data, take
from ..density import Layout
from ..driver import Families, not_all_random
from ..monitor import Monitor
from ..posterior import Posterior
from .motion import Motion, Surroundings
from .sampling import Sampling
from .schedules import ConstantSteps, StepSchedule


@dataclass(frozen=True, kw_only=True)
class StochasticGradientMCMC(Chained):
    r"""Markov chains that follow gradients from minibatches, with noise, and reject nothing.

    .. math:: \hat U(z) = -\frac NB \sum_{i \in \mathcal B} \ln p(y_i \mid x_i, w) - \ln p(w)
              - T \ln |\det t'(z)|, \qquad w = t(z)

    The law that chains settle in is near :math:`p(w \mid y)^{1/T}`, not equal to it: the bias shrinks with the learning
    rate. Each step of each chain has a minibatch of its own, drawn anew, of ``batch_size`` different examples; an epoch
    is as many steps as the data hold minibatches. Constrained sites move in unconstrained numbers :math:`z`. The
    state is kept in a checkpoint, from which a stopped run goes on bit for bit; whole parts of the draws go to files
    beside it. The interrupt key ends a run with the draws so far, once each chain has a few.

    Args:
        num_samples: Draws kept from each chain, default 50, evenly spaced over the steps that the schedule samples in;
            where these are fewer, so are the draws.
        chains: See `Chained`.
        epochs: Passes over the data in all, default 200.
        batch_size: Examples a step, default 128.
        learning_rate: :math:`\ell`, the largest of them, above 0, in the units of SGD on the loss per example. The
            default is small, since steps that are too large diverge, and likelihoods differ: try larger ones.
        schedule: How step sizes change and what is kept: ``constant`` (default), ``decreasing`` or ``cyclical``.
        temperature: :math:`T > 0`, default 1.
        start, jitter: See `Chained`.
        validate_every: Epochs between looks at the validation data, default 5: the NLL of the draws so far.
        validation_samples: Draws for that look, of all chains together, default 16.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.
    """

    num_samples: int = 50
    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: StepSchedule = field(default_factory=ConstantSteps)
    temperature: float = 1.0
    validate_every: int = 5
    validation_samples: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "num_samples", "epochs", "batch_size", "validate_every", "validation_samples")
        check_positive(self, "learning_rate", "temperature")
        check(self, "schedule", isinstance(self.schedule, StepSchedule), "constant, decreasing or cyclical steps")

    @property
    def estimates_noise(self) -> bool:
        """Whether the variance of the gradients is estimated."""
        return False

    @property
    def first_friction(self) -> float:
        """The friction that chains begin with."""
        return 1.0

    @abstractmethod
    def move(self, motion: Motion, around: Surroundings) -> tuple[Tensor, Motion]:
        """How far ``[K, D]`` the chains go in a step, and how they move afterwards."""

    def refusal(self, model: BayesianModel) -> str | None:
        return not_all_random(model, choice_name(type(self)), "sample") or refusal(self.start, model, self.chains)

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        Layout(model, (take(data.x, slice(0, 2)), data.y[:2]))  # refuses before a net is trained
        starts = find(self.start, self.chains, model, guide, data, seed, monitor)
        folder = None if monitor.checkpoint is None else monitor.checkpoint.folder
        posterior = Sampling(self, starts.model, guide, starts.values, data, seed, folder).run(monitor)
        if starts.info:
            posterior.info["start"] = starts.info
        return posterior
