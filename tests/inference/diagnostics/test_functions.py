"""Functions of draws by which chains are judged, against the net run by hand."""

import pyro
import pytest
import torch
from pyro import poutine

from pyroformer.inference import SVI, Data, DrawsPosterior
from pyroformer.inference.diagnostics import diagnose, functions, loo, pointwise_log_likelihood, weights
from pyroformer.models.watching import watching
from pyroformer.priors import SettingError


def one_draw(posterior, index):
    return {name: values[index] for name, values in posterior.draws.items()}


def by_hand(posterior, index, x, y, see=None):
    """The log-probability of each observation under one draw."""
    with torch.no_grad(), poutine.trace() as tracer, watching(posterior.model.net, see):
        poutine.condition(posterior.model, data=one_draw(posterior, index))(x, y)
    site = tracer.trace.nodes["obs"]
    return site["fn"].log_prob(site["value"]).double()


def test_log_probabilities_are_those_of_the_model(transformer, examples):
    x, y = examples
    found = functions(transformer, x, y)["log_probability"]
    assert found.values.shape == (3, 20, 10) and found.values.dtype == torch.float64
    assert torch.allclose(found.values[2, 5], by_hand(transformer, 45, x[:10], y[:10]), atol=1e-5)
    assert not torch.allclose(found.values[2, 5], by_hand(transformer, 44, x[:10], y[:10]), atol=1e-5)  # planted


def test_attention_is_that_of_the_last_query(transformer, examples):
    x, y = examples
    rows = {}
    by_hand(transformer, 45, x[:10], y[:10], lambda name, found, mask: rows.update({name: found}))
    found = functions(transformer, x, y)
    layers = [name for name in found if name.startswith("attention.")]
    assert len(layers) == 2 and found[layers[0]].dims == ("rank", "key")
    first = next(iter(rows.values()))
    expected = first.mean(0)[:, -1, [0, first.shape[-1] // 2, first.shape[-1] - 1]].double()
    expected = expected.sort(0, descending=True).values
    assert torch.allclose(found[layers[0]].values[2, 5], expected, atol=1e-5)


def exchanged(posterior, outputs):
    """The draws of the second chain with its two heads in the other order: of queries, keys, values, and of outputs."""
    draws = {name: values.clone() for name, values in posterior.draws.items()}
    for name, values in draws.items():
        own = values[20:40]
        if any(f".{part}." in name for part in ("query", "key", "value")):
            values[20:40] = own.unflatten(1, (2, 4)).flip(1).flatten(1, 2)
        elif name.endswith("output.weight") and outputs:
            values[20:40] = own.unflatten(2, (2, 4)).flip(2).flatten(2, 3)
    return DrawsPosterior(posterior.model, draws, chains=3, statistics=posterior.statistics)


@pytest.mark.parametrize("outputs", [True, False])
def test_heads_that_change_places_change_nothing(transformer, examples, outputs):
    before, after = (functions(each, *examples) for each in (transformer, exchanged(transformer, outputs)))
    assert before.keys() == after.keys()
    same = [torch.allclose(before[name].values, after[name].values, atol=1e-5) for name in before]
    assert all(same) is outputs  # planted: their outputs remain in place


def test_norms_are_root_mean_squares_by_layer(transformer, examples):
    found = functions(transformer, *examples)["norm"]
    layer = found.labels["layer"].index("head")
    own = one_draw(transformer, 45)
    entries = torch.cat([own["head.weight"].flatten(), own["head.bias"]])
    assert found.values[2, 5, layer] == pytest.approx(float(entries.square().mean().sqrt()), rel=1e-5)


def test_blocks_of_draws_change_nothing(transformer, examples, monkeypatch):
    x, y = examples
    whole, logs = functions(transformer, x, y), pointwise_log_likelihood(transformer, x, y)
    assert logs.shape == (3, 20, 30)
    monkeypatch.setattr("pyroformer.inference.posterior.MAX_RUNS", 70)
    monkeypatch.setattr("pyroformer.inference.posterior.MAX_NUMBERS", 7 * transformer.num_weights)
    parts = functions(transformer, x, y)
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[n].values, parts[n].values, atol=1e-5) for n in whole)
    assert torch.allclose(logs, pointwise_log_likelihood(transformer, x, y, batch_size=7), atol=1e-5)
    assert torch.allclose(logs[2, 5], by_hand(transformer, 45, x, y), atol=1e-5)


def test_weights_have_heads_where_their_layer_says_so(transformer):
    found = weights(transformer)
    query = next(name for name in found if name.endswith("query.weight"))
    assert found[query].dims == ("head", "unit", "input") and found[query].values.shape == (3, 20, 2, 4, 8)
    output = found[query.replace("query", "output")]
    assert output.dims == ("unit", "head", "input") and output.values.shape == (3, 20, 8, 2, 4)
    assert torch.equal(found[query].values[1, 2, 1], transformer.draws[query][22, 4:])
    assert torch.equal(output.values[1, 2, :, 1], transformer.draws[query.replace("query", "output")][22, :, 4:])
    assert not any(quantity.judged for quantity in found.values())


def test_the_random_state_and_the_store_stay_as_they_are(transformer, examples):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    functions(transformer, *examples)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not len(pyro.get_param_store())


def test_a_posterior_without_chains_is_refused(line):
    posterior = SVI(epochs=1).run(line.model(), _mean_field(), Data(line.x, line.y))
    with pytest.raises(SettingError, match="posterior = 'guide_posterior': expected draws of Markov chains"):
        diagnose(posterior, line.x, line.y)


def _mean_field():
    from pyroformer.guides import MeanField

    return MeanField()


def test_a_diagnosis_as_plain_data(transformer, examples):
    found = diagnose(transformer, *examples, num_data=30, weights=True)
    content = found.to_dict()
    assert (content["chains"], content["draws"]) == (3, 20)
    names = [line["name"] for line in content["table"]]
    assert {"log_density", "log_probability[probe 9]", "norm[head]", "head.bias[unit 2]"} <= set(names)
    assert content["verdict"]["level"] in ("caution", "bad")
    assert {line["name"] for line in content["table"] if not line["judged"]} >= {"head.bias[unit 2]"}


def test_leave_one_out_of_a_known_regression(line):
    """Draws of the exact posterior: leaving one out is known in closed form."""
    mean, covariance, design, y = line.mean(), line.covariance(), line.design, line.y.double().squeeze(-1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    draws = mean + noise @ torch.linalg.cholesky(covariance).T
    logs = torch.distributions.Normal(draws @ design.T, 0.5).log_prob(y)
    precision = line.precision()
    exact = []
    for row, seen in zip(design, y, strict=True):
        without = (precision - row.outer(row) / 0.25).inverse()
        center = without @ (precision @ mean - row * seen / 0.25)
        exact.append(torch.distributions.Normal(row @ center, (row @ without @ row + 0.25).sqrt()).log_prob(seen))
    found = loo(logs.unflatten(0, (4, 1000)))
    assert (found.pointwise - torch.stack(exact)).abs().max() < 0.05
    assert abs(found.elpd - float(sum(exact))) < 0.1
    full = float((logs.logsumexp(0) - torch.tensor(4000.0).log()).sum())
    assert abs(full - float(sum(exact))) > 0.5  # planted: nothing left out
    assert found.p_loo == pytest.approx(full - found.elpd) and found.k_hat.max() < 0.7
    with pytest.raises(SettingError, match="21 draws"):
        loo(logs[:10].unsqueeze(0))
