"""What a report shows of chains, in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .inference.diagnostics import Diagnosis
from .inference.files import read_tensors_and_content, write_tensors

WHOLE = ("log_likelihood", "log_density")


@dataclass(frozen=True, eq=False)
class SeenChains:
    """What a report shows of chains.

    Args:
        traces: Functions of draws by name, ``[K, S]``: the log-likelihood, and the one with the largest R-hat.
        energy: Of Hamiltonian chains, ``[K, S]``, else None.
        divergent: Which draws come after a divergent transition, ``[K, S]``, or None where that is not known.
        verdict: What is to be thought of the chains, as plain data: ``level``, ``summary`` and ``findings``.
    """

    traces: dict[str, Tensor]
    energy: Tensor | None
    divergent: Tensor | None
    verdict: dict[str, Any]


def write_chains(found: Diagnosis, path: Path) -> None:
    """Write what there is to see as safetensors."""
    tensors = {f"trace.{name}": values for name, values in traces(found).items()}
    tensors |= {name: found.statistics[name] for name in ("energy", "divergent") if name in found.statistics}
    told = {"traces": [n.removeprefix("trace.") for n in tensors if n.startswith("trace.")]}
    write_tensors(path, tensors, {**told, "verdict": found.verdict.to_dict()})


def traces(found: Diagnosis) -> dict[str, Tensor]:
    """The log-likelihood (or log-density), and the function of draws with the largest R-hat, ``[K, S]``."""
    whole = next((name for name in WHOLE if name in found.statistics), None)
    chosen = {} if whole is None else {whole: found.statistics[whole].double()}
    places: dict[str, Tensor] = {}
    for name, quantity in found.quantities.items():
        flat = quantity.values.reshape(found.chains, found.draws, -1)
        places |= dict(zip(quantity.places(name), flat.unbind(-1), strict=True))
    known = [line for line in found.lines if line.judged and line.r_hat == line.r_hat and line.name in places]
    if known:
        worst = max(known, key=lambda line: line.r_hat).name
        chosen[worst] = places[worst].double()
    return {name: values.contiguous() for name, values in chosen.items()}


def read_chains(path: Path) -> SeenChains | None:
    """What `write_chains` wrote; None where there is no file.

    Raises:
        ValueError: It is damaged.
    """
    if not path.is_file():
        return None
    tensors, content = read_tensors_and_content(path)
    own = {name: tensors[f"trace.{name}"] for name in content["traces"]}
    return SeenChains(own, tensors.get("energy"), tensors.get("divergent"), content["verdict"])
