"""How far draws are from what is known, and random numbers with planted errors."""

from types import SimpleNamespace

import pytest
import scipy.stats
import torch


@pytest.fixture
def excess():
    r"""The largest distance of means from what they should be, as a share of the most that chance explains.

    Standard errors are those of batch means, so that nothing is assumed about how draws depend on each other within a
    batch: with :math:`n` batches, a distance over its standard error is one of Student's :math:`t_{n - 1}`. Its
    quantile, at a level shared by all means (Bonferroni), is the bound.
    """

    def measured(values, expected, error=0.0, batches=1, level=1e-4):
        """Of values ``[K, S, M]`` with ``batches`` for each chain; ``error`` is that of what is expected, ``[M]``."""
        _, draws, count = values.shape
        parts = values[:, : draws // batches * batches].double().unflatten(1, (batches, -1))
        means = parts.mean(2).flatten(0, 1)
        spread = (means.var(0) / len(means) + torch.as_tensor(error) ** 2).sqrt()
        distance = ((means.mean(0) - expected).abs() / spread).nan_to_num(torch.inf)
        return float(distance.max()) / scipy.stats.t.ppf(1 - level / 2 / count, len(means) - 1)

    return measured


@pytest.fixture
def planted(together):
    """Random numbers of many chains: right ones, and with an error each."""

    class Accepting(together):
        """Every end is taken."""

        def uniform(self):
            return torch.zeros(len(self.own), dtype=torch.float64)

    class Unrefreshed(together):
        """Momenta that are drawn once, and only turned a little afterwards."""

        def normal(self, like):
            drawn = super().normal(like)
            self.kept = 0.96 * self.kept + 0.28 * drawn if hasattr(self, "kept") else drawn
            return self.kept

    class Weak(together):
        """Momenta that are too small."""

        def normal(self, like):
            return 0.8 * super().normal(like)

    return SimpleNamespace(none=together, accepting=Accepting, unrefreshed=Unrefreshed, weak=Weak)
