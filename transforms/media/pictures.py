"""One video stream of one participant on the session's clock: for a tick the pair of pictures that its two deadlines choose.

In: decoded pictures with timestamps. Out: pairs of uint8 RGB pictures and their times. The pair of tick k is the latest picture at or
before session sample 3200k + 1599 and the latest at or before 3200k + 3199, each at most `max_age_samples` old at its own deadline.
Where either is missing there is no pair: a picture that was not there is not made up from its neighbour. Source: FORMAT.md section 2.

Decoding is the cost and cannot be avoided; only chosen pictures are converted. One picture is decoded ahead, so memory is a few frames.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES
from ...schemas.spec import FeatureSpec
from .account import ABSURD_LENGTH, Account, PictureReport
from .decode import Fault, MediaProbe, PictureFrame, Source, StreamProbe, pictures
from .probe import check_limits
from .rgb import RgbScaler, can_convert

_FIRST_DEADLINE = TICK_SAMPLES // 2 - 1
_SECOND_DEADLINE = TICK_SAMPLES - 1
_TRUNCATED_SECONDS = 1  # a stream that ends so much before the end its container gives has lost pictures


@dataclass(frozen=True, slots=True)
class Pair:
    """What is seen in a tick.

    Attributes:
        pictures: uint8 [2, H, W, 3], the earlier one first; both may be the same.
        pts_samples: when each was shown, session samples.
    """

    pictures: NDArray[np.uint8]
    pts_samples: tuple[int, int]


class _Shown:
    """A picture at its session sample; converted when first asked for."""

    def __init__(self, sample: int, shot: PictureFrame) -> None:
        self.sample = sample
        self.is_used = False
        self._shot: PictureFrame | None = shot
        self._rgb: NDArray[np.uint8] | None = None

    def rgb(self, scaler: RgbScaler) -> NDArray[np.uint8]:
        if self._shot is not None:
            self._rgb, self._shot = scaler.convert(self._shot.frame, self._shot.pixel_aspect), None
        return self._rgb


class _Last(NamedTuple):
    """The latest picture's timestamp, and the one at which it has been shown long enough, in units of its time base."""

    pts: int
    stop: int
    time_base: Fraction


class PictureTrack:
    """Ask `pair` for ascending ticks, `exhausted_by` whether anything comes, `report` at the end."""

    def __init__(
        self, shots: Iterable[PictureFrame | Fault], stream: StreamProbe, *, zero: Fraction, file_start: Fraction, spec: FeatureSpec
    ) -> None:
        """A track of pictures whose timestamps count from anywhere; arguments as AudioTrack's. Raises what probe.check_limits refuses."""
        check_limits(stream, spec.limits)
        self._shots = iter(shots)
        self._stream, self._file_start = stream, file_start
        self._spec, self._limits = spec.pictures, spec.limits
        self._account = Account()
        self._scaler: RgbScaler | None = None
        self._current: _Shown | None = None  # the latest at or before the last deadline
        self._ahead: _Shown | None = None  # the next one
        self._last: _Last | None = None
        self._origin = (file_start - zero) * SAMPLE_RATE_HZ
        self._time_base: Fraction | None = None
        self._per_sample = self._per_unit = self._first = 0  # counted in integers of a common fraction of a session sample
        self._offset: int | None = None
        self._stop = self._deadline = 0
        self._num_used = self._num_corrupt = self._width_px = self._height_px = 0
        self._is_started = self._ended = False

    @classmethod
    def open(cls, source: Source, probe: MediaProbe, index: int, *, file_start: Fraction, spec: FeatureSpec) -> "PictureTrack":
        """The track of video stream `index` of a file that has been probed; the file opens when a picture is first asked for."""
        shots = pictures(source, index, spec.limits)
        return cls(shots, probe.stream("video", index), zero=probe.zero, file_start=file_start, spec=spec)

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(height, width) of every picture of this track; None for a stream without pictures. Decodes the first one."""
        self._start()
        return self._scaler.size_px if self._scaler else None

    @property
    def end(self) -> int | None:
        """The session sample after the last picture's (0 where there is none); None until the decoder has reached the end."""
        return self._stop if self._ended else None

    def exhausted_by(self, sample: int) -> bool:
        """Whether no picture lies at or after this session sample. Ask no further than the first deadline of the next tick you want."""
        self._latest(max(sample - 1, self._deadline))
        return self._ended and self._stop <= sample

    def pair(self, tick: int) -> Pair | None:
        """The pictures of a tick, later than any asked for before; None where either is missing or too old."""
        deadlines = [tick * TICK_SAMPLES + within for within in (_FIRST_DEADLINE, _SECOND_DEADLINE)]
        chosen = [self._latest(deadline) for deadline in deadlines]
        for shown, deadline in zip(chosen, deadlines, strict=True):
            if shown is None or deadline - shown.sample > self._spec.max_age_samples:
                return None
        for shown in chosen:
            self._num_used += not shown.is_used
            shown.is_used = True
        first, second = chosen
        return Pair(np.stack([first.rgb(self._scaler), second.rgb(self._scaler)]), (first.sample, second.sample))

    def report(self) -> PictureReport:
        """What became of the stream. Decodes what was not asked for, to count it; no pair can be had afterwards."""
        self._start()
        while not self._ended:
            self._ahead = self._next()
        self._current = self._ahead = None
        account, declared = self._account, self._stream.declared
        return PictureReport(
            offset_samples=self._offset or 0,
            declared=declared,
            decoded=account.decoded,
            used=self._num_used,
            between=account.kept - self._num_used,
            corrupt=self._num_corrupt,
            missing=max(declared - account.decoded, 0) if declared >= 0 else 0,
            width_px=self._width_px,
            height_px=self._height_px,
            dropped=account.dropped,
        )

    def close(self) -> None:
        """Closes the file, if it is still open."""
        close = getattr(self._shots, "close", None)
        if close:
            close()

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._ahead = self._next()

    def _latest(self, deadline: int) -> _Shown | None:
        """The latest picture at or before this session sample, of those not passed already."""
        assert deadline >= self._deadline, "pictures are asked for in ascending order"
        self._deadline = deadline
        self._start()
        while self._ahead is not None and self._ahead.sample <= deadline:
            self._current, self._ahead = self._ahead, self._next()
        return self._current

    def _next(self) -> _Shown | None:
        """The next picture that can be shown; None at the end."""
        while not self._ended:
            shot = next(self._shots, None)
            if shot is None:
                self._finish()
            elif isinstance(shot, Fault):
                self._num_corrupt += 1
                self._account.drop(0, shot.reason, shot.message, "decode")
            else:
                sample = self._sample_of(shot)
                refusal = self._refusal(shot, sample)
                if refusal is None:
                    return self._placed(shot, sample)
                self._account.drop(1, *refusal)
                if refusal[0].startswith("limit"):
                    self._finish()
        return None

    def _sample_of(self, shot: PictureFrame) -> int | None:
        """The session sample at which the picture is shown: an exact rational, rounded once, half to even."""
        if shot.pts is None:
            return None
        if shot.time_base is not self._time_base:
            unit = shot.time_base * SAMPLE_RATE_HZ
            self._time_base, self._per_sample = shot.time_base, math.lcm(unit.denominator, self._origin.denominator)
            self._per_unit = unit.numerator * (self._per_sample // unit.denominator)
            self._first = self._origin.numerator * (self._per_sample // self._origin.denominator)
        sample, rest = divmod(self._first + shot.pts * self._per_unit, self._per_sample)
        return sample + (2 * rest + (sample & 1) > self._per_sample)

    def _refusal(self, shot: PictureFrame, sample: int | None) -> tuple[str, str, str] | None:
        """Reason, message and stage of a picture that cannot be shown."""
        if shot.frame.is_corrupt:
            self._num_corrupt += 1
            return "corrupt_picture", "libav concealed damage in it", "decode"
        if not can_convert(shot.frame.format.name, shot.frame.colorspace):
            return "no_conversion", f"{shot.frame.format.name} with colour matrix {shot.frame.colorspace} cannot become RGB", "decode"
        if sample is None:
            return "no_timestamp", "a picture without a time", "place"
        is_first = self._last is None
        late = sample - (round(self._file_start * SAMPLE_RATE_HZ) if is_first else self._stop - 1)
        words = f"{late:+d} samples from " + ("the file's zero" if is_first else "the picture before it")
        if not is_first and shot.pts < self._last.pts:
            return "timestamp_backwards", words, "place"
        if late > (self._limits.max_start_samples if is_first else self._limits.max_gap_samples):
            return "limit_start" if is_first else "limit_gap", words + "; the rest is left out", "place"
        if sample < 0:
            return "before_zero", words, "place"
        return None

    def _placed(self, shot: PictureFrame, sample: int) -> _Shown:
        self._account.keep(1)
        if self._last is None:
            self._offset = sample - round(self._file_start * SAMPLE_RATE_HZ)
            self._width_px, self._height_px = shot.frame.width, shot.frame.height
            self._scaler = RgbScaler(shot.frame, shot.pixel_aspect, self._spec)
        self._last = _Last(shot.pts, shot.pts + (shot.frame.duration or 0), shot.time_base)
        self._stop = sample + 1
        return _Shown(sample, shot)

    def _finish(self) -> None:
        self._ended = True
        stop, last = self._stream.stop, self._last
        if self._stream.truncated or (stop is not None and last is not None and stop - last.stop * last.time_base > _TRUNCATED_SECONDS):
            self._account.drop(0, "truncated", "the container says that the stream goes on", "decode")
        if self._stream.absurd:
            self._account.drop(0, *ABSURD_LENGTH)
        self.close()
