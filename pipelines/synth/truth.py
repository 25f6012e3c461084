"""What is true of a session, as plain JSON, and the rows made from it: words, turns, overlaps, gaps, claps, sights, events.

Times are integers of the 16 kHz session clock, half-open. Turns, gaps and overlaps follow the definitions of `EventSpec` applied to words
and laughs; backchannels and interruptions are those that were *acted*: by the definitions, an early start can count as an interruption
too.
"""

from decimal import Decimal
from typing import Any

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.manifest import Session
from ...schemas.spec import EventSpec
from .plan import Plan, StreamPlan
from .scene import Scene
from .screen import FLASH_PICTURES, HEIGHT_PX, WIDTH_PX
from .voices import Voice

MOSHI_SPEAKERS = ("SPEAKER_MAIN", "SPEAKER_USER")


def seconds(sample: int) -> float:
    """A session sample in seconds, for JSON. Its shortest decimal has at most 7 places and is exact: rounding it gives `sample` again."""
    return sample / SAMPLE_RATE_HZ


def make_truth(plan: Plan, scene: Scene, voices: tuple[Voice, Voice]) -> dict[str, Any]:
    """Everything that a test may want to compare a corpus with. JSON types only."""
    names = plan.participants
    turns = [_turns(scene, who) for who in (0, 1)]
    return {
        "version": 1,
        "name": plan.name,
        "recipe": plan.recipe(),
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "num_samples": plan.num_samples,
        "room_db": plan.room_db,
        "exchanges": list(scene.exchanges),
        "streams": [_stream(stream) for stream in plan.streams],
        "participants": [
            {
                "id": names[who],
                "role": ("assistant", "user")[who],
                "speaker": voices[who].name,
                "words": _words(scene, who, plan.rate_hz(who)),
            }
            for who in (0, 1)
        ],
        "turns": [{"participant": names[who], "start": a, "stop": b} for a, b, who in _in_order(turns)],
        "overlaps": _overlaps(*turns),
        "gaps": _gaps(turns, names),
        "backchannels": [
            {"participant": names[s.who], "start": s.start, "stop": s.stop, "text": s.line.text}
            for s in scene.said
            if s.manner == "backchannel"
        ],
        "interruptions": [_interruption(s, turns[1 - s.who], names) for s in scene.said if s.manner == "interruption"],
        "sounds": [{"kind": n.kind, "participant": names[n.who], "start": n.start, "stop": n.stop} for n in scene.noises],
        "events": [
            {"kind": h.kind, "at": h.at, "participant": names[h.who], "slot": h.slot, "text": h.text, "complete": h.complete}
            for h in scene.happenings
        ],
        "pictures": _pictures(plan, scene),
    }


def manifest_row(truth: dict[str, Any]) -> dict[str, Any]:
    """The session as a manifest describes it (FORMAT.md section 1), checked against the schema."""
    streams = [{key: s[key] for key in ("id", "path", "kind", "channel", "participant") if key in s} for s in truth["streams"]]
    row = {
        "id": truth["name"],
        "streams": streams,
        "participants": [{key: p[key] for key in ("id", "role", "speaker")} for p in truth["participants"]],
        "transcripts": _transcripts(truth),
        "events": [_event(event) for event in truth["events"]],
        "group": truth["recipe"]["group"],
        "language": "en",
        "source": "microturn synth",
        "license": "CC0-1.0",
        "consent": "synthetic",
        "custom": {key: str(truth["recipe"][key]) for key in ("layout", "seed", "voice")},
    }
    Session.parse(row, where=f"manifest row of {truth['name']}")
    return row


def exact_seconds(sample: int) -> str:
    """Seconds of a session sample as people write them, `12.400`, with more places where they are needed; exact."""
    text = f"{Decimal(sample) / SAMPLE_RATE_HZ:.7f}"
    return text[:-4] + text[-4:].rstrip("0")


def moshi_json(truth: dict[str, Any]) -> dict[str, Any]:
    """Both speakers' words as moshi-finetune keeps them: `{"alignments": [[text, [start_s, stop_s], speaker], …]}`, sorted by start."""
    rows = [(w["start"], w["stop"], w["text"], MOSHI_SPEAKERS[who]) for who in (0, 1) for w in truth["participants"][who]["words"]]
    return {"alignments": [[text, [seconds(start), seconds(stop)], speaker] for start, stop, text, speaker in sorted(rows)]}


def word_list(truth: dict[str, Any], who: int) -> list[dict[str, Any]]:
    """One speaker's words: `[{"word", "start", "end"}]` in seconds."""
    return [{"word": w["text"], "start": seconds(w["start"]), "end": seconds(w["stop"])} for w in truth["participants"][who]["words"]]


def _event(event: dict[str, Any]) -> dict[str, Any]:
    keys = {"typed": ("text",), "delegate": ("slot", "text"), "cancel": ("slot",), "background": ("slot", "text", "complete")}[
        event["kind"]
    ]
    return {"kind": event["kind"], "at": exact_seconds(event["at"]), "participant": event["participant"]} | {
        key: event[key] for key in keys
    }


def _transcripts(truth: dict[str, Any]) -> list[dict[str, Any]]:
    if truth["recipe"]["layout"] == "tracks":
        names = [p["id"] for p in truth["participants"]]
        return [{"path": f"{truth['name']}/{name}.json", "participant": name, "clock": "session", "format": "words"} for name in names]
    labels = {label: p["id"] for label, p in zip(MOSHI_SPEAKERS, truth["participants"], strict=True)}
    return [{"path": f"{truth['name']}.json", "clock": "session", "format": "moshi", "speakers": labels}]


def _stream(stream: StreamPlan) -> dict[str, Any]:
    row: dict[str, Any] = {"id": stream.id, "path": stream.path, "kind": stream.kind, "participant": stream.participant}
    if stream.kind == "audio":
        row |= {"rate_hz": stream.rate_hz, "num_source_samples": stream.num_samples * stream.rate_hz // SAMPLE_RATE_HZ}
    return row if stream.channel is None else row | {"channel": stream.channel}


def _words(scene: Scene, who: int, rate_hz: int) -> list[dict[str, Any]]:
    """In session samples and, exactly, in samples of the participant's own stream."""
    rows = []
    for said in scene.said:
        if said.who == who:
            for word, span in list(zip(said.line.words, said.spans, strict=True))[: said.num_words]:
                start, stop = said.start + span.start, said.start + span.stop
                source = {"source_start": start * rate_hz // SAMPLE_RATE_HZ, "source_stop": stop * rate_hz // SAMPLE_RATE_HZ}
                rows.append({"text": word, "start": start, "stop": stop, **source})
    return rows


def _turns(scene: Scene, who: int) -> list[tuple[int, int]]:
    spans = [(s.word_start(i), s.start + s.spans[i].stop) for s in scene.said if s.who == who for i in range(s.num_words)]
    spans += [(n.start, n.stop) for n in scene.noises if n.who == who and n.kind == "laugh"]
    turns: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if turns and start - turns[-1][1] < EventSpec().turn_pause_samples:
            turns[-1] = (turns[-1][0], max(stop, turns[-1][1]))
        else:
            turns.append((start, stop))
    return turns


def _overlaps(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> list[dict[str, int]]:
    found, j = [], 0
    for start, stop in a:
        while j < len(b) and b[j][1] <= start:
            j += 1
        for other in b[j:]:
            if other[0] >= stop:
                break
            found.append({"start": max(start, other[0]), "stop": min(stop, other[1])})
    return found


def _gaps(turns: list[list[tuple[int, int]]], names: tuple[str, str]) -> list[dict[str, Any]]:
    """Silence after a turn of one until a turn of the other."""
    found: list[dict[str, Any]] = []
    rows = _in_order(turns)
    quiet_from, last = rows[0][1:] if rows else (0, 0)
    for start, stop, who in rows:
        if start > quiet_from and who != last:
            found.append({"start": quiet_from, "stop": start, "before": names[last], "after": names[who]})
        if stop >= quiet_from:
            quiet_from, last = stop, who
    return found


def _in_order(turns: list[list[tuple[int, int]]]) -> list[tuple[int, int, int]]:
    """(start, stop, who) of all turns, by start."""
    return sorted((start, stop, who) for who in (0, 1) for start, stop in turns[who])


def _interruption(said, others: list[tuple[int, int]], names: tuple[str, str]) -> dict[str, Any]:
    """`yielded` is where the interrupted one's turn ends."""
    yielded = next(stop for start, stop in others if stop > said.start)
    return {"participant": names[said.who], "interrupted": names[1 - said.who], "start": said.start, "stop": said.stop, "yielded": yielded}


def _pictures(plan: Plan, scene: Scene) -> dict[str, Any]:
    clock = plan.clock
    if clock is None:
        return {}
    claps = [(n.start, clock.at_or_after(n.start - 1)) for n in scene.noises if n.kind == "clap"]
    return {
        "size_px": [WIDTH_PX, HEIGHT_PX],
        "rate": "variable" if clock.rate is None else str(clock.rate),
        "time_base": str(clock.time_base),
        "first_pts": clock.pts(0),
        "num_pictures": plan.num_pictures,
        "flashes": [{"beep": beep, "picture": k, "pts": clock.pts(k), "num_pictures": FLASH_PICTURES} for beep, k in claps],
        "sights": [{"start": s.start, "wall": s.wall, "table": [list(t) for t in s.table], "door": s.door} for s in scene.sights],
    }
