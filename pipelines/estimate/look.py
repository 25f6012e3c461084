"""Looking at a plan before it is built: the headers of its sessions, or of a sample of them, and a few pieces featurised to time them.

All of it in the decoder process, none of it in OUT: pieces are written to a temporary folder that is gone afterwards.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.errors import MicroturnError
from ...schemas.receipts import Receipt, WorkItem
from ..input.plan import Plan
from ..sessions.child import MediaProcess
from ..sessions.drops import DUPLICATE_KEPT
from ..sessions.foresee import Attempt, Foreseen
from ..sessions.receipts import NOT_THERE
from .foretell import Seen, plan_digest

SAMPLE = 200  # sessions looked at, unless all are asked for
ATTEMPTS, ATTEMPT_S = 3, 120  # pieces that are featurised, and the most seconds of each; of short sessions
MOST_ATTEMPTS = 24  # so many at most, until there are as many seconds as in one piece
SILENCE_S = 60.0


def look(
    plan: Plan,
    *,
    staging: str,
    known: Collection[str] = (),
    sample: int = SAMPLE,
    attempts: int = ATTEMPTS,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Seen:
    """What is seen of the plan: headers of at most `sample` sessions, chosen by hash (0: of all), and of at most `attempts` a piece.

    `known`: keys of sessions that the corpus holds; `tell` is told how many of how many headers have been read. A session that the machine
    fails to read is left out, and counted.
    """
    refused = _refused(plan.rejected)
    there = []
    for item in plan.items:
        if item.key in known:
            continue
        if any(identity.size_bytes == NOT_THERE for identity in item.files):
            refused.append((item.session.id, "missing_file"))
        else:
            there.append(item)
    if sample and len(there) > sample:
        there.sort(key=lambda item: hashlib.sha256(f"look {item.order}".encode()).digest())
    num = min(sample or len(there), len(there))
    foreseen: list[Foreseen | None] = []
    with MediaProcess(SILENCE_S) as media:
        for item in there[:num]:
            foreseen.append(_foresee(media, item, staging))
            tell(len(foreseen), num)
        tried, start_cpu_s = _attempts(media, there, foreseen, attempts)
    return Seen(
        plan=plan_digest(plan.items),
        items=there,
        foreseen=foreseen,
        attempts=tried,
        start_cpu_s=start_cpu_s,
        rejected=Counter(reason for _, reason in refused),
        refused=refused,
        known=sum(item.key in known for item in plan.items),
    )


def _foresee(media: MediaProcess, item: WorkItem, staging: str) -> Foreseen | None:
    try:
        return Foreseen.model_validate(media.call("foresee", {"item": item.model_dump(mode="json"), "staging": staging}))
    except (OSError, MicroturnError):
        return None  # the build will try again, and say what is wrong


def _attempts(
    media: MediaProcess, items: Sequence[WorkItem], foreseen: Sequence[Foreseen | None], most: int
) -> tuple[list[Attempt], float]:
    """(pieces of sessions, processor seconds until a worker is ready): those of the longest kinds first, each once before any twice."""
    good = [(item, f) for item, f in zip(items, foreseen, strict=False) if f is not None and not f.reason and not f.is_done]
    weight: dict[str, int] = {}
    for _, session in good:
        weight[session.kind] = weight.get(session.kind, 0) + session.samples
    turns: dict[str, int] = {}
    order = []
    for item, session in sorted(good, key=lambda pair: (-pair[1].samples, pair[0].order)):
        turns[session.kind] = turn = turns.get(session.kind, -1) + 1
        order.append((turn, -weight[session.kind], item.order, item, session.kind))
    chosen = [(item, kind) for *_, item, kind in sorted(order, key=lambda entry: entry[:3])][: MOST_ATTEMPTS if most else 0]
    found: list[Attempt] = []
    start_cpu_s = 0.0
    if chosen and (first := _attempt(media, *chosen[0], 1)) is not None:
        start_cpu_s = first.start_cpu_s + first.cpu_s  # tables and filters are made at the first use
    for item, kind in chosen:
        if len(found) >= most and sum(attempt.samples for attempt in found) >= ATTEMPT_S * SAMPLE_RATE_HZ:
            break
        if (attempt := _attempt(media, item, kind, ATTEMPT_S * SAMPLE_RATE_HZ)) is not None:
            found.append(attempt)
    return found, start_cpu_s


def _attempt(media: MediaProcess, item: WorkItem, kind: str, samples: int) -> Attempt | None:
    with tempfile.TemporaryDirectory(prefix="microturn-estimate-") as scratch:
        request = {"item": item.model_dump(mode="json"), "kind": kind, "samples": samples, "scratch": scratch}
        try:
            attempt = Attempt.model_validate(media.call("attempt", request))
        except (OSError, MicroturnError):
            return None
    return attempt if attempt.samples else None


def _refused(receipts: Sequence[Receipt]) -> list[tuple[str, str]]:
    """(id, reason) of sessions that the plan has settled; a row that only repeats one that is kept is no session."""
    found = [(receipt.session_id, next(row.reason for row in receipt.ledger if row.entry == "session")) for receipt in receipts]
    return [(name, reason) for name, reason in found if reason != DUPLICATE_KEPT]
