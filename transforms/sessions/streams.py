"""The streams of one session, opened and laid on one clock: participants' audio summed, pictures by stream.

The session's zero is the earliest start of its audio and video streams, each placed by its own timestamps (FORMAT.md section 2). Several
tracks of one recorded stream (its left and its right channel) share one decoder.
"""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import PurePath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.errors import MediaError
from ...schemas.manifest import Session, Stream
from ...schemas.spec import FeatureSpec
from ..media.decode import MediaProbe, audio_blocks, probe
from ..media.pictures import PictureTrack
from ..media.place import AudioTrack
from .roles import View

OpenSource = Callable[[str], BinaryIO]


class OpenStreams:
    """Every stream that some view hears or sees.

    Attributes:
        probes: path → what the file holds.
        zero: seconds of the manifest's clock at which the session's clock starts.
        tracks: stream id → audio track.
        audio: participants with audio, sorted.
        pictures: stream id → picture track, for the streams that are seen.
    """

    def __init__(self, session: Session, views: tuple[View, ...], open_source: OpenSource, spec: FeatureSpec) -> None:
        """Opens and probes. Raises MediaError, naming the stream, when one cannot be what the manifest says."""
        self._stack = ExitStack()
        self._open_source, self._spec = open_source, spec
        try:
            media = [stream for stream in session.streams if stream.kind != "text"]
            if not media:
                raise MediaError("the session has neither audio nor video", reason="no_media", hint="name at least one such stream")
            self.probes: dict[str, MediaProbe] = {path: self._probe(path) for path in dict.fromkeys(stream.path for stream in media)}
            self.zero = min(self._manifest_start(stream) for stream in media)
            self._refuse_late(media)
            self.tracks = self._open_audio([stream for stream in media if stream.kind == "audio"])
            seen = {view.seen.id: view.seen for view in views if view.seen}
            self.pictures = {name: self._open_pictures(seen[name]) for name in sorted(seen)}
        except BaseException:
            self._stack.close()
            raise
        self._by_participant: dict[str, list[AudioTrack]] = {}
        for stream in sorted(media, key=lambda s: (s.participant, s.id)):  # by id: the order of a float sum matters
            if stream.kind == "audio":
                self._by_participant.setdefault(stream.participant, []).append(self.tracks[stream.id])
        self.audio = sorted(self._by_participant)

    def close(self) -> None:
        """Closes every file."""
        self._stack.close()

    def file_start(self, stream: Stream) -> Fraction:
        """Seconds on the session's clock at which the stream's file starts."""
        return Fraction(stream.start) - self.zero

    def stream_start(self, stream: Stream) -> Fraction:
        """Seconds on the session's clock at which the stream's first sample or picture is presented."""
        return self._manifest_start(stream) - self.zero

    def read(self, participant: str, num_samples: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The participant's next samples, float32 [n], the sum of their streams, and which of them are real in any, bool [n]."""
        first, *more = self._by_participant[participant]
        samples, real = first.read(num_samples)
        for track in more:
            other, other_real = track.read(num_samples)
            samples, real = samples + other, real | other_real
        return samples, real

    def end_by(self, sample: int) -> int | None:
        """The session's end, if nothing lies at or after `sample`; None if something does."""
        tracks: list[AudioTrack | PictureTrack] = [*self.tracks.values(), *self.pictures.values()]
        if not all(track.exhausted_by(sample) for track in tracks):
            return None
        return max((track.end or 0 for track in tracks), default=0)

    def _refuse_late(self, media: list[Stream]) -> None:
        """Nothing is read of a session in which one stream starts after the longest that a session may be."""
        limit = self._spec.limits.max_session_samples
        for stream in media:
            start = self.stream_start(stream)
            if start * SAMPLE_RATE_HZ > limit:
                allowed = f"which may last {limit / SAMPLE_RATE_HZ:.0f} s"
                raise MediaError(
                    f"{stream.path} ({stream.id}): starts {float(start):.3f} s into the session, {allowed}",
                    reason="limit_session_samples",
                    hint="is its `start` in seconds?",
                )

    def _probe(self, path: str) -> MediaProbe:
        try:
            with self._open_source(path) as source:
                return probe(source, self._spec.limits)
        except IsADirectoryError:
            raise MediaError(f"{path}: a folder, not a file", reason="not_a_file", hint="name the recording in it") from None
        except MediaError as error:
            sentence = str(error).removeprefix(f"{PurePath(path).name}: ")  # the decoder knows the bare name at best
            raise MediaError(f"{path}: {sentence}", reason=error.reason, hint=error.hint) from None

    def _manifest_start(self, stream: Stream) -> Fraction:
        found = self._named(stream, lambda: self.probes[stream.path].stream(stream.kind, stream.index))
        if found.first is None:
            raise MediaError(
                f"{stream.path}, {stream.kind} stream {stream.index}: nothing in it could be decoded", reason="nothing_decoded"
            )
        return Fraction(stream.start) + found.first - self.probes[stream.path].zero

    def _open_audio(self, streams: list[Stream]) -> dict[str, AudioTrack]:
        sharing: dict[tuple[str, int], list[Stream]] = {}
        for stream in streams:
            sharing.setdefault((stream.path, stream.index), []).append(stream)
        tracks = {}
        for (path, index), together in sharing.items():
            source = self._stack.enter_context(self._open_source(path))
            decoder = audio_blocks(source, index, self._spec.limits)
            self._stack.callback(decoder.close)
            # tracks are read in step, and a row gives a file one start, so that tee holds a block or two, not the recording
            for stream, blocks in zip(together, itertools.tee(decoder, len(together)), strict=True):
                tracks[stream.id] = self._named(stream, lambda s=stream, b=blocks: self._track(s, b))
        return tracks

    def _track(self, stream: Stream, blocks) -> AudioTrack:
        file = self.probes[stream.path]
        return AudioTrack(
            blocks,
            file.stream("audio", stream.index),
            zero=file.zero,
            file_start=self.file_start(stream),
            spec=self._spec,
            channel=stream.channel,
            gain=stream.gain,
        )

    def _open_pictures(self, stream: Stream) -> PictureTrack:
        source = self._stack.enter_context(self._open_source(stream.path))
        file = self.probes[stream.path]
        track = self._named(
            stream, lambda: PictureTrack.open(source, file, stream.index, file_start=self.file_start(stream), spec=self._spec)
        )
        self._stack.callback(track.close)
        return track

    @staticmethod
    def _named(stream: Stream, make):
        """`make()`, with the stream's file and id before whatever is wrong with it."""
        try:
            return make()
        except MediaError as error:
            raise MediaError(f"{stream.path} ({stream.id}): {error}", reason=error.reason, hint=error.hint) from None
