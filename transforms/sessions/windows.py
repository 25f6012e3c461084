"""The media of one session, streamed: every stream decoded once, in step, into windows of every view.

Memory is bounded by two windows, whatever the session's length; only voice activity is kept for all of it, a byte a frame. The batch job
drives the same streaming front ends that a live sampler hears through, in larger blocks: Law 1 says that this changes no byte.

Letters: T ticks, F frames, S samples.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ...schemas.clock import FRAME_SAMPLES, TICK_FRAMES, TICK_SAMPLES, num_ticks
from ...schemas.errors import MediaError
from ...schemas.pieces import Pieces
from ...schemas.spec import NUM_BANDS, FeatureSpec
from .. import activity, dmel, patches
from .roles import View
from .streams import OpenStreams

BLOCK_TICKS = 60  # 12 s: enough to make each call cheap, small beside a window

Mix = tuple[str, ...]  # participants heard together


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaWindow:
    """The media members of one window of one view (schemas/record.py MEDIA_MEMBERS), as pieces: what is only written needs no copy."""

    view: View
    first_tick: int
    num_ticks: int
    pieces: dict[str, Pieces]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The members as arrays: copies of those that lie in several pieces."""
        return {name: pieces.whole() for name, pieces in self.pieces.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some consecutive ticks of everything: what windows are cut from.

    Attributes:
        pcm, valid, active: by participant: int16 [T, 3200], uint16 [T], uint8 [T].
        codes, mix_valid, mix_pcm: by mix: uint8 [T, 4, 80], uint16 [T], int16 [T, 3200] (or [0, 3200] where the spec keeps none).
        pairs: by stream: (tick of the session, patches [rows, cols, 2, 40, 40, 3], pts [2]).
    """

    pcm: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    active: dict[str, np.ndarray]
    codes: dict[Mix, np.ndarray]
    mix_valid: dict[Mix, np.ndarray]
    mix_pcm: dict[Mix, np.ndarray]
    pairs: dict[str, list[tuple[int, np.ndarray, np.ndarray]]]


class SessionMedia:
    """The windows of a session's views; afterwards, what is known only at its end.

    Iterate `windows()` to its end first. Then:

    Attributes:
        num_samples: from the session's zero to the end of its latest audio or picture; `num_ticks` covers it.
        active_frames: participant → uint8 [F], voice activity of the whole session.
        energy: participant → (sum of squares of int16 samples, number of real samples), exact.
        tail_codes: view's name → uint8 [H, 80], the frame after the last tick, whose FFT window reaches back into it.
    """

    def __init__(self, streams: OpenStreams, views: tuple[View, ...], spec: FeatureSpec) -> None:
        self._streams, self._views, self._spec = streams, views, spec
        self._mixes: list[Mix] = sorted({mix for view in views for mix in view.heard})
        self._dmel = {mix: dmel.start(spec.dmel) for mix in self._mixes}
        self._vad = {name: activity.start(spec.activity) for name in streams.audio}
        self._active: dict[str, list[np.ndarray]] = {name: [] for name in streams.audio}
        self.energy = dict.fromkeys(streams.audio, (0, 0))
        self.num_samples = self.num_ticks = 0
        self.active_frames: dict[str, np.ndarray] = {}
        self.tail_codes: dict[str, np.ndarray] = {}

    def windows(self) -> Iterator[MediaWindow]:
        """Every window of every view, in order of time. Raises MediaError when the session is under one tick or over the limit."""
        size, limit = self._spec.window_ticks, self._spec.limits.max_session_samples
        blocks: list[Block] = []  # of the window under way; none crosses its end
        first_tick = tick = 0
        while (end := self._streams.end_by(tick * TICK_SAMPLES)) is None or tick <= num_ticks(end):  # a tick beyond it is read too
            if tick * TICK_SAMPLES > limit:
                raise MediaError(f"longer than the limit of {limit} samples", reason="limit_session_samples")
            left = first_tick + size - tick
            ticks = min(BLOCK_TICKS, left or size)
            block = self._read_block(tick, ticks)
            if not left:
                yield from self._cut([*blocks, block], first_tick, size)
                blocks, first_tick = [], tick
            blocks.append(block)
            tick += ticks
        if end < TICK_SAMPLES:
            raise MediaError(f"{end} samples are less than one tick ({TICK_SAMPLES})", reason="too_short")
        self.num_samples, self.num_ticks = end, num_ticks(end)
        self._close(blocks, self.num_ticks - first_tick)
        if self.num_ticks > first_tick:
            yield from self._cut(blocks, first_tick, self.num_ticks - first_tick)

    def _read_block(self, tick: int, ticks: int) -> Block:
        num_samples = ticks * TICK_SAMPLES
        sound: dict[str, np.ndarray] = {}
        real: dict[str, np.ndarray] = {}
        pcm, valid, active = {}, {}, {}
        for name in self._streams.audio:
            sound[name], real[name] = self._streams.read(name, num_samples)
            pcm[name] = to_int16(sound[name]).reshape(ticks, TICK_SAMPLES)
            valid[name] = _num_real(real[name], TICK_SAMPLES)
            frames_FS = pcm[name].reshape(-1, FRAME_SAMPLES)
            active_F, self._vad[name] = activity.step(frames_FS, _num_real(real[name], FRAME_SAMPLES), self._vad[name], self._spec.activity)
            self._active[name].append(active_F)
            active[name] = activity.by_tick(active_F)
            self.energy[name] = self._vad[name].squares, self.energy[name][1] + int(valid[name].sum(dtype=np.int64))
        codes, mix_valid, mix_pcm = {}, {}, {}
        for mix in self._mixes:
            heard, heard_real = _mixed([sound[name] for name in mix], [real[name] for name in mix], num_samples)
            codes_FB, self._dmel[mix] = dmel.step(heard, self._dmel[mix], self._spec.dmel)
            codes[mix] = codes_FB.reshape(ticks, TICK_FRAMES, -1)
            mix_valid[mix] = _num_real(heard_real, TICK_SAMPLES)
            mix_pcm[mix] = to_int16(heard).reshape(ticks, TICK_SAMPLES) if self._spec.keep_heard_pcm else _NO_PCM
        return Block(
            pcm=pcm, valid=valid, active=active, codes=codes, mix_valid=mix_valid, mix_pcm=mix_pcm, pairs=self._read_pairs(tick, ticks)
        )

    def _read_pairs(self, tick: int, ticks: int) -> dict[str, list[tuple[int, np.ndarray, np.ndarray]]]:
        every = self._spec.pictures.every_ticks
        pairs: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {name: [] for name in self._streams.pictures}
        for at in range(-(-tick // every) * every, tick + ticks, every):
            if self._streams.end_by(at * TICK_SAMPLES) is not None:
                break  # the session is over: what lies beyond is padding of the block
            for name, track in self._streams.pictures.items():
                pair = track.pair(at)
                if pair is not None:
                    tiles = patches.cut_all(pair.pictures, self._spec.pictures)
                    pairs[name].append((at, tiles, np.asarray(pair.pts_samples, dtype=np.int64)))
        return pairs

    def _cut(self, blocks: list[Block], first_tick: int, ticks: int) -> Iterator[MediaWindow]:
        """The window of each view whose `ticks` ticks these blocks begin with; they reach at least one tick further."""

        def cut(field: str, keys: Iterable[str | Mix], extra: int = 0) -> list[np.ndarray]:
            """Of each key its first `ticks + extra` ticks, one key after another."""
            found = []
            for key in keys:
                left = ticks + extra
                for block in blocks:
                    found.append(getattr(block, field)[key][:left])
                    left -= len(found[-1])
            return found

        silent, none_real = np.zeros(ticks, np.uint8), np.zeros(ticks + 1, np.uint16)
        silent_pcm = np.zeros((ticks + 1, TICK_SAMPLES), np.int16)
        num_kept, px = ticks if self._spec.keep_heard_pcm else 0, self._spec.pictures.patch_px
        for view in self._views:
            heard, own = view.heard, [view.name] if view.name in self._streams.audio else []
            heard_active = [np.bitwise_or.reduce([np.concatenate(cut("active", [name])) for name in mix] or [silent]) for mix in heard]
            pairs = [p for block in blocks for p in block.pairs.get(view.seen.id if view.seen else "", []) if p[0] < first_tick + ticks]
            yield MediaWindow(
                view=view,
                first_tick=first_tick,
                num_ticks=ticks,
                pieces={
                    "activity": Pieces((len(heard) + 1, ticks), np.uint8, [*heard_active, *(cut("active", own) or [silent])]),
                    "heard_dmel": Pieces((len(heard), ticks, TICK_FRAMES, NUM_BANDS), np.uint8, cut("codes", heard)),
                    "heard_pcm": Pieces((len(heard), num_kept, TICK_SAMPLES), np.int16, cut("mix_pcm", heard)),
                    "heard_valid": Pieces((len(heard), ticks), np.uint16, cut("mix_valid", heard)),
                    "own_pcm": Pieces((ticks + 1, TICK_SAMPLES), np.int16, cut("pcm", own, 1) or [silent_pcm]),
                    "own_valid": Pieces((ticks + 1,), np.uint16, cut("valid", own, 1) or [none_real]),
                    "patches": Pieces((len(pairs), *self.grid(view), 2, px, px, 3), np.uint8, [tiles for _, tiles, _ in pairs]),
                    "picture_pts": Pieces((len(pairs), 2), np.int64, [pts for _, _, pts in pairs]),
                    "picture_tick": Pieces.of(np.array([at - first_tick for at, _, _ in pairs], dtype=np.uint16)),
                },
            )

    def grid(self, view: View) -> tuple[int, int]:
        """(rows, cols) of the patches that the view sees; (0, 0) where it sees nothing."""
        size = self._streams.pictures[view.seen.id].size_px if view.seen else None
        return patches.grid(*size, self._spec.pictures) if size else (0, 0)

    def _close(self, blocks: list[Block], end_tick: int) -> None:
        """Keeps what is known at the end; `end_tick` is the first tick after the session, counted from the first of these blocks."""
        frames = self.num_ticks * TICK_FRAMES
        self.active_frames = {name: np.concatenate(parts)[:frames] for name, parts in self._active.items()}
        for view in self._views:
            after = [np.concatenate([block.codes[mix] for block in blocks])[end_tick, 0] for mix in view.heard]
            self.tail_codes[view.name] = np.stack(after)


_NO_PCM = np.zeros((0, TICK_SAMPLES), dtype=np.int16)


def to_int16(samples_S: np.ndarray) -> np.ndarray:
    """int16 of float samples at full scale 1: rounded half to even, clipped."""
    scaled_S = samples_S * np.float32(32768)
    np.rint(scaled_S, out=scaled_S)
    return np.clip(scaled_S, -32768, 32767, out=scaled_S).astype(np.int16)


def _num_real(real_S: np.ndarray, size: int) -> np.ndarray:
    """uint16: how many of each run of `size` samples are real."""
    if real_S.all():  # as nearly always
        return np.full(len(real_S) // size, size, np.uint16)
    return real_S.reshape(-1, size).sum(axis=1, dtype=np.uint16)


def _mixed(sounds: list[np.ndarray], reals: list[np.ndarray], num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The sum of some participants' sound, in order, and where any of it is real; silence of nobody."""
    if not sounds:
        return np.zeros(num_samples, np.float32), np.zeros(num_samples, bool)
    heard_S, real_S = sounds[0], reals[0]
    for sound_S, also_S in zip(sounds[1:], reals[1:], strict=True):
        heard_S, real_S = heard_S + sound_S, real_S | also_S
    return heard_S, real_S
