"""The page of the viewer: whole, self-contained, and with the numbers that were seen."""

import base64
import json
import re
import shutil
import subprocess
from itertools import product

import numpy as np
import pytest
import torch

import pyroformer
from pyroformer import Spec, fit, priors
from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import GuidePosterior
from pyroformer.inference.data import take
from pyroformer.models import (
    BayesianModel,
    Categorical,
    EncoderDecoder,
    Gaussian,
    Image,
    Output,
    Pair,
    Series,
    Tokens,
    Transformer,
)
from pyroformer.priors import Normal
from pyroformer.viewer import AttentionView, render, see_attention
from pyroformer.viewer.page import packed

FLAT = priors.DirichletRows(center=priors.FlatCenter(), concentration=1.0, floor=0.0)

NASTY = "</script><script>alert(1)</script>"


def posterior_of(inputs, x, outputs=3, per_token=False, likelihood=None, rows=True):
    torch.manual_seed(0)
    kind = EncoderDecoder if isinstance(inputs, Pair) else Transformer
    net = kind(inputs, Output(outputs, per_token), width=8, heads=2, depth=2)
    model = BayesianModel(net, {**({"*.rows": FLAT} if rows else {}), "*": Normal()}, likelihood)
    families = {**({"*.rows": DirichletRows()} if rows else {}), "*": MeanField(init_scale=0.1)}
    example = (take(x, slice(0, 2)),)
    return GuidePosterior(model, Guide(model, families, example), example)


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def unpacked(content, shape):
    found = np.frombuffer(base64.b64decode(content["bytes"]), np.uint8).astype(float) / 255
    return torch.from_numpy(content["most"] * found**2).reshape(shape)


def self_contained(page):
    outside = re.search(r"https?:|@import|<link|<img|<iframe|\bsrc=|\bhref=|url\(|fetch\(|XMLHttp", page)
    return outside is None


@pytest.fixture(scope="module")
def images():
    x = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0])
    return see_attention(posterior_of(Image(6, 6, patch=2), x), x, y, classes=["a", "b", NASTY])


def test_the_numbers_are_those_that_were_seen(images):
    data = data_of(render(images))
    for found, layer in zip(data["layers"], images.layers, strict=True):
        assert found["shape"] == [2, 9, 9] and found["name"] == layer.name and found["random"]
        for kind in ("mean", "sd"):
            values, most = getattr(layer, kind).double(), float(getattr(layer, kind).max())
            shown = unpacked(found[kind], values.shape)
            step = 2 * (most * values).sqrt() / 255 + most / 255**2  # of the square root, half a step up or down
            assert ((shown - values).abs() <= step / 2 + 1e-9).all()
            assert not ((shown - values.flip(-1)).abs() <= step / 2 + 1e-9).all()  # planted: keys in another order
        assert torch.allclose(torch.tensor(found["entropy"]), layer.entropy, atol=1e-2)
        assert found["keys"] == layer.keys.tolist()
    assert torch.allclose(torch.tensor(data["prediction"]["mean"]), images.mean, atol=1e-3)
    assert torch.allclose(torch.tensor(data["parts"]), images.parts.movedim(0, -1), rtol=1e-3)
    assert data["truth"] == [0, 1, 2, 0] and data["samples"] == 32
    pixels = np.frombuffer(base64.b64decode(data["shown"]["pixels"]), np.uint8).reshape(4, 6, 6)
    assert (pixels.reshape(4, -1).max(1) == 255).all() and (pixels.reshape(4, -1).min(1) == 0).all()
    low = images.x.amin((1, 2), True)
    scaled = (images.x - low) / (images.x.amax((1, 2), True) - low)
    assert np.abs(pixels / 255.0 - scaled.numpy()).max() < 0.003


def test_packing_keeps_small_numbers():
    values = torch.tensor([0.0, 1e-4, 0.01, 0.5, 1.0])
    assert (unpacked(packed(values), (5,)) - values).abs().max() < 0.004
    assert float(unpacked(packed(values), (5,))[1]) > 0
    assert packed(torch.zeros(3)) == {"most": 0.0, "bytes": base64.b64encode(bytes(3)).decode()}


def test_the_page_needs_nothing_else_and_is_safe(images):
    page = render(images, NASTY, NASTY)
    assert self_contained(page)
    assert not self_contained(page.replace("<h1>", '<img src="x.png"><h1>'))  # planted
    assert "<script>alert" not in page and page.count("<script") == 2
    assert len(page) < 200_000


def test_twelve_digits_take_little_room():
    x = torch.rand(12, 8, 8)
    torch.manual_seed(0)
    net = Transformer(Image(8, 8, patch=2), Output(10))
    model = BayesianModel(net, Normal())
    posterior = GuidePosterior(model, Guide(model, Delta(), (x[:2],)), (x[:2],))
    seen = see_attention(posterior, x)
    assert len(seen) == 12 and len(render(seen)) < 400_000


def test_in_a_notebook_it_stands_in_a_frame(images, tmp_path):
    view = AttentionView(images, "Attention")
    shown = view._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "<script" not in shown and shown.count("<iframe") == 1
    view.save(tmp_path / "deep" / "page.html")
    assert (tmp_path / "deep" / "page.html").read_text("utf-8") == view.html()
    x = torch.rand(3, 6, 6)
    made = pyroformer.attention_view(posterior_of(Image(6, 6, patch=2), x), x, num_samples=2, title="mine")
    assert made.seen.num_samples == 2 and "<h1>mine</h1>" in made.html()


RNG = torch.Generator().manual_seed(0)
PADDED = torch.tensor([[1, 2, 3, 4, 0, 0], [4, 3, 2, 1, 1, 1]])
CASES = {
    "image": (Image(6, 6, patch=2), torch.rand(3, 6, 6, generator=RNG), {}, {}),
    "colour": (Image(4, 4, channels=3, patch=2), torch.rand(3, 3, 4, 4, generator=RNG), {}, {}),
    "tokens": (Tokens(5, 6, padding=0), PADDED, {}, {"words": list("-abcd")}),
    "series": (Series(7, 2), torch.randn(3, 7, 2, generator=RNG), {"rows": False}, {}),
    "reals": (Series(7), torch.randn(3, 7, 1, generator=RNG), {"outputs": 2, "likelihood": Gaussian()}, {}),
    "features": ("features", torch.randn(3, 2, generator=RNG), {}, {"features": ["size", "price"]}),
    "per token": (
        Tokens(5, 4),
        torch.randint(5, (3, 4), generator=RNG),
        {"per_token": True, "likelihood": "tokens"},
        {},
    ),
    "pair": (
        Pair(Tokens(5, 4), Tokens(6, 4)),
        (torch.randint(5, (3, 4), generator=RNG), torch.randint(6, (3, 4), generator=RNG)),
        {"per_token": True, "likelihood": "tokens"},
        {"words": list("abcde")},
    ),
    "many classes": (Tokens(5, 4), torch.randint(5, (3, 4), generator=RNG), {"outputs": 40}, {}),
}


@pytest.fixture(params=CASES)
def page(request):
    from pyroformer.models import Features

    inputs, x, settings, names = CASES[request.param]
    inputs = Features(2, copies=2) if inputs == "features" else inputs
    if settings.get("likelihood") == "tokens":
        settings = {**settings, "likelihood": Categorical(per_token=True)}
    return render(see_attention(posterior_of(inputs, x, **settings), x, num_samples=4, **names), request.param)


def test_every_kind_of_input_has_a_page(page):
    data = data_of(page)
    assert self_contained(page)
    shown, count = data["shown"], data["layers"][0]["shape"][2]
    if shown["kind"] == "tokens":
        assert len(shown["tokens"][0]) == count
    if shown["kind"] == "features":
        assert len(shown["values"][0]) * shown["copies"] == count and shown["features"] == ["size", "price"]


def test_of_many_classes_the_most_probable_and_the_label_are_kept():
    x, y = torch.randint(5, (3, 4)), torch.tensor([[3, -100, 7, 39]] * 3)
    likelihood = Categorical(per_token=True)
    seen = see_attention(posterior_of(Tokens(5, 4), x, 40, True, likelihood), x, y, num_samples=3)
    found = data_of(render(seen))["prediction"]
    for n, t in product(range(3), range(4)):
        ids, order = found["classes"][n][t], seen.mean[n, t].argsort(descending=True).tolist()
        assert set(ids[:12]) == set(order[:12])
        assert int(y[n, t]) in ids if y[n, t] >= 0 else ids[12] == -1
        assert (ids[12] == -1) == (int(y[n, t]) in order[:12] or bool(y[n, t] < 0))
        for name in ("mean", "low", "high"):
            kept = [float(getattr(seen, name)[n, t, c]) for c in ids if c >= 0]
            assert found[name][n][t][: len(kept)] == pytest.approx(kept, abs=1e-3)


def test_a_decoder_s_layers_are_not_named_after_the_source():
    inputs, x, _, names = CASES["pair"]
    seen = see_attention(
        posterior_of(inputs, x, per_token=True, likelihood=Categorical(per_token=True)), x, num_samples=2, **names
    )
    sides = data_of(render(seen))["shown"]["sides"]
    assert {name: sides.get(name, ["source", "source"]) for name in (layer.name for layer in seen.layers)} == {
        "encoder.0.attention": ["source", "source"],
        "encoder.1.attention": ["source", "source"],
        "decoder.0.attention": ["target", "target"],
        "decoder.0.cross": ["target", "source"],
        "decoder.1.attention": ["target", "target"],
        "decoder.1.cross": ["target", "source"],
    }


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser to run the page in")
def test_a_browser_names_the_tokens_of_a_target(tmp_path):
    inputs, x, _, names = CASES["pair"]
    posterior = posterior_of(inputs, x, per_token=True, likelihood=Categorical(per_token=True))
    page = render(see_attention(posterior, x, num_samples=2, **names))
    said = {}
    for index, layer in ((0, "encoder"), (2, "decoder"), (3, "cross")):
        drawn = drawn_by_browser(page, tmp_path, f"layer={index}&query=2").stdout
        said[layer] = re.search(r'id="said"[^>]*>Query ([^<]*) looks most at ([^<]*?) \(0\.', drawn).groups()
    own = [re.fullmatch(r"[a-e] \(\d\)", name) is not None for pair in said.values() for name in pair]
    target = [re.fullmatch(r"target \d", name) is not None for pair in said.values() for name in pair]
    assert own == [True, True, False, False, False, True] and target == [not each for each in own]


def drawn_by_browser(page, tmp_path, state):
    """What Chromium makes of a page in a state of its address."""
    (tmp_path / "page.html").write_text(page, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'browser'}"]
    address = f"file://{tmp_path / 'page.html'}#{state}"
    return subprocess.run(["chromium", *options, address], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser to run the page in")
def test_a_browser_draws_it(page, tmp_path):
    done = drawn_by_browser(page, tmp_path, "input=1&layer=1&head=1&query=2&show=sd")
    drawn = done.stdout
    data = data_of(page)
    name = data["layers"][1]["name"]
    assert f'<h2 id="rows-heading">Rows of {name}, head 1</h2>' in drawn, done.stderr[-2000:]
    assert drawn.count(f'aria-pressed="true" aria-label="{name}, head 1"') == 1
    assert re.search(r'id="said"[^>]*>Query [^<]* looks most at', drawn)
    layer, entropy = data["layers"][1], data["layers"][1]["entropy"][1][1][2]
    if layer["keys"][1][2] > 1:
        assert f"Entropy of a drawn row {entropy:.2f}" in drawn
    assert len(re.findall(r'role="radio"', drawn)) == len(data["prediction"]["mean"])
    assert re.search(r"(Entropy|Variance) [\d.e-]+", drawn)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    net = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
    prior = {"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": "learned"}
    task = {"digits": {"train": 1700, "validation": 20}}  # which leaves few to test on
    spec = Spec(task=task, model=net, prior=prior, driver={"svi": {"epochs": 1}})
    return fit(spec, out=tmp_path_factory.mktemp("run") / "digits")


def test_a_run_keeps_what_was_seen_and_has_a_page(run, tmp_path):
    from pyroformer.run_folder import attention_of
    from pyroformer.viewer import write_attention

    kept = attention_of(run.folder)
    x = run.spec.task.load().test.x
    assert torch.equal(kept.x, x[:6]) and kept.layers[0].random
    again = see_attention(run.posterior, x[:6], seed=run.spec.seed)
    assert torch.allclose(kept.layers[0].sd, again.layers[0].sd, atol=1e-3)
    seen = write_attention(run, tmp_path / "page.html", num_inputs=3, num_samples=5)
    data = data_of((tmp_path / "page.html").read_text("utf-8"))
    assert len(seen) == len(data["prediction"]["mean"]) == 3 and data["samples"] == 5


def test_a_damaged_file_of_a_run_is_named(run, tmp_path):
    from pyroformer.choices import SpecError
    from pyroformer.run_folder import attention_of

    assert attention_of(tmp_path) is None
    (tmp_path / "attention.safetensors").write_bytes((run.folder / "attention.safetensors").read_bytes()[:-9])
    with pytest.raises(SpecError, match=r"attention.safetensors: got not a safetensors file"):
        attention_of(tmp_path)


@pytest.mark.parametrize("unit", ["character", "word"])
def test_a_run_on_text_shows_its_words(unit, tmp_path):
    from pyroformer.tasks.text import vocabulary_of
    from pyroformer.viewer import write_attention

    lines = "the quick fox\njumps over the dog\n"
    (tmp_path / "text.txt").write_text(lines * 30 + "the fox\n", "utf-8")
    net = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
    task = {"text": {"path": str(tmp_path / "text.txt"), "unit": unit, "length": 16}}
    run = fit(Spec(task=task, model=net, driver={"ml": {"epochs": 1}}), out=tmp_path / "run")
    seen = write_attention(run, tmp_path / "page.html", num_samples=1)
    data = data_of((tmp_path / "page.html").read_text("utf-8"))
    source = json.loads((run.folder / "data.json").read_text("utf-8"))
    vocabulary = vocabulary_of(source.get("source", source))
    signs = {"\n": "⏎", " ": "␣"}
    expected = [
        ["[padding]" if t == len(vocabulary) else signs.get(vocabulary.tokens[t], vocabulary.tokens[t]) for t in row]
        for row in run.spec.task.load().test.x[: len(seen)].tolist()
    ]
    assert data["shown"]["tokens"] == expected and "⏎" in expected[0] and "[padding]" in expected[-1]
    assert data["shown"].get("unit") == ("character" if unit == "character" else None)
    assert data["shown"]["padding"] == "[padding]" and "⏎" in data["shown"]["classes"]
