"""Pyroformer: Bayesian transformers in Pyro."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import beliefs, guides, help, inference, models, priors, report, tasks, viewer, weight_study
    from .beliefs import PriorPredictive, prior_predictive
    from .diagnosis import diagnose
    from .generation import GeneratedText, generate
    from .help import About, Explanation, explain, schema, show
    from .run import Run, fit, load
    from .spec import Spec
    from .study import compare
    from .tasks import Task
    from .viewer import attention_view
    from .weight_study import WeightStudy, study_weights

__version__ = "0.1.0"
__all__ = [
    "About",
    "Explanation",
    "GeneratedText",
    "PriorPredictive",
    "Run",
    "Spec",
    "Task",
    "WeightStudy",
    "attention_view",
    "beliefs",
    "compare",
    "diagnose",
    "explain",
    "fit",
    "generate",
    "guides",
    "help",
    "inference",
    "load",
    "models",
    "prior_predictive",
    "priors",
    "report",
    "schema",
    "show",
    "study_weights",
    "tasks",
    "viewer",
    "weight_study",
]

_HOME = {"Run": "run", "Spec": "spec", "Task": "tasks", "compare": "study", "fit": "run", "load": "run"}
_HOME |= dict.fromkeys(("About", "Explanation", "explain", "schema", "show"), "help")
_HOME |= dict.fromkeys(("GeneratedText", "generate"), "generation")
_HOME |= dict.fromkeys(("PriorPredictive", "prior_predictive"), "beliefs")
_HOME |= dict.fromkeys(("WeightStudy", "study_weights"), "weight_study")
_HOME |= {"attention_view": "viewer", "diagnose": "diagnosis"}

# Git without symlinks checks a link out as a small text file; the rooms are then found beside this folder.
_here = Path(__file__).resolve().parent
if not (_here / "models" / "__init__.py").is_file():
    __path__.append(str(_here.parent))


def __getattr__(name: str) -> object:
    """Import the front door only when it is asked for, so that `import pyroformer.models` stays light (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
