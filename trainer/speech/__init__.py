"""Speech out: frames of own mel from the flow head, and an audible wav from own mel."""

from .frames import frames_of, noise_of, on_the_clock, retold
from .vocoder import Vocoder, griffin_lim, write_wav

__all__ = ["Vocoder", "frames_of", "griffin_lim", "noise_of", "on_the_clock", "retold", "write_wav"]
