"""Raw two-party recordings with known truth: who says what, when, and what can be seen.

    from microturn.pipelines import synth
    made = synth.make(Path("raw"), hours=0.05, seed=0)

grammar, exchanges, play → a scene (scene.py) · formants, voices, natural → its sound (mix.py) · screen, movie → its pictures · truth,
write → files
"""

from .write import Made, make

__all__ = ["Made", "make"]
