"""The scripts that people write instead, on the same files: lhotse that computes features and writes Shar, and librosa with a TarWriter.

Both keep what a model of sound would need of every window of a minute: 16 kHz PCM of every channel, and of each channel 80 mel bands, every
50 ms (`OUR_HOP`: no more than we do) or every 10 ms (`THEIR_HOP`: what lhotse does by itself, and most scripts do). Neither places a stream
by its timestamps, finds activity, or accounts for what it dropped. A format that they cannot open on this machine PyAV decodes for them.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ

WINDOW_S = 60
OUR_HOP, THEIR_HOP = (0.1, 0.05), (0.025, 0.01)  # seconds of an FFT window and of a hop
NUM_BANDS = 80


def lhotse_to_shar(root: Path, paths: Sequence[str], out: Path, window_and_hop_s: tuple[float, float], by_pyav: bool) -> float:
    """Windows of every recording as Shar: sound as wav and features as numpy; gives the seconds read."""
    from lhotse import CutSet, Fbank, FbankConfig
    from lhotse.shar import SharWriter

    sys.modules["torch"].set_num_threads(1)  # lhotse's, which this room does not import
    window_s, hop_s = window_and_hop_s
    fbank = Fbank(FbankConfig(sampling_rate=SAMPLE_RATE_HZ, frame_length=window_s, frame_shift=hop_s, num_filters=NUM_BANDS, dither=0.0))
    seconds = 0.0
    out.mkdir(parents=True)
    with _quiet(), SharWriter(str(out), fields={"recording": "wav", "fbank": "numpy"}, shard_size=1000) as writer:
        for path in paths:
            whole = _lhotse_recording(root / path, by_pyav).resample(SAMPLE_RATE_HZ).to_cut()
            for window in CutSet.from_cuts([whole]).cut_into_windows(WINDOW_S):
                if window.duration < window_s:  # the end's splinter: no frame in it
                    continue
                held = window.move_to_memory(audio_format="wav")  # decoded once
                samples_CS = held.load_audio()
                features = np.stack([fbank.extract(samples_S[None], SAMPLE_RATE_HZ) for samples_S in samples_CS], axis=1)
                writer.write(held.attach_tensor("fbank", features, frame_shift=hop_s, temporal_dim=0))
                seconds += samples_CS.shape[1] / SAMPLE_RATE_HZ
    return seconds


def librosa_to_tar(root: Path, paths: Sequence[str], out: Path, window_and_hop_s: tuple[float, float], by_pyav: bool) -> float:
    """Windows of every recording in one tar: sound as int16 and log-mel as npy; gives the seconds read."""
    import librosa
    import webdataset

    window_s, hop_s = window_and_hop_s
    seconds = 0.0
    out.mkdir(parents=True)
    with _quiet(), webdataset.TarWriter(str(out / "shard-000000.tar")) as writer:
        for path in paths:
            samples_CS = _librosa_samples(root / path, by_pyav)
            for number, start in enumerate(range(0, samples_CS.shape[1], WINDOW_S * SAMPLE_RATE_HZ)):
                window_CS = samples_CS[:, start : start + WINDOW_S * SAMPLE_RATE_HZ]
                mel = librosa.feature.melspectrogram(
                    y=window_CS,
                    sr=SAMPLE_RATE_HZ,
                    n_fft=int(window_s * SAMPLE_RATE_HZ),
                    hop_length=int(hop_s * SAMPLE_RATE_HZ),
                    n_mels=NUM_BANDS,
                    power=1.0,
                )
                writer.write(
                    {
                        "__key__": f"{Path(path).stem}-{number:05d}",
                        "pcm.npy": np.rint(np.clip(window_CS, -1, 1) * 32767).astype(np.int16),
                        "mel.npy": np.log10(np.maximum(mel, 1e-10)).astype(np.float32),
                        "meta.json": {"source": path, "start": start},
                    }
                )
                seconds += window_CS.shape[1] / SAMPLE_RATE_HZ
    return seconds


def can_open(peer: str, path: Path) -> bool:
    """Whether the library can read this format here. Raises ImportError where it is not installed."""
    import webdataset  # noqa: F401 - the librosa script needs it

    with _quiet():
        try:
            if peer == "lhotse":
                from lhotse import Recording

                Recording.from_file(path)
            else:
                import librosa

                librosa.load(path, sr=None, mono=False, duration=0.1)
        except ImportError:
            raise
        except Exception:  # each of their readers has its own
            return False
    return True


def _lhotse_recording(path: Path, by_pyav: bool) -> Any:
    from lhotse import Recording

    if not by_pyav:
        return Recording.from_file(path, recording_id=path.stem)
    import soundfile

    samples_CS, rate_hz = _decoded(path)
    buffer = BytesIO()
    soundfile.write(buffer, samples_CS.T, rate_hz, format="WAV", subtype="PCM_16")
    return Recording.from_bytes(buffer.getvalue(), recording_id=path.stem)


def _librosa_samples(path: Path, by_pyav: bool) -> NDArray[np.float32]:
    import librosa

    if not by_pyav:
        return np.atleast_2d(librosa.load(path, sr=SAMPLE_RATE_HZ, mono=False)[0])
    samples_CS, rate_hz = _decoded(path)
    return librosa.resample(samples_CS, orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ)


def _decoded(path: Path) -> tuple[NDArray[np.float32], int]:
    """All samples float32 [C, S] at the file's own rate."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp")
        frames = [piece for frame in container.decode(stream) for piece in to_float.resample(frame)]
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), stream.rate


@contextmanager
def _quiet():
    """lhotse warns of every cut, librosa of every file that it opens otherwise than it likes."""
    level, root = logging.root.level, logging.getLogger()
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
