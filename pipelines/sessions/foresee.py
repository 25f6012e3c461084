"""What a session will give, from the headers of its files alone; and what a piece of it costs. The child's verbs `foresee` and `attempt`.

A session is opened as featurising opens it, so that what it will be dropped for is found by the same code and told by the same reason; no
more is decoded than the first frame of each stream. Damage further inside, and a length that a header lies about, are seen by no header.
"""

import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...schemas import record
from ...schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES, num_ticks
from ...schemas.errors import MediaError
from ...schemas.keys import window_key
from ...schemas.manifest import Stream
from ...schemas.pieces import num_bytes
from ...schemas.receipts import MemberAt, WorkItem
from ...schemas.spec import FeatureSpec
from ...schemas.strict import Strict
from ...transforms.media.containers import open_media, streams_of
from ...transforms.patches import grid
from ...transforms.sessions.recording import Recording
from ...transforms.sessions.roles import View, views_of
from ...transforms.sessions.streams import OpenStreams
from ...transforms.sessions.words import Words
from ..storage import folders
from ..storage.folders import Folder
from ..storage.parts import PartReader, PartWriter
from ..storage.tar import TarWriter
from . import receipts
from .featurise import Progress

HASHED_BYTES = 32 << 20  # of an attempt's files: enough to time hashing by
MAX_CPU_S = 10.0  # after which an attempt ends with its window
_STARTED_S = time.process_time()  # what importing took


class ViewForeseen(Strict):
    """A view of a session.

    Attributes:
        heard: heard streams; pairs: of pictures; rows, cols: of patches to a picture.
        word_bytes: UTF-8 bytes of the own words; words: how many they are.
    """

    heard: int
    pairs: int
    rows: int
    cols: int
    words: int
    word_bytes: int


class Foreseen(Strict):
    """A session by its headers.

    Attributes:
        reason, message: why it will be dropped whole, as its ledger row will say; "" where nothing speaks against it.
        samples: its length at 16 kHz; 0 where no header says a length and libav cannot guess one.
        is_said: every length is the container's own claim, and no file is known to be cut short.
        kind: codecs and sizes of its streams: sessions of one kind cost alike.
        words_json_bytes: all its words as words.json holds them.
        is_done: a receipt and its parts stand already.
    """

    key: str
    reason: str = ""
    message: str = ""
    samples: int = 0
    is_said: bool = True
    kind: str = ""
    views: tuple[ViewForeseen, ...] = ()
    words_json_bytes: int = 0
    is_done: bool = False


class Attempt(Strict):
    """What featurising the beginning of a session took.

    Attributes:
        samples: of the session, at 16 kHz; view_ticks: of all views together.
        cpu_s: processor seconds from opening to windows copied into a shard; hash_cpu_s, hashed_bytes: of hashing input besides.
        start_cpu_s: what starting the process took, before anything was asked of it.
        own_ticks: of the views' ticks those with own voice; pairs, picture_bytes: pairs of pictures made, and their payloads.
    """

    kind: str
    samples: int
    view_ticks: int
    cpu_s: float
    hash_cpu_s: float
    hashed_bytes: int
    start_cpu_s: float
    own_ticks: int
    pairs: int
    picture_bytes: int


def foresee_request(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's verb `foresee`: a Foreseen."""
    item = WorkItem.model_validate(request["item"])
    try:
        return _foresee(item, Folder(request["staging"])).model_dump()
    except MediaError as error:
        return Foreseen(key=item.key, reason=error.reason, message=receipts.sentence(item, str(error))).model_dump()


def _foresee(item: WorkItem, staging: Folder) -> Foreseen:
    session, spec = item.session, item.spec

    def open_source(path: str) -> Any:
        return folders.open_source(item.root, path)

    views = views_of(session, spec)
    streams = OpenStreams(session, views, open_source, spec)
    try:
        media = [stream for stream in session.streams if stream.kind != "text"]
        guesses = {path: _guessed_seconds(open_source(path), spec) for path in streams.probes}
        ends = [_end(stream, streams, guesses[stream.path]) for stream in media]
        samples = max((end for end, _ in ends), default=0)
        is_said = all(said for _, said in ends)
        words = Words(session, streams, open_source, spec)
        if is_said and samples < TICK_SAMPLES:
            raise MediaError(f"{samples} samples are less than one tick ({TICK_SAMPLES})", reason="too_short")
        if is_said and samples > (limit := spec.limits.max_session_samples):
            raise MediaError(f"longer than the limit of {limit} samples", reason="limit_session_samples")
        words.settle(samples)
        spoken = Counter(word.participant for word in words.kept)
        bytes_said: Counter[str] = Counter()
        for word in words.kept:
            bytes_said[word.participant] += len(word.text.encode())
        return Foreseen(
            key=item.key,
            samples=samples,
            is_said=is_said,
            kind=_kind(media, streams),
            views=tuple(_view(view, streams, samples, guesses, spoken[view.name], bytes_said[view.name], spec) for view in views),
            words_json_bytes=len(record.encode_json([word.row() for word in words.kept])),
            is_done=(receipt := receipts.settled(item, staging, False)) is not None and receipts.parts_stand(receipt, staging),
        )
    finally:
        streams.close()


Guesses = dict[tuple[str, int], Fraction]


def _guessed_seconds(source: Any, spec: FeatureSpec) -> Guesses:
    """(kind, index) → what libav takes for the stream's length: its header, cut down to the file where libav knows, or its bit rate."""
    with source, open_media(source, spec.limits) as container:
        whole = None if container.duration is None else Fraction(container.duration, 1_000_000)
        found: Guesses = {}
        for kind in ("audio", "video"):
            for index, stream in enumerate(streams_of(container, kind)):
                own = stream.duration * Fraction(stream.time_base) if stream.duration is not None else whole
                if own is not None and 0 < own <= 86_400 * 366:
                    found[kind, index] = own
        return found


def _end(stream: Stream, streams: OpenStreams, guesses: Guesses) -> tuple[int, bool]:
    """(session sample at which the stream ends, whether its file says so)."""
    probe = streams.probes[stream.path].stream(stream.kind, stream.index)
    start, guess = streams.stream_start(stream), guesses.get((stream.kind, stream.index))
    said: Fraction | None = None
    if stream.kind == "audio" and probe.declared >= 0:
        said = Fraction(probe.declared, probe.rate_hz)
    elif probe.stop is not None and probe.first is not None:
        said = probe.stop - probe.first
    length = min(said, guess) if said is not None and guess is not None and stream.kind == "audio" else said if said is not None else guess
    is_said = said is not None and not probe.truncated and (guess is None or guess > said - 1)
    return max(0, round((start + (length or 0)) * SAMPLE_RATE_HZ)), is_said


def _view(
    view: View, streams: OpenStreams, samples: int, guesses: dict[str, Guesses], words: int, word_bytes: int, spec: FeatureSpec
) -> ViewForeseen:
    rows = cols = pairs = 0
    if view.seen is not None:
        size = streams.pictures[view.seen.id].size_px
        rows, cols = grid(*size, spec.pictures) if size else (0, 0)
        first = round(streams.stream_start(view.seen) * SAMPLE_RATE_HZ)
        last = _end(view.seen, streams, guesses[view.seen.path])[0] or samples
        deadlines = range(TICK_SAMPLES // 2 - 1, num_ticks(samples) * TICK_SAMPLES, spec.pictures.every_ticks * TICK_SAMPLES)
        pairs = sum(first <= at and at + TICK_SAMPLES // 2 - last <= spec.pictures.max_age_samples for at in deadlines) if size else 0
    return ViewForeseen(heard=len(view.heard), pairs=pairs, rows=rows, cols=cols, words=words, word_bytes=word_bytes)


def _kind(media: list[Stream], streams: OpenStreams) -> str:
    """Of each recorded stream once: `pcm_s16le 16000 Hz`, `h264 320×180`, joined by ` + `."""
    told: Counter[str] = Counter()
    for path, kind, index in dict.fromkeys((stream.path, stream.kind, stream.index) for stream in media):
        probe = streams.probes[path].stream(kind, index)
        size = f"{probe.rate_hz} Hz" if kind == "audio" else f"{probe.width_px}×{probe.height_px}"
        told[f"{probe.codec} {size}"] += 1
    return " + ".join(f"{count} × {name}" if count > 1 else name for name, count in sorted(told.items()))


def attempt_request(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's verb `attempt`: featurises the session until `samples` of it are done, in the scratch folder; an Attempt.

    Raises what featurising raises.
    """
    began_s = time.process_time()
    item, scratch = WorkItem.model_validate(request["item"]), Folder(request["scratch"])
    done = view_ticks = own_ticks = pairs = picture_bytes = 0
    placed: list[tuple[str, MemberAt]] = []
    with Recording(item.session, lambda path: folders.open_source(item.root, path), item.spec) as recording:
        writer = PartWriter(scratch)
        try:
            for window in recording.windows():
                members = record.media_runs(window.pieces, item.spec.pictures.codec)
                for name, runs in members.items():
                    writer.add(window_key(item.key, window.view.name, window.first_tick), name, runs)
                done = max(done, (window.first_tick + window.num_ticks) * TICK_SAMPLES)
                view_ticks += window.num_ticks
                own_ticks += int(window.pieces["activity"].whole()[-1].sum())
                pairs += window.pieces["picture_tick"].shape[0]
                picture_bytes += sum(num_bytes(runs) for name, runs in members.items() if name.startswith("patches."))
                progress(done)
                enough = done >= request["samples"] or time.process_time() - began_s > MAX_CPU_S
                if enough and window.view.name == recording.views[-1].name:  # before the next window is read
                    break
            placed = [(key, at) for key, members_at in writer.close().items() for at in members_at]
        finally:
            writer.discard()
    _copy(placed, scratch)
    cpu_s = time.process_time() - began_s
    hashed = sum(_hash_some(item, identity.path) for identity in item.files)
    return Attempt(
        kind=request["kind"],
        samples=done,
        view_ticks=view_ticks,
        cpu_s=cpu_s,
        hash_cpu_s=time.process_time() - began_s - cpu_s,
        hashed_bytes=hashed,
        start_cpu_s=_STARTED_S,
        own_ticks=own_ticks,
        pairs=pairs,
        picture_bytes=picture_bytes,
    ).model_dump()


def _copy(placed: list[tuple[str, MemberAt]], scratch: Folder) -> None:
    """As gathering copies members into a shard."""
    path: Path = scratch.scratch()
    with open(path, "wb") as file, PartReader(scratch) as parts:
        tar = TarWriter(file)
        for key, at in placed:
            parts.copy(at, f"{key}.{at.name}", tar)
    path.unlink()


def _hash_some(item: WorkItem, path: str) -> int:
    import hashlib

    with folders.open_source(item.root, path) as file:
        data = file.read(HASHED_BYTES)
    hashlib.sha256(data).hexdigest()
    return len(data)
