"""The streaming session: documents that grow row by row on a trained model, with the bits that the trainer computes for them.

    engine = Engine(model, Limits(sessions=2))
    session = engine.open("call-1", rows=20_000)        # preallocates; refuses what it could not keep
    hidden, = engine.append([(session, inputs)])        # provisional until committed; any number of sessions at once
    engine.commit(session)                              # or roll_back(session, rows), or abort(session)
    engine.close(session)

`engine` has the four verbs, `pools` the memory, `serving` the weights, `snapshot` a session as a file; `rows` makes inputs, `grammar`
says which ids may come next, `sampler` performs ticks.
"""

from .engine import Engine, Session, SessionError
from .pools import Limits, session_bytes
from .sampler import Perceived, Performed, Sampler, Talk
from .snapshot import Snapshot

__all__ = ["Engine", "Limits", "Perceived", "Performed", "Sampler", "Session", "SessionError", "Snapshot", "Talk", "session_bytes"]
