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


def extreme(q, p, phi, sharp, weights):
    """The divergence of a more or less sharp row from a prior far away, and its slopes."""
    phi, sharp = phi.requires_grad_(), sharp.requires_grad_()
    posterior = {
        "dirichlet": lambda: MaskedDirichlet(sharp * phi.exp() + 1e-2),
        "weibull": lambda: MaskedWeibull(phi, sharp),
        "log_normal": lambda: MaskedLogNormal(phi - (1 / sharp).square() / 2, 1 / sharp),
        "logistic_normal": lambda: MaskedLogisticNormal(phi, 1 / sharp),
    }[q]()
    prior = {
        "dirichlet": lambda: MaskedDirichlet(30 * weights.exp() + 1e-2),
        "gamma": lambda: MaskedGamma(30 * weights.exp() + 1e-2, weights.new_tensor([30.0])),
        "log_normal": lambda: MaskedLogNormal(weights, weights.new_ones(1)),
        "logistic_normal": lambda: MaskedLogisticNormal(weights, weights.new_ones(1)),
    }[p]()
    kl = kl_divergence(posterior, prior)
    return [each.detach().double() for each in (kl, *torch.autograd.grad(kl, (phi, sharp)))]


@pytest.mark.parametrize("sharpness", [1e-2, 1.0, 1e3, 1e6])
@closed
def test_closed_forms_in_float32_are_those_in_double_precision(q, p, sharpness):
    numbers = torch.tensor([0.0, -80.0, -40.0, -1.0]).log_softmax(-1), torch.tensor([sharpness])
    weights = torch.tensor([-1.0, -2.0, -3.0, -80.0])
    found = extreme(q, p, *(each.clone() for each in numbers), weights)
    exact = extreme(q, p, *(each.double() for each in numbers), weights.double())
    assert found[0].isfinite() and found[0] > -1e-3
    torch.testing.assert_close(found[0], exact[0], rtol=1e-5, atol=0)
    for own, other in zip(found[1:], exact[1:], strict=True):
        # a slope in the scores of Dirichlet rows is the concentration times a difference of terms near 1
        rounding = 1e-7 * sharpness if q == "dirichlet" else 0.0
        assert (own - other).abs().max() <= 1e-2 * other.abs().max() + rounding
    moved = extreme(q, p, numbers[0].double(), 2 * numbers[1].double(), weights.double())
    assert not torch.allclose(moved[0], exact[0], rtol=1e-5)  # planted: another sharpness


@pytest.mark.parametrize("p", ["dirichlet", "logistic_normal"])
def test_concentrations_that_vanish_in_float32_count_as_the_smallest(p):
    prior = MaskedDirichlet(torch.ones(3)) if p == "dirichlet" else MaskedLogisticNormal(torch.zeros(3), torch.ones(1))

    def numbers(c):
        c = torch.tensor([c, 1.0, 2.0], requires_grad=True)
        kl = kl_divergence(MaskedDirichlet(c), prior)
        return kl, *torch.autograd.grad(kl, c)

    found, least = numbers(1e-30), numbers(1e-6)
    assert all(each.isfinite().all() for each in found)
    assert all(torch.equal(*pair) for pair in zip(found, least, strict=True))
    assert not torch.equal(numbers(1e-5)[0], least[0])  # planted
