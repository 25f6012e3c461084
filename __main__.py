"""`python -m microturn` is the command `microturn`: torchrun starts modules."""

from .cli import main

main()
