"""What the outcomes of all work items amount to: what is new, what is known, what stands in the way of a commit."""

from collections.abc import Iterable, Mapping, Set

from ..schemas.receipts import Outcome
from ..schemas.strict import Strict
from .storage import Folder

VERDICT = "verdict.json"
MAX_SHOWN = 1000  # messages kept


class Verdict(Strict):
    """The result of a build.

    Attributes:
        fresh, known: sessions that are new in this build, and sessions that the corpus held already.
        rejected: receipts of sessions newly dropped whole.
        unsettled: a sentence for each session that the machine failed; nothing is committed while there are any.
        conflicts: a sentence for each session that the corpus holds with other content.
    """

    fresh: int
    known: int
    rejected: tuple[str, ...]
    unsettled: tuple[str, ...]
    conflicts: tuple[str, ...]

    @property
    def blocks(self) -> bool:
        """Whether nothing may be committed."""
        return bool(self.unsettled or self.conflicts)

    def write(self, staging: Folder) -> None:
        """Leaves the verdict for the driver, which cannot read a runner's elements."""
        staging.write(VERDICT, self.model_dump_json().encode())

    @classmethod
    def read(cls, staging: Folder) -> "Verdict":
        """The verdict of the build that ran last."""
        return cls.model_validate_json(staging.read(VERDICT))


def settle(outcomes: Iterable[Outcome], known: Mapping[str, str], refused: Set[str]) -> tuple[Verdict, list[Outcome]]:
    """(verdict, outcomes to write). Deterministic: the order in which outcomes come changes nothing."""
    fresh: list[Outcome] = []
    num_known = 0
    rejected, unsettled, conflicts = [], [], []
    for outcome in sorted(outcomes, key=lambda o: (o.split, o.order, o.session, o.receipt)):
        if outcome.status == "unsettled":
            unsettled.append(outcome.message)
        elif outcome.status == "rejected":
            if outcome.session in refused or outcome.session in known:
                num_known += 1
            else:
                rejected.append(outcome.receipt)
        elif outcome.session not in known:
            fresh.append(outcome)
        elif known[outcome.session] == outcome.source_digest:
            num_known += 1
        else:
            conflicts.append(f"session {outcome.session}: the corpus was built from other content of it")
    verdict = Verdict(
        fresh=len(fresh),
        known=num_known,
        rejected=tuple(rejected),
        unsettled=tuple(unsettled[:MAX_SHOWN]),
        conflicts=tuple(conflicts[:MAX_SHOWN]),
    )
    return verdict, fresh
