"""A session of the manifest, whole: its media windows, then the labels of each window and its ledger.

Everything that reads a recording goes through here: the batch job, `verify --against`, notebooks.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..schemas.errors import MediaError
from ..schemas.keys import session_key
from ..schemas.manifest import Session
from ..schemas.spec import FeatureSpec
from ..schemas.tables import LedgerRow
from . import labels, ledger
from .roles import views_of
from .session import MediaWindow, SessionMedia
from .streams import OpenSource, OpenStreams
from .words import Words


class Recording:
    """One session, opened. Iterate `windows()` to its end, then ask for `labels` and `ledger`. Close it, or use it as a context.

    Raises MediaError on opening when a stream cannot be what the row says, or nobody has a view.
    """

    def __init__(self, session: Session, open_source: OpenSource, spec: FeatureSpec) -> None:
        self._session, self._spec = session, spec
        self.views = views_of(session, spec)
        self._streams = OpenStreams(session, self.views, open_source, spec)
        try:
            self._media = SessionMedia(self._streams, self.views, spec)
            self._words = Words(session, self._streams, open_source, spec)
        except BaseException:
            self._streams.close()
            raise
        self._labels: dict[tuple[str, int], dict[str, Any]] = {}

    def close(self) -> None:
        """Closes every file."""
        self._streams.close()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def windows(self) -> Iterator[MediaWindow]:
        """The media members of every window of every view, in order of time. Raises MediaError; see SessionMedia.windows."""
        yield from self._media.windows()
        self._words.settle(self._media.num_samples)

    @property
    def num_ticks(self) -> int:
        """Ticks of the session; known when `windows()` is at its end."""
        return self._media.num_ticks

    @property
    def tail_codes(self) -> dict[str, np.ndarray]:
        """View → uint8 [H, 80], codes of the frame after the last tick."""
        return self._media.tail_codes

    def labels(self, source_digest: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(view, first tick, `words`, `events` and `meta`) of every window, view by view in order of time.

        `source_digest` identifies the input in `meta`; the layout adds its own keys to `meta` later.
        """
        size = self._spec.window_ticks
        count = -(-self.num_ticks // size)
        words = labels.by_window([word.row() for word in self._words.kept], size, count)
        found = labels.found_events(self._media, self._words.kept, self._spec)
        events = labels.by_window([*self._words.events, *found], size, count)
        session = self._session_meta(source_digest)
        for view in self.views:
            mine = session | self._view_meta(view)
            for number in range(count):
                first_tick = number * size
                place = {"first_tick": first_tick, "num_ticks": min(size, self.num_ticks - first_tick), "tail_ticks": 0}
                yield view.name, first_tick, {"words": words[number], "events": events[number], "meta": mine | place}

    def ledger(self) -> list[LedgerRow]:
        """Where every sample, picture, word and event of the input went. Decodes what was not read, to count it."""
        return ledger.rows(self._session, self._streams, self._words)

    def ledger_if_dropped(self, error: MediaError) -> list[LedgerRow]:
        """The ledger of a session that `error` drops whole: what had been kept is dropped for its reason."""
        return ledger.dropped_whole(self.ledger(), error)

    def _session_meta(self, source_digest: str) -> dict[str, Any]:
        """What is the same in every window of every view. No path, no null, the same keys and types in every corpus."""
        session = self._session
        return {
            "session": session_key(session.id),
            "session_id": session.id,
            "session_ticks": self.num_ticks,
            "session_samples": self._media.num_samples,
            "window_ticks": self._spec.window_ticks,
            "group": session.group,
            "language": session.language,
            "source": session.source,
            "license": session.license,
            "consent": session.consent,
            "custom": [{"key": key, "value": value} for key, value in sorted(session.custom.items())],  # a mapping would have other keys
            "participants": [{"id": p.id, "speaker": p.speaker, "role": p.role} for p in session.cast()],
            "streams": ledger.stream_metas(session, self._streams),
            "levels": [
                {"participant": name, "db": labels.level_db(*self._media.energy[name]), "samples": self._media.energy[name][1]}
                for name in sorted(self._media.energy)
            ],
            "digests": {"source": source_digest, "spec": self._spec.digest()},
        }

    def _view_meta(self, view) -> dict[str, Any]:
        rows, cols = self._media.grid(view)
        height, width = self._streams.pictures[view.seen.id].size_px or (0, 0) if view.seen else (0, 0)
        return {
            "view": view.name,
            "role": view.participant.role,
            "speaker": view.participant.speaker,
            "heard": [list(mix) for mix in view.heard],
            "pictures": {
                "stream": view.seen.id if view.seen else "",
                "participant": view.seen.participant if view.seen else "",
                "rows": rows,
                "cols": cols,
                "height_px": height,
                "width_px": width,
                "tiling": self._spec.pictures.tiling,
                "codec": self._spec.pictures.codec,
            },
        }
