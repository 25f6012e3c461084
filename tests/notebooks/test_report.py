"""report.html: its numbers are those of a slower count over whole records, its sums close, and no name in it is markup."""

import hashlib
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from microturn import cli
from microturn.notebooks import page, report_sample
from microturn.notebooks.report import report
from microturn.notebooks.sample import sample, transfers
from microturn.notebooks.survey import survey
from microturn.notebooks.ticks import printable
from microturn.notebooks.whereabouts import whereabouts
from microturn.pipelines.estimate.account import ACCOUNT, Account
from microturn.pipelines.estimate.account import actual as actual_figures
from microturn.pipelines.estimate.figures import Estimate, Range, Spent
from microturn.schemas.errors import CorpusError
from microturn.schemas.layout import Slot
from microturn.transforms.tokens.tokenizer import BytesTokenizer

ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "dl", "div", "dt", "dd", "table", "tr", "th", "td"}
ALLOWED |= {"code", "b", "br", "details", "summary", "pre", "svg", "text", "rect", "line"}


class Parsed(HTMLParser):
    """Tags and attributes of a page, its text, its tables as rows of cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.tables = set(), [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data

    def table(self, head):
        """The rows, as mappings, of the table whose first cell of the first row is `head`."""
        rows = next([[cell.strip() for cell in row] for row in rows] for rows in self.tables if rows[0][0] == head)
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


@pytest.fixture(scope="module")
def parsed(hostile):
    return Parsed(report(hostile))


def integer(text):
    return int(text.replace("\u202f", ""))


def test_names_are_never_markup(parsed):
    assert parsed.tags <= ALLOWED
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "href")]
    assert not [value for name, value in parsed.attributes if name == "class" and not re.fullmatch("[a-d]|n|soft|bad|wide", value)]
    assert "<svg onload=alert(2)>" in parsed.text and "<i>broken.wav" in parsed.text  # as text
    assert r"<img src=x onerror=alert(1)>\u202e\x1b[31m" in parsed.text
    assert "<b>de</b>" in parsed.text


def test_the_page_needs_nothing_from_outside(hostile):
    text = report(hostile)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|https?://|@import|<script|<link|<img", text.replace("&lt;", ""))


def test_decoded_is_kept_and_dropped(parsed, hostile):
    rows = parsed.table("unit")
    assert {row["unit"] for row in rows} == {"sample", "word"}
    for row in rows:
        assert integer(row["decoded"]) == integer(row["kept"]) + integer(row["dropped"]) > 0
    assert integer(rows[0]["decoded"]) == 2 * (81_600 + 36_800)
    assert "Every sum of the ledger closes." in parsed.text


def test_a_sum_that_does_not_close_is_told(hostile, monkeypatch):
    honest = hostile.ledger

    def short(self, name):
        return [row | {"kept": row["kept"] - 1} if row["entry"] == "stream" else row for row in honest(name)]

    monkeypatch.setattr(type(hostile), "ledger", short)
    text = report(hostile)
    assert re.search(r"The ledger has \d+ open sums?\.", text) and "!= kept" in text
    assert len(whereabouts(hostile).faults) == 6


def test_what_was_dropped_is_told_with_its_place(parsed):
    (row,) = parsed.table("entry")
    assert (row["entry"], row["reason"], row["sum"]) == ("session", "not_media", "1 session")
    assert row["the first places"].startswith("<svg onload=alert(2)>") and "<i>broken.wav" in row["the first places"]


def test_counts_are_those_of_the_records(hostile):
    records = [hostile.read(row) for row in hostile.rows()]
    held = survey(hostile)
    assert held.num_windows == len(records) > 8
    assert held.totals["num_tokens"] == sum(len(record.tokens) for record in records)
    both = sum(int((r.activity[0] & r.activity[1]).sum()) for r in records)
    assert held.totals["overlap_ticks"] == both
    assert held.totals["own_active_ticks"] == sum(int(r.activity[-1].sum()) for r in records)
    lefts = [record for record in records if record.meta["view"] == "left"]
    assert held.events == dict(sorted(Counter(event["kind"] for r in lefts for event in r.events).items()))
    assert held.num_words == sum(len(r.words) for r in lefts) > 5
    assert held.session_ticks == 26 + 12 and (held.num_sessions, held.num_views) == (2, 4)
    assert sum(held.tokens_per_tick.values()) == sum(held.lags.values()) == len(records)
    assert held.lags == dict(sorted(Counter(r.meta["max_lag_ticks"] for r in records).items()))


def test_bytes_are_those_of_the_shards(hostile):
    held = survey(hostile)
    sizes = Counter()
    for row in hostile.rows():
        sizes.update({member["name"]: member["size"] for member in row["members"]})
    assert held.member_bytes == dict(sorted(sizes.items()))
    on_disk = sum((hostile.folder.local / "shards" / f"{shard['name']}.tar").stat().st_size for shard in hostile.shards)
    assert held.tar_bytes == on_disk > sum(sizes.values())


def test_a_sample_is_the_same_every_time_and_grows(hostile):
    few, more = sample(hostile, 3, BytesTokenizer()), sample(hostile, 6, BytesTokenizer())
    assert few == sample(hostile, 3, BytesTokenizer())
    assert few.num_windows == 3 and more.num_ticks > few.num_ticks
    assert all(more.slots[name] >= count for name, count in few.slots.items())
    rows = sorted(hostile.rows(), key=lambda row: hashlib.sha256(row["key"].encode()).hexdigest())[:3]
    assert few.num_ticks == sum(row["num_ticks"] for row in rows)
    assert sum(few.slots.values()) == sum(row["num_tokens"] for row in rows)


def test_a_sample_of_all_windows_counts_all_of_it(hostile):
    everything = sample(hostile, 10_000, BytesTokenizer())
    records = [hostile.read(row) for row in hostile.rows()]
    assert sum(everything.slots.values()) == sum(len(record.tokens) for record in records)
    said = sum(int((record.token_slot == Slot.SAY).sum()) for record in records)
    assert sum(everything.lags.values()) == said > 0
    assert max(everything.lags) == max(survey(hostile).lags)
    assert len(everything.streams) == 4


@pytest.fixture
def account(hostile):
    """An account of the build that made the corpus, with an estimate of half of everything."""
    actual = actual_figures(hostile.folder, None, hostile.dataset, {"not_media": 1}, 7200.0)
    half = actual.model_copy(
        update={"windows": actual.windows // 2, "bytes": {k: v // 2 for k, v in actual.bytes.items()}, "cpu_s": 3600.0}
    )
    same = Range(low=1.0, high=1.0)
    counts = {"sessions_planned": 3, "sessions_known": 0, "sessions_done": 0, "looked_at": 2, "of": 3, "unsaid": 0, "unreadable": 0}
    tried = {"attempts": 1, "attempted_s": 60.0, "kinds": {}, "wall_s": {1: 50.0}}
    told = Estimate(plan="", input_bytes=1, figures=half, hours=same, cpu_s=same, **counts, **tried)
    spent = Spent(wall_s=100.0, media_cpu_s=7000.0, worker_cpu_s=200.0, workers=1, hosts=1, featurised=2, conversation_s=7200.0 * 90)
    made = Account(content=hostile.dataset["digests"]["content"], actual=actual, spent=spent, estimate=told, same_plan=True)
    yield made
    hostile.folder.delete(ACCOUNT)


def test_an_estimate_stands_beside_what_happened(hostile, account):
    account.write(hostile.folder)
    page = Parsed(report(hostile))
    rows = {row["the last build"]: [cell.partition("\n")[0] for cell in list(row.values())[1:]] for row in page.table("the last build")}
    held = survey(hostile)
    assert rows["windows"] == [str(held.num_windows // 2), str(held.num_windows), f"{held.num_windows / (held.num_windows // 2):.2f}"]
    assert rows["sessions"] == ["2", "2", "1.00"] and rows["… not_media"] == ["1", "1", "1.00"]
    assert rows["core-hours"] == ["1", "2", "2.00"] and rows["time"] == ["0:00:50", "0:01:40", "2.00"]
    assert rows["… own speech, as PCM"][2] == "2.00" and rows["shards"][1] == str(len(hostile.shards))
    assert rows["conversation, h:mm:ss"][1] == "0:00:07" and "90 hours of conversation a core-hour" in page.text
    assert "headers of 2 of 3 sessions" in page.text and "another plan" not in page.text
    other = account.model_copy(update={"same_plan": False})
    other.write(hostile.folder)
    assert "another plan" in report(hostile)


def test_what_was_not_estimated_is_told_without_a_ratio(hostile, account):
    account.model_copy(update={"estimate": None}).write(hostile.folder)
    page = Parsed(report(hostile))
    rows = page.table("the last build")
    assert {(row["estimated"], row["actual ÷ estimated"][0]) for row in rows} == {("–", "–")} and "Nothing was estimated" in page.text


def test_an_account_of_another_content_is_not_shown(hostile, account):
    account.model_copy(update={"content": "another"}).write(hostile.folder)
    assert "Estimated and spent" not in report(hostile)


def test_the_page_states_its_sample(hostile):
    assert "a sample of 2 of" in report(hostile, sample_windows=2)
    assert "a sample of" not in report(hostile)
    assert "No gap or overlap" in report(hostile, sample_windows=0)


def test_the_same_corpus_gives_the_same_page(hostile):
    assert report(hostile) == report(hostile)
    done = CliRunner().invoke(cli.microturn, ["report", hostile.folder.uri])
    path = hostile.folder.local / "report.html"
    assert done.exit_code == 0 and done.stdout.strip() == str(path)
    assert path.read_text(encoding="utf-8") == report(hostile)
    assert str(hostile.folder.local.parent) not in path.read_text(encoding="utf-8")


def test_transfers_are_gaps_and_overlaps_that_hand_over():
    events = [
        {"kind": "turn", "participant": "a", "start": 0, "stop": 100},
        {"kind": "turn", "participant": "b", "start": 80, "stop": 300},  # takes over: -20
        {"kind": "overlap", "participant": "b", "start": 80, "stop": 100},
        {"kind": "turn", "participant": "a", "start": 200, "stop": 250},  # stops inside b's turn: no transfer
        {"kind": "overlap", "participant": "a", "start": 200, "stop": 250},
        {"kind": "gap", "participant": "a", "start": 300, "stop": 450},  # +150
    ]
    assert sorted(transfers(events)) == [-20, 150]


@given(st.dictionaries(st.integers(0, 100_000), st.integers(1, 50), max_size=30))
def test_bins_lose_no_count(counts):
    bins = report_sample._binned(counts, 10)
    assert sum(count for _, count in bins) == sum(counts.values()) and len(bins) <= 30
    assert sum(count for _, count in report_sample._capped(counts)) == sum(counts.values())


@given(st.text(max_size=60))
def test_any_text_comes_back_from_markup(text):
    kept = Parsed(page.tag("p", text))
    assert kept.tags == {"p"} and kept.text == printable(text)


def test_bars_are_as_long_as_their_values():
    drawn = page.bars([("a", 1, ""), ("b", 4, ""), ("<c>", 2, "")], about="three")
    widths = [float(w) for w in re.findall(r'class=a x="\d+\.\d" y="[\d.]+" width="([\d.]+)"', drawn)]
    assert widths == [pytest.approx(widths[1] * share, abs=0.1) for share in (0.25, 1, 0.5)] and "&lt;c&gt;" in drawn


def test_no_corpus_is_an_error_of_one_sentence(tmp_path):
    with pytest.raises(CorpusError.__mro__[1], match=r"no dataset\.json"):
        CliRunner().invoke(cli.microturn, ["report", str(tmp_path)], catch_exceptions=False)
