"""Seconds of processor and of wall clock, of this process and of the children that it has waited for."""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Run:
    """One run: user and system seconds, children's too, wall seconds, and what it says that it has read."""

    cpu_s: float
    wall_s: float
    seconds: float


def timed(work: Callable[[], float]) -> Run:
    """How long this took; it gives the seconds of conversation that it has read."""
    cpu_s, wall_s = cpu_seconds(), perf_counter()
    seconds = work()
    return Run(cpu_seconds() - cpu_s, perf_counter() - wall_s, seconds)


def cpu_seconds() -> float:
    """User and system seconds so far, of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def medians(runs: list[Run]) -> Run:
    """The medians, each of its own column."""
    return Run(*(median(getattr(run, name) for run in runs) for name in ("cpu_s", "wall_s", "seconds")))


def peak_bytes() -> int:
    """The most memory that this process held. Linux's own figure: `ru_maxrss` may be that of the process which started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
