"""What is installed is what is written: wheel and sdist against the files, lists of dependencies against each other."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pyroformer

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("priors", "models", "guides", "inference")
LINKS = {f"pyroformer/{room}" for room in ROOMS}
NOT_SOURCE = {".git", ".venv", ".venv-lowest", "build", "dist", "runs", "__pycache__"}


def source_files(root: Path) -> list[str]:
    """The files of a checkout, uncommitted ones too; outside git (an unpacked sdist), those that are no by-products."""
    try:
        git = ["git", "-C", str(root)]
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        if Path(top.stdout.strip()).resolve() == root:
            listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
            return sorted({name for name in names if name and os.path.lexists(root / name)})
    except (OSError, subprocess.CalledProcessError):
        pass
    found = []
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        folders[:] = [
            name
            for name in folders
            if name not in {*NOT_SOURCE, *links}
            and not name.endswith((".egg-info", "_cache"))
            and name != ".hypothesis"
        ]
        names = [name for name in names if not name.endswith((".pyc", ".pyo"))]
        found += [Path(folder, name).relative_to(root).as_posix() for name in [*names, *links]]
    return sorted(found)


def copy_of(root: Path, target: Path, links: bool = True) -> Path:
    """The files of a checkout, elsewhere; without links, a link becomes a text file with its target, as in git."""
    for name in source_files(root):
        source, copy = root / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and links:
            copy.symlink_to(os.readlink(source))
        elif source.is_symlink():
            copy.write_text(os.readlink(source), encoding="utf-8")
        else:
            shutil.copy2(source, copy)
    return target


def to_install(files: Iterable[str]) -> set[str]:
    """Files of the five package roots, by their place in an installation; notes in Markdown stay behind."""
    roots = [name for name in files if name.split("/")[0] in {*ROOMS, "pyroformer"} and "/" in name]
    kept = {name for name in roots if name not in LINKS and not name.endswith(".md")}
    return {name if name.startswith("pyroformer/") else f"pyroformer/{name}" for name in kept}


def wheel_faults(files: Iterable[str], names: Iterable[str]) -> dict[str, list[str]]:
    """What a wheel lacks, has too much of, and holds twice."""
    count = Counter(name for name in names if not re.match(r"[^/]+\.dist-info/", name) and not name.endswith("/"))
    wanted = to_install(files)
    faults = {
        "missing": sorted(wanted - set(count)),
        "extra": sorted(set(count) - wanted),
        "twice": sorted(name for name, times in count.items() if times > 1),
    }
    return {fault: found for fault, found in faults.items() if found}


def run(*command: str, cwd: Path) -> str:
    # Settings of pytest-cov, warnings or paths in this process are no part of what is tested.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python(code: str, cwd: Path) -> list[str]:
    return run(sys.executable, "-B", "-c", code, cwd=cwd).split()


def build_wheel(copy: Path) -> list[str]:
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", str(copy / "dist"), ".", cwd=copy)
    (wheel,) = (copy / "dist").glob("pyroformer-*.whl")
    assert wheel.name.startswith(f"pyroformer-{pyroformer.__version__}-")
    return zipfile.ZipFile(wheel).namelist()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(lines: Iterable[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    named = {canonicalize_name(requirement.name): requirement for requirement in parsed}
    assert len(named) == len(parsed), "a requirement is named twice"
    return named


def same_requirements(first: Iterable[str], second: Iterable[str]) -> bool:
    def parts(lines: Iterable[str]) -> set[tuple]:
        found = requirements(lines)
        return {(name, frozenset(r.extras), r.specifier, str(r.marker)) for name, r in found.items()}

    return parts(first) == parts(second)


def constraint_faults(pins: Iterable[str], core: Iterable[str], extras: Iterable[str]) -> list[str]:
    """Every core dependency is pinned; every pin is exact, public, in its range, and of a direct dependency."""
    pinned, needed, optional = requirements(pins), requirements(core), requirements(extras)
    found = [f"{name} is not pinned" for name in sorted(set(needed) - set(pinned))]
    for name, pin in pinned.items():
        specifiers = list(pin.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==" or "+" in str(pin) or "*" in str(pin):
            found.append(f"{pin} is not an exact public version")
        elif name not in {**needed, **optional}:
            found.append(f"{name} is no direct dependency")
        else:
            ranges = [wanted[name].specifier for wanted in (needed, optional) if name in wanted]
            found += [f"{pin} is outside {r}" for r in ranges if not r.contains(specifiers[0].version)]
    return found


@pytest.fixture(scope="module")
def files() -> list[str]:
    return source_files(ROOT)


def test_the_wheel_holds_each_file_once_and_nothing_else(files, tmp_path):
    names = build_wheel(copy_of(ROOT, tmp_path / "copy"))
    assert {"pyroformer/__init__.py", "pyroformer/py.typed", "pyroformer/models/__init__.py"} <= to_install(files)
    assert wheel_faults(files, names) == {}
    assert wheel_faults([*files, "models/new.py"], names) == {"missing": ["pyroformer/models/new.py"]}
    assert wheel_faults(files, [*names, "models/__init__.py"]) == {"extra": ["models/__init__.py"]}
    assert wheel_faults(files, [*names, "pyroformer/py.typed"]) == {"twice": ["pyroformer/py.typed"]}


def test_a_forgotten_package_and_a_stale_build_are_found(files, tmp_path):
    copy = copy_of(ROOT, tmp_path / "copy")
    settings = copy / "pyproject.toml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace('    "pyroformer.guides",\n', ""), encoding="utf-8")
    (copy / "build/lib/pyroformer").mkdir(parents=True)
    (copy / "build/lib/pyroformer/deleted.py").touch()
    faults = wheel_faults(files, build_wheel(copy))
    assert faults["missing"] == sorted(name for name in to_install(files) if name.startswith("pyroformer/guides/"))
    assert faults["extra"] == ["pyroformer/deleted.py"]


def test_the_sdist_holds_what_the_wheel_and_the_tests_need(files, tmp_path):
    copy = copy_of(ROOT, tmp_path / "copy")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", cwd=copy)
    (archive,) = (copy / "dist").glob("pyroformer-*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
        tar.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    beside = {"pyproject.toml", "environment.yml", "Makefile", "LICENSE", "CITATION.cff"}
    beside |= {"constraints.txt", "constraints-lowest.txt"}
    wanted = {name for name in files if name.startswith(("tests/", "notebooks/"))} | beside
    assert wanted - held == set()
    assert to_install(files) - to_install(held) == set()
    assert wheel_faults(files, build_wheel(unpacked)) == {}


def test_outside_git_the_same_files_are_found(files, tmp_path):
    copy = copy_of(ROOT, tmp_path / "copy")
    (copy / "build/lib").mkdir(parents=True)
    (copy / "build/lib/stale.py").touch()
    assert source_files(copy) == files


def test_every_room_is_linked(files):
    if not LINKS & set(files):
        pytest.skip("an unpacked sdist has no links")
    for name in LINKS:
        link = ROOT / name
        target = os.readlink(link) if link.is_symlink() else link.read_text(encoding="utf-8")
        assert target == f"../{link.name}"


def rooms_come_from(copy: Path) -> bool:
    code = "import importlib, sys; sys.path.insert(0, '.')\n" + "\n".join(
        f"print(importlib.import_module('pyroformer.{room}').__file__)" for room in ROOMS
    )
    found = subprocess.run([sys.executable, "-B", "-c", code], cwd=copy, capture_output=True, text=True)
    return [Path(line).resolve() for line in found.stdout.split()] == [copy / room / "__init__.py" for room in ROOMS]


def test_a_checkout_without_symlinks_imports(files, tmp_path):
    copy = copy_of(ROOT, tmp_path / "copy", links=False).resolve()
    assert (copy / "pyroformer/models").is_file() == ("pyroformer/models" in files)
    assert rooms_come_from(copy)

    front = copy / "pyroformer/__init__.py"
    front.write_text(front.read_text(encoding="utf-8").replace("__path__.append", "id"), encoding="utf-8")
    assert not rooms_come_from(copy)


def test_importing_a_room_does_not_run_the_front_door():
    report = "print(*(n for n in ('pydantic', 'pyroformer.spec', 'pyroformer.models') if n in sys.modules))"
    code = f"import sys; import pyroformer.models; {report}; pyroformer.Spec; print('door'); {report}"
    found = python(code, cwd=ROOT)
    before, after = found[: found.index("door")], found[found.index("door") :]
    assert before == ["pyroformer.models"]
    assert {"pydantic", "pyroformer.spec"} <= set(after)


def test_everything_the_package_names_exists():
    assert all(getattr(pyroformer, name) is not None for name in pyroformer.__all__)
    assert set(pyroformer.__all__) <= set(dir(pyroformer))
    with pytest.raises(AttributeError, match="'nonsense'; it offers About, Explanation, GeneratedText"):
        _ = pyroformer.nonsense


def test_environment_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = (entry["pip"] for entry in environment if isinstance(entry, dict))
    core = project()["dependencies"]
    assert same_requirements(pip, core)
    assert f"python{project()['requires-python']}" in environment
    assert not same_requirements(pip[1:], core)
    assert not same_requirements([pip[0] + ",<9", *pip[1:]], core)


def test_constraints_pin_what_pyproject_asks_for():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    core, extras = project()["dependencies"], project()["optional-dependencies"]
    optional = {line for group in extras.values() for line in group}  # the tests need some that users may leave out
    assert constraint_faults(lines, core, optional) == []
    assert {canonicalize_name(Requirement(line).name) for line in extras["dev"]} <= set(requirements(lines))
    assert "torch==2.13.0" in lines

    without = [line for line in lines if not line.startswith("numpy")]
    assert constraint_faults(without, core, optional) == ["numpy is not pinned"]
    assert constraint_faults([*without, "numpy==1.0"], core, optional) == ["numpy==1.0 is outside >=1.26"]
    assert constraint_faults([*without, "numpy>=2"], core, optional) == ["numpy>=2 is not an exact public version"]
    local = ["torch==2.13.0+cpu" if line.startswith("torch==") else line for line in lines]
    assert constraint_faults(local, core, optional) == ["torch==2.13.0+cpu is not an exact public version"]
    assert constraint_faults([*lines, "leftpad==1.0"], core, optional) == ["leftpad is no direct dependency"]


def lowest_faults(pins: Iterable[str], core: Iterable[str], extras: Iterable[str]) -> list[str]:
    """Every core dependency is pinned to the lower bound of its range, and so is what is pinned of the extras."""
    pinned, wanted = requirements(pins), {**requirements(extras), **requirements(core)}
    found = [f"{name} is not pinned" for name in sorted(set(requirements(core)) - set(pinned))]
    for name in sorted(set(pinned) & set(wanted)):
        (bound,) = (s.version for s in wanted[name].specifier if s.operator == ">=")
        (pin,) = pinned[name].specifier
        if pin.operator != "==" or Version(pin.version) != Version(bound):
            found.append(f"{pinned[name]} is not the lower bound {bound}")
    return found


def test_the_oldest_versions_are_the_lower_bounds():
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    core, extras = project()["dependencies"], project()["optional-dependencies"]
    (torch,) = (line for line in lines if line.startswith("torch=="))
    (bound,) = (line for line in core if line.startswith("torch>="))
    assert lowest_faults(lines, core, extras["dev"]) == [f"{torch} is not the lower bound {bound[len('torch>=') :]}"]
    assert torch in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"#   {bound[len('torch>=') :]}  torch." in "\n".join(lines), "the bound of torch has its reason"
    beside = set(requirements(lines)) - set(requirements([*core, *extras["dev"]]))
    assert beside == {"click"}  # no dependency of ours, but of one that does not say how new a one it takes

    without = [line for line in [*lines, bound.replace(">=", "==")] if line != torch]
    assert lowest_faults(without, core, extras["dev"]) == []
    raised = [line.replace("numpy>=", "numpy>=2.") for line in core]
    assert len(lowest_faults(without, raised, extras["dev"])) == 1
    assert lowest_faults([line for line in without if "numpy" not in line], core, []) == ["numpy is not pinned"]


def test_one_version():
    assert "version" not in project()
    assert project()["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pyroformer.__version__
