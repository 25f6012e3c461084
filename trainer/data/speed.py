"""How fast a corpus is read, beside plain webdataset on the same shards in the same run, and how full sequences are.

Two pairs, each in one process, each over the same tokens: windows (read, hash, decode; webdataset does not hash), and what a model trains
on (batches; for webdataset the decoded window and the own mel, codes and targets of all of it, window by window).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ...transforms import own
from .batch import Batch
from .corpus import OpenCorpus
from .loader import Loader
from .mixture import Mixture
from .spec import DataSpec
from .windows import Windows


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens that came, and the seconds of wall clock and of processor that it took."""

    name: str
    tokens: int
    wall_s: float
    cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        """By processor time: what else the machine does is not the reader's."""
        return self.tokens / self.cpu_s


@dataclass(frozen=True, slots=True)
class Fullness:
    """Rows of sequences: how many there were, of how many rows on average and at most."""

    sequences: int
    mean_rows: float
    most_rows: int

    @property
    def efficiency(self) -> float:
        """Part of the memory held for the longest sequence that is used."""
        return self.mean_rows / self.most_rows


def reading(corpus: OpenCorpus) -> list[Speed]:
    """Two pairs of speeds, webdataset's first, over an epoch in sequences of 4096 tokens; then the next epoch. Local corpora only."""
    mixture = Mixture.of([corpus], DataSpec(sequence_tokens=4096))
    num_sequences = mixture.order(0, 0).num_tokens // 4096
    batches = iter(Loader(mixture, step_sequences=1, epochs=2))
    return [
        _timed("webdataset, decoded", _samples(corpus)),
        _timed("windows", _windows(corpus)),
        _timed("webdataset, decoded, with own speech", _samples_with_own(corpus)),
        _timed("batches", map(_rows, islice(batches, num_sequences))),
        _timed("batches, an epoch later", map(_rows, batches)),  # own mel of a small corpus is there by now
    ]


def packing(corpus: OpenCorpus, spec: DataSpec, num_sequences: int) -> Fullness:
    """How full the first sequences of a run are."""
    mixture = Mixture.of([corpus], spec)
    rows = [batch.num_rows for batch in islice(Loader(mixture, step_sequences=1), num_sequences)]
    return Fullness(len(rows), sum(rows) / len(rows), max(rows))


def _timed(name: str, tokens: Iterator[int]) -> Speed:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    total = sum(tokens)
    return Speed(name, total, time.perf_counter() - wall_s, time.process_time() - cpu_s)


def _rows(batch: Batch) -> int:
    return batch.num_rows


def _samples(corpus: OpenCorpus) -> Iterator[int]:
    for sample in _webdataset(corpus):
        yield len(sample["tokens.npy"])


def _samples_with_own(corpus: OpenCorpus) -> Iterator[int]:
    for sample in _webdataset(corpus):
        mel16 = own.encode_mel(sample["own_pcm.npy"].reshape(-1), corpus.layout.own_mel)
        own.codes(mel16, corpus.layout.own_mel)
        own.to_head(mel16)
        yield len(sample["tokens.npy"])


def _webdataset(corpus: OpenCorpus) -> Iterator[dict[str, np.ndarray]]:
    import webdataset

    urls = [corpus.files.path(f"shards/{name}.tar") for name in corpus.index.shards]
    yield from webdataset.WebDataset(urls, shardshuffle=False).decode()


def _windows(corpus: OpenCorpus) -> Iterator[int]:
    windows = Windows(corpus)
    for number in range(len(corpus.index)):
        yield len(windows.read(number).record.tokens)
