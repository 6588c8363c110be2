"""Amortised Dirichlet posterior over attention rows."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..priors import MaskedDirichlet, SettingError
from ..priors.rows import masked_softmax
from ..priors.settings import check_option, check_positive
from .family import Distribution, Family, LatentSite, Message


class DirichletRows(Family):
    r"""Dirichlet rows around softmax attention.

    .. math:: q(A_i \mid x) = \mathrm{Dir}\big(\alpha\, \mathrm{softmax}(Z_i) + \epsilon\big), \qquad Z = QK^\top /
    \sqrt{d}

    At :math:`\epsilon = 0` the mean is softmax attention and the variance :math:`P(1-P)/(\alpha+1)`, so
    :math:`\alpha \to \infty` recovers it. Nothing is learned for a single example: only :math:`\alpha` is the guide's.

    Args:
        sharpness: :math:`\alpha` at the start, above 0, default 30.
        floor: :math:`\epsilon > 0`, default 0.01.
        shared: What shares one :math:`\alpha`: ``head`` (default: each head of each layer has its own), ``layer`` or
            ``global``.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        A reconstruction of Cinquin et al., 2021 (arXiv 2110.04020).
    """

    local = True

    def __init__(
        self,
        *,
        sharpness: float = 30.0,
        floor: float = 0.01,
        shared: Literal["global", "layer", "head"] = "head",
    ):
        super().__init__()
        self.sharpness, self.floor, self.shared = sharpness, floor, shared
        check_positive(self, "sharpness", "floor")
        check_option(self, "shared", ("global", "layer", "head"))

    def check(self, name: str, site: Message, shape: torch.Size) -> None:
        if "scores" not in site["infer"]:
            raise SettingError("", name, "attention rows, which offer their scores: no other site has a softmax")

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
        alpha = self.log_sharpness[self.groups[name]].exp()
        concentration = alpha * masked_softmax(scores, mask) + self.floor
        return MaskedDirichlet(concentration, mask, validate_args=False).to_event(2), None

    def summary(self) -> dict[str, Any]:
        return {
            "sharpness": {
                name: [round(float(a), 4) for a in self.log_sharpness[group].detach().exp().flatten()]
                for name, group in self.groups.items()
            }
        }
