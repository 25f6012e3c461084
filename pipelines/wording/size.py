"""Numbers as people write them on a command line: of bytes, and reals in a range."""

import math
from typing import Any

import click

_SIZES = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class Size(click.ParamType):
    """A number of bytes: 1000000, 512MiB, 2GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        number = text.rstrip("BbGgIiKkMm")
        unit = text[len(number) :].upper()
        if not number.strip().isdecimal() or unit not in _SIZES or not int(number):
            self.fail(f"{value!r} is no number of bytes; for example 512MiB", param, ctx)
        return int(number) * _SIZES[unit]


class Real(click.FloatRange):
    """A number in a range. `nan`, which click takes, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number
