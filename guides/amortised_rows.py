"""Amortised posteriors over attention rows: what every family of rows has in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..priors import SettingError, choice_name
from ..priors.settings import check_option, check_positive
from .family import Distribution, Family, LatentSite, Message


class AmortisedRows(Family):
    r"""Rows around softmax attention, from the scores that their layer offers.

    .. math:: q(A_i \mid x) = q(A_i \mid \mathrm{softmax}(Z_i), \alpha), \qquad Z = QK^\top / \sqrt{d}

    Nothing is learned for a single example: only the sharpness :math:`\alpha` is the guide's. As it grows without bound
    rows become softmax attention, in every family.

    Args:
        sharpness: :math:`\alpha` at the start, above 0.
        shared: What shares one :math:`\alpha`: ``head`` (default: each head of each layer has its own), ``layer`` or
            ``global``.

    Raises:
        SettingError: A setting is out of range.
    """

    local = True
    space: ClassVar[Literal["simplex", "positive"]] = "simplex"
    """What it draws: rows, or positive entries that are normalised to rows; see `RowPrior`."""

    def __init__(self, *, sharpness: float, shared: Literal["global", "layer", "head"] = "head"):
        super().__init__()
        self.sharpness, self.shared = sharpness, shared
        check_positive(self, "sharpness")
        check_option(self, "shared", ("global", "layer", "head"))

    @abstractmethod
    def around(self, scores: Tensor, mask: Tensor | None, sharpness: Tensor) -> Distribution:
        """The posterior of rows.

        Args:
            scores: ``[..., B, H, T, S]``.
            mask: Valid entries, broadcastable to them, or None when all are.
            sharpness: :math:`\\alpha`, ``[H, 1, 1]`` or ``[1, 1, 1]``.

        Returns:
            A distribution with event shape ``[S]``.
        """

    def check(self, name: str, site: Message, shape: torch.Size) -> None:
        if "scores" not in site["infer"]:
            raise SettingError("", name, "attention rows, which offer their scores: no other site has a softmax")
        law = site["infer"].get("law")
        space = "simplex" if law is None else law.space
        if space != self.space:
            drawn = "rows" if space == "simplex" else "positive entries"
            fitting = " or ".join(sorted(choice_name(cls) for cls in families() if cls.space == space))
            expected = f"{fitting} for {name}: its prior {choice_name(type(law))} is one of {drawn}"
            raise SettingError("", choice_name(type(self)), expected)

    def setup(self, sites: dict[str, LatentSite]) -> None:
        start = math.log(self.sharpness)
        like = next(iter(sites.values())).value
        groups = {name: "0" if self.shared == "global" else str(index) for index, name in enumerate(sites)}
        self.groups = groups
        self.log_sharpness = nn.ParameterDict()
        for name, site in sites.items():
            heads = site.value.shape[-3] if self.shared == "head" else 1
            self.log_sharpness[groups[name]] = nn.Parameter(like.new_full((heads, 1, 1), start))

    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        scores, mask = msg["infer"]["scores"], msg["infer"]["mask"]
        sharpness = self.log_sharpness[self.groups[name]].exp()
        return self.around(scores, mask, sharpness).to_event(2), None

    def summary(self) -> dict[str, Any]:
        return {
            "sharpness": {
                name: [round(float(a), 4) for a in self.log_sharpness[group].detach().exp().flatten()]
                for name, group in self.groups.items()
            }
        }


def families() -> list[type[AmortisedRows]]:
    """Every family of rows."""
    found = list(AmortisedRows.__subclasses__())
    for cls in found:
        found.extend(cls.__subclasses__())
    return found
