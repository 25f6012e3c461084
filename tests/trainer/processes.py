"""A script as several ranks, as torchrun would start it: `from processes import run_ranks`."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def run_ranks(script: Path, arguments: Sequence[str], *, size: int = 2, timeout_s: float = 240) -> None:
    """Nothing, once every rank has ended well. Raises AssertionError with what all of them printed."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join([str(script.parent), str(script.parent.parent)])  # for what tests share
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    said, deadline = [], time.monotonic() + timeout_s
    try:
        for rank in ranks:
            said.append(rank.communicate(timeout=max(1.0, deadline - time.monotonic()))[0])
    except subprocess.TimeoutExpired:
        said.append(f"not done after {timeout_s} s")
    finally:
        for rank in ranks:
            rank.kill()
    codes = [rank.wait() for rank in ranks]
    text = "\n".join(f"rank {number} left with {code}:\n{words}" for number, (code, words) in enumerate(zip(codes, said, strict=False)))
    assert codes == [0] * size and len(said) == size, text
