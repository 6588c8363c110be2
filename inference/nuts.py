"""The no-U-turn sampler, by Pyro's kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import MCMC
from pyro.infer import NUTS as PyroNUTS
from pyro.infer.autoguide.initialization import init_to_value
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from ..models import BayesianModel
from ..priors.settings import check, check_count, check_positive
from .data import Data
from .draws_posterior import DrawsPosterior
from .driver import Driver, Families, not_all_random
from .errors import InferenceError
from .monitor import Monitor
from .posterior import Posterior


@dataclass(frozen=True, kw_only=True)
class NUTS(Driver):
    r"""Draws from the exact posterior by the no-U-turn sampler with Pyro's kernel, on all data at once.

    .. math:: w_s \sim p(w \mid y)^{1/T} \propto \big(p(y \mid w)\, p(w)\big)^{1/T}

    Chains run one after another in this process, each from a net of its own. A run that was stopped goes on after the
    last chain that it finished.

    Args:
        num_samples: Draws kept from each chain, default 200.
        warmup_steps: Steps of adaptation before them, default 200.
        chains: Default 1.
        target_accept: Acceptance that the step size is adapted to, between 0 and 1, default 0.8.
        max_tree_depth: Default 8: trajectories of at most 255 steps.
        temperature: :math:`T > 0`, default 1.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Hoffman and Gelman, 2014, "The no-U-turn sampler"; `pyro.infer.NUTS`.
    """

    num_samples: int = 200
    warmup_steps: int = 200
    chains: int = 1
    target_accept: float = 0.8
    max_tree_depth: int = 8
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "num_samples", "warmup_steps", "chains", "max_tree_depth")
        check_positive(self, "temperature")
        check(self, "num_samples", self.num_samples >= 4, "at least 4 draws, which its diagnostics need")
        check(self, "target_accept", 0 < self.target_accept < 1, "a number between 0 and 1")

    def refusal(self, model: BayesianModel) -> str | None:
        if reason := not_all_random(model, "nuts", "sample"):
            return reason
        if self.chains > 1 and (reason := model.no_fresh_start):
            return f"a net that starts afresh for every chain (or 1 chain): {reason}"
        return None

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        started, chains, divergences, accepted, before = time.perf_counter(), [], 0, [], 0.0
        model.eval()  # the target is one density: dropout would draw another at every step
        for chain in range(self.chains):
            own = seed * 1_000_003 + chain
            start = model if chain == 0 else model.reinitialized(own)
            torch.manual_seed(own)
            with monitor.labelled(**({"chain": chain} if self.chains > 1 else {})):
                draws, facts = self._resumable_chain(model, start, data, own, monitor)
            chains.append(draws)
            divergences += facts["divergences"]
            accepted.append(facts["acceptance"])
            before += facts["seconds"] if facts["finished before"] else 0.0
        stacked = {name: torch.stack([draws[name] for draws in chains]) for name in chains[0]}
        log_likelihood = self._log_likelihood(model, stacked, data)
        info = {
            "seconds": round(before + time.perf_counter() - started, 2),
            "temperature": self.temperature,
            "chains": self.chains,
            "divergences": divergences,
            "acceptance": sum(accepted) / len(accepted),
            "log_likelihood": {
                "mean": float(log_likelihood.mean()),
                "sd": float(log_likelihood.std()),
                **_convergence(log_likelihood),
            },
        }
        return DrawsPosterior(model, {name: values.flatten(0, 1) for name, values in stacked.items()}, info)

    def _resumable_chain(
        self, model: BayesianModel, start: BayesianModel, data: Data, seed: int, monitor: Monitor
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A chain's draws, and facts about it; a chain that a checkpoint holds is not sampled again."""
        kept, started, first = self.resumed(start, None, data, seed, monitor), time.perf_counter(), len(monitor.history)
        if kept is not None:
            draws, content = kept
            for record in content["records"]:
                monitor.record(record)
            return draws, {**content, "finished before": True}
        draws, diagnostics = self._chain(model, start.initial_values(), data, monitor)
        facts = {
            "divergences": sum(len(found) for found in diagnostics["divergences"].values()),
            "acceptance": diagnostics["mean acceptance"],
            "seconds": time.perf_counter() - started,
        }
        if monitor.checkpoint is not None:
            monitor.checkpoint.save(draws, {**facts, "records": monitor.history[first:]})
        return draws, {**facts, "finished before": False}

    def _chain(
        self, model: BayesianModel, start: Mapping[str, Tensor], data: Data, monitor: Monitor
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        total, acceptance = self.num_samples + self.warmup_steps, 0.0

        def hook(kernel: PyroNUTS, draws: Any, stage: str, index: int) -> None:
            nonlocal acceptance
            acceptance = float(kernel._mean_accept_prob)  # the kernel forgets it when the run ends
            if not kernel._potential_energy_last == kernel._potential_energy_last:
                raise InferenceError(f"{stage} {index + 1}: the potential energy is NaN")
            state = f"{stage.lower()}  step {kernel.step_size:.2e}  accept {kernel._mean_accept_prob:.2f}"
            monitor.step(f"{state}  divergences {len(kernel._divergences)}")
            monitor.record(
                {
                    "draw": index + 1,
                    "stage": stage.lower(),
                    "log_joint": -self.temperature * float(kernel._potential_energy_last),
                    "step_size": float(kernel.step_size),
                    "acceptance": acceptance,
                }
            )

        kernel = PyroNUTS(
            model if self.temperature == 1 else poutine.scale(model, scale=1 / self.temperature),
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
            init_strategy=init_to_value(values=dict(start)),
        )
        mcmc = MCMC(
            kernel,
            num_samples=self.num_samples,
            warmup_steps=self.warmup_steps,
            hook_fn=hook,
            disable_progbar=True,
        )
        with monitor.stage("sampling", total), pyro.validation_enabled(False):
            try:
                mcmc.run(data.x, data.y)
            except ValueError as error:
                if "initial params" not in str(error):
                    raise
                raise InferenceError("the log joint density is not finite where sampling starts") from None
        # Pyro's own "acceptance rate" counts accepted draws, which for this sampler are all of them
        return mcmc.get_samples(), {**mcmc.diagnostics(), "mean acceptance": acceptance}

    @staticmethod
    def _log_likelihood(model: BayesianModel, stacked: dict[str, Tensor], data: Data) -> Tensor:
        """Log-likelihood of all data at every draw, ``[chains, draws]``."""
        values = []
        chains, draws = next(iter(stacked.values())).shape[:2]
        for index in range(chains * draws):
            one = {name: v[index // draws, index % draws] for name, v in stacked.items()}
            with torch.no_grad(), poutine.block(), poutine.trace() as tracer:
                poutine.condition(model, data=one)(data.x, data.y)
            site = tracer.trace.nodes["obs"]
            values.append(site["fn"].log_prob(site["value"]).sum())
        return torch.stack(values).view(chains, draws)


def _convergence(values: Tensor) -> dict[str, float]:
    """Effective sample size and split R-hat of ``[chains, draws]``."""
    if values.shape[1] < 4:
        return {}
    return {
        "effective_samples": float(effective_sample_size(values)),
        "r_hat": float(split_gelman_rubin(values)),
    }
