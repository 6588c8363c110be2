"""Specs and choices in words: what a spec means, what may be chosen, and a schema for editors."""

from .about import About, show
from .explanation import Explanation, explain
from .json_schema import schema
from .wording import signature

__all__ = ["About", "Explanation", "explain", "schema", "show", "signature"]
