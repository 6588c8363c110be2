# %% [markdown]
# # A transformer as a Pyro model
#
# A transformer is a function of its inputs and its weights. Training picks one value of the weights. A Bayesian
# transformer keeps all values that fit the data, each with its probability, and so it can say how sure it is.
#
# In this notebook we build one by hand in [Pyro](https://pyro.ai), then again with Pyroformer in a few lines, and check
# that the two are the same model. Then we change the prior and the guide by one line each, and look at what happens.
#
# You need PyTorch, and what *prior*, *likelihood* and *posterior* mean. You need not know Pyro.

# %%
# If the next import fails:  %pip install -e ..   (this folder is `notebooks/` in a copy of the repository)
import pyroformer  # isort: skip

import os
import time
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # we show no progress bars

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.nn import PyroModule, PyroSample
from torch.distributions import constraints

SMOKE = os.environ.get("PYROFORMER_SMOKE") == "1"  # a quick run that only shows that everything works
STEPS = 50 if SMOKE else 2000
DRAWS = 50 if SMOKE else 400

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
torch.set_num_threads(1)  # our net is tiny: more threads would only wait for each other
pyro.set_rng_seed(0)
print(f"Pyroformer {pyroformer.__version__}, Pyro {pyro.__version__}, torch {torch.__version__}")

# %% [markdown]
# ## 1. The problem
#
# We see 200 noisy points of a curve, and none in the middle:
#
# $$y_n = \sin 3x_n + \varepsilon_n, \qquad \varepsilon_n \sim \mathcal N(0, \sigma^2), \qquad \sigma = 0.1 .$$
#
# A good answer follows the points, and admits in the gap that it does not know.

# %%
NOISE = 0.1
N = 200


def curve(x):
    return torch.sin(3 * x)


side = torch.where(torch.rand(N, 1) < 0.5, -1.0, 1.0)
x = side * (0.6 + 1.2 * torch.rand(N, 1))  # [N, 1]
y = curve(x) + NOISE * torch.randn(N, 1)  # [N, 1]
grid = torch.linspace(-2.2, 2.2, 133).unsqueeze(-1)


def plot_data(ax):
    ax.plot(grid, curve(grid), color="#6e7781", linestyle="--", linewidth=1, label="the curve")
    ax.plot(x, y, ".", color="#24292f", markersize=4, alpha=0.7, label="what we see")
    ax.set(xlabel="x", ylabel="y", xlim=(-2.2, 2.2), ylim=(-3, 3))


fig, ax = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
plot_data(ax)
ax.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# ## 2. Pyro in one small model
#
# Before the transformer, a straight line with a random slope:
#
# $$s \sim \mathcal N(0, 1), \qquad y_n \sim \mathcal N(s\,x_n, \sigma^2), \quad n = 1, \dots, N .$$
#
# A Pyro model is a Python function that draws these variables in order. It has three kinds of statements.
#
# - `pyro.sample(name, distribution)` draws a value. It is called a **sample site**.
# - `pyro.sample(..., obs=y)` is a site whose value we have seen. It draws nothing; its density is the likelihood.
# - `pyro.plate("data", N, dim=-1)` says that what is sampled inside it is sampled $N$ times independently, along axis
#   $-1$.
#
# Every distribution has a *batch shape* (independent copies) and an *event shape* (one value). Here `y` has shape `[N,
# 1]`: $N$ copies of a vector of length 1. `.to_event(1)` moves the last axis from the batch to the event, and the plate
# owns the axis that is left.


# %%
def line(x, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), dim=-1):
        return pyro.sample("obs", dist.Normal(slope * x, NOISE).to_event(1), obs=y)


# %% [markdown]
# ### The trace
#
# We rarely just call a model. `poutine.trace` runs it and writes down every site: its distribution, its value, and its
# log density. In the table below, the bar separates batch shape and event shape.

# %%
trace = poutine.trace(line).get_trace(x, y)
trace.compute_log_prob()
print(trace.format_shapes())

# %% [markdown]
# The slope is one number. The observations are 200 events of length 1, so they have 200 log densities. All sites
# together make the **log joint**, which is all that inference ever asks of a model:
#
# $$\log p(s, y) = \log p(s) + \sum_{n=1}^N \log p(y_n \mid s) .$$
#
# We write the densities out, and compare with the trace.

# %%
slope = trace.nodes["slope"]["value"]


def log_normal(value, mean, sd):
    return -0.5 * ((value - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


by_hand = log_normal(slope, 0.0, 1.0) + log_normal(y, slope * x, NOISE).sum()
assert torch.isclose(by_hand, trace.log_prob_sum())
print(f"log joint by hand {by_hand:.3f}, from the trace {trace.log_prob_sum():.3f}")

# %% [markdown]
# ### Weights are drawn outside the plate
#
# The slope stands before `pyro.plate`, so all examples share it. A site inside the plate would be drawn once *for each
# example*. This is easy to get wrong without noticing, because Pyro offers a way to make a module's weights random that
# hides the `sample` statement: a `PyroSample` attribute is drawn where it is **first read**.
#
# The two modules below differ only in where that is.


# %%
class Line(PyroModule):
    def __init__(self, read_first):
        super().__init__()
        self.slope = PyroSample(dist.Normal(0.0, 1.0))
        self.read_first = read_first

    def forward(self, x):
        if self.read_first:
            _ = self.slope  # drawn here, and remembered for the rest of this call
        with pyro.plate("data", len(x), dim=-1):
            return self.slope * x.squeeze(-1)


outside, inside = (poutine.trace(Line(first)).get_trace(grid).nodes["slope"]["value"] for first in (True, False))
print(f"first read outside the plate: {outside.numel()} slope, inside: {inside.numel()} slopes")
assert outside.shape == () and inside.shape == (len(grid),)

fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
for ax, read_first in zip(axes, (True, False), strict=True):
    for _ in range(3):
        ax.plot(grid, Line(read_first)(grid), linewidth=1)
    ax.set(title=f"first read {'outside' if read_first else 'inside'} the plate", xlabel="x")
axes[0].set_ylabel("three draws of the function")
plt.show()

# %% [markdown]
# On the right every point has a slope of its own, and nothing can be learned from one point about another. No error, no
# warning: only the shape in the trace tells. So from now on: **first every weight, then the plate, then the net inside
# it.**
#
# ## 3. A transformer, as a function of its weights
#
# We write the net as a plain function of the input and a dictionary of weights. First the input must become tokens. Our
# $x$ is one number, and attention needs several tokens to look at, so $x$ becomes $T = 4$ tokens of width $D = 8$: row
# $t$ of the embedding $E$, times $x$, plus a position $P_t$ that tells the tokens apart,
#
# $$h_t = x\,E_t + P_t .$$
#
# Then one block: attention, then a small MLP, each added to what was there, each after a layer normalisation
# $\mathrm{LN}$. With queries, keys and values $Q$, $K$, $V$, which are affine maps of $\mathrm{LN}(h)$,
#
# $$h \leftarrow h + W_O \, A V + b_O, \qquad A = \mathrm{softmax}\bigl(Q K^\top / \sqrt D\bigr), \qquad
# h \leftarrow h + \mathrm{MLP}(\mathrm{LN}(h)) .$$
#
# Every row of $A$ says how one token spreads its attention over the four. In the end a linear head reads the mean
# token: $f_w(x) = W \, \tfrac1T \sum_t \mathrm{LN}(h_t) + b$.

# %%
T, D = 4, 8  # tokens, width of a token

shapes = {"position": (T, D), "embedding.weight": (T, D)}
for name, weight in (
    ("blocks.0.norm1", (D,)),
    ("blocks.0.attention.query", (D, D)),  # outputs, inputs
    ("blocks.0.attention.key", (D, D)),
    ("blocks.0.attention.value", (D, D)),
    ("blocks.0.attention.output", (D, D)),
    ("blocks.0.norm2", (D,)),
    ("blocks.0.mlp.up", (2 * D, D)),
    ("blocks.0.mlp.down", (D, 2 * D)),
    ("norm", (D,)),
    ("head", (1, D)),
):
    shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def net(x, w):
    def affine(h, name):
        return F.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(h, name):
        return F.layer_norm(h, (D,), w[f"{name}.weight"], w[f"{name}.bias"])

    h = x.unsqueeze(-1) * w["embedding.weight"] + w["position"]  # [N, T, D]

    a = norm(h, "blocks.0.norm1")
    query, key, value = (affine(a, f"blocks.0.attention.{part}") for part in ("query", "key", "value"))
    rows = (query @ key.mT / D**0.5).softmax(-1)  # [N, T, T]
    h = h + affine(rows @ value, "blocks.0.attention.output")

    m = norm(h, "blocks.0.norm2")
    h = h + affine(F.gelu(affine(m, "blocks.0.mlp.up")), "blocks.0.mlp.down")
    return affine(norm(h, "norm").mean(-2), "head")  # [N, 1]


count = sum(np.prod(shape) for shape in shapes.values())
print(f"{len(shapes)} tensors of weights, {count} numbers")

# %% [markdown]
# ## 4. Weights become sample sites
#
# The prior is a normal distribution for every single weight,
#
# $$w_i \sim \mathcal N(c_i, 1), \qquad c_i = 1 \text{ for the gains of the layer normalisations, else } 0 .$$
#
# (A gain multiplies everything that passes. Gains near 0 would switch the net off.) A whole tensor is one event:
# `.to_event()` without a number moves all its axes from the batch to the event.


# %%
def center(name):
    return 1.0 if "norm" in name and name.endswith("weight") else 0.0


def model(x, y=None):
    w = {}
    for name, shape in shapes.items():
        prior = dist.Normal(torch.full(shape, center(name)), 1.0).to_event()
        w[name] = pyro.sample(name, prior)
    with pyro.plate("data", len(x), dim=-1):
        f = net(x, w)
        pyro.sample("obs", dist.Normal(f, NOISE).to_event(1), obs=y)
    return f


# %% [markdown]
# This is the whole model. Its trace has one site for each tensor, and each has one log density, however large the
# tensor is. Only `obs` has one for each example.

# %%
trace = poutine.trace(model).get_trace(x, y)
trace.compute_log_prob()
print(f"{'site':33}{'batch':>8}{'event':>10}{'log densities':>16}")
for name, site in trace.nodes.items():
    if site["type"] == "sample" and name != "data":
        fn = site["fn"]
        batch, event, densities = (list(s) for s in (fn.batch_shape, fn.event_shape, site["log_prob"].shape))
        print(f"{name:33}{batch!s:>8}{event!s:>10}{densities!s:>16}")

# %% [markdown]
# The log density of a site is still a sum that we can write out, here for the weights of the queries, a matrix $W_Q$ of
# 64 numbers: $\log p(W_Q) = \sum_{ij} \log \mathcal N(w_{ij} \mid 0, 1)$.

# %%
site = trace.nodes["blocks.0.attention.query.weight"]
by_hand = log_normal(site["value"], 0.0, 1.0).sum()
assert torch.isclose(by_hand, site["log_prob"])
print(f"log density by hand {by_hand:.3f}, from the trace {site['log_prob']:.3f}")

# %% [markdown]
# ### What the prior believes
#
# Called without `y`, the model draws weights from the prior and returns the function that they make. A dozen calls show
# what we believe before any data: the **prior predictive** distribution, of functions.

# %%
fig, ax = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for _ in range(12):
    ax.plot(grid, model(grid), linewidth=1, alpha=0.8)
ax.set(xlabel="x", ylabel="f(x)", xlim=(-2.2, 2.2), title="twelve functions from the prior")
plt.show()

# %% [markdown]
# Functions of many sizes, most of them slow, and nearly flat at both ends: far out, the tokens only grow with $x$, and
# the layer normalisation takes their size away.
#
# ## 5. A guide, and stochastic variational inference
#
# The posterior $p(w \mid y) = p(w, y) / p(y)$ has no formula here. Variational inference looks for the nearest
# distribution in a family that we can handle. In Pyro it is called a **guide** $q$. The simplest family is *mean
# field*: every weight is normal, and independent of all others,
#
# $$q(w) = \prod_i \mathcal N(w_i \mid m_i, s_i^2) .$$
#
# A guide is a function like the model. It has the same sample sites under the same names, but no observations, and its
# numbers are parameters: `pyro.param(name, start)` makes one, and keeps it in a global store under its name.

# %%
pyro.clear_param_store()
pyro.set_rng_seed(1)


def start(name, shape):
    """Where training begins: tables at standard normal numbers, matrices as in `torch.nn.Linear`, the rest at c_i."""
    if name in ("position", "embedding.weight"):
        return torch.randn(shape)
    if len(shape) == 1:
        return torch.full(shape, center(name))
    return (2 * torch.rand(shape) - 1) * shape[-1] ** -0.5


starts = {name: start(name, shape) for name, shape in shapes.items()}


def guide(x, y=None):
    for name, shape in shapes.items():
        mean = pyro.param(f"{name}.mean", starts[name])
        sd = pyro.param(f"{name}.sd", torch.full(shape, 0.05), constraint=constraints.positive)
        pyro.sample(name, dist.Normal(mean, sd).to_event())


# %% [markdown]
# Which member of the family is best? The one with the largest **evidence lower bound**
#
# $$\mathrm{ELBO}(q) = \mathbb E_{q}\bigl[\log p(w, y) - \log q(w)\bigr]
#   = \underbrace{\mathbb E_q[\log p(y \mid w)]}_{\text{fit}}
#   - \underbrace{\mathrm{KL}\bigl(q(w)\,\|\,p(w)\bigr)}_{\text{distance from the prior}}
#   \;\le\; \log p(y) .$$
#
# What is missing to $\log p(y)$ is $\mathrm{KL}(q(w) \,\|\, p(w \mid y))$. So a larger bound means a better
# approximation.
#
# `Trace_ELBO` estimates it as it is written: it traces the guide, runs the model with the values that the guide drew,
# and subtracts the two log densities. `SVI` descends the gradient of minus that, in the parameters $m$ and $s$. Here is
# one estimate by hand.

# %%
pyro.set_rng_seed(2)
guide_trace = poutine.trace(guide).get_trace(x, y)
model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x, y)
by_hand = (model_trace.log_prob_sum() - guide_trace.log_prob_sum()).item()

pyro.set_rng_seed(2)  # the same draws again
from_pyro = -Trace_ELBO().loss(model, guide, x, y)

assert np.isclose(by_hand, from_pyro, rtol=1e-4)
print(f"ELBO of the untrained guide: by hand {by_hand:.1f}, by Trace_ELBO {from_pyro:.1f}")

# %% [markdown]
# Now we train. The learning rate falls to zero along a cosine. Pyro checks every distribution that it meets, which has
# served us well so far and takes time; while we train we do without.

# %%
optimizer = pyro.optim.CosineAnnealingLR(
    {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.06}, "T_max": STEPS},
)
svi = SVI(model, guide, optimizer, Trace_ELBO())

began = time.perf_counter()
history_by_hand = []  # in the form that the library's plots take
with pyro.validation_enabled(False):
    for step in range(1, STEPS + 1):
        elbo = -svi.step(x, y)
        optimizer.step()
        history_by_hand.append({"epoch": step, "elbo": elbo})
        if step % (STEPS // 5) == 0:
            print(f"step {step:5}   ELBO {elbo:9.1f}   {time.perf_counter() - began:5.1f} s")

# %% [markdown]
# ### Predictions
#
# `Predictive` draws weights from the guide and runs the model with them; `_RETURN` is what the model returns, here $f$.
# Each draw is a function. Their mean is our prediction, and their spread is what we do not know about the curve. A new
# observation has the noise on top, and variances add up:
#
# $$\operatorname{Var}[y \mid x] = \underbrace{\operatorname{Var}_q[f_w(x)]}_{\text{the model's doubt}}
#   + \underbrace{\sigma^2}_{\text{noise}} .$$


# %%
from pyroformer.report import elbo_curves, regression_band


def plot_bands(ax, mean, model_sd):
    """The mean, two standard deviations of an observation (light), and those of the function alone (dark)."""
    sd = (model_sd**2 + NOISE**2).sqrt()
    regression_band(ax, grid, mean, mean - 2 * sd, mean + 2 * sd)
    low, high = mean - 2 * model_sd, mean + 2 * model_sd
    ax.fill_between(grid.flatten(), low.flatten(), high.flatten(), color="#0072b2", alpha=0.3, linewidth=0)
    plot_data(ax)


def plot_elbo(ax, history):
    """The bound by step. One step sees one draw of the weights, so we take the mean of every 20."""
    means = np.reshape([record["elbo"] for record in history[: len(history) // 20 * 20]], (-1, 20)).mean(1)
    elbo_curves(ax, [[{"epoch": 20 * (i + 1), "elbo": mean} for i, mean in enumerate(means)]])
    ax.set(xlabel="step", ylabel="ELBO (nats)")


in_gap = grid.abs() < 0.4
at_data = (grid.abs() > 0.8) & (grid.abs() < 1.6)

with torch.no_grad():
    f = Predictive(model, guide=guide, num_samples=DRAWS, return_sites=["_RETURN"])(grid)["_RETURN"]  # [S, N, 1]

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", width_ratios=(3, 2))
plot_bands(axes[0], f.mean(0), f.std(0))
axes[0].set_title("prediction")
plot_elbo(axes[1], history_by_hand)
axes[1].set_title("training")
plt.show()

sd_gap, sd_data = f.std(0)[in_gap].mean(), f.std(0)[at_data].mean()
print(f"standard deviation of f: {sd_gap:.2f} in the gap, {sd_data:.2f} where there are data")
assert SMOKE or sd_gap > 1.5 * sd_data

# %% [markdown]
# The dark band is the model's doubt, and the light one adds the noise. The band widens in the gap, where we have seen
# nothing. At both ends we have seen nothing either, but there it stays narrow, and the curve leaves it: functions of
# this model are nearly flat there, so they agree, and are wrong together. Doubt is always doubt *within* a model.
#
# ## 6. The same with Pyroformer
#
# Pyroformer writes this model for us. Three objects say all that we said above:
#
# - a net, any `torch.nn.Module`: here the library's `Transformer`, for one real `Features` in and one number out;
# - a prior over its weights;
# - a likelihood.
#
# `BayesianModel` puts them together: every parameter of the net becomes a sample site of the same name, drawn outside
# the plate.

# %%
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer, sample_sites
from pyroformer.priors import Normal

transformer = Transformer(Features(1), Output(1), width=8, heads=1, depth=1)
bayesian = BayesianModel(transformer, prior=Normal(scale=1.0), likelihood=Gaussian(scale=NOISE))

for name, site in sample_sites(bayesian).items():
    prior = site.distribution.base_dist
    print(f"{name:33}{list(site.shape)!s:>8}   N({prior.loc.mean():g}, {prior.scale.mean():g}²)")

assert {name: tuple(site.shape) for name, site in sample_sites(bayesian).items()} == shapes

# %% [markdown]
# Is it the same model? Two models are the same if they give every value of the weights the same log joint. We draw
# weights, put them into both with `poutine.condition`, and compare.


# %%
def log_joint(model, weights):
    return poutine.trace(poutine.condition(model, data=weights)).get_trace(x, y).log_prob_sum()


for _ in range(5):
    drawn = poutine.trace(model).get_trace(grid)
    weights = {name: drawn.nodes[name]["value"] for name in shapes}
    ours, theirs = log_joint(model, weights), log_joint(bayesian, weights)
    assert torch.isclose(ours, theirs, rtol=1e-4)
    print(f"log joint by hand {ours:12.2f}, of the library {theirs:12.2f}")

# %% [markdown]
# The same sites, the same log joint. So everything that we wrote for our model works for this one, the guide by hand
# included, and gives the same numbers.

# %%
pyro.set_rng_seed(3)
ours = Trace_ELBO().loss(model, guide, x, y)
pyro.set_rng_seed(3)
theirs = Trace_ELBO().loss(bayesian, guide, x, y)
assert np.isclose(ours, theirs, rtol=1e-4)
print(f"ELBO of the guide by hand under our model {-ours:.2f}, under the library's {-theirs:.2f}")

# %% [markdown]
# ### The guide and the driver
#
# The library has guides too. `MeanField` is a recipe, and `Guide` makes one for a model from it. It works under Pyro's
# own `SVI`, like ours. `example` shows it one small input, so that it can find the sites.

# %%
from pyroformer.guides import Delta, Guide, MeanField

ready = Guide(bayesian, MeanField(init_scale=0.05), example=(x[:2],))
assert set(ready.sites) == set(shapes)
stock = SVI(bayesian, ready, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
print(f"one step of Pyro's SVI: ELBO {-stock.step(x, y):.1f}")

# %% [markdown]
# More often we leave the loop to a **driver**. It takes a model, a guide and data, and returns a `Posterior`, which
# draws and predicts. Its `SVI` differs from ours in one point that matters: the KL of two normal distributions has a
# formula,
#
# $$\mathrm{KL}(q \,\|\, p)
#   = \sum_i \Bigl[\ln \frac{\sigma_i}{s_i} + \frac{s_i^2 + (m_i - c_i)^2}{2 \sigma_i^2} - \frac12\Bigr]
#   \qquad \text{for } p(w_i) = \mathcal N(c_i, \sigma_i^2),$$
#
# and the driver uses it, where `Trace_ELBO` estimates it from a draw.

# %%
from pyroformer import inference


def fit(prior, guide):
    torch.manual_seed(1)
    net = Transformer(Features(1), Output(1), width=8, heads=1, depth=1)
    bayesian = BayesianModel(net, prior=prior, likelihood=Gaussian(scale=NOISE))
    driver = inference.SVI(epochs=STEPS, batch_size=len(x), learning_rate=0.06)
    monitor = inference.Monitor()  # keeps the history of the training
    began = time.perf_counter()
    posterior = driver.run(bayesian, guide, inference.Data(x, y), monitor=monitor)
    print(f"{time.perf_counter() - began:.1f} s, ELBO {np.mean([r['elbo'] for r in monitor.history[-100:]]):.1f}")
    return posterior, monitor.history


first, history = fit(prior=Normal(scale=1.0), guide=MeanField(init_scale=0.05))
prediction = first.predict(grid, num_samples=DRAWS)
print(f"by hand it was      ELBO {np.mean([r['elbo'] for r in history_by_hand[-100:]]):.1f}")

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
plot_bands(axes[0], f.mean(0), f.std(0))
axes[0].set_title("by hand")
plot_bands(axes[1], prediction.mean, prediction.model_variance.sqrt())
axes[1].set(title="with the library", ylabel="")
plt.show()

# %% [markdown]
# Two fits of one model and one family, and yet two answers: they began at different weights. The posterior of a net has
# many modes, and mean field settles in one of them.
#
# ## 7. Another prior, another guide
#
# Each is one line. The second fit has a narrower prior, $\mathcal N(c_i, 0.3^2)$. The third goes back to the first
# prior and takes another guide, `Delta`: a single point. Its ELBO without the entropy of a point (which is $-\infty$)
# is the log joint, so it finds the most probable weights, the *maximum a posteriori* (MAP).

# %%
second, second_history = fit(prior=Normal(scale=0.3), guide=MeanField(init_scale=0.05))
third, third_history = fit(prior=Normal(scale=1.0), guide=Delta())

# %%
WEIGHT = "embedding.weight"  # we look at its first number


def plot_prior_and_posterior(ax, prior_sd, posterior):
    values = prior_sd * torch.linspace(-4, 4, 301)
    ax.plot(values, dist.Normal(0.0, prior_sd).log_prob(values).exp(), color="#6e7781", label="prior")
    draws = posterior.draw(2000)[WEIGHT][:, 0, 0]
    if len(draws) == 1:
        ax.axvline(draws[0], color="#0072b2", label="one point")
    else:
        ax.hist(draws, bins=40, density=True, color="#0072b2", alpha=0.5, label="posterior")
    ax.set(xlabel=WEIGHT + "[0, 0]", yticks=[], ylim=(0, 1.35 * ax.get_ylim()[1]))
    ax.legend(frameon=False, fontsize=8, loc="upper right")


fits = {
    "mean field, N(0, 1)": (first, history, 1.0),
    "mean field, N(0, 0.3²)": (second, second_history, 0.3),
    "one point, N(0, 1)": (third, third_history, 1.0),
}
fig, axes = plt.subplots(3, 3, figsize=(10, 8), layout="constrained")
for (title, (posterior, records, prior_sd)), (bands, weight, elbo) in zip(fits.items(), axes.T, strict=True):
    prediction = posterior.predict(grid, num_samples=DRAWS)
    doubt = prediction.model_variance.sqrt()
    plot_bands(bands, prediction.mean, doubt)
    bands.set_title(title)
    plot_prior_and_posterior(weight, prior_sd, posterior)
    plot_elbo(elbo, records)
    sds = f"{doubt[in_gap].mean():.2f} in the gap, {doubt[at_data].mean():.2f} where there are data"
    print(f"{title:24} standard deviation of f: {sds}")
axes[2, 2].set_ylabel("log joint (nats)")
plt.show()

# %% [markdown]
# Read the columns against each other.
#
# - **First and second: the prior.** The narrower prior holds the weights near their centres. Where the data speak, the
#   two predictions are nearly the same. In the gap, where the prior has more to say, they differ.
# - **First and third: the guide.** A point has no spread: every draw is the same function, and the doubt is exactly 0,
#   in the gap too. All that is left of the band is the noise.
# - **The middle row.** A posterior that lies on its prior belongs to a weight about which the data say nothing. One
#   that is narrower, or that has moved, has learned something. Below we count.
# - **The bottom row.** Of the first two, each bounds $\log p(y)$ of its model, so the higher one speaks for its prior,
#   as far as the guide can be trusted. The log joint of a point is another quantity, and not to be compared.

# %%
assert third.predict(grid, num_samples=DRAWS).model_variance.max() == 0


def share_like_prior(posterior, prior_sd):
    """The share of the weights whose posterior is at least 0.8 times as wide as their prior."""
    sds = torch.cat([draws.flatten(1).std(0) for draws in posterior.draw(1000).values()])
    return (sds > 0.8 * prior_sd).float().mean().item()


for title, posterior, prior_sd in (("N(0, 1)", first, 1.0), ("N(0, 0.3²)", second, 0.3)):
    share = share_like_prior(posterior, prior_sd)
    print(f"prior {title:10}  {share:.0%} of the posteriors are nearly as wide as the prior")

# %% [markdown]
# ## 8. Exercises
#
# Each needs a few lines at the end of this notebook.
#
# ### 1. A prior for one part of the net
#
# Keep $\mathcal N(c_i, 1)$ for all weights, but give those of the attention
# layer the scale 0.3. Is the bound better than with either prior alone?
#
# <details><summary>Hint</summary>
# <code>prior</code> may be a dictionary from patterns to priors, of which the first match wins:
# <code>{"*.attention.*": Normal(scale=0.3), "*": Normal(scale=1.0)}</code>.
# </details>
#
# ### 2. Heavier tails
#
# Replace the normal prior by `StudentT()` or `Laplace()` from `pyroformer.priors`. Look at
# functions from the prior first (call a `BayesianModel` as we called `model`), then at the fit. What do heavy tails do
# to the largest functions of the prior?
#
# <details><summary>Hint</summary>
# A call of the model draws from its prior: <code>BayesianModel(transformer, prior=StudentT(),
# likelihood=Gaussian(scale=NOISE))(grid)</code>. Plot thirty of them.
# </details>
#
# ### 3. Minibatches
#
# A batch of $B$ examples stands for all $N$ if its log-likelihood is multiplied by $N / B$.
# `bayesian(x_batch, y_batch, num_data)` does so, by its plate. Cut the data into four batches of 50. Show that the mean
# of the four log joints, for the same weights, is the log joint of all data.
#
# <details><summary>Hint</summary>
# In <code>log_joint</code>, hand <code>x[i : i + 50], y[i : i + 50], 200</code> to <code>get_trace</code>. Does
# the prior count once, or four times?
# </details>
#
# ### 4. Is mean field the bottleneck?
#
# A sampler needs no guide, and its draws come from the exact posterior if it runs
# for long enough. Compare its band with those above: in the gap, and at both ends.
#
# <details><summary>Hint</summary>
# <code>inference.NUTS(num_samples=150, warmup_steps=150, max_tree_depth=6).run(bayesian, None, inference.Data(x,
# y))</code> takes some minutes, and returns a posterior with the same methods. With more time raise the numbers.
# </details>
#
# ## What to read next
#
# - `README.md` of this repository: fit a whole task from one specification, from Python or from the command line.
# - `docs/design.md`: how the parts fit together, and why.
# - Pyro's tutorials on [models](https://pyro.ai/examples/intro_long.html) and on
#   [shapes and plates](https://pyro.ai/examples/tensor_shapes.html).
# - Cinquin, Immer, Horn and Fortuin (2021), [Pathologies in priors and inference for Bayesian
#   transformers](https://arxiv.org/abs/2110.04020): why a prior over weights is hard to choose for a transformer, and a
#   proposal to be Bayesian about the rows $A$ of the attention instead.
# - Foong, Burt, Li and Turner (2020), [On the expressiveness of approximate inference in Bayesian neural
#   networks](https://arxiv.org/abs/1909.00719): what mean field cannot say in a gap between data.
