"""Chains as an `xarray.DataTree` and as a netCDF file, which ArviZ reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...priors import SettingError
from ..data import Data, Inputs
from ..files import replacing
from ..posterior import Posterior
from .functions import functions
from .functions import weights as weights_of
from .passes import pointwise_log_likelihood, with_chains
from .quantity import Quantities, Quantity

if TYPE_CHECKING:
    from xarray import DataTree

LIBRARY = "pyroformer"
NAMES = {
    "log_density": "lp",
    "energy": "energy",
    "divergent": "diverging",
    "acceptance": "acceptance_rate",
    "depth": "tree_depth",
    "steps": "n_steps",
    "step_size": "step_size",
    "log_likelihood": "log_likelihood",
}
"""What ArviZ calls the statistics of a sampler."""
OBSERVED = "y"
EXTRA = ("xarray", "h5netcdf")


def to_datatree(
    posterior: Posterior,
    data: Data | None = None,
    *,
    probe: tuple[Inputs, Tensor] | None = None,
    attributes: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> DataTree:
    """The chains of a posterior in the groups and under the names that ArviZ knows.

    Args:
        posterior: Draws of Markov chains.
        data: What was learned from, for the groups ``log_likelihood`` (of every example, which LOO needs) and
            ``observed_data``; default None: without them.
        probe: Inputs and observations, of which the first 10 are looked at, for functions of draws beside the weights
            in the group ``posterior``; default None: weights alone.
        attributes: Of the tree, such as the spec and versions; what netCDF cannot hold is written as JSON.
        seed: Of attention rows, where these are random given the draws.

    Returns:
        Groups ``posterior`` (every site, with the axes ``head``, ``unit`` and ``input`` where its layer has them, and
        functions), ``sample_stats``, ``log_likelihood`` and ``observed_data``. Every axis has coordinates.

    Raises:
        SettingError: The posterior is not one of chains, or xarray is not installed.
    """
    if reason := missing(EXTRA[:1]):
        raise SettingError("xarray", "not installed", reason)
    import xarray

    found = with_chains(posterior)
    drawn: Quantities = weights_of(found)
    if probe is not None:
        drawn |= functions(found, *probe, seed=seed)
    statistics = {NAMES.get(name, name): Quantity(values) for name, values in found.statistics.items()}
    groups = {"posterior": _dataset(xarray, drawn), "sample_stats": _dataset(xarray, statistics)}
    if data is not None:
        logs = pointwise_log_likelihood(found, data.x, data.y, seed=seed)
        groups["log_likelihood"] = _dataset(xarray, {OBSERVED: Quantity(logs, ("obs",))})
        y = data.y.detach().cpu().numpy()
        dims = ("obs", *(f"axis_{index}" for index in range(y.ndim - 1)))
        coordinates = {dim: np.arange(size) for dim, size in zip(dims, y.shape, strict=True)}
        groups["observed_data"] = xarray.Dataset({OBSERVED: (dims, y)}, coords=coordinates)
    told = {"inference_library": LIBRARY, **(attributes or {})}
    tree = xarray.DataTree.from_dict(groups)
    tree.attrs = {name: _attribute(value) for name, value in told.items()}
    for group in groups:  # ArviZ keeps those of groups alone
        tree[group].attrs = dict(tree.attrs)
    return tree


def write_netcdf(posterior: Posterior, path: str | Path, data: Data | None = None, **settings: Any) -> None:
    """Write the chains of a posterior to one netCDF file, whole or not at all; ArviZ reads it from version 0.23.

    Args:
        posterior: Draws of Markov chains.
        path: The file.
        data, settings: As for `to_datatree`.

    Raises:
        SettingError: The posterior is not one of chains, or xarray or h5netcdf is not installed.
        WriteError: The file could not be written.
    """
    if reason := missing():
        raise SettingError("path", str(path), reason)
    tree = to_datatree(posterior, data, **settings)
    with replacing(Path(path)) as new:
        tree.to_netcdf(new, engine="h5netcdf")


def missing(needed: tuple[str, ...] = EXTRA) -> str | None:
    """What has to be installed for this, in words, or None when it is there."""
    lacking = [name for name in needed if find_spec(name) is None]
    if not lacking:
        return None
    return f"an installation with {' and '.join(lacking)}: pip install 'pyroformer[diag]'"


def _dataset(xarray: Any, quantities: Quantities) -> Any:
    """Quantities ``[K, S, ...]`` as a dataset with coordinates on every axis."""
    taken: dict[str, set[tuple[Any, ...]]] = {}
    for quantity in quantities.values():
        for dim, labels in _axes(quantity):
            taken.setdefault(dim, set()).add(labels)
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for name, quantity in quantities.items():
        dims = ["chain", "draw"]
        coordinates |= {dim: np.arange(size) for dim, size in zip(dims, quantity.values.shape, strict=False)}
        for dim, labels in _axes(quantity):
            # an axis has one length in a dataset
            dims.append(dim if len(taken[dim]) == 1 else f"{dim}_{len(labels)}")
            coordinates[dims[-1]] = np.array(labels)
        variables[name.replace("/", ".")] = (dims, quantity.values.detach().cpu().numpy())
    return xarray.Dataset(variables, coords=coordinates)


def _axes(quantity: Quantity) -> list[tuple[str, tuple[Any, ...]]]:
    sizes = zip(quantity.dims, quantity.values.shape[2:], strict=True)
    return [(dim, quantity.labels.get(dim) or tuple(range(size))) for dim, size in sizes]


def _attribute(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)  # versions may be of a class of their own, which HDF5 does not know
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return value if plain else json.dumps(value, default=str)
