"""Drivers that go on from trained nets, and nets that are trained once for several of them."""

import threading

import pytest
import torch
from torch import nn

from pyroformer.guides import DirichletRows as RowFamily
from pyroformer.guides import LowRank, MeanField
from pyroformer.inference import (
    IVON,
    MAP,
    ML,
    NUTS,
    SVI,
    SWAG,
    Data,
    DeepEnsemble,
    ImportanceWeighted,
    Laplace,
    Library,
    Monitor,
    Posterior,
)
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Output, Tokens, Transformer
from pyroformer.priors import (
    ContextualCenter,
    DirichletRows,
    Learned,
    Normal,
    Pretrained,
    SettingError,
    StudentT,
    Uniform,
)

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
DATA = Data(X, X.sum(-1, keepdim=True))
SHORT = ML(epochs=4, batch_size=20)


def model(prior=None):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    return BayesianModel(net, prior or Normal(), Gaussian(scale=0.3))


def test_svi_starts_where_the_net_ends():
    slow = SVI(epochs=1, learning_rate=1e-12, start=SHORT)
    trained = SHORT.run(model(), None, DATA, 3).draw(1)
    started = slow.run(model(), MeanField(init_scale=1e-6), DATA, 3)
    for name, value in started.draw(1).items():
        torch.testing.assert_close(value, trained[name], atol=1e-4, rtol=1e-4)
    cold = SVI(epochs=1, learning_rate=1e-12).run(model(), MeanField(init_scale=1e-6), DATA, 3).draw(1)
    assert (cold["0.weight"] - trained["0.weight"]).abs().max() > 1e-3  # planted: no start
    assert started.info["start"]["seconds"] >= 0


def test_learned_parameters_start_there_too():
    prior = {"0.*": Learned(), "*": Normal()}
    trained = SHORT.run(model(prior), None, DATA, 3).model.learned
    started = SVI(epochs=1, learning_rate=1e-12, start=SHORT).run(model(prior), MeanField(), DATA, 3).model.learned
    for name, value in trained.items():
        torch.testing.assert_close(started[name], value)


def numbers(posterior):
    """Every trained number and one draw of the weights, by name."""
    return {**posterior.model.learned, **{name: value[0] for name, value in posterior.draw(1).items()}}


@pytest.mark.parametrize("weights", [Learned(), Normal()], ids=["learned", "random"])
def test_random_rows_start_from_the_net_whose_rows_are_computed(weights):
    torch.manual_seed(1)
    net = Transformer(Features(2), Output(1), width=4, heads=2, depth=1)
    rows = {"*.rows": DirichletRows(center=ContextualCenter(), kl_weight=0.1)}
    random = BayesianModel(net, {**rows, "*": weights}, Gaussian(scale=0.3))
    plain = BayesianModel(net, {"*": weights}, Gaussian(scale=0.3))
    families = {"*.rows": RowFamily(), **({} if isinstance(weights, Learned) else {"*": MeanField(init_scale=1e-6)})}
    trained = SHORT.run(plain, None, DATA, 3)
    started = SVI(epochs=1, learning_rate=1e-12, start=SHORT).run(random, families, DATA, 3)
    assert started.model.rows == random.rows and random.without_rows().rows == () and plain.without_rows() is plain
    for name, value in numbers(trained).items():
        torch.testing.assert_close(numbers(started)[name], value, atol=1e-4, rtol=1e-4)
    assert any("row_prior" in name for name in started.model.learned)  # what the prior of rows learns is still there
    cold = SVI(epochs=1, learning_rate=1e-12).run(random, families, DATA, 3)
    gaps = [(numbers(cold)[name] - value).abs().max() for name, value in numbers(trained).items()]
    assert max(gaps) > 1e-3  # planted: no start


def test_records_of_the_start_are_marked():
    monitor = Monitor()
    SVI(epochs=2, start=SHORT).run(model(), MeanField(), DATA, 3, monitor)
    assert [record.get("part") for record in monitor.history] == ["start"] * 4 + [None] * 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(start=NUTS()), "start = .*: expected a point estimate: map or ml"),
        (dict(start=DeepEnsemble()), "start = .*: expected a point estimate: map or ml"),
        (dict(start=ML(dtype="float64")), "start = .*: expected a driver with the same device and dtype"),
    ],
)
def test_a_start_that_is_none(wrong, message):
    with pytest.raises(SettingError, match=message):
        SVI(**wrong)


@pytest.mark.parametrize("make", [SWAG, Laplace])
def test_a_post_hoc_driver_works_where_its_start_does(make):
    assert make(start=ML(dtype="float64")).place == ML(dtype="float64").place
    with pytest.raises(SettingError, match=r"dtype = 'float64': expected nothing here: that of start is used"):
        make(dtype="float64")
    for wrong in (None, NUTS()):
        with pytest.raises(SettingError, match=r"start = .*: expected a point estimate: map or ml"):
            make(start=wrong)


def test_ivon_starts_where_the_net_ends():
    slow = IVON(epochs=1, learning_rate=1e-12, start=SHORT)
    trained = SHORT.run(model(), None, DATA, 3).draw(1)
    started = slow.run(model(), None, DATA, 3)
    torch.testing.assert_close(started.guide.families[0].loc[:6], trained["0.weight"].flatten(), atol=1e-6, rtol=1e-6)
    cold = IVON(epochs=1, learning_rate=1e-12).run(model(), None, DATA, 3)
    assert (cold.guide.families[0].loc[:6] - trained["0.weight"].flatten()).abs().max() > 1e-3  # planted: no start
    assert started.info["start"]["seconds"] >= 0


def same(one: Posterior, two: Posterior):
    a, b = one.draw(1), two.draw(1)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def counted(folder, context=None):
    """A monitor with a library, which counts how often a net is trained for it."""
    library = Library(folder, context)
    monitor = Monitor(library=library)
    monitor.trainings = 0
    get = library.get

    def counting(work, net, inner, find):
        def found():
            monitor.trainings += 1
            return find()

        return get(work, net, inner, found)

    library.get = counting
    return monitor


def test_a_net_is_trained_once(tmp_path):
    alone = Monitor()
    trained = SHORT.run(model(), None, DATA, 3, alone)
    first, second = counted(tmp_path), counted(tmp_path)
    assert same(SHORT.run(model(), None, DATA, 3, first), trained)
    assert same(SHORT.run(model(), None, DATA, 3, second), trained)
    assert (first.trainings, second.trainings) == (1, 0)

    def numbers(monitor):
        return [{key: value for key, value in entry.items() if key != "seconds"} for entry in monitor.history]

    assert numbers(second) == numbers(first) == numbers(alone)


def test_a_started_guide_is_the_same_with_and_without_a_library(tmp_path):
    driver = SVI(epochs=2, start=SHORT)
    alone = driver.run(model(), MeanField(), DATA, 3)
    for trainings in (1, 0):
        monitor = counted(tmp_path)
        assert same(driver.run(model(), MeanField(), DATA, 3, monitor), alone)
        assert monitor.trainings == trainings


@pytest.mark.parametrize(
    "other",
    [
        dict(seed=4),
        dict(driver=ML(epochs=4, batch_size=20, learning_rate=2e-3)),
        dict(driver=MAP(epochs=4, batch_size=20)),
        dict(data=Data(X, X.sum(-1, keepdim=True) + 1e-6)),
        dict(model=lambda: model().reinitialized(5)),
        dict(model=lambda: model(Uniform(scale=9.0))),
        dict(context={"model": {"dropout": 0.1}}),
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_work_is_not_shared(tmp_path, other):
    SHORT.run(model(), None, DATA, 3, counted(tmp_path))
    monitor = counted(tmp_path, other.get("context"))
    made = other.get("model", model)()
    other.get("driver", SHORT).run(made, None, other.get("data", DATA), other.get("seed", 3), monitor)
    assert monitor.trainings == 1


TOKENS = torch.randint(1, 5, (12, 6), generator=torch.Generator().manual_seed(0))
BUILT = Tokens(5, 6, padding=0)


@pytest.mark.parametrize(
    "other", [Tokens(5, 6, padding=0, causal=True), Tokens(5, 6), Tokens(5, 6, padding=4)], ids=["causal", "none", "4"]
)
def test_a_net_for_other_inputs_is_not_shared(tmp_path, other):
    """A causal net has the parameters and the settings of one that looks ahead, and is another one."""

    def built(inputs):
        torch.manual_seed(1)
        net = Transformer(inputs, Output(5, per_token=True), width=8, heads=2, depth=1)
        return BayesianModel(net, Normal(), Categorical(per_token=True))

    data = Data(TOKENS, TOKENS.roll(-1, 1))
    first, same_net, second = counted(tmp_path), counted(tmp_path), counted(tmp_path)
    SHORT.run(built(BUILT), None, data, 3, first)
    SHORT.run(built(BUILT), None, data, 3, same_net)
    found = SHORT.run(built(other), None, data, 3, second)
    assert (first.trainings, same_net.trainings, second.trainings) == (1, 0, 1)
    assert same(found, SHORT.run(built(other), None, data, 3))


def test_maximum_likelihood_does_not_depend_on_a_real_prior(tmp_path):
    found = SHORT.run(model(), None, DATA, 3, counted(tmp_path))
    monitor = counted(tmp_path)
    other = SHORT.run(model(StudentT()), None, DATA, 3, monitor)
    assert monitor.trainings == 0 and same(found, other)
    assert same(other, SHORT.run(model(StudentT()), None, DATA, 3))
    point = MAP(epochs=4, batch_size=20)
    point.run(model(), None, DATA, 3, counted(tmp_path))
    monitor = counted(tmp_path)
    point.run(model(StudentT()), None, DATA, 3, monitor)
    assert monitor.trainings == 1  # the twin: its prior counts


def test_others_wait_for_the_one_that_trains(tmp_path):
    library, trainings = Library(tmp_path), []
    posterior = SHORT.run(model(), None, DATA, 3)

    def find():
        trainings.append(threading.get_ident())
        return posterior

    threads = [
        threading.Thread(target=library.get, args=({"work": 1}, model(), Monitor(), find), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trainings) == 1


def test_a_failure_leaves_nothing_behind(tmp_path):
    def find():
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        Library(tmp_path).get({"work": 1}, model(), Monitor(), find)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_priors_around_the_net_are_around_the_trained_one():
    prior = {"0.*": Normal(), "*": Pretrained(relative=0.5)}
    trained = SHORT.run(model(prior), None, DATA, 3).draw(1)
    started = SVI(epochs=1, start=SHORT).run(model(prior), MeanField(), DATA, 3)
    torch.testing.assert_close(started.model.distributions()["2.weight"].mean, trained["2.weight"][0])
    assert not torch.allclose(model(prior).distributions()["2.weight"].mean, trained["2.weight"][0])  # its own start
    cold = SVI(epochs=1).run(model(prior), MeanField(), DATA, 3)
    torch.testing.assert_close(
        cold.model.distributions()["2.weight"].mean, dict(model().net.named_parameters())["2.weight"]
    )
    torch.testing.assert_close(started.model.distributions()["0.weight"].mean, torch.zeros(3, 2))


def test_one_net_serves_priors_around_it_and_others(tmp_path):
    monitor = counted(tmp_path)
    for prior in (Normal(), Pretrained(), {"0.*": Normal(), "*": Pretrained(relative=0.5)}):
        SVI(epochs=1, start=SHORT).run(model(prior), MeanField(), DATA, 3, monitor)
    assert monitor.trainings == 1
    for prior in (Normal(), Pretrained()):  # a maximum a posteriori depends on its prior
        SVI(epochs=1, start=MAP(epochs=4, batch_size=20)).run(model(prior), MeanField(), DATA, 3, monitor)
    assert monitor.trainings == 3


@pytest.mark.parametrize("start", [SHORT, MAP(epochs=4, batch_size=20)], ids=["ml", "map"])
def test_what_goes_on_from_an_estimate_keeps_its_prior(start):
    own = model(Pretrained()).distributions()["2.weight"].mean
    for driver in (Laplace(start=start, structure="diagonal"), SWAG(start=start, epochs=2)):
        found = driver.run(model(Pretrained()), None, DATA, 3)
        torch.testing.assert_close(found.model.distributions()["2.weight"].mean, own)


def test_an_estimator_without_effect_is_refused_before_the_start_is_trained(monkeypatch):
    monkeypatch.setattr("pyroformer.inference.optimize.Fit.step", None)
    with pytest.raises(SettingError, match="estimator = 'flipout': expected shared"):
        SVI(start=SHORT, estimator="flipout").run(model(), LowRank(), DATA)


@pytest.mark.parametrize("guide", ["mean_field", MeanField, {"*": "mean_field"}], ids=str)
def test_a_guide_that_is_none_is_named(guide):
    with pytest.raises(SettingError, match="expected a guide family, such as MeanField"):
        SVI(bound=ImportanceWeighted(), particles=2).run(model(), guide, DATA)
