"""What a run is, and how fast it goes: one typed config, from a file, the command line, or the run that is resumed.

    TrainSpec   model, data, corpora, optimizer, schedule, losses, dtype, seed      the run: may not change
      └─ Pace   steps, workers, threads, batches, how often to look and to save     how it goes: may change at every start

Weights after n steps are a function of the first, bit for bit on one machine with one `pace.batch_sequences` and number of ranks; these
change rounding, not the run. A schedule's decay may change as long as no step that is done would have had another rate.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt

from ...schemas.errors import InputError
from ...schemas.strict import Strict
from ..data import DataSpec
from ..model import PRESETS, ModelSpec, count
from .optimizer import OptimizerSpec
from .schedule import ScheduleSpec, same_until

SEQUENCE_TOKENS = 2048  # rows that a CPU with little memory goes through at once


class CorpusSpec(Strict):
    """One corpus of the mixture: its folder, and its share of the sequences beside the others' weights."""

    path: str
    weight: float = Field(1.0, gt=0)


class LossSpec(Strict):
    """How the parts of the loss add up: text + flow_share · flow + load_share · load.

    Attributes:
        flow_draws: times and noises for every frame of own speech that is learned.
        bias_rate: how far a step moves a router's bias.
    """

    flow_draws: PositiveInt = 2
    flow_share: float = Field(1.0, ge=0)
    load_share: float = Field(1e-3, ge=0)
    bias_rate: float = Field(1e-3, ge=0)


class Pace(Strict):
    """How a run goes: all of it may be given anew at every start.

    Attributes:
        steps: the run ends after so many in all.
        batch_sequences: sequences that go through the model at once; memory, and rounding, depend on it.
        recompute: compute forward again in backward instead of keeping what it needs.
        workers: processes that make batches.
        threads: of torch; 0 leaves it to torch.
        evaluate_every: steps between evaluations; 0 never evaluates.
        evaluate_sequences: held-out sequences that are looked at each time, of each corpus.
        evaluate_split: the split that is held out.
        checkpoint_every: steps between checkpoints; 0 for by time alone. The last step always has one.
        checkpoint_minutes: and at the latest after so many minutes; 0 for by steps alone.
        keep: newest checkpoints that stay, besides the best.
        on_damage: `error` stops at a damaged window; `skip` leaves it out and tells.
        expert_ranks: processes that share the experts of a layer; a divisor of how many there are.
        tokenizer: tokenizer.json of a corpus that was built with one; for a prologue only.
    """

    steps: PositiveInt = 1000
    batch_sequences: PositiveInt = 1
    recompute: bool = False
    workers: int = Field(1, ge=0)
    threads: int = Field(0, ge=0)
    evaluate_every: int = Field(100, ge=0)
    evaluate_sequences: PositiveInt = 16
    evaluate_split: str = "val"
    checkpoint_every: int = Field(100, ge=0)
    checkpoint_minutes: float = Field(2.0, ge=0)
    keep: PositiveInt = 2
    on_damage: Literal["error", "skip"] = "error"
    expert_ranks: PositiveInt = 1
    tokenizer: str = ""


class TrainSpec(Strict):
    """A run. `seed` is that of weights and noise; the data's own is `data.seed`, and the same where a config says nothing of it."""

    seed: int = Field(0, ge=0)
    model: ModelSpec
    corpora: tuple[CorpusSpec, ...] = Field(min_length=1)
    data: DataSpec = DataSpec(sequence_tokens=SEQUENCE_TOKENS)
    step_sequences: PositiveInt = 8
    dtype: Literal["float32", "bfloat16"] = "float32"
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    losses: LossSpec = LossSpec()
    pace: Pace = Pace()

    @classmethod
    def of(cls, config: Mapping[str, Any], *, where: str, below: Mapping[str, Any] | None = None) -> Self:
        """The run that a config describes, laid over that of `below`.

        `model` may name a `preset`, and sizes that differ from it. Raises InputError naming `where`, the key, and its near miss.
        """
        config = dict(config)
        if "model" in config or not below:
            config["model"] = _sizes(config.get("model", {}), where)
        if isinstance(config.get("data", {}), Mapping) and not below:
            config["data"] = {"sequence_tokens": SEQUENCE_TOKENS, "seed": config.get("seed", 0)} | dict(config.get("data", {}))
        for name in set(config) - set(cls.model_fields):
            if places := [place for place in _places(cls) if place.endswith(f".{name}")]:
                raise InputError(f"{where}: unknown key {name!r}", hint=f"did you mean {' or '.join(places)}?")
        return cls.parse(merged(below or {}, config), where=where)

    def refuse_another(self, started: "TrainSpec", *, step: int, where: str) -> None:
        """Nothing if this goes on with the run that was started so, at `step`. Raises InputError naming each field and both values."""
        now, then = (_flat(spec.model_dump(mode="json", exclude={"pace", "schedule", "corpora"})) for spec in (self, started))
        now |= {"corpora.weights": [corpus.weight for corpus in self.corpora]}
        then |= {"corpora.weights": [corpus.weight for corpus in started.corpora]}
        if not same_until(self.schedule, started.schedule, step):
            now |= _flat({"schedule": self.schedule.model_dump()})
            then |= _flat({"schedule": started.schedule.model_dump()})
        unlike = [
            f"{name} is {now.get(name)!r}, the run was started with {then.get(name)!r}"
            for name in now | then
            if now.get(name) != then.get(name)
        ]
        if unlike:
            hint = "leave them out to go on with the run as it is, or start a new one in another folder"
            raise InputError(f"{where}: {'; '.join(unlike)}", hint=hint)


def described(spec: TrainSpec) -> str:
    """A line for people: what is trained on what."""
    corpora = ", ".join(corpus.path for corpus in spec.corpora)
    step = f"{spec.step_sequences} sequences, {spec.step_sequences * spec.data.sequence_tokens:,} tokens"
    return f"{count(spec.model).total:,} parameters on {corpora}; a step is {step}; seed {spec.seed}"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says; mappings are merged, everything else is replaced."""
    both = dict(below)
    for name, value in above.items():
        under = both.get(name)
        both[name] = merged(under, value) if isinstance(value, Mapping) and isinstance(under, Mapping) else value
    return both


def setting(path: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value, as {a: {b: value}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def corpora_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    """`CORPUS` or `CORPUS:weight`, as the config's `corpora`."""
    found: list[dict[str, Any]] = []
    for text in texts:
        path, colon, weight = text.rpartition(":")
        try:
            found.append({"path": path, "weight": float(weight)} if colon and path else {"path": text})
        except ValueError:  # a colon of the path's own, as in s3://…
            found.append({"path": text})
    return found


def _sizes(model: Any, where: str) -> Any:
    """The sizes that a config's `model` means."""
    if isinstance(model, str):
        model = {"preset": model}
    if not isinstance(model, Mapping) or "preset" not in model:
        if model == {}:
            raise InputError(f"{where}: no model", hint=f"name a preset: --preset {', '.join(PRESETS)}")
        return model
    sizes = dict(model)
    preset = ModelSpec.preset(str(sizes.pop("preset")))
    return preset.model_dump() | sizes


def _places(kind: type[Strict], before: str = "") -> Iterator[str]:
    """Every key of a config, as `a.b`."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            yield from _places(field.annotation, f"{before}{name}.")
        else:
            yield before + name


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as {a.b: value}."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{before}{name}.") if isinstance(inner, Mapping) else {before + name: inner}
    return flat
