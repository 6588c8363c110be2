"""Row correlation against permuted matrices: planted ones are found, and independent entries give uniform p-values."""

import pytest
import torch

from pyroformer.weight_study.correlation import (
    heads_as_rows,
    mean_absolute_correlation,
    permuted,
    row_correlation,
)


def correlated(rho, rows=12, columns=40, seed=0):
    """Rows with the correlation ``rho`` in pairs."""
    generator = torch.Generator().manual_seed(seed)
    shared, own = (torch.randn(n, columns, generator=generator, dtype=torch.float64) for n in (1, rows))
    return rho**0.5 * shared + (1 - rho) ** 0.5 * own


def test_the_statistic_is_that_of_the_correlation_matrix():
    matrix = correlated(0.4)
    by_hand = torch.corrcoef(matrix).abs()
    by_hand = (by_hand.sum() - 12) / (12 * 11)
    assert float(mean_absolute_correlation(matrix)) == pytest.approx(float(by_hand))
    assert float(mean_absolute_correlation(matrix.mT)) != pytest.approx(float(by_hand))  # planted: columns
    assert torch.equal(mean_absolute_correlation(torch.ones(3, 4, 5)), torch.zeros(3))


def test_a_planted_correlation_is_found():
    found = row_correlation([correlated(0.5, columns=2000, seed=s) for s in range(8)])
    values = torch.stack([mean_absolute_correlation(correlated(0.5, columns=2000, seed=s)) for s in range(8)])
    assert abs(found.statistic - 0.5) < 5 * float(values.std()) / 8**0.5
    assert found.z > 50 and found.p == 0.01
    columns = row_correlation([correlated(0.5, columns=200, seed=s).mT for s in range(4)])
    assert abs(columns.z) < 5  # what all entries of a row share is no correlation of rows
    faint = row_correlation([correlated(0.15, seed=s) for s in range(8)])
    assert faint.z > 5 and faint.statistic < 0.3


def test_independent_entries_have_uniform_p_values():
    found = [row_correlation([correlated(0.0, 8, 20, seed=s)], permutations=39, seed=s) for s in range(200)]
    p = torch.tensor([one.p for one in found])
    z = torch.tensor([one.z for one in found])
    rate = float((p <= 0.1).double().mean())
    assert abs(rate - 0.1) < 5 * (0.1 * 0.9 / 200) ** 0.5
    assert abs(float(p.mean()) - 0.5125) < 5 * (1 / 12 / 200) ** 0.5  # of the multiples of 1/40
    assert abs(float(z.mean())) < 5 * float(z.std()) / 200**0.5
    planted = [row_correlation([correlated(0.25, 8, 20, seed=s)], permutations=39, seed=s).p for s in range(100)]
    assert abs(sum(p <= 0.1 for p in planted) / 100 - 0.1) > 5 * (0.1 * 0.9 / 100) ** 0.5


def test_permutations_keep_the_entries_of_each_matrix():
    matrix = torch.arange(12.0).view(3, 4)
    copies = permuted(matrix, 20, torch.Generator().manual_seed(0))
    assert copies.shape == (20, 3, 4)
    assert all(torch.equal(copy.flatten().sort().values, matrix.flatten()) for copy in copies)
    assert not torch.equal(copies[0], copies[1])


def test_heads_own_outputs_or_inputs():
    matrix = torch.arange(24.0).view(4, 6)
    assert torch.equal(heads_as_rows(matrix, 2)[0], matrix[:2].flatten())
    assert torch.equal(heads_as_rows(matrix, 3, inputs=True)[1], matrix[:, 2:4].mT.flatten())


def test_what_is_too_small_has_no_correlation():
    assert row_correlation([]) is None
    assert row_correlation([torch.randn(1, 9), torch.randn(4, 2)]) is None
    assert row_correlation([torch.ones(3, 5)]) is None
