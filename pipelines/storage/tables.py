"""Parquet files of a folder, read and written whole."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .folders import Folder


def read_table(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, from its bytes: a reader on a Python file would free it from a thread of its own, at exit too."""
    return pq.read_table(pa.BufferReader(folder.read(name)), columns=list(columns) if columns else None, pre_buffer=False)


def write_table(out: Folder, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """A Parquet file of these rows."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    out.write(name, sink.getvalue())
