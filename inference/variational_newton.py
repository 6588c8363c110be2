"""The steps of IVON: Newton's method for the mean and the scales of a normal distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class VariationalNewton(torch.optim.Optimizer):
    r"""An optimizer of the location and the log-scale of independent normal entries.

    With the gradients of the expected loss :math:`\bar\ell = E_q[\ell(\theta)]`, which the reparameterised draw
    :math:`\theta = m + \sigma \odot \epsilon` gives,

    .. math:: \hat g = \partial \bar\ell / \partial m, \qquad
              \hat h = \frac{\partial \bar\ell / \partial \ln\sigma}{\sigma^2}
                     = E\Big[\nabla \ell(\theta)\, \frac{\theta - m}{\sigma^2}\Big]

    estimate the gradient and the diagonal of the Hessian, and a step is

    .. math:: g &\leftarrow \beta_1 g + (1 - \beta_1) \hat g \\
              h &\leftarrow \beta_2 h + (1 - \beta_2) \hat h
                    + \tfrac12 (1 - \beta_2)^2 \frac{(h - \hat h)^2}{h + \delta} \\
              m &\leftarrow m - \alpha\, \frac{g / (1 - \beta_1^t) + \delta (m - \mu)}{h + \delta} \\
              \sigma &\leftarrow \big(\lambda (h + \delta)\big)^{-1/2}

    The last term of the second line keeps :math:`h + \delta` above 0 without any clipping.

    Args:
        parameters: Location and log-scale, ``[P]`` each; the log-scale is set to what the first Hessian says.
        learning_rate: :math:`\alpha`.
        beta1, beta2: The decay of the two averages.
        hess_init: :math:`h` at the start.
        decay: :math:`\delta`, ``[P]``: the prior's precision over the number of examples.
        center: :math:`\mu`, ``[P]``: the prior's location.
        effective_size: :math:`\lambda`: how many examples the loss, which is that of one, counts for.
        clip_radius: Largest size of an entry of the step before the learning rate, or None for any.

    Reference:
        Shen et al., 2024 (arXiv 2402.17641), Algorithm 1 (its weight decay there is towards 0).
    """

    def __init__(
        self,
        parameters: tuple[nn.Parameter, nn.Parameter],
        *,
        learning_rate: float,
        beta1: float,
        beta2: float,
        hess_init: float,
        decay: Tensor,
        center: Tensor,
        effective_size: float,
        clip_radius: float | None = None,
    ):
        super().__init__(list(parameters), {"lr": learning_rate})
        self.beta1, self.beta2, self.clip_radius = beta1, beta2, clip_radius
        self.decay, self.center, self.effective_size = decay, center, effective_size
        loc, log_scale = parameters
        hessian = torch.full_like(loc, hess_init)
        self.state[loc] = {"steps": 0, "momentum": torch.zeros_like(loc), "hessian": hessian}
        with torch.no_grad():
            log_scale.copy_(self.log_scale(hessian))

    def log_scale(self, hessian: Tensor) -> Tensor:
        """The log-scale that belongs to a Hessian."""
        return -0.5 * (self.effective_size * (hessian + self.decay)).log()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step, from the gradients of both parameters."""
        (group,) = self.param_groups
        loc, log_scale = group["params"]
        state: dict[str, Any] = self.state[loc]
        estimate = log_scale.grad * (-2 * log_scale).exp()
        old, new = state["hessian"], 1 - self.beta2
        correction = 0.5 * new**2 * (old - estimate).square() / (old + self.decay)
        hessian = self.beta2 * old + new * estimate + correction
        state["steps"] += 1
        state["hessian"] = hessian
        state["momentum"] = self.beta1 * state["momentum"] + (1 - self.beta1) * loc.grad
        gradient = state["momentum"] / (1 - math.pow(self.beta1, state["steps"]))
        step = (gradient + self.decay * (loc - self.center)) / (hessian + self.decay)
        if self.clip_radius is not None:
            step = step.clamp(-self.clip_radius, self.clip_radius)
        loc.sub_(group["lr"] * step)
        log_scale.copy_(self.log_scale(hessian))
