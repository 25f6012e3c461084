"""What the outcomes of all work items amount to: what is new, what is known, what stands in the way of a commit."""

from collections.abc import Iterable, Mapping

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


def settle(outcomes: Iterable[Outcome], known: Mapping[str, str], refused: Mapping[str, tuple[str, ...]]) -> tuple[Verdict, list[Outcome]]:
    """(verdict, outcomes to write). Deterministic: the order in which outcomes come changes nothing.

    `known`: session → source digest of what is committed; `refused`: session → the reasons for which the committed ledger drops it whole.
    """
    ordered = sorted(outcomes, key=lambda o: (o.split, o.order, o.session, o.receipt))
    reasons: dict[str, set[str]] = {outcome.session: set() for outcome in ordered if outcome.status != "unsettled"}
    for outcome in ordered:
        if outcome.status == "rejected":
            reasons[outcome.session].add(outcome.reason)
    superseded = {session for session, why in reasons.items() if session in refused and tuple(sorted(why)) != refused[session]}
    fresh: list[Outcome] = []
    num_known = 0
    rejected, unsettled, conflicts = [], [], []
    for outcome in ordered:
        if outcome.status == "unsettled":
            unsettled.append(outcome.message)
        elif outcome.status == "rejected":
            if outcome.session in refused and outcome.session not in superseded:
                num_known += 1
            else:
                rejected.append(outcome.receipt)
        elif outcome.session not in known:
            fresh.append(outcome)
        elif known[outcome.session] == outcome.source_digest:
            num_known += 1
        else:
            conflicts.append(outcome.message or f"session {outcome.session}: the corpus was built from other content of it")
    verdict = Verdict(
        fresh=len(fresh),
        known=num_known,
        absent=len(known.keys() - {outcome.session for outcome in ordered}),
        rejected=tuple(rejected),
        superseded=tuple(sorted(superseded)),
        unsettled=tuple(unsettled[:MAX_SHOWN]),
        conflicts=tuple(conflicts[:MAX_SHOWN]),
    )
    return verdict, fresh
