"""The posterior that samplers are measured on: a vision transformer on digits, in Pyro and in NumPyro.

Width 16, 2 heads, 1 layer, 16 tokens, 2,730 parameters, no last normalisation; priors of standard deviation 0.3 around
0, around 1 for the gains of normalisation layers.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyroformer.models import BayesianModel, Transformer
from pyroformer.priors import Normal
from pyroformer.tasks import Digits

SD, PARAMETERS = 0.3, 2730


def one_thread() -> None:
    """Run torch, and XLA where it is imported later, on one thread."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    torch.set_num_threads(1)


def installed(*peers: str) -> dict[str, bool]:
    """Which peers can be imported; says how to install those that cannot."""
    found = {name: importlib.util.find_spec(name) is not None for name in peers}
    for name in (name for name, there in found.items() if not there):
        print(f"{name} is not installed and is left out: pip install -c constraints.txt {name}")
    return found


def bayesian_net(count: int) -> tuple[BayesianModel, Tensor, Tensor]:
    """The model, and its data."""
    data = Digits().load()
    torch.manual_seed(0)
    net = Transformer(data.inputs, data.outputs, width=16, heads=2, depth=1)
    net.norm = torch.nn.Identity()
    return BayesianModel(net, Normal(scale=SD)).eval(), data.train.x[:count], data.train.y[:count]


def probes(count: int) -> tuple[Tensor, Tensor]:
    """Digits that the model is not fitted to."""
    data = Digits().load()
    return data.validation.x[:count], data.validation.y[:count]


def numpyro_energy(model: BayesianModel, x: Tensor, y: Tensor) -> Callable[[dict[str, Any]], Any]:
    """NumPyro's potential energy of the same model, of values by site."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as distributions
    from numpyro.infer.util import initialize_model

    found = model.distributions()
    loc = {name: jnp.asarray(prior.base_dist.loc.numpy()) for name, prior in found.items()}
    patches = jnp.asarray(x.reshape(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(-1, 16, 4).numpy())
    labels = jnp.asarray(y.numpy())

    def norm(w: dict[str, Any], name: str, value: Any) -> Any:
        centred = value - value.mean(-1, keepdims=True)
        scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def affine(w: dict[str, Any], name: str, value: Any) -> Any:
        return value @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def net() -> None:
        w = {name: numpyro.sample(name, distributions.Normal(c, SD).to_event(c.ndim)) for name, c in loc.items()}
        tokens = affine(w, "embedding.project", patches) + w["position"]
        inside = norm(w, "blocks.0.norm1", tokens)
        heads = (affine(w, f"blocks.0.attention.{part}", inside) for part in ("query", "key", "value"))
        query, key, value = (part.reshape(*part.shape[:2], 2, 8).swapaxes(1, 2) for part in heads)
        rows = jax.nn.softmax(query @ key.swapaxes(-1, -2) / 8**0.5, -1)
        attended = (rows @ value).swapaxes(1, 2).reshape(tokens.shape)
        tokens = tokens + affine(w, "blocks.0.attention.output", attended)
        hidden = affine(w, "blocks.0.mlp.up", norm(w, "blocks.0.norm2", tokens))
        tokens = tokens + affine(w, "blocks.0.mlp.down", jax.nn.gelu(hidden, approximate=False))
        with numpyro.plate("data", len(labels)):
            numpyro.sample("obs", distributions.Categorical(logits=affine(w, "head", tokens.mean(1))), obs=labels)

    with numpyro.validation_enabled(False):
        return initialize_model(jax.random.PRNGKey(0), net).potential_fn
