"""Posteriors: sets of functions of x, however they are represented."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..guides import Guide, PlugInRows
from ..models import BayesianModel
from ..models.calling import eval_mode
from ..models.likelihoods import Undrawn
from ..priors import SettingError, choice_name
from .calibration import Calibrated, CalibratedGathering, Calibration, restored_calibration
from .data import DataError, Inputs, check_finite, first, move, take
from .files import read_json, read_tensors, replacing, write_json, write_tensors
from .prediction import Outputs, Prediction, gathering, slices

FORMAT = 1
NUM_SAMPLES = 32
"""Draws for a prediction where the caller does not say: enough for digits to be within noise of 200."""
ROWS = ("sample", "mean")
"""What a prediction may do with random attention rows."""
MAX_NUMBERS = 2**24
"""About how many numbers one chunk of draws of the weights may hold."""
MAX_RUNS = 512
"""About how many runs of the net on one example may go together: more would leave the processor's cache."""
SHORT = 16
"""Tokens of a sequence that counts as one example there."""


@contextmanager
def store_as_it_was() -> Iterator[None]:
    """Leave no parameters in Pyro's store: models state what they learn whenever they run."""
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    finally:
        for name in set(store.keys()) - before:
            del store[name]


class Posterior(ABC):
    """A posterior over the functions that a model can represent.

    Args:
        model: The model whose sites the posterior is over.
        info: What a reader should know of how it was found (temperature, best epoch, ...), as plain data.
    """

    kinds: ClassVar[dict[str, type[Posterior]]] = {}

    def __init_subclass__(cls) -> None:
        Posterior.kinds[choice_name(cls)] = cls

    def __init__(self, model: BayesianModel, info: Mapping[str, Any] | None = None):
        self.model = model
        self.info = dict(info or {})

    @property
    @abstractmethod
    def num_samples(self) -> int | None:
        """How many draws there are; None when as many can be had as are wanted."""

    @abstractmethod
    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Draws of the global sites in chunks: how many (at most ``most``), and their values ``[s, ...]`` by site."""

    def _in_blocks(
        self, num_samples: int, most: int, draw: Callable[[int], dict[str, Tensor]]
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """`chunks` where as many draws can be had as are wanted: ``draw`` makes some, ``[s, ...]`` by site.

        They are made in blocks that depend on nothing but the model, so that they are the same for any ``most``.
        """
        for block in slices(num_samples, max(1, MAX_NUMBERS // max(self.num_weights, 1))):
            size = block.stop - block.start
            draws = draw(size)
            for where in slices(size, most):
                yield where.stop - where.start, {name: values[where] for name, values in draws.items()}

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What `save` writes beside the model."""

    @abstractmethod
    def structure(self) -> dict[str, Any]:
        """What `load` needs to know before it reads the tensors, as plain data."""

    @classmethod
    @abstractmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        """The posterior again, from what `structure` and `tensors` gave."""

    guide: Guide | None = None
    """The guide that draws attention rows, if there is one."""

    calibrated: Calibrated | None = None
    """What `calibrate` fitted, if it was asked to."""

    closed_form = False
    """Whether predictions are averaged without draws, by `in_closed_form`."""

    _rows = "sample"

    @property
    def random_rows(self) -> bool:
        """Whether attention rows are drawn anew whenever the net runs."""
        return bool(self.model.rows)

    @contextmanager
    def rows_as(self, rows: str) -> Iterator[None]:
        """Within the block, draw random attention rows (``sample``) or take their plug-in value (``mean``).

        Raises:
            SettingError: ``rows`` is neither, or is ``mean`` where no rows are random.
        """
        if rows not in ROWS:
            raise SettingError("rows", rows, f"one of {', '.join(ROWS)}")
        if rows == "mean" and not self.random_rows:
            raise SettingError("rows", rows, "sample: no attention row of this posterior is random")
        before, self._rows = self._rows, rows
        try:
            yield
        finally:
            self._rows = before

    @property
    def num_weights(self) -> int:
        """How many numbers one draw of the weights holds."""
        return sum(value.numel() for value in self.model.initial_values().values())

    def draw(self, num_samples: int = NUM_SAMPLES, *, seed: int = 0) -> dict[str, Tensor]:
        """Draw the global sites.

        Args:
            num_samples: ``S``; a posterior of stored draws gives evenly spaced ones, at most all of them.
            seed: Of the draws; the same seed gives the same draws. The global random state is left as it was.

        Returns:
            ``[S, ...]`` by site.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad(), store_as_it_was():
            torch.manual_seed(seed)
            parts = [part for _, part in self.chunks(self._available(num_samples), num_samples)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def predict(
        self,
        x: Inputs,
        num_samples: int = NUM_SAMPLES,
        *,
        seed: int = 0,
        batch_size: int = 256,
        calibrated: bool = True,
        rows: Literal["sample", "mean"] = "sample",
    ) -> Prediction:
        """Predict by averaging probabilities over draws, in chunks, so that memory stays bounded.

        Args:
            x: Inputs ``[N, ...]``, a tensor or a tuple of tensors.
            num_samples: Draws, default 32; a posterior without randomness takes one.
            seed: Of the draws; the same seed and batch size give the same numbers in any process on one machine.
            batch_size: Examples that the net sees at once.
            calibrated: Whether a fitted calibration is applied, where there is one; default True. Plug-in rows have
                a fit of their own.
            rows: Whether random attention rows are drawn, one set with each draw of the weights (``sample``, the
                default), or stand at their plug-in value (``mean``, see `PlugInRows`: the mean of Dirichlet rows, and
                softmax attention for every other family): one pass for each draw of the weights, and for all where no
                weight is random. Plug-in rows leave out what rows are unsure of.

        Returns:
            A `ClassPrediction` or a `RealPrediction`, on the CPU.

        Raises:
            DataError: ``x`` is empty, or holds NaN or infinity.
            SettingError: ``rows`` is unknown, or asks for plug-in rows where no rows are random.
        """
        gathered = gathering(self.model.likelihood, len(first(x)))
        own = self.calibrated.of_rows(rows) if calibrated and self.calibrated is not None else None
        if own is not None:
            gathered = CalibratedGathering(gathered, own)
        with self.rows_as(rows):
            return self._gathered(x, num_samples, seed, batch_size, gathered)

    def outputs(self, x: Inputs, num_samples: int = NUM_SAMPLES, *, seed: int = 0, batch_size: int = 256) -> Tensor:
        """What the net returns for each draw: the posterior's functions at these inputs.

        Args:
            x, num_samples, seed, batch_size: As for `predict`, which averages over these very draws.

        Returns:
            ``[S, N, ...]`` on the CPU: logits, or means of observations; without the calibration.

        Raises:
            DataError: ``x`` is empty, or holds NaN or infinity.
        """
        return self._gathered(x, num_samples, seed, batch_size, Outputs(len(first(x))))

    def calibrate(
        self, calibration: Calibration, x: Inputs, y: Tensor, num_samples: int = NUM_SAMPLES, *, seed: int = 0
    ) -> Calibrated:
        """Fit a calibration on validation data; from now on `predict` goes through it, here and after `save`.

        Where rows are random it is fitted twice: to predictions with drawn rows, and to those with plug-in rows.

        Args:
            calibration: Such as `TemperatureScaling`.
            x, y: Validation examples ``[N, ...]``: neither those that were trained on nor those to be tested on.
            num_samples, seed: Of the draws, as for `predict`.

        Returns:
            The calibration with what was fitted, which is also ``self.calibrated``.

        Raises:
            SettingError: The calibration cannot work with this model.
            DataError: ``x`` is empty, or holds NaN or infinity.
        """
        if reason := calibration.refusal(self.model):
            raise SettingError("calibration", choice_name(type(calibration)), reason)
        fitted = calibration.fit(self.outputs(x, num_samples, seed=seed), y.cpu())
        plug_in = None
        if self.random_rows:
            with self.rows_as("mean"):
                plug_in = calibration.fit(self.outputs(x, num_samples, seed=seed), y.cpu())
        self.calibrated = Calibrated(calibration, fitted, plug_in)
        return self.calibrated

    def _gathered(self, x: Inputs, num_samples: int, seed: int, batch_size: int, gathered: Any) -> Any:
        if not len(first(x)):
            raise DataError("x: no examples")
        check_finite("x", x)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.validation_enabled(False), store_as_it_was():
            torch.manual_seed(seed)
            self._predict(x, self._available(num_samples), batch_size, gathered)
        return gathered.result()

    def most_draws(self, x: Inputs, batch_size: int) -> int:
        """How many draws the net may see at once with inputs ``x``, of which it sees ``batch_size`` at once."""
        examples = min(batch_size, len(first(x)))
        if self._output_dim == 3:  # a sequence is larger than an example of a few tokens
            examples *= max(1, first(x).shape[1] // SHORT)
        return max(1, min(MAX_NUMBERS // max(self.num_weights, 1), MAX_RUNS // examples + 1))

    def _predict(self, x: Inputs, num_samples: int, batch_size: int, gathered: Any) -> None:
        anchor = next(self.model.parameters())
        x = move(x, anchor.device, anchor.dtype)
        most = self.most_draws(x, batch_size)
        with eval_mode(self.model):
            for size, weights in self.chunks(num_samples, most):
                for where in slices(len(first(x)), batch_size):
                    outputs, drawn = self.run(weights, take(x, where), size)
                    gathered.add(where, outputs, drawn)

    def run(self, weights: dict[str, Tensor], x: Inputs, size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The net's outputs ``[S, B, ...]`` for these draws, with rows from the guide, and the likelihood's sites."""
        lifted = {name: value.unsqueeze(1) for name, value in weights.items()}  # [S, 1, ...]: the data plate
        rows = nullcontext() if self.guide is None or not self.model.rows else self.guide.local_only()
        mean = PlugInRows() if self._rows == "mean" else nullcontext()  # around the guide, to see its posterior
        with poutine.block(), pyro.plate("draws", size, dim=-2), mean, rows, Undrawn():
            outputs = poutine.condition(self.model, data=lifted)(x)
        shape = outputs.shape
        if len(shape) == self._output_dim:
            outputs = outputs.expand(size, *shape)
        return outputs, {
            name: value for name, value in lifted.items() if name in self.model.likelihood.initial_values()
        }

    @property
    def _output_dim(self) -> int:
        return 3 if getattr(self.model.likelihood, "per_token", False) else 2

    def _available(self, num_samples: int) -> int:
        if num_samples < 1:
            raise ValueError(f"num_samples = {num_samples}: expected at least 1")
        return num_samples if self.num_samples is None else min(num_samples, self.num_samples)

    def in_closed_form(self, x: Inputs, *, last: bool = False) -> Tensor:
        """Outputs ``[1, B, ...]`` that stand for those of all draws, where predictions have a closed form.

        Args:
            x: Inputs ``[B, ...]``, on the model's device and in its dtype.
            last: Whether only those of the last token are wanted, ``[1, B, 1, C]``; default False.
        """
        raise NotImplementedError(f"{choice_name(type(self))} predicts by draws")

    def save(self, path: str | Path) -> None:
        """Write the posterior as a folder of JSON and safetensors, whole or not at all."""
        path = Path(path)
        with replacing(path) as new:
            self.write(new)

    def write(self, folder: Path) -> None:
        """Write into a new folder."""
        folder.mkdir(parents=True)
        anchor = next(self.model.parameters())
        content = {"format": FORMAT, "kind": choice_name(type(self)), "dtype": str(anchor.dtype).removeprefix("torch.")}
        if self.calibrated is not None:
            content["calibration"] = self.calibrated.describe()
        write_json(folder / "posterior.json", {**content, "info": self.info, "structure": self.structure()})
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        write_tensors(folder / "weights.safetensors", {**state, **self.tensors()})

    @staticmethod
    def load(path: str | Path, model: BayesianModel) -> Posterior:
        """Read a posterior that `save` wrote.

        Args:
            path: The folder.
            model: A model of the same structure (net, prior, likelihood); it is copied.

        Raises:
            FileNotFoundError: There is no posterior in the folder.
            ValueError: The folder holds another format, or tensors that do not fit the model.
        """
        path = Path(path)
        content = read_json(path / "posterior.json")
        if content.get("format") != FORMAT or content.get("kind") not in Posterior.kinds:
            raise ValueError(
                f"{path / 'posterior.json'}: format {content.get('format')!r} of kind {content.get('kind')!r}: "
                f"expected format {FORMAT} of kind {', '.join(Posterior.kinds)}"
            )
        if missing := {"dtype", "info", "structure"} - set(content):
            raise ValueError(f"{path / 'posterior.json'} holds no {min(missing)!r}")
        tensors = read_tensors(path / "weights.safetensors")
        dtype = getattr(torch, str(content["dtype"]), None)
        if not isinstance(dtype, torch.dtype) or not isinstance(content["structure"], dict):
            raise ValueError(f"{path / 'posterior.json'} holds a dtype or a structure that is none")
        model = copy.deepcopy(model).to(dtype)
        state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        kind = Posterior.kinds[content["kind"]]
        own = {name: t for name, t in tensors.items() if not name.startswith("model.")}
        try:
            model.load_state_dict(state)
            with torch.random.fork_rng(devices=[]), store_as_it_was():
                posterior = kind.restored(model, {**content["structure"], "path": path}, own)
        except (RuntimeError, LookupError, TypeError, AttributeError, SettingError) as error:
            raise ValueError(f"{path} does not fit the model: {error}") from None
        posterior.info = content["info"]
        if "calibration" in content:
            posterior.calibrated = restored_calibration(path, content["calibration"])
        return posterior
