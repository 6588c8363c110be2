"""Which family gets which site, and what a guide takes from what it is given."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyroformer.guides import Delta, DirichletRows, FullRank, Guide, MeanField
from pyroformer.models import BayesianModel, Features, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal, SettingError

X = torch.zeros(2, 1)
ROWS = {"*.rows": PriorRows(), "*": Normal()}


def transformer(prior=None, depth=2):
    torch.manual_seed(0)
    return BayesianModel(
        Transformer(Features(1, copies=2), Output(3), width=4, heads=2, depth=depth), prior or Normal()
    )


def test_the_first_match_wins():
    guide = Guide(transformer(), {"blocks.0.*": Delta(), "blocks.*": MeanField(init_scale=0.5), "*": MeanField()}, (X,))
    kinds = {name: type(guide.family_of(name)) for name in guide.sites}
    assert kinds["blocks.0.mlp.up.weight"] is Delta and kinds["blocks.1.mlp.up.weight"] is MeanField
    assert guide.family_of("blocks.1.mlp.up.weight").init_scale == 0.5
    assert guide.family_of("head.bias") is not guide.family_of("blocks.1.mlp.up.weight")
    assert len(guide.families) == 3


def test_one_family_under_two_globs_stays_one():
    family = MeanField()
    guide = Guide(transformer(), {"blocks.0.*": family, "head.*": Delta(), "*": family}, (X,))
    assert len(guide.families) == 2
    assert guide.family_of("position") is guide.family_of("blocks.0.norm1.bias")


def test_local_families_cover_rows_and_the_others_weights():
    guide = Guide(transformer(ROWS), {"*": MeanField(), "blocks.0.*": DirichletRows(), "*.rows": DirichletRows()}, (X,))
    assert isinstance(guide.family_of("blocks.0.attention.query.weight"), MeanField)
    assert guide.family_of("blocks.0.attention.rows") is not guide.family_of("blocks.1.attention.rows")
    assert {type(guide.family_of(f"blocks.{i}.attention.rows")) for i in (0, 1)} == {DirichletRows}
    assert guide.sites[-2:] == ("blocks.0.attention.rows", "blocks.1.attention.rows")


def test_sites_keep_the_order_of_the_model():
    model = transformer()
    guide = Guide(model, {"head.*": Delta(), "*": MeanField()}, (X,))
    assert guide.sites == tuple(model.sites)


@pytest.mark.parametrize(
    ("prior", "families", "message"),
    [
        (
            Normal(),
            {"hed.bias": Delta(), "*": MeanField()},
            r"'hed\.bias': expected a pattern .*did you mean head\.bias",
        ),
        (
            Normal(),
            {"blocks.*": MeanField()},
            r"'position': expected a pattern that covers this site .*given are blocks",
        ),
        (Normal(), {"*.rows": DirichletRows(), "*": MeanField()}, "no family for rows: the model draws none"),
        (ROWS, DirichletRows(), "pattern that covers this site"),
        (
            ROWS,
            {"*.row": DirichletRows(), "*": MeanField()},
            r"'\*\.row': expected .* a site in a plate among blocks\.0\.attention\.rows",
        ),
        (ROWS, {"blocks.0.*": DirichletRows(), "*": MeanField()}, r"'blocks\.1\.attention\.rows'"),
        (ROWS, MeanField(), "holds attention rows"),
        (ROWS, Delta(), "holds attention rows"),
        (Normal(), MeanField, r"\* = <class .*MeanField'>: expected a guide family, such as MeanField\(\)"),
        (Normal(), {"head.*": "mean_field", "*": MeanField()}, r"head\.\* = 'mean_field': expected a guide family"),
        ({**ROWS, "*": Learned()}, {"*.rows": DirichletRows(), "*": MeanField()}, "no site of the model here"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(prior, families, message):
    with pytest.raises(ValueError, match=message):
        Guide(transformer(prior), families, (X,))


def test_families_are_recipes():
    families = {"*.rows": DirichletRows(sharpness=7.0), "*": MeanField(init_scale=0.5)}
    model = transformer(ROWS)
    first, second = Guide(model, families, (X,)), Guide(model, families, (X,))
    assert not list(families["*"].parameters()) and not list(families["*.rows"].parameters())
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    with torch.no_grad():
        for p in first.parameters():
            p.fill_(9.0)
    assert second.family_of("position").log_scale[0].exp().item() == pytest.approx(0.5)
    assert second.summary()["dirichlet_rows"]["sharpness"]["blocks.0.attention.rows"] == [7.0, 7.0]


def test_a_trained_family_is_a_recipe_too():
    model = transformer()
    trained = Guide(model, MeanField(), (X,))
    trained(X)
    again = Guide(model, trained.family_of("position"), (X,))
    assert not {id(p) for p in trained.parameters()} & {id(p) for p in again.parameters()}


def test_posteriors_start_at_the_net_or_where_they_are_told():
    model = transformer()
    position = torch.full((2, 4), 3.0)
    for family, read in ((MeanField(), lambda f: f.loc[:8].view(2, 4)), (Delta(), lambda f: f.values["0"])):
        assert torch.equal(read(Guide(model, family, (X,)).families[0]), model.net.position)
        assert torch.equal(read(Guide(model, family, (X,), init={"position": position}).families[0]), position)
    with pytest.raises(SettingError, match=r"init = 'postion': expected a site .*did you mean position"):
        Guide(model, MeanField(), (X,), init={"postion": position})
    with pytest.raises(SettingError, match=r"init = 'position': expected a value of shape \(2, 4\), not \(4,\)"):
        Guide(model, MeanField(), (X,), init={"position": position[0]})


def bounded(x):
    """A positive number, a share, a point of a simplex."""
    pyro.sample("s", dist.Gamma(2.0, 1.0))
    pyro.sample("share", dist.Uniform(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("mix", dist.Dirichlet(torch.ones(3)))


@pytest.mark.parametrize("family", [MeanField, Delta, FullRank])
@pytest.mark.parametrize(
    ("name", "value", "support"),
    [
        ("s", -1.0, "GreaterThan"),
        ("s", 0.0, "GreaterThan"),
        ("s", math.inf, "GreaterThan"),
        ("s", math.nan, "GreaterThan"),
        ("share", torch.tensor([0.5, 1.5]), "Interval"),
        ("mix", torch.tensor([0.5, 0.5, 0.5]), "Simplex"),
        ("mix", torch.tensor([0.0, 0.0, 1.0]), "Simplex"),
    ],
)
def test_a_start_outside_the_support_is_refused(family, name, value, support):
    with pytest.raises(
        SettingError, match=f"init = '{name}': expected finite values inside .* of its prior, {support}"
    ):
        Guide(bounded, family(), (X,), init={name: value})
    inside = {"s": 3, "share": torch.tensor([0.5, 0.9]), "mix": torch.tensor([0.2, 0.3, 0.5]).double()}
    guide = Guide(bounded, family(), (X,), init=inside)  # whole numbers and other dtypes are taken as the site's
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in guide.parameters())
    for own, found in guide(X).items():
        if family is Delta:
            torch.testing.assert_close(found, torch.as_tensor(inside[own]).to(found))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanField(init_scale=0.0), "init_scale = 0.0: expected a number above 0"),
        (lambda: DirichletRows(sharpness=-1.0), "sharpness = -1.0"),
        (lambda: DirichletRows(floor=0.0), "floor = 0.0"),
        (lambda: DirichletRows(shared="heads"), "shared = 'heads': expected one of global, layer, head"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_the_example_is_a_tuple_of_arguments():
    with pytest.raises(SettingError, match=r"example = 'Tensor': expected a tuple of arguments .* such as \(x,\)"):
        Guide(transformer(), MeanField(), X)


def test_building_and_drawing_leave_the_model_alone():
    net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    model = BayesianModel(net, Normal())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    guide = Guide(model, MeanField(), (X[:1],))
    guide.draw(3, X[:1])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and all(part.training for part in model.net.modules())
    model(X)  # planted: a run in training
    assert not torch.equal(model.net[1].running_mean, before["net.1.running_mean"])
