"""What the outcomes of all work items amount to: what is new, what is known, what stands in the way of a commit."""

from collections.abc import Iterable

from ..schemas.receipts import Outcome
from ..schemas.strict import Strict
from .storage.folders import Folder

VERDICT = "verdict.json"
MAX_SHOWN = 1000  # messages kept


class Verdict(Strict):
    """The result of a build.

    Attributes:
        fresh, known: sessions that are new in this build, and sessions that the corpus held already.
        absent: sessions that the corpus holds and the input no longer names; they stay.
        rejected: receipts of sessions newly dropped whole.
        superseded: sessions that an earlier build dropped whole, and that are mended now, or dropped for another reason.
        unsettled: a sentence for each session that the machine failed; nothing is committed while there are any.
        conflicts: a sentence for each session that the corpus holds with other content.
    """

    fresh: int
    known: int
    absent: int
    rejected: tuple[str, ...]
    superseded: tuple[str, ...]
    unsettled: tuple[str, ...]
    conflicts: tuple[str, ...]

    @property
    def blocks(self) -> bool:
        """Whether nothing may be committed."""
        return bool(self.unsettled or self.conflicts)

    @property
    def changes(self) -> bool:
        """Whether there is something to commit besides shards."""
        return bool(self.rejected or self.superseded)

    def write(self, staging: Folder) -> None:
        """Leaves the verdict for the driver, which cannot read a runner's elements."""
        staging.write(VERDICT, self.model_dump_json().encode())

    @classmethod
    def take(cls, staging: Folder) -> "Verdict":
        """The verdict of the build that ran last; it is read once."""
        verdict = cls.model_validate_json(staging.read(VERDICT))
        staging.delete(VERDICT)
        return verdict


def settle(outcomes: Iterable[Outcome], num_committed: int) -> tuple[Verdict, list[Outcome]]:
    """(verdict, outcomes to write, in their order). Deterministic: the order in which outcomes come changes nothing.

    `num_committed`: sessions that the corpus holds windows of.
    """
    ordered = sorted(outcomes, key=lambda o: (o.split, o.order, o.session, o.receipt))
    superseded = _superseded(ordered)
    fresh: list[Outcome] = []
    num_known = 0
    rejected, unsettled, conflicts = [], [], []
    for outcome in ordered:
        match outcome.status:
            case "unsettled":
                unsettled.append(outcome.message)
            case "conflict":
                conflicts.append(outcome.message)
            case "done":
                fresh.append(outcome)
            case "rejected" if not outcome.refused or outcome.session in superseded:
                rejected.append(outcome.receipt)
            case _:
                num_known += 1
    verdict = Verdict(
        fresh=len(fresh),
        known=num_known,
        absent=num_committed - len({outcome.session for outcome in ordered if outcome.committed}),
        rejected=tuple(rejected),
        superseded=tuple(sorted(superseded)),
        unsettled=tuple(unsettled[:MAX_SHOWN]),
        conflicts=tuple(conflicts[:MAX_SHOWN]),
    )
    return verdict, fresh


def _superseded(outcomes: Iterable[Outcome]) -> set[str]:
    """Sessions that a ledger drops for other reasons than these outcomes do, or that they do not drop."""
    before: dict[str, tuple[str, ...]] = {}
    now: dict[str, set[str]] = {}
    for outcome in outcomes:
        if outcome.refused and outcome.status != "unsettled":
            before[outcome.session] = outcome.refused
            now.setdefault(outcome.session, set()).update({outcome.reason} if outcome.status == "rejected" else ())
    return {session for session, why in before.items() if tuple(sorted(now[session])) != why}
