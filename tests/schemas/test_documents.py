"""The lists that docs/FORMAT.md gives are those of the code, word for word and in its order."""

import ast
import re
from pathlib import Path

import microturn
import pytest
from microturn.schemas import manifest, meta
from microturn.schemas.reasons import REASONS, SESSION_REASONS, TEXT_REASONS, UNIT_REASONS
from microturn.schemas.rows import EventRow, WordRow
from microturn.schemas.tables import INDEX_SCHEMA, LEDGER_SCHEMA, LedgerRow

HOUSE = Path(microturn.__file__).parent
FORMAT = (HOUSE / "docs" / "FORMAT.md").read_text(encoding="utf-8")


def listed(after):
    """The names in code type of the one line that holds `after`, behind it."""
    (line,) = [line.partition(after)[2] for line in FORMAT.splitlines() if after in line]
    return re.findall(r"`([^`]+)`", line.partition(": ")[2] if not after.endswith(": ") else line)


def meta_keys(model=meta.Meta, before=""):
    """Every key, those inside behind a point, `[]` for each of a list."""
    for name, field in model.model_fields.items():
        inside = re.search(r"(\w+Meta)", str(field.annotation))
        inner = getattr(meta, inside[1]) if inside else None
        key = before + name + ("[]" if inner and "tuple" in str(field.annotation) else "")
        yield from meta_keys(inner, key + ".") if inner else [key]


@pytest.mark.parametrize(
    "after, names",
    [
        ("Keys of a row of `words.json`", list(WordRow.__annotations__)),
        ("Keys of a row of `events.json`", list(EventRow.__annotations__)),
        ("Keys of `meta.json`", list(meta_keys())),
        ("Columns of the index", INDEX_SCHEMA.names),
        ("Columns: ", LEDGER_SCHEMA.names),
        ("of a whole session or stream", list(SESSION_REASONS)),
        ("of samples and pictures: ", list(UNIT_REASONS)),
        ("of words and events: ", list(TEXT_REASONS)),
    ],
)
def test_the_documents_lists_are_those_of_the_code(after, names):
    assert listed(after)[-len(names) :] == names


@pytest.mark.parametrize(
    "name, model", [("streams", manifest.Stream), ("participants", manifest.Participant), ("transcripts", manifest.Transcript)]
)
def test_the_documents_manifest_has_the_keys_of_the_code(name, model):
    (inside,) = re.findall(rf"`{name}\[\{{(.+?)\}}\]`", FORMAT)
    optional = {key for key, field in model.model_fields.items() if not field.is_required()}
    keys = [re.match(r"(\w+)(\??)", part.strip()) for part in inside.split(",")]
    assert {key[1] for key in keys} == set(model.model_fields)
    assert {key[1] for key in keys if key[2]} <= optional


def test_the_documents_entries_are_those_of_the_ledger():
    (line,) = re.findall(r"^Entries: (.+?) Accounts", FORMAT, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", line)) == set(LedgerRow.model_fields["entry"].annotation.__args__)


# ---- reasons: every one that the code can give is listed, and none that it cannot

WHERE = {"drop": (0, 1), "_drop": (1,), "reject": (0,), "Fault": (0,), "_unused": (4,)}  # positions of a reason among a call's arguments
RETURNED_BY = {"_refusal", "_outside"}
NAME = re.compile(r"[a-z]+(_[a-z]+)*")


def reasons_in(tree):
    """Constants that stand where a reason does: by keyword, by position, in an assignment to `fault` or `reason`, or returned."""
    spots = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            spots += [k.value for k in node.keywords if k.arg == "reason"]
            spots += [node.args[at] for at in WHERE.get(name, ()) if at < len(node.args)]
        elif isinstance(node, ast.FunctionDef) and node.name in RETURNED_BY:
            returned = [r.value for r in ast.walk(node) if isinstance(r, ast.Return) and r.value]
            spots += returned
        elif isinstance(node, ast.Assign):
            target = ast.unparse(node.targets[0])
            spots += [node.value] if target.endswith(".fault") or "reason" in target else []
    values = [value for spot in spots for value in outcomes(spot)]
    return {value for value in values if isinstance(value, str) and NAME.fullmatch(value)}


def outcomes(node):
    """The constants that an expression may come out as; of a tuple, those of its first element."""
    match node:
        case ast.Constant():
            return [node.value]
        case ast.IfExp():
            return outcomes(node.body) + outcomes(node.orelse)
        case ast.Tuple():
            return outcomes(node.elts[0])
    return []


def test_every_reason_of_the_code_is_listed_and_every_listed_one_is_given_somewhere():
    files = [file for room in ("transforms", "pipelines") for file in sorted((HOUSE / room).rglob("*.py"))]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    found = set().union(*map(reasons_in, trees))
    words = {n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert len(found) > 40 and sorted(found - set(REASONS)) == []
    assert sorted(set(REASONS) - words) == []


@pytest.mark.parametrize(
    "line",
    [
        'raise MediaError("it is so", reason="new_one")',
        'self._drop(3, "new_one", "it is so")',
        'sheet.drop("new_one", "it is so")',
        'sheet.fault = ("new_one", "it is so")',
        'reason, tail = ("new_one", "it is so")',
        'yield Fault("new_one", "it is so")',
        'def _outside(a):\n    return "new_one" if a else ""',
    ],
)
def test_a_reason_that_is_not_listed_is_found(line):
    assert reasons_in(ast.parse(line)) - set(REASONS) == {"new_one"}


def test_a_reason_is_listed_once():
    assert len(REASONS) == len(SESSION_REASONS) + len(UNIT_REASONS) + len(TEXT_REASONS)
    assert all(NAME.fullmatch(name) and meaning and not meaning.endswith(".") for name, meaning in REASONS.items())
