"""What the axes of a weight are: heads, units and inputs, where its module says so."""

from __future__ import annotations

from dataclasses import dataclass

from ...models import BayesianModel, LayerNorm, Linear


@dataclass(frozen=True)
class Axes:
    """The axes of a site's value.

    Args:
        names: One for each axis.
        shape: The value's shape, with an axis for the heads where these own parts of it.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]


def axes_of(model: BayesianModel) -> dict[str, Axes]:
    """The axes of every latent site of a model, by its name.

    A weight of a layer of ours is of ``unit`` and ``input``; one that heads own parts of has an axis ``head`` before
    that of their units or inputs. Others have numbered axes.
    """
    modules = dict(model.net.named_modules())
    found = {}
    for name, value in model.initial_values().items():
        shape, site = tuple(value.shape), model.sites.get(name)
        names = [f"axis_{index}" for index in range(len(shape))]
        if site is not None and shape == tuple(site.value.shape):
            if isinstance(modules.get(name.rpartition(".")[0]), Linear | LayerNorm):
                names = ["unit", "input"][: len(shape)]
            if site.heads > 1 and site.head_axis < len(shape):
                axis = site.head_axis
                names = [*names[:axis], "head", *names[axis:]]
                shape = (*shape[:axis], site.heads, shape[axis] // site.heads, *shape[axis + 1 :])
        found[name] = Axes(tuple(names), shape)
    return found
