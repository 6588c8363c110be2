"""Closed forms of the KL between laws of rows, against Monte Carlo."""

import pytest
import torch
from torch.distributions import kl_divergence

from pyroformer.priors import (
    MaskedDirichlet,
    MaskedGamma,
    MaskedGumbelSoftmax,
    MaskedLogisticNormal,
    MaskedLogNormal,
    MaskedWeibull,
)

MASK = torch.tensor([[True, True, True, True], [True, False, True, False], [False, False, True, False]])
GENERATOR = torch.Generator().manual_seed(2)
P, Q = (torch.randn(MASK.shape, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
S = torch.tensor([[0.4], [0.7], [1.1]], dtype=torch.float64)

QS = {
    "dirichlet": lambda mask: MaskedDirichlet(Q.exp() * 2, mask),
    "weibull": lambda mask: MaskedWeibull(Q, 1.5 / S, mask),
    "log_normal": lambda mask: MaskedLogNormal(Q, S, mask),
    "logistic_normal": lambda mask: MaskedLogisticNormal(Q, S, mask),
    "gumbel_softmax": lambda mask: MaskedGumbelSoftmax(Q, 1 / S, mask),
}
PS = {
    "dirichlet": lambda mask, by=1.0: MaskedDirichlet(by * P.exp() + 0.5, mask),
    "gamma": lambda mask, by=1.0: MaskedGamma(by * P.exp() + 0.5, 1.5 * S, mask),
    "log_normal": lambda mask, by=1.0: MaskedLogNormal(by * P, 1.3 * S.flip(0), mask),
    "logistic_normal": lambda mask, by=1.0: MaskedLogisticNormal(by * P, 1.3 * S.flip(0), mask),
    "gumbel_softmax": lambda mask, by=1.0: MaskedGumbelSoftmax(by * P, 1 / S, mask),
}
CLOSED = [
    ("dirichlet", "dirichlet"),
    ("dirichlet", "logistic_normal"),
    ("weibull", "gamma"),
    ("weibull", "log_normal"),
    ("log_normal", "gamma"),
    ("log_normal", "log_normal"),
    ("logistic_normal", "logistic_normal"),
]
BY_DRAW = [
    ("dirichlet", "gumbel_softmax"),
    ("logistic_normal", "dirichlet"),
    ("logistic_normal", "gumbel_softmax"),
    ("gumbel_softmax", "dirichlet"),
    ("gumbel_softmax", "gumbel_softmax"),
    ("gumbel_softmax", "logistic_normal"),
]
closed = pytest.mark.parametrize(("q", "p"), CLOSED, ids="||".join)


@closed
def test_closed_forms_match_monte_carlo(q, p, standard_errors):
    posterior, prior = QS[q](MASK), PS[p](MASK)
    value = posterior.sample((20000,))
    draws = posterior.log_prob(value) - prior.log_prob(value)
    rows = slice(None) if p in ("gamma", "log_normal") else slice(2)  # one valid entry is the whole row on the simplex
    assert standard_errors(draws[:, rows], kl_divergence(posterior, prior)[rows]) < 5
    wrong = kl_divergence(posterior, PS[p](MASK, by=1.3))
    assert standard_errors(draws[:, rows], wrong[rows]) > 5  # planted


@closed
def test_closed_forms_are_those_of_the_shorter_row(q, p):
    found = kl_divergence(QS[q](MASK), PS[p](MASK))
    whole = kl_divergence(QS[q](None), PS[p](None))
    torch.testing.assert_close(found[0], whole[0])
    assert not torch.allclose(found[1], whole[1], rtol=1e-2)  # planted: masked entries that count
    if p in ("dirichlet", "logistic_normal"):
        torch.testing.assert_close(found[2], torch.zeros_like(found[2]), atol=1e-12, rtol=0)
    nothing = torch.zeros(4, dtype=torch.bool)
    assert not kl_divergence(QS[q](nothing), PS[p](nothing)).any()


@pytest.mark.parametrize(("q", "p"), BY_DRAW, ids="||".join)
def test_where_there_is_no_closed_form_the_draw_stands_in(q, p):
    posterior, prior = QS[q](MASK), PS[p](MASK)
    with pytest.raises(NotImplementedError):
        kl_divergence(posterior, prior)
    value = posterior.sample((4000,))
    estimate = (posterior.log_prob(value) - prior.log_prob(value)).mean(0)
    assert (estimate[:2] > 0).all() and estimate[2].abs() < 1e-9


@pytest.mark.parametrize("sharpness", [1e-2, 1.0, 1e3, 1e6])
@closed
def test_closed_forms_stay_finite_in_float32(q, p, sharpness):
    phi = torch.tensor([0.0, -80.0, -40.0, -1.0]).log_softmax(-1).requires_grad_()
    sharp = torch.tensor([sharpness], requires_grad=True)
    posterior = {
        "dirichlet": lambda: MaskedDirichlet(sharp * phi.exp() + 1e-2),
        "weibull": lambda: MaskedWeibull(phi, sharp),
        "log_normal": lambda: MaskedLogNormal(phi - (1 / sharp).square() / 2, 1 / sharp),
        "logistic_normal": lambda: MaskedLogisticNormal(phi, 1 / sharp),
    }[q]()
    weights = torch.tensor([-1.0, -2.0, -3.0, -80.0])
    prior = {
        "dirichlet": lambda: MaskedDirichlet(30 * weights.exp() + 1e-2),
        "gamma": lambda: MaskedGamma(30 * weights.exp() + 1e-2, torch.tensor([30.0])),
        "log_normal": lambda: MaskedLogNormal(weights, torch.ones(1)),
        "logistic_normal": lambda: MaskedLogisticNormal(weights, torch.ones(1)),
    }[p]()
    kl = kl_divergence(posterior, prior)
    assert kl.isfinite() and (q == "dirichlet" or kl > -1e-3)
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(kl, (phi, sharp)))
