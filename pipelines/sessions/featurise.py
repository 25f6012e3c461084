"""One work item into parts and a receipt: the unit of work, of resume and of growth. No Beam here; a test calls it as it is.

Everything a session gives is written under names that follow from its content, and the receipt last: whoever dies before has done nothing.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ...schemas import keys, record
from ...schemas.clock import TICK_SAMPLES
from ...schemas.errors import MediaError
from ...schemas.receipts import MemberAt, Receipt, WindowReceipt, WorkItem
from ...transforms.media import decode
from ...transforms.sessions.recording import Recording
from ..storage import folders
from ..storage.folders import Folder
from ..storage.parts import LIGHT_MEMBERS, PartWriter
from . import receipts
from .receipts import NOT_THERE

PART_WINDOWS = 10
Progress = Callable[[int], None]


def make(item: WorkItem, staging: Folder, progress: Progress = lambda _: None) -> Receipt:
    """Featurises the session, writes its parts and its receipt, gives the receipt.

    Input that cannot become micro-turns gives a receipt without windows whose ledger says why. Raises OSError for the machine's faults.
    """
    try:
        receipt = _featurise(item, staging, progress)
    except MediaError as error:
        receipt = receipts.rejection(item, error)
    receipts.write(staging, item.receipt_name(), receipt)
    return receipt


def featurise_request(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's verb `featurise`."""
    receipt = make(WorkItem.model_validate(request["item"]), Folder(request["staging"]), progress)
    return asdict(receipts.outcome_of(receipt, request["receipt"]))


def look_request(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's verb `look`: what the header of a file says (pipelines/input/discover.py Look)."""
    from ...schemas.spec import LimitSpec

    with folders.open_source(request["root"], request["path"]) as source:
        found = decode.probe(source, LimitSpec())
    audio = next((s for s in found.streams if s.kind == "audio"), None)
    seconds = audio.declared / audio.rate_hz if audio is not None and audio.declared > 0 else 0.0
    return {"channels": audio.channels if audio else 0, "seconds": seconds, "pictures": any(s.kind == "video" for s in found.streams)}


def _featurise(item: WorkItem, staging: Folder, progress: Progress) -> Receipt:
    missing = [identity.path for identity in item.files if identity.size_bytes == NOT_THERE]
    if missing:
        raise MediaError(f"{missing[0]}: no such file", reason="missing_file", hint="mend the path in the manifest, or bring the file back")
    with Recording(item.session, lambda path: folders.open_source(item.root, path), item.spec) as recording:
        try:
            heavy, light = _write_heavy(item, recording, staging, progress)
        except MediaError as error:
            return receipts.rejection(item, error, recording.ledger_if_dropped(error))
        num_samples = recording.num_ticks * TICK_SAMPLES

        def alive() -> None:
            progress(num_samples)

        proofs = receipts.prove(item, alive)
        placed = _write_light(item, recording, light, staging, receipts.item_digest(item, proofs), alive)
        windows = []
        for (view, first_tick), arrays in sorted(light.items()):
            key = keys.window_key(item.key, view, first_tick)
            members = sorted([*heavy[key], *placed[key]], key=lambda member: member.name)
            windows.append(WindowReceipt(view=view, first_tick=first_tick, num_ticks=arrays.num_ticks, members=tuple(members)))
        return receipts.make(
            item,
            ledger=recording.ledger(),
            proofs=proofs,
            session_ticks=recording.num_ticks,
            windows=tuple(windows),
            tail_codes={view: codes.tobytes().hex() for view, codes in recording.tail_codes.items()},
        )


@dataclass(frozen=True, slots=True)
class _Light:
    """The light array members of a window, which wait for the session's end."""

    num_ticks: int
    members: dict[str, bytes]


Placed = dict[str, list[MemberAt]]


def _write_heavy(item: WorkItem, recording: Recording, staging: Folder, progress: Progress) -> tuple[Placed, dict[tuple[str, int], _Light]]:
    """Writes the heavy members, a part for 10 windows of a view; gives where they lie, and the light members by (view, first tick)."""
    placed: Placed = {}
    light: dict[tuple[str, int], _Light] = {}
    writers: dict[str, PartWriter] = {}
    counts: dict[str, int] = {}
    try:
        for window in recording.windows():
            view = window.view.name
            members = record.media_runs(window.pieces, item.spec.pictures.codec)
            light[view, window.first_tick] = _Light(
                window.num_ticks, {name: b"".join(members.pop(name)) for name in list(members) if name in LIGHT_MEMBERS}
            )
            if view not in writers:
                writers[view], counts[view] = PartWriter(staging), 0
            key = keys.window_key(item.key, view, window.first_tick)
            for name, runs in members.items():
                writers[view].add(key, name, runs)
            counts[view] += 1
            if counts[view] == PART_WINDOWS:
                placed |= writers[view].close()
                del writers[view]
            progress((window.first_tick + window.num_ticks) * TICK_SAMPLES)
        for writer in writers.values():
            placed |= writer.close()
    finally:
        for writer in writers.values():
            writer.discard()
    return placed, light


def _write_light(
    item: WorkItem,
    recording: Recording,
    light: dict[tuple[str, int], _Light],
    staging: Folder,
    source_digest: str,
    alive: Callable[[], None],
) -> Placed:
    """Writes the light members and the labels of every window, one part for the session."""
    writer = PartWriter(staging)
    try:
        for view, first_tick, labels in recording.labels(source_digest):
            encoded = {f"{name}.json": record.encode_json(value) for name, value in labels.items()}
            for name, payload in sorted((light[view, first_tick].members | encoded).items()):
                writer.add(keys.window_key(item.key, view, first_tick), name, [payload])
            alive()
        return writer.close()
    finally:
        writer.discard()
