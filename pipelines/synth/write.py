"""Files of sessions: media, words, truth, manifest. Every file is written aside and renamed; a session is finished when its truth is there.

    OUT/manifest.jsonl            all sessions, FORMAT.md section 1
    OUT/truth/<name>.json         what is true of each (truth.py)
    OUT/stereo-00000.wav, .json   left = assistant, right = user; words of both as moshi-finetune keeps them
    OUT/tracks-00001/alice.wav, alice.json, bob.wav, bob.json        a mono file and a word list for each speaker
    OUT/video-00002.mp4, .json    the user on the screen; sound as in stereo

`make` needs memory for some seconds of sound and picture, whatever the length. It can be stopped and run again: what is finished stays.
"""

import json
import os
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import InputError
from .mix import blocks
from .movie import write_movie
from .plan import Layout, Plan, plans
from .play import make_scene
from .scene import Scene
from .truth import make_truth, manifest_row, moshi_json, word_list
from .voices import Voice, VoiceKind, procedural_voices

Progress = Callable[[str, int, int], None]  # name of the session, samples that are done, samples of all sessions


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What lies in the folder now."""

    truths: tuple[dict[str, Any], ...]
    num_written: int  # of them; the others were there already
    size_bytes: int  # of the media
    num_samples: int  # of the session clock


def make(
    out: Path,
    *,
    hours: float | None = None,
    seed: int = 0,
    voice: VoiceKind = "procedural",
    layout: Layout = "mixed",
    sessions: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Made:
    """The recordings of a seed, in `out`, with their words, truth and manifest; `plan.plans` says how hours and sessions go together.

    Same arguments and toolchain, same bytes. Sessions that are there already are kept, unless `overwrite`; more hours only add sessions.

    Raises:
        InputError: impossible lengths; a folder that holds sessions made from something else; natural voices that are not installed.
    """
    out = Path(out)
    wanted = plans(seed, voice, layout, hours, sessions)
    if not overwrite:
        _refuse_strangers(out, wanted)
    total = sum(plan.num_samples for plan in wanted)
    truths, num_written, done = [], 0, 0
    for plan in wanted:
        if progress:
            progress(plan.name, done, total)
        truth = None if overwrite else _finished(out, plan)
        if truth is None:
            truth = _make_session(out, plan)
            num_written += 1
        truths.append(truth)
        done += plan.num_samples
    rows = [manifest_row(truth) for truth in truths]
    _write_text(out / "manifest.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if progress and wanted:
        progress(wanted[-1].name, done, total)
    size = sum(size for truth in truths for size in truth["size_bytes"].values())
    return Made(truths=tuple(truths), num_written=num_written, size_bytes=size, num_samples=total)


def _make_session(out: Path, plan: Plan) -> dict[str, Any]:
    voices = _voices(plan)
    snap = plan.clock.snap if plan.clock else lambda sample: sample
    scene = make_scene(
        f"{plan.seed} {plan.index}", plan.num_samples, voices, seen=plan.clock is not None, snap=snap, essential_first=plan.essential_first
    )
    truth = make_truth(plan, scene, voices)
    if plan.layout == "tracks":
        for who in (0, 1):
            _write_wav(out / plan.track(who).path, plan.rate_hz(who), (block[:, None] for block in _heard(plan, scene, voices, who)))
            _write_json(out / plan.track(who).path.replace(".wav", ".json"), word_list(truth, who))
    else:
        both = (np.stack(pair, axis=1) for pair in zip(*(_heard(plan, scene, voices, who) for who in (0, 1)), strict=True))
        if plan.layout == "stereo":
            _write_wav(out / f"{plan.name}.wav", plan.rate_hz(0), both)
        else:
            with _aside(out / f"{plan.name}.mp4") as path:
                write_movie(path, plan, scene, both)
        _write_json(out / f"{plan.name}.json", moshi_json(truth))
    truth["size_bytes"] = {path: (out / path).stat().st_size for path in sorted({s.path for s in plan.streams})}
    _write_json(out / "truth" / f"{plan.name}.json", truth)
    return truth


def _voices(plan: Plan) -> tuple[Voice, Voice]:
    if plan.voice == "procedural":
        return procedural_voices(plan.seed, plan.index // 3)
    from .natural import natural_voices

    return natural_voices()


def _heard(plan: Plan, scene: Scene, voices: tuple[Voice, Voice], who: int) -> Iterator[NDArray[np.int16]]:
    return blocks(scene, who, voices[who], plan.rate_hz(who), room_db=plan.room_db, num_samples=plan.track(who).num_samples)


def _finished(out: Path, plan: Plan) -> dict[str, Any] | None:
    """The truth of a session that is there in full and was made from this plan, else None."""
    truth = _read_truth(out / "truth" / f"{plan.name}.json")
    if truth is None or truth.get("recipe") != plan.recipe():
        return None
    whole = all((out / path).is_file() and (out / path).stat().st_size == size for path, size in truth["size_bytes"].items())
    return truth if whole else None


def _refuse_strangers(out: Path, wanted: list[Plan]) -> None:
    """A folder is one recipe: sessions of another seed, voice or length beside or under ours would be mixed silently."""
    recipes = {plan.name: plan.recipe() for plan in wanted}
    for path in sorted((out / "truth").glob("*.json")):
        truth = _read_truth(path)
        if truth is None:
            continue
        found, ours = truth.get("recipe", {}), recipes.get(path.stem)
        same_kind = ours is not None or all(found.get(key) == getattr(wanted[0], key) for key in ("seed", "voice"))
        if (ours is not None and found != ours) or not same_kind:
            raise InputError(
                f"{path}: this folder holds a session made from {_told(found)}, now asked for is {_told(ours or wanted[0].recipe())}",
                hint="choose another folder, or --overwrite to replace sessions of the same name",
            )


def _told(recipe: dict[str, Any]) -> str:
    return ", ".join(f"{key} {recipe.get(key)}" for key in ("layout", "voice", "seed", "num_samples"))


def _read_truth(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A hidden name beside `path`, renamed to it when the body is through."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    with _aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _write_wav(path: Path, rate_hz: int, blocks_NC: Iterator[NDArray[np.int16]]) -> None:
    """PCM16 WAV of blocks [samples, channels]."""
    with _aside(path) as aside, wave.open(str(aside), "wb") as file:
        for i, block_NC in enumerate(blocks_NC):
            if i == 0:
                file.setparams((block_NC.shape[1], 2, rate_hz, 0, "NONE", "not compressed"))
            file.writeframesraw(np.ascontiguousarray(block_NC, "<i2").tobytes())
