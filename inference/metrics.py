"""Metrics of predictions, as functions of tensors.

``N`` examples, ``C`` classes, ``S`` samples, ``D`` outputs; ``[]`` is one number. Results are float64, logs natural."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-3  # how far from 1 probabilities may sum, and how far below 0 a mutual information may round


def accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Fraction of examples whose most probable class (the first one of a tie) is the label.

    :Args: probabilities ``[N, C]``, rows summing to 1 within 1e-3; labels ``[N]``, int64 or int32, 0 to C - 1.
    :Returns: :math:`\frac1N \sum_n 1[\arg\max_c p_{nc} = y_n]`, ``[]``, in [0, 1].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, section 2.4 (0-1 loss)."""
    p, y = _classified(probabilities, labels)
    return (p.argmax(-1) == y).double().mean()


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Mean negative log probability of the labels, clamped at the smallest positive (normal) float of the dtype given.

    :Args: probabilities ``[N, C]``, rows summing to 1 within 1e-3; labels ``[N]``, int64 or int32, 0 to C - 1.
    :Returns: :math:`-\frac1N \sum_n \log \max(p_{n y_n}, \epsilon)`, ``[]``; epsilon is 1.2e-38 (87.3 nats) in float32.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Gneiting and Raftery (2007), Strictly proper scoring rules, section 3 (logarithmic score)."""
    p, y = _classified(probabilities, labels)
    return -p.gather(-1, y[:, None]).clamp(min=torch.finfo(probabilities.dtype).tiny).log().mean()


def brier(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Multiclass Brier score: the squared error summed over classes (not halved, not averaged), mean over examples.

    :Args: probabilities ``[N, C]``, rows summing to 1 within 1e-3; labels ``[N]``, int64 or int32, 0 to C - 1.
    :Returns: :math:`\frac1N \sum_n \sum_c (p_{nc} - 1[y_n = c])^2`, ``[]``, in [0, 2].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Brier (1950), Verification of forecasts expressed in terms of probability, equation 2."""
    p, y = _classified(probabilities, labels)
    return (p - torch.nn.functional.one_hot(y, p.shape[-1])).square().sum(-1).mean()


@dataclass(frozen=True, eq=False)
class Reliability:
    """Top-label confidence against accuracy by bin; both are NaN where a bin is empty."""

    count: Tensor  # [bins], int64
    confidence: Tensor  # [bins], mean within the bin
    accuracy: Tensor  # [bins]
    edges: Tensor  # [bins + 1], from 0 to 1


def reliability(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> Reliability:
    r"""The reliability diagram of the top label, over equal-width, right-closed bins (lo, hi] of its probability.

    :Args: probabilities ``[N, C]`` and labels ``[N]``, as in :func:`accuracy`; bins, 1 or more (15: the paper's).
    :Returns: edges e; size, mean :math:`m_n = \max_c p_{nc}`, accuracy of :math:`B_b = \{n : e_{b-1} < m_n \le e_b\}`.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Guo et al. (2017), arXiv:1706.04599, section 2."""
    p, y = _classified(probabilities, labels)
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins is {bins!r}: expected a whole number, 1 or more")
    top, predicted = p.detach().clamp(max=1).max(-1)
    edges = torch.arange(bins + 1, dtype=torch.float64, device=p.device) / bins
    # A float32 0.2 lies above the float64 0.2: only edges rounded as p was put it on its edge.
    index = torch.bucketize(top, edges[1:-1].to(probabilities.dtype).double())
    count, confidence, hits = (torch.bincount(index, w, bins) for w in (None, top, (predicted == y).double()))
    return Reliability(count, confidence / count, hits / count, edges)


def calibration_error(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    r"""Expected calibration error (ECE) of the top label, over equal-width, right-closed bins (lo, hi].

    :Args: probabilities ``[N, C]`` and labels ``[N]``, as in :func:`accuracy`; bins, 1 or more (15: the paper's).
    :Returns: :math:`\sum_b \frac{|B_b|}{N} |\mathrm{acc}(B_b) - \mathrm{conf}(B_b)|`, ``[]``, in [0, 1].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Guo et al. (2017), arXiv:1706.04599, equation 3."""
    by_bin = reliability(probabilities, labels, bins=bins)
    return (by_bin.count * (by_bin.accuracy - by_bin.confidence).abs()).nansum() / len(labels)  # NaN: an empty bin


def entropy(probabilities: Tensor, dim: int = -1) -> Tensor:
    r"""Shannon entropy in nats, with 0 log 0 = 0.

    :Args: probabilities ``[..., C, ...]``, summing to 1 over ``dim``; dim, the axis of the classes (default the last).
    :Returns: :math:`-\sum_c p_c \log p_c`, the shape of probabilities without ``dim``, in [0, log C].
    :Raises: ValueError for a wrong type or value, an axis that is not there, NaN, or an empty tensor.
    :Reference: Cover and Thomas (2006), Elements of Information Theory, equation 2.1."""
    return torch.special.entr(_simplex("probabilities", probabilities, "[...]", dim)).sum(dim).clamp(min=0)


def predictive_entropy(probabilities: Tensor) -> Tensor:
    r"""Entropy of the mean prediction: the total uncertainty about each label, in nats.

    :Args: probabilities ``[N, C]``, already averaged over samples, rows summing to 1 within 1e-3.
    :Returns: :math:`H[\frac1S \sum_s p_{sn}]`, ``[N]``, in [0, log C].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Depeweg et al. (2018), arXiv:1710.07283."""
    return entropy(_simplex("probabilities", probabilities, "[N, C]"))


def mutual_information(mean_probabilities: Tensor, expected_entropy: Tensor) -> Tensor:
    r"""Mutual information of label and model, in nats: the total uncertainty less the noise expected by the samples.

    :Args: mean_probabilities ``[N, C]``, rows summing to 1; expected_entropy ``[N]``, averaged over the same samples.
    :Returns: :math:`H[\frac1S \sum_s p_{sn}] - \frac1S \sum_s H[p_{sn}]`, ``[N]``, clamped at 0 (rounding, to -1e-3).
    :Raises: ValueError for a wrong type, shape or value, NaN, no examples, or an expected entropy above H[mean].
    :Reference: Houlsby et al. (2011), arXiv:1112.5745, equation 2."""
    total = entropy(_simplex("mean_probabilities", mean_probabilities, "[N, C]"))
    expected = _real("expected_entropy", expected_entropy, total.shape)  # over the same samples, at most total (Jensen)
    _refuse("expected_entropy", expected, (expected < -TOLERANCE) | (expected > total + TOLERANCE), "0 to H[mean]")
    return (total - expected).clamp(min=0)


def auroc(scores_negative: Tensor, scores_positive: Tensor) -> Tensor:
    r"""Area under the ROC curve by ranks: how often a positive outranks a negative, a tie counting half (Mann-Whitney).

    :Args: scores_negative ``[N]`` and scores_positive ``[M]``, on any scale (infinities too), higher for positives.
    :Returns: :math:`\frac1{NM} \sum_{nm} (1[s^+_m > s^-_n] + \frac12 1[s^+_m = s^-_n])`, ``[]``, exact, in [0, 1].
    :Raises: ValueError for a wrong type or shape, NaN, or an empty class.
    :Reference: Hanley and McNeil (1982), Radiology 143, 29-36."""
    negative = _real("scores_negative", scores_negative, "[N]", infinite=True).sort().values
    positive = _real("scores_positive", scores_positive, "[M]", infinite=True)
    twice = torch.searchsorted(negative, positive) + torch.searchsorted(negative, positive, right=True)
    return twice.sum().double() / (2 * len(negative) * len(positive))  # whole numbers: no rounding before this


def rmse(mean: Tensor, y: Tensor) -> Tensor:
    r"""Root of the mean squared error, over examples and outputs together, in the units of y.

    :Args: mean, the prediction, and y, both ``[N]`` or both ``[N, D]``: nothing is broadcast.
    :Returns: :math:`\sqrt{\frac1{ND} \sum_{nd} (\mu_{nd} - y_{nd})^2}`, ``[]``.
    :Raises: ValueError for a wrong type, unequal shapes, NaN or infinities, or no examples.
    :Reference: Hyndman and Koehler (2006), Another look at measures of forecast accuracy, section 2.1."""
    mean = _real("mean", mean, "[N] or [N, D]")
    return (mean - _real("y", y, mean.shape)).square().mean().sqrt()


def mixture_log_density(y: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    r"""Log density of an equal-weight Gaussian mixture, one component a sample, outputs independent within a sample.

    :Args: y ``[N, D]``; loc ``[S, N, D]``; scale, standard deviations that broadcast to loc (``[S, 1, 1]``, ``[D]``).
    :Returns: :math:`\log \frac1S \sum_s \prod_d N(y_{nd}; \mu_{snd}, \sigma_{snd}^2)`, ``[N]``.
    :Raises: ValueError for a wrong type or shape, a scale at or below 0, NaN or infinities, or an empty tensor.
    :Reference: Lakshminarayanan et al. (2017), arXiv:1612.01474, section 2.4 (the mixture itself, not its moments)."""
    loc, scale = _mixture(loc, scale)
    log_prob = torch.distributions.Normal(loc, scale, validate_args=False).log_prob(_real("y", y, loc.shape[1:]))
    return log_prob.sum(-1).logsumexp(0) - math.log(len(loc))


def mixture_quantile(level: float, loc: Tensor, scale: Tensor) -> Tensor:
    r"""Quantile of each marginal of an equal-weight Gaussian mixture, by bisection to 1e-6 of its smallest scale.

    :Args: level, inside (0, 1); loc ``[S, N, D]``; scale, standard deviations that broadcast to loc.
    :Returns: :math:`\inf \{x : \frac1S \sum_s \Phi((x - \mu_{snd}) / \sigma_{snd}) \ge \mathrm{level}\}`, ``[N, D]``.
    :Raises: ValueError for a wrong type or shape, a level or scale out of range, NaN or infinities, or an empty tensor.
    :Reference: Press et al. (2007), Numerical Recipes, section 9.1 (bisection)."""
    loc, scale = _mixture(loc, scale)
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"level is {level!r}: expected a float strictly between 0 and 1")
    component = loc + scale * torch.special.ndtri(loc.new_tensor(level))
    low, high = component.amin(0), component.amax(0)  # a mixture's quantile lies among those of its components
    upper, tolerance = level > 0.5, 1e-6 * scale.amin(0)  # upper: the smaller tail has the digits
    while True:
        middle = low + (high - low) / 2
        if not ((high - low > tolerance) & (middle > low) & (middle < high)).any():  # or no float is left between
            return middle
        z = (middle - loc if upper else loc - middle) / scale
        tail = 0.5 * torch.erfc(z * math.sqrt(0.5)).mean(0)  # torch.special.ndtr is 0 from -9 on
        below = tail > 1 - level if upper else tail < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)


def interval_coverage(y: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    r"""Fraction of observations inside their closed intervals, over examples and outputs together.

    :Args: y, lower and upper, all ``[N]`` or all ``[N, D]``; bounds may be infinite.
    :Returns: :math:`\frac1{ND} \sum_{nd} 1[l_{nd} \le y_{nd} \le u_{nd}]`, ``[]``, in [0, 1].
    :Raises: ValueError for a wrong type, unequal shapes, NaN, a lower above its upper, or no examples.
    :Reference: Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness."""
    y = _real("y", y, "[N] or [N, D]")
    lower, upper = (_real(k, x, y.shape, infinite=True) for k, x in (("lower", lower), ("upper", upper)))
    _refuse("lower", lower, lower > upper, "at most upper")
    return ((lower <= y) & (y <= upper)).double().mean()


def mean_and_standard_error(values: Tensor | Sequence[float]) -> tuple[Tensor, Tensor]:
    r"""Mean of independent values, such as one metric over seeds, and its standard error (NaN for one value).

    :Args: values ``[n]``, a tensor or a sequence of numbers.
    :Returns: :math:`\bar v = \frac1n \sum_i v_i` and :math:`\sqrt{\sum_i (v_i - \bar v)^2 / (n (n - 1))}`, both ``[]``.
    :Raises: ValueError for anything but numbers, a wrong shape, NaN or infinities, or no values.
    :Reference: Casella and Berger (2002), Statistical Inference, section 5.2."""
    try:
        v = _real("values", torch.as_tensor(values, dtype=torch.float64), "[n]")
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"values is {values!r}: expected a sequence of numbers") from error
    return v.mean(), (v.std() / math.sqrt(len(v)) if len(v) > 1 else v.new_tensor(math.nan))


def _refuse(name: str, x: Tensor, bad: Tensor, accepted: str) -> None:
    if bad.any():
        raise ValueError(f"{name} of shape {list(x.shape)} holds {x[bad][0].item():.6g}: expected {accepted}")


def _real(name: str, x: Tensor, shape: str | torch.Size, infinite: bool = False) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"{name} is {x.dtype if isinstance(x, Tensor) else repr(x)}: expected a floating-point tensor")
    expected = shape if isinstance(shape, str) else str(list(shape))
    fits = shape == "[...]" or x.dim() in [part.count(",") + 1 for part in expected.split(" or ")]
    if x.numel() == 0 or not fits or (isinstance(shape, torch.Size) and x.shape != shape):
        raise ValueError(f"{name} has shape {list(x.shape)}: expected {expected}, not empty")
    _refuse(name, x, x.isnan() if infinite else ~x.isfinite(), "numbers, not NaN" if infinite else "finite numbers")
    return x.double()


def _simplex(name: str, x: Tensor, shape: str, dim: int = -1) -> Tensor:
    p = _real(name, x, shape)
    if not -p.dim() <= dim < p.dim():
        raise ValueError(f"dim is {dim}: expected an axis of {name}, which has shape {list(p.shape)}")
    _refuse(name, p, p < 0, "probabilities, 0 or more")
    total = p.sum(dim)
    _refuse(f"sum of {name} over classes", total, (total - 1).abs() > TOLERANCE, f"1 within {TOLERANCE}")
    return p


def _classified(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    p = _simplex("probabilities", probabilities, "[N, C]")
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.int32) or labels.shape != p.shape[:1]:
        got = f"{labels.dtype} of shape {list(labels.shape)}" if isinstance(labels, Tensor) else repr(labels)
        raise ValueError(f"labels is {got}: expected int64 or int32 of shape {list(p.shape[:1])}, one for each row")
    _refuse("labels", labels, (labels < 0) | (labels >= p.shape[1]), f"0 to {p.shape[1] - 1}")
    return p, labels.long()


def _mixture(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    loc, scale = _real("loc", loc, "[S, N, D]"), _real("scale", scale, "[...]")
    _refuse("scale", scale, scale <= 0, "standard deviations above 0")
    try:
        return loc, scale.broadcast_to(loc.shape)
    except RuntimeError as error:
        raise ValueError(f"scale has shape {list(scale.shape)}: expected to broadcast to {list(loc.shape)}") from error
