"""microturn.json: what a folder of weights has to say that its other files cannot."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from ... import __version__
from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ...schemas.strict import Strict
from ..model import ModelSpec
from .shards import read_json

FILE = "microturn.json"


class Passport(Strict):
    """Model and layout of the weights beside it, each with its digest, so that a file changed by hand is noticed.

    Attributes:
        format: whose names the weights bear.
        note: for whoever finds the folder.
    """

    version: Literal[1] = 1
    format: Literal["inkling", "safetensors"]
    written_by: str = f"microturn {__version__}"
    note: str = ""
    model: ModelSpec
    model_digest: str = Field(pattern="^[0-9a-f]{64}$")
    layout: LayoutSpec | None
    layout_digest: str

    @classmethod
    def of(cls, form: Literal["inkling", "safetensors"], spec: ModelSpec, layout: LayoutSpec | None, note: str = "") -> "Passport":
        """The passport of these."""
        digest = layout.digest() if layout else ""
        return cls(format=form, note=note, model=spec, model_digest=spec.digest(), layout=layout, layout_digest=digest)

    def write(self, folder: Path) -> None:
        """Nothing; writes microturn.json."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, form: Literal["inkling", "safetensors"]) -> "Passport | None":
        """The folder's passport, or None where there is none.

        Raises:
            InputError: one that is not understood, of another format, or changed by hand.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        found = cls.parse(read_json(file), where=str(file))
        if found.format != form:
            raise InputError(f"{file}: the weights are in the format {found.format}, not {form}")
        if found.model_digest != found.model.digest() or found.layout_digest != (found.layout.digest() if found.layout else ""):
            raise InputError(f"{file}: model or layout is not what its digest says", hint="take the folder as it was exported")
        return found
