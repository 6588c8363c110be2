"""Dropout at a given rate as a posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from ..priors.settings import check
from .dropout import Dropout


class MCDropout(Dropout):
    r"""Weights whose inputs are dropped at one given rate.

    .. math:: W = M\, \mathrm{diag}(z / (1 - p)), \qquad z_j \sim \mathrm{Bernoulli}(1 - p)

    with one :math:`z_j` for every input of every weight matrix: a draw is one mask for all examples, one function. What
    is kept is divided by :math:`1 - p`, so that :math:`M = E[W]`. Biases, gains and tables are point masses. The KL is
    that of mixtures of two narrow normals, up to a constant:

    .. math:: \mathrm{KL} = -E_q[\log p(W)] - D\, H(p), \qquad H(p) = -p \ln p - (1 - p) \ln (1 - p)

    where for a prior :math:`\mathcal N(0, \sigma^2)` the first term is, up to a constant,
    :math:`|M|^2 / (2 \sigma^2 (1 - p))`: weight decay. With :math:`M' = M / (1 - p)`, which scales what is kept by
    nothing, it is :math:`(1 - p) |M'|^2 / (2 \sigma^2)`. Under other priors it is estimated by the draw. In training a
    batch has one mask by the estimator ``shared`` of SVI, and every sequence has its own by the others.

    Args:
        rate: The share :math:`p` of inputs that are dropped, above 0 and below 1, default 0.1 (a reconstruction).

    Raises:
        SettingError: ``rate`` is not between 0 and 1; or no site is a weight matrix with a prior on all real numbers.

    Reference:
        Gal and Ghahramani, 2016, "Dropout as a Bayesian approximation", Eq. 7 and appendix, Sec. 3.2.
    """

    def __init__(self, *, rate: float = 0.1):
        super().__init__()
        self.rate = rate
        check(self, "rate", 0 < rate < 1, "a share of the inputs, above 0 and below 1")

    def rate_of(self, name: str) -> Tensor:
        return self.matrix_of(name).new_tensor(self.rate)

    def kept(self, name: str, shape: torch.Size) -> Tensor:
        return torch.bernoulli((1 - self.rate_of(name)).expand(shape))
