"""How far predictions are from those of a reference posterior, whatever the labels are."""

from __future__ import annotations

from torch import Tensor

from .checks import real, refuse, simplex


def agreement(probabilities: Tensor, reference: Tensor) -> Tensor:
    r"""Share of examples whose most probable class (the first one of a tie) is that of the reference.

    :Args: probabilities and reference, both ``[N, C]``, rows summing to 1 within 1e-3.
    :Returns: :math:`\frac1N \sum_n 1[\arg\max_c p_{nc} = \arg\max_c r_{nc}]`, ``[]``, in [0, 1].
    :Raises: ValueError for a wrong type, unequal shapes, a wrong value, NaN, or no examples.
    :Reference: Wilson et al. (2022), Evaluating approximate inference in Bayesian deep learning, PMLR 176."""
    p, r = _pair(probabilities, reference)
    return (p.argmax(-1) == r.argmax(-1)).double().mean()


def total_variation(probabilities: Tensor, reference: Tensor) -> Tensor:
    r"""Total variation distance of predictive distributions from those of the reference, mean over examples.

    :Args: probabilities and reference, as in :func:`agreement`.
    :Returns: :math:`\frac1N \sum_n \frac12 \sum_c |p_{nc} - r_{nc}|`, ``[]``, in [0, 1]; 0 for equal predictions.
    :Raises: ValueError for a wrong type, unequal shapes, a wrong value, NaN, or no examples.
    :Reference: Wilson et al. (2022), Evaluating approximate inference in Bayesian deep learning, PMLR 176."""
    p, r = _pair(probabilities, reference)
    return (p - r).abs().sum(-1).mean() / 2


def normal_wasserstein(mean: Tensor, sd: Tensor, reference_mean: Tensor, reference_sd: Tensor) -> Tensor:
    r"""2-Wasserstein distance between normals with these moments, in standard deviations of the reference.

    Of predictive distributions that are not normal it is a lower bound on the distance. It is averaged over examples
    and outputs.

    :Args: mean, sd, reference_mean and reference_sd, all ``[N]`` or all ``[N, D]``, sds above 0.
    :Returns: :math:`\frac1{ND} \sum_{nd} \sqrt{(\mu_{nd} - m_{nd})^2 + (\sigma_{nd} - s_{nd})^2} / s_{nd}`, ``[]``,
        where :math:`m, s` are those of the reference; 0 for equal moments.
    :Raises: ValueError for a wrong type, unequal shapes, an sd at or below 0, NaN or infinities, or no examples.
    :Reference: Gelbrich (1990), On a formula for the L2 Wasserstein metric, theorem 2.1."""
    mean = real("mean", mean, "[N] or [N, D]")
    others = (("sd", sd), ("reference_mean", reference_mean), ("reference_sd", reference_sd))
    sd, reference_mean, reference_sd = (real(name, values, mean.shape) for name, values in others)
    for name, values in (("sd", sd), ("reference_sd", reference_sd)):
        refuse(name, values, values <= 0, "standard deviations above 0")
    distance = ((mean - reference_mean).square() + (sd - reference_sd).square()).sqrt()
    return (distance / reference_sd).mean()


def _pair(probabilities: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    p, r = simplex("probabilities", probabilities, "[N, C]"), simplex("reference", reference, "[N, C]")
    real("reference", r, p.shape)
    return p, r
