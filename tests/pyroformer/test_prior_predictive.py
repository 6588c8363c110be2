"""What a prior believes: against closed forms, and as a command."""

import json
import math

import pytest
import torch
from torch import nn

from pyroformer import Spec, Task, prior_predictive
from pyroformer.beliefs.classes import class_beliefs
from pyroformer.beliefs.reals import real_beliefs
from pyroformer.beliefs.rows import RowEntropies, TokenSizes
from pyroformer.choices import SpecError
from pyroformer.help.terminal import as_text
from pyroformer.priors import Cauchy, Fixed, Improper, Learned, Normal

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
DIGITS = {"task": {"digits": {"train": 60, "validation": 40}}, "model": NET}
SMALL = {"num_samples": 40, "num_inputs": 20}


def flags(found):
    return [flag.partition(":")[0] for flag in found.flags]


def near(found, expected, error):
    return abs(found - expected) < 5 * error


class TestLinear:
    """A linear net of normal weights: everything is known."""

    def found(self, scale=0.5, classes=4, **more):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(50, 3, generator=generator)
        y = torch.arange(50) % classes if classes else x[:, :1]
        task = Task.from_arrays(x, y, x[:5], y[:5], x, y)
        return x.double(), prior_predictive(
            Spec(task=task, model=nn.Linear(3, classes or 1), prior=Normal(scale=scale)), **more
        )

    def test_logits_have_the_variance_of_their_sum(self):
        x, found = self.found(num_samples=2000)
        by_hand = 0.5 * (x.square().sum(-1) + 1).mean().sqrt()
        error = by_hand * (0.5 / (2000 * 4)) ** 0.5 * 2  # of 8,000 functions of 4 weights: the sd of a chi, doubled
        assert near(found.beliefs.draw_sd, by_hand, error)
        assert near(found.beliefs.logit_sd, by_hand, error)
        assert not near(found.beliefs.draw_sd, 0.5 * x.square().sum(-1).mean().sqrt(), error)  # planted: no bias

    def test_the_share_over_inputs_is_that_of_their_covariance(self):
        x, found = self.found(num_samples=2000)
        within = x.var(0, correction=0).sum()
        by_hand = within / (within + x.mean(0).square().sum() + 1)
        assert near(found.beliefs.over_inputs, by_hand, 0.01)
        assert not near(
            found.beliefs.over_inputs, within / (within + x.mean(0).square().sum()), 0.01
        )  # planted: no bias
        assert found.num_inputs == 50 and found.inputs == "validation" and found.attention == ()

    def test_entropy_goes_from_log_classes_to_zero(self):
        _, narrow = self.found(scale=1e-3, **SMALL)
        _, wide = self.found(scale=1e3, **SMALL)
        assert narrow.beliefs.entropy[2] == pytest.approx(math.log(4), rel=1e-4)
        assert wide.beliefs.entropy[2] < 1e-3
        assert "undecided" in flags(narrow) and "saturated" not in flags(narrow)
        assert "saturated" in flags(wide) and "undecided" not in flags(wide)

    def test_a_regression_knows_its_spread(self):
        x, found = self.found(classes=0, num_samples=2000)
        by_hand = 0.5 * (x.square().sum(-1) + 1).mean().sqrt()
        assert near(found.beliefs.sd, by_hand, by_hand * (0.5 / 2000) ** 0.5 * 2)
        assert found.beliefs.observed_sd == pytest.approx(float(x[:, 0].std()), rel=1e-4)
        assert "wide" in flags(self.found(scale=30.0, classes=0, **SMALL)[1])
        assert "narrow" in flags(self.found(scale=1e-3, classes=0, **SMALL)[1])


def test_constants_are_found():
    logits = torch.randn(60, 1, 3).expand(60, 30, 3).clone()
    found = class_beliefs(logits)
    assert (found.constant, found.over_inputs) == (1.0, 0.0)
    logits[:30, :3] = -logits[:30, :3] * 5  # half of the functions change their mind for a tenth of the inputs
    assert class_beliefs(logits).constant == 0.5 and class_beliefs(logits).over_inputs > 0
    assert torch.allclose(class_beliefs(logits).top_share[:30], torch.tensor(0.9).double())


def test_smoothness_is_known_of_lines_waves_and_noise():
    x = torch.linspace(0, 1, 200).double()[torch.randperm(200)]
    line, wave = x.view(1, -1, 1) * torch.tensor([1.0, -2.0]).view(2, 1, 1), torch.sin(6 * math.pi * x).view(1, -1, 1)
    assert real_beliefs(line, x, x).turns == 0
    assert real_beliefs(line, x, x).roughness == pytest.approx(12 * 199 / (200 * (200**2 - 1)), rel=1e-6)
    assert real_beliefs(wave, x, x).turns == 6
    noise = real_beliefs(torch.randn(50, 200, 1), x, x)
    assert noise.roughness == pytest.approx(2, abs=5 * 2 / (50 * 200) ** 0.5)
    assert noise.turns == pytest.approx(2 / 3 * 198, rel=0.03)
    assert real_beliefs(line, x).turns is None


class TestRows:
    def test_rows_of_equal_scores_have_the_entropy_log_t(self):
        seen = RowEntropies()
        seen("rows", torch.zeros(3, 2, 4, 6, 6).softmax(-1), None)
        (rows,) = seen.result()
        assert rows.entropy == pytest.approx([math.log(6)] * 4, abs=1e-6)
        assert rows.most == pytest.approx(math.log(6)) and rows.uniform == (1.0,) * 4 and rows.one_hot == (0.0,) * 4
        assert rows.entropy[0] != pytest.approx(math.log(5), abs=1e-2)  # planted: a key forgotten

    def test_one_hot_rows_have_none(self):
        seen = RowEntropies()
        seen("rows", torch.eye(6).expand(2, 4, 6, 6), None)
        (rows,) = seen.result()
        assert rows.entropy == (0.0,) * 4 and rows.one_hot == (1.0,) * 4

    def test_only_valid_keys_count(self):
        mask = torch.ones(4, 4, dtype=torch.bool).tril()
        rows = mask / mask.sum(-1, keepdim=True)
        seen = RowEntropies()
        seen("rows", rows.expand(2, 1, 4, 4), mask)
        (found,) = seen.result()
        assert found.relative == pytest.approx([1.0])  # the first query sees one key, and is left out
        assert found.entropy == pytest.approx([(math.log(2) + math.log(3) + math.log(4)) / 3])
        unmasked = RowEntropies()
        unmasked("rows", rows.expand(2, 1, 4, 4), None)  # planted: the mask ignored
        assert unmasked.result()[0].relative[0] < 0.7

    def test_parts_add_up_and_heads_stay_apart(self):
        rows = torch.stack([torch.eye(5), torch.full((5, 5), 0.2)])  # [H, T, T]
        seen = RowEntropies()
        for count in (2, 3):
            seen("rows", rows.expand(count, 1, 2, 5, 5), None)
        (found,) = seen.result()
        assert found.relative == pytest.approx([0.0, 1.0])

    def test_sizes_are_root_mean_squares(self):
        seen = TokenSizes()
        seen("blocks.0", torch.full((3, 2, 4, 5), 2.0))
        seen("blocks.0", torch.full((1, 2, 4, 5), 6.0))
        (size,) = seen.result()
        assert (size.median, size.high) == pytest.approx((2.0, 5.4))


class TestTransformer:
    def found(self, scale, **more):
        return prior_predictive(Spec(**{**DIGITS, "prior": {"normal": {"scale": scale}}, **more}), **SMALL)

    def test_tiny_weights_collapse_and_large_ones_saturate(self):
        tiny, large = self.found(1e-3), self.found(10.0)
        assert {"collapses", "undecided", "attention is uniform"} <= set(flags(tiny))
        assert {"saturated", "attention is one-hot"} <= set(flags(large))
        assert not {"saturated", "attention is one-hot"} & set(flags(tiny))
        assert not {"undecided", "attention is uniform"} & set(flags(large))
        assert tiny.attention[0].relative == pytest.approx([1.0, 1.0], abs=1e-6)
        assert [size.name for size in tiny.tokens] == ["embedding", "blocks.0"]
        assert tiny.tokens[0].median < 0.01 < 1 < large.tokens[1].median

    def test_priors_that_collapse_elsewhere_are_told_apart(self):
        narrow, wide = self.found(0.1), self.found(1.0)
        assert narrow.beliefs.logit_sd < 0.2 * wide.beliefs.logit_sd
        assert narrow.beliefs.mean_entropy > wide.beliefs.mean_entropy + 0.5
        assert narrow.attention[0].relative[0] > wide.attention[0].relative[0] + 0.2

    def test_the_same_spec_gives_the_same_numbers(self):
        assert self.found(0.5).to_dict() == self.found(0.5).to_dict()
        assert self.found(0.5).to_dict() != self.found(0.5, seed=1).to_dict()
        double = self.found(0.5, driver={"svi": {"dtype": "float64"}})
        assert 0 < double.beliefs.mean_entropy < math.log(10)

    def test_drawn_rows_and_learned_weights(self):
        rows = {"*.rows": {"dirichlet_rows": {"center": "matched_uniform", "concentration": 16000}}, "*": "learned"}
        found = prior_predictive(Spec(**{**DIGITS, "prior": rows}), **SMALL)
        assert found.attention[0].uniform == (1.0, 1.0)
        assert len(found.at_their_start["learned"]) == 23 and "fixed" not in found.at_their_start
        assert "23 learned parameters are taken at their start" in str(found)
        both = prior_predictive(
            Spec(**{**DIGITS, "prior": {"head.*": Normal(), "position": Fixed(), "*": Learned()}}), **SMALL
        )
        assert both.at_their_start["fixed"] == ("position",)
        assert "1 fixed parameter (position) is taken at its start" in str(both)

    @pytest.mark.parametrize(
        ("prior", "said"),
        [
            (Improper(), "a flat prior of position, embedding.project.weight, embedding.project.bias and 20 more"),
            ({"head.*": Improper(), "*": Normal()}, "a flat prior of head.weight, head.bias;"),
            (Learned(), "prior: got learned or fixed weights alone; accepted: a prior of at least one weight"),
        ],
    )
    def test_what_has_no_predictive_is_refused(self, prior, said):
        with pytest.raises(SpecError, match=said):
            prior_predictive(Spec(**{**DIGITS, "prior": prior}))

    def test_it_fits_a_narrow_terminal_and_is_json(self):
        found = self.found(1.0)
        text = as_text(found, 80)
        assert max(map(len, text.splitlines())) <= 80
        assert all(
            word in text for word in ("of log C = 2.303 nats", "log T is 2.773 nats", "blocks.0", "flagged below")
        )
        content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert content["flags"] == list(found.flags) and content["beliefs"]["classes"] == 10
        assert content["attention"][0]["name"] == "blocks.0.attention.rows"


def test_few_numbers_are_refused():
    for name in SMALL:
        with pytest.raises(SpecError, match=f"{name}: got 1; accepted: a whole number of at least 2"):
            prior_predictive(Spec(task="toy_regression"), **{name: 1})


def centred(driver, **spec):
    spec = {**DIGITS, "prior": {"head.*": "pretrained", "*": "normal"}, **spec}
    found = prior_predictive(Spec(**spec, driver=driver), **SMALL)
    return next((flag for flag in found.flags if "centred on" in flag), None)


def test_a_prior_around_the_net_says_which_net():
    here = "the prior of 2 weights is centred on the net's random start"
    start = {"ml": {"epochs": 1}}
    moved = f"{here}; the fit centres it on the net that `start` trains"
    assert centred({"svi": {"start": start}}) == moved
    assert centred({"deep_ensemble": {"member": {"svi": {"start": start}}}}) == moved
    assert centred("svi") == here  # the fit has the same
    assert centred({"laplace": {"start": {"map": {"epochs": 1}}}}) == here  # what goes on from a net keeps its prior
    assert centred({"svi": {"start": start}}, prior="normal") is None
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    own = centred("svi", model=net, prior={"1.weight": "pretrained", "*": "normal"})
    assert own == "the prior of 1.weight is centred on the net's weights as they were given"


def test_learned_hyperparameters_have_their_own_names():
    prior = {"head.weight": {"empirical_bayes": {"group": "g"}}, "head.bias": "empirical_bayes", "*": "normal"}
    found = prior_predictive(Spec(**DIGITS, prior=prior), **SMALL)
    assert set(found.at_their_start["learned"]) == {"g_log_scale", "head.bias_log_scale"}


def linear_spec(prior):
    """A linear net on one input: it overflows where its weights do."""
    x = torch.ones(8, 1)
    task = Task.from_arrays(x, torch.arange(8.0).unsqueeze(1), x, torch.arange(8.0).unsqueeze(1))
    return Spec(task=task, model=nn.Linear(1, 1, bias=False), prior=prior)


def test_functions_that_overflow_are_counted_and_left_out():
    found = prior_predictive(linear_spec(Cauchy(scale=1e38)), num_samples=400, num_inputs=8)
    # |w| > 3.4e38 has probability 1 - 2 arctan(3.4) / pi = 0.182
    share = 1 - 2 * math.atan(torch.finfo(torch.float32).max / 1e38) / math.pi
    assert near(found.overflowing / 400, share, math.sqrt(share * (1 - share) / 400))
    assert not near(0.0, share, math.sqrt(share * (1 - share) / 400))  # planted: none is counted
    assert found.flags[0].startswith(f"{found.overflowing} of 400 functions overflow")
    assert math.isfinite(found.beliefs.sd) and found.to_dict()["overflowing"] == found.overflowing
    assert "400 functions of the prior" in as_text(found)
    none = prior_predictive(linear_spec(Normal()), num_samples=40, num_inputs=8)
    assert none.overflowing == 0 and not any("overflow" in flag for flag in none.flags)


def test_rows_and_tokens_that_overflow_are_left_out():
    rows, tokens = RowEntropies(), TokenSizes()
    uniform = torch.full((2, 1, 2, 2, 2), 0.5)
    broken = uniform.clone()
    broken[1] = math.nan
    rows("a", broken, None)
    (found,) = rows.result()
    assert found.entropy == pytest.approx([math.log(2)] * 2)
    tokens("embedding", torch.tensor([1.0, math.inf]).reshape(2, 1, 1, 1))
    tokens("block", torch.tensor([math.nan, math.inf]).reshape(2, 1, 1, 1))
    assert [(size.name, size.median) for size in tokens.result()] == [("embedding", 1.0)]


class TestCommand:
    FEW = ("--samples", 20, "--inputs", 10)

    def test_it_tells_and_writes(self, pyroformer, write, toy, digits, tmp_path):
        for number, content in enumerate((toy, digits)):
            out = tmp_path / f"out-{number}"
            ended = pyroformer("prior", write(content), *self.FEW, "--out", out, "--set", "prior.normal.scale=0.001")
            assert (ended.code, ended.err) == (0, "")
            assert f"20 functions of the prior on {(5, 10)[number]} validation inputs" in ended.out
            assert ended.out.endswith(f"page: {out / 'prior.html'}\n")
            assert {path.name for path in out.iterdir()} == {".lock", "prior.html", "prior.json"}
            found = json.loads((out / "prior.json").read_text("utf-8"))
            assert found["spec"]["prior"]["normal"]["scale"] == 0.001 and found["num_samples"] == 20
            page = (out / "prior.html").read_text("utf-8")
            assert all(flag.split(":")[0] in page for flag in found["flags"]) and page.count("<svg role") >= 3
            assert not any(outside in page for outside in ("http://", "https://", "<link", "src="))
            again = pyroformer("prior", write(content), *self.FEW, "--out", out)
            assert again.code == 0 and json.loads((out / "prior.json").read_text("utf-8")) != found

    def test_without_a_folder_nothing_is_written(self, pyroformer, write, toy, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert pyroformer("prior", write(toy), *self.FEW).code == 0
        assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]

    def test_a_flat_prior_is_refused(self, pyroformer, write, toy, tmp_path):
        ended = pyroformer("prior", write(toy), "--out", tmp_path / "out", "--set", "prior=improper")
        assert ended.message == (
            "prior: got a flat prior of position, embedding.weight, blocks.0.norm1.weight and 19 more; accepted: "
            "proper priors: a flat prior has no predictive, since nothing can be drawn from it"
        )
        assert not (tmp_path / "out").exists()

    def test_a_prior_so_wide_that_nothing_is_finite_is_named(self, pyroformer, write, toy, tmp_path):
        ended = pyroformer("prior", write(toy), *self.FEW, "--set", "prior.normal.scale=1e30")
        assert ended.message.startswith("prior: got {normal: {scale: 1.0e+30")
        assert ended.message.endswith("a prior under which functions are finite: all 20 overflow float32")

    def test_folders_that_hold_something_else_are_refused(self, pyroformer, write, toy, tmp_path):
        folder = tmp_path / "thesis"
        folder.mkdir()
        (folder / "chapter1.tex").write_text("mine")
        assert "this holds something else" in pyroformer("prior", write(toy), "--out", folder).message
        file = folder / "chapter1.tex"
        assert (
            pyroformer("prior", write(toy), "--out", file).message
            == f"--out: got {file}; accepted: a folder; this is a file"
        )
        assert file.read_text() == "mine"
