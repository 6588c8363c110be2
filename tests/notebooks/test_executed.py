"""Each notebook runs in a kernel of its own, as a student runs it, in quick mode, without a warning."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from notebooks.generate import FOLDER, generated, texts

ROOT = Path(__file__).resolve().parents[2]
SWITCH = "PYROFORMER_SMOKE"
TALKATIVE = """import warnings
warnings.simplefilter('always')  # shown, not raised: libraries catch what is raised as they are imported
warnings.filterwarnings('ignore', module='ipykernel')  # what the kernel says of itself
"""


def executed(content, folder):
    """The code cells of a notebook after a run in that folder, where every warning is shown."""
    notebook = nbformat.reads(content, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(TALKATIVE))
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # figures belong in the notebook
    env |= {"PYTHONPATH": paths, SWITCH: "1", "OMP_NUM_THREADS": "1"}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=env)
    return [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]


def complaints(cells):
    """What a run wrote to stderr."""
    return [out.text for cell in cells for out in cell.outputs if out.get("name") == "stderr"]


def figures(cells):
    return sum("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs)


@pytest.mark.parametrize("name", [path.with_suffix(".ipynb").name for path in texts()])
def test_a_notebook_runs_from_anywhere(name, tmp_path):
    before = sorted(FOLDER.iterdir())
    cells = executed((FOLDER / name).read_text(encoding="utf-8"), tmp_path)
    assert [cell.execution_count for cell in cells] == list(range(2, len(cells) + 2))
    assert complaints(cells) == []
    assert figures(cells) >= 1
    assert list(tmp_path.iterdir()) == []
    assert sorted(FOLDER.iterdir()) == before


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ("assert 1 + 1 == 3", "AssertionError"),
        ("import pyroformer\npyroformer.nonsense", "AttributeError"),
    ],
)
def test_a_planted_fault_is_found(planted, told, tmp_path):
    with pytest.raises(CellExecutionError, match=told):
        executed(generated(f"# %%\n{planted}\n"), tmp_path)


def test_a_planted_warning_is_seen(tmp_path):
    caught = "import warnings\ntry:\n    warnings.warn('planted', DeprecationWarning)\nexcept Exception:\n    pass"
    (told,) = complaints(executed(generated(f"# %%\n{caught}\n"), tmp_path))
    assert "DeprecationWarning: planted" in told


def test_what_a_run_shows_is_seen(tmp_path):
    written = f"import os, sys\nprint(os.environ['{SWITCH}'], os.getcwd(), file=sys.stderr)"
    drawn = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    cells = executed(generated(f"# %%\n{written}\n\n# %%\n{drawn}\n"), tmp_path)
    assert complaints(cells) == [f"1 {tmp_path.resolve()}\n"]
    assert figures(cells) == 1


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.stem)
def test_the_first_code_cell_knows_the_quick_mode_and_how_to_install(path):
    notebook = nbformat.reads(generated(path.read_text(encoding="utf-8")), as_version=4)
    first, *rest = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert first.count(SWITCH) == 1
    assert not any(SWITCH in source for source in rest)
    assert "%pip install" in first.splitlines()[0]
    assert first.splitlines()[1].startswith("import pyroformer")


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.stem)
def test_a_notebook_opens_with_its_title(path):
    notebook = nbformat.reads(generated(path.read_text(encoding="utf-8")), as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
