"""What a Laplace approximation predicts: linearised functions, their probit approximation, weights that stay."""

import math

import pytest
import torch
from torch import nn

from pyroformer.inference import (
    MAP,
    ML,
    Data,
    DeepEnsemble,
    Laplace,
    LaplacePosterior,
    MixturePosterior,
    Monitor,
    TemperatureScaling,
    decompose,
    generate,
)
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Output, Series, Tokens, Transformer
from pyroformer.priors import Hierarchical, Learned, Normal, SettingError, StudentT

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(24, 2, generator=GENERATOR)
Y = (X.sum(-1) > 0).long() + (X[:, 0] > 1).long()
SHORT = MAP(epochs=3, batch_size=8, learning_rate=0.02, dtype="float64")
DATA = Data(X, Y)
NEW = torch.randn(4, 2, generator=GENERATOR).double()


def model(prior=None, likelihood=None):
    torch.manual_seed(1)
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=1)
    return BayesianModel(net, prior or Normal(), likelihood)


def run(built=None, data=DATA, **settings):
    return Laplace(**{"start": SHORT, "structure": "full", **settings}).run(built or model(), None, data)


def jacobian(posterior, x):
    """``[B, O, P]`` by a loop over examples and outputs, and the outputs."""
    functions = posterior.functions
    weights = {name: value.clone().requires_grad_() for name, value in functions.mode.items()}
    outputs = functions(weights, x)

    def row(output):
        gradients = torch.autograd.grad(output, list(weights.values()), retain_graph=True)
        return torch.cat([gradient.flatten() for gradient in gradients])

    return torch.stack([torch.stack([row(output) for output in one]) for one in outputs]), outputs.detach()


def again(posterior, **changes):
    """The same approximation, predicted in another way."""
    return LaplacePosterior(posterior.model, posterior.normal, posterior.mode, **changes)


def exact_covariance(posterior):
    factor = posterior.normal.cholesky
    return torch.cholesky_inverse(factor) * posterior.temperature


@pytest.fixture(scope="module")
def fitted():
    return run()


class TestLinearized:
    def test_every_draw_is_the_tangent_at_the_mode(self, fitted):
        draws, functions = fitted.draw(6, seed=2), fitted.outputs(NEW, 6, seed=2)
        own, at_mode = jacobian(fitted, NEW)
        away = torch.cat([(draws[name] - fitted.mode[name]).flatten(1) for name in fitted.normal.shapes], 1)
        torch.testing.assert_close(functions, at_mode + torch.einsum("bop,sp->sbo", own, away), atol=1e-9, rtol=1e-9)
        sampled = again(fitted, linearized=False).outputs(NEW, 6, seed=2)
        assert not torch.allclose(functions, sampled, atol=1e-2)  # planted: the net itself

    def test_draws_covary_as_the_jacobian_says(self, fitted, standard_errors):
        own, at_mode = jacobian(fitted, NEW)
        away = (fitted.outputs(NEW, 4000) - at_mode).flatten(1)
        products = away.unsqueeze(-1) * away.unsqueeze(-2)
        rows = own.flatten(0, 1)
        expected = rows @ exact_covariance(fitted) @ rows.T
        assert standard_errors(away, torch.zeros(12).double()) < 5
        assert standard_errors(products, expected) < 5
        assert standard_errors(products, 1.3 * expected) > 5  # planted: another temperature

    def test_sampled_prediction_is_the_net_with_drawn_weights(self, fitted):
        posterior = again(fitted, linearized=False)
        draws, functions = posterior.draw(3), posterior.outputs(NEW, 3)
        for index in range(3):
            weights = {name: values[index] for name, values in draws.items()}
            torch.testing.assert_close(functions[index], posterior.functions(weights, NEW).detach())

    def test_batches_change_nothing(self, fitted):
        whole = fitted.predict(X, 5).probabilities
        torch.testing.assert_close(fitted.predict(X, 5, batch_size=7).probabilities, whole, atol=1e-12, rtol=1e-9)

    def test_real_numbers(self):
        posterior = run(model(likelihood=Gaussian(scale=0.5)), Data(X, torch.randn(24, 3)), structure="kronecker")
        predicted = posterior.predict(NEW, 2000)
        own, at_mode = jacobian(posterior, NEW)
        parts = own.split([s.numel() for s in posterior.normal.shapes.values()], -1)
        shaped = {n: p.view(4, 3, *s) for (n, s), p in zip(posterior.normal.shapes.items(), parts, strict=True)}
        variance = posterior.normal.projected(shaped)
        assert ((predicted.mean - at_mode).abs() < 5 * (variance / 2000).sqrt()).all()
        assert ((predicted.model_variance / variance - 1).abs() < 5 * (2 / 2000) ** 0.5).all()
        assert torch.allclose(predicted.data_variance, torch.tensor(0.25).double())


class TestProbit:
    def test_it_is_its_formula(self, fitted):
        posterior = again(fitted, probit=True, temperature=0.5)
        predicted = posterior.predict(NEW)
        own, at_mode = jacobian(posterior, NEW)
        variance = 0.5 * torch.einsum("bop,pq,boq->bo", own, exact_covariance(fitted), own)
        expected = (at_mode / (1 + math.pi / 8 * variance).sqrt()).softmax(-1)
        torch.testing.assert_close(predicted.probabilities, expected, atol=1e-9, rtol=1e-9)
        assert predicted.num_samples == 1 and float(predicted.mutual_information.max()) == 0
        planted = (at_mode / (1 + math.pi / 8 * 2 * variance).sqrt()).softmax(-1)
        assert not torch.allclose(predicted.probabilities, planted, atol=1e-3)  # planted: without the temperature

    def test_it_is_close_to_the_average_over_draws(self):
        longer = MAP(epochs=40, batch_size=12, learning_rate=0.03, dtype="float64")
        posterior = run(start=longer)
        drawn = posterior.predict(NEW, 1500).probabilities

        def error(temperature):
            closed = again(posterior, probit=True, temperature=temperature).predict(NEW).probabilities
            return float((closed - drawn).abs().mean())

        assert error(1.0) < 0.5 * error(1e-9)  # than the mode itself
        assert not error(0.1) < 0.5 * error(1e-9)  # planted: a tenth of the variance

    def test_text_is_generated_by_it(self):
        torch.manual_seed(1)
        net = Transformer(Tokens(4, 3, causal=True), Output(4, per_token=True), width=4, heads=2, depth=1)
        words = torch.randint(4, (12, 4), generator=torch.Generator().manual_seed(1))
        built = BayesianModel(net, Normal(), Categorical(per_token=True))
        posterior = run(built, Data(words[:, :3], words[:, 1:]), link="probit")
        other = again(posterior, probit=True, temperature=0.3)
        for each in (posterior, MixturePosterior([posterior, other])):
            each.calibrate(TemperatureScaling(), words[:, :3], words[:, 1:])
            found = generate(each, words[0, :1], 5, seed=3)
            text = torch.cat([words[0, :1], found.tokens])
            for step in range(5):
                expected = each.predict(text[max(0, step - 2) : step + 1][None])
                torch.testing.assert_close(found.prediction.probabilities[step], expected.probabilities[0, -1])
                torch.testing.assert_close(found.prediction.expected_entropy[step], expected.expected_entropy[0, -1])
            assert found.prediction.num_samples == expected.num_samples
        drawn = generate(again(posterior), words[0, :1], 1, num_samples=400).prediction.probabilities
        told = generate(again(posterior, probit=True), words[0, :1], 1).prediction.probabilities
        assert not torch.allclose(drawn, told, rtol=1e-3)  # planted: draws

    def test_parts_of_the_uncertainty_are_told_by_draws(self, fitted):
        """A closed form of the average has no parts; they are those of the functions that it stands for."""
        found, drawn = (decompose(again(fitted, probit=probit), NEW, weights=50) for probit in (True, False))
        assert all(torch.equal(part, drawn.parts[name]) for name, part in found.parts.items())
        assert found.num_weights == 50 and (found.weights > 0).all()
        assert not torch.allclose(found.total, again(fitted, probit=True).predict(NEW).entropy, rtol=1e-3)

    def test_its_weights_can_be_drawn(self, fitted):
        assert again(fitted, probit=True).draw(3)["head.weight"].shape == (3, 3, 4)

    @pytest.mark.parametrize("structure", ["diagonal", "kronecker"])
    def test_chunks_change_nothing(self, structure, monkeypatch):
        posterior = run(link="probit", structure=structure)
        whole = posterior.predict(X).probabilities
        monkeypatch.setattr("pyroformer.inference.laplace.functions.MOST_NUMBERS", 2000)
        assert posterior.functions.most(3) < 5
        torch.testing.assert_close(posterior.predict(X, batch_size=9).probabilities, whole, atol=1e-12, rtol=1e-9)


class TestSubset:
    def test_the_last_layer_is_the_whole_restricted_to_the_head(self, fitted):
        whole, head = fitted, run(subset="last_layer")
        assert list(head.normal.shapes) == ["head.weight", "head.bias"]
        precision = whole.normal.cholesky @ whole.normal.cholesky.T
        own = head.normal.cholesky @ head.normal.cholesky.T
        torch.testing.assert_close(own, precision[-15:, -15:])
        covariance = torch.cholesky_inverse(whole.normal.cholesky)[-15:, -15:]
        assert not torch.allclose(torch.cholesky_inverse(head.normal.cholesky), covariance, rtol=0.01)  # planted

    def test_the_others_stay(self):
        posterior = run(subset=["last_layer", "blocks.*.mlp.down.*"], structure="kronecker")
        draws = posterior.draw(5)
        random = {"head.weight", "head.bias", "blocks.0.mlp.down.weight", "blocks.0.mlp.down.bias"}
        assert {name for name, values in draws.items() if values.std(0).max() > 0} == random
        trained = SHORT.run(model(), None, DATA).draw(1)
        assert all(torch.equal(values[0], trained[name][0]) for name, values in draws.items() if name not in random)
        assert posterior.info["weights"] == sum(trained[name].numel() for name in random)

    def test_their_priors_may_be_any(self):
        prior = {"head.*": Normal(), "blocks.*": Hierarchical(), "position": Learned(), "*": StudentT()}
        posterior = run(model(prior), subset="head.*", structure="diagonal")
        draws = posterior.draw(2)
        assert set(draws) == set(model(prior).initial_values())
        assert torch.isfinite(posterior.predict(NEW, 4).probabilities).all()
        assert posterior.info["log_evidence"] < 0


def test_classes_of_tokens():
    torch.manual_seed(1)
    net = Transformer(Tokens(4, 3), Output(3, per_token=True), width=4, heads=2, depth=1)
    words = torch.randint(4, (12, 3), generator=torch.Generator().manual_seed(1))
    tags = torch.where(words == 3, -100, words)
    tags[0] = torch.tensor([0, 1, -100])
    built = BayesianModel(net, Normal(), Categorical(per_token=True))
    for settings in ({}, {"link": "probit"}, {"structure": "kronecker", "hessian": "fisher"}):
        posterior = run(built, Data(words, tags), **settings)
        assert posterior.predict(words[:2], 4).probabilities.shape == (2, 3, 3)
    seen = tags != -100
    logs = posterior.functions(posterior.functions.mode, words).log_softmax(-1)[seen]
    by_hand = float(logs.gather(-1, tags[seen].unsqueeze(-1)).sum().detach())
    assert posterior.info["log_likelihood"] == pytest.approx(by_hand)


def test_inputs_of_several_parts():
    torch.manual_seed(1)
    net = Transformer(Series(3, 2), Output(3), width=4, heads=2, depth=1)
    x, mask = torch.randn(24, 3, 2, generator=torch.Generator().manual_seed(2)), torch.ones(24, 3, dtype=torch.bool)
    mask[::2, 2] = False
    for structure in ("kronecker", "full"):
        posterior = run(BayesianModel(net, Normal()), Data((x, mask), Y), structure=structure)
        found = posterior.outputs((x, mask), 3)
        hidden = torch.where(mask.unsqueeze(-1), x, 99.0)
        torch.testing.assert_close(posterior.outputs((hidden, mask), 3), found)
        assert not torch.allclose(posterior.outputs((hidden, torch.ones_like(mask)), 3), found, atol=0.1)  # planted


def test_too_many_outputs_for_the_exact_hessian(fitted, monkeypatch):
    monkeypatch.setattr("pyroformer.inference.laplace.driver.MOST_NUMBERS", 8)
    with pytest.raises(SettingError, match="hessian fisher: that of 3 outputs an example is too large"):
        run()
    assert run(hessian="fisher").predict(NEW, 2).num_samples == 2
    monkeypatch.setattr("pyroformer.inference.laplace.driver.MOST_NUMBERS", 9)  # one example at a time
    torch.testing.assert_close(run().normal.cholesky, fitted.normal.cholesky)


def test_a_mixture_of_approximations():
    driver = DeepEnsemble(member=Laplace(start=SHORT, link="probit"), size=2)
    posterior = driver.run(model(), None, DATA)
    assert isinstance(posterior, MixturePosterior)
    each = [member.predict(NEW).probabilities for member in posterior.members]
    torch.testing.assert_close(posterior.predict(NEW).probabilities, sum(each) / 2)
    assert not torch.allclose(each[0], each[1], atol=1e-3)  # planted: one member twice
    drawn = DeepEnsemble(member=Laplace(start=SHORT), size=2).run(model(), None, DATA).predict(NEW, 6)
    assert drawn.num_samples == 6


def test_calibration_works_on_the_outputs(fitted):
    for probit in (False, True):
        posterior = again(fitted, probit=probit)
        found = posterior.calibrate(TemperatureScaling(), X, Y).fitted["temperature"]
        outputs = posterior.outputs(NEW) / found
        torch.testing.assert_close(posterior.predict(NEW).probabilities, outputs.softmax(-1).mean(0))


@pytest.mark.parametrize("structure", ["diagonal", "kronecker", "full"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_dtypes(structure, dtype):
    settings = dict(epochs=3, batch_size=8, learning_rate=0.02)
    posterior = run(start=ML(**settings, dtype=dtype), structure=structure)
    assert {value.dtype for value in posterior.draw(2).values()} == {getattr(torch, dtype)}
    other = run(start=ML(**settings, dtype="float64"), structure=structure)
    found, expected = (p.predict(X, 8).probabilities for p in (posterior, other))
    assert float((found - expected).abs().max()) < 1e-2
    assert posterior.info["log_evidence"] == pytest.approx(other.info["log_evidence"], rel=1e-3)


def test_fisher_comes_close_to_the_hessian_and_is_the_same_again():
    exact = run(structure="diagonal").normal.precision["head.weight"]
    many = [run(structure="diagonal", hessian="fisher", fisher_samples=400) for _ in range(2)]
    found = [posterior.normal.precision["head.weight"] for posterior in many]
    assert torch.equal(*found)
    assert ((found[0] - 1) / (exact - 1) - 1).abs().max() < 0.1
    one = run(structure="diagonal", hessian="fisher").normal.precision["head.weight"]
    assert ((one - 1) / (exact - 1) - 1).abs().max() > 0.1  # planted: one draw


def test_batch_statistics_and_dropout_are_those_of_evaluation():
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 3))
    posterior = run(BayesianModel(net, Normal()), structure="kronecker")
    assert posterior.info["diagonal"] == ["1.weight", "1.bias"]
    assert torch.equal(posterior.outputs(NEW, 2), posterior.outputs(NEW, 2))


def test_progress_is_told():
    class Watching(Monitor):
        done = 0

        def step(self, text="", advance=1):
            self.done += advance

    monitor = Watching()
    Laplace(start=SHORT).run(model(), None, DATA, 0, monitor)
    assert monitor.done == 3 * 3 + len(DATA)
    assert [record["part"] for record in monitor.history] == ["start"] * 3
