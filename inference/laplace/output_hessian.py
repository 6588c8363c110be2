"""Square roots of the Hessian of the negative log-likelihood with respect to a net's outputs."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from ...models import Categorical, Gaussian, Likelihood
from ...models.likelihoods import IGNORED


@singledispatch
def exact_roots(likelihood: Likelihood, outputs: Tensor, y: Tensor) -> Tensor:
    r"""Columns :math:`l_k` of a square root of the Hessian of every example.

    .. math:: \sum_k l_k l_k^\top = -\nabla_f^2 \log p(y \mid f), \qquad
        \mathrm{diag}(p) - p p^\top = \sum_k p_k (e_k - p)(e_k - p)^\top, \qquad \sigma^{-2} I

    for softmax and normal noise. Neither depends on what was observed.

    Args:
        likelihood: The likelihood; a new one registers its own root.
        outputs: ``[B, ...]``.
        y: Observations; of a token that is not observed the Hessian is 0.

    Returns:
        ``[K, B, ...]``.

    Raises:
        TypeError: No root is registered for the likelihood.

    Reference:
        Schraudolph, 2002, "Fast curvature matrix-vector products for second-order gradient descent", Sec. 3.1.
    """
    raise TypeError(f"no output Hessian is registered for a {type(likelihood).__name__} likelihood")


@singledispatch
def sampled_roots(likelihood: Likelihood, outputs: Tensor, y: Tensor, num_samples: int) -> Tensor:
    r"""Scores of observations drawn from the net's own predictions: in expectation a square root of the Hessian.

    .. math:: E\big[\nabla_f \log p(\tilde y \mid f)\, \nabla_f \log p(\tilde y \mid f)^\top\big]
              = -E\,\nabla_f^2 \log p(\tilde y \mid f), \qquad \tilde y \sim p(\cdot \mid f)

    Args:
        likelihood, outputs, y: See `exact_roots`.
        num_samples: Draws for each example.

    Returns:
        ``[num_samples, B, ...]``, divided by the root of their number.

    Reference:
        Martens and Grosse, 2015, "Optimizing neural networks with Kronecker-factored approximate curvature", Sec. 2.
    """
    raise TypeError(f"no output Hessian is registered for a {type(likelihood).__name__} likelihood")


def knows(likelihood: Likelihood) -> bool:
    """Whether the output Hessian of a likelihood is known."""
    return exact_roots.dispatch(type(likelihood)) is not exact_roots.dispatch(object)


@exact_roots.register(Categorical)
def _(likelihood: Categorical, outputs: Tensor, y: Tensor) -> Tensor:
    p = outputs.softmax(-1)
    size = p.shape[-1]
    eye = torch.eye(size, dtype=p.dtype, device=p.device)
    roots = (p.sqrt().unsqueeze(-1) * (eye - p.unsqueeze(-2))).movedim(-2, 0)  # [C, B, C] or [C, B, T, C]
    if not likelihood.per_token:
        return roots
    roots = roots * (y != IGNORED).unsqueeze(-1)
    tokens = torch.eye(p.shape[-2], dtype=p.dtype, device=p.device)  # a column sees one token
    return (roots.unsqueeze(1) * tokens[:, None, :, None]).flatten(0, 1)  # [C * T, B, T, C]


@exact_roots.register(Gaussian)
def _(likelihood: Gaussian, outputs: Tensor, y: Tensor) -> Tensor:
    size = outputs.shape[-1]
    eye = torch.eye(size, dtype=outputs.dtype, device=outputs.device)
    return (eye.unsqueeze(1) / likelihood.log_scale.detach().exp()).expand(size, *outputs.shape)


@sampled_roots.register(Categorical)
def _(likelihood: Categorical, outputs: Tensor, y: Tensor, num_samples: int) -> Tensor:
    p = outputs.softmax(-1)
    drawn = torch.distributions.OneHotCategorical(probs=p, validate_args=False).sample((num_samples,))
    scores = (drawn - p) / num_samples**0.5
    return scores * (y != IGNORED).unsqueeze(-1) if likelihood.per_token else scores


@sampled_roots.register(Gaussian)
def _(likelihood: Gaussian, outputs: Tensor, y: Tensor, num_samples: int) -> Tensor:
    noise = torch.randn(num_samples, *outputs.shape, dtype=outputs.dtype, device=outputs.device)
    return noise / (likelihood.log_scale.detach().exp() * num_samples**0.5)
