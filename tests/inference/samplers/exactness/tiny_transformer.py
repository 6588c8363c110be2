"""A tiny vision transformer, and moments of functions of its posterior that no Markov chain has made.

A transformer of 182 weights looks at 12 images of two patches, and says which patch is brighter. So few data leave a
posterior for which draws of the prior are a good proposal: weighted by their likelihood they give every moment, without
a sampler, a gradient or a change of variables.

.. math:: E[f(w) \\mid y] = \\frac{\\sum_s p(y \\mid w_s) f(w_s)}{\\sum_s p(y \\mid w_s)}, \\qquad w_s \\sim p(w)

    python tests/inference/samplers/exactness/tiny_transformer.py [--draws 2000000]

writes `tiny_transformer.json` beside this file: mean, variance and their standard errors of the log-likelihood and of
the log-probabilities of five other images; the chain's moments are compared with them.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from pyroformer.models import BayesianModel, Image, Output, Transformer
from pyroformer.priors import Normal

TABLE = Path(__file__).with_name("tiny_transformer.json")
SCALE, EXAMPLES, PROBES, BRIGHTER = 1.0, 12, 5, 0.6


def data():
    """Images ``[17, 2, 4]`` and labels ``[17]``: 12 to learn from, and 5 probes."""
    generator = torch.Generator().manual_seed(20)
    y = torch.arange(EXAMPLES + PROBES) % 2
    x = 0.5 * torch.randn(EXAMPLES + PROBES, 2, 4, generator=generator, dtype=torch.float64)
    brighter = torch.where(y == 1, 1.0, -1.0).view(-1, 1, 1).to(x)
    x = x + BRIGHTER * brighter * torch.tensor([1.0, 1.0, -1.0, -1.0]).to(x)
    return x, y


def tiny(prior=None):
    """The model; gains of normalisation layers are around 1."""
    torch.manual_seed(0)
    net = Transformer(Image(2, 4), Output(2), width=4, heads=2, depth=1, mlp_ratio=1.0)
    return BayesianModel(net, prior or Normal(scale=SCALE)).double().eval()


def functions(model, weights):
    """Log-likelihood, and log-probabilities of the labels of the probes, of weights ``[S, ...]``: ``[S, 6]``."""
    x, y = data()
    batched = {name: value.unsqueeze(1) for name, value in weights.items()}
    with torch.no_grad():
        log_probs = torch.func.functional_call(model.net, batched, x).log_softmax(-1)
    found = log_probs[:, torch.arange(len(y)), y]
    return torch.cat([found[:, :EXAMPLES].sum(-1, keepdim=True), found[:, EXAMPLES:]], -1)


def prior_draws(model, count, generator):
    """Weights ``[count, ...]``."""
    draws = {}
    for name, prior in model.distributions().items():
        loc, scale = prior.base_dist.loc, prior.base_dist.scale
        draws[name] = loc + scale * torch.randn(count, *loc.shape, generator=generator, dtype=torch.float64)
    return draws


def at_the_centre(model):
    """The functions of weights near the centre of the prior: what a table has to agree with to be this model's."""
    weights = {}
    for name, prior in model.distributions().items():
        loc = prior.base_dist.loc
        weights[name] = (loc + torch.linspace(-0.5, 0.7, loc.numel(), dtype=torch.float64).view_as(loc)).unsqueeze(0)
    return functions(model, weights)[0].tolist()


def moments(found):
    """Of functions ``[S, 6]`` of prior draws, the first of which is the log-likelihood."""
    weights = torch.softmax(found[:, 0], 0)
    mean = weights @ found
    squares = (found - mean) ** 2
    variance = weights @ squares

    def error(values, expected):
        return (weights.square() @ (values - expected) ** 2).sqrt().tolist()

    return {
        "effective_draws": float(1 / weights.square().sum()),
        "log_evidence": float(found[:, 0].logsumexp(0)) - math.log(len(found)),
        "mean": mean.tolist(),
        "mean_error": error(found, mean),
        "variance": variance.tolist(),
        "variance_error": error(squares, variance),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, generator, found = tiny(), torch.Generator().manual_seed(arguments.seed), []
    for _ in range(arguments.draws // arguments.chunk):
        found.append(functions(model, prior_draws(model, arguments.chunk, generator)))
    table = {
        "draws": arguments.draws,
        "seed": arguments.seed,
        "guessing": EXAMPLES * math.log(0.5),
        "at_the_centre": at_the_centre(model),
        **moments(torch.cat(found)),
    }
    TABLE.write_text(json.dumps(table, indent=2) + "\n", "utf-8")
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
