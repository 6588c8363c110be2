"""Attention rows of the training examples as latent sites of Markov chains."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..models import BayesianModel
from ..models.calling import eval_mode
from ..models.sites import row_sites
from ..priors import RowLaw
from ..priors.carried import logs_of
from ..priors.rows import masked_log_softmax
from ..priors.settings import SettingError
from .data import Data, Inputs, first, take
from .density import Layout
from .density.layout import sites_of
from .density.row_coordinates import RowCoordinates, coordinates_of, refusal_of
from .posterior import MAX_RUNS
from .prediction import slices
from .stored_draws import StoredDraws

MOST = 200_000
"""Most unconstrained numbers that the rows of all training examples may take."""
SLICE = 16
"""Examples whose rows are counted at once."""
BLOCK = 2**22
"""About how many numbers of rows and weights one run of the net on several draws may hold."""
LOG_LIKELIHOOD, ENTROPY = "log_likelihood", "row_entropy"
"""What is told of draws beside the values of sites; of the second one for each site, ``row_entropy.<site>``."""


def refusal(model: BayesianModel, driver: str) -> str | None:
    """Why a driver cannot draw the attention rows of a model, or None when it can, or when they are computed.

    Args:
        model: The model.
        driver: The driver's name.
    """
    layers = row_sites(model._modules["net"]) if model.rows else {}
    for name, law in model.row_priors.items():
        if reason := refusal_of(law):
            return f"{reason}: see the prior of {name}"
        prior = layers[name].row_prior
        if prior is not None and any(p.requires_grad for p in prior.parameters()):
            return f"a center without numbers that are learned, such as softmax: {driver} cannot learn those of {name}"
    return None


def warn_of_queries(model: BayesianModel) -> None:
    """Say where the joint density does not contain the query weights: their draws are draws of their prior."""
    blind = [n for n, law in model.row_priors.items() if isinstance(law, RowLaw) and not law.center.sees_queries]
    if blind:
        warnings.warn(
            f"the prior of {', '.join(blind)} does not look at the queries: data say nothing about the query weights, "
            "and rows of new inputs are drawn without them; the center softmax is the one whose rows depend on them",
            RuntimeWarning,
            stacklevel=2,
        )


def count_numbers(model: BayesianModel, x: Inputs, most: int | None = None) -> int:
    """How many unconstrained numbers the rows of these inputs take, 0 where a model computes its rows.

    Raises:
        SettingError: They are more than ``most``, default `MOST`.
    """
    most = MOST if most is None else most
    total, examples = 0, len(first(x))
    for where in slices(examples, SLICE) if model.rows else ():
        sites = sites_of(model, (take(x, where),), {}, 0)
        total += sum(coordinates_of(sites[name]).size for name in model.rows)
        if total > most:
            seen = min(where.stop, examples)
            number = total if seen == examples else f"about {round(total * examples // seen, -3)}"
            expected = f"at most {most} numbers for the attention rows of {examples} training examples"
            raise SettingError("rows", number, f"{expected}: take fewer examples, tokens, heads or random layers")
    return total


def mean_entropy(value: Tensor, mask: Tensor | None) -> Tensor:
    """The entropy of attention rows in nats, meaned over the rows of all examples and heads that may see a key.

    Args:
        value: Rows, or positive entries, ``[..., B, H, T, S]``.
        mask: Valid entries ``[B, H, T, S]``, or None when all are.

    Returns:
        ``[...]``.
    """
    logs = masked_log_softmax(logs_of(value), mask)
    entropy = -(logs.exp() * logs).sum((-1, -2, -3, -4))
    seeing = value[..., 0].numel() // max(entropy.numel(), 1) if mask is None else int(mask.any(-1).sum())
    return entropy / max(seeing, 1)


class RowDraws:
    r"""What is kept of draws of rows and weights: the weights, and of the rows what tells how chains do.

    .. math:: \ell_s = \sum_n \ln p(y_n \mid x_n, A_{sn}, w_s)

    Args:
        model: The model.
        data: All training data, in the place of the model.
        layout: Where its latent sites stand in the vectors.
        keep: Whether the rows are kept too.
    """

    def __init__(self, model: BayesianModel, data: Data, layout: Layout, keep: bool):
        self.model, self.data, self.layout, self.keep = model, data, layout, keep
        entries = sum(shape.numel() for shape in layout.shapes.values())
        self.most = max(1, min(BLOCK // entries, MAX_RUNS // len(data) + 1))

    def __call__(self, z: Tensor) -> dict[str, Tensor]:
        """Of vectors ``[K, s, D]``: values ``[K, s, ...]`` by site, and ``[K, s]`` of what is told beside them."""
        with torch.no_grad(), eval_mode(self.model), pyro.validation_enabled(False), torch.random.fork_rng(devices=[]):
            found = [self._of(part) for part in z.flatten(0, 1).to(self.layout.device).split(self.most)]
        return {name: torch.cat([each[name] for each in found]).unflatten(0, z.shape[:2]) for name in found[0]}

    def _of(self, z: Tensor) -> dict[str, Tensor]:
        values = self.layout.unflatten(z)
        lifted = {name: v if name in self.layout.rows else v.unsqueeze(1) for name, v in values.items()}
        with poutine.block(), poutine.trace() as tracer, pyro.plate("draws", len(z), dim=-2):
            poutine.condition(self.model, data=lifted)(self.data.x, self.data.y)
        site = tracer.trace.nodes["obs"]
        log_likelihood = site["fn"].log_prob(site["value"]).double().expand(len(z), -1).sum(-1)
        told = {LOG_LIKELIHOOD: log_likelihood}
        for name in self.layout.rows:
            coordinates = self.layout.transforms[name]
            assert isinstance(coordinates, RowCoordinates)
            told[f"{ENTROPY}.{name}"] = mean_entropy(values[name], coordinates.mask).double()
        kept = {name: value for name, value in values.items() if self.keep or name not in self.layout.rows}
        return {name: value.cpu() for name, value in {**kept, **told}.items()}


def is_told(name: str) -> bool:
    """Whether something in what `RowDraws` gives is no site."""
    return name == LOG_LIKELIHOOD or name.startswith(f"{ENTROPY}.")


def parted(draws: Mapping[str, Tensor], chains: int) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
    """The draws of sites, and ``[K, S']`` of what is told beside them, of what was made by `RowDraws`."""
    told = {name: draws[name].unflatten(0, (chains, -1)) for name in draws if is_told(name)}
    if not told:
        return draws, told
    if not isinstance(draws, StoredDraws):
        return {name: values for name, values in draws.items() if name not in told}, told
    return StoredDraws([{n: values for n, values in part.items() if n not in told} for part in draws.parts]), told
