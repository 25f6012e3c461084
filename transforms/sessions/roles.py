"""Who acts, whom they hear, what they see: the views of a session. FORMAT.md sections 1 and 3, DESIGN.md section 2."""

from dataclasses import dataclass

from ...schemas.errors import MediaError
from ...schemas.manifest import Participant, Session, Stream
from ...schemas.spec import FeatureSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A session as one participant lives it.

    Attributes:
        participant: who acts; their own speech is performed.
        heard: for each heard stream, the participants whose audio is summed in it; () where there is nobody to hear.
        seen: the stream whose pictures are perceived, None where the others show nothing.
    """

    participant: Participant
    heard: tuple[tuple[str, ...], ...]
    seen: Stream | None

    @property
    def name(self) -> str:
        """The view's name: its participant's id."""
        return self.participant.id


def views_of(session: Session, spec: FeatureSpec) -> tuple[View, ...]:
    """The session's views, sorted by name. Every `assistant` has one; so has every `user` with audio, unless the spec says otherwise.

    What the others say and show is perceived: their audio, and the first stream of pictures in the row that is not one's own.
    Raises MediaError (`no_view`) when nobody has one.
    """
    with_audio = {stream.participant for stream in session.streams if stream.kind == "audio"}
    views = []
    for person in session.cast():
        if person.role == "assistant" or (person.role == "user" and spec.views == "all" and person.id in with_audio):
            others = tuple(sorted(with_audio - {person.id}))
            heard = (others,) if spec.heard == "sum" or not others else tuple((other,) for other in others)
            seen = next((s for s in session.streams if s.kind == "video" and s.participant != person.id), None)
            views.append(View(participant=person, heard=heard, seen=seen))
    if not views:
        raise MediaError(
            "no participant has a view: there is no assistant, and no user with audio of their own",
            reason="no_view",
            hint='give one participant the role "assistant" in the manifest (they need no stream of their own)',
        )
    return tuple(views)
