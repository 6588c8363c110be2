"""The prior predictive of a spec: functions drawn from its prior, and what they are like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from .. import yamlfile
from ..choices import Recipe, SpecError, plain
from ..inference.data import Inputs, first, take
from ..inference.driver import check_observations
from ..inference.posterior import store_as_it_was
from ..inference.prior_functions import PriorFunctions
from ..models import BayesianModel
from ..models.likelihoods import IGNORED
from ..models.watching import watching
from ..priors import SettingError
from ..spec import Spec
from ..tasks import Split, TaskData
from .classes import ClassBeliefs, class_beliefs
from .flags import flags, overflow
from .reals import RealBeliefs, real_beliefs
from .rows import RowEntropies, Rows, Size, TokenSizes

NUM_SAMPLES, NUM_INPUTS = 200, 100
MOST_NUMBERS = 2**25
"""How many numbers the outputs of all functions may be; there are fewer inputs where they would be more."""


@dataclass(frozen=True, eq=False)
class PriorPredictive:
    """What a prior believes, as plain data and a few tensors for plots; it prints as text.

    Args:
        spec: What was asked about, as plain data.
        num_samples: Functions ``S`` drawn from the prior.
        overflowing: How many of them are not finite; the figures of functions are of the others, and those of attention
            and tokens of the rows and tokens that are finite.
        num_inputs: Inputs ``N`` that they were looked at on; tokens where there is an output for every token.
        inputs: The set that these are from: ``validation`` or ``training``.
        beliefs: Of classes or of real functions.
        attention: The rows of every attention layer of ours; empty for other nets.
        tokens: The size of the tokens before the first and behind every block.
        at_their_start: Weights that no prior draws, taken as they start, by what they are: ``learned`` or ``fixed``.
        flags: What a user should know, in plain words with thresholds.
    """

    spec: dict[str, Any]
    num_samples: int
    overflowing: int
    num_inputs: int
    inputs: str
    beliefs: ClassBeliefs | RealBeliefs
    attention: tuple[Rows, ...]
    tokens: tuple[Size, ...]
    at_their_start: dict[str, tuple[str, ...]]
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain data; the tensors for plots are left out."""
        return {**_plain(self), "likelihood": "classes" if isinstance(self.beliefs, ClassBeliefs) else "reals"}

    def __rich__(self) -> Any:
        from .view import BeliefsView

        return BeliefsView(self)

    def __str__(self) -> str:
        from ..help.terminal import as_text

        return as_text(self)


def prior_predictive(spec: Spec, *, num_samples: int = NUM_SAMPLES, num_inputs: int = NUM_INPUTS) -> PriorPredictive:
    r"""What the prior of a spec believes before any training.

    .. math:: w_s \sim p(w), \qquad f_s = f_{w_s}, \; s = 1 \dots S

    Args:
        spec: The spec; guide and driver play no part, but for the driver's dtype and device.
        num_samples: Functions ``S`` to draw, default 200.
        num_inputs: Inputs ``N`` to look at them on, default 100, the first of the validation set, or of the training
            set where the task has none.

    Returns:
        Entropies, spreads, attention and sizes, with flags in plain words.

    Raises:
        SpecError: A prior is flat or so wide that no function is finite, nothing is random, or the parts of the spec do
            not fit each other.
        DataError: The data are not found.
    """
    for name, value in (("num_samples", num_samples), ("num_inputs", num_inputs)):
        if value < 2:
            raise SpecError(name, value, "a whole number of at least 2")
    data = spec.task.load()
    model = spec.build_model(data)
    check_observations(model, data.data)
    _check(model)
    device, dtype = spec.driver.place
    model.to(device=device, dtype=dtype)
    try:
        functions = PriorFunctions(model)
    except SettingError as error:
        raise SpecError("prior", error.value, error.expected) from None
    split, name = (data.train, "training") if data.validation is None else (data.validation, "validation")
    size = functions.outputs(take(split.x, slice(0, 1)), 1).numel()
    num_inputs = max(2, min(num_inputs, MOST_NUMBERS // (num_samples * size)))
    probe = take(split.x, slice(0, num_inputs))
    rows, sizes = RowEntropies(), TokenSizes()
    takes_draws = getattr(model.net, "takes_batched_weights", False)  # else draws run one at a time, in disguise
    with watching(model.net, rows if takes_draws else None, sizes if takes_draws else None), store_as_it_was():
        outputs = functions.outputs(probe, num_samples, seed=spec.seed)
    finite = outputs.flatten(1).isfinite().all(1)
    if not finite.any():
        kind = str(dtype).removeprefix("torch.")
        accepted = f"a prior under which functions are finite: all {len(outputs)} overflow {kind}"
        raise SpecError("prior", yamlfile.flow(plain(spec.prior)), accepted)
    beliefs = _beliefs(outputs[finite], probe, split, data)
    attention, overflowing = rows.result(), int((~finite).sum())
    return PriorPredictive(
        spec=spec.to_dict(),
        num_samples=len(outputs),
        overflowing=overflowing,
        num_inputs=beliefs.entropies.shape[1] if isinstance(beliefs, ClassBeliefs) else outputs.shape[1],
        inputs=name,
        beliefs=beliefs,
        attention=attention,
        tokens=sizes.result(),
        at_their_start=_at_their_start(model),
        flags=(*overflow(overflowing, len(outputs)), *flags(beliefs, attention), *_centers(spec, model)),
    )


def _check(model: BayesianModel) -> None:
    """Refuse a model in which nothing is random."""
    if not model.sites and not model.rows:
        accepted = "a prior of at least one weight, or of attention rows"
        raise SpecError("prior", "learned or fixed weights alone", accepted)


def _beliefs(outputs: Tensor, x: Inputs, split: Split, data: TaskData) -> ClassBeliefs | RealBeliefs:
    if data.outputs.per_token:
        outputs = outputs.flatten(1, 2)
        if split.y is not None:
            outputs = outputs[:, split.y[: len(first(x))].flatten() != IGNORED]
    if hasattr(data.likelihood, "per_token"):
        return class_beliefs(outputs)
    alone = x if isinstance(x, Tensor) and x.is_floating_point() and x[0].numel() == 1 else None
    assert data.train.y is not None
    return real_beliefs(outputs, data.train.y, None if alone is None else alone.flatten())


def _at_their_start(model: BayesianModel) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name, value in model.named_parameters():
        own = model.known_as(name)
        if own not in model.sites and not name.startswith("likelihood."):
            found.setdefault("learned" if value.requires_grad else "fixed", []).append(own)
    return {key: tuple(names) for key, names in found.items()}


def _centers(spec: Spec, model: BayesianModel) -> Iterator[str]:
    """That priors are around the net's own weights, which here are not yet those that the fit may put them around."""
    around = [name for name, prior in model.chosen.items() if getattr(prior, "looks_at_values", False)]
    if around:
        weights = f"{len(around)} weights" if len(around) > 1 else around[0]
        said = "random start" if isinstance(spec.model, Recipe) else "weights as they were given"
        then = "; the fit centres it on the net that `start` trains" if spec.driver.moves_centers else ""
        yield f"the prior of {weights} is centred on the net's {said}{then}"


def _plain(content: Any) -> Any:
    if is_dataclass(content) and not isinstance(content, type):
        found = {field.name: getattr(content, field.name) for field in fields(content)}
        return {name: _plain(value) for name, value in found.items() if not isinstance(value, Tensor)}
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content
