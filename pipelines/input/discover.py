"""A folder of recordings that comes without a manifest, understood: what belongs together, who is on which channel.

Three layouts, by what lies beside what:
  stereo     `x.wav` with word timings `x.json` beside it: left is the assistant, right the user (the moshi-finetune layout); video likewise
  tracks     one file a speaker: `call_alice.wav` + `call_bob.wav`, or a subfolder that holds nothing but 2–8 mono recordings of one length;
             bare numbers are takes and no speakers: `call_01.wav`, `call_02.wav` are two recordings
  single     any other recording: a listening assistant hears (and sees) everyone in it; a stereo audio file is taken for two people
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...schemas.errors import InputError
from ...schemas.manifest import Session
from ..storage.folders import Folder

AUDIO = {"aac", "aif", "aiff", "amr", "au", "caf", "flac", "m4a", "mka", "mp2", "mp3", "oga", "ogg", "opus", "sph", "wav", "wma"}
VIDEO = {"avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "webm", "wmv"}
WORDS = ("json", "ctm", "stm", "vtt", "srt")  # of several beside one recording the first is taken: times of words before times of lines
IGNORED_FOLDERS = frozenset({"truth"})
MANIFESTS = ("manifest.jsonl", "manifest.parquet")
SPEAKER_WORDS = frozenset({"ch", "channel", "headset", "mic", "p", "participant", "person", "side", "speaker", "spk", "track", "user"})
ASSISTANTS = frozenset({"assistant", "agent", "model", "moshi", "main", "left"})
MAX_SPEAKERS = 8
LENGTHS_AGREE = 0.2  # tracks of one conversation differ in length by less than this share of the longest

_TRACK = re.compile(r"(?P<session>.+?)[_.\-](?P<speaker>[A-Za-z][A-Za-z0-9]{0,15}|(?:spk|speaker|ch|channel|track)?[0-9]{1,2})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a file's header says: channels of the first audio stream (0: none), its seconds (0: unknown), whether there are pictures."""

    channels: int
    seconds: float
    pictures: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A folder, understood: its sessions, how many of each layout, the files that were left alone, and those whose names are no text.

    The last ones are written with `\\x…` for every byte that is not UTF-8.
    """

    sessions: tuple[Session, ...]
    layouts: dict[str, int]
    left_alone: tuple[str, ...]
    unnamed: tuple[str, ...]


def find_manifest(folder: Folder) -> str:
    """The manifest's name at the top of a folder, "" if there is none."""
    return next((name for name in MANIFESTS if folder.exists(name)), "")


def is_media(name: str) -> bool:
    """Whether a file's ending is that of audio or video."""
    return bool(_kind(name))


def discover(folder: Folder, look: Callable[[str], Look | None], *, one: str = "", numbered: bool = False) -> Found:
    """The sessions of a folder, or of the one file named. `look` opens a file, outside this process (None: it cannot be opened).

    `numbered`: people who are known by the names of files only are `p0`, `p1`, …
    """
    words_of_one = [f"{_stem(one)}.{ending}" for ending in WORDS if one]
    names = [one, *filter(folder.exists, words_of_one)] if one else [name for name in folder.names() if not _hidden(name)]
    unnamed = [_escaped(name) for name in names if _escaped(name) != name and _kind(name)]
    names = [name for name in names if _escaped(name) == name]
    media = [name for name in names if _kind(name)]
    if not media and not unnamed:
        raise InputError(f"{folder.uri}: no audio or video file below it", hint=f"endings known: {', '.join(sorted(AUDIO | VIDEO))}")
    words = {_stem(path): path for ending in reversed(WORDS) for path in names if _ending(path) == ending}  # the first of WORDS wins
    layouts = {"stereo": 0, "tracks": 0, "single": 0}
    sessions: list[Session] = []
    taken: set[str] = set()
    for session_id, tracks in _track_groups(media, words, look):
        sessions.append(_tracks_session(session_id, tracks, words, numbered))
        taken.update(tracks.values())
        layouts["tracks"] += 1
    lone = [name for name in media if name not in taken]
    stems = Counter(_stem(name) for name in lone)
    for name in lone:
        session_id = _stem(name) if stems[_stem(name)] == 1 else name  # the same call as .wav and as .opus is two sessions
        session, layout = _lone_session(session_id, name, words, look)
        sessions.append(session)
        layouts[layout] += 1
    used = {stream.path for s in sessions for stream in s.streams} | {t.path for s in sessions for t in s.transcripts}
    left_alone = () if one else tuple(name for name in names if name not in used)
    return Found(sessions=tuple(sessions), layouts=layouts, left_alone=left_alone, unnamed=tuple(unnamed))


def _track_groups(media: list[str], words: dict[str, str], look: Callable[[str], Look | None]) -> Iterable[tuple[str, dict[str, str]]]:
    """(session id, speaker → file) of the recordings that lie in one file a speaker."""
    by_folder: dict[str, list[str]] = {}
    for name in media:
        by_folder.setdefault(str(PurePosixPath(name).parent), []).append(name)
    for folder, names in sorted(by_folder.items()):
        named: dict[str, dict[str, str]] = {}
        for name in names:
            if match := _TRACK.fullmatch(PurePosixPath(name).stem):
                named.setdefault(match["session"], {})[match["speaker"].lower()] = name
        groups = {session: tracks for session, tracks in named.items() if 2 <= len(tracks) <= MAX_SPEAKERS and not _takes(tracks)}
        if not groups and folder != "." and 2 <= len(names) <= MAX_SPEAKERS and not _takes(map(_stem, names)):
            groups = {"": {PurePosixPath(name).stem.lower(): name for name in names}}
        for session, tracks in sorted(groups.items()):
            if len(set(tracks.values())) == len(tracks) and _one_conversation(list(tracks.values()), look):
                yield (session if folder == "." else f"{folder}/{session}" if session else folder), tracks


def _takes(labels: Iterable[str]) -> bool:
    """Whether names differ by a number only, `call_01`, `call_02`: one recording after another, unless the word before means people."""
    stems = {re.sub(r"[0-9]+$", "", label).lower() for label in labels}
    return len(stems) == 1 and re.split(r"[^a-z]", stems.pop().rstrip("_.- "))[-1] not in SPEAKER_WORDS


def _one_conversation(names: list[str], look: Callable[[str], Look | None]) -> bool:
    looks = [look(name) for name in names]
    if any(found is None or (found.channels != 1 and not found.pictures) for found in looks):
        return False
    lengths = [found.seconds for found in looks]
    return max(lengths) - min(lengths) <= LENGTHS_AGREE * max(lengths)


def _tracks_session(session_id: str, tracks: dict[str, str], words: dict[str, str], numbered: bool) -> Session:
    people, streams, transcripts = [], [], []
    names = _participant_ids(sorted(tracks), numbered)
    for speaker, path in sorted(tracks.items()):
        who = names[speaker]
        people.append({"id": who, "speaker": speaker, "role": "assistant" if speaker in ASSISTANTS else "user"})
        streams.append({"id": f"{who}-audio", "path": path, "kind": "audio", "participant": who})
        if _kind(path) == "video":
            streams.append({"id": f"{who}-video", "path": path, "kind": "video", "participant": who})
        if sidecar := words.get(_stem(path)):
            transcripts.append({"path": sidecar, "participant": who, "stream": f"{who}-audio"})
    row = {"id": session_id, "participants": people, "streams": streams, "transcripts": transcripts}
    return Session.parse(row, where=session_id)


def _lone_session(session_id: str, path: str, words: dict[str, str], look: Callable[[str], Look | None]) -> tuple[Session, str]:
    sidecar, found = words.get(_stem(path)), look(path)
    is_stereo = found is not None and found.channels == 2
    dyad = is_stereo and (_kind(path) == "audio" or (sidecar is not None and _ending(sidecar) == "json"))
    row: dict = {"id": session_id}
    if dyad:
        row["participants"] = [{"id": "assistant", "role": "assistant"}, {"id": "user", "role": "user"}]
        row["streams"] = [
            {"id": f"{who}-audio", "path": path, "kind": "audio", "channel": channel, "participant": who}
            for channel, who in enumerate(("assistant", "user"))
        ]
        speakers = {"SPEAKER_MAIN": "assistant", "SPEAKER_USER": "user", "A": "assistant", "B": "user"}
    else:
        row["participants"] = [{"id": "assistant", "role": "assistant"}, {"id": "scene", "role": "other"}]
        row["streams"] = [{"id": "scene-audio", "path": path, "kind": "audio", "participant": "scene"}]
        speakers = {}
    if _kind(path) == "video":
        who = "user" if dyad else "scene"
        row["streams"].append({"id": f"{who}-video", "path": path, "kind": "video", "participant": who})
        if found is not None and not found.channels:
            row["streams"] = row["streams"][-1:]
    if sidecar:
        participant = {} if dyad else {"participant": "scene"}
        row["transcripts"] = [{"path": sidecar, "speakers": speakers, "stream": row["streams"][0]["id"], **participant}]
    return Session.parse(row, where=path), "stereo" if dyad else "single"


def _participant_ids(speakers: list[str], numbered: bool) -> dict[str, str]:
    """Speaker → participant id: the name itself where it may be one, `p0`, `p1`, … otherwise."""
    plain = {speaker: re.sub(r"[^a-z0-9_]", "_", speaker)[:16] for speaker in speakers}
    unique = not numbered and len(set(plain.values())) == len(plain) and all(plain.values())
    return plain if unique else {speaker: f"p{number}" for number, speaker in enumerate(speakers)}


def _escaped(name: str) -> str:
    """The name, with `\\x…` for what is no UTF-8 in it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") for part in parts) or bool(IGNORED_FOLDERS.intersection(parts[:-1])) or name in MANIFESTS


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix[1:].lower()


def _kind(name: str) -> str:
    return "audio" if _ending(name) in AUDIO else "video" if _ending(name) in VIDEO else ""
