"""The graph, as runners get it, holds nothing that one of them would do without, or do wrong: its proto is inspected, DoFns and all.

What all runners share is Impulse, ParDo, GroupByKey and Reshuffle in one linear trunk of global windows. The table below holds what some
runner lacks, each as a small pipeline that the inspection must refuse by its name.
"""

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.io import fileio
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2 as api
from apache_beam.transforms import combiners, trigger, userstate, window
from apache_beam.transforms.periodicsequence import ImpulseSeqGenDoFn
from apache_beam.transforms.timeutil import TimeDomain
from corpora import build
from microturn.pipelines import run
from microturn.schemas.errors import MicroturnError

PRIMITIVES, WHOLE = common_urns.primitives, {common_urns.primitives.GROUP_BY_KEY.urn, common_urns.composites.RESHUFFLE.urn}
SHARED = {PRIMITIVES.IMPULSE.urn, PRIMITIVES.PAR_DO.urn, *WHOLE}


def beneath(proto: api.Pipeline, names: list[str]) -> set[str]:
    """Names of all transforms that these are made of."""
    parts = [part for name in names for part in proto.components.transforms[name].subtransforms]
    return {*parts, *(beneath(proto, parts) if parts else ())}


def steps(proto: api.Pipeline) -> list[api.PTransform]:
    """What a runner executes: transforms made of no others, and those that every runner knows whole."""
    transforms = proto.components.transforms
    inside = beneath(proto, [name for name, t in transforms.items() if t.spec.urn in WHOLE])
    found = [t for name, t in transforms.items() if name not in inside and (t.spec.urn in WHOLE or not t.subtransforms)]
    return [t for t in found if t.spec.urn and set(t.inputs.values()) != set(t.outputs.values())]


def do_fn_of(par_do: api.ParDoPayload) -> beam.DoFn:
    """Its code; Beam's own small steps have none, only a name."""
    return pickler.loads(par_do.do_fn.payload)[0] if par_do.do_fn.urn == python_urns.PICKLED_DOFN_INFO else beam.DoFn()


def of_a_par_do(step: api.PTransform) -> set[str]:
    """What a ParDo asks for besides being called with elements."""
    par_do = api.ParDoPayload.FromString(step.spec.payload)
    do_fn = do_fn_of(par_do)
    called = getattr(do_fn, "fn", do_fn)
    module = getattr(called, "__module__", "") or ""
    asks = {
        "state": bool(par_do.state_specs),
        "timers": bool(par_do.timer_family_specs),
        "side inputs": bool(par_do.side_inputs) or len(step.inputs) != 1,
        "tagged outputs": len(step.outputs) != 1,
        "splitting": bool(par_do.restriction_coder_id),
        "finalization": par_do.requests_finalization,
        "stable input": par_do.requires_stable_input,
        "sorted input": par_do.requires_time_sorted_input,
        "bundles": any(getattr(type(do_fn), hook) is not getattr(beam.DoFn, hook) for hook in ("start_bundle", "finish_bundle")),
        "beam io": module.startswith("apache_beam.io"),
    }
    return {feature for feature, asked in asks.items() if asked}


def is_plain(strategy: api.WindowingStrategy) -> bool:
    """Whether this is one window for everything, fired once, at the end."""
    return strategy.window_fn.urn == common_urns.global_windows.urn and strategy.trigger.WhichOneof("trigger") == "default"


def outside(proto: api.Pipeline) -> set[str]:
    """What is in a pipeline, and not in what all runners share."""
    found, executed = set(), steps(proto)
    urns = {t.spec.urn for t in proto.components.transforms.values()}
    found |= {"combiner"} if any(urn.startswith("beam:transform:combine") for urn in urns) else set()
    for step in executed:
        found |= of_a_par_do(step) if step.spec.urn == PRIMITIVES.PAR_DO.urn else {step.spec.urn} - SHARED
        for name in step.outputs.values():
            collection = proto.components.pcollections[name]
            strategy = proto.components.windowing_strategies[collection.windowing_strategy_id]
            found |= set() if is_plain(strategy) else {"windows"}
            found |= set() if collection.is_bounded == api.IsBounded.BOUNDED else {"unbounded"}
    used = [source for step in executed for source in step.inputs.values()]
    ends = {end for step in executed for end in step.outputs.values()} - set(used)
    starts = [step for step in executed if not step.inputs]
    return found | ({"branches"} if len(used) != len(set(used)) or len(ends) != 1 or len(starts) != 1 else set())


def test_the_graph_holds_only_what_every_runner_does(raw, tmp_path, monkeypatch):
    """The whole pipeline of a build of everything a plan can hold, source and all."""
    seen: list[api.Pipeline] = []
    raw_rows = [*raw.rows, {"id": "gone", "streams": [{"id": "a", "path": "gone.wav", "kind": "audio", "participant": "p"}]}]

    class Done:
        def wait_until_finish(self) -> None: ...

    monkeypatch.setattr(beam.Pipeline, "run", lambda self, *_: (seen.append(self.to_runner_api()), Done())[1])
    with pytest.raises(MicroturnError, match="without a verdict"):
        build(raw_rows, raw.folder, tmp_path / "out", on_beam=True)
    assert outside(seen[0]) == set()
    executed = [step.spec.urn for step in steps(seen[0])]
    assert executed.count(PRIMITIVES.GROUP_BY_KEY.urn) >= 2 and executed.count(PRIMITIVES.PAR_DO.urn) >= 5
    ours = {
        type(do_fn_of(api.ParDoPayload.FromString(s.spec.payload))).__module__
        for s in steps(seen[0])
        if s.spec.urn == PRIMITIVES.PAR_DO.urn
    }
    assert "microturn.pipelines.graph" in ours and run.__name__.partition(".")[0] == "microturn"


class Counts(beam.DoFn):
    """Keeps state."""

    SEEN = beam.DoFn.StateParam(userstate.CombiningValueStateSpec("seen", sum))

    def process(self, element, seen=SEEN):
        seen.add(1)
        yield element


class Waits(beam.DoFn):
    """Sets a timer."""

    SPEC = userstate.TimerSpec("later", TimeDomain.WATERMARK)
    LATER = beam.DoFn.TimerParam(SPEC)

    def process(self, element, later=LATER):
        later.set(0)
        yield element

    @userstate.on_timer(SPEC)
    def fire(self):
        yield 1, 1


class Collects(beam.DoFn):
    """Gives its output when a bundle ends."""

    def process(self, element): ...

    def finish_bundle(self):
        yield window.GlobalWindows.windowed_value((1, 1))


class Begins(beam.DoFn):
    """Does something when a bundle begins."""

    def start_bundle(self):
        self.count = 0

    def process(self, element):
        yield element


class Finalizes(beam.DoFn):
    """Wants to be told when its output is safe."""

    def process(self, element, finalizer=beam.DoFn.BundleFinalizerParam):
        finalizer.register(lambda: None)
        yield element


EARLY = {"trigger": trigger.Repeatedly(trigger.AfterCount(1)), "accumulation_mode": trigger.AccumulationMode.DISCARDING}
REFUSED = {
    "tagged outputs": lambda start: start | beam.FlatMap(lambda x: [x]).with_outputs("other", main="main"),
    "state": lambda start: start | beam.ParDo(Counts()),
    "timers": lambda start: start | beam.ParDo(Waits()),
    "side inputs": lambda start: start | beam.Map(lambda x, y: x, beam.pvalue.AsList(start.pipeline | "Side" >> beam.Create([1]))),
    "splitting": lambda start: start | beam.ParDo(ImpulseSeqGenDoFn()),
    "finalization": lambda start: start | beam.ParDo(Finalizes()),
    "bundles": lambda start: start | beam.ParDo(Collects()),
    "windows": lambda start: start | beam.WindowInto(window.FixedWindows(10)) | beam.GroupByKey(),
    "combiner": lambda start: start | beam.CombinePerKey(sum),
    "beam io": lambda start: start | beam.Map(repr) | beam.io.WriteToText("nowhere"),
    "branches": lambda start: [start | "A" >> beam.Map(repr), start | "B" >> beam.Map(repr)],
    "beam:transform:flatten:v1": lambda start: (start, start) | beam.Flatten(),
}
ALSO_REFUSED = {
    "start_bundle": ("bundles", lambda start: start | beam.ParDo(Begins())),
    "BatchElements": ("bundles", lambda start: start | beam.BatchElements()),
    "GroupIntoBatches": ("timers", lambda start: start | beam.GroupIntoBatches(2)),
    "with_exception_handling": ("tagged outputs", lambda start: start | beam.Map(lambda x: x).with_exception_handling()),
    "CombineGlobally": ("combiner", lambda start: start | beam.CombineGlobally(combiners.CountCombineFn()).without_defaults()),
    "CoGroupByKey": ("branches", lambda start: {"a": start, "b": start} | beam.CoGroupByKey()),
    "a trigger": ("windows", lambda start: start | beam.WindowInto(window.GlobalWindows(), **EARLY) | beam.GroupByKey()),
    "fileio": ("beam io", lambda start: start | beam.Map(repr) | fileio.WriteToFiles("nowhere")),
    "a second source": ("branches", lambda start: [start | beam.Map(repr), start.pipeline | "Other" >> beam.Impulse()]),
}


@pytest.mark.parametrize(
    ("feature", "use"),
    [*(pytest.param(name, use, id=name) for name, use in REFUSED.items()), *(pytest.param(*row, id=k) for k, row in ALSO_REFUSED.items())],
)
def test_what_some_runner_lacks_is_refused(feature, use):
    """The negative controls of the one above."""
    pipeline = beam.Pipeline(runner="DirectRunner")
    use(pipeline | beam.Create([(1, 1)], reshuffle=False))
    assert feature in outside(pipeline.to_runner_api())


def test_what_every_runner_does_is_let_through():
    """Or the inspection would say no to anything."""
    pipeline = beam.Pipeline(runner="DirectRunner")
    start = pipeline | beam.Impulse() | beam.FlatMap(lambda _: [(1, 1), (2, 2)])
    _ = start | beam.Reshuffle() | beam.GroupByKey() | beam.Map(repr)
    assert outside(pipeline.to_runner_api()) == set()
