r"""Fit the series behind the Dirichlet rows: slopes of log-gamma draws, and digamma and its kin for single precision.

The slope of a draw x of Gamma(c) at a fixed quantile is found by recurrence from that of shape b = c + m (see
`priors/dirichlet/slopes.py`), which is nearly a polynomial in r - 1 = (x / (c + n))^(1/3) - 1 and w = n / (c + n).
Its values come from an integral without cancellation, by Gauss-Legendre quadrature: with t = x e^s,

    dx/db = x int_0^inf |ln x +- s - psi(b)| exp(+-b s - x (e^(+-s) - 1)) ds,

over the side of x that is farther from psi(b). The weighted fits are brought near the least maximal relative error of
the slope by reweighting. With ``--references`` it writes, instead, slopes from 40-digit arithmetic on an independent
route (central differences of Kummer's function) for the tests.

    python benchmarks/fit_gamma_series.py [--scan]
    python benchmarks/fit_gamma_series.py --references tests/priors/gamma_slopes.json
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
TARGET = Path(__file__).resolve().parents[1] / "priors" / "dirichlet" / "coefficients.py"
TAIL = 1e-9  # quantiles the fit need not reach
SINGLE = {"shift": 2, "base": 1, "r_degree": 7, "w_degree": 5, "total": 1.2}
DOUBLE = {"shift": 4, "base": 4, "r_degree": 12, "w_degree": 8, "total": 1.2}


def digamma_less_log(a: Array) -> Array:
    """psi(a) - ln a, without cancellation."""
    tail = 1 / np.maximum(a, 20.0)
    series = -tail / 2 - tail**2 / 12 + tail**4 / 120 - tail**6 / 252 + tail**8 / 240 - tail**10 / 132
    return np.where(a > 20, series, special.digamma(a) - np.log(a))


def shape_slope(b: Array, x: Array) -> Array:
    """dx/db at a fixed quantile of Gamma(b), b >= 1."""
    gap = np.log(x / b) - digamma_less_log(b)  # ln x - psi(b)
    upper = gap > 0

    def exponent(s: Array) -> Array:
        # Both are written with expm1 so that near the peak they keep their digits.
        with np.errstate(over="ignore"):
            return np.where(upper, b * s - x * np.expm1(s), -b * s - x * np.expm1(-s))

    low, high = np.zeros_like(b), np.full_like(b, 200.0)
    for _ in range(60):
        middle = (low + high) / 2
        inside = exponent(middle) > -42
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    nodes, weights = np.polynomial.legendre.leggauss(160)
    total = np.zeros_like(b)
    for node, weight in zip(nodes, weights, strict=True):
        s = high * (node + 1) / 2
        total += weight * (np.abs(gap) + s) * np.exp(exponent(s))
    return x * total * high / 2


def samples(shift: int) -> tuple[Array, Array]:
    """Concentrations c and draws x that cover all but the tails."""
    w = 0.5 - 0.5 * np.cos(np.pi * (np.arange(90) + 0.5) / 90)
    c = np.concatenate([1 / w - 1, [0.0, 1e4, 1e5, 1e6]])
    position = 0.5 - 0.5 * np.cos(np.pi * (np.arange(70) + 0.5) / 70)
    low = np.where(c < 1e-6, 0.0, special.gammaincinv(np.maximum(c, 1e-6), TAIL)) / (c + 1)
    high = special.gammainccinv(c + 1, TAIL) / (c + 1)
    r = np.cbrt(low)[:, None] + (np.cbrt(high) - np.cbrt(low))[:, None] * position
    r = np.maximum(r, 1e-3)
    return np.repeat(c, len(position)), (r**3 * (c + 1)[:, None]).ravel()


def recurrence(c: Array, x: Array, shift: int) -> tuple[Array, Array]:
    """What c times the slope is beside the term of shape c + shift, and the factor of that term."""
    gap = digamma_less_log(c + 1) - np.log(x / (c + 1))
    term, harmonic, rest = np.ones_like(c), np.zeros_like(c), np.zeros_like(c)
    for k in range(shift):
        if k:
            term, harmonic = term * x / (c + k), harmonic + 1 / (c + k)
        rest = rest + term * (gap + harmonic)
    return rest, term


def fit_slopes(
    shift: int, base: int, r_degree: int, w_degree: int, total: float, rounds: int = 25
) -> tuple[list[list[float]], float]:
    """Coefficients [j][k] of (r - 1)^j w^k, and the largest relative error of a slope.

    Here r = (x / (c + base))^(1/3) and w = base / (c + base).
    """
    c, x = samples(shift)
    value = shape_slope(c + shift, x)
    rest, factor = recurrence(c, x, shift)
    weight = factor / np.abs(rest + factor * value)
    r, w = np.cbrt(x / (c + base)) - 1, base / (c + base)
    powers = [
        (j, k)
        for j in range(r_degree + 1)
        for k in range(w_degree + 1)
        if j / max(r_degree, 1) + k / max(w_degree, 1) <= total
    ]
    # Chebyshev polynomials keep the least squares well conditioned; they become powers at the end.
    low, high = r.min(), r.max()
    t_r = np.polynomial.chebyshev.chebvander(2 * (r - low) / (high - low) - 1, r_degree)
    t_w = np.polynomial.chebyshev.chebvander(2 * w - 1, w_degree)
    columns = np.stack([t_r[:, j] * t_w[:, k] for j, k in powers], 1)
    emphasis, best, kept = np.ones_like(weight), np.inf, np.zeros(len(powers))
    for _ in range(rounds):
        scaled = weight * emphasis
        found = np.linalg.lstsq(columns * scaled[:, None], value * scaled, rcond=1e-15)[0]
        error = np.abs(columns @ found - value) * weight
        if error.max() < best:
            best, kept = float(error.max()), found
        emphasis = emphasis * (error / error.max() + 0.05) ** 0.3
    return to_powers(kept, powers, r_degree, w_degree, low, high), best


def to_powers(
    found: Array, powers: list[tuple[int, int]], r_degree: int, w_degree: int, low: float, high: float
) -> list[list[float]]:
    """From Chebyshev polynomials on [low, high] x [0, 1] to powers of r - 1 and w."""
    table = np.zeros((r_degree + 1, w_degree + 1))
    for value, (j, k) in zip(found, powers, strict=True):
        table[j, k] = value

    def basis(degree: int, lower: float, upper: float) -> Array:
        rows = np.zeros((degree + 1, degree + 1))
        for n in range(degree + 1):
            series = np.polynomial.Chebyshev.basis(n, domain=[lower, upper]).convert(
                kind=Polynomial, domain=[-1, 1], window=[-1, 1]
            )
            rows[n, : len(series.coef)] = series.coef
        return rows

    full = basis(r_degree, low, high).T @ table @ basis(w_degree, 0.0, 1.0)
    largest = [max((k for i, k in powers if i >= j), default=0) for j in range(r_degree + 1)]
    return [[float(v) for v in row[: top + 1]] for row, top in zip(full, largest, strict=True)]


def fit_functions() -> dict[str, list[float]]:
    """Powers of w = 1 / a for functions of a = c + 1; those that vanish at w = 0 do so exactly."""
    import mpmath as mp

    nodes = np.maximum(0.5 - 0.5 * np.cos(np.pi * (np.arange(80) + 0.5) / 80), 1e-5)
    digamma, kappa, trigamma = [], [], []
    with mp.workdps(40):
        for w in nodes:
            a = 1 / mp.mpf(float(w))
            digamma.append(float((mp.digamma(a) - mp.log(a)) * a))
            k = (a - 1) * mp.digamma(a) - mp.loggamma(a) - a + mp.log(a) / 2
            kappa.append(float(k))
            trigamma.append(float((mp.psi(1, a) * a - 1) * a))
    ratio = np.log1p(-nodes / 3) / nodes

    def fit(values: object, degree: int) -> list[float]:
        series = Polynomial.fit(nodes, np.asarray(values, dtype=float), degree)
        return [float(v) for v in series.convert(domain=[-1, 1], window=[-1, 1]).coef]

    return {
        "DIGAMMA": [0.0, *fit(digamma, 5)],
        "KAPPA": fit(kappa, 6),
        "TRIGAMMA": fit(trigamma, 6),
        "LOG_RATIO": [0.0, *fit(ratio, 5)],
    }


def written(value: object, digits: int, indent: int = 0) -> str:
    """A list of numbers, or of lists, as Python."""
    assert isinstance(value, list)
    if all(isinstance(v, float) for v in value):
        lines, line = [], " " * indent + "("
        for number in value:
            item = f"{number:.{digits}g}, "
            if len(line) + len(item) > 118:
                lines.append(line.rstrip())
                line = " " * (indent + 1)
            line += item
        return "\n".join([*lines, line.rstrip() + "),"])
    return "\n".join(written(v, digits, indent) for v in value)


def write(tables: dict[str, tuple[list[object], int]], notes: list[str]) -> None:
    text = [
        '"""Coefficients by `benchmarks/fit_gamma_series.py`, explained where they are used.',
        "",
    ]
    text += [*notes, '"""', "", "# fmt: off"]
    for name, (value, digits) in tables.items():
        if isinstance(value, int):
            text.append(f"{name} = {value}")
            continue
        body = written(value, digits, 4 if isinstance(value[0], list) else 0)
        text.append(f"{name} = (\n{body}\n)" if isinstance(value[0], list) else f"{name} = {body[:-1]}")
    TARGET.write_text("\n".join(text) + "\n", encoding="utf-8")


def references(path: Path) -> None:
    """Slopes d ln x / dc with 40 digits at quantiles of many concentrations."""
    import mpmath as mp

    table = []
    with mp.workdps(60):
        step = mp.mpf(10) ** -12
        for c in (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0, 1e4, 1e5, 1e6):
            for quantile in (1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6):
                # In logarithms, rounded to what a float64 holds: for small c the quantile itself is below every number.
                x = special.gammaincinv(c, quantile) if quantile < 0.9 else special.gammainccinv(c, 1 - quantile)
                log_x = math.log(x) if x > 1e-300 else (math.log(quantile) + math.lgamma(c + 1)) / c
                table.append([c, log_x, float(reference(mp, c, log_x, step))])
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in table) + "\n]\n", encoding="utf-8")


def reference(mp: object, c: float, log_x: float, step: object) -> object:
    shape, x = mp.mpf(c), mp.exp(mp.mpf(log_x))  # type: ignore[attr-defined]

    def below(b: object) -> object:
        return mp.exp(b * mp.mpf(log_x) - x) / mp.gamma(b + 1) * mp.hyp1f1(1, b + 1, x)  # type: ignore[attr-defined,operator]

    change = (below(shape + step) - below(shape - step)) / (2 * step)
    return -change / (mp.exp(shape * mp.mpf(log_x) - x) / mp.gamma(shape))  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", action="store_true", help="print the errors of many degrees and write nothing")
    parser.add_argument("--references", type=Path, help="write slopes of high precision for the tests to this file")
    arguments = parser.parse_args()
    if arguments.references:
        references(arguments.references)
        return
    if arguments.scan:
        for shift, base in ((2, 1), (2, 2), (3, 3), (4, 4), (6, 6)):
            for r_degree, w_degree, total in ((7, 5, 1.2), (8, 6, 1.2), (12, 8, 1.2), (16, 10, 1.2), (20, 14, 1.1)):
                table, error = fit_slopes(shift, base, r_degree, w_degree, total, rounds=6)
                terms = sum(map(len, table))
                print(
                    f"shift {shift} base {base} degrees {r_degree}, {w_degree} terms {terms}: error {error:.1e}",
                    flush=True,
                )
        return
    single, error = fit_slopes(**SINGLE)  # type: ignore[arg-type]
    double, fine = fit_slopes(**DOUBLE)  # type: ignore[arg-type]
    notes = [f"Largest relative error of a slope: {error:.1e} by the single series, {fine:.1e} by the double one."]
    print(notes[0])
    tables = {name: (values, 9) for name, values in fit_functions().items()}
    tables |= {"SLOPE": (single, 9), "FINE_SHIFT": (DOUBLE["shift"], 0), "FINE_SLOPE": (double, 17)}
    write(tables, notes)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
