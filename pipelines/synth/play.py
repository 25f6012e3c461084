"""One scene from one seed: exchanges are drawn from the deck until the session is full."""

import random
from collections.abc import Callable
from dataclasses import replace

from .exchanges import DECK, ESSENTIAL, Exchange, show
from .grammar import WALLS
from .scene import TAIL_SAMPLES, Scene, Sight, Stage
from .voices import Voice

RECENT = 12  # lines and noises of earlier exchanges that the next one may lean on: enough for any reply, and an hour stays linear


def make_scene(
    seed: str,
    num_samples: int,
    voices: tuple[Voice, Voice],
    *,
    seen: bool,
    snap: Callable[[int], int] = lambda sample: sample,
    essential_first: bool = False,
) -> Scene:
    """The scene of a session of `num_samples` (even). Equal arguments and voices give equal scenes.

    `essential_first` plays one of each kind of event before chance decides. An exchange that does not fit into what is left is not played.
    """
    rng = random.Random(f"scene {seed}")
    stage = Stage(rng=rng, voices=voices, seen=seen, sight=Sight(start=0, wall=rng.choice(WALLS)), snap=snap)
    sights, said, noises, happenings, played = [stage.sight], [], [], [], []
    deck: list[Exchange] = [show, *(rng.sample(ESSENTIAL, len(ESSENTIAL)) if essential_first else [])]
    misses = 0
    while misses < len(DECK):
        deck = deck or rng.sample(DECK, len(DECK))
        exchange = deck.pop(0)
        trial = replace(stage, said=stage.said[-RECENT:], noises=stage.noises[-RECENT:], happenings=[], sights=[])
        carried = len(trial.said), len(trial.noises)
        if not exchange(trial) or trial.last() > num_samples - TAIL_SAMPLES:
            misses += 1
            continue
        said += trial.said[carried[0] :]
        noises += trial.noises[carried[1] :]
        happenings += trial.happenings
        sights += trial.sights
        played.append(exchange.__name__)
        stage, misses = trial, 0
    return Scene(
        num_samples=num_samples,
        said=tuple(sorted(said, key=lambda s: (s.start, s.who))),
        noises=tuple(sorted(noises, key=lambda n: (n.start, n.who))),
        happenings=tuple(sorted(happenings, key=lambda h: h.at)),
        sights=tuple(sights),
        exchanges=tuple(played),
    )
