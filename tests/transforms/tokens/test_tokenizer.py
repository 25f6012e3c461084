"""Text to ids and back: nothing is lost, nothing is special, and no id of text is a control."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.schemas.layout import INKLING_IDS, LayoutSpec
from microturn.schemas.strict import sha256_hex
from microturn.transforms.text.timed_words import well_formed
from microturn.transforms.tokens import o200k
from microturn.transforms.tokens.tokenizer import BytesTokenizer, export_inkling, layout_for, load

anything = st.lists(st.characters() | st.sampled_from(["\ud83d", "\ude00", "\0", "\u202e", "\n", " "]), max_size=40).map(
    "".join
)  # surrogates, NUL, marks of direction
CORPUS = ["the quick brown fox jumps over the lazy dog", "words that are said in two hundred milliseconds"]


# ---- bytes


@given(text=anything)
def test_bytes_give_back_every_text(text):
    tokenizer = load(LayoutSpec())
    ids = tokenizer.encode(text)
    assert all(0 <= id_ < tokenizer.vocab_size for id_ in ids)
    assert tokenizer.decode(ids) == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in _pairs_joined(text))


def _pairs_joined(text: str) -> str:
    """Surrogate pairs as the characters that they spell, found by hand."""
    out: list[str] = []
    for c in text:
        if out and "\ud800" <= out[-1] <= "\udbff" and "\udc00" <= c <= "\udfff":
            out[-1] = chr(0x10000 + (ord(out[-1]) - 0xD800 << 10) + ord(c) - 0xDC00)
        else:
            out.append(c)
    return "".join(out)


def test_a_character_cut_in_two_is_shown_as_one_that_is_missing():
    tokenizer = BytesTokenizer()
    assert tokenizer.decode(tokenizer.encode("é!")[1:]) == "\ufffd!"


@given(text=anything)
def test_well_formed_text_is_left_alone(text):
    once = well_formed(text)
    assert well_formed(once) == once and (once == text) == (not any("\ud800" <= c <= "\udfff" for c in text))


# ---- a tokenizer.json


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory):
    """A byte-level BPE in a file that would cut, pad, prepend and read specials, if it were let."""
    library = pytest.importorskip("tokenizers")
    bpe = _byte_level(library)
    bpe.post_processor = library.processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", bpe.token_to_id("<|end|>"))]
    )
    bpe.enable_truncation(3)
    bpe.enable_padding(length=50)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    bpe.save(str(path))
    return path


def _byte_level(library):
    bpe = library.Tokenizer(library.models.BPE())
    bpe.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    return bpe


@settings(deadline=None)
@given(text=anything | st.sampled_from(["<|end|>", "a<|end|>b", "x" * 10_000]))
def test_a_file_gives_back_every_text_and_takes_nothing_for_special(tokenizer_json, text):
    layout = layout_for(tokenizer_json)
    tokenizer = load(layout, tokenizer_json)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == well_formed(text)
    assert not {id_ for id_ in ids if id_ >= tokenizer.vocab_size or id_ == 0}  # 0 is <|end|>


def test_control_ids_come_after_the_vocabulary_in_the_formats_order(tokenizer_json):
    layout = layout_for(tokenizer_json)
    first, ids = load(layout, tokenizer_json).vocab_size, layout.ids
    in_order = [
        ids.bos,
        ids.picture,
        ids.perform,
        ids.speak,
        ids.silent,
        ids.own,
        ids.typed,
        ids.background,
        ids.delegate,
        ids.cancel,
        ids.end,
    ]
    assert [*in_order, *ids.slots, ids.heard, ids.patch] == list(range(first, first + 18))
    assert (layout.say_quota, layout.word_prefix, layout.tokenizer_sha256) == (4, " ", sha256_hex(tokenizer_json.read_bytes()))


def test_a_vocabulary_that_brings_its_own_spaces_gets_no_prefix(tmp_path):
    library = pytest.importorskip("tokenizers")
    spaced = library.Tokenizer(library.models.BPE(byte_fallback=True, unk_token="<unk>"))
    spaced.normalizer = library.normalizers.Sequence([library.normalizers.Prepend("▁"), library.normalizers.Replace(" ", "▁")])
    decoders = library.decoders
    spaced.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokens = ["<unk>", "▁", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = library.trainers.BpeTrainer(vocab_size=320, special_tokens=tokens, show_progress=False)
    spaced.train_from_iterator(CORPUS, trainer)
    spaced.save(str(tmp_path / "t.json"))
    layout = layout_for(tmp_path / "t.json")
    tokenizer = load(layout, tmp_path / "t.json")
    said = [id_ for word in ("you", "know", "ünlü") for id_ in tokenizer.encode(layout.word_prefix + word)]
    assert layout.word_prefix == "" and tokenizer.decode(said).split() == ["you", "know", "ünlü"]


@pytest.mark.parametrize("flaw", ["unknown words", "lower case"])
def test_a_tokenizer_that_loses_text_is_refused(tmp_path, flaw):
    library = pytest.importorskip("tokenizers")
    if flaw == "lower case":
        lossy = _byte_level(library)
        lossy.normalizer = library.normalizers.Lowercase()
    else:
        lossy = library.Tokenizer(library.models.WordLevel({"hello": 0, "?": 1}, unk_token="?"))
    lossy.save(str(tmp_path / "t.json"))
    with pytest.raises(InputError, match="lose text"):
        layout_for(tmp_path / "t.json")
    layout = LayoutSpec(tokenizer="file", tokenizer_sha256=sha256_hex((tmp_path / "t.json").read_bytes()), ids=INKLING_IDS)
    with pytest.raises(InputError, match="lose text"):
        load(layout, tmp_path / "t.json")


def test_only_the_very_file_that_the_layout_names_is_loaded(tokenizer_json, tmp_path):
    layout = layout_for(tokenizer_json)
    other = tmp_path / "tokenizer.json"
    other.write_bytes(tokenizer_json.read_bytes() + b"\n")
    with pytest.raises(InputError, match="sha256"):
        load(layout, other)
    with pytest.raises(InputError, match="none was given"):
        load(layout)
    with pytest.raises(InputError, match="has no file"):
        load(LayoutSpec(), other)
    with pytest.raises(FileNotFoundError):
        load(layout, tmp_path / "absent.json")


def test_what_is_no_tokenizer_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "t.json").write_text('{"version": "1.0"}')
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        layout_for(tmp_path / "t.json")


# ---- ids


def test_an_id_of_text_is_never_a_control(tokenizer_json):
    layout = layout_for(tokenizer_json)
    for name, id_ in [("perform", 7), ("heard", 299), ("bos", layout.ids.own), ("end", -1), ("end", 2**31)]:
        colliding = layout.model_copy(update={"ids": layout.ids.model_copy(update={name: id_})})
        with pytest.raises(InputError, match=name):
            load(colliding, tokenizer_json)
    special = layout.model_copy(update={"ids": layout.ids.model_copy(update={"end": 0})})  # <|end|> of the file: `encode` never gives it
    assert load(special, tokenizer_json).vocab_size == 300


def test_bytes_refuse_controls_among_them():
    ids = LayoutSpec().ids.model_copy(update={"slots": (267, 268, 255, 270, 271)})
    with pytest.raises(InputError, match=r"slots\[2\] = 255"):
        load(LayoutSpec(ids=ids))


# ---- packages that are not there


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tokenizer_json, tmp_path):
    for package in ("tokenizers", "tml_renderers", "tml_renderers.tokenizers"):
        monkeypatch.setitem(sys.modules, package, None)
    for extra, act in [
        ("text", lambda: layout_for(tokenizer_json)),
        ("oracle", lambda: load(LayoutSpec.named("inkling"))),
        ("oracle", lambda: export_inkling(tmp_path / "o200k.json")),
    ]:
        with pytest.raises(InputError) as error:
            act()
        assert f"microturn[{extra}]" in error.value.hint


# ---- o200k: the package's own encoder is the oracle of the exported file


@pytest.fixture(scope="module")
def inkling():
    pytest.importorskip("tml_renderers")
    return load(LayoutSpec.named("inkling"))


@pytest.fixture(scope="module")
def exported(inkling, tmp_path_factory):
    pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("o200k") / "tokenizer.json"
    return path, export_inkling(path)


@given(text=anything)
def test_o200k_gives_back_every_text(inkling, text):
    ids = inkling.encode(text)
    assert inkling.decode(ids) == well_formed(text)
    assert all(0 <= id_ < inkling.vocab_size for id_ in ids)


def test_o200k_takes_nothing_for_special(inkling):
    assert max(inkling.encode("<|endoftext|><|message_user|>")) < inkling.vocab_size


def test_the_export_is_the_same_file_every_time(exported):
    path, layout = exported
    assert sha256_hex(path.read_bytes()) == layout.tokenizer_sha256 == o200k.EXPORT_SHA256
    assert layout == layout_for(path) and layout.ids == INKLING_IDS


PIECES = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "'s", "'RE", "don't", "Hello", "wORLD", "123", "4567", "...", "/", "éa", "你好", "😀", "ǅ", "ﬁ", "\u0301"]
)


def test_the_export_agrees_with_the_package(inkling, exported):
    path, layout = exported
    tokenizer = load(layout, path)
    seen = 0

    @settings(max_examples=300, deadline=None)
    @given(text=anything | st.lists(PIECES, max_size=20).map("".join))
    def agree(text):
        nonlocal seen
        seen += bool(text)
        assert tokenizer.encode(text) == inkling.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == well_formed(text)

    agree()
    assert seen > 200
