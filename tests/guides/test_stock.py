"""Our guide in the hands of stock Pyro: SVI, its objectives, its particles, its parameter store, Predictive."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Importance, Predictive, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([[1.0], [2.0], [0.0]]) + 0.5


def regression(prior=None, **noise):
    torch.manual_seed(0)
    return BayesianModel(torch.nn.Linear(3, 1), prior or Normal(), Gaussian(scale=0.5, **noise))


def guided(family=None, prior=None):
    model = regression(prior)
    return model, Guide(model, family or MeanField(init_scale=0.3), (X[:2],))


def steps(model, guide, objective, count=30):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), objective)
    return [svi.step(X, Y) for _ in range(count)]


def flat(guide):
    return torch.cat([p.detach().flatten() for p in guide.parameters()])


def differ(a, b):
    """The difference of two means in Monte Carlo standard errors."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return float((a.mean() - b.mean()).abs() / (a.var() / len(a) + b.var() / len(b)).sqrt())


OBJECTIVES = [Trace_ELBO, OnePassELBO, TraceMeanField_ELBO]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", [MeanField, Delta])
def test_stock_svi_trains_the_guide_and_the_learned_parameters(objective, family):
    model, guide = guided(family(), {"bias": Learned(), "*": Normal()})
    before, bias = flat(guide), model.net.bias.detach().clone()
    losses = steps(model, guide, objective())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert (flat(guide)[: len(before)] - before).abs().max() > 0.1
    assert (model.net.bias - bias).abs().max() > 0.1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_stock_objectives_as_modules_train_the_guide(objective):
    model, guide = guided()
    loss_of = objective()(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_of(X, Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_parameters_exist_from_construction():
    model, guide = guided()
    assert [tuple(p.shape) for p in guide.parameters()] == [(4,), (4,)]
    before = {id(p) for p in guide.parameters()}
    steps(model, guide, Trace_ELBO(), 2)
    guide(X)
    assert {id(p) for p in guide.parameters()} == before


def test_two_guides_share_no_stored_parameters():
    model, first = guided()
    second = Guide(model, MeanField(init_scale=0.3), (X[:2],))
    untrained = flat(second)
    steps(model, first, Trace_ELBO())
    assert torch.equal(flat(second), untrained)
    steps(model, second, Trace_ELBO(), 1)
    assert (flat(second) - untrained).abs().max() < 0.06  # one step of the optimiser, not the first one's thirty
    assert (flat(first) - untrained).abs().max() > 0.5


def test_planted_plain_parameters_are_shared_between_fits():
    def guide(x, y=None):
        pyro.sample("weight", dist.Delta(pyro.param("w", torch.zeros(1, 3)), event_dim=2))
        pyro.sample("bias", dist.Delta(pyro.param("b", torch.zeros(1)), event_dim=1))

    pyro.clear_param_store()
    steps(regression(), guide, Trace_ELBO())
    trained = pyro.param("w").detach().clone()
    svi = SVI(regression(), guide, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO())
    svi.step(X, Y)
    assert torch.equal(pyro.param("w"), trained) and trained.abs().max() > 0.5


@pytest.mark.parametrize("trained", [0, 3])
def test_a_deep_copy_is_a_guide_of_its_own(trained):
    model, guide = guided()
    steps(model, guide, Trace_ELBO(), trained)
    twin = copy.deepcopy(copy.deepcopy(guide))
    before = flat(guide)
    assert torch.equal(flat(twin), before)
    assert twin.model is not model
    steps(twin.model, twin, Trace_ELBO())
    assert torch.equal(flat(guide), before)
    assert (flat(twin) - before).abs().max() > 0.5
    assert torch.equal(guide.draw(3, X)["weight"], guide.draw(3, X)["weight"]) is False


def test_objectives_agree_in_expectation():
    model, guide = guided(MeanField(init_scale=0.02))

    def losses(objective, num_data=60, count=150):
        return [objective.loss(model, guide, X, Y, num_data) for _ in range(count)]

    stock = losses(Trace_ELBO(), count=400)
    for objective in (
        OnePassELBO(),
        OnePassELBO(num_particles=4),
        TraceMeanField_ELBO(),
        Trace_ELBO(num_particles=4),
        Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1),
    ):
        assert differ(stock, losses(objective)) < 5
    assert differ(stock, losses(OnePassELBO(temperature=3.0))) > 10  # planted: another entropy
    assert differ(stock, losses(OnePassELBO(), num_data=20)) > 10  # planted: the batch not scaled up


def test_closed_forms_have_less_noise_than_draws():
    model, guide = guided()
    wide = [OnePassELBO().loss(model, guide, X, Y) - OnePassELBO().terms(guide, X, Y).kl.item() for _ in range(3)]
    assert len(set(wide)) == 3  # the likelihood is drawn
    kl = [OnePassELBO().terms(guide, X, Y).kl.item() for _ in range(5)]
    assert len(set(kl)) == 1


@pytest.mark.parametrize("nesting", [1, 3, float("inf")])
def test_vectorized_particles_have_draws_of_their_own(nesting):
    model, guide = guided({"*": MeanField(init_scale=0.3)})
    objective = Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=nesting)
    assert objective.loss(model, guide, X, Y) > 0
    site = guide.trace.nodes["weight"]
    draws = site["value"].reshape(5, 3)
    assert len({tuple(row) for row in draws.tolist()}) == 5
    assert site["fn"].batch_shape[0] == 5 and site["fn"].log_prob(site["value"]).shape == site["fn"].batch_shape


def test_vectorized_rows_equal_a_loop_in_expectation():
    torch.manual_seed(0)
    net = Transformer(Features(1, copies=3), Output(1), width=4, heads=2, depth=1)
    model = BayesianModel(net, {"*.rows": PriorRows(kl_weight=0.1), "*": Normal()}, Gaussian(scale=0.5))
    families = {"*.rows": DirichletRows(floor=0.5), "*": MeanField(init_scale=0.1)}
    x = X[:6, :1]
    guide = Guide(model, families, (x[:2],))
    one, many = OnePassELBO(), OnePassELBO(num_particles=8)
    loop = [one.loss(model, guide, x, Y[:6], 30) for _ in range(200)]
    together = [many.loss(model, guide, x, Y[:6], 30) for _ in range(100)]
    assert differ(loop, together) < 5
    assert differ(loop, [one.loss(model, guide, x, Y[:6], 36) for _ in range(200)]) > 10  # planted: another N
    value = guide.trace.nodes["blocks.0.attention.rows"]["value"]
    stock = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    stock.loss(model, guide, x, Y[:6], 30)
    value = guide.trace.nodes["blocks.0.attention.rows"]["value"]
    assert value.shape == (4, 6, 2, 3, 3) and not torch.equal(value[0], value[1])


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_draws_observations_without_parameters_for_them(parallel):
    model, guide = guided()
    steps(model, guide, Trace_ELBO(), 200)
    names = [name for name, _ in guide.named_parameters()]
    torch.manual_seed(0)
    predicted = Predictive(model, guide=guide, num_samples=400, parallel=parallel)(X)
    assert [name for name, _ in guide.named_parameters()] == names
    assert not any("obs" in name for name in pyro.get_param_store())
    assert predicted["obs"].shape == (400, 20, 1)
    loc, scale = guide.families[0].loc.detach(), guide.families[0].scale.detach()
    mean = X @ loc[:3] + loc[3]
    sd = ((X**2) @ scale[:3] ** 2 + scale[3] ** 2 + 0.25).sqrt()
    errors = (predicted["obs"].squeeze(-1).mean(0) - mean) / (sd / 20)
    assert errors.abs().max() < 5
    assert ((predicted["obs"].squeeze(-1).mean(0) - (mean + 0.5)) / (sd / 20)).abs().max() > 5  # planted
    spread = predicted["obs"].squeeze(-1).std(0) / sd - 1
    assert spread.abs().max() < 5 / 800**0.5


def test_the_guide_alone_returns_its_draws_and_observations():
    _, guide = guided()
    assert set(guide(X, Y)) == set(guide(X)) == {"weight", "bias", "obs"}
    assert not torch.equal(guide(X)["obs"], Y)
    trace = pyro.poutine.trace(guide).get_trace(X, Y)
    assert trace.log_prob_sum().isfinite()
    assert len(trace.param_nodes) == 2


def test_other_stock_objectives():
    model, guide = guided()
    tight = RenyiELBO(alpha=0.0, num_particles=20, vectorize_particles=True, max_plate_nesting=1)
    bound = [tight.loss(model, guide, X, Y) for _ in range(20)]
    assert sum(bound) / 20 < sum(Trace_ELBO().loss(model, guide, X, Y) for _ in range(20)) / 20
    assert len(Importance(model, guide, 4).run(X, Y).log_weights) == 4
    with pytest.raises(NotImplementedError, match="GuideMessenger"):
        TraceEnum_ELBO().loss(model, guide, X, Y)


def test_pyro_ignores_a_scale_around_the_model_of_a_messenger():
    """Why temperature lives in our objective: a stock habit that changes nothing with guides of this kind."""
    model, guide = guided()

    def loss(around):
        torch.manual_seed(0)
        return Trace_ELBO().loss(around, guide, X, Y)

    assert loss(pyro.poutine.scale(model, 10.0)) == loss(model)


def test_our_objective_asks_for_our_guide():
    with pytest.raises(TypeError, match=r"the guide is a AutoNormal: expected a pyroformer\.guides\.Guide"):
        OnePassELBO().loss(regression(), AutoNormal(regression()), X, Y)


def test_batches_are_told_by_name_too():
    model, guide = guided()
    assert SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1}), Trace_ELBO()).step(X[:5], y=Y[:5], num_data=20) > 0
