"""The parameters and the attention rows of a net as sites, and the priors that a map gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn

from ..priors import (
    HierarchicalPrior,
    PointEstimate,
    Prior,
    RowCenterModule,
    RowPrior,
    RowPriorModule,
    SettingError,
    Site,
    assign,
    choice_name,
)
from .attention import Attention
from .embeddings import FeatureEmbedding, TokenEmbedding
from .encoder_decoder import EncoderDecoder
from .layers import LayerNorm
from .transformer import Transformer

AnyPrior = Prior | HierarchicalPrior | RowPrior | PointEstimate | Callable[[str, Tensor], Distribution]

OBJECTS = (Prior, HierarchicalPrior, RowPrior, PointEstimate)

NORMS = (LayerNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)

ROW_MODULES = (RowPriorModule, RowCenterModule)
"""Modules whose parameters are hyperparameters of a row prior."""

TABLES = (nn.Embedding, TokenEmbedding, FeatureEmbedding, Transformer, EncoderDecoder)
"""Modules whose own parameters (a transformer's: its positions) are tables: a token meets one row."""


def _writes_residual(module: nn.Module) -> bool:
    """Whether a layer's output is added to the residual stream: it carries the mark ``writes_residual = True``."""
    return getattr(module, "writes_residual", False) is True


def _residual_writes(net: nn.Module) -> dict[str, int]:
    """By the name of each layer that writes into a residual stream, how many layers write into the same one.

    A net has one stream, or one for each part that its ``residual_streams`` names.
    """
    streams = getattr(net, "residual_streams", ())
    writers = [name for name, module in net.named_modules() if _writes_residual(module)]
    owner = {name: next((stream for stream in streams if name.startswith(f"{stream}.")), "") for name in writers}
    count = Counter(owner.values())
    return {name: count[stream] for name, stream in owner.items()}


PROJECTIONS = {"in_proj_weight": 3, "in_proj_bias": 3, "q_proj_weight": 1, "k_proj_weight": 1, "v_proj_weight": 1}
"""Parameters of torch's attention that write into heads, and how many projections each of them holds."""


def _heads(net: nn.Module) -> dict[int, tuple[int, int]]:
    """The number of the heads that own a part of a parameter, and the axis of the parts, by the parameter's identity.

    Of a parameter that holds the projections to queries, keys and values every head owns three parts.
    """
    found: dict[int, tuple[int, int]] = {}
    for module in net.modules():
        if isinstance(module, Attention):
            for layer in (module.query, module.key, module.value):
                found |= {id(parameter): (module.heads, 0) for parameter in layer.parameters()}
            found[id(module.output.weight)] = (module.heads, 1)
        elif isinstance(module, nn.MultiheadAttention):
            for name, held in PROJECTIONS.items():
                found[id(getattr(module, name))] = (module.num_heads * held, 0)
            found[id(module.out_proj.weight)] = (module.num_heads, 1)
    return found


def weight_sites(net: nn.Module) -> dict[str, Site]:
    """Every parameter of a net as a `Site`, keyed by name; a tied parameter appears once, under its first owner.

    Parameters of row priors are left out: they are hyperparameters. A layer of a net of yours writes into the residual
    stream when it has the attribute ``writes_residual = True``.
    """
    owners = dict(net.named_modules())
    heads = _heads(net)
    residual_writes = _residual_writes(net)
    sites = {}
    for name, value in net.named_parameters():
        path, _, own = name.rpartition(".")
        owner = owners[path]
        if isinstance(owner, ROW_MODULES):
            continue
        weight = value if value.dim() > 1 else getattr(owner, own.replace("bias", "weight"), None)
        if isinstance(weight, Tensor) and weight.dim() > 1 and not isinstance(owner, TABLES + NORMS):
            fan_in = weight[0].numel()
        else:
            fan_in = 1
        center = 1.0 if isinstance(owner, NORMS) and own == "weight" else 0.0
        writes = residual_writes.get(path, 1)
        input_axis = 0 if isinstance(owner, TABLES) else 1
        # a copy: priors may be made around these values, and the net's own will move
        sites[name] = Site(
            name, value.detach().clone(), fan_in, center, writes, 1.0, input_axis, *heads.get(id(value), (1, 0))
        )
    return sites


def row_sites(net: nn.Module) -> dict[str, Attention]:
    """Every attention layer whose rows may be drawn, keyed by the name of its row site."""
    return {
        f"{name}.rows" if name else "rows": layer for name, layer in net.named_modules() if isinstance(layer, Attention)
    }


def set_row_priors(layers: Mapping[str, Attention], priors: Mapping[str, RowPrior]) -> None:
    """Draw the rows of those layers that have a prior, each at the site of its name; the others compute theirs.

    Layers with equal priors share what these want shared, and know how many they are.

    Args:
        layers: Attention layers by the name of their row site.
        priors: Priors by the name of a row site.

    Raises:
        SettingError: A prior is none for cross attention, and a layer has that.
    """
    first: list[tuple[RowPrior, RowPriorModule]] = []
    for name, layer in layers.items():
        prior = priors.get(name)
        if prior is not None and layer.across and (reason := prior.refusal_across()):
            expected = f"{reason}, and those of {name} are of two; *.attention.rows names no such layer"
            raise SettingError("prior", choice_name(type(prior)), expected)
        layer.set_row_prior(prior, name, sum(other == prior for other in priors.values()))
        if prior is not None:
            assert layer.row_prior is not None
            first.append((prior, layer.row_prior))
            layer.row_prior.share(next(module for other, module in first if other == prior))


def assign_priors(
    prior: AnyPrior | Mapping[str, AnyPrior], weights: Iterable[str], rows: Iterable[str]
) -> tuple[dict[str, AnyPrior], dict[str, RowPrior]]:
    """Resolve a prior, or a map of globs to priors, for the weights and the attention rows of a net.

    Row priors cover attention rows and other priors cover weights, each by the first of its own patterns that matches.
    Rows that no row prior covers are computed by softmax; every weight must be covered.

    Returns:
        The prior of every weight, and that of every layer with random rows.

    Raises:
        SettingError: A pattern matches nothing, a weight is covered by none, or a choice is no prior.
    """
    weights, rows = list(weights), list(rows)
    choices = prior if isinstance(prior, Mapping) else {"*": prior}
    for pattern, choice in choices.items():
        if isinstance(choice, type) or not (isinstance(choice, OBJECTS) or callable(choice)):
            raise SettingError(
                pattern, choice, "a prior such as Normal(), a point estimate such as Fixed(), or a function"
            )
    of_rows = {pattern: p for pattern, p in choices.items() if isinstance(p, RowPrior)}
    of_weights = {pattern: p for pattern, p in choices.items() if not isinstance(p, RowPrior)}
    if of_rows and not of_weights:
        lone = next(iter(of_rows.values()))
        hint = f"{{'*.rows': {choice_name(type(lone))}, '*': learned}}"
        raise SettingError("", choice_name(type(lone)), f"a prior over the weights as well, such as {hint}")
    others = {} if "*" in of_rows else {"*": None}
    found_rows = assign({**of_rows, **others}, rows, kind="layer's attention rows") if of_rows else {}
    return (
        assign(of_weights, weights, kind="weight"),
        {name: p for name, p in found_rows.items() if p is not None},
    )
