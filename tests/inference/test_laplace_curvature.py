"""The curvature in every structure against products of Jacobians that are made one output at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pyroformer.inference.laplace.affine import affine
from pyroformer.inference.laplace.diagonal import DiagonalCurvature
from pyroformer.inference.laplace.full import FullCurvature
from pyroformer.inference.laplace.functions import Functions
from pyroformer.inference.laplace.kronecker import KroneckerCurvature
from pyroformer.inference.laplace.output_hessian import exact_roots, sampled_roots
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Linear, Output, Tokens, Transformer
from pyroformer.models.likelihoods import IGNORED
from pyroformer.priors import Normal

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(5, 2, generator=GENERATOR).double()
WORDS = torch.randint(4, (5, 3), generator=GENERATOR)
LABELS = torch.randint(3, (5,), generator=GENERATOR)
TAGS = torch.tensor([[0, 1, IGNORED], [2, 2, 1], [IGNORED, 0, 0], [1, 1, 1], [0, 2, IGNORED]])


def model(net, likelihood=None):
    return BayesianModel(net.double(), Normal(), likelihood).eval().double()


def transformer(inputs=None, outputs=None, **settings):
    torch.manual_seed(0)
    return Transformer(
        inputs or Features(2, copies=2), outputs or Output(3), **{"width": 4, "heads": 2, "depth": 1, **settings}
    )


def tagger():
    return model(transformer(Tokens(4, 3), Output(3, per_token=True)), Categorical(per_token=True))


CASES = {
    "classes": lambda: (model(transformer()), X, LABELS),
    "real numbers": lambda: (model(transformer(), Gaussian(scale=0.5)), X, torch.zeros(5, 3).double()),
    "classes of tokens": lambda: (tagger(), WORDS, TAGS),
    "padded tokens": lambda: (model(transformer(Tokens(4, 3, padding=3), pool="last")), WORDS, LABELS),
    "a net of torch": lambda: (model(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3))), X, LABELS),
}


def by_hand(built, x, y, weighted=True):
    """The generalised Gauss-Newton matrix, example by example, ``[P, P]``."""
    functions = Functions(built, list(built.sites))
    total = torch.zeros(functions.size, functions.size).double()
    for index in range(len(y)):
        weights = {name: value.clone().requires_grad_() for name, value in functions.mode.items()}
        outputs = functions(weights, x[index : index + 1])[0]
        rows = []
        for output in outputs.flatten():
            gradients = torch.autograd.grad(output, list(weights.values()), retain_graph=True, allow_unused=True)
            pairs = zip(weights.values(), gradients, strict=True)
            rows.append(torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in pairs]))
        jacobian = torch.stack(rows)
        if isinstance(built.likelihood, Gaussian):
            hessian = torch.eye(len(rows)).double() / 0.5**2
        else:
            p, seen = outputs.detach().softmax(-1).view(-1, 3), (y[index] != IGNORED).view(-1)
            blocks = [(q.diag() - torch.outer(q, q)) * own for q, own in zip(p, seen, strict=True)]
            hessian = torch.block_diag(*blocks)
        total += jacobian.T @ (hessian if weighted else torch.eye(len(rows)).double()) @ jacobian
    return total


def gathered(kind, built, x, y, **settings):
    functions = Functions(built, list(built.sites))
    curvature = kind(functions, x, **settings) if kind is KroneckerCurvature else kind(functions)
    with torch.no_grad():
        for where in (slice(0, 2), slice(2, None)):
            if len(y[where]):
                outputs = functions(functions.mode, x[where])
                curvature.add(x[where], exact_roots(built.likelihood, outputs, y[where]))
    return curvature


def positions(curvature):
    """Where each weight's numbers stand in the whole matrix."""
    ends = torch.tensor([shape.numel() for shape in curvature.shapes.values()]).cumsum(0).tolist()
    return {n: slice(end - s.numel(), end) for (n, s), end in zip(curvature.shapes.items(), ends, strict=True)}


def blocks(curvature):
    """The Kronecker products themselves, by weight."""
    return {name: torch.kron(g, a) for name, (g, a) in curvature.blocks().items()}


@pytest.mark.parametrize("case", CASES)
def test_full_is_the_sum_over_examples(case):
    built, x, y = CASES[case]()
    matrix = gathered(FullCurvature, built, x, y).matrix
    torch.testing.assert_close(matrix, by_hand(built, x, y), atol=1e-8, rtol=1e-8)
    assert not torch.allclose(matrix, by_hand(built, x, y, weighted=False), rtol=0.01)  # planted: no output Hessian
    assert not torch.allclose(matrix, by_hand(built, x[1:], y[1:]), rtol=0.01)  # planted: one example less


@pytest.mark.parametrize("case", CASES)
def test_diagonal_is_its_diagonal(case):
    built, x, y = CASES[case]()
    curvature = gathered(DiagonalCurvature, built, x, y)
    found = torch.cat([value.flatten() for value in curvature.diagonal.values()])
    torch.testing.assert_close(found, by_hand(built, x, y).diagonal(), atol=1e-8, rtol=1e-8)
    assert not torch.allclose(found, by_hand(built, x[1:], y[1:]).diagonal(), rtol=0.01)  # planted


def test_sampled_scores_have_the_hessian_as_their_covariance(standard_errors):
    for likelihood, outputs, y in (
        (Categorical(), torch.tensor([[0.3, -1.0, 1.0]]), torch.zeros(1).long()),
        (Gaussian(scale=0.5), torch.zeros(1, 3), torch.zeros(1, 3)),
    ):
        exact = exact_roots(likelihood, outputs, y)[:, 0].double()
        scores = sampled_roots(likelihood, outputs, y, 20_000)[:, 0].double() * 20_000**0.5
        products = (scores.unsqueeze(-1) * scores.unsqueeze(-2)).flatten(1)
        varies = products.std(0) > 0
        hessian = (exact.T @ exact).flatten()
        assert standard_errors(products[:, varies], hessian[varies]) < 5
        assert standard_errors(products[:, varies], 1.1 * hessian[varies]) > 5  # planted: another scale


class Pooled(nn.Module):
    """One affine map of every token, then the mean over tokens, or the first of them."""

    def __init__(self, pool):
        super().__init__()
        self.pool, self.map = pool, Linear(2, 3)

    def forward(self, x):
        y = self.map(x)
        return y.mean(-2) if self.pool == "mean" else y[..., 0, :] if self.pool == "first" else y


class TestKroneckerIsExact:
    """With one term in the sum over examples and tokens, or with terms that share a factor; and with no other."""

    def compare(self, net, x, y, likelihood=None, **settings):
        torch.manual_seed(1)
        built = model(net, likelihood)
        curvature = gathered(KroneckerCurvature, built, x, y, **settings)
        whole, places = by_hand(built, x, y), positions(curvature)
        found = blocks(curvature)
        assert list(found) == list(built.sites)
        return [(found[name], whole[place, place]) for name, place in places.items()]

    def exact(self, pairs):
        return all(torch.allclose(one, two, atol=1e-12, rtol=1e-8) for one, two in pairs)

    def test_with_normal_noise(self):
        y = torch.zeros(5, 3).double()
        assert self.exact(self.compare(nn.Linear(2, 3), X, y, Gaussian(scale=0.5)))

    def test_with_one_example(self):
        assert self.exact(self.compare(nn.Linear(2, 3), X[:1], LABELS[:1]))
        assert self.exact(self.compare(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)), X[:1], LABELS[:1]))

    def test_but_not_with_several_classified(self):
        weight, bias = self.compare(nn.Linear(2, 3), X, LABELS)
        assert self.exact([bias]) and not self.exact([weight])

    def test_with_tokens_alike_each_with_a_label(self):
        tokens = X[:1].unsqueeze(1).expand(1, 4, 2)
        y, likelihood = torch.zeros(1, 4).long(), Categorical(per_token=True)
        pairs = self.compare(Pooled("none"), tokens, y, likelihood)
        assert self.exact(pairs)
        assert not self.exact([(4 * one, two) for one, two in pairs[:1]])  # planted: divided by the examples alone

    def test_with_tokens_alike_that_are_averaged(self):
        tokens = X.unsqueeze(1).expand(5, 4, 2)
        y, likelihood = torch.zeros(5, 3).double(), Gaussian(scale=0.5)
        assert self.exact(self.compare(Pooled("mean"), tokens, y, likelihood, tokens="reduce"))
        expanded = self.compare(Pooled("mean"), tokens, y, likelihood)
        assert not self.exact(expanded)  # they act together
        assert self.exact([(4 * one, two) for one, two in expanded])

    def test_with_tokens_that_are_not_seen(self):
        tokens = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(2)).double()
        y, likelihood = torch.zeros(5, 3).double(), Gaussian(scale=0.5)
        pairs = self.compare(Pooled("first"), tokens, y, likelihood)
        assert self.exact(pairs)
        assert not self.exact([(one / 4, two) for one, two in pairs])  # planted: every token a term


class TestKroneckerNormal:
    """Its algebra against the dense matrix that it stands for."""

    def both(self):
        built, x, y = CASES["classes"]()
        curvature = gathered(KroneckerCurvature, built, x, y)
        prior = {n: torch.full(s, 0.5 + 0.1 * i).double() for i, (n, s) in enumerate(curvature.shapes.items())}
        products = blocks(curvature)
        diagonal = {} if curvature.rest is None else curvature.rest.diagonal
        parts = {n: products[n] if n in products else diagonal[n].flatten().diag() for n in prior}
        dense = torch.block_diag(*(part + prior[n].flatten().diag() for n, part in parts.items()))
        return curvature, curvature.normal(prior), dense

    def test_the_log_determinant(self):
        curvature, normal, dense = self.both()
        assert float(normal.log_det) == pytest.approx(float(torch.logdet(dense)), rel=1e-10)
        products = blocks(curvature)
        alone = sum(float(torch.logdet(p + 0.5 * torch.eye(len(p)))) for p in products.values())
        assert float(normal.log_det) != pytest.approx(alone, rel=1e-3)  # planted: one prior, and no diagonal blocks

    def test_the_variances(self):
        _, normal, dense = self.both()
        found = normal.variances()
        flat = torch.cat([found[name].flatten() for name in normal.shapes])
        torch.testing.assert_close(flat, dense.inverse().diagonal())
        assert not torch.allclose(flat, dense.diagonal().reciprocal(), rtol=0.01)  # planted: of the conditionals

    def test_the_variance_of_linear_functions(self):
        _, normal, dense = self.both()
        rows = torch.randn(6, len(dense), generator=torch.Generator().manual_seed(3)).double()
        parts = rows.split([shape.numel() for shape in normal.shapes.values()], -1)
        jacobian = {n: p.view(2, 3, *s) for (n, s), p in zip(normal.shapes.items(), parts, strict=True)}
        expected = (rows @ dense.inverse() * rows).sum(-1).view(2, 3)
        torch.testing.assert_close(normal.projected(jacobian), expected)

    def test_the_draws(self, standard_errors):
        _, normal, dense = self.both()
        torch.manual_seed(5)
        drawn = normal.draw(3000)
        rows = torch.randn(8, len(dense), generator=torch.Generator().manual_seed(4)).double()
        along = torch.cat([drawn[name].flatten(1) for name in normal.shapes], 1) @ rows.T
        products = along.unsqueeze(-1) * along.unsqueeze(-2)
        assert standard_errors(products, rows @ dense.inverse() @ rows.T) < 5
        assert standard_errors(products, rows @ rows.T) > 5  # planted: the prior alone


class TestAffineMaps:
    """Only weights whose gradient comes through affine maps alone have Kronecker factors."""

    def found(self, net, x=X):
        built = model(net)
        return affine(Functions(built, list(built.sites)), x[:2])

    def test_of_our_transformer(self):
        maps = ("query", "key", "value", "output", "up", "down", "head")
        names = {name for name in dict(transformer().named_parameters()) if name.split(".")[-2:][0] in maps}
        assert set(self.found(transformer())) == names and len(names) == 14
        assert "embedding.project.weight" not in names

    def test_of_torchs_encoder_but_for_its_attention(self):
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        names = self.found(layer, torch.randn(2, 3, 4).double())
        assert names == ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]

    def test_not_of_a_weight_with_another_use(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(4, 3)
                self.middle = nn.Linear(3, 3)

            def forward(self, x):
                return F.linear(self.middle(self.table(x).mean(1)), self.table.weight)

        assert self.found(Tied(), WORDS) == ["middle.weight", "middle.bias"]
