"""Tasks: data in splits, with the shapes and the likelihood of a net for them."""

from .arrays import Arrays
from .base import Split, Task, TaskData
from .digits import Digits
from .mnist import FashionMnist, Mnist
from .mnist5k import Mnist5k
from .reversal import Reversal
from .shifts import Shift
from .text import Text
from .text_shifts import TextShift
from .toy_regression import ToyRegression

__all__ = [
    "Arrays",
    "Digits",
    "FashionMnist",
    "Mnist",
    "Mnist5k",
    "Reversal",
    "Shift",
    "Split",
    "Task",
    "TaskData",
    "Text",
    "TextShift",
    "ToyRegression",
]
