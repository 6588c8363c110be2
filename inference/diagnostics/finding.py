"""What was found about chains, in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["good", "note", "caution", "bad"]
LEVELS: tuple[Level, ...] = ("good", "note", "caution", "bad")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        level: ``good``, ``note`` (no fault, and to be known), ``caution`` (results may be used with care) or ``bad``
            (they may not).
        topic: What it is about, in a word or two.
        text: What was seen, a sentence.
        advice: What to try next, a sentence; empty where there is nothing to do.
    """

    level: Level
    topic: str
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """All findings about chains, the worst first.

    Args:
        findings: In the order of their levels.
    """

    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """The worst level of a finding."""
        return max((found.level for found in self.findings), key=LEVELS.index, default="good")

    def of(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(found for found in self.findings if found.level == level)

    @property
    def summary(self) -> str:
        """One paragraph: how far the chains are to be relied upon, why, and what to try first."""
        all_said = "; ".join(_clause(found.text) for found in self.findings)
        if self.level == "good":
            return f"Nothing speaks against these chains: {all_said}".removesuffix(": ") + "."
        if self.level == "note":
            return f"These chains ran as they should; of note: {all_said}."
        opening = {"bad": "These chains are not to be relied upon", "caution": "These chains are to be used with care"}
        worst = self.of(self.level)
        said = "; ".join(_clause(found.text) for found in worst)
        return f"{opening[self.level]}: {said}. Try: {_clause(worst[0].advice)}."

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain data."""
        found = [finding.to_dict() for finding in self.findings]
        return {"level": self.level, "summary": self.summary, "findings": found}


def _clause(sentence: str) -> str:
    return sentence.removesuffix(".")


def sentence(clause: str) -> str:
    """A clause with a capital and a full stop."""
    return f"{clause[:1].upper()}{_clause(clause[1:])}." if clause else ""


def percent(share: float) -> str:
    """A share in words: never 0 % of something that was there."""
    if 0 < share < 0.001:
        return "less than 0.1 %"
    return f"{100 * share:.{1 if share < 0.1 else 0}f} %"


def number(value: float) -> str:
    """A number in three digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def which_chains(numbers: list[int], chains: int) -> str:
    """Chains in words: ``all chains``, ``chain 2``, ``chains 0 and 3``."""
    if len(numbers) == chains:
        return "the chain" if chains == 1 else "all chains"
    if len(numbers) == 1:
        return f"chain {numbers[0]}"
    return f"chains {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
