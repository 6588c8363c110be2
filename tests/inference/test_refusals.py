"""What a driver cannot do it refuses before any work is done."""

import pytest
import torch
from torch import nn

from pyroformer.guides import Delta, Guide, MeanField
from pyroformer.inference import (
    HMC,
    IVON,
    MAP,
    MCLMC,
    ML,
    NUTS,
    SGHMC,
    SGLD,
    SGNHT,
    SVI,
    SWAG,
    CheesHMC,
    Data,
    DeepEnsemble,
    Driver,
    ImportanceWeighted,
    Laplace,
    OnePassELBO,
    ParticleBound,
    Renyi,
)
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Fixed, Learned, Normal, SettingError

X, Y = torch.randn(6, 2), torch.randint(3, (6,))
IW = ImportanceWeighted()
PRIORS = {
    "weights": Normal(),
    "rows": {"*.rows": PriorRows(), "*": Normal()},
    "light rows": {"*.rows": PriorRows(kl_weight=0.5), "*": Normal()},
    "rows and learned": {"*.rows": PriorRows(), "*": Learned()},
    "learned": Learned(),
    "part learned": {"head.*": Learned(), "*": Normal()},
    "fixed": Fixed(),
}


def model(name, **likelihood):
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=1)
    return BayesianModel(net, PRIORS[name], **likelihood)


@pytest.mark.parametrize(
    ("driver", "guide", "prior", "message"),
    [
        (MAP(), MeanField(), "weights", "guide = 'MeanField': expected none: MAP would ignore it"),
        (ML(), Delta(), "weights", "expected none: ML would ignore it"),
        (NUTS(), MeanField(), "weights", "expected none: NUTS would ignore it"),
        (NUTS(), {"*": MeanField()}, "weights", "expected none: NUTS would ignore it"),
        (DeepEnsemble(), MeanField(), "weights", "expected none: DeepEnsemble would ignore it"),
        (SVI(), None, "weights", "guide = None: expected a guide: SVI fits one"),
        (DeepEnsemble(member=SVI()), None, "weights", "expected a guide: DeepEnsemble fits one"),
        (MAP(), None, "rows", "MAP.*svi with a row family such as dirichlet_rows: blocks.0.attention.rows"),
        (ML(), None, "rows and learned", "blocks.0.attention.rows has no point estimate"),
        (NUTS(), None, "light rows", "rows that count in full, .*: see the prior of blocks.0.attention.rows"),
        (DeepEnsemble(), None, "rows", "svi with a row family"),
        (NUTS(), None, "part learned", "priors on all parameters: nuts cannot learn head.weight"),
        (NUTS(), None, "fixed", "at least one random site"),
        (HMC(), None, "light rows", "rows that count in full, .*: see the prior of blocks.0.attention.rows"),
        (HMC(start=SVI()), None, "weights", "expected a guide: HMC fits one"),
        (SVI(), MeanField(), "learned", r"at least one random site; .*ml trains them"),
        (SVI(), MeanField(), "fixed", "at least one random site"),
        (
            SVI(bound=IW, particles=2),
            MeanField(),
            "rows",
            "the bound elbo: .* blocks.0.attention.rows is drawn for every",
        ),
        (MAP(), None, "fixed", "a model with something to train; all its parameters are fixed"),
        (ML(), None, "fixed", "a model with something to train"),
        (SWAG(), MeanField(), "weights", "expected none: SWAG would ignore it"),
        (SWAG(), None, "rows", "svi with a row family such as dirichlet_rows: blocks.0.attention.rows"),
        (SWAG(), None, "learned", r"at least one random site; .*ml trains them"),
        (DeepEnsemble(member=SWAG()), None, "fixed", "a model with something to train"),
        (IVON(), MeanField(), "weights", "expected none: IVON would ignore it"),
        (IVON(), None, "rows", "such as svi: ivon does not fit blocks.0.attention.rows"),
        (IVON(), None, "part learned", "priors on all parameters: ivon cannot learn head.weight"),
        (IVON(), None, "fixed", "at least one random site"),
        (SGLD(), MeanField(), "weights", "expected none: SGLD would ignore it"),
        (SGHMC(), None, "rows", "such as svi: sghmc does not sample blocks.0.attention.rows"),
        (SGNHT(), None, "part learned", "priors on all parameters: sgnht cannot learn head.weight"),
        (SGLD(), None, "fixed", "at least one random site"),
    ],
)
def test_refusals_come_before_any_work(driver, guide, prior, message):
    with pytest.raises(SettingError, match=message):
        driver.run(model(prior), guide, None)  # there are not even data


class Scaled(nn.Module):
    """A net that cannot start its parameter anew."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.scale * x.mean(-1, keepdim=True)


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        (NUTS(chains=2), r"for every chain \(or 1 chain\): Scaled at '' has parameters but no reset_parameters\(\)"),
        (SGLD(), r"for every chain \(or 1 chain\): Scaled at '' has parameters but no reset_parameters\(\)"),
        (DeepEnsemble(member=MAP()), r"a net that starts afresh for every member: Scaled at '' has parameters"),
        (DeepEnsemble(member=NUTS(), size=1), "a net that starts afresh for every member"),
    ],
)
def test_a_net_without_a_fresh_start_is_refused_before_any_work(driver, message):
    with pytest.raises(SettingError, match=message):
        driver.run(BayesianModel(Scaled(), Normal()), None, None)
    assert NUTS().refusal(BayesianModel(Scaled(), Normal())) is None and driver.refusal(model("weights")) is None


@pytest.mark.parametrize(
    ("driver", "guide", "prior"),
    [
        (ML(epochs=1), None, "learned"),
        (MAP(epochs=1), None, "part learned"),
        (SVI(epochs=1), MeanField(), "part learned"),
        (DeepEnsemble(member=ML(epochs=1), size=2), None, "learned"),
        (SWAG(epochs=2, start=ML(epochs=1)), None, "part learned"),
        (IVON(epochs=1), None, "weights"),
        (SGHMC(epochs=1), None, "weights"),
        (SVI(epochs=1, bound=IW, particles=2), {"head.*": Delta(), "*": MeanField()}, "weights"),
        (SVI(epochs=1, bound=IW, particles=2), MeanField(), "part learned"),
    ],
)
def test_neighbours_of_what_is_refused_work(driver, guide, prior):
    assert driver.run(model(prior), guide, Data(X, Y)).predict(X).probabilities.shape == (6, 3)


def test_a_guide_of_another_model_is_refused():
    first, second = model("weights"), model("weights")
    guide = Guide(first, MeanField(), (X[:2],))
    with pytest.raises(SettingError, match="expected a guide of this model"):
        SVI().run(second, guide, None)
    with pytest.raises(SettingError, match="every member makes its own"):
        DeepEnsemble(member=SVI()).run(first, guide, None)
    with pytest.raises(SettingError, match="dtype = 'float64': expected float32, which the guide has"):
        SVI(dtype="float64").run(first, guide, None)
    assert SVI(epochs=1).run(first, guide, Data(X, Y)).guide is guide


def test_a_guide_without_parameters_is_refused_by_what_it_lacks():
    for prior in ("fixed", "learned"):
        built = model(prior)
        with pytest.raises(SettingError, match="at least one random site"):
            SVI().run(built, Guide(built, {}, (X[:2],)), None)


def test_one_number_has_no_direction():
    built = BayesianModel(nn.Linear(1, 1, bias=False), Normal(), Gaussian())
    with pytest.raises(SettingError, match="a model with at least two random numbers"):
        MCLMC().run(built, None, None)
    assert HMC().refusal(built) is None


def test_noise_alone_is_a_random_site():
    built = BayesianModel(nn.Linear(2, 1), Fixed(), Gaussian(noise="random"))
    y = torch.randn(6, 1)
    assert SVI(epochs=1).run(built, MeanField(), Data(X, y)).draw(2)["noise_scale"].shape == (2,)
    assert MAP(epochs=1).run(built, None, Data(X, y)).draw(1)["noise_scale"].shape == (1,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SVI(epochs=0), "epochs = 0: expected a whole number of at least 1"),
        (lambda: SVI(batch_size=-1), "batch_size = -1"),
        (lambda: SVI(learning_rate=0.0), "learning_rate = 0.0"),
        (lambda: SVI(learning_rate=float("nan")), "learning_rate = nan"),
        (lambda: ML(weight_decay=0.1), "weight_decay = 0.1: expected 0, or the optimizer adamw"),
        (lambda: ML(weight_decay=-0.1, optimizer="adamw"), "weight_decay = -0.1: expected a number of at least 0"),
        (lambda: SVI(optimizer="lbfgs"), "optimizer = 'lbfgs': expected one of adam, adamw, sgd"),
        (lambda: SVI(schedule="step"), "schedule = 'step': expected one of cosine, linear, constant"),
        (lambda: SVI(warmup=1.0), "warmup = 1.0: expected a share of the steps"),
        (lambda: SVI(clip_norm=0.0), "clip_norm = 0.0: expected a number above 0, or null"),
        (lambda: SVI(keep="first"), "keep = 'first': expected one of best, last"),
        (lambda: SVI(particles=0), "particles = 0"),
        (lambda: SVI(temperature=0.0), "temperature = 0.0"),
        (lambda: SVI(kl_weight=-1.0), "kl_weight = -1.0"),
        (lambda: SVI(kl_weight=float("inf")), "kl_weight = inf: expected a finite number of at least 0"),
        (lambda: SVI(kl_weight=float("nan")), "kl_weight = nan: expected a finite number of at least 0"),
        (lambda: OnePassELBO(temperature=-1), "temperature = -1: expected a number above 0"),
        (lambda: OnePassELBO(temperature=float("inf")), "temperature = inf"),
        (lambda: OnePassELBO(num_particles=0), "num_particles = 0: expected a whole number of at least 1"),
        (lambda: OnePassELBO(num_particles=1.5), "num_particles = 1.5"),
        (lambda: ParticleBound(alpha=0.0, num_particles=0), "num_particles = 0"),
        (lambda: ParticleBound(alpha=1, num_particles=2), "alpha = 1: expected a finite number other than 1"),
        (lambda: SVI(kl_warmup=1.0), "kl_warmup = 1.0"),
        (lambda: SVI(bound=IW), "particles = 1: expected at least 2 for this bound: with one draw it is elbo"),
        (lambda: SVI(bound=IW, particles=2, temperature=0.5), "temperature = 0.5: expected 1: elbo is the only bound"),
        (lambda: SVI(bound=IW, particles=2, kl_weight=0.5), "kl_weight = 0.5: expected 1: elbo is the only bound"),
        (lambda: SVI(bound=IW, particles=2, kl_warmup=0.5), "kl_warmup = 0.5: expected 0: elbo is the only bound"),
        (lambda: SVI(bound="elbo"), "bound = 'elbo': expected a bound: elbo, importance_weighted or renyi"),
        (lambda: Renyi(alpha=1.0), "alpha = 1.0: expected a number other than 1, at which the bound is elbo"),
        (lambda: Renyi(alpha=float("nan")), "alpha = nan: expected a finite number other than 1"),
        (lambda: SVI(dtype="float16"), "dtype = 'float16': expected one of float32, float64"),
        (lambda: SVI(device="tpu9"), "device = 'tpu9': expected a torch device of this machine"),
        (lambda: NUTS(num_samples=3), "num_samples = 3: expected at least 4"),
        (lambda: NUTS(num_samples=10.5), "num_samples = 10.5: expected a whole number"),
        (lambda: NUTS(target_accept=1.0), "target_accept = 1.0"),
        (lambda: NUTS(chains=0), "chains = 0"),
        (lambda: NUTS(max_tree_depth=0), "max_tree_depth = 0"),
        (lambda: HMC(thinning=0), "thinning = 0"),
        (lambda: HMC(jitter=-1.0), "jitter = -1.0: expected a number of at least 0"),
        (lambda: HMC(length=0.0), "length = 0.0"),
        (lambda: HMC(length_jitter=1.5), "length_jitter = 1.5: expected a number from 0 to 1"),
        (lambda: CheesHMC(chains=1), "chains = 1: expected at least 2 chains, from which lengths are learnt"),
        (lambda: MCLMC(energy_variance=1e-3), "energy_variance = 0.001: expected 0.0005: it belongs to the unadj"),
        (lambda: MCLMC(adjusted=False, target_accept=0.5), "target_accept = 0.5: expected 0.9: it belongs to the adj"),
        (lambda: MCLMC(adjusted=False, steps_per_draw=0), "steps_per_draw = 0"),
        (lambda: HMC(start="posterior"), "start = 'posterior': expected prior, a driver, or null"),
        (lambda: HMC(start=NUTS()), "start = .*: expected a driver that runs no chains itself, such as ml or svi"),
        (lambda: HMC(start=DeepEnsemble(member=NUTS())), "start = .*: expected a driver that runs no chains itself"),
        (lambda: HMC(start=ML(dtype="float64")), "start = .*: expected a driver with the same device and dtype"),
        (lambda: HMC(start=DeepEnsemble(size=3)), "start = .*: expected an ensemble of at least 4 members"),
        (lambda: DeepEnsemble(size=0), "size = 0"),
        (lambda: DeepEnsemble(member=DeepEnsemble()), "member = .*: expected a driver that is no ensemble itself"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_every_driver_says_whether_it_needs_a_guide():
    assert {
        type(d): d.needs_guide
        for d in (
            *(SVI(), MAP(), ML(), NUTS(), HMC(), CheesHMC(), MCLMC(), DeepEnsemble(), SWAG(), IVON(), Laplace()),
            *(SGLD(), SGHMC(), SGNHT()),
        )
    } == {
        SVI: True,
        MAP: False,
        ML: False,
        NUTS: False,
        HMC: False,
        CheesHMC: False,
        MCLMC: False,
        DeepEnsemble: False,
        SWAG: False,
        IVON: False,
        Laplace: False,
        SGLD: False,
        SGHMC: False,
        SGNHT: False,
    }
    assert DeepEnsemble(member=SVI()).needs_guide
    assert HMC(start=SVI()).needs_guide and not HMC(start=ML()).needs_guide
    assert issubclass(SVI, Driver)
