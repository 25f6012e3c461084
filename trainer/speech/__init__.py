"""Speech out: frames of own mel from the flow head, and an audible wav from own mel."""

from .vocoder import Vocoder, griffin_lim, write_wav

__all__ = ["Vocoder", "griffin_lim", "write_wav"]
