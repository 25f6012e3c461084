"""An estimate in words, for a terminal: (name, value) of each line. Numbers are rounded here and nowhere else."""

from collections.abc import Iterator

from ...schemas.clock import TICK_SAMPLES, clock_text
from ..wording.counted import counted
from .figures import Estimate, Range


def lines(estimate: Estimate) -> Iterator[tuple[str, str]]:
    """The lines of a dry run."""
    figures = estimate.figures
    known = f", {estimate.sessions_known} in the corpus already" if estimate.sessions_known else ""
    done = f", {estimate.sessions_done} featurised already" if estimate.sessions_done else ""
    yield "sessions", f"{figures.sessions} to keep of {estimate.sessions_planned} planned{known}{done}"
    yield "looked at", _looked(estimate)
    yield "dropped whole", ", ".join(f"{count} {reason}" for reason, count in figures.rejected.items()) or "none expected"
    for named in estimate.dropped:
        yield "", shown(named)
    if (more := sum(figures.rejected.values()) - len(estimate.dropped)) > 0 and estimate.dropped:
        yield "", f"… and {more} more"
    yield "conversation", f"{_hms(figures.session_ticks)}{_between(estimate.hours, 'hours')}"
    yield "in all views", f"{_hms(figures.view_ticks)} in {counted(figures.windows, 'window')}"
    yield "shards", ", ".join(f"{count} {split}" for split, count in figures.shards.items()) or "none"
    yield "bytes", f"{size(figures.size_bytes)}, from {size(estimate.input_bytes)} of input"
    for name, num_bytes in figures.bytes.items():
        yield "", f"{size(num_bytes):>12}  {name}"
    yield "cost", _cost(estimate)
    for kind, (sessions, rate) in estimate.kinds.items():
        tried = f"{rate:.1f} core-seconds an hour" if rate >= 0 else "not tried"
        yield "", f"{kind}: {tried} ({sessions} of those looked at)"
    for workers, wall_s in estimate.wall_s.items():
        yield "time" if workers == min(estimate.wall_s) else "", f"{duration(wall_s)} on {counted(workers, 'worker')}"


def size(num_bytes: int) -> str:
    """`40.0 MiB`, in the unit that fits."""
    value, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{num_bytes} B"


def duration(seconds: float) -> str:
    """`3.2 s`, or `1:02:03` from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def shown(text: str) -> str:
    """A line of a manifest's own words: nothing in it moves a cursor."""
    return text if text.isprintable() else ascii(text)


def _looked(estimate: Estimate) -> str:
    of = counted(estimate.of, "session")
    whole = "every session" if estimate.looked_at == estimate.of else f"a sample of {estimate.looked_at} of {of}"
    doubts = []
    if estimate.unsaid:
        doubts.append(f"the length of {estimate.unsaid} is guessed, for none that can be believed is said")
    if estimate.unreadable:
        doubts.append(f"{estimate.unreadable} could not be read")
    return "; ".join([f"{whole}, headers only: damage further inside is not foreseen", *doubts])


def _between(given: Range, unit: str) -> str:
    return f" ({given.low:.1f} to {given.high:.1f} {unit})" if given.low != given.high else ""


def _cost(estimate: Estimate) -> str:
    if estimate.figures.cpu_s < 0:
        return "not known: nothing was tried"
    low, high = estimate.cpu_s.low / 3600, estimate.cpu_s.high / 3600
    pieces = f"{counted(estimate.attempts, 'piece')}, {duration(estimate.attempted_s)} of conversation in all"
    return f"{estimate.figures.cpu_s / 3600:.3g} core-hours ({low:.3g} to {high:.3g}), by {pieces}, featurised on this machine"


def _hms(num_ticks: int) -> str:
    return clock_text(num_ticks * TICK_SAMPLES)[:-4]
