"""The same windows through webdataset and lhotse, as far as their users get: decoded, and packed into what a model trains on.

webdataset reads our shards as they are. lhotse reads a Shar copy of them that `write_shar` makes: heard dMel as features, what else a batch
is made from as arrays, all in numpy's format (`lilcom` would lose bits; audio codecs would cost time), labels in the cut. Both are given
the easy form of the task: windows in the order in which they lie, each a document, none hashed, nothing shuffled, mixed or restored.
Own mel is made by our own functions from the window's whole own speech, which is what is there to be had for an array of samples.

Letters: N rows, T ticks, S ticks that speak.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...schemas.clock import TICK_FRAMES, TICK_SAMPLES
from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec, Slot
from ...schemas.record import Record, encode_array
from ...schemas.spec import NUM_BANDS, PATCH_PX
from ...transforms import own
from ..data import Batch, DataSpec, OpenCorpus
from ..data.batch import of_documents
from ..data.document import Making, Window, make
from ..data.windows import Windows

Arrays = dict[str, NDArray]  # of one window, or of the rows made from it, by name

ARRAYS = ("activity", "own_pcm", "own_valid", "patches", "picture_tick", "token_slot", "token_tick", "tokens")  # beside heard_dmel
SHAR_CUTS = 250  # a shard of Shar
SAMPLE_RATE_HZ = 16_000


def our_windows(corpus: OpenCorpus) -> Iterator[Arrays]:
    """The same arrays by our own reader, each window's digest compared with the index."""
    windows = Windows(corpus, keep_bytes=0)
    for number in range(len(corpus.index)):
        window = windows.read(number).record
        yield {name: getattr(window, name) for name in ("heard_dmel", *ARRAYS)}


def webdataset_windows(corpus: OpenCorpus) -> Iterator[Arrays]:
    """Every window of the corpus' shards by plain `webdataset.WebDataset(urls).decode()`."""
    for sample in _samples(corpus):
        yield {name: sample[f"{name}.npy"] for name in ("heard_dmel", *ARRAYS)}


def webdataset_then_ours(corpus: OpenCorpus, spec: DataSpec) -> Iterator[Batch]:
    """webdataset's decoding, then our own rows of each window: a batch a window, which is neither shuffled nor packed."""
    making = Making(layout=corpus.layout, spec=spec)
    for sample in _samples(corpus):
        members: dict[str, Any] = {
            field.name: sample.get(f"{field.name}.npy", sample.get(f"{field.name}.json")) for field in fields(Record)
        }
        window = Record(**members)
        first_tick = window.meta["first_tick"]
        made = make([Window.of(window, corpus.layout)], first_tick, first_tick + window.num_ticks, making)
        yield of_documents([made], [0])


def _samples(corpus: OpenCorpus) -> Iterator[dict[str, Any]]:
    import webdataset

    urls = [corpus.files.path(f"shards/{name}.tar") for name in corpus.index.shards]
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode():
        if "patches.npy" not in sample:
            raise InputError(f"{corpus.name}: patches are not in numpy's format", hint="build it with pictures.codec npy")
        yield sample


def lhotse_windows(folder: Path) -> Iterator[Arrays]:
    """Every window of the Shar folder by `CutSet.from_shar`, whose reader is lazy."""
    from lhotse import CutSet

    for cut in CutSet.from_shar(in_dir=folder):
        heard = cut.load_features().reshape(1, -1, TICK_FRAMES, NUM_BANDS)
        yield {"heard_dmel": heard} | {name: cut.load_custom(name) for name in ARRAYS}


def write_shar(corpus: OpenCorpus, folder: Path) -> None:
    """All windows of the corpus as lhotse Shar in this folder, in order."""
    from lhotse import Features, MonoCut
    from lhotse.array import Array
    from lhotse.shar import SharWriter

    folder.mkdir(parents=True)
    fields = {"features": "numpy"} | dict.fromkeys(ARRAYS, "numpy")
    windows = Windows(corpus, keep_bytes=0)
    level, root = logging.root.level, logging.getLogger()
    root.setLevel(logging.ERROR)  # it warns of every cut
    with SharWriter(str(folder), fields=fields, shard_size=SHAR_CUTS) as writer:
        for number in range(len(corpus.index)):
            window = windows.read(number).record
            seconds, meta = window.num_ticks * TICK_SAMPLES / SAMPLE_RATE_HZ, window.meta
            name = f"{meta['session']}-{meta['view']}-{meta['first_tick']:07d}"
            heard = window.heard_dmel.reshape(-1, NUM_BANDS)
            cut = MonoCut(id=name, start=0.0, duration=seconds, channel=0)
            cut.features = Features(
                recording_id=name, channels=0, type="dmel", num_frames=len(heard), num_features=NUM_BANDS, frame_shift=0.05,
                sampling_rate=SAMPLE_RATE_HZ, start=0.0, duration=seconds,
                storage_type="memory_npy", storage_path="", storage_key=encode_array(heard),
            )  # fmt: skip
            labels = {"words": window.words, "events": window.events, "meta": window.meta}
            arrays = {key: getattr(window, key) for key in ARRAYS}
            cut.custom = labels | {
                key: Array(storage_type="memory_npy", storage_path="", storage_key=encode_array(array), shape=list(array.shape))
                for key, array in arrays.items()
            }
            writer.write(cut)
    root.setLevel(level)


def batches(windows: Iterable[Arrays], layout: LayoutSpec, sequence_tokens: int) -> Iterator[dict[str, Tensor]]:
    """Sequences of so many rows with what they are embedded from and learn: FORMAT.md section 4, each window a document of its own."""
    under_way: list[Arrays] = []
    count = 0
    for window in windows:
        under_way.append(document(window, layout))
        count += len(under_way[-1]["ids"])
        while count >= sequence_tokens:
            full, rest = _cut(_joined(under_way), sequence_tokens)
            yield {name: torch.from_numpy(array) for name, array in full.items()}
            under_way, count = [rest], count - sequence_tokens
    if count:
        yield {name: torch.from_numpy(array) for name, array in _joined(under_way).items()}


def document(window: Arrays, layout: LayoutSpec) -> Arrays:
    """A window's rows, BOS first, and what goes with the rows of each kind, in order."""
    ids_N, slots_N, ticks_N = window["tokens"], window["token_slot"], window["token_tick"]
    num_ticks = window["heard_dmel"].shape[1]
    mel16 = own.encode_mel(window["own_pcm"].reshape(-1), layout.own_mel).reshape(num_ticks + 1, TICK_FRAMES, -1, NUM_BANDS)
    codes, head = own.codes(mel16, layout.own_mel), own.to_head(mel16)

    spoken_N = (slots_N == Slot.VOICE) & (ids_N == layout.ids.speak)
    behind = num_ticks + 1 - np.count_nonzero(slots_N == Slot.PERFORM)  # 0 where the first G is that of tick -1
    voices = np.flatnonzero(slots_N == Slot.VOICE)
    speaking_S = np.flatnonzero(spoken_N[voices]) + behind  # the ticks that sound

    stirred_T: NDArray[np.bool_] = np.any(window["activity"], axis=0)
    stirred_T[ticks_N[np.isin(slots_N, (Slot.TYPED, Slot.BACKGROUND))]] = True
    loud_T = np.convolve(stirred_T, np.ones(layout.quiet_ticks, int))[:num_ticks] > 0
    performed_N = np.cumsum(slots_N == Slot.PERFORM) - 1 + behind  # the tick that a row of G is the performance of
    learns_T = (window["own_valid"] > 0) & (np.arange(num_ticks + 1) < num_ticks)
    text_N = np.isin(slots_N, (Slot.PERFORM, Slot.SAY, Slot.CONTROL))
    text_rows = np.flatnonzero(text_N)
    is_loud = loud_T[ticks_N[text_rows]] & (performed_N[text_rows] > 0)  # nothing comes before tick -1
    weights = np.where(is_loud, 1.0, layout.quiet_weight) * learns_T[performed_N[text_rows]]
    own_rows = np.flatnonzero(slots_N == Slot.OWN)
    flow_rows = np.sort(np.concatenate([np.flatnonzero(spoken_N), own_rows[np.arange(len(own_rows)) % TICK_FRAMES < TICK_FRAMES - 1]]))
    return {
        "ids": np.append(layout.ids.bos, ids_N).astype(np.int64),
        "slots": np.append(np.uint8(10), slots_N),
        "heard_rows": np.flatnonzero(slots_N == Slot.HEARD) + 1,
        "heard_codes": window["heard_dmel"].reshape(-1, NUM_BANDS),
        "own_rows": own_rows + 1,
        "own_codes": codes[speaking_S].reshape(-1, *codes.shape[2:]),
        "patch_rows": np.flatnonzero(slots_N == Slot.PATCH) + 1,
        "patches": window["patches"].reshape(-1, 2, PATCH_PX, PATCH_PX, 3),
        "text_rows": text_rows + 1,
        "text_targets": ids_N[text_rows + 1].astype(np.int64),
        "text_weights": weights.astype(np.float32),
        "flow_rows": flow_rows + 1,
        "flow_targets": head[speaking_S].reshape(-1, *head.shape[2:]),
        "flow_weights": np.repeat(learns_T[speaking_S], TICK_FRAMES).astype(np.float32),
    }


_KINDS = ("heard", "own", "patch", "text", "flow")


def _kind(name: str) -> str | None:
    """Which `_rows` say where a value stands; None where it is a row's own."""
    return next((f"{kind}_rows" for kind in _KINDS if name.startswith(kind)), None)


def _joined(documents: list[Arrays]) -> Arrays:
    """One after the other: rows of a document become rows of all."""
    starts = np.concatenate([[0], np.cumsum([len(each["ids"]) for each in documents])])
    moved = [
        each | {f"{kind}_rows": each[f"{kind}_rows"] + start for kind in _KINDS}
        for each, start in zip(documents, starts[:-1].tolist(), strict=True)
    ]
    return {name: np.concatenate([each[name] for each in moved]) for name in documents[0]}


def _cut(rows: Arrays, at: int) -> tuple[Arrays, Arrays]:
    """What stands before row `at`, and the rest."""
    places = {name: int(np.searchsorted(rows[kind], at)) if (kind := _kind(name)) else at for name in rows}
    rest = {name: array[places[name] :] for name, array in rows.items()}
    rest |= {f"{kind}_rows": rest[f"{kind}_rows"] - at for kind in _KINDS}
    return {name: array[: places[name]] for name, array in rows.items()}, rest
