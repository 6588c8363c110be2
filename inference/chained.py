"""What drivers of Markov chains share: how many chains there are, and where each starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..guides import Guide
from ..models import BayesianModel
from ..priors.settings import SettingError, check, check_count
from .chain_starts import bare, one_each
from .deep_ensemble import DeepEnsemble
from .driver import Driver, Families
from .point import MAP


@dataclass(frozen=True, kw_only=True)
class Chained(Driver):
    """A driver of Markov chains that run side by side in this process, each from a start of its own.

    Args:
        chains: ``K``: how many, default 4.
        start: Where chains start. None (default): the first at the net as it is, the others at nets that start afresh.
            ``prior``: each at a draw of the prior. ``ml`` or ``map``: each at a net of its own that is trained.
            ``deep_ensemble``: each at a member of its own, of which there are enough. Another driver, such as ``svi``:
            at draws of its posterior; the guide of the spec is then for it. Priors around the net's weights
            (`Pretrained`) move to the net of the first chain where nets are trained.
        jitter: Standard deviation of the normal noise that is added to the unconstrained numbers where a chain starts,
            at least 0, default 0.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.
    """

    chains: int = 4
    start: Driver | Literal["prior"] | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "chains")
        check(self, "jitter", 0 <= self.jitter < math.inf, "a number of at least 0")
        self._check_start()

    def _check_start(self) -> None:
        start = self.start
        if not isinstance(start, Driver):
            check(self, "start", start in (None, "prior"), "prior, a driver, or null")
            return
        inner = one_each(start) or start
        check(self, "start", not self.repeats(inner), "a driver that runs no chains itself, such as ml or svi")
        check(self, "start", start.place == self.place, "a driver with the same device and dtype")
        enough = not isinstance(start, DeepEnsemble) or start.size >= self.chains
        check(self, "start", enough, f"an ensemble of at least {self.chains} members: one for each chain")
        draws = getattr(start, "chains", 1) * getattr(start, "num_samples", self.chains)
        check(self, "start", draws >= self.chains, f"a driver with at least {self.chains} draws: one for each chain")

    def repeats(self, start: Driver) -> bool:
        """Whether a start does what this driver does itself."""
        return isinstance(start, Chained)

    @property
    def needs_guide(self) -> bool:
        return isinstance(self.start, Driver) and self.start.needs_guide

    @property
    def starts_from(self) -> Driver | None:
        if not isinstance(self.start, Driver):
            return None
        inner = one_each(self.start) or self.start
        return inner if isinstance(inner, MAP) else inner.starts_from

    @property
    def moves_centers(self) -> bool:
        if not isinstance(self.start, Driver):
            return False
        inner = one_each(self.start) or self.start
        return isinstance(inner, MAP) or inner.moves_centers

    def check(self, model: BayesianModel, guide: Families | None) -> None:
        super().check(model, guide)
        if isinstance(guide, Guide):
            raise SettingError("guide", "Guide", "families: it is made for the start of the chains")
        if isinstance(self.start, Driver):
            self.start.check(bare(self.start, model), guide)
