"""What may be chosen, in words: every choice by its class, its hints and its docstring."""

from .about import About, show
from .wording import signature

__all__ = ["About", "show", "signature"]
