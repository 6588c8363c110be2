"""``pyroformer attention``: a page for a run, and what it refuses."""

import pytest
import torch

from pyroformer import Spec, fit
from pyroformer.tasks import Task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    net = {"transformer": {"width": 8, "heads": 2, "depth": 2}}
    spec = Spec(task={"toy_regression": {"train": 20, "test": 10}}, model=net, driver={"svi": {"epochs": 1}})
    return fit(spec, out=tmp_path_factory.mktemp("attention") / "curve")


def test_a_page_is_written(run, pyroformer, tmp_path):
    out = tmp_path / "deep" / "page.html"
    done = pyroformer("attention", run.folder, "--out", out, "--inputs", 4, "--samples", 3)
    assert (done.code, done.err, done.out) == (0, "", f"{out}: 4 examples, 2 layers\n")
    page = out.read_text("utf-8")
    assert "<h1>Attention of curve</h1>" in page and "4 test examples of toy_regression, 3 draws" in page


def test_what_is_refused(run, pyroformer, tmp_path):
    message = pyroformer("attention", run.folder, "--out", tmp_path / "page.png").message
    assert message == f"--out: got {tmp_path / 'page.png'}; accepted: a file that ends in .html"
    message = pyroformer("attention", tmp_path, "--out", tmp_path / "page.html").message
    assert message == f"{tmp_path}: got no spec.yaml; accepted: the folder of a run"
    assert not list(tmp_path.iterdir())


def test_a_net_without_attention_of_ours_is_refused_and_keeps_none(tmp_path):
    from pyroformer.choices import SpecError
    from pyroformer.viewer import write_attention

    x, y = torch.randn(20, 3), torch.arange(20) % 2
    spec = Spec(task=Task.from_arrays(x, y, x, y), model=torch.nn.Linear(3, 2), driver={"ml": {"epochs": 1}})
    found = fit(spec, out=tmp_path / "run")
    assert not (found.folder / "attention.safetensors").exists()
    with pytest.raises(SpecError, match="RUN: got Linear; accepted: a run of a net with attention layers of"):
        write_attention(found, tmp_path / "page.html")
