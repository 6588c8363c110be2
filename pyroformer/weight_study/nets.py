"""The nets of a weight study: trained from several seeds without a prior, by the machinery of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import yamlfile
from ..choices import SpecError, plain
from ..inference import ML
from ..models import BayesianModel
from ..models.sites import row_sites, weight_sites
from ..priors import Site
from ..run import load
from ..spec import KEYS as SPEC_KEYS
from ..spec import Spec
from ..study import KEYS as STUDY_KEYS
from ..study import Study, builtin, folder_of, read_study

SEEDS = 5
METHOD = "ML"
USED, LEFT_OUT = ("task", "model", "prior", "driver"), ("guide", "calibration")
"""The parts of a spec that nets are trained by, and those that they are not."""


@dataclass(frozen=True, eq=False)
class Nets:
    """Nets of one structure.

    Args:
        weights: One map a net, from names of parameters to values.
        starts: The same before training.
        sites: The parameters as priors see them: fan-in and centre.
        heads: By name of a projection of queries, keys, values or outputs, how many heads share it.
        fixed: Parameters that were not trained.
    """

    weights: Sequence[Mapping[str, Tensor]]
    starts: Sequence[Mapping[str, Tensor]]
    sites: Mapping[str, Site]
    heads: Mapping[str, int]
    fixed: tuple[str, ...] = ()


def read_weight_study(name: str, seeds: int | None = None, assignments: tuple[str, ...] = ()) -> Study:
    """The study that a name or a YAML file stands for: of one method, trained by ``ml``; five seeds by default.

    Args:
        name: A study that comes with the package, the path of a study's file, or that of a spec. Of a spec, which must
            be acceptable as a whole, the task, the model and the prior are used, and its driver if that is ``ml``. What
            of the others it gives is said in the study's ``changed``.
        seeds: In the place of the study's own.
        assignments: ``path=value``, as for runs and comparisons, below ``task``, ``model``, ``prior`` or ``driver``.

    Raises:
        SpecError: It is not acceptable, has several methods, another driver, or fewer than two seeds, or an assignment
            is to a part that plays no part.
    """
    for assignment in assignments:
        if (key := _part(assignment)) in SPEC_KEYS and key not in USED:
            accepted = f"path=value with a path below {', '.join(USED)}: nothing else plays a part in the weights"
            raise SpecError("--set", assignment, accepted)
    known, path = builtin(), Path(name)
    content = yamlfile.read(known.get(name, path)) if name in known or path.is_file() else {}
    if "task" in content and not set(content) & (set(STUDY_KEYS) - set(SPEC_KEYS)):
        study = _from_spec(path.stem, content, SEEDS if seeds is None else seeds, assignments)
    else:
        study = read_study(name, seeds if seeds is not None or "seeds" in content else SEEDS, assignments)
    if len(study.methods) != 1:
        raise SpecError("methods", ", ".join(study.methods), "one method: a weight study looks at the nets of one")
    if study.seeds < 2:
        raise SpecError("seeds", study.seeds, "at least 2: families are compared on the nets of seeds left out")
    (method,) = study.methods
    driver = study.spec(method, 0).driver
    if not isinstance(driver, ML):
        name = next(iter(plain(driver)))
        place = "base" if "driver" in study.base and "driver" not in study.methods[method] else f"methods.{method}"
        raise SpecError(f"{place}.driver", name, "ml: weights are studied without a prior")
    return study


def _from_spec(title: str, content: dict[str, Any], seeds: int, assignments: tuple[str, ...]) -> Study:
    """The study of a spec, refused where the spec is: errors name its own paths."""
    for assignment in assignments:
        content = yamlfile.assign(content, assignment)
    content = {str(key): value for key, value in content.items()}
    whole = Spec(**content)
    data = whole.task.load()
    whole.build_guide(whole.build_model(data), data)
    base = {key: content[key] for key in USED if content.get(key) is not None}
    if not isinstance(whole.driver, ML):
        if given := next((a for a in assignments if _part(a) == "driver"), None):
            raise SpecError("--set", given, "a path below driver.ml: weights are studied without a prior")
        base["driver"] = "ml"
        alone = Spec(**base)
        try:
            alone.build_guide(alone.build_model(data), data)
        except SpecError as error:
            accepted = f"{error.accepted} (weights are studied without a prior, by nets that ml trains)"
            raise SpecError(error.path, error.value, accepted) from None
    return Study(f"Weights of {title}", {METHOD: {}}, base, seeds, changed=_changed(content, whole))


def _part(assignment: str) -> str:
    """The part of a spec that an assignment is made in."""
    return yamlfile.split_path(assignment.partition("=")[0].strip() or "?")[0]


def _changed(content: Mapping[str, Any], whole: Spec) -> tuple[str, ...]:
    """What of a spec the nets are trained without, in words."""
    said = []
    if content.get("driver") is not None and not isinstance(whole.driver, ML):
        said.append(f"driver {next(iter(plain(whole.driver)))} replaced by ml with its defaults")
    said += [f"{key} left out: it plays no part in the weights" for key in LEFT_OUT if content.get(key) is not None]
    if "seed" in content:
        said.append(f"seed {whole.seed} replaced by those of the nets, 0, 1, ...")
    return tuple(said)


def read_nets(study: Study, out: Path) -> Nets:
    """The nets of a finished study."""
    (method,) = study.methods
    weights, starts = [], []
    for seed in range(study.seeds):
        run = load(folder_of(out, method, seed))
        model = run.posterior.model
        drawn = run.posterior.draw(1) if run.posterior.num_weights else {}
        weights.append(_values(model, {name: value[0] for name, value in drawn.items()}))
        start = run.spec.build_model(run.spec.task.load())
        starts.append(_values(start, start.initial_values()))
    heads = {
        f"{name.removesuffix('.rows')}.{part}.weight": layer.heads
        for name, layer in row_sites(model.net).items()
        for part in ("query", "key", "value", "output")
    }
    fixed = tuple(name for name, p in model.net.named_parameters() if name not in model.sites and not p.requires_grad)
    return Nets(weights, starts, weight_sites(model.net), heads, fixed)


def _values(model: BayesianModel, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {name: value.detach().double() for name, value in model.net.named_parameters()}
    with torch.no_grad():
        return own | {name: value.double() for name, value in model.weights(values).items()}
