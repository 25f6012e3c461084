"""Receipts: what proves that a session's work is done, and of which bytes. Read and written here, and compared with files as they are now.

A receipt names what it stands for: the row, the identity and sha256 of every file, the spec, the toolchain. Sentences and rows that leave
this room for a receipt, and so for the ledger, are rid of paths here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ...schemas.errors import CorpusError, MediaError
from ...schemas.manifest import Session
from ...schemas.receipts import FileProof, Outcome, Receipt, WorkItem
from ...schemas.strict import canonical_json, sha256_hex
from ...schemas.tables import LedgerRow
from ...transforms.sessions.ledger import shown_path
from ..storage import folders
from ..storage.folders import Folder
from ..storage.parts import part_bytes

RECEIPTS = "receipts"
NOT_THERE, NOT_A_FILE = -1, -2  # size_bytes of what the plan did not find, and of a folder, a pipe, a device


def read(staging: Folder, name: str) -> Receipt:
    """A receipt of the staging folder. Raises CorpusError when it is not one."""
    try:
        return Receipt.model_validate_json(staging.read(f"{RECEIPTS}/{name}"))
    except ValueError as error:
        raise CorpusError(f"{RECEIPTS}/{name}: not a receipt ({error})", hint="delete it: its session is featurised again") from None


def write(staging: Folder, name: str, receipt: Receipt) -> None:
    """The receipt, whole, under its name: from now on its work is done."""
    staging.write(f"{RECEIPTS}/{name}", receipt.model_dump_json().encode())


def outcome_of(receipt: Receipt, name: str) -> Outcome:
    """What the graph carries of a receipt."""
    return Outcome(
        status="done" if receipt.windows else "rejected",
        session=receipt.session,
        split=receipt.split,
        order=receipt.order,
        receipt=name,
        reason=next((row.reason for row in receipt.ledger if row.entry == "session"), ""),
        window_bytes=tuple(window.tar_bytes() for window in receipt.windows),
    )


def settled(item: WorkItem, staging: Folder, rehash: bool) -> Receipt | None:
    """The item's receipt if it stands for the files as they are now. One that cannot be read is none.

    A file of the same size with another stamp is hashed; with `rehash` every file is.
    """
    name = item.receipt_name()
    if not staging.exists(f"{RECEIPTS}/{name}"):
        return None
    try:
        receipt = read(staging, name)
    except CorpusError:
        return None
    proofs = {proof.identity.path: proof for proof in receipt.files}
    if set(proofs) != {kept_path(item, identity.path) for identity in item.files}:
        return None
    for identity in item.files:
        proof = proofs[kept_path(item, identity.path)]
        if identity.size_bytes != proof.identity.size_bytes:
            return None
        doubt = rehash or identity.stamp != proof.identity.stamp
        if doubt and identity.size_bytes >= 0 and _sha256(item, identity.path) != proof.sha256:
            return None
    return receipt.model_copy(update={"split": item.split})


def parts_stand(receipt: Receipt, staging: Folder) -> bool:
    """Whether every part of the receipt is there with all its bytes. That they are the right ones is seen when they are copied."""
    return all(staging.exists(part) and staging.size(part) == part_bytes(receipt, part) for part in receipt.parts())


def source_now(item: WorkItem) -> str:
    """The item's source digest, from its files as they are; nothing is decoded."""
    return item_digest(item, prove(item))


def paths_of(session: Session) -> list[str]:
    """The files of a session, each once, in the order in which the row names them."""
    return list(dict.fromkeys([stream.path for stream in session.streams] + [transcript.path for transcript in session.transcripts]))


def source_digest(session: Session, sha256: Mapping[str, str]) -> str:
    """sha256 of the row with every path replaced by its file's sha256: what the session is, wherever it lies."""
    row = session.model_dump(mode="json")
    for entry in [*row["streams"], *row["transcripts"]]:
        entry["path"] = sha256[entry["path"]]
    return sha256_hex(canonical_json(row))


def item_digest(item: WorkItem, proofs: tuple[FileProof, ...]) -> str:
    """The source digest of the item with these files."""
    digests = {
        identity.path: proof.sha256 or f"not there: {kept_path(item, identity.path)}"
        for identity, proof in zip(item.files, proofs, strict=True)
    }
    return source_digest(item.session, digests)


def prove(item: WorkItem, alive: Callable[[], None] = lambda: None) -> tuple[FileProof, ...]:
    """The sha256 of every file of the item. Raises OSError when a file is no longer what the plan saw."""
    proofs = []
    for identity in item.files:
        there = identity.size_bytes >= 0
        digest = _sha256(item, identity.path, alive) if there else ""
        if there and folders.identify(item.root, identity.path) != identity:
            raise OSError(f"{identity.path}: changed while it was read")
        proofs.append(FileProof(identity=identity.model_copy(update={"path": kept_path(item, identity.path)}), sha256=digest))
    return tuple(proofs)


def make(item: WorkItem, *, ledger: list[LedgerRow], proofs: tuple[FileProof, ...], digest: str = "", **windows: Any) -> Receipt:
    """A receipt of the item. `digest` identifies it where no file was looked at; `windows` is what a session that is kept has besides."""
    nothing = {"session_ticks": 0, "windows": (), "tail_codes": {}}
    return Receipt(
        session=item.key,
        session_id=item.session.id,
        split=item.split,
        order=item.order,
        spec=item.spec.digest(),
        toolchain=item.toolchain,
        source_digest=digest or item_digest(item, proofs),
        files=proofs,
        ledger=_named(item, ledger),
        **nothing | windows,
    )


def rejection(item: WorkItem, error: MediaError, ledger: list[LedgerRow] | None = None) -> Receipt:
    """The receipt of a session dropped whole; `ledger` is what was counted of it before."""
    row = LedgerRow(
        session=item.key,
        session_id=item.session.id,
        entry="session",
        reason=error.reason,
        stage="featurise",
        message=f"{error}{f' ({error.hint})' if error.hint else ''}",
        dropped=1,
    )
    return make(item, ledger=[row, *(ledger or [])], proofs=prove(item))


def sentence(item: WorkItem, text: str) -> str:
    """The sentence without where the input lies."""
    for path in sorted((identity.path for identity in item.files), key=len, reverse=True):  # one may begin another
        for whole in (folders.locate(item.root, path), path):
            text = text.replace(whole, _shown(item, path))
    return text.replace(f"{item.root.rstrip('/')}/", "")


def files_told(item: WorkItem) -> str:
    """The item's files as a sentence may name them."""
    return ", ".join(_shown(item, identity.path) for identity in item.files)


def kept_path(item: WorkItem, path: str) -> str:
    """A path as a receipt keeps it: itself if an output may show it, else a hash that still tells files apart."""
    return path if shown_path(path) == path and not item.hide_names else f"sha256:{sha256_hex(path)[:32]}"


def _shown(item: WorkItem, path: str) -> str:
    return kept_path(item, path) if item.hide_names else shown_path(path)


def _named(item: WorkItem, rows: list[LedgerRow]) -> tuple[LedgerRow, ...]:
    """The rows under the item's name, no place of this machine in any sentence, and no file's name where names are hidden."""
    same = {"session": item.key, "session_id": item.session.id}
    hidden = {shown_path(identity.path): _shown(item, identity.path) for identity in item.files} if item.hide_names else {}
    return tuple(
        row.model_copy(update=same | {"message": sentence(item, row.message), "file": hidden.get(row.file, row.file)}) for row in rows
    )


def _sha256(item: WorkItem, path: str, alive: Callable[[], None] = lambda: None) -> str:
    with folders.open_source(item.root, path) as file:
        return folders.sha256_of(file, alive)
