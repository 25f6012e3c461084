"""Drawing and playing: a recording, or a window of a corpus, on the grid of 200 ms ticks. For notebooks; needs matplotlib.

Every function draws onto axes that it is given and returns them. Time runs to the right in seconds of the session's clock, with a line at
each tick. Heard is blue and above, own is orange and below (Okabe and Ito's colours, which people who see few colours tell apart).

Letters: S samples, T ticks, F frames, I sub-frames, B bands.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from ..schemas.clock import FRAME_SAMPLES, SAMPLE_RATE_HZ, TICK_SAMPLES, clock_text
from ..schemas.layout import LayoutSpec, Slot
from ..schemas.record import Record
from ..schemas.spec import DmelSpec
from ..transforms import dmel, patches
from ..transforms.mel import bank
from ..transforms.tokens.tokenizer import Tokenizer
from .lag import rows_of
from .ticks import printable, spell

HEARD, OWN, INK, RULE = "#0072B2", "#D55E00", "#333333", "#d5d5d5"
SHADED = ("gap", "overlap", "backchannel", "interruption")
MAX_TICK_LINES = 150
QUIET_PEAK = 1_600  # -26 dB re full scale: what is quieter is drawn as quiet
ENVELOPE_SAMPLES = 32  # 2 ms: finer than a pixel of any figure that shows more than a second
_BOX_COLOURS = {
    Slot.PICTURE: "#fdf6c3", Slot.PATCH: "#fdf6c3", Slot.HEARD: "#c6def0", Slot.TYPED: "#e4e4e4", Slot.BACKGROUND: "#e4e4e4",
    Slot.PERFORM: "#ffffff", Slot.SAY: "#bfe6d9", Slot.CONTROL: "#eecfdf", Slot.VOICE: "#ffffff", Slot.OWN: "#f7d3bd",
}  # fmt: skip

Row = Mapping[str, Any]


def voices(
    ax: Axes,
    heard_S: NDArray[np.int16],
    own_S: NDArray[np.int16],
    *,
    start: int,
    view: str = "own",
    words: Iterable[Row] = (),
    events: Iterable[Row] = (),
    active_2T: NDArray[np.uint8] | None = None,
) -> Axes:
    """Two waveforms, int16 [S] from session sample `start`, each scaled to its own peak unless that is quiet: heard above, own below.

    `words` and `events` are a record's, `view` says whose words are own. `active_2T`, uint8, heard and own, of the ticks from `start` on,
    shows as a bar under each. Gaps, overlaps, backchannels and interruptions are named in the middle, where they happen.
    """
    stop = start + max(len(heard_S), len(own_S))
    for base, samples_S, colour in ((1.2, heard_S, HEARD), (-1.2, own_S, OWN)):
        _waveform(ax, samples_S, start, base, colour)
    for base, row, colour in ((0.4, 0, HEARD), (-2.0, 1, OWN)):
        if active_2T is not None:
            spans = [(_seconds(start + at * TICK_SAMPLES), TICK_SAMPLES / SAMPLE_RATE_HZ) for at in np.flatnonzero(active_2T[row]).tolist()]
            ax.broken_barh(spans, (base, 0.08), color=colour, linewidth=0)
    for word in words:
        if start <= word["start"] < stop:
            own = word["participant"] == view
            place = (_seconds(word["start"]), -0.5 if own else 1.9)
            ax.text(*place, printable(word["text"]), fontsize=8, rotation=25, color=OWN if own else HEARD, clip_on=True)
    for event in events:
        if event["kind"] in SHADED and start <= event["start"] < stop:
            x, width = _seconds(event["start"]), _seconds(event["stop"] - event["start"])
            ax.broken_barh([(x, width)], (0.02, 0.08), color=INK, linewidth=0)
            ax.text(x, 0.14, event["kind"], fontsize=7, color=INK, clip_on=True)
    ax.set_yticks([1.2, -1.2], ["heard", view])
    ax.set_ylim(-2.1, 2.5)
    ax.set_ylabel("amplitude, of its own peak")
    return _on_ticks(ax, start, stop)


def heard_codes(ax: Axes, codes: NDArray[np.uint8], *, start_tick: int = 0, spec: DmelSpec = dmel.REFERENCE) -> Axes:
    """dMel codes uint8 [F, B] or [T, 4, B] as an image: a column is 50 ms, a row a band; colour is the log10 that the code stands for."""
    image = _spectrogram(ax, codes.reshape(-1, codes.shape[-1]), FRAME_SAMPLES, start_tick, _centres_hz(spec))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01, label="code, 0.6 of log₁₀ magnitude a step")
    bar.set_ticks(range(0, spec.num_codes, 5))
    image.set_clim(0, spec.num_codes - 1)
    return ax


def own_mel(ax: Axes, mel_IB: NDArray[np.float16], *, start_tick: int = 0) -> Axes:
    """Own mel float16 [I, B] as an image: a column is 12.5 ms, four to a frame."""
    image = _spectrogram(ax, mel_IB.astype(np.float32), FRAME_SAMPLES // 4, start_tick, _centres_hz(dmel.REFERENCE))
    ax.figure.colorbar(image, ax=ax, pad=0.01, label="log₁₀ magnitude")
    return ax


def picture_pair(axes: Iterable[Axes], pair: NDArray[np.uint8], pts_2: NDArray[np.int64], pictures: Row) -> list[Axes]:
    """The two pictures of a pair, uint8 [rows, cols, 2, 40, 40, 3], joined from their patches, whose edges are drawn over them.

    `pts_2` are session samples; `pictures` is the meta's mapping of that name, for the size.
    """
    drawn = []
    for which, ax in enumerate(axes):
        ax.imshow(patches.join(pair[:, :, which], pictures["height_px"], pictures["width_px"]))
        for lines, stop in ((ax.axvline, pictures["width_px"]), (ax.axhline, pictures["height_px"])):
            for edge in range(40, stop, 40):
                lines(edge - 0.5, color="white", linewidth=0.6, alpha=0.7)
        ax.set_title(f"shown since {clock_text(int(pts_2[which]))}", fontsize=10)
        ax.set_xlabel("pixels; a patch is 40 wide and high")
        ax.xaxis.set_major_locator(MultipleLocator(80))
        ax.yaxis.set_major_locator(MultipleLocator(80))
        drawn.append(ax)
    return drawn


def token_strip(ax: Axes, record: Record, layout: LayoutSpec, tokenizer: Tokenizer | None, *, start_tick: int, stop_tick: int) -> Axes:
    """The tokens of the window's ticks [start_tick, stop_tick), a column a tick, in their order from top to bottom: perceived above the
    line, performed below it. Runs of equal positions are one box with their number; text reads as text."""
    first = record.meta["first_tick"]
    tick_N = rows_of(record.token_slot) - int(first == 0)
    highest = lowest = 1
    for tick in range(start_tick, stop_tick):
        here = tick_N == tick
        boxes = _boxes(record.token_slot[here], record.tokens[here], layout, tokenizer)
        num_perceived = sum(slot < Slot.PERFORM for slot, _ in boxes)
        for at, (slot, label) in enumerate(boxes):
            _box(ax, first + tick, num_perceived - 1 - at, slot, label)
        highest, lowest = max(highest, num_perceived), max(lowest, len(boxes) - num_perceived)
    ax.set_ylim(-lowest - 0.1, highest + 0.1)
    ax.set_yticks([highest / 2, -lowest / 2], ["perceived", "performed"], rotation=90, va="center")
    ax.tick_params(axis="y", length=0)
    _on_ticks(ax, (first + start_tick) * TICK_SAMPLES, (first + stop_tick) * TICK_SAMPLES)
    ax.axhline(0, color=INK, linewidth=1.2)
    return ax


def player(heard_S: NDArray[np.int16], own_S: NDArray[np.int16]) -> Any:
    """An IPython player of two parties in stereo, int16 [S] at 16 kHz each: what is heard on the left, own speech on the right."""
    from IPython.display import Audio

    length = max(len(heard_S), len(own_S))
    stereo = np.stack([np.pad(samples, (0, length - len(samples))) for samples in (heard_S, own_S)])
    return Audio(stereo / 32_768, rate=SAMPLE_RATE_HZ, normalize=False)


def _waveform(ax: Axes, samples_S: NDArray[np.int16], start: int, base: float, colour: str) -> None:
    """The least and the greatest sample of every 2 ms, as a filled line."""
    num = -(-len(samples_S) // ENVELOPE_SAMPLES)
    padded = np.pad(samples_S, (0, num * ENVELOPE_SAMPLES - len(samples_S))).reshape(num, ENVELOPE_SAMPLES).astype(np.float64)
    scale = 0.68 / max(float(np.abs(padded).max(initial=0)), QUIET_PEAK)
    times = (start + (np.arange(num) + 0.5) * ENVELOPE_SAMPLES) / SAMPLE_RATE_HZ
    ax.fill_between(times, base + padded.min(axis=1) * scale, base + padded.max(axis=1) * scale, color=colour, linewidth=0.5)


def _spectrogram(ax: Axes, values_FB: NDArray[Any], hop_samples: int, start_tick: int, centres_hz: NDArray[np.float64]) -> Any:
    start = start_tick * TICK_SAMPLES
    stop = start + len(values_FB) * hop_samples
    extent = (_seconds(start), _seconds(stop), -0.5, values_FB.shape[1] - 0.5)
    image = ax.imshow(values_FB.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    bands = [int(np.argmin(np.abs(centres_hz - hz))) for hz in (250, 500, 1000, 2000, 4000)]
    ax.set_yticks(bands, ["250", "500", "1k", "2k", "4k"])
    ax.set_ylabel("mel band, Hz")
    _on_ticks(ax, start, stop, colour="#ffffff50", zorder=2)
    return image


def _centres_hz(spec: DmelSpec) -> NDArray[np.float64]:
    """Where each band is most sensitive, Hz."""
    return bank(spec).toarray().argmax(axis=1) * spec.sample_rate_hz / spec.fft_window_samples


def _on_ticks(ax: Axes, start: int, stop: int, colour: str = RULE, zorder: float = 0.5) -> Axes:
    """Time axis of [start, stop) in seconds, with a thin line at every tick."""
    if stop - start <= MAX_TICK_LINES * TICK_SAMPLES:
        for tick in range(-(-start // TICK_SAMPLES), stop // TICK_SAMPLES + 1):
            ax.axvline(_seconds(tick * TICK_SAMPLES), color=colour, linewidth=0.6, zorder=zorder)
    ax.set_xlim(_seconds(start), _seconds(stop))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=[1, 2, 4, 5, 10]))
    ax.set_xlabel("session clock, seconds; a line every tick (200 ms)")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def _boxes(slots: NDArray[np.uint8], ids: NDArray[np.int32], layout: LayoutSpec, tokenizer: Tokenizer | None) -> list[tuple[Slot, str]]:
    """(slot, label) of each box of one tick, in order."""
    found: list[tuple[Slot, str]] = []
    for slot, run in groupby(zip(slots.tolist(), ids.tolist(), strict=True), key=lambda token: Slot(token[0])):
        run_ids = [id_ for _, id_ in run]
        if slot in (Slot.PATCH, Slot.HEARD, Slot.OWN):
            found.append((slot, f"{slot.name.lower()} ×{len(run_ids)}"))
        else:
            found += [(slot, piece) for piece in spell(run_ids, layout, tokenizer)]
    return found


def _box(ax: Axes, tick: int, bottom: int, slot: Slot, label: str) -> None:
    x, width = _seconds(tick * TICK_SAMPLES), TICK_SAMPLES / SAMPLE_RATE_HZ
    inset = 0.03 * width
    ax.add_patch(
        Rectangle((x + inset, bottom + 0.06), width - 2 * inset, 0.88, facecolor=_BOX_COLOURS[slot], edgecolor=RULE, linewidth=0.6)
    )
    ax.text(x + width / 2, bottom + 0.5, label, ha="center", va="center", fontsize=7.5, color=INK, clip_on=True)


def _seconds(sample: int) -> float:
    """For the axis only."""
    return sample / SAMPLE_RATE_HZ
