"""Formulas as text: known answers, and what is not understood stays as it is."""

import pytest

from pyroformer.help.latex import LatexError, prose, readable, shown
from pyroformer.help.terminal import spelled

KNOWN = [
    (r"w_i \sim \mathcal N(c, s^2)", "wᵢ ∼ N(c, s²)"),
    (r"\frac{1}{2s}\, e^{-|w_i - c| / s}", "1/(2s) · e^(−|wᵢ − c| / s)"),
    (r"\frac1\tau\, f\!\left(\frac{w_i - c}{\tau}\right)", "1/τ · f((wᵢ − c)/τ)"),
    (r"\frac\nu2 + \tfrac1M \sum_m p_m", "ν/2 + 1/M · ∑ₘ pₘ"),
    (r"\frac{a}{b + c}\frac{a + b}{\Gamma(c)}", "a/(b + c) · (a + b)/Γ(c)"),
    (r"\frac{a}{\Gamma(b)\Gamma(c)}", "a/(Γ(b)Γ(c))"),
    (r"\ln\frac{\sigma_i}{s_i}", "ln(σᵢ/sᵢ)"),
    (r"\hat w = \arg\max_w \log p(y \mid w)", "ŵ = arg max_w log p(y | w)"),
    (r"\sqrt2\,s + \sqrt{\pi\nu}", "√2 s + √(πν)"),
    (r"x^{-1} y^{1/2} K^\top z_{l-1} t_\text{warm}", "x⁻¹ y^(1/2) Kᵀ zₗ₋₁ t_warm"),
    (r"s = \text{scale} / \text{fan\_in}", "s = scale / fan_in"),
    (r"\Big(1 + \frac{a^2}{b}\Big)^{-(\nu + 1)/2}", "(1 + a²/b)^(−(ν + 1)/2)"),
    (r"a_0 > 0, \qquad b \ge 1", "a₀ > 0,\u2003b ≥ 1"),
    (r"\left|\frac ab\right|^\beta", "|a/b|^β"),
]


@pytest.mark.parametrize(("latex", "expected"), KNOWN)
def test_known_answers(latex, expected):
    assert readable(latex) == expected


@pytest.mark.parametrize(
    "latex",
    [r"\unknown x", r"\frac{1}", r"{a", "a}", "^2", r"\begin{matrix} a & b \\ c & d \end{matrix}", r"a \\ b", "x _2"],
)
def test_what_is_not_understood_is_shown_as_it_is(latex):
    with pytest.raises(LatexError):
        readable(latex)
    assert shown(latex) == latex
    assert prose(f"so :math:`{latex}` here") == f"so {latex} here"


def test_marks_of_docstrings_go():
    assert prose("See `Normal`\nand ``x``: :math:`\\nu \\le 2`, `a_b`.") == "See Normal and x: ν ≤ 2, a_b."


def test_a_terminal_without_greek_gets_names():
    assert spelled("p(wᵢ) ∼ 2πνs² xₗ₋₁ Sköld", "ascii") == "p(w_i) ~ 2 pi nu s^2 x_(l-1) Skold"
    assert spelled("2σᵢ² − é", "cp1252") == "2 sigma_i² - é"
    assert spelled("2σᵢ² − é", "utf-8") == "2σᵢ² − é"
