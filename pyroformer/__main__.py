"""``python -m pyroformer``."""

from .cli import main

main()
