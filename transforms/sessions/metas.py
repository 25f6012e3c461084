"""The meta of every window of a session: what featurising knows of it (schemas/meta.py WindowMeta)."""

from collections.abc import Iterator

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.keys import session_key
from ...schemas.manifest import Session, Stream
from ...schemas.meta import CustomMeta, DigestsMeta, LevelMeta, ParticipantMeta, PicturesMeta, StreamMeta, WindowMeta
from ...schemas.spec import FeatureSpec
from ..media.place import TrackReport
from .labels import level_db
from .roles import View
from .streams import OpenStreams
from .windows import SessionMedia


def window_metas(
    session: Session, view: View, streams: OpenStreams, media: SessionMedia, spec: FeatureSpec, source_digest: str
) -> Iterator[WindowMeta]:
    """The metas of a view's windows, in order of time, without a tail. `source_digest` identifies the input."""
    first = WindowMeta(
        session=session_key(session.id),
        session_id=session.id,
        session_ticks=media.num_ticks,
        session_samples=media.num_samples,
        window_ticks=spec.window_ticks,
        group=session.group,
        language=session.language,
        source=session.source,
        license=session.license,
        consent=session.consent,
        custom=tuple(CustomMeta(key=key, value=value) for key, value in sorted(session.custom.items())),
        participants=tuple(ParticipantMeta(id=p.id, speaker=p.speaker, role=p.role) for p in session.cast()),
        streams=tuple(_stream_meta(stream, streams) for stream in session.streams),
        levels=tuple(
            LevelMeta(participant=name, db=level_db(squares, count), samples=count)
            for name, (squares, count) in sorted(media.energy.items())
        ),
        digests=DigestsMeta(source=source_digest, spec=spec.digest()),
        view=view.name,
        role=view.participant.role,
        speaker=view.participant.speaker,
        heard=view.heard,
        pictures=_pictures_meta(view, streams, media, spec),
        first_tick=0,
        num_ticks=0,
        tail_ticks=0,
    )
    for first_tick in range(0, media.num_ticks, spec.window_ticks):
        num_ticks = min(spec.window_ticks, media.num_ticks - first_tick)
        yield first.model_copy(update={"first_tick": first_tick, "num_ticks": num_ticks})


def _stream_meta(stream: Stream, streams: OpenStreams) -> StreamMeta:
    probe = streams.probes[stream.path].stream(stream.kind, stream.index) if stream.kind != "text" else None
    track = streams.tracks.get(stream.id) or streams.pictures.get(stream.id)
    report = track.report() if track else None
    sound = report if isinstance(report, TrackReport) else None
    return StreamMeta(
        id=stream.id,
        participant=stream.participant,
        kind=stream.kind,
        used=report is not None,
        codec=probe.codec if probe else "",
        start_samples=round(streams.stream_start(stream) * SAMPLE_RATE_HZ) if probe else 0,
        offset_samples=report.offset_samples if report else 0,
        drift_samples=sound.drift_samples if sound else 0,
        jitter_samples=sound.jitter_samples if sound else 0,
        num_spans=sound.num_spans if sound else 0,
        rate_hz=sound.rate_hz if sound else 0,
        channels=sound.channels if sound else 0,
        channel=-1 if stream.channel is None else stream.channel,
        gain=str(stream.gain),
        peak=round(float(sound.peak), 6) if sound else 0.0,
    )


def _pictures_meta(view: View, streams: OpenStreams, media: SessionMedia, spec: FeatureSpec) -> PicturesMeta:
    rows, cols = media.grid(view)
    height, width = streams.pictures[view.seen.id].size_px or (0, 0) if view.seen else (0, 0)
    return PicturesMeta(
        stream=view.seen.id if view.seen else "",
        participant=view.seen.participant if view.seen else "",
        rows=rows,
        cols=cols,
        height_px=height,
        width_px=width,
        tiling=spec.pictures.tiling,
        codec=spec.pictures.codec,
    )
