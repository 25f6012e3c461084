"""From what was seen of some sessions to what all of them will give: pure arithmetic, no file is opened.

What was not looked at is taken to be like what was, by bytes of input: files tell their size for nothing, and hours follow it better than
the number of sessions does. Where all were looked at nothing is scaled.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES, num_ticks
from ...schemas.layout import LayoutSpec
from ...schemas.receipts import Outcome, WorkItem
from ...schemas.spec import FeatureSpec
from ...schemas.strict import canonical_json, sha256_hex
from ..sessions.foresee import Attempt, Foreseen
from ..shards.gather import assign
from .figures import MAX_NAMED, Estimate, Figures, Range, by_modality, input_bytes
from .windows import Habits, habits, pair_bytes, part_bytes, tar_bytes, windows

HOUR = 3600 * SAMPLE_RATE_HZ
SPREAD = 0.25  # of a cost that one attempt showed; two or more show their own
AROUND = 1.08  # what labels, tokens and the ledger add to featurising and copying


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What is known of a plan.

    Attributes:
        items: the sessions to featurise that nothing is known against; those looked at come first, in the order of `foreseen`.
        foreseen: the first sessions, by their headers, None where the machine could not read them.
        rejected: reason → sessions that need no look to be dropped; refused: (id, reason) of each.
        known: sessions that the corpus holds already; start_cpu_s: what it takes until a worker is ready.
    """

    plan: str
    items: Sequence[WorkItem]
    foreseen: Sequence[Foreseen | None]
    attempts: Sequence[Attempt]
    start_cpu_s: float
    rejected: Mapping[str, int]
    refused: Sequence[tuple[str, str]]
    known: int


@dataclass(slots=True)
class _Sums:
    """Of the sessions looked at that give windows."""

    sessions: int = 0
    session_ticks: int = 0
    view_ticks: int = 0
    windows: int = 0
    tar_bytes: int = 0
    cpu_s: float = 0.0
    longest_cpu_s: float = 0.0
    members: Counter[str] = field(default_factory=Counter)
    outcomes: list[Outcome] = field(default_factory=list)
    pieces: list[tuple[int, int]] = field(default_factory=list)  # (input bytes, samples), of dropped sessions too


def plan_digest(items: Sequence[WorkItem]) -> str:
    """Of the sessions of a plan and the size and stamp of their files."""
    return sha256_hex(canonical_json([[item.receipt_name(), item.split, [f.model_dump() for f in item.files]] for item in items]))


def foretell(seen: Seen, *, spec: FeatureSpec, layout: LayoutSpec, shard_bytes: int, cores: Sequence[int]) -> Estimate:
    """The estimate. `cores` are the numbers of workers to give a time for."""
    looked = [(item, session) for item, session in zip(seen.items, seen.foreseen, strict=False) if session is not None]
    known_length = _lengths(looked)
    rates = _rates(seen.attempts)
    hashing = _hashing(seen.attempts)
    how = habits(list(seen.attempts), spec, _raw_pictures(seen.attempts, looked))
    sums = _Sums()
    for item, session in known_length:
        _add(sums, item, session, spec, layout, how, rates.get(session.kind, _like(session.kind, rates)), hashing)
    rejected = Counter(session.reason for _, session in looked if session.reason)
    dropped = [*seen.refused, *((item.session.id, session.reason) for item, session in looked if session.reason)]
    whole = sum(map(input_bytes, seen.items))
    looked_bytes = sum(input_bytes(item) for item, _ in looked)
    is_all = len(looked) == len(seen.items)
    by_count = 1.0 if is_all else len(seen.items) / max(len(looked), 1)
    by_bytes = 1.0 if is_all else whole / looked_bytes if looked_bytes else by_count
    hours = sums.session_ticks * TICK_SAMPLES / HOUR * by_bytes
    sums.pieces += [(input_bytes(item), 0) for item, session in looked if session.reason]
    error = 0.0 if is_all else _relative_error(sums.pieces, len(seen.items))
    cpu_s = sums.cpu_s * by_bytes + seen.start_cpu_s if rates else -1.0
    low, high = _spread(seen.attempts)
    return Estimate(
        plan=seen.plan,
        sessions_planned=len(seen.items) + sum(seen.rejected.values()) + seen.known,
        sessions_known=seen.known,
        sessions_done=sum(session.is_done for _, session in looked),
        looked_at=len(looked),
        of=len(seen.items),
        unsaid=sum(not session.is_said for _, session in looked if not session.reason),
        unreadable=sum(session is None for session in seen.foreseen),
        input_bytes=whole,
        figures=Figures(
            sessions=round(sums.sessions * by_count),
            rejected=dict(
                sorted((Counter(seen.rejected) + Counter({r: max(1, round(c * by_count)) for r, c in rejected.items()})).items())
            ),
            session_ticks=round(sums.session_ticks * by_bytes),
            view_ticks=round(sums.view_ticks * by_bytes),
            windows=round(sums.windows * by_bytes),
            shards=_shards(sums, None if is_all else seen.items, looked_bytes, shard_bytes),
            bytes={name: round(size * by_bytes) for name, size in by_modality(sums.members, sums.tar_bytes).items()},
            cpu_s=cpu_s,
        ),
        dropped=tuple(f"{name}: {reason}" for name, reason in dropped[:MAX_NAMED]),
        hours=Range(low=hours * (1 - error), high=hours * (1 + error)),
        cpu_s=Range(low=max(cpu_s, 0) * low * (1 - error), high=max(cpu_s, 0) * high * (1 + error)),
        attempts=len(seen.attempts),
        attempted_s=sum(attempt.samples for attempt in seen.attempts) / SAMPLE_RATE_HZ,
        kinds=_kinds(looked, rates),
        wall_s={n: max((cpu_s - seen.start_cpu_s) / n, sums.longest_cpu_s) + seen.start_cpu_s for n in cores} if rates else {},
    )


def _lengths(looked: list[tuple[WorkItem, Foreseen]]) -> list[tuple[WorkItem, Foreseen]]:
    """The sessions that will give windows; one without any length is as long as others of its size in bytes."""
    good = [(item, session) for item, session in looked if not session.reason]
    told = [(input_bytes(item), session.samples) for item, session in good if session.samples]
    per_byte = sum(samples for _, samples in told) / max(sum(size for size, _ in told), 1)
    return [
        (item, session if session.samples else session.model_copy(update={"samples": max(1, round(input_bytes(item) * per_byte))}))
        for item, session in good
    ]


def _add(
    sums: _Sums, item: WorkItem, session: Foreseen, spec: FeatureSpec, layout: LayoutSpec, how: Habits, rate: float, hashing: float
) -> None:
    sizes = []
    for ticks, members in windows(session, spec, layout, how):
        sums.members.update(members)
        sums.tar_bytes += tar_bytes(members)
        sums.view_ticks += ticks
        sizes.append(part_bytes(members))
    size = input_bytes(item)
    cpu_s = 0.0 if session.is_done else session.samples * rate * AROUND + size * hashing
    sums.sessions += 1
    sums.session_ticks += num_ticks(session.samples)
    sums.windows += len(sizes)
    sums.cpu_s += cpu_s
    sums.longest_cpu_s = max(sums.longest_cpu_s, cpu_s)
    sums.pieces.append((size, session.samples))
    sums.outcomes.append(
        Outcome(status="done", session=item.key, split=item.split, order=item.order, receipt=item.key, window_bytes=tuple(sizes))
    )


def _shards(sums: _Sums, items: Sequence[WorkItem] | None, looked_bytes: int, shard_bytes: int) -> dict[str, int]:
    """Split → shards: filled as a build fills them where all were looked at (no `items`), else by the bytes of each split's input."""
    if items is None:
        return dict(sorted(Counter(task.split for task in assign(sums.outcomes, shard_bytes, {})).items()))
    sizes = [size for outcome in sums.outcomes for size in outcome.window_bytes]
    per_byte = sum(sizes) / max(looked_bytes, 1)
    beyond = sum(sizes) / max(len(sizes), 1) / 2  # a shard closes at the first window past the limit
    by_split: Counter[str] = Counter()
    for item in items:
        by_split[item.split] += input_bytes(item)
    return {split: max(1, math.ceil(size * per_byte / (shard_bytes + beyond))) for split, size in sorted(by_split.items())}


def _rates(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Kind → processor seconds a sample."""
    by_kind: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_kind.setdefault(attempt.kind, []).append(attempt)
    return {kind: sum(a.cpu_s for a in found) / max(sum(a.samples for a in found), 1) for kind, found in by_kind.items()}


def _like(kind: str, rates: Mapping[str, float]) -> float:
    """What a kind that was not tried is taken to cost: as those that have pictures too, or as those that have none."""
    alike = [rate for other, rate in rates.items() if ("×" in other) == ("×" in kind)] or list(rates.values())
    return sum(alike) / len(alike) if alike else 0.0


def _hashing(attempts: Sequence[Attempt]) -> float:
    """Processor seconds a byte of input."""
    return sum(a.hash_cpu_s for a in attempts) / max(sum(a.hashed_bytes for a in attempts), 1)


def _spread(attempts: Sequence[Attempt]) -> tuple[float, float]:
    """(lowest, highest) cost of an attempt, as shares of the mean of its kind."""
    rates = _rates(attempts)
    counts = Counter(attempt.kind for attempt in attempts)
    shares = [a.cpu_s / max(a.samples, 1) / rates[a.kind] for a in attempts if counts[a.kind] > 1 and rates[a.kind]]
    return min([1 - SPREAD, *shares]), max([1 + SPREAD, *shares])


def _relative_error(pieces: Sequence[tuple[int, int]], population: int) -> float:
    """Two standard errors of samples to bytes, as a share: of a ratio estimate from a sample without putting back.

    Source: Cochran, Sampling Techniques, 3rd edition, equation 6.9.
    """
    n = len(pieces)
    if n < 2:
        return 1.0
    mean_size = sum(size for size, _ in pieces) / n
    mean = sum(samples for _, samples in pieces) / n
    if not mean or not mean_size:
        return 1.0
    rest = sum((samples - mean / mean_size * size) ** 2 for size, samples in pieces) / (n - 1)
    return min(1.0, 2 * math.sqrt((1 - n / population) / n * rest) / mean)


def _kinds(looked: Sequence[tuple[WorkItem, Foreseen]], rates: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    counts = Counter(session.kind for _, session in looked if not session.reason)
    return {kind: (count, rates[kind] * HOUR if kind in rates else -1.0) for kind, count in counts.most_common()}


def _raw_pictures(attempts: Sequence[Attempt], looked: Sequence[tuple[WorkItem, Foreseen]]) -> int:
    """Bytes that the attempts' pairs would have unpacked: those of a kind are of one size."""
    sizes = {session.kind: pair_bytes(view) for _, session in looked for view in session.views if view.pairs}
    return sum(attempt.pairs * sizes.get(attempt.kind, 0) for attempt in attempts)
