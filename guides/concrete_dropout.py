"""Dropout at rates that are learned."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..priors.settings import check, check_positive
from .dropout import Dropout
from .family import LatentSite

END = 1e-4
"""How near a rate may come to 0 and 1, where its logarithms and the scale of what is kept would overflow."""


class ConcreteDropout(Dropout):
    r"""Weights whose inputs are dropped at a rate that is learned for every weight matrix.

    .. math:: W = M\, \mathrm{diag}(z / (1 - p)), \qquad
        z_j = 1 - \mathrm{sigmoid}\Big(\frac1t \Big(\ln \frac{p}{1 - p} + \ln \frac{u_j}{1 - u_j}\Big)\Big), \qquad
        u_j \sim \mathrm{Uniform}(0, 1)

    with one :math:`z_j` for every input: near 0 or 1 for small temperatures :math:`t`, and a smooth function of
    :math:`p`. Draws for predictions are of the same distribution, one mask for all examples. What is kept is divided by
    :math:`1 - p`. The KL, up to a constant and for a prior :math:`\mathcal N(0, \sigma^2)`, is that of masks of zeros
    and ones:

    .. math:: \mathrm{KL} = \frac{|M|^2}{2 \sigma^2 (1 - p)} - D\, H(p), \qquad H(p) = -p \ln p - (1 - p) \ln (1 - p)

    with the inputs counted by :math:`D`; with :math:`M' = M / (1 - p)`, which scales what is kept by nothing, the first
    term is :math:`(1 - p) |M'|^2 / (2 \sigma^2)`. Under other priors it is estimated by the draw. Rates stay between
    1e-4 and 1 - 1e-4. Biases, gains and tables are point masses. In training a batch has one mask by the estimator
    ``shared`` of SVI, and every sequence has its own by the others.

    Args:
        rate: Every :math:`p` at the start, default 0.1 (a reconstruction).
        temperature: :math:`t > 0`, default 0.1.

    Raises:
        SettingError: A setting is out of range; or no site is a weight matrix with a prior on all real numbers.

    Reference:
        Gal, Hron and Kendall, 2017, "Concrete dropout", Eq. 3 and 5.
    """

    def __init__(self, *, rate: float = 0.1, temperature: float = 0.1):
        super().__init__()
        self.rate, self.temperature = rate, temperature
        check(self, "rate", END < rate < 1 - END, f"a share of the inputs, above {END:g} and below {1 - END:g}")
        check_positive(self, "temperature")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        super().setup(sites)
        like = next(site.value for name, site in sites.items() if name in self.inputs)
        share = (self.rate - END) / (1 - 2 * END)
        self.indices = {name: str(index) for index, name in enumerate(self.inputs)}
        start = math.log(share / (1 - share))
        self.logits = nn.ParameterDict({index: nn.Parameter(like.new_tensor(start)) for index in self.indices.values()})

    def rate_of(self, name: str) -> Tensor:
        # squeezed, not clamped: a rate at an end keeps a slope that leads back
        return END + (1 - 2 * END) * self.logits[self.indices[name]].sigmoid()

    def kept(self, name: str, shape: torch.Size) -> Tensor:
        rate = self.rate_of(name)
        uniform = torch.rand(shape, dtype=rate.dtype, device=rate.device)
        noise = uniform.logit(eps=torch.finfo(rate.dtype).eps)
        return torch.sigmoid(-(rate.logit() + noise) / self.temperature)

    def summary(self) -> dict[str, Any]:
        return {"rate": {name: round(float(rate.detach()), 4) for name, rate in self.rates.items()}}
