"""Each notebook is what its text gives: no edits by hand, no outputs, nothing of the machine that made it."""

import json
import shutil

import pytest

from notebooks.generate import FOLDER, generated, texts

TEXT = """# %% [markdown]
# # A title
#
# $x$ and a word.

# %%
x = 1
print(x)

# %%
print(x)

# %%
print(x)
"""


def faults(folder):
    """What is wrong with the notebooks of a folder."""
    wanted = {path.with_suffix(".ipynb").name: generated(path.read_text(encoding="utf-8")) for path in texts(folder)}
    found = {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}
    missing = [f"{name} is missing: run make notebooks" for name in sorted(set(wanted) - set(found))]
    strange = [f"{name} has no text beside it" for name in sorted(set(found) - set(wanted))]
    both = sorted(set(wanted) & set(found))
    stale = [
        f"{name} is not what its text gives: run make notebooks"
        for name in both
        if found[name] != wanted[name].encode()
    ]
    return missing + strange + stale


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "01_one.py").write_text(TEXT, encoding="utf-8")
    (tmp_path / "01_one.ipynb").write_text(generated(TEXT), encoding="utf-8", newline="\n")
    return tmp_path


def test_every_notebook_is_what_its_text_gives():
    assert texts()
    assert faults(FOLDER) == []


def test_another_notebook_is_a_text_and_nothing_else(folder):
    assert faults(folder) == []
    shutil.copy(folder / "01_one.py", folder / "02_two.py")
    assert faults(folder) == ["02_two.ipynb is missing: run make notebooks"]
    (folder / "02_two.ipynb").write_text(generated(TEXT), encoding="utf-8", newline="\n")
    assert faults(folder) == []
    (folder / "02_two.py").unlink()
    assert faults(folder) == ["02_two.ipynb has no text beside it"]


def test_a_changed_text_makes_its_notebook_stale(folder):
    (folder / "01_one.py").write_text(TEXT.replace("x = 1", "x = 2"), encoding="utf-8")
    assert faults(folder) == ["01_one.ipynb is not what its text gives: run make notebooks"]


def with_output(notebook):
    notebook["cells"][1]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["1\n"]}]


def run_once(notebook):
    notebook["cells"][1]["execution_count"] = 1


def edited(notebook):
    notebook["cells"][1]["source"] = ["x = 2\n"]


def with_a_cell_id(notebook):
    notebook["cells"][0]["id"] = "another"


def of_one_machine(notebook):
    notebook["metadata"]["language_info"]["version"] = "3.11.2"


@pytest.mark.parametrize("change", [with_output, run_once, edited, with_a_cell_id, of_one_machine])
def test_a_notebook_that_was_touched_is_found(folder, change):
    path = folder / "01_one.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    assert faults(folder) == ["01_one.ipynb is not what its text gives: run make notebooks"]


def test_the_same_text_gives_the_same_bytes():
    assert generated(TEXT) == generated(TEXT)
    notebook = json.loads(generated(TEXT))
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown", "code", "code", "code"]
    assert len({cell["id"] for cell in notebook["cells"]}) == 4  # the last two cells say the same
    assert "".join(notebook["cells"][0]["source"]) == "# A title\n\n$x$ and a word."
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def test_a_new_cell_leaves_the_names_of_the_others():
    longer = TEXT.replace("# %%\nx = 1", "# %%\nimport math\n\n# %%\nx = 1")
    before, after = ([cell["id"] for cell in json.loads(generated(t))["cells"]] for t in (TEXT, longer))
    assert len(after) == len(before) + 1
    assert set(before) < set(after)
