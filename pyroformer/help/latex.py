"""Formulas of docstrings as one line of text, for a terminal.

What is not understood is refused, not guessed: `readable` then raises, and `shown` gives the source.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ"}
GREEK |= {"iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ"}
GREEK |= {"sigma": "σ", "tau": "τ", "upsilon": "υ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω"}
GREEK |= {"Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ"}
GREEK |= {"Upsilon": "Υ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω", "varepsilon": "ε", "vartheta": "ϑ", "varphi": "φ"}
SYMBOLS = {**GREEK, "infty": "∞", "ell": "ℓ", "nabla": "∇", "partial": "∂", "top": "⊤", "dots": "…", "ldots": "…"}
SYMBOLS |= {"cdots": "…", "star": "*", "ast": "*", "prime": "′"}
RELATIONS = {"sim": "∼", "propto": "∝", "in": "∈", "cup": "∪", "cap": "∩", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥"}
RELATIONS |= {"ne": "≠", "neq": "≠", "approx": "≈", "equiv": "≡", "ll": "≪", "gg": "≫", "mid": "|", "to": "→"}
RELATIONS |= {"rightarrow": "→", "leftarrow": "←", "mapsto": "↦", "cdot": "·", "times": "×", "pm": "±", "odot": "⊙"}
RELATIONS |= {"otimes": "⊗", "circ": "∘", "subset": "⊂", "Vert": "‖", "lVert": "‖", "rVert": "‖", "colon": ":"}
BIG = {"sum": "∑", "prod": "∏", "int": "∫"}
FUNCTIONS = {"sin", "cos", "tan", "tanh", "exp", "log", "ln", "min", "max", "arg", "det", "inf", "sup", "lim", "Pr"}
FONTS = {"mathrm", "mathcal", "mathbf", "mathbb", "mathsf", "text", "textrm", "operatorname", "boldsymbol"}
ACCENTS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303", "dot": "\u0307"}
SPACES = {",": " ", ":": " ", ";": " ", " ": " ", "!": "", "quad": "\u2003", "qquad": "\u2003"}
SIZES = {"big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "textstyle", "displaystyle"}
ESCAPED = {"_": "_", "%": "%", "&": "&", "#": "#", "{": "{", "}": "}", "|": "‖"}
SUPER = str.maketrans("0123456789+−⊤", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀ")
SUB = str.maketrans("0123456789+−aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ")

APART = {("function", "factor"), ("function", "function"), ("factor", "function"), ("factor", "big")}
"""Neighbours with a space between them."""

EM_SPACE = "\u2003"
"""Stands between formulas that were written side by side, so that a view may break the line there."""

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.S)
_SINGLE = re.compile(r"\d+|\S[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀ₀-₉₊₋ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ\u0300-\u036f]*")


class LatexError(ValueError):
    """A formula has something in it that this file does not know."""


@dataclass
class _Piece:
    """A part of a line: a ``factor``, an opening or closing bracket, a ``function``, an ``operator``, ... ."""

    text: str
    kind: str


def readable(latex: str) -> str:
    r"""A formula as one line of text: ``\frac{w_i - c}{s}`` is ``(wᵢ − c)/s``.

    Raises:
        LatexError: The formula has a command that is not known, or brackets that do not match.
    """
    reader = _Reader(_TOKEN.findall(" ".join(latex.split())))
    text = reader.text(until=None)
    text = re.sub(r" *\u2003 *", EM_SPACE, text.strip())
    return re.sub(r" +([,)\]])", r"\1", re.sub(r"([(\[]) +", r"\1", re.sub(" +", " ", text)))


def shown(latex: str) -> str:
    """`readable`, or the source where it cannot be read."""
    try:
        return readable(latex)
    except LatexError:
        return " ".join(latex.split())


def prose(text: str) -> str:
    """A paragraph of a docstring without its marks: formulas are read, names and code stand bare."""
    text = re.sub(r":math:`([^`]*)`", lambda found: shown(found[1]).replace(EM_SPACE, " "), " ".join(text.split()))
    return re.sub(r"``?([^`]+)``?", r"\1", text)


class _Reader:
    def __init__(self, tokens: list[str]):
        self.tokens, self.place = tokens, 0

    def text(self, until: str | None) -> str:
        """Everything up to a token, which is taken too."""
        pieces: list[_Piece] = []
        while True:
            if self.place == len(self.tokens):
                if until is None:
                    return _joined(pieces)
                raise LatexError("a group that is not closed")
            token = self._next()
            if token == until:
                return _joined(pieces)
            self._take(token, pieces)

    def _next(self) -> str:
        self.place += 1
        return self.tokens[self.place - 1]

    def _argument(self) -> str:
        """The next group, or the next symbol alone."""
        while self.place < len(self.tokens) and self.tokens[self.place].isspace():
            self.place += 1
        if self.place == len(self.tokens):
            raise LatexError("a command without its argument")
        token = self._next()
        if token == "{":
            return self.text(until="}")
        pieces: list[_Piece] = []
        self._take(token, pieces)
        return _joined(pieces)

    def _take(self, token: str, pieces: list[_Piece]) -> None:
        if token.startswith("\\") and len(token) > 1:
            self._command(token[1:], pieces)
        elif token == "{":
            pieces.append(_Piece(self.text(until="}"), "factor"))
        elif token in "}&\\":
            raise LatexError(f"{token} where none is expected")
        elif token in "^_":
            script = _superscript(self._argument()) if token == "^" else _subscript(self._argument())
            if not pieces or pieces[-1].kind == "space":
                raise LatexError(f"{token} after nothing")
            pieces[-1].text += script
        elif token.isspace():
            pieces.append(_Piece(" ", "space"))
        elif token in "([":
            pieces.append(_Piece(token, "open"))
        elif token in ")]":
            pieces.append(_Piece(token, "close"))
        elif token in "+-=<>,;:/|*":
            pieces.append(_Piece("−" if token == "-" else token, "operator"))
        else:
            pieces.append(_Piece(token, "factor"))

    def _command(self, name: str, pieces: list[_Piece]) -> None:
        if name in SYMBOLS:
            pieces.append(_Piece(SYMBOLS[name], "factor"))
        elif name in RELATIONS:
            pieces.append(_Piece(RELATIONS[name], "operator"))
        elif name in BIG:
            pieces.append(_Piece(BIG[name], "big"))
        elif name in FUNCTIONS:
            pieces.append(_Piece(name, "function"))
        elif name in FONTS:
            pieces.append(_Piece(self._argument(), "factor"))
        elif name in ACCENTS:
            pieces.append(_Piece(unicodedata.normalize("NFC", self._argument() + ACCENTS[name]), "factor"))
        elif name in SPACES:
            pieces.append(_Piece(SPACES[name], "space"))
        elif name in ("frac", "tfrac", "dfrac"):
            above, below = self._argument(), self._argument()
            pieces.append(_Piece(f"{_numerator(above)}/{_denominator(below)}", "fraction"))
        elif name == "sqrt":
            pieces.append(_Piece(f"√{_denominator(self._argument())}", "factor"))
        elif name in ("left", "right"):
            bracket = self._argument()
            pieces.append(_Piece("" if bracket == "." else bracket, "open" if name == "left" else "close"))
        elif name in ESCAPED:
            pieces.append(_Piece(ESCAPED[name], "factor"))
        elif name not in SIZES:
            raise LatexError(f"\\{name} is not known")


def _joined(pieces: list[_Piece]) -> str:
    """Pieces side by side; a fraction is kept apart from its neighbours, and a function from its argument."""
    solid = [piece for piece in pieces if piece.kind != "space"]
    for here, after in pairwise(solid):
        both = (here.kind, after.kind)
        if both == ("function", "fraction"):
            here.text, after.text, after.kind = f"{here.text}(", f"{after.text})", "close"
        elif here.kind == "big" or both in APART:
            here.text += " "
        elif "fraction" in both and "operator" not in both and here.kind != "open" and after.kind != "close":
            here.text += " · "
    text = "".join(piece.text for piece in pieces)
    return re.sub(r" *· +· *| +· *", " · ", text)


def _splits(text: str, marks: str) -> bool:
    """Whether one of some marks stands outside all brackets."""
    depth = 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if not depth and letter in marks:
            return True
    return False


def _numerator(text: str) -> str:
    return f"({text})" if _splits(text, "+−/·,=") else text


def _denominator(text: str) -> str:
    head, bracket, rest = text.partition("(")
    call = bracket and _SINGLE.fullmatch(head) and rest.find(")") == len(rest) - 1  # one pair of brackets, at the end
    return text if _SINGLE.fullmatch(text) or call else f"({text})"


def _superscript(text: str) -> str:
    if re.fullmatch(r"−?\d+|⊤", text):
        return text.translate(SUPER)
    return f"^{text}" if len(text) == 1 else f"^({text})"


def _subscript(text: str) -> str:
    raised = text.translate(SUB)
    if not set(raised) & set(text):
        return raised
    return f"_{text}" if re.fullmatch(r"\w+", text) else f"_({text})"
