"""Values outside a support are moved a little inside; the others stay."""

import pytest
import torch
from torch.distributions import biject_to, constraints

from pyroformer.priors.support import moved_inside

VALUE = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 7.0])


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        (constraints.real, [-3.0, -1.0, 0.0, 0.5, 1.0, 7.0]),
        (constraints.interval(-1.0, 1.0), [-0.98, -0.98, 0.0, 0.5, 0.98, 0.98]),
        (constraints.interval(torch.full((6,), -1.0), torch.full((6,), 1.0)), [-0.98, -0.98, 0.0, 0.5, 0.98, 0.98]),
        (constraints.independent(constraints.unit_interval, 1), [0.01, 0.01, 0.01, 0.5, 0.99, 0.99]),
        (constraints.positive, [0.01, 0.01, 0.01, 0.5, 1.0, 7.0]),
        (constraints.nonnegative, [0.01, 0.01, 0.01, 0.5, 1.0, 7.0]),
        (constraints.less_than(1.0), [-3.0, -1.0, 0.0, 0.5, 0.99, 0.99]),
    ],
    ids=str,
)
def test_moved_inside(support, expected):
    found = moved_inside(VALUE, support)
    torch.testing.assert_close(found, torch.tensor(expected))
    free = biject_to(support).inv(found)
    assert torch.isfinite(free).all() and free.abs().max() < 8
