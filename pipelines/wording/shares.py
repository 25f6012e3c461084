"""Shares of splits, as they are compared and as they are written."""

from collections.abc import Mapping


def shares_of(splits: Mapping[str, float]) -> dict[str, float]:
    """Name → share of 1, without splits of nothing: 98 to 2 and 0.98 to 0.02 divide alike. Rounded, for they are written as decimals."""
    total = sum(splits.values())
    return {name: round(share / total, 12) for name, share in splits.items() if share}


def splits_told(splits: Mapping[str, float]) -> str:
    """The splits as `--split` takes them."""
    return ",".join(f"{name}={share:g}" for name, share in sorted(splits.items()))
