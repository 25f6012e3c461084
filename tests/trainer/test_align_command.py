"""`microturn align`: nothing differs on a run, and when something is broken it says where and exits with 1."""

import json

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from microturn import cli, kernels
from microturn.schemas.errors import InputError
from microturn.schemas.layout import LayoutSpec
from microturn.trainer.session import Engine, Sampler, align_command
from microturn.trainer.session.align import Alignment, Check
from runs import config, go

CHECKS = ["packed", "alone", "company", "thread", "aborted", "restore", "hidden rows", "ids chosen", "own mel", "fresh process"]
QUICK = ["--documents", "3", "--ticks", "8", "--pairs", "2", "--json"]


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run of two steps."""
    at = tmp_path_factory.mktemp("align") / "run"
    go(at, config(folder, 2))
    return str(at)


def align(run, *args):
    """(exit code, what it says as JSON)."""
    done = CliRunner().invoke(cli.microturn, ["align", run, *QUICK, *args])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def differing(found):
    return {name for name in CHECKS for check in found["checks"] if name in check["name"] and check["differing"]}


def test_no_row_of_a_run_differs(run):
    code, found = align(run)
    assert code == 0 and found["differing"] == 0 and (found["dtype"], found["step"]) == ("float32", 2)
    assert all(any(name in check["name"] and check["rows"] for check in found["checks"]) for name in CHECKS)
    assert found["rows"] == sum(check["rows"] for check in found["checks"]) > 1200
    assert found["fingerprint"] == found["run_fingerprint"] and min(found["price"].values()) > 0


@pytest.fixture
def one_pace(monkeypatch):
    """With one thread in every check, for two on a busy machine take ten times as long, and without the price."""
    appended = Alignment.appended
    monkeypatch.setattr(Alignment, "appended", lambda *args, threads=None, **more: appended(*args, **more))
    price = {"whole_s_per_krow": 1.0, "whole_ratio": 0.5, "appends_s_per_krow": 2.0, "appends_ratio": 1.2}
    monkeypatch.setattr(align_command, "_price", lambda *_: price)


@pytest.fixture
def here(one_pace, monkeypatch):
    """And without the fresh process, which no patch reaches."""
    monkeypatch.setattr(align_command, "_fresh_process", lambda *_: Check("in a fresh process", 0, 0))


@pytest.mark.nightly
def test_no_row_differs_in_half_precision(run, here):
    code, found = align(run, "--dtype", "bfloat16", "--seed", "1")
    assert code == 0 and found["differing"] == 0 and found["dtype"] == "bfloat16" and found["rows"] > 1000


def test_sampled_sessions_begin_as_documents_do(folder, tmp_path, here, monkeypatch):
    """A run whose documents open with a prologue: so do the sessions that align samples, in the same ids."""
    go(tmp_path / "run", config(folder, 1, data={"prologue": "Be brief. "}))
    begun, given, begin, documents = [], [], Sampler.begin, align_command._documents
    monkeypatch.setattr(Sampler, "begin", lambda *args, **more: begun.append(begin(*args, **more)) or begun[-1])
    monkeypatch.setattr(align_command, "_documents", lambda *args: given.extend(documents(*args)) or given)
    code, found = align(str(tmp_path / "run"))
    opening = torch.tensor([LayoutSpec().ids.bos, *b"Be brief. "])
    assert code == 0 and found["differing"] == 0 and len(begun) == len(given) == 3
    assert all(torch.equal(inputs.ids[: len(opening)], opening) for inputs in (*(d.inputs for d in given), *(t.document() for t in begun)))


def test_plain_products_are_found_out(run, here, monkeypatch):
    monkeypatch.setattr(kernels, "linear", F.linear)
    code, found = align(run)
    assert code == 1 and differing(found) & {"alone", "company", "aborted"} and "hidden rows" in differing(found)


def test_a_lost_state_is_found_out(run, here, monkeypatch):
    """Every convolution forgets at every append; whole documents know nothing of it."""
    state = Engine._state

    def forgetful(engine, sessions, inputs):
        found = state(engine, sessions, inputs)
        for layer in found.layers:
            for name in ("keys", "values", "attention", "mlp"):
                getattr(layer.convs, name).zero_()
        return found

    monkeypatch.setattr(Engine, "_state", forgetful)
    code, found = align(run)
    assert code == 1 and differing(found) >= {"alone", "restore", "hidden rows"} and "packed" not in differing(found)


def test_a_fresh_process_that_computes_something_else_is_found_out(run, one_pace, monkeypatch):
    """This process is given other weights: the fresh one reads the run's."""
    opened = align_command._opened

    def nudged(asked, seed):
        found = opened(asked, seed)
        with torch.no_grad():
            found[0].model.norm.weight += 0.5
        found[1].__init__(found[0].model, found[1].documents, seed=seed)
        return found

    monkeypatch.setattr(align_command, "_opened", nudged)
    code, found = align(run)
    assert code == 1 and differing(found) == {"fresh process"}


def test_the_table_is_for_people(run, here):
    done = CliRunner().invoke(cli.microturn, ["align", run, "--documents", "1", "--ticks", "4", "--pairs", "1"])
    assert done.exit_code == 0 and "differing" in done.stdout and "fingerprint" in done.stdout, done.exception


def test_what_is_no_run_is_refused(tmp_path, run):
    for args, words in (([str(tmp_path)], "no run of `microturn train`"), ([run, "--checkpoint", "best"], "nothing was evaluated")):
        done = CliRunner().invoke(cli.microturn, ["align", *args])
        assert isinstance(done.exception, InputError) and words in str(done.exception)
