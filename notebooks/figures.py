"""Numbers as people read them. Nothing here is stored or compared; `–` stands for a share of nothing."""

from ..pipelines.wording.counted import plural
from ..schemas.clock import TICK_SAMPLES, clock_text


def hms(num_ticks: int) -> str:
    """`h:mm:ss` of so many ticks, rounded down."""
    return clock_text(num_ticks * TICK_SAMPLES)[:-4]


def mib(num_bytes: int) -> str:
    """`40.0 MiB`."""
    return f"{num_bytes / 2**20:.1f} MiB"


def ratio(a: int, b: int) -> str:
    """`13.1`, or `–` of nothing."""
    return f"{a / b:.1f}" if b else "–"


def share(part: int, whole: int, places: int = 1) -> str:
    """`42.0%`, or `–` of nothing."""
    return f"{part / whole:.{places}%}" if whole else "–"


def ms(samples: int) -> str:
    """Milliseconds of session samples, to a tenth."""
    return f"{samples / 16:.1f}".removesuffix(".0").replace("-", "−") + " ms"


def number(value: int) -> str:
    """An integer with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def numbered(value: int, thing: str) -> str:
    """`1 shard`, `66\u202f000 shards`: for a page."""
    return f"{number(value)} {plural(value, thing)}"
