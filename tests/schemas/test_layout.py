"""The layouts' numbers are those of FORMAT.md section 4, each its own."""

import pytest
from microturn.schemas.clock import TICK_FRAMES
from microturn.schemas.errors import InputError
from microturn.schemas.layout import BYTES_IDS, INKLING_IDS, NUM_SLOTS, ControlIds, LayoutSpec, Slot

ORDER = [
    "bos",
    "picture",
    "perform",
    "speak",
    "silent",
    "own",
    "typed",
    "background",
    "delegate",
    "cancel",
    "end",
    "slots",
    "heard",
    "patch",
]
# FORMAT.md section 4, in its own words
INKLING = {
    "bos": 200028, "picture": 200005, "perform": 200029, "speak": 200030, "silent": 200031, "own": 200032, "typed": 200033,
    "background": 200034, "delegate": 200035, "cancel": 200036, "end": 200037, "slots": (200038, 200039, 200040, 200041, 200042),
    "heard": 200053, "patch": 200054,
}  # fmt: skip
USED_BY_THE_OPEN_MODEL = 200058  # ids; what lies above is padding of its embedding table


def flat(ids: ControlIds) -> list[int]:
    return [id_ for name in ORDER for id_ in (ids.slots if name == "slots" else [getattr(ids, name)])]


def test_byte_controls_follow_the_bytes_in_the_formats_order():
    assert list(ControlIds.model_fields) == ORDER and flat(BYTES_IDS) == list(range(256, 274))


def test_inkling_controls_are_those_of_the_format_and_inside_the_open_vocabulary():
    assert INKLING_IDS.model_dump() == INKLING
    assert min(flat(INKLING_IDS)) > 199_997 and max(flat(INKLING_IDS)) < USED_BY_THE_OPEN_MODEL  # o200k's text ends at 199997


@pytest.mark.parametrize("ids", [BYTES_IDS, INKLING_IDS], ids=["bytes", "inkling"])
def test_each_id_means_one_thing_and_fits_into_tokens(ids):
    assert len(set(flat(ids))) == len(flat(ids)) == 13 + NUM_SLOTS == 18
    assert min(flat(ids)) >= 0 and max(flat(ids)) < 2**31  # tokens.npy is int32


def test_a_named_layout_has_its_tokenizers_numbers():
    plain, open_ = LayoutSpec.named("bytes"), LayoutSpec.named("inkling")
    assert plain == LayoutSpec() and (plain.tokenizer, plain.ids, plain.say_quota) == ("bytes", BYTES_IDS, 8)
    assert (open_.tokenizer, open_.ids, open_.say_quota) == ("inkling", INKLING_IDS, 4)
    assert (plain.typed_quota, plain.background_quota, plain.text_lead_ticks, plain.speak_hangover_ticks) == (8, 16, 0, 1)
    assert (plain.quiet_weight, plain.quiet_ticks) == (0.2, 10) and plain.digest() != open_.digest()
    with pytest.raises(ValueError, match="bytes or inkling"):
        LayoutSpec.named("gpt2")


@pytest.mark.parametrize(
    "settings",
    [{"say_quota": 0}, {"quiet_weight": -0.2}, {"quiet_ticks": 0}, {"text_lead_ticks": -1}, {"ids": {"bos": 1}}, {"tokenizer": "gpt2"}],
)
def test_a_layout_that_cannot_be_is_refused(settings):
    with pytest.raises(InputError):
        LayoutSpec.parse(settings, where="dataset.json, layout")


def test_slots_are_where_they_were():
    """token_slot.npy of every corpus written so far holds these numbers."""
    assert [slot.name for slot in Slot] == ["PICTURE", "PATCH", "HEARD", "TYPED", "BACKGROUND", "PERFORM", "SAY", "CONTROL", "VOICE", "OWN"]
    assert [int(slot) for slot in Slot] == list(range(10)) and TICK_FRAMES == 4
