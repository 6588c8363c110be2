"""Deep ensembles."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..models import BayesianModel
from ..priors.settings import SettingError, check, check_count
from .data import Data
from .driver import Driver, Families, check_place
from .mixture_posterior import MixturePosterior
from .monitor import Monitor
from .point import ML
from .posterior import Posterior


@dataclass(frozen=True, kw_only=True)
class DeepEnsemble(Driver):
    r"""The same driver from several starts; predictions are averaged.

    .. math:: p(y \mid x) = \tfrac1M \sum_m p_m(y \mid x)

    Args:
        member: The driver of every member, default ``ML()``. Member ``m`` starts from a net of its own, with a seed of
            its own, and with its own ``device`` and ``dtype``. With ``swag`` it is MultiSWAG. All members have one
            prior, but for what each learns or trains of its own: with ``svi`` or ``ivon`` that start from a trained
            net, a prior around the net's weights (`Pretrained`) is around another net in every member, and the mixture
            is of posteriors under different priors.
        size: Number of members ``M``, at least 1, default 5.
        device, dtype: Those of the members are used; these must be left at their defaults.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Lakshminarayanan et al., 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles";
        Wilson and Izmailov, 2020, "Bayesian deep learning and a probabilistic perspective of generalization", Sec. 3.
    """

    member: Driver = field(default_factory=ML)
    size: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "size")
        check(self, "member", not isinstance(self.member, DeepEnsemble), "a driver that is no ensemble itself")
        check_place(self, "member")

    @property
    def place(self) -> tuple[torch.device, torch.dtype]:
        return self.member.place

    @property
    def needs_guide(self) -> bool:
        return self.member.needs_guide

    @property
    def treatment(self) -> str:
        return self.member.treatment

    @property
    def members(self) -> int:
        return self.size

    @property
    def starts_from(self) -> Driver | None:
        return self.member.starts_from

    @property
    def moves_centers(self) -> bool:
        return self.member.moves_centers

    def refusal(self, model: BayesianModel) -> str | None:
        if reason := model.no_fresh_start:
            return f"a net that starts afresh for every member: {reason}"
        return self.member.refusal(model)

    def check(self, model: BayesianModel, guide: Families | None) -> None:
        super().check(model, guide)
        if guide is not None and hasattr(guide, "model"):
            raise SettingError(
                "guide", type(guide).__name__, "a family, or a map of families: every member makes its own"
            )

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        members = []
        for index in range(self.size):
            # far apart, so that the ensembles of neighbouring seeds share no member
            own = seed * 1_000_003 + index
            with monitor.labelled(member=index):
                members.append(self.member.run(model.reinitialized(own), guide, data, own, monitor))
            if "interrupted" in members[-1].info:  # it ends early, and so does the ensemble
                raise KeyboardInterrupt
        return MixturePosterior(members, {"members": [member.info for member in members]})
