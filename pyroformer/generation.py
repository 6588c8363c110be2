"""Text from a finished run, or the target of a source, with what the posterior knew before each of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text as RichText
from torch import Tensor

from .choices import SpecError, plain
from .inference import generate as generate_tokens
from .inference.files import write_json
from .models import Pair
from .priors import SettingError
from .priors.globs import near_misses
from .run import Run
from .run_folder import source_of
from .tasks.text import vocabulary_of
from .tasks.vocabulary import UNKNOWN, Vocabulary, joined, pieces

NUM_TOKENS, NUM_SAMPLES = 200, 16
SHADES = ("default", "green", "yellow", "bright_red", "bold white on red")
"""How tokens look from the surest to the least sure."""
MEASURES = ("entropy", "mutual_information")
ARROW = " → "
"""Between a source and its target."""
OPTIONS = {"num_tokens": "--tokens", "temperature": "--temperature", "": "model"}
"""What the command line calls a setting."""


@dataclass(frozen=True, eq=False)
class GeneratedText:
    """A text whose end was drawn token by token, or the target of a source; it prints as text.

    Args:
        prompt: What was given: the start of the text, or the source.
        text: The prompt and what follows, or the target.
        unit: What a token is: ``character`` or ``word``.
        tokens: What was drawn, ``G`` tokens.
        probability: The predictive probability of each, ``[G]``.
        entropy: The entropy of the prediction that it was drawn from, ``[G]``, in nats.
        expected_entropy: The part that every draw of the posterior agrees to be unsure of.
        mutual_information: The part that the draws disagree about; both add up to the entropy.
        num_samples: Draws from the posterior.
        temperature, seed: As they were given.
        of_source: Whether the prompt is a source, and no part of the text; default False.
    """

    prompt: str
    text: str
    unit: str
    tokens: tuple[str, ...]
    probability: Tensor
    entropy: Tensor
    expected_entropy: Tensor
    mutual_information: Tensor
    num_samples: int
    temperature: float
    seed: int
    of_source: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain data, one record a token."""
        quantities = ("probability", "entropy", "expected_entropy", "mutual_information")
        columns = [getattr(self, name).tolist() for name in quantities]
        records = [
            {"token": token, **dict(zip(quantities, values, strict=True))}
            for token, *values in zip(self.tokens, *columns, strict=True)
        ]
        settings = {"num_samples": self.num_samples, "temperature": self.temperature, "seed": self.seed}
        return {"prompt": self.prompt, "text": self.text, "unit": self.unit, **settings, "tokens": records}

    def __str__(self) -> str:
        return self.text

    @property
    def summary(self) -> str:
        """The mean uncertainty a token, in one line."""
        draws = f"{self.num_samples} draw{'s' if self.num_samples > 1 else ''}"
        count = f"{len(self.tokens)} {self.unit}{'s' if len(self.tokens) > 1 else ''}"
        parts = (self.entropy, self.expected_entropy, self.mutual_information)
        total, expected, information = (float(part.mean()) for part in parts)
        return (
            f"{count} from {draws}; mean entropy {total:.3f} nats = {expected:.3f} expected + {information:.3f} "
            "mutual information"
        )

    def table(self) -> str:
        """One line a token, in columns."""
        head = f"{'token':<16} {'probability':>11} {'entropy':>8} {'expected':>8} {'MI':>8}"
        rows = (
            f"{record['token']!r:<16} {record['probability']:>11.4f} {record['entropy']:>8.4f} "
            f"{record['expected_entropy']:>8.4f} {record['mutual_information']:>8.4f}"
            for record in self.to_dict()["tokens"]
        )
        return "\n".join([head, *rows])

    def colored(self, by: str = "entropy") -> RichText:
        """The text, its tokens shaded from the surest to the least sure of them, and what was given dim.

        Args:
            by: ``entropy`` or ``mutual_information``.
        """
        values = getattr(self, by)
        shares = values / values.max().clamp(min=1e-12)
        shown = RichText(f"{self.prompt}{ARROW}" if self.of_source else self.prompt, style="dim")
        given = [] if self.of_source else pieces(self.prompt, self.unit)  # type: ignore[arg-type]
        written = joined(given, self.unit)  # type: ignore[arg-type]
        for place, share in enumerate(shares.tolist(), 1):
            longer = joined([*given, *self.tokens[:place]], self.unit)  # type: ignore[arg-type]
            shade = SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]
            shown.append(longer[len(written) :], style=shade)
            written = longer
        return shown


def generate(
    run: Run,
    prompt: str | None = None,
    *,
    num_tokens: int | None = None,
    num_samples: int = NUM_SAMPLES,
    temperature: float = 1.0,
    seed: int = 0,
) -> GeneratedText:
    """Write by draws from the posterior predictive: go on from a text, or write the target of a source.

    Probabilities are averaged over draws of weights, which are the same for the whole text, and of attention rows,
    which are drawn anew at every step; see `inference.generate`. The unknown token is never drawn. A Laplace
    approximation with the link ``probit`` has no draws.

    Args:
        run: From `load` or `fit`, of the task ``text`` or ``reversal``.
        prompt: The text to continue; None (default) for the start of a line, or in a text without lines for its first
            token. Of a net that reads a source and writes a target, the source, which has no default.
        num_tokens: Characters or words to draw; None (default) for 200, and of a target for as many as its source has.
        num_samples: Draws from the posterior, default 16.
        temperature: Default 1; lower ones prefer probable tokens, 0 takes the most probable one.
        seed: Of the draws and the tokens.

    Returns:
        The text, with the probability of every token, the entropy of its prediction, and the parts of that.

    Raises:
        SpecError: The run is none of text or of a source and a target, its net looks ahead, the prompt is missing, is
            too long or holds what the vocabulary does not, or a setting is out of range.
    """
    known = run.source if run.folder is None else source_of(run.folder)
    vocabulary = vocabulary_of(known)
    if vocabulary is None:
        raise SpecError("RUN", next(iter(plain(run.spec.task))), "a run of the task text or reversal")
    pair = _pair(run)
    accepted = "" if pair is None else f"a source of at most {pair.source.length} {vocabulary.unit}s"
    if pair is not None and prompt is None:
        raise SpecError("--prompt", None, accepted)
    given = _given(_start(run, vocabulary) if prompt is None else prompt, vocabulary)
    if pair is not None and len(given) > pair.source.length:
        raise SpecError("--prompt", prompt, accepted)
    if num_tokens is None:
        num_tokens = NUM_TOKENS if pair is None else min(len(given), pair.target.length)
    if num_samples < 1:
        raise SpecError("--samples", num_samples, "a whole number of at least 1")
    try:
        found = generate_tokens(
            run.posterior,
            vocabulary.encode(given),
            num_tokens,
            num_samples=num_samples,
            temperature=temperature,
            seed=seed,
            excluded=[vocabulary.places[UNKNOWN]] if UNKNOWN in vocabulary.places else [],
        )
    except SettingError as error:
        raise SpecError(OPTIONS.get(error.key, error.key), error.value, error.expected) from None
    tokens = tuple(vocabulary.tokens[number] for number in found.tokens.tolist())
    prediction = found.prediction
    return GeneratedText(
        prompt=joined(given, vocabulary.unit),
        text=joined(tokens if pair is not None else [*given, *tokens], vocabulary.unit),
        unit=vocabulary.unit,
        tokens=tokens,
        probability=found.probability,
        entropy=prediction.entropy,
        expected_entropy=prediction.expected_entropy,
        mutual_information=prediction.mutual_information,
        num_samples=prediction.num_samples,
        temperature=temperature,
        seed=seed,
        of_source=pair is not None,
    )


def _pair(run: Run) -> Pair | None:
    """The source and the target of a run's net, or None where it goes on from a text."""
    inputs = getattr(run.posterior.model.net, "inputs", None)
    return inputs if isinstance(inputs, Pair) else None


def _start(run: Run, vocabulary: Vocabulary) -> str:
    """The end of a line, or where the text has none the first token of training that is known."""
    if "\n" in vocabulary.places:
        return "\n"
    data = run.spec.task.load()
    now = vocabulary_of(data.source)
    assert now is not None and isinstance(data.train.x, Tensor)
    first = (now.tokens[number] for number in data.train.x.flatten().tolist() if 0 < number < len(now))
    return next((token for token in first if token in vocabulary.places), vocabulary.tokens[1])


def _given(prompt: str, vocabulary: Vocabulary) -> list[str]:
    """The tokens of a prompt, all of them known."""
    given = pieces(prompt, vocabulary.unit)
    if not given:
        raise SpecError("--prompt", prompt, f"at least one {vocabulary.unit}")
    for token in given:
        if token not in vocabulary.places or token == UNKNOWN:
            if vocabulary.unit == "word":
                accepted = f"words of the run's vocabulary{near_misses(token, vocabulary.tokens)}"
            else:
                known = "".join(vocabulary.tokens).removeprefix(UNKNOWN)
                accepted = f"characters of the run's vocabulary, {known!r}"
            raise SpecError("--prompt", token, accepted)
    return given


def write_generated(found: GeneratedText, path: Path) -> None:
    """Write a text and the uncertainty of its tokens as JSON, whole or not at all."""
    write_json(path, found.to_dict())
