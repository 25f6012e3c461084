"""Talks that an untrained model has with nobody: `from spoken_documents import babbler, heard, sampler_of, ticks_said`."""

from collections.abc import Iterable

import numpy as np
import torch
from grammar import Tick, ticks_of
from microturn.schemas.layout import LayoutSpec, Slot
from microturn.trainer.model import Inputs, InteractionModel, ModelSpec, initialise
from microturn.trainer.session import Engine, Limits, Perceived, Sampler
from microturn.trainer.session.grammar import Grammar
from microturn.trainer.session.sampler import Sampling
from runs import SIZES

LAYOUT = LayoutSpec()
FEW_IDS = range(97, 101)  # so few that voice and control come often


def babbler(dtype: torch.dtype = torch.float32) -> InteractionModel:
    """A tiny model that says anything, and whose flow head makes other frames of other rows."""
    model = initialise(InteractionModel(ModelSpec.parse(SIZES, where="tiny"), dtype=dtype), seed=5)
    draw = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return model


def sampler_of(model: InteractionModel, sampling: Sampling, text_ids: Iterable[int] = FEW_IDS, *, sessions: int = 2) -> Sampler:
    """A sampler of its own that may say these ids of text."""
    sampler = Sampler(Engine(model, Limits(sessions=sessions, rows=sessions * 2048)), LAYOUT, sampling)
    sampler.grammar = Grammar(LAYOUT, model.spec.vocabulary, text_ids)
    return sampler


def heard(seed: int, tick: int, **more) -> Perceived:
    """What somebody hears in this tick: noise."""
    codes = np.random.default_rng([seed, tick]).integers(0, 16, (4, 80)).astype(np.uint8)
    return Perceived(heard=codes, **more)


def ticks_said(inputs: Inputs, layout: LayoutSpec = LAYOUT) -> list[Tick]:
    """The ticks of a document, as the recogniser of FORMAT.md section 4 reads them; BOS stands before them. Slots are told here by
    what rows are embedded from and by what stands before them, not by what the sampler meant them to be.
    """
    ids = layout.ids
    kinds = dict.fromkeys(inputs.heard_rows.tolist(), Slot.HEARD) | dict.fromkeys(inputs.own_rows.tolist(), Slot.OWN)
    kinds |= dict.fromkeys(inputs.patch_rows.tolist(), Slot.PATCH)
    starts = {ids.picture: Slot.PICTURE, ids.typed: Slot.TYPED, ids.background: Slot.BACKGROUND, ids.perform: Slot.PERFORM}
    controls, voices = (ids.delegate, ids.cancel, *ids.slots), (ids.speak, ids.silent)
    slots, last = [], Slot.PERFORM
    for row, id_ in enumerate(inputs.ids.tolist()):
        inside = {Slot.TYPED: Slot.TYPED, Slot.BACKGROUND: Slot.BACKGROUND}.get(last, Slot.CONTROL if id_ in controls else Slot.SAY)
        last = kinds.get(row) or starts.get(id_) or (Slot.VOICE if id_ in voices else inside)
        slots.append(last)
    assert inputs.ids[0] == ids.bos
    return ticks_of(inputs.ids[1:].numpy(), np.array(slots[1:]), layout)
