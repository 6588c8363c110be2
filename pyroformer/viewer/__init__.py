"""A viewer of attention: one page to look at attention, at what it is unsure of, and at what is predicted from it."""

from .data import SeenAttention, has_attention, see_attention
from .files import read_seen, write_seen
from .moments import Layer
from .page import render
from .view import AttentionView, attention_view, write_attention

__all__ = [
    "AttentionView",
    "Layer",
    "SeenAttention",
    "attention_view",
    "has_attention",
    "read_seen",
    "render",
    "see_attention",
    "write_attention",
    "write_seen",
]
