"""What the options of `microturn build` mean: feature spec, layout and splits, from text. Whatever is wrong is said in words."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ...schemas.spec import FeatureSpec

DEFAULT_SPLITS = "train=0.98,val=0.01,test=0.01"
SHARD_BYTES = 512 << 20
SPLIT = r"[a-z0-9_]{1,16}"  # as in a manifest


def spec_of(path: str | None, settings: Sequence[str]) -> FeatureSpec:
    """The feature spec of `--spec` and `--set`, over the defaults. Raises InputError."""
    data: dict[str, Any] = {}
    if path:
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML ({_on_one_line(error)})") from None
        if not isinstance(data, dict):
            raise InputError(f"{path}: found {type(data).__name__}, expected a mapping")
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting!r}: expected KEY=VALUE", hint="for example --set pictures.every_ticks=1")
        *path_to, last = key.split(".")
        place = data
        for name in path_to:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {setting!r}: {name} is {place!r}, with nothing below it")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {setting!r}: not a YAML value ({_on_one_line(error)})") from None
    return FeatureSpec.parse(data, where=path or "--set")


def layout_of(name: str) -> tuple[LayoutSpec, str]:
    """(layout, path of the tokenizer.json or "") of `--tokenizer`. Raises InputError."""
    from ...transforms.tokens.tokenizer import layout_for

    if name in ("bytes", "inkling"):
        return LayoutSpec.named(name), ""
    if not Path(name).is_file():
        raise InputError(f"--tokenizer {name!r}: neither bytes, nor inkling, nor a file")
    return layout_for(Path(name)), name


def splits_of(text: str) -> dict[str, float]:
    """Name → share of `--split`. Raises InputError for what is no share, for a name twice, and for shares of nothing."""
    hint = "for example train=0.98,val=0.02"
    splits: dict[str, float] = {}
    for item in text.split(","):
        name, equals, share = (part.strip() for part in item.partition("="))
        try:
            value = float(Decimal(share))
        except ArithmeticError:
            equals, value = "", 0.0
        if not equals:
            raise InputError(f"--split {text!r}: expected NAME=SHARE,NAME=SHARE", hint=hint)
        if name in splits:
            raise InputError(f"--split {text!r}: {name} stands twice", hint=hint)
        if not re.fullmatch(SPLIT, name):
            raise InputError(f"--split: {name!r} is no name of a split: 1 to 16 of a–z, 0–9 and _", hint=hint)
        splits[name] = value
    if not all(math.isfinite(share) and share >= 0 for share in splits.values()) or not sum(splits.values()):
        raise InputError(f"--split {text!r}: shares must be 0 or more, and one of them more than 0", hint=hint)
    return splits


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
