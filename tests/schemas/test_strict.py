"""Strict values: every field in the digest, no key unnoticed, nothing changed after it was made."""

import sys
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.schemas.layout import LayoutSpec
from microturn.schemas.manifest import Session
from microturn.schemas.receipts import Receipt
from microturn.schemas.spec import FeatureSpec
from microturn.schemas.strict import Strict, canonical_json, sha256_hex
from pydantic import BaseModel, ValidationError

STREAM = {"id": "a", "path": "a.wav", "kind": "audio", "participant": "p0"}


class Ear(Strict):
    hop_samples: int = 800


class Eye(Strict):
    hop_samples: int = 800


def leaves(value: Strict, *path: str) -> list[tuple[str, ...]]:
    """The path of every field below, down to plain values."""
    below = [(name, getattr(value, name)) for name in type(value).model_fields]
    return [leaf for name, child in below for leaf in (leaves(child, *path, name) if isinstance(child, Strict) else [(*path, name)])]


def changed(value: Any, to: Any, path: tuple[str, ...]) -> Any:
    """`value` with the field at `path` set to `to(old)`, whether or not that would be valid."""
    name, *rest = path
    child = getattr(value, name)
    return value.model_copy(update={name: changed(child, to, tuple(rest)) if rest else to(child)})


def another(old: Any) -> Any:
    match old:
        case bool():
            return not old
        case int() | float():
            return old + 1
        case str():
            return old + "x"
        case tuple():
            return (*old[:-1], old[-1] + 1)
    raise AssertionError(f"teach me to change {old!r}")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the changed values are not valid ones
@pytest.mark.parametrize("spec", [FeatureSpec(), LayoutSpec()], ids=["FeatureSpec", "LayoutSpec"])
def test_every_field_is_in_the_digest(spec):
    paths = leaves(spec)
    digests = {changed(spec, another, path).digest() for path in paths}
    assert len(paths) > 20 and len(digests | {spec.digest()}) == len(paths) + 1


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@given(path=st.sampled_from(leaves(FeatureSpec())), by=st.integers(1, 2**40))
@settings(deadline=None)
def test_a_field_changed_to_anything_else_changes_the_digest(path, by):
    spec = FeatureSpec()
    moved = changed(spec, lambda old: old + by if type(old) in (int, float) else f"{old}{by}", path)
    assert moved.digest() != spec.digest() and changed(moved, lambda _: value_at(spec, path), path).digest() == spec.digest()


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = getattr(value, name)
    return value


def test_the_types_name_is_in_the_digest():
    assert Ear().model_dump() == Eye().model_dump() and Ear().digest() != Eye().digest()
    assert Ear().digest() == sha256_hex('["Ear",{"hop_samples":800}]')


def test_what_was_written_down_gives_the_same_digest():
    spec = FeatureSpec.parse({"pictures": {"every_ticks": 2}, "activity": {"min_level_db": -55}}, where="s")
    assert FeatureSpec.model_validate_json(spec.model_dump_json()).digest() == spec.digest()
    assert FeatureSpec.parse(spec.model_dump(mode="json"), where="s") == spec


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
@settings(deadline=None)
def test_canonical_json_knows_no_order_of_keys(value):
    def turned(v: Any) -> Any:
        if isinstance(v, dict):
            return {key: turned(v[key]) for key in reversed(v)}
        return [turned(x) for x in v] if isinstance(v, list) else v

    assert canonical_json(turned(value)) == canonical_json(value)


@pytest.mark.parametrize("no_number", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(no_number):
    with pytest.raises(ValueError):
        canonical_json([no_number])
    with pytest.raises(InputError, match=r"^s: dmel\.power_floor: Input should be a finite number"):
        FeatureSpec.parse({"dmel": {"power_floor": no_number}}, where="s")


@pytest.mark.parametrize(
    "cls, data, place, near",
    [
        (FeatureSpec, {"window_tick": 1}, "window_tick", "window_ticks"),
        (FeatureSpec, {"pictures": {"every_tick": 1}}, "pictures.every_tick", "every_ticks"),
        (LayoutSpec, {"ids": {**LayoutSpec().ids.model_dump(), "slot": 1}}, "ids.slot", "slots"),
        (Session, {"id": "s", "streams": [STREAM], "transcript": []}, "transcript", "transcripts"),
        (Session, {"id": "s", "streams": [STREAM, STREAM | {"id": "b", "pth": "x"}]}, "streams.1.pth", "path"),
        (Session, {"id": "s", "streams": [STREAM], "transcripts": [{"path": "t", "speaker": {}}]}, "transcripts.0.speaker", "speakers"),
        (Session, {"id": "s", "streams": [STREAM], "events": [{"kind": "typed", "at": 1, "txt": "x"}]}, "events.0.txt", "text"),
        (Receipt, {"windows": [{"members": [{"ofset": 1}]}]}, "windows.0.members.0.ofset", "offset"),
    ],
)
def test_an_unknown_key_is_refused_at_any_depth_and_its_near_miss_named(cls, data, place, near):
    with pytest.raises(InputError) as refused:
        cls.parse(data, where="m.jsonl:3")
    assert str(refused.value).startswith("m.jsonl:3: ") and f"unknown key {place!r}" in str(refused.value)
    assert f"did you mean {near!r}?" in refused.value.hint


def test_a_key_near_to_none_is_told_which_there_are():
    with pytest.raises(InputError) as refused:
        FeatureSpec.parse({"events": {"zzz": 1}}, where="s")
    assert refused.value.hint.startswith("known keys here: backchannel_max_samples, ")


def test_a_refusal_says_place_and_value_and_nothing_twice():
    with pytest.raises(InputError) as refused:
        Session.parse({"id": "s", "streams": [STREAM | {"index": -1}]}, where="m.jsonl:3")
    assert str(refused.value) == "m.jsonl:3: streams.0.index: Input should be greater than or equal to 0, found -1"
    with pytest.raises(InputError) as refused:
        Session.parse({"id": "s", "streams": [STREAM, STREAM]}, where="m.jsonl:3")
    assert str(refused.value) == "m.jsonl:3: stream id 'a' stands twice in one session"


@pytest.mark.parametrize("bomb", ["x" * 10**6, list(range(10**6)), {str(n): n for n in range(10**5)}], ids=["text", "list", "mapping"])
def test_a_refusal_is_short_whatever_was_found(bomb):
    with pytest.raises(InputError) as refused:
        FeatureSpec.parse({"window_ticks": bomb}, where="s")
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "mappings"])
def test_a_row_nested_deeper_than_python_goes_is_refused_in_words(wrap):
    deep: Any = 1
    for _ in range(2 * sys.getrecursionlimit()):
        deep = wrap(deep)
    for row in ({"id": deep}, {"id": "s", "streams": deep}, {"id": "s", "streams": [STREAM], "custom": {"a": deep}}):
        with pytest.raises(InputError, match=r"^m\.jsonl:3: "):
            Session.parse(row, where="m.jsonl:3")


def test_a_value_cannot_be_changed():
    for value, name in (
        (FeatureSpec(), "window_ticks"),
        (FeatureSpec().dmel, "num_bands"),
        (Session.parse({"id": "s", "streams": [STREAM]}, where=""), "id"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(value, name, 1)


def test_a_variant_of_a_field_that_is_not_there_is_refused():
    assert FeatureSpec().model_copy(update={"window_ticks": 7}).window_ticks == 7 and FeatureSpec().model_copy() == FeatureSpec()
    with pytest.raises(TypeError, match="FeatureSpec has no field 'window_tick'"):
        FeatureSpec().model_copy(update={"window_tick": 7})
    assert "window_tick" in vars(BaseModel.model_copy(FeatureSpec(), update={"window_tick": 7}))  # pydantic's own takes it


@pytest.mark.parametrize(
    "settings_, said",
    [
        ({"window_ticks": 0}, "window_ticks"),
        ({"pictures": {"every_ticks": 1, "max_width_px": 640, "max_height_px": 480}}, "bytes of patches"),
        ({"pictures": {"patch_px": 20}}, "should be 40"),
        ({"dmel": {"num_bands": 64}}, "dmel.num_bands is 80 in every record, found 64"),
        ({"dmel": {"hop_samples": 400}}, "dmel.hop_samples is 800 in every record"),
        ({"dmel": {"num_codes": 300}}, "less than or equal to 256"),  # codes are uint8
        ({"limits": {"max_session_samples": 10**7 * 3200}}, "max_session_samples"),  # keys have seven digits of ticks
        ({"limits": {"max_words": -1}}, "max_words"),
    ],
)
def test_a_spec_whose_windows_no_record_could_hold_is_refused(settings_, said):
    with pytest.raises(InputError, match=said):
        FeatureSpec.parse(settings_, where="--set")


def test_every_choice_is_spelled_out():
    """A field of words is a Literal: a misspelt one cannot fall through to a default."""
    free = [
        path
        for path in leaves(FeatureSpec())
        if isinstance(value_at(FeatureSpec(), path), str) and get_origin(annotation_at(FeatureSpec, path)) is not Literal
    ]
    assert free == [] and "png" in get_args(annotation_at(FeatureSpec, ("pictures", "codec")))


def annotation_at(cls: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        cls = cls.model_fields[name].annotation
    return cls
