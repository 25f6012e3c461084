"""The open model's o200k vocabulary as a tokenizer.json, written once where `tml-renderers` is installed and used anywhere after.

Measured: its ids equal the package's own on every one of 204,000 texts tried (57 MB of source code and locale files, 200,000 random strings
of many scripts). Costs 6 s and writes 12 MB, the same bytes every time.
"""

import base64
import json
from importlib import resources
from pathlib import Path

from ...schemas.errors import InputError
from ...schemas.layout import INKLING_IDS, LayoutSpec
from ...schemas.strict import sha256_hex

VOCAB_SIZE = 199_998
EXPORT_SHA256 = "2ca6832b1437721388d23309d9d9353ac18ccad588cfc230e5b0787d9f0f00d2"  # of the file that export_inkling writes
RANKS = "data/o200k_base.tiktoken"  # in the wheel: a line a token, base64 and rank

# Cuts text into pieces; merges stay inside a piece. Source: openai/tiktoken, tiktoken_ext/openai_public.py, o200k_base.
PIECES = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def export_inkling(path: str | Path) -> LayoutSpec:
    """The layout of the exported file, whose ids are those of the `inkling` layout; the tokenizer.json is written to `path`.

    tiktoken merges, of all neighbours, the pair whose union has the lowest rank. A list of merges says the same when every split of a token
    into two tokens stands in it, in the order of the token's rank. Raises InputError where tml-renderers is not installed.
    """
    try:
        lines = resources.files("tml_renderers").joinpath(RANKS).read_text(encoding="ascii").splitlines()
    except ImportError as error:
        hint = "pip install 'microturn[oracle]'; the exported file needs it no more"
        raise InputError("the o200k vocabulary comes with tml-renderers, which is not installed", hint=hint) from error
    rank_of = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    letters = byte_letters()
    spelling = {token: "".join(letters[byte] for byte in token) for token in rank_of}
    merges = []
    for token in sorted(rank_of, key=rank_of.__getitem__):
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token)) if token[:cut] in rank_of and token[cut:] in rank_of]
        merges += [[spelling[left], spelling[right]] for left, right in sorted(splits, key=lambda split: rank_of[split[0]])]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pieces = {"type": "Split", "pattern": {"Regex": PIECES}, "behavior": "Isolated", "invert": False}
    file = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [pieces, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "ignore_merges": True,  # a piece that is a token is that token, as in tiktoken
            "vocab": {spelling[token]: rank for token, rank in rank_of.items()},
            "merges": merges,
        },
    }
    data = json.dumps(file, ensure_ascii=False, separators=(",", ":")).encode()
    Path(path).write_bytes(data)
    return export_layout(sha256_hex(data))


def export_layout(sha256: str = EXPORT_SHA256) -> LayoutSpec:
    """The layout of the exported file: as `inkling`, but the tokenizer is a file."""
    return LayoutSpec(tokenizer="file", tokenizer_sha256=sha256, ids=INKLING_IDS, say_quota=4)


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a ByteLevel vocabulary. Source: openai/gpt-2, src/encoder.py, bytes_to_unicode."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letter_of = {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}
    return [letter_of[byte] for byte in range(256)]
