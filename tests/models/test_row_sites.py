"""Attention rows as sample sites: where they are drawn, what they offer, and how they count."""

import pyro
import pytest
import torch
from pyro import poutine

from pyroformer.models import BayesianModel, Series, Tokens
from pyroformer.priors import (
    ContextualCenter,
    FlatCenter,
    GammaRows,
    GumbelSoftmaxRows,
    Improper,
    Learned,
    LearnedCenter,
    LogisticNormalRows,
    LogNormalRows,
    MatchedUniformCenter,
    Normal,
    PositionalCenter,
    SettingError,
    SoftmaxCenter,
    choice_name,
)
from pyroformer.priors import DirichletRows as PriorRows

LAWS = (PriorRows, GammaRows, LogNormalRows, LogisticNormalRows, GumbelSoftmaxRows)
CENTERS = (
    FlatCenter(),
    MatchedUniformCenter(),
    LearnedCenter(),
    PositionalCenter(),
    ContextualCenter(),
    SoftmaxCenter(),
)
PRIORS = pytest.mark.parametrize(
    "prior",
    [law(center=center) for law in LAWS for center in CENTERS if law.sees_level or not center.level],
    ids=lambda p: f"{choice_name(type(p))}-{choice_name(type(p.center))}",
)
ROWS = ("blocks.0.attention.rows", "blocks.1.attention.rows")


def flat(concentration, **settings):
    return PriorRows(center=FlatCenter(), concentration=concentration, floor=0.0, **settings)


@pytest.fixture
def series(build, batch_of):
    """A model of series with rows of a prior, and its data."""

    def make(prior, weights=None, **settings):
        net = build(Series(5, 2), **settings)
        model = BayesianModel(
            net, {**(prior if isinstance(prior, dict) else {"*.rows": prior}), "*": weights or Normal()}
        )
        return model.double(), batch_of(Series(5, 2)), torch.tensor([0, 2, 1, 1])

    return make


def traced(model, *args, **kwargs):
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace.nodes


@PRIORS
def test_rows_are_drawn_inside_the_data_plate(series, prior):
    model, x, y = series(prior)
    nodes = traced(model, x, y)
    assert model.rows == ROWS
    for name in ROWS:
        site = nodes[name]
        assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
        assert site["fn"].batch_shape == (4,) and site["fn"].event_shape == (2, 5, 5)
        rows = model.net.get_submodule(name.removesuffix(".rows")).row_prior.rows(site["value"], None)
        torch.testing.assert_close(rows.sum(-1), torch.ones(4, 2, 5, dtype=torch.float64))


def test_rows_offer_their_activations(series):
    model, x, y = series(PriorRows(), causal=True)
    layer, nodes = model.net.blocks[0].attention, traced(model, x, y)
    infer = nodes[ROWS[0]]["infer"]
    drawn = {name: node["value"] for name, node in nodes.items() if name in model.sites}
    h = torch.func.functional_call(model.net.embedding, _below("embedding.", drawn), (x,))[0] + drawn["position"]
    h = torch.nn.functional.layer_norm(h, (8,), drawn["blocks.0.norm1.weight"], drawn["blocks.0.norm1.bias"])
    weights = _below("blocks.0.attention.", drawn)
    q, k = (
        layer.split(torch.nn.functional.linear(h, weights[f"{part}.weight"], weights[f"{part}.bias"]))
        for part in ("query", "key")
    )
    assert set(infer) == {"scores", "mask", "keys", "law"}
    assert infer["law"] == model.row_priors[ROWS[0]]
    torch.testing.assert_close(infer["keys"], k)
    torch.testing.assert_close(infer["scores"], q @ k.mT / 2)  # heads of width 4
    assert torch.equal(infer["mask"], torch.ones(5, 5, dtype=torch.bool).tril())


def _below(prefix, values):
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


@pytest.mark.parametrize("kl_weight", [1.0, 0.25, 0.0])
def test_the_kl_weight_scales_the_rows_alone(series, kl_weight):
    model, x, y = series(flat(2.0, kl_weight=kl_weight))
    nodes = traced(model, x, y, num_data=40)
    for name in ROWS:
        site = nodes[name]
        by_hand = torch.distributions.Dirichlet(torch.full((5,), 2.0).double()).log_prob(site["value"]).sum((1, 2))
        torch.testing.assert_close(site["log_prob_sum"], kl_weight * 10 * by_hand.sum())
        assert site["scale"] == 10 * (kl_weight or 1) and (site["mask"] is False) == (kl_weight == 0)
    assert nodes["obs"]["scale"] == 10 and nodes["head.bias"]["scale"] == 1


def test_an_entry_counts_once_whatever_is_padded(series):
    model, x, y = series(flat(2.0))
    valid = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    site = traced(model, (x, valid), y)[ROWS[0]]
    expected = torch.zeros(4, dtype=torch.float64)
    for i, n in enumerate([5, 3, 1, 4]):
        short = torch.distributions.Dirichlet(torch.full((n,), 2.0, dtype=torch.float64))
        expected[i] = short.log_prob(site["value"][i, :, :n, :n]).sum()
        assert not site["value"][i, :, n:].any() and not site["value"][i, :, :, n:].any()
    torch.testing.assert_close(site["log_prob"], expected)


def test_rows_of_the_layers_that_a_glob_names(series):
    model, x, y = series({"blocks.1.*.rows": PriorRows()})
    assert model.rows == ROWS[1:] and ROWS[0] not in traced(model, x, y)
    first_wins, x, y = series({"blocks.0.*": flat(9.0), "*.rows": flat(1.0)})
    nodes = traced(first_wins, x, y)
    assert (nodes[ROWS[0]]["fn"].base_dist.concentration == 9).all()
    assert (nodes[ROWS[1]]["fn"].base_dist.concentration == 1).all()


def test_rows_that_no_prior_covers_are_computed_whatever_the_net_did_before(series):
    drawn, x, y = series({"*.rows": PriorRows()})
    again = BayesianModel(drawn.net, Normal())
    assert again.rows == () and not any("rows" in name for name in traced(again, x, y))
    one = BayesianModel(drawn.net, {ROWS[1]: PriorRows(), "*": Normal()})
    assert one.rows == ROWS[1:] and drawn.rows == ROWS


def test_a_star_may_stand_for_all_rows(build):
    model = BayesianModel(build(Series(5, 2)), {"*": PriorRows(), "*.*": Normal(), "position": Normal()})
    assert model.rows == ROWS


def test_equal_priors_are_one_prior(series):
    """A spec that was written and read again has equal priors that are no longer the same object."""
    settings = {"center": LearnedCenter(shared="global"), "kl_normalization": "entries"}
    same, _, _ = series(dict.fromkeys(ROWS, PriorRows(**settings)))
    equal, _, _ = series({row: PriorRows(**settings) for row in ROWS})
    other, _, _ = series({ROWS[0]: PriorRows(**settings), ROWS[1]: PriorRows(**settings, concentration=2.0)})
    counts = [[layer.attention.row_layers for layer in model.net.blocks] for model in (same, equal, other)]
    assert counts == [[2, 2], [2, 2], [1, 1]]
    learned = [[name for name, _ in model.net.named_parameters() if "row_prior" in name] for model in (same, equal)]
    assert learned[0] == learned[1]
    assert len(learned[0]) == 1 < sum("row_prior" in name for name, _ in other.net.named_parameters())


def test_the_net_that_was_passed_keeps_its_softmax(build, batch_of):
    net = build(Series(5, 2))
    BayesianModel(net, {"*.rows": PriorRows(), "*": Normal()})
    assert all(block.attention.row_prior is None for block in net.blocks)
    torch.testing.assert_close(net(batch_of(Series(5, 2))), net(batch_of(Series(5, 2))), rtol=0, atol=0)


@pytest.mark.parametrize("prior", [PriorRows(), {"*.rows": PriorRows()}])
def test_a_row_prior_alone_is_refused(build, prior):
    with pytest.raises(SettingError, match=r"'dirichlet_rows': expected a prior over the weights as well, such as \{"):
        BayesianModel(build(Series(5, 2)), prior)


def test_a_row_pattern_must_match_rows(build):
    with pytest.raises(SettingError, match=r"'block\.\*\.rows': .*layer's attention rows .*did you mean blocks\."):
        BayesianModel(build(Series(5, 2)), {"block.*.rows": PriorRows(), "*": Normal()})
    with pytest.raises(SettingError, match="no layer's attention rows here"):
        BayesianModel(torch.nn.Linear(3, 2), {"*.rows": PriorRows(), "*": Normal()})


@PRIORS
def test_sample_dimensions_lead_the_rows(series, prior):
    model, x, y = series(prior)
    with pyro.plate("draws", 3, dim=-2):
        nodes = traced(model, x, y)
    for name in ROWS:
        value = nodes[name]["value"]
        assert value.shape == (3, 4, 2, 5, 5) and nodes[name]["log_prob"].shape == (3, 4)
        assert len(torch.unique(value[..., 0, 0].flatten())) == value[..., 0, 0].numel()  # all drawn apart


def test_the_contextual_networks_are_learned_and_no_sites(series):
    model, x, y = series(PriorRows(center=ContextualCenter()), weights=Improper())
    learned = {f"net.blocks.{i}.attention.row_prior.center.{part}" for i in (0, 1) for part in ("first", "second")}
    assert set(model.learned) == learned and not any("row_prior" in name for name in model.sites)
    trace = poutine.trace(model).get_trace(x, y)
    trace.log_prob_sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.learned.values())
    assert set(series({"*.rows": PriorRows()}, weights=Learned())[0].learned) == {
        f"net.{n}" for n, _ in model.net.named_parameters() if "row_prior" not in n
    }


def test_rows_go_with_token_models(build, batch_of):
    inputs = Tokens(7, 5, padding=0)
    model = BayesianModel(build(inputs), {"*.rows": PriorRows(center=SoftmaxCenter()), "*": Normal()})
    x = batch_of(inputs)
    x[0, 2:] = 0
    value = traced(model, x)[ROWS[0]]["value"]
    assert not value[0, :, 2:].any() and not value[0, :, :, 2:].any() and value[1:].all()
