"""The law of one transition of NUTS, by enumeration of its trees, against what the papers say; and with errors planted.

Where the points of a trajectory are given, with their energies and momenta, all that is random is which way trees grow
and which points are kept: few decisions, each with a known probability, so that the law is computed, not estimated.
"""

import math
from types import SimpleNamespace

import pytest
import scipy.stats
import torch

from pyroformer.inference.samplers import Chains, NUTSKernel
from pyroformer.inference.samplers.nuts import Point, Walk, apart

DEPTH, REACH = 3, 24
EXACT = 1e-9


class Coin:
    """A uniform number that is only asked whether it is below a probability: a script decides, and keeps the odds."""

    def __init__(self, script):
        self.script, self.made, self.probability, self.others = script, [], 1.0, []

    def __call__(self):
        return self

    def __lt__(self, probability):
        taken = probability > 0
        if len(self.made) < len(self.script):
            taken = self.script[len(self.made)]
        elif 0 < probability < 1:
            self.others.append([*self.made, False])
        self.probability *= probability if taken else 1 - probability
        self.made.append(taken)
        return taken


class Orbit:
    """The points of a trajectory: momenta ``[N, 2]`` and energies ``[N]``; what a tree sees of a density.

    Momenta turn by ``angle`` from one point to the next, about; energies are drawn with the spread ``spread``.
    """

    def __init__(self, seed, angle, spread, broken=()):
        generator = torch.Generator().manual_seed(seed)
        count = 2 * REACH + 1
        turn = angle * (0.6 + 0.8 * torch.rand(count, generator=generator, dtype=torch.float64))
        size = 0.7 + 0.6 * torch.rand(count, generator=generator, dtype=torch.float64)
        phase = turn.cumsum(0)
        self.momenta = torch.stack([size * phase.cos(), 2 * size * phase.sin()], -1)
        self.energies = (spread * torch.randn(count, generator=generator, dtype=torch.float64)).tolist()
        for index, energy in broken:
            self.energies[REACH + index] = energy
        self.inverse_mass = torch.tensor([1.0, 0.25], dtype=torch.float64)
        self.points = [
            Point(torch.tensor([float(i)]), momentum, self.inverse_mass * momentum, None, None, energy)
            for i, (momentum, energy) in enumerate(zip(self.momenta, self.energies, strict=True))
        ]

    def moved(self, end, forward):
        return self.points[int(end.z) + (1 if forward else -1)]


ORBITS = {
    "straight": Orbit(0, 0.12, 1.0),
    "turning": Orbit(1, 0.9, 1.0),
    "turning, uneven": Orbit(2, 0.9, 3.0),
    "turning at once": Orbit(1, 2.0, 0.5),
    "overshooting": Orbit(1, 1.8, 0.5),
    "ending": Orbit(4, 0.2, 0.5, broken=[(4, 5000.0), (-6, math.nan), (9, math.inf)]),
}
STARTS = (-4, -1, 0, 2, 3)


class Record:
    """The probability of every point, and the expected steps, divergences and sum of acceptance probabilities."""

    def __init__(self):
        self.points = torch.zeros(2 * REACH + 1, dtype=torch.float64)
        self.steps = self.divergent = self.accepted = 0.0

    def difference(self, other):
        counts = [abs(getattr(self, each) - getattr(other, each)) for each in ("steps", "divergent", "accepted")]
        return max(float((self.points - other.points).abs().max()), *counts)


def law_of_ours(orbit, start, monkeypatch, depth=DEPTH):
    """What the code does, all decisions enumerated."""
    monkeypatch.setattr(Walk, "moved", lambda walk, end, forward: orbit.moved(end, forward))
    point, record, pending = orbit.points[REACH + start], Record(), [[]]
    while pending:
        coin = Coin(pending.pop())
        walk = Walk(None, 1.0, orbit.inverse_mass, point.energy, coin)
        tree, _ = NUTSKernel(max_tree_depth=depth)._walk(walk, point)
        pending += coin.others
        record.points[int(tree.chosen.z)] += coin.probability
        record.steps += coin.probability * (tree.points - 1)
        record.divergent += coin.probability * tree.divergent
        record.accepted += coin.probability * (tree.accepted - 1)
    return record


class Papers:
    """The law as Hoffman and Gelman (2014), Betancourt (2017) and Stan's note on seams have it, over indices."""

    def __init__(self, orbit, start):
        self.orbit, self.start = orbit, REACH + start

    def excess(self, i):
        return self.orbit.energies[i] - self.orbit.energies[self.start]

    def weight(self, lo, hi):
        return sum(math.exp(-self.excess(i)) for i in range(lo, hi + 1))

    def apart(self, lo, hi):
        total = self.orbit.momenta[lo : hi + 1].sum(0)
        return all(float((total * self.orbit.inverse_mass * self.orbit.momenta[i]).sum()) > 0 for i in (lo, hi))

    def turned(self, lo, hi):
        """By the ends, and by the halves with one point of the other."""
        middle = (lo + hi) // 2
        seams = hi - lo == 1 or (self.apart(lo, middle + 1) and self.apart(middle, hi))
        return not (self.apart(lo, hi) and seams)

    def diverged(self, i):
        return not self.excess(i) <= 1000

    def stopped(self, lo, hi):
        """Whether a new tree turned or diverged, in any of its parts."""
        if lo == hi:
            return self.diverged(lo)
        middle = (lo + hi) // 2
        return self.stopped(lo, middle) or self.stopped(middle + 1, hi) or self.turned(lo, hi)

    def visited(self, lo, hi, forward):
        """The points that are evaluated until the tree is known to stop."""
        if lo == hi:
            return [lo]
        middle = (lo + hi) // 2
        near, far = ((lo, middle), (middle + 1, hi)) if forward else ((middle + 1, hi), (lo, middle))
        return self.visited(*near, forward) + ([] if self.stopped(*near) else self.visited(*far, forward))

    def law(self, depth=DEPTH):
        record = Record()
        self._grow(self.start, self.start, depth, 1.0, {self.start: 1.0}, [], record)
        return record

    def _grow(self, lo, hi, depth, chance, odds, seen, record):
        if depth == 0:
            return self._end(chance, odds, seen, record)
        for forward in (True, False):
            new = (hi + 1, 2 * hi - lo + 1) if forward else (2 * lo - hi - 1, lo - 1)
            visited = seen + self.visited(*new, forward)
            if self.stopped(*new):
                self._end(chance / 2, odds, visited, record)
                continue
            weight = self.weight(*new)
            taken = min(1.0, weight / self.weight(lo, hi))
            moved = {i: (1 - taken) * share for i, share in odds.items()}
            moved |= {i: taken * self.weight(i, i) / weight for i in range(new[0], new[1] + 1)}
            ends = min(lo, new[0]), max(hi, new[1])
            if self.turned(*ends):
                self._end(chance / 2, moved, visited, record)
            else:
                self._grow(*ends, depth - 1, chance / 2, moved, visited, record)

    def _end(self, chance, odds, seen, record):
        for i, share in odds.items():
            record.points[i] += chance * share
        record.steps += chance * len(seen)
        record.divergent += chance * any(self.diverged(i) for i in seen)
        record.accepted += chance * sum(math.exp(min(0.0, -e)) for i in seen if (e := self.excess(i)) == e)


@pytest.mark.parametrize("name", ORBITS)
def test_the_law_is_that_of_the_papers(name, monkeypatch):
    orbit, fewer = ORBITS[name], []
    for start in STARTS:
        papers = Papers(orbit, start).law()
        assert abs(float(papers.points.sum()) - 1) < EXACT
        assert law_of_ours(orbit, start, monkeypatch).difference(papers) < EXACT
        fewer.append(law_of_ours(orbit, start, monkeypatch, depth=2).difference(papers))
    assert max(fewer) > 1e-3  # planted: one doubling fewer


def test_orbits_are_of_every_kind():
    """Full trees, trees that end by a turn, at once and late, and trees that diverge."""
    laws = {name: [Papers(orbit, start).law() for start in STARTS] for name, orbit in ORBITS.items()}
    assert all(law.steps == 7 and law.divergent == 0 for law in laws["straight"])
    steps = [law.steps for name in ("turning", "turning, uneven", "overshooting") for law in laws[name]]
    assert set(steps) == {3, 4, 5, 6, 7} and min(law.steps for law in laws["turning at once"]) == 1
    assert all(0 < law.divergent < 1 for law in laws["ending"])


def unbalanced(orbit, monkeypatch, starts=(-3, -1, 0, 1, 2)):
    r"""The largest violation of :math:`w_i P(i \to j) = w_j P(j \to i)`, with weights that sum to 1 over the starts."""
    laws = {i: law_of_ours(orbit, i, monkeypatch).points for i in starts}
    energies = torch.tensor([orbit.energies[REACH + i] for i in starts], dtype=torch.float64)
    weights = torch.softmax(-energies.nan_to_num(math.inf), 0).tolist()
    flow = {(i, j): w * float(laws[i][REACH + j]) for i, w in zip(starts, weights, strict=True) for j in starts}
    return max(abs(flow[i, j] - flow[j, i]) for i, j in flow)


@pytest.mark.parametrize("name", ["turning, uneven", "turning at once", "overshooting", "ending"])
def test_it_is_in_detailed_balance(name, monkeypatch):
    assert unbalanced(ORBITS[name], monkeypatch) < EXACT


plainly_joined = Walk.joined


def without_seams(self, near, far, forward, biased):
    tree = plainly_joined(self, near, far, forward, biased)
    tree.going = far.going and apart(tree.first, tree.last, tree.momentum)
    return tree


def behind_turns(self, near, far, forward, biased):
    """Points of trees that have turned can be taken."""
    going, far.going = far.going, not far.divergent
    tree = plainly_joined(self, near, far, forward, biased)
    tree.going = tree.going and going
    return tree


def asked_at_the_top(self, near, far, forward, biased):
    """Subtrees may turn."""
    tree = plainly_joined(self, near, far, forward, biased)
    tree.going = tree.going if biased else near.going and far.going
    return tree


def always_biased(self, near, far, forward, biased):
    return plainly_joined(self, near, far, forward, True)


@pytest.mark.parametrize("wrong", [behind_turns, asked_at_the_top, always_biased])
def test_planted_trees_are_not_in_balance(wrong, monkeypatch):
    monkeypatch.setattr(Walk, "joined", wrong)
    assert unbalanced(ORBITS["turning"], monkeypatch) > 1e-3


def test_without_seams_it_is_another_sampler_in_balance(monkeypatch):
    """The law sees the seams; balance cannot: what they prevent is running in circles."""
    monkeypatch.setattr(Walk, "joined", without_seams)
    orbit = ORBITS["overshooting"]  # 4 points that face each other, of which 3 do not
    differences = [law_of_ours(orbit, i, monkeypatch).difference(Papers(orbit, i).law()) for i in STARTS]
    assert max(differences) > 1e-3
    assert unbalanced(orbit, monkeypatch) < EXACT


def circles():
    r"""Mean steps on 200 independent normal numbers, of steps that turn all of them by 0.9.

    With :math:`z \cdot r = 0` and :math:`|z| = |r|`, which many dimensions see to, the criterion of :math:`n` points
    has the sign of :math:`\sin(n \theta / 2) \cos((n - 1) \theta / 2)`: at :math:`\theta = 0.9` it is positive for 2,
    4, 8, 16, 32 and 64 points, so doublings see no turn, though half a circle is 3.5 points. Of the 5 points across the
    seam of 8 it is negative.
    """
    step = 2 * math.sin(0.45)

    def density(z):
        return -0.5 * z.square().sum(-1), -z

    start = torch.randn(6, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chains = Chains(density, NUTSKernel(max_tree_depth=6), start, warmup_steps=0, step_size=step)
    return float(torch.stack([chains.step().transition.steps for _ in range(3)]).double().mean())


def test_it_does_not_run_in_circles(monkeypatch):
    signs = {n: math.sin(0.45 * n) * math.cos(0.45 * (n - 1)) for n in (2, 4, 5, 8, 16, 32, 64)}
    assert all((value > 0) == (n != 5) for n, value in signs.items())
    assert circles() < 8
    monkeypatch.setattr(Walk, "joined", without_seams)
    assert circles() > 40  # planted


def one_transition(correlated, count=500):
    """Where chains in exact draws of a density are after one transition, whitened, with their squared norms."""
    chains = Chains(correlated, NUTSKernel(), correlated.draws(count), warmup_steps=0, step_size=1.15)
    chains.step()
    root = torch.linalg.cholesky(correlated.covariance)
    return torch.linalg.solve_triangular(root, (chains.position.z - correlated.mean).T, upper=False)


def p_value(white):
    """By Kolmogorov and Smirnov: of every whitened number, and of the squared norms; the least times their number."""
    found = [scipy.stats.kstest(row.numpy(), "norm").pvalue for row in white]
    found.append(scipy.stats.kstest(white.square().sum(0).numpy(), "chi2", args=(len(white),)).pvalue)
    return min(found) * len(found)


def test_the_distribution_stays_after_one_transition(correlated, monkeypatch):
    white = one_transition(correlated)
    assert p_value(white) > 1e-4
    assert p_value(1.3 * white) < 1e-4  # planted: another density
    plain = Walk.leaf

    def unweighted(self, point):
        tree = plain(self, point)
        tree.log_weight = 0.0
        return tree

    monkeypatch.setattr(Walk, "leaf", unweighted)
    assert p_value(one_transition(correlated)) < 1e-4  # planted


def wall(z):
    """Flat up to 2.5 from the origin, where a cliff begins: momenta stay, so that trees only end there."""
    return torch.where((z.abs() > 2.5).any(-1), -1e5, 0.0).to(z), torch.zeros_like(z)


def test_divergences_are_counted_where_they_are_met():
    """From 0 in steps of 1: two doublings meet the cliff, at 3 or -3, if both go the same way, so half of the time."""
    count = 400
    chains = Chains(wall, NUTSKernel(max_tree_depth=2), torch.zeros(count, 1).double(), warmup_steps=0, step_size=1.0)
    chains.streams = SimpleNamespace(own=chains.streams.own, normal=torch.ones_like)
    transition, z = chains.step().transition, chains.position.z.squeeze(-1)
    diverged = transition.divergent
    assert abs(float(diverged.double().mean()) - 0.5) < 5 * (0.25 / count) ** 0.5
    assert (transition.steps == 3).all() and (z.abs() <= 2).all()
    assert torch.allclose(transition.acceptance, torch.where(diverged, 2 / 3, 1.0).double())
    assert (transition.depth == 2).all() and (transition.energy == 0.5).all()
    # points of one weight: a doubling always moves on, but a tree that met the cliff is left out as a whole
    assert (z[diverged].abs() == 1).all()
    assert abs(float((z[~diverged].abs() == 2).double().mean()) - 0.5) < 5 * (0.25 / int((~diverged).sum())) ** 0.5
