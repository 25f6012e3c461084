"""The whole: dataset.json and what lies beside it, what was dropped, reading and verifying what is committed."""

from .reader import Corpus

__all__ = ["Corpus"]
