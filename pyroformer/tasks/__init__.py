"""Tasks: data in splits, with the shapes and the likelihood of a net for them."""

from .arrays import Arrays
from .base import Split, Task, TaskData
from .digits import Digits
from .toy_regression import ToyRegression

__all__ = ["Arrays", "Digits", "Split", "Task", "TaskData", "ToyRegression"]
