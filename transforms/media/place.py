"""One audio stream of one participant on the session's clock: 16 kHz mono, read front to back in bounded memory.

In: timestamped blocks of any rate and channels. Out: float32 samples and what of them is real; afterwards a report that closes to the
sample. A *span* is a run of blocks laid by sample count from its first timestamp. A block further from where the count puts it than the
spec's 40 ms starts a new span, with a fresh resampler: a gap stays zeros, an overlap is cut from the new span's head. Less is recorded
as jitter and drift, not corrected. Span starts are exact rationals, rounded once, half to even. Source: FORMAT.md section 2.

A change of the rate in mid-stream starts a span too, without a gap; a change of the number of channels changes nothing.

Letters: C channels, S samples. Units: *source* samples are at the stream's own rate, *session* samples at 16 kHz.
"""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.errors import MediaError
from ...schemas.spec import FeatureSpec
from .account import ABSURD_LENGTH, Account, TrackReport
from .decode import AudioBlock, Fault, MediaProbe, Source, StreamProbe, audio_blocks
from .probe import check_limits
from .spans import Span, resampled, samples_before
from .tape import Tape

PIECE_SAMPLES = 8192  # source samples that are booked at once: damage that runs on into the next piece is another event of its row
RESAMPLED_PIECES = 8  # that are mixed and resampled at once; no bit depends on it
MAX_LEVEL = 65536.0  # times full scale: beyond it a float sample is damage, not sound, and would ring through its neighbours


class AudioTrack:
    """Read with `read`; ask `exhausted_by` whether anything comes; `report` at the end. `open` takes a file, the constructor its blocks."""

    def __init__(
        self,
        blocks: Iterable[AudioBlock | Fault],
        stream: StreamProbe,
        *,
        zero: Fraction,
        file_start: Fraction,
        spec: FeatureSpec,
        channel: int | None = None,
        gain: Decimal = Decimal(1),
    ) -> None:
        """A track of blocks whose timestamps count from anywhere.

        Args:
            blocks: in the stream's order.
            stream: what the container says of it.
            zero: the file's zero, seconds on the blocks' clock.
            file_start: the file's zero, seconds on the session's clock.
            spec: spans and limits.
            channel: which one, from 0; None averages all.
            gain: linear factor.

        Raises:
            MediaError: `no_such_channel`, or what probe.check_limits refuses.
        """
        check_limits(stream, spec.limits)
        if channel is not None and not 0 <= channel < stream.channels:
            raise MediaError(
                f"audio stream {stream.index}: no channel {channel}, it has {stream.channels}",
                reason="no_such_channel",
                hint="channels are counted from 0; leave `channel` out to average them all",
            )
        self._blocks = iter(blocks)
        self._stream, self._zero, self._file_start = stream, zero, file_start
        self._channel, self._gain = channel, np.float32(gain)
        self._limits, self._break = spec.limits, spec.span_break_samples
        self._account = Account()
        self._tape = Tape()
        self._span: Span | None = None
        self._waiting: list[NDArray[np.float32]] = []  # [C, S] of the span, placed and not yet mixed
        self._num_waiting = 0
        self._piece_ends: list[int] = []  # of the pieces among them
        self._offset: int | None = None
        self._drift = self._jitter = Fraction(0)
        self._gaps = self._filled = 0  # source samples of silence: between spans, and for damage within them
        self._num_spans = self._largest_block = self._rate_hz = self._channels = 0
        self._ended = False

    @classmethod
    def open(
        cls,
        source: Source,
        probe: MediaProbe,
        index: int,
        *,
        file_start: Fraction,
        spec: FeatureSpec,
        channel: int | None = None,
        gain: Decimal = Decimal(1),
    ) -> "AudioTrack":
        """The track of audio stream `index` of a file that has been probed; the file opens at the first read."""
        blocks = audio_blocks(source, index, spec.limits)
        stream = probe.stream("audio", index)
        return cls(blocks, stream, zero=probe.zero, file_start=file_start, spec=spec, channel=channel, gain=gain)

    @property
    def end(self) -> int | None:
        """The session sample after the last real one (0 where there is none); None until the decoder has reached the end."""
        return self._stop if self._ended else None

    @property
    def _stop(self) -> int:
        return 0 if self._span is None else self._span.stop

    def exhausted_by(self, sample: int) -> bool:
        """Whether nothing real lies at or after this session sample. Decodes as far as it takes to know."""
        while not self._ended and self._tape.laid <= sample:
            self._pull()
        return self._ended and self._stop <= sample

    def read(self, num_samples: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The next session samples, float32 [n], and which of them are real, bool [n]: zeros and False before, in gaps and after."""
        while not self._ended and self._tape.laid < self._tape.cursor + num_samples:
            self._pull()
        return self._tape.read(num_samples)

    def report(self) -> TrackReport:
        """What became of the stream. Decodes what was not read, to count it; nothing can be read afterwards."""
        self._tape.close()
        while not self._ended:
            self._pull()
        account, declared = self._account, self._stream.declared
        is_time = self._stream.includes_gaps
        is_exact = not is_time and not self._stream.codec.startswith("mp")  # MPEG's headers count frames, some themselves as well
        missing = declared - account.decoded - (self._gaps if is_time else 0)
        return TrackReport(
            offset_samples=self._offset or 0,
            drift_samples=round(self._drift),
            jitter_samples=round(self._jitter),
            num_spans=self._num_spans,
            rate_hz=self._rate_hz or self._stream.rate_hz,
            channels=self._channels or self._stream.channels,
            peak=self._tape.peak,
            declared=declared,
            decoded=account.decoded,
            kept=account.kept,
            inserted=self._gaps + self._filled,
            missing=missing if declared >= 0 and missing > (0 if is_exact else self._largest_block) else 0,
            dropped=account.dropped,
        )

    def close(self) -> None:
        """Closes the file, if it is still open."""
        close = getattr(self._blocks, "close", None)
        if close:
            close()

    def _pull(self) -> None:
        """Takes one item of the stream."""
        item = next(self._blocks, None)
        if item is None:
            if self._stream.truncated:
                self._drop(0, "truncated", "the container's last page is missing: so is sound, nobody knows how much", "decode")
            if self._stream.absurd:
                self._drop(0, *ABSURD_LENGTH)
            self._end()
        elif isinstance(item, Fault):
            self._drop(0, item.reason, item.message, "decode")
        elif item.samples_CS.shape[1]:
            self._place(item)

    def _place(self, block: AudioBlock) -> None:
        num_samples = block.samples_CS.shape[1]
        self._largest_block = max(self._largest_block, *(block.frames or (num_samples,)))
        span, fits = self._span, self._channel is None or self._channel < len(block.samples_CS)
        if fits and span is not None and span.rate_hz == block.rate_hz and span.takes(block, self._break):
            self._lay(block, 0)
        elif block.frames:
            for frame in block.apart():  # where one frame is not laid, the next may be
                if not self._ended:
                    self._place(frame)
        else:
            if span is None:
                self._rate_hz, self._channels = block.rate_hz, len(block.samples_CS)
            if fits:
                self._break_at(block)
            else:
                self._drop(num_samples, "no_such_channel", f"{len(block.samples_CS)} channels in mid-stream")

    def _break_at(self, block: AudioBlock) -> None:
        """Starts a span with this block, or drops the block where it lies wholly before the end of what is laid, or beyond a limit."""
        span, num_samples = self._span, block.samples_CS.shape[1]
        expected = self._zero if span is None else span.stop_seconds
        seconds = expected if block.pts is None else block.pts * block.time_base
        late = (seconds - expected) * SAMPLE_RATE_HZ
        words = f"{float(late / SAMPLE_RATE_HZ):+.3f} s from where it was expected"
        if late > (self._limits.max_start_samples if span is None else self._limits.max_gap_samples):
            self._drop(num_samples, "limit_start" if span is None else "limit_gap", words + "; the rest is left out")
            self._end()
            return
        if span is not None and abs(late) <= self._break:  # only the rate is new: it goes on where the last span ended
            seconds = max(expected, Fraction(span.stop, SAMPLE_RATE_HZ) - self._file_start + self._zero)
        at = self._file_start + seconds - self._zero
        cut = min(samples_before(self._stop, at, block.rate_hz), num_samples)
        if cut:
            self._drop(cut, "before_zero" if span is None else "overlap", words)
        if cut < num_samples:
            self._start_span(seconds + Fraction(cut, block.rate_hz), block)
            self._lay(block, cut)

    def _start_span(self, seconds: Fraction, block: AudioBlock) -> None:
        """A span whose first sample lies at `seconds` of the stream's clock."""
        start = round((self._file_start + seconds - self._zero) * SAMPLE_RATE_HZ)
        if self._span is None:
            self._offset = start - round(self._file_start * SAMPLE_RATE_HZ)
        else:
            self._gaps += round(Fraction((start - self._stop) * block.rate_hz, SAMPLE_RATE_HZ))
            self._finish_span()
        self._tape.skip_to(start)
        self._span = Span(start, seconds, block)
        self._num_spans += 1

    def _lay(self, block: AudioBlock, cut: int) -> None:
        """Puts the block's samples from `cut` on at the span's end. They wait: a call for every 20 ms would cost more than its work."""
        padding = min(block.padding, block.samples_CS.shape[1] - cut)
        samples_CS = block.samples_CS[:, cut : block.samples_CS.shape[1] - padding]
        if self._waiting and len(self._waiting[0]) != len(samples_CS):
            self._flush()
        stop = 0
        for length in block.frames or (samples_CS.shape[1],):  # pieces end where a frame does
            stop += length
            at = self._num_waiting + stop
            if at - (self._piece_ends[-1] if self._piece_ends else 0) >= PIECE_SAMPLES:
                self._piece_ends.append(at)
        self._waiting.append(samples_CS)
        self._num_waiting += stop
        self._span.num_samples += stop
        if len(self._piece_ends) >= RESAMPLED_PIECES:
            self._flush()
        if padding:
            self._drop(padding, "codec_padding", "beyond the end that the container gives", "decode")

    def _drop(self, units: int, reason: str, message: str, stage: str = "place") -> None:
        self._flush()  # rows lie where their units do
        self._account.drop(units, reason, message, stage)

    def _flush(self) -> None:
        """Mixes down, books and resamples what waits."""
        if not self._waiting:
            return
        samples_CS = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting, axis=1)
        piece_ends, self._waiting, self._num_waiting, self._piece_ends = self._piece_ends, [], 0, []
        with np.errstate(over="ignore", invalid="ignore"):
            mono = _mean(samples_CS) if self._channel is None else samples_CS[self._channel]
            mono = mono if self._gain == 1 else mono * self._gain
        if not len(mono) or (mono.max() <= MAX_LEVEL and mono.min() >= -MAX_LEVEL):  # False for NaN too
            self._account.keep(len(mono))
        else:
            is_sound = np.abs(mono) <= np.float32(MAX_LEVEL)
            mono = np.where(is_sound, mono, np.float32(0))
            self._book_damage(is_sound, piece_ends)
        self._tape.lay(self._span.resampler.step(mono))

    def _book_damage(self, is_sound: NDArray[np.bool_], piece_ends: list[int]) -> None:
        """Books the runs of each piece that are sound and those that are not; the latter are laid as zeros that are not real."""
        span, first = self._span, self._span.resampler.num_in
        edges = {0, *(np.flatnonzero(np.diff(is_sound)) + 1).tolist(), *piece_ends, len(is_sound)}
        for start, stop in pairwise(sorted(edges)):
            if is_sound[start]:
                self._account.keep(stop - start)
                continue
            self._account.drop(stop - start, "non_finite", f"not a number, infinite or beyond {MAX_LEVEL:.0f} times full scale")
            self._filled += stop - start
            hole_start = span.start + (first + start) * SAMPLE_RATE_HZ // span.rate_hz
            self._tape.make_hole(hole_start, span.start + resampled(first + stop, span.rate_hz))

    def _finish_span(self) -> None:
        self._flush()
        self._tape.lay(self._span.resampler.finish())
        self._drift = self._span.last_departure
        self._jitter = max(self._jitter, self._span.largest_departure)

    def _end(self) -> None:
        if self._span is not None:
            self._finish_span()
        self._ended = True
        self.close()


def _mean(samples_CS: NDArray[np.float32]) -> NDArray[np.float32]:
    """The channels' mean, added one after another: numpy's own sum takes another order where a piece is one sample long, or lies packed."""
    total = samples_CS[0]
    for samples_S in samples_CS[1:]:
        total = total + samples_S
    return total / np.float32(len(samples_CS))
