"""Text to ids and back, as the layout names it: UTF-8 bytes, the open model's o200k, or a tokenizer.json.

Every tokenizer here is ordinary: text that spells a special token stays text, nothing is cut off or prepended. Refused when it is loaded: a
tokenizer whose ids meet those of the layout's controls, and one that loses text.

Costs: bytes nothing; o200k about 2 s to load (it imports torch) and a microsecond a word; a large tokenizer.json 1 s.
"""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...schemas.errors import InputError
from ...schemas.layout import NUM_SLOTS, ControlIds, LayoutSpec
from ...schemas.strict import sha256_hex
from ..text.timed_words import well_formed
from . import o200k
from .o200k import export_inkling

__all__ = ["BytesTokenizer", "FileTokenizer", "InklingTokenizer", "Tokenizer", "export_inkling", "layout_for", "load"]

PROBE = ("Hello", "wörld", "你好", "😀")  # what a tokenizer must give back to be one that loses no text


class Tokenizer(Protocol):
    """Text to ids and back. Ids are in 0 … `vocab_size` - 1."""

    name: str
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """The ids of any text, without special tokens. Lone surrogates become U+FFFD: no UTF-8 can hold them."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
        ...


class BytesTokenizer:
    """UTF-8 bytes: 256 ids, no file, no vocabulary."""

    name = "bytes"
    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        return list(well_formed(text).encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


class InklingTokenizer:
    """o200k as the open model's own package computes it. Raises InputError where that package is not installed."""

    name = "inkling"
    vocab_size = o200k.VOCAB_SIZE

    def __init__(self) -> None:
        try:
            from tml_renderers.tokenizers import O200kBaseChatTokenizer
        except ImportError as error:
            raise _extra_missing("the `inkling` tokenizer", "oracle", "a tokenizer.json exported where it is works as well") from error
        self._o200k = O200kBaseChatTokenizer()

    def encode(self, text: str) -> list[int]:
        return self._o200k.encode_ordinary(well_formed(text))

    def decode(self, ids: Sequence[int]) -> str:
        return self._o200k.decode(list(ids))


class FileTokenizer:
    """A tokenizer.json, read by the `tokenizers` library. Raises InputError where the library is missing or cannot read the bytes."""

    name = "file"

    def __init__(self, data: bytes, *, where: str) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise _extra_missing("a tokenizer.json", "text", "or use the `bytes` tokenizer") from error
        try:
            library = Library.from_buffer(data)
        except Exception as error:  # the library raises plain Exception
            raise InputError(f"{where}: not a tokenizer.json ({error})", hint="it is the file that `Tokenizer.save` writes") from None
        library.no_truncation()  # both may be set in the file; either would lose or invent text
        library.no_padding()
        library.encode_special_tokens = True  # "<|end|>" in somebody's words is five characters, not a control
        self._library = library
        special = {id_ for id_, token in library.get_added_tokens_decoder().items() if token.special}
        ids = set(library.get_vocab(with_added_tokens=True).values())
        self.vocab_size = max(ids, default=-1) + 1
        self.ordinary_ids = ids - special  # what `encode` can give; the open model's control ids are special tokens of its own file

    def encode(self, text: str) -> list[int]:
        return self._library.encode(well_formed(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._library.decode(list(ids), skip_special_tokens=False)


def load(layout: LayoutSpec, path: str | Path | None = None) -> Tokenizer:
    """The layout's tokenizer; `path` is the tokenizer.json of a `file` layout, and of no other.

    Raises:
        InputError: the file is missing, is not the one the layout names, or loses text; a package is not installed; ids collide.
    """
    tokenizer: Tokenizer
    if layout.tokenizer != "file":
        if path is not None:
            raise InputError(f"{path}: the layout's tokenizer is {layout.tokenizer!r}, which has no file", hint="leave the file out")
        tokenizer = BytesTokenizer() if layout.tokenizer == "bytes" else InklingTokenizer()
        where = f"tokenizer {layout.tokenizer!r}"
    else:
        if path is None:
            raise InputError("the layout's tokenizer is a file, and none was given", hint="name the tokenizer.json")
        data, where = Path(path).read_bytes(), str(path)
        if (found := sha256_hex(data)) != layout.tokenizer_sha256:
            raise InputError(
                f"{where}: sha256 {found}, but the layout was made with {layout.tokenizer_sha256 or 'none'}",
                hint="use the tokenizer.json that the corpus was built with",
            )
        tokenizer = FileTokenizer(data, where=where)
        if not _keeps_text(tokenizer, layout.word_prefix):
            raise InputError(f"{where}: {_lost(tokenizer, layout.word_prefix)}", hint="take a tokenizer with a byte fallback")
    taken = tokenizer.ordinary_ids if isinstance(tokenizer, FileTokenizer) else range(tokenizer.vocab_size)
    _refuse_collisions(layout.ids, taken, where=where)
    return tokenizer


def layout_for(tokenizer_json: Path) -> LayoutSpec:
    """The `file` layout of a tokenizer.json: control ids after its vocabulary, say_quota 4, spaces between words.

    The exported o200k gets the open model's ids. Raises InputError where the file is not a tokenizer.json or loses text.
    """
    data = Path(tokenizer_json).read_bytes()
    sha256 = sha256_hex(data)
    if sha256 == o200k.EXPORT_SHA256:
        return o200k.export_layout()
    tokenizer = FileTokenizer(data, where=str(tokenizer_json))
    for prefix in (" ", ""):  # "": some vocabularies bring the space with every first piece
        if _round_trip(tokenizer, prefix).strip() == " ".join(PROBE):
            return LayoutSpec(
                tokenizer="file", tokenizer_sha256=sha256, ids=_ids_from(tokenizer.vocab_size), word_prefix=prefix, say_quota=4
            )
    raise InputError(f"{tokenizer_json}: {_lost(tokenizer, ' ')}", hint="take a tokenizer with a byte fallback")


def _ids_from(first: int) -> ControlIds:
    """Control ids from `first` on, in FORMAT's order."""
    names = [name for name in ControlIds.model_fields if name not in ("slots", "heard", "patch")]
    after = first + len(names)
    values: dict[str, Any] = {name: first + place for place, name in enumerate(names)}
    values |= {"slots": tuple(range(after, after + NUM_SLOTS)), "heard": after + NUM_SLOTS, "patch": after + NUM_SLOTS + 1}
    return ControlIds(**values)


def _refuse_collisions(ids: ControlIds, taken: Container[int], *, where: str) -> None:
    names: dict[int, str] = {}
    fields = ids.model_dump(exclude={"slots"}) | {f"slots[{i}]": id_ for i, id_ in enumerate(ids.slots)}
    for name, id_ in fields.items():
        hint = "`layout_for` places control ids after a tokenizer's vocabulary"
        if id_ in taken:
            raise InputError(f"{where}: the layout's {name} = {id_} is an id of text", hint=hint)
        if not 0 <= id_ < 2**31:
            raise InputError(f"{where}: the layout's {name} = {id_} is not a non-negative int32", hint=hint)
        if id_ in names:
            raise InputError(f"{where}: the layout gives the id {id_} to both {names[id_]} and {name}", hint=hint)
        names[id_] = name


def _round_trip(tokenizer: Tokenizer, prefix: str) -> str:
    return tokenizer.decode([id_ for word in PROBE for id_ in tokenizer.encode(prefix + word)])


def _keeps_text(tokenizer: Tokenizer, prefix: str) -> bool:
    return "".join(_round_trip(tokenizer, prefix).split()) == "".join(PROBE)


def _lost(tokenizer: Tokenizer, prefix: str) -> str:
    return f"{' '.join(PROBE)!r} comes back as {_round_trip(tokenizer, prefix)!r}: this tokenizer would lose text"


def _extra_missing(what: str, extra: str, otherwise: str) -> InputError:
    return InputError(f"{what} needs a package that is not installed", hint=f"pip install 'microturn[{extra}]'; {otherwise}")
