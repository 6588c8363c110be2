"""A weight study as a page."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import yamlfile
from ..priors import describe
from ..report.page import Section, page
from ..report.plots.weights import FAMILIES, correlations_against, quantiles_against
from ..report.svg import Panel, figure, to_svg
from ..run import environment
from .held_out import NEAR
from .prior_map import prior_yaml, rounded
from .study import GroupStudy, WeightStudy
from .view import correlation, family, gain

WHERE = ("rows", "columns", "heads")


def render(found: WeightStudy) -> str:
    """The text of the page."""
    what = "weights less their start" if found.change else "weights, as deviations from the centre of their priors"
    said = f"Nets trained without a prior from {found.groups[0].seeds} seeds. Looked at: {what}."
    return page(found.title, said, list(_sections(found)), environment())


def _sections(found: WeightStudy) -> Iterator[Section]:
    yield Section(
        "Families",
        "n: weights of one net. sd: around the centre. Relative: sd over (2 / fan-in)^1/2. Kurtosis: excess, ± "
        f"standard error over nets. Family: of fewest numbers within {NEAR:g} standard errors "
        "of the best on nets left out. Gain: nats a weight over the normal family there.",
        headings=("group", "n", "mean", "sd", "relative", "kurtosis", "family", "gain"),
        rows=[
            (
                one.group.name,
                (
                    f"{one.n:,}",
                    f"{one.mean:.3g}",
                    f"{one.sd:.3g}",
                    f"{one.relative_sd:.3g}",
                    f"{one.kurtosis:.2f} ± {one.kurtosis_error:.2f}",
                    family(one),
                    gain(one),
                ),
            )
            for one in found.groups
        ],
    )
    fitted = [one for one in found.groups if one.fits]
    if fitted:
        yield Section(
            "Quantiles",
            "Quantiles of the weights of all nets against those of three fitted families, in standard deviations. A "
            "family is right where its points are on the diagonal; points beyond it at both ends are heavier tails.",
            panels=[_quantiles(one) for one in fitted],
            size="small",
            beside=False,
        )
        names = [fit.family for fit in sorted(fitted[0].fits, key=lambda fit: fit.family)]
        yield Section(
            "Held-out likelihood",
            "Nats a weight behind the best family, ± the standard error over nets left out. The fits share data, so "
            "the error is a rough one.",
            headings=("group", *names),
            rows=[(one.group.name, [_behind(one, name) for name in names]) for one in fitted],
        )
    correlated = [one for one in found.groups if one.rows or one.columns]
    if correlated:
        yield Section(
            "Correlation",
            "Mean absolute correlation of two rows (units of the output), two columns (inputs), and the parts of two "
            "heads. Bars: the same with the entries of each matrix in random places, ± 2 standard deviations; z counts "
            "standard deviations above it, p is the permutation test's.",
            headings=("group", *(f"{where}{key}" for where in WHERE for key in ("", ", z", ", p"))),
            rows=[(one.group.name, [t for where in WHERE for t in _correlation(one, where)]) for one in correlated],
            panels=list(_correlations(correlated)),
            beside=False,
        )
    texts = [] if found.change else [("the prior that follows, as prior.yaml", prior_yaml(found))]
    for one in fitted:
        text = yamlfile.dump({fit.family: rounded(next(iter(describe(fit.prior).values()))) for fit in one.fits})
        texts.append((f"fits of {one.group.name}: {', '.join(one.group.parameters)}", text))
    texts.append(("the spec of the nets", yamlfile.dump(dict(found.spec))))
    yield Section("Fits and spec", texts=texts)


def _quantiles(one: GroupStudy) -> Panel:
    settings = {fit.family: vars(fit.prior) for fit in one.fits}
    scales = {name: (settings[name]["scale"], settings[name].get("df", 0.0)) for name in FAMILIES}
    made, (ax,) = figure(2.5, 2.2)
    quantiles_against(ax, torch.cat(one.deviations), scales)
    return Panel(one.group.name, to_svg(made, f"quantiles of {one.group.name}"), family(one))


def _behind(one: GroupStudy, name: str) -> str:
    fit = next(fit for fit in one.fits if fit.family == name)
    text = "best" if not fit.behind and not fit.error else f"{fit.behind:.4f} ± {fit.error:.4f}"
    return f"{text} *" if name == one.winner else text


def _correlation(one: GroupStudy, where: str) -> tuple[str, str, str]:
    found = getattr(one, where)
    return (*correlation(found), "-" if found is None else f"{found.p:.2f}")


def _correlations(groups: list[GroupStudy]) -> Iterator[Panel]:
    for where in WHERE:
        kept = {one.group.name: getattr(one, where) for one in groups if getattr(one, where) is not None}
        if kept:
            made, (ax,) = figure(3.1, 0.7 + 0.23 * len(kept))
            correlations_against(ax, {name: (c.statistic, c.null_mean, c.null_sd) for name, c in kept.items()})
            yield Panel(where, to_svg(made, f"correlation of {where}"))
