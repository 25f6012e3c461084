"""One work item into parts and a receipt: the unit of work, of resume and of growth. No Beam here; a test calls it as it is.

Everything a session gives is written under names that follow from its content, and the receipt last: whoever dies before has done nothing.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..schemas import keys, record
from ..schemas.clock import TICK_SAMPLES
from ..schemas.errors import CorpusError, MediaError
from ..schemas.receipts import FileProof, MemberAt, Outcome, Receipt, WindowReceipt, WorkItem
from ..schemas.strict import sha256_hex
from ..schemas.tables import LedgerRow
from ..transforms import decode
from ..transforms.ledger import shown_path
from ..transforms.recording import Recording
from . import storage
from .gather import RECEIPTS, read_receipt
from .lay import LIGHT_MEMBERS
from .parts import PartWriter
from .plan import NOT_THERE, source_digest
from .storage import Folder

PART_WINDOWS = 10
UNDER_WAY = "under-way"
Progress = Callable[[int], None]


def outcome_of(receipt: Receipt, name: str) -> Outcome:
    """What the graph carries of a receipt."""
    return Outcome(
        status="done" if receipt.windows else "rejected",
        session=receipt.session,
        split=receipt.split,
        order=receipt.order,
        receipt=name,
        window_bytes=tuple(window.tar_bytes() for window in receipt.windows),
        source_digest=receipt.source_digest,
    )


def settled(item: WorkItem, staging: Folder, rehash: bool) -> Receipt | None:
    """The item's receipt if it stands for the files as they are now. One that cannot be read is none.

    A file of the same size with another stamp is hashed; with `rehash` every file is.
    """
    name = item.receipt_name()
    if not staging.exists(f"{RECEIPTS}/{name}"):
        return None
    try:
        receipt = read_receipt(staging, name)
    except CorpusError:
        return None
    proofs = {proof.identity.path: proof for proof in receipt.files}
    if set(proofs) != {private_path(identity.path) for identity in item.files}:
        return None
    for identity in item.files:
        proof = proofs[private_path(identity.path)]
        if identity.size_bytes != proof.identity.size_bytes:
            return None
        doubt = rehash or identity.stamp != proof.identity.stamp
        if doubt and identity.size_bytes != NOT_THERE and _sha256(item.root, identity.path) != proof.sha256:
            return None
    return receipt.model_copy(update={"split": item.split})


def source_now(item: WorkItem) -> str:
    """The item's source digest, from its files as they are; nothing is decoded."""
    return _source_digest(item, _prove(item))


def make(item: WorkItem, staging: Folder, progress: Progress = lambda _: None) -> Receipt:
    """Featurises the session, writes its parts and its receipt, gives the receipt.

    Input that cannot become micro-turns gives a receipt without windows whose ledger says why. Raises OSError for the machine's faults.
    """
    try:
        receipt = _featurise(item, staging, progress)
    except MediaError as error:
        receipt = rejection(item, error)
    write_receipt(staging, item.receipt_name(), receipt)
    return receipt


def write_receipt(staging: Folder, name: str, receipt: Receipt) -> None:
    """The receipt, whole, under its name: from now on its work is done."""
    staging.write(f"{RECEIPTS}/{name}", receipt.model_dump_json().encode())


def parts_exist(receipt: Receipt, staging: Folder) -> bool:
    """Whether every part of the receipt is still there."""
    return all(staging.exists(part) for part in receipt.parts())


def progress_file(staging: Folder, name: str) -> Progress:
    """A callback that leaves, at most once a second, how many session samples of this work are done, for whoever watches."""
    last = 0.0

    def note(num_samples: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1.0:
            last = now
            staging.write(f"{UNDER_WAY}/{name}", str(num_samples).encode())

    return note


def rejection(item: WorkItem, error: MediaError, ledger: tuple[LedgerRow, ...] = ()) -> Receipt:
    """The receipt of a session dropped whole."""
    row = LedgerRow(
        session=item.key,
        session_id=item.session.id,
        entry="session",
        reason=error.reason,
        stage="featurise",
        message=f"{error}{f' ({error.hint})' if error.hint else ''}",
        dropped=1,
    )
    return _receipt(item, ledger=(*_ledger(item, [row]), *ledger), proofs=_prove(item))


def featurise_request(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's verb `featurise`."""
    receipt = make(WorkItem.model_validate(request["item"]), Folder(request["staging"]), progress)
    return outcome_of(receipt, request["receipt"]).model_dump(mode="json")


def look_request(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's verb `look`: what the header of a file says (pipelines/discover.py Look)."""
    from ..schemas.spec import LimitSpec

    with storage.open_source(request["root"], request["path"]) as source:
        found = decode.probe(source, LimitSpec())
    audio = next((s for s in found.streams if s.kind == "audio"), None)
    seconds = audio.declared / audio.rate_hz if audio is not None and audio.declared > 0 else 0.0
    return {"channels": audio.channels if audio else 0, "seconds": seconds, "pictures": any(s.kind == "video" for s in found.streams)}


def _featurise(item: WorkItem, staging: Folder, progress: Progress) -> Receipt:
    missing = [identity.path for identity in item.files if identity.size_bytes == NOT_THERE]
    if missing:
        raise MediaError(f"{missing[0]}: no such file", reason="missing_file", hint="mend the path in the manifest, or bring the file back")
    with Recording(item.session, lambda path: storage.open_source(item.root, path), item.spec) as recording:
        try:
            heavy, light = _write_heavy(item, recording, staging, progress)
        except MediaError as error:
            return rejection(item, error, _ledger(item, recording.ledger_if_dropped(error)))
        proofs = _prove(item)
        placed = _write_light(item, recording, light, staging, _source_digest(item, proofs))
        windows = []
        for (view, first_tick), arrays in sorted(light.items()):
            key = keys.window_key(item.key, view, first_tick)
            members = sorted([*heavy[key], *placed[key]], key=lambda member: member.name)
            windows.append(WindowReceipt(view=view, first_tick=first_tick, num_ticks=arrays.num_ticks, members=tuple(members)))
        return _receipt(
            item,
            ledger=_ledger(item, recording.ledger()),
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
            members = record.encode_media(window.arrays, item.spec.pictures.codec)
            light[view, window.first_tick] = _Light(
                window.arrays["heard_valid"].shape[1], {name: members.pop(name) for name in list(members) if name in LIGHT_MEMBERS}
            )
            if view not in writers:
                writers[view], counts[view] = PartWriter(staging), 0
            key = keys.window_key(item.key, view, window.first_tick)
            for name, payload in members.items():
                writers[view].add(key, name, payload)
            counts[view] += 1
            if counts[view] == PART_WINDOWS:
                placed |= writers[view].close()
                del writers[view]
            progress((window.first_tick + light[view, window.first_tick].num_ticks) * TICK_SAMPLES)
        for writer in writers.values():
            placed |= writer.close()
    finally:
        for writer in writers.values():
            writer.discard()
    return placed, light


def _write_light(item: WorkItem, recording: Recording, light: dict[tuple[str, int], _Light], staging: Folder, source_digest: str) -> Placed:
    """Writes the light members and the labels of every window, one part for the session."""
    writer = PartWriter(staging)
    try:
        for view, first_tick, labels in recording.labels(source_digest):
            encoded = {f"{name}.json": record.encode_json(value) for name, value in labels.items()}
            for name, payload in sorted((light[view, first_tick].members | encoded).items()):
                writer.add(keys.window_key(item.key, view, first_tick), name, payload)
        return writer.close()
    finally:
        writer.discard()


def _ledger(item: WorkItem, rows: list[LedgerRow]) -> tuple[LedgerRow, ...]:
    """The rows under the item's name, no absolute path in any sentence."""
    named = []
    paths = sorted((identity.path for identity in item.files), key=len, reverse=True)  # one may begin another
    for row in rows:
        message = row.message
        for path in paths:
            message = message.replace(path, shown_path(path))
        named.append(row.model_copy(update={"session": item.key, "session_id": item.session.id, "message": message}))
    return tuple(named)


def _prove(item: WorkItem) -> tuple[FileProof, ...]:
    """The sha256 of every file of the item. Raises OSError when a file is no longer what the plan saw."""
    proofs = []
    for identity in item.files:
        there = identity.size_bytes != NOT_THERE
        digest = _sha256(item.root, identity.path) if there else ""
        if there and storage.identify(item.root, identity.path) != identity:
            raise OSError(f"{identity.path}: changed while it was read")
        kept = identity.model_copy(update={"path": private_path(identity.path)})
        proofs.append(FileProof(identity=kept, sha256=digest))
    return tuple(proofs)


def private_path(path: str) -> str:
    """A path as a receipt keeps it: itself if an output may show it, else a hash that still tells files apart."""
    return path if shown_path(path) == path else f"sha256:{sha256_hex(path)[:32]}"


def _sha256(root: str, path: str) -> str:
    with storage.open_source(root, path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _receipt(
    item: WorkItem,
    *,
    ledger: tuple[LedgerRow, ...],
    proofs: tuple[FileProof, ...],
    session_ticks: int = 0,
    windows: tuple[WindowReceipt, ...] = (),
    tail_codes: dict[str, str] | None = None,
) -> Receipt:
    return Receipt(
        session=item.key,
        session_id=item.session.id,
        split=item.split,
        order=item.order,
        spec=item.spec.digest(),
        toolchain=item.toolchain,
        source_digest=_source_digest(item, proofs),
        files=proofs,
        session_ticks=session_ticks,
        windows=windows,
        tail_codes=tail_codes or {},
        ledger=ledger,
    )


def _source_digest(item: WorkItem, proofs: tuple[FileProof, ...]) -> str:
    digests = {
        identity.path: proof.sha256 or f"not there: {private_path(identity.path)}"
        for identity, proof in zip(item.files, proofs, strict=True)
    }
    return source_digest(item.session, digests)
