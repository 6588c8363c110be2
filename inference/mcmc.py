"""Markov chains over the weights: what all their drivers share."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models import BayesianModel
from ..priors.settings import check, check_count, check_positive, choice_name
from .chain_starts import find, jittered, refusal, seed_of
from .chained import Chained
from .data import Data
from .density import FlatDensity, Layout
from .diagnostics.energy import e_bfmi
from .draws_posterior import DrawsPosterior
from .driver import Driver, Families, not_all_random
from .latent_rows import LOG_LIKELIHOOD, RowDraws, count_numbers, parted, warn_of_queries
from .latent_rows import refusal as refusal_of_rows
from .log_likelihood import convergence, guess_log_likelihood, log_likelihoods
from .monitor import Monitor
from .posterior import Posterior
from .prior_variances import prior_variances
from .samplers import Chains, Kernel, MCLMCKernel
from .sampling import FEWEST, Counted, Sampling
from .stored_draws import DrawStream

WORTH_TRACING = 50
"""Steps of each chain from which on it takes less time to write the operations of the density down than to run the
model for every gradient."""


@dataclass(frozen=True, kw_only=True)
class MCMC(Chained):
    r"""Draws from the exact posterior by Markov chains on all data at once, several of them in one process.

    .. math:: w_s \sim p(w \mid y)^{1/T} \propto \big(p(y \mid w)\, p(w)\big)^{1/T}

    The chains move over the unconstrained numbers of all sites, and share one step size and one diagonal mass matrix,
    which warm-up finds, from the widths of the priors on. Their state is kept in a checkpoint, from which a stopped run
    goes on bit for bit; whole parts of the draws go to files beside it. The interrupt key ends a run with the draws so
    far, once each chain has a few.

    Args:
        num_samples: Draws kept from each chain, at least 4, default 200.
        warmup_steps: Steps of adaptation before them, at least 1, default 200.
        chains: See `Chained`.
        thinning: Steps for each draw that is kept, default 1.
        minutes: Minutes of warm-up and sampling after which a run ends with the draws so far, once warm-up is over and
            each chain has a few; None (default) for no limit. How many draws there are then depends on the machine.
        temperature: :math:`T > 0`, default 1.
        compile: Whether the operations of the density are compiled, default False: it takes seconds to minutes before
            the first step, and gives the same numbers to rounding.
        start, jitter: See `Chained`.
        keep_rows: Where attention rows are random, whether draws of those of the training examples are kept beside the
            weights, default False: they are large, and predictions draw the rows of their inputs anew.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Neal, 2011, "MCMC using Hamiltonian dynamics"; starts at trained nets: Sommer et al., 2024, "Connecting the
        dots: is mode-connectedness the key to feasible sample-based inference in Bayesian neural networks?".
    """

    num_samples: int = 200
    warmup_steps: int = 200
    thinning: int = 1
    minutes: float | None = None
    temperature: float = 1.0
    compile: bool = False
    keep_rows: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "num_samples", "warmup_steps", "thinning")
        check_positive(self, "temperature")
        check(self, "minutes", self.minutes is None or 0 < self.minutes < math.inf, "a number above 0, or null")
        check(self, "num_samples", self.num_samples >= FEWEST, "at least 4 draws, which its diagnostics need")
        _ = self.kernel  # refuses its settings

    def repeats(self, start: Driver) -> bool:
        return isinstance(start, MCMC)

    @property
    @abstractmethod
    def kernel(self) -> Kernel:
        """How chains move."""

    def refusal(self, model: BayesianModel) -> str | None:
        name = choice_name(type(self))
        reason = refusal_of_rows(model, name) or not_all_random(model, name, "sample", rows=True)
        return reason or refusal(self.start, model, self.chains)

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        model.eval()  # the target is one density: dropout would draw another at every step
        numbers = count_numbers(model, data.x)
        if self.start is not None:
            Layout(model, (data.x, data.y))  # refuses before a net is trained
        starts = find(self.start, self.chains, model, guide, data, seed, monitor)
        model, began = starts.model.eval(), time.perf_counter()
        density = self._density(model, data)
        own = (seed_of(seed, chain) + 700_001 for chain in range(self.chains))  # beside those of the weights
        filled = [density.layout.with_rows(values, each) for values, each in zip(starts.values, own, strict=True)]
        z = torch.stack([density.flatten(values) for values in filled])
        z = jittered(z, self.jitter, seed)
        warn_of_queries(model)
        sampling = self._sampling(density, z, model, guide, data, seed, monitor)
        compiled = time.perf_counter() - began
        sampling.run()
        finishing = time.perf_counter()
        posterior = self._posterior(model, sampling, data)
        seconds = compiled + sampling.seconds + time.perf_counter() - finishing
        posterior.info["seconds"], posterior.info["compile_seconds"] = round(seconds, 2), round(compiled, 2)
        if numbers:
            posterior.info["row_numbers"] = numbers
        if starts.info:
            posterior.info["start"] = starts.info
        return posterior

    def _density(self, model: BayesianModel, data: Data) -> FlatDensity:
        steps = self.warmup_steps + self.num_samples * self.thinning
        trace = self.compile or steps >= WORTH_TRACING
        return FlatDensity(model, (data.x, data.y), temperature=self.temperature, compile=self.compile, trace=trace)

    def _sampling(
        self,
        density: FlatDensity,
        z: Tensor,
        model: BayesianModel,
        guide: Families | None,
        data: Data,
        seed: int,
        monitor: Monitor,
    ) -> Sampling:
        """The chains at their start, or where a checkpoint has them."""
        kept = self.resumed(model, guide, data, seed, monitor)
        folder = None if monitor.checkpoint is None else monitor.checkpoint.folder

        own = 2 * seed + 1  # beside the seeds of the nets where chains start

        def started(**tuning: Any) -> Sampling:
            counted = Counted(density.log_prob_and_grad)
            chains = Chains(counted, self.kernel, z, seed=own, warmup_steps=self.warmup_steps, **tuning)
            values = RowDraws(model, data, density.layout, self.keep_rows) if model.rows else density.unflatten
            stream = DrawStream(values, len(z), z.shape[1], folder)
            limit = math.inf if self.minutes is None else 60 * self.minutes
            return Sampling(chains, stream, self.num_samples, self.thinning, self.temperature, monitor, limit)

        if kept is not None:
            sampling = started(step_size=1.0)  # so that none is looked for: the state has it
            try:
                sampling.restore(*kept)
            except (FileNotFoundError, ValueError):  # a file of draws is lost
                assert monitor.checkpoint is not None
                monitor.checkpoint.clear()
            else:
                return sampling
        sampling = started(inverse_mass=prior_variances(model, density.layout, own))
        sampling.stream.restore(0, None)  # files of other work go
        return sampling

    def _posterior(self, model: BayesianModel, sampling: Sampling, data: Data) -> DrawsPosterior:
        statistics, warm = sampling.statistics(), sampling.warmup_seconds
        if not self.kernel.hamiltonian:
            statistics["energy_error"] = statistics.pop("energy")
        counted = sampling.chains.density
        assert isinstance(counted, Counted)
        draws, told = parted(sampling.stream.draws(), self.chains)
        posterior = DrawsPosterior(model, draws, chains=self.chains, statistics={**statistics, **told})
        if LOG_LIKELIHOOD not in told:
            posterior.statistics[LOG_LIKELIHOOD] = log_likelihoods(posterior, data).view(self.chains, -1)
        log_likelihood = posterior.statistics[LOG_LIKELIHOOD]
        posterior.info |= {
            "temperature": self.temperature,
            "chains": self.chains,
            "thinning": self.thinning,
            "exact": self.kernel.exact,
            **self._transitions(sampling),
            "acceptance": float(statistics["acceptance"].mean()),
            "step_size": sampling.chains.tuning.step_size,
            "gradients": counted.gradients,
            "warmup_seconds": round(warm, 2),
            "log_likelihood": convergence(log_likelihood),
            "guess_log_likelihood": guess_log_likelihood(data.y),
        }
        if sampling.interrupted:
            posterior.info["interrupted"] = {"draws": sampling.draws, "of": self.num_samples}
        elif sampling.late:
            posterior.info["out_of_time"] = {"draws": sampling.draws, "of": self.num_samples}
        return posterior

    def _transitions(self, sampling: Sampling) -> dict[str, Any]:
        """What all steps after warm-up tell, those between the draws that are kept as well, as plain data."""
        divergent, energy = sampling.every_step("divergent").sum(1), sampling.every_step("energy")
        found: dict[str, Any] = {
            "transitions": energy.numel(),
            "divergences": sampling.divergences,
            "divergences_by_chain": [int(count) for count in divergent],
        }
        if self.kernel.hamiltonian:
            found["e_bfmi"] = [value if math.isfinite(value) else None for value in e_bfmi(energy).tolist()]
        if isinstance(self.kernel, MCLMCKernel):
            realised = float(energy.square().mean()) / sampling.chains.position.z.shape[1]
            found["energy_variance"] = {"realised": realised, "asked": self.kernel.energy_variance}
        return found
