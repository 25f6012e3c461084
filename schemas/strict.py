"""Frozen, strict types with digests, and refusals that name the place, the value and the near miss. The base of every schema here."""

import difflib
import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, no NaN: equal values give equal text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_hex(data: bytes | str) -> str:
    """Lower-case hex sha256 of bytes, or of text as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


class Strict(BaseModel):
    """A frozen value that refuses unknown keys. Variants are made with `model_copy(update=…)` or a new call, never by mutation."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False, allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The variant with these fields, whose values are not checked again. Raises TypeError for a name that is no field of it."""
        strangers = sorted(set(update or {}) - set(type(self).model_fields))  # pydantic's own would carry them along unseen
        if strangers:
            raise TypeError(f"{type(self).__name__} has no field {strangers[0]!r}")
        return super().model_copy(update=update, deep=deep)

    def digest(self) -> str:
        """sha256 over the type's name and every field: equal fields of two kinds are not equal values."""
        return sha256_hex(canonical_json([type(self).__name__, self.model_dump(mode="json")]))

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, where: str) -> Self:
        """The value that `data` describes. Raises InputError naming `where`, the field, what was found, and a misspelt key's near miss."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InputError(f"{where}: {_explain(cls, error)}", hint=_near_miss(cls, error)) from None


def _explain(cls: type[BaseModel], error: ValidationError) -> str:
    items = error.errors(include_url=False)
    lines = []
    for item in items:
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {place!r}")
        elif item["type"] == "value_error":  # a sentence of our own, which says what was found
            lines.append(f"{place}{': ' if place else ''}{item['ctx']['error']}")
        elif not any(_is_inside(other["loc"], item["loc"]) for other in items):  # else it follows from what is wrong inside
            lines.append(f"{place or cls.__name__}: {item['msg']}, found {_SHORT.repr(item['input'])}")
    return "; ".join(lines)


_SHORT = reprlib.Repr()  # of any input in a bounded time: a row may be nested deeper than repr can go
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, 4, 4, 60, 40, 60


def _is_inside(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _near_miss(cls: type[BaseModel], error: ValidationError) -> str:
    hints = []
    for item in error.errors(include_url=False):
        if item["type"] != "extra_forbidden":
            continue
        *path, key = item["loc"]
        known = sorted(_fields_at(cls, path))
        close = difflib.get_close_matches(str(key), known, n=1)
        hints.append(f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(known)}")
    return " ".join(hints)


def _fields_at(cls: type[BaseModel], path: Sequence[int | str]) -> set[str]:
    """Field names of the model that the path leads to; follows lists, optionals and unions by their model members."""
    models = [cls]
    for part in path:
        if not isinstance(part, str):
            continue
        found = [m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part].annotation)]
        models = found or models
    return {name for model in models for name in model.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in getattr(annotation, "__args__", ()) for model in _models_in(arg)]
