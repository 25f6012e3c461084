"""The section of the report that says what the last build took, and what had been expected of it: estimated, actual, their ratio.

Where nothing was kept of it, in a corpus that was copied without its staging folder or resharded since, there is no such section.
"""

from collections.abc import Iterator

from ..pipelines.corpus import Corpus
from ..pipelines.estimate import account
from ..pipelines.estimate.account import Account
from ..pipelines.estimate.figures import Estimate, Figures
from ..pipelines.wording.counted import plural
from ..schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES
from . import page
from .figures import hms, mib, number, numbered
from .page import Html, tag

Row = tuple[str, str, str, str]


def spent_section(corpus: Corpus) -> Html:
    """The section; nothing where there is no account of the build that gave the corpus its content."""
    kept = account.read(corpus.folder, corpus.dataset["digests"]["content"])
    if kept is None:
        return Html()
    rows = list(_rows(kept))
    return page.section(
        "Estimated and spent",
        tag("p", " ".join(_told(kept)), css="soft"),
        page.table(("the last build", "estimated#", "actual#", "actual ÷ estimated#"), rows),
    )


def _told(kept: Account) -> Iterator[str]:
    spent, estimate = kept.spent, kept.estimate
    where = f"{numbered(spent.workers, 'worker')} on {numbered(spent.hosts, 'machine')}"
    yield f"What the last build added, and what it took with {where}; earlier builds are not in it."
    done = kept.actual.sessions + sum(kept.actual.rejected.values())
    if spent.featurised < kept.actual.sessions:
        yield f"Of {numbered(done, 'session')} its last run decoded {number(spent.featurised)}; the time of the others is not in it."
    if spent.cpu_s and spent.conversation_s:
        yield f"{spent.conversation_s / spent.cpu_s:.0f} hours of conversation a core-hour."
    if estimate is None:
        yield "Nothing was estimated: build --dry-run --json gives what build --estimate compares."
        return
    sample = "all" if estimate.looked_at == estimate.of else f"{number(estimate.looked_at)} of {number(estimate.of)}"
    pieces = f"{numbered(estimate.attempts, 'piece')}, {estimate.attempted_s:.0f} s in all"
    yield f"The estimate is from the headers of {sample} {plural(estimate.of, 'session')} and {pieces}."
    if not kept.same_plan:
        yield "It was made of another plan: sessions, their files or the spec have changed since."


def _rows(kept: Account) -> Iterator[Row]:
    estimate, actual = kept.estimate, kept.actual
    told = estimate.figures if estimate else Figures()
    is_told = estimate is not None

    def row(name: str, expected: float, found: float, shown) -> Row:
        if not is_told or expected < 0:
            return name, "–", shown(found), "–"
        return name, shown(expected), shown(found), f"{found / expected:.2f}" if expected else "–"

    yield row("sessions", told.sessions, actual.sessions, number)
    yield row("conversation, h:mm:ss", told.session_ticks, actual.session_ticks, hms)
    yield row("all views, h:mm:ss", told.view_ticks, actual.view_ticks, hms)
    yield row("windows", told.windows, actual.windows, number)
    yield row("shards", sum(told.shards.values()), sum(actual.shards.values()), number)
    yield row("on disk", told.size_bytes, actual.size_bytes, mib)
    for name in actual.bytes:
        yield row(f"… {name}", told.bytes.get(name, 0), actual.bytes[name], mib)
    yield row("dropped whole", sum(told.rejected.values()), sum(actual.rejected.values()), number)
    for reason in sorted({*told.rejected, *actual.rejected}):
        yield row(f"… {reason}", told.rejected.get(reason, 0), actual.rejected.get(reason, 0), number)
    yield row("core-hours", told.cpu_s, actual.cpu_s, _core_hours)
    yield row("time", _wall_s(estimate, kept.spent.workers), kept.spent.wall_s, _time)


def _wall_s(estimate: Estimate | None, workers: int) -> float:
    """What was expected of so many workers, -1 where nobody asked."""
    return estimate.wall_s.get(workers, -1.0) if estimate else -1.0


def _core_hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"


def _time(seconds: float) -> str:
    return hms(round(seconds * SAMPLE_RATE_HZ / TICK_SAMPLES))
