"""What besides input and spec decides the bytes: versions, architecture, SIMD level. Its digest is in every receipt and in dataset.json.

Measured: with AVX2 off, 60–66% of decoded AAC and Opus samples change in their last bits; so the SIMD level belongs to it.
"""

import functools
import importlib.metadata
import platform
from collections.abc import Mapping

from ...schemas.strict import canonical_json, sha256_hex

_PACKAGES = ("av", "librosa", "numpy", "pillow", "scipy", "soxr")
_X86_LEVELS = (
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}),
    ("v2", {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
)


@functools.cache
def toolchain() -> dict[str, str]:
    """Name → version of everything that decodes or computes, with the machine's architecture and SIMD level."""
    import av

    from ... import __version__

    libav = ",".join(f"{name} {'.'.join(map(str, version))}" for name, version in sorted(av.library_versions.items()))
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"microturn": __version__, **versions, "libav": libav, "architecture": platform.machine(), "simd": _simd_level()}


def toolchain_digest() -> str:
    """The digest of `toolchain()`."""
    return digest_of(toolchain())


def digest_of(versions: Mapping[str, str]) -> str:
    """sha256 of a toolchain."""
    return sha256_hex(canonical_json(["toolchain", dict(versions)]))


def _simd_level() -> str:
    """`x86-64-v1` … `v4` by the processor's flags; on other architectures the architecture says it."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((set(line.split(":", 1)[1].split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return "x86-64-unknown"
    return next((f"x86-64-{name}" for name, needed in _X86_LEVELS if needed <= flags), "x86-64-v1")
