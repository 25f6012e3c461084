"""Memory of one worker: what a long recording takes at its peak, beside a short one. Each is featurised in a process of its own."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

RATE_HZ = 48_000
MINUTE_S = 60
MAX_BYTES = 700e6
PROGRAM = """
import json, sys, time
from decimal import Decimal
from pathlib import Path
from microturn.pipelines.bench import material, ours
from microturn.pipelines.bench.clock import peak_bytes
from microturn.schemas.manifest import Session
from microturn.schemas.spec import FeatureSpec
root, name = Path(sys.argv[1]), sys.argv[2]
people = ("assistant", "user")
streams = [{"id": who, "path": name, "kind": "audio", "channel": c, "participant": who} for c, who in enumerate(people)]
session = Session.parse({"id": name, "streams": streams, "participants": [{"id": who, "role": who} for who in people]}, where=name)
held = material.Material(codec="opus", root=root, sessions=(session,), paths=(name,), seconds=0, size_bytes=0)
seconds = ours.featurise_alone(held, FeatureSpec(), root / f"staging-{name}")
print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), "cpu_s": time.process_time()}))
"""


def conversation(path: Path, minutes: int) -> None:
    """A stereo Opus file: a minute of noise that comes and goes, encoded once and repeated."""
    chance = np.random.default_rng(0)
    seconds_S = np.arange(MINUTE_S * RATE_HZ) / RATE_HZ
    loud_CS = np.stack([np.sin(seconds_S / 3) > 0, np.sin(seconds_S / 3) <= 0.2])
    pcm_CS = np.rint(chance.normal(0, 2000, loud_CS.shape) * loud_CS).astype(np.int16)
    packets = []
    with av.open(str(path), "w", format="ogg") as file:
        stream = file.add_stream("libopus", rate=RATE_HZ, layout="stereo")
        stream.bit_rate = 24_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm_CS.T.reshape(1, -1)), "s16", "stereo")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        packets = [bytes(packet) for packet in [*stream.encode(frame), *stream.encode(None)]]
        whole = MINUTE_S * 50  # packets of 20 ms
        for number in range(minutes * whole):
            packet = av.Packet(packets[number % whole])
            packet.stream, packet.time_base = stream, Fraction(1, RATE_HZ)
            packet.pts = packet.dts = number * RATE_HZ // 50
            packet.duration = RATE_HZ // 50
            file.mux(packet)


def featurised(folder: Path, minutes: int) -> dict[str, float]:
    """Seconds, peak bytes and processor seconds of featurising so many minutes."""
    name = f"{minutes}.opus"
    conversation(folder / name, minutes)
    ran = subprocess.run([sys.executable, "-P", "-c", PROGRAM, str(folder), name], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_three_minutes_take_no_more_memory_than_two(tmp_path):
    short, long = featurised(tmp_path, 2), featurised(tmp_path, 3)
    assert short["seconds"] == pytest.approx(120, abs=1) and long["seconds"] == pytest.approx(180, abs=1)
    assert long["peak_bytes"] < MAX_BYTES and long["peak_bytes"] < 1.1 * short["peak_bytes"]


@pytest.mark.nightly
def test_ten_hours_take_no_more_memory_than_one(tmp_path):
    one, ten = featurised(tmp_path, 60), featurised(tmp_path, 600)
    print(one, ten)
    assert ten["seconds"] == pytest.approx(36_000, abs=1)
    assert ten["peak_bytes"] < MAX_BYTES and ten["peak_bytes"] < 1.1 * one["peak_bytes"]
