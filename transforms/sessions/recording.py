"""A session of the manifest, whole: its media windows, then the labels of each window and its ledger.

Everything that reads a recording goes through here: the batch job, `verify --against`, notebooks.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...schemas.errors import MediaError
from ...schemas.manifest import Session
from ...schemas.spec import FeatureSpec
from ...schemas.tables import LedgerRow
from . import labels, ledger
from .metas import window_metas
from .roles import views_of
from .streams import OpenSource, OpenStreams
from .windows import MediaWindow, SessionMedia
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
        for view in self.views:
            metas = window_metas(self._session, view, self._streams, self._media, self._spec, source_digest)
            for number, meta in enumerate(metas):
                yield view.name, meta.first_tick, {"words": words[number], "events": events[number], "meta": meta.to_json()}

    def ledger(self) -> list[LedgerRow]:
        """Where every sample, picture, word and event of the input went. Decodes what was not read, to count it."""
        return ledger.rows(self._session, self._streams, self._words)

    def ledger_if_dropped(self, error: MediaError) -> list[LedgerRow]:
        """The ledger of a session that `error` drops whole: what had been kept is dropped for its reason."""
        return ledger.dropped_whole(self.ledger(), error)
