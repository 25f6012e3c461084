"""What the bytes of a part depend on. Every field changes bytes, so every field is in the digest; nothing else may be.

Constants of the front ends: `tml-renderers` (native encoder) and `transformers.models.inkling`, checked against both by the tests.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from .clock import FRAME_SAMPLES, SAMPLE_RATE_HZ, WINDOW_TICKS
from .strict import Strict

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
MAX_WINDOW_BYTES = 256 << 20
NUM_BANDS = 80  # of the codes in a record
PATCH_PX: Final = 40


class DmelSpec(Strict):
    """One audio frame as 80 codes of 0–15. Source: tml-renderers' native encoder; transformers `feature_extraction_inkling.py`."""

    sample_rate_hz: Positive = SAMPLE_RATE_HZ
    hop_samples: Positive = FRAME_SAMPLES
    fft_window_samples: Positive = 1600  # = n_fft; periodic Hann; causal: a frame sees its own 800 samples and the 800 before
    num_bands: Positive = NUM_BANDS  # Slaney scale, Slaney area norm
    max_hz: Positive = 8000
    power_floor: float = Field(1e-10, gt=0)  # of re² + im², before the root
    mel_floor: float = Field(1e-10, gt=0)  # before log10
    min_log10: float = -7.0
    max_log10: float = 2.0
    num_codes: int = Field(16, ge=2, le=256)  # centres linspace(min, max, 16); nearest centre


class OwnMelSpec(Strict):
    """The finer mel of own speech that the flow head learns, and its codes. Source: FORMAT.md section 5."""

    sample_rate_hz: Positive = SAMPLE_RATE_HZ
    hop_samples: Positive = 200  # four sub-frames to a frame
    fft_window_samples: Positive = 800  # sub-frame i covers samples [200(i+1) - 800, 200(i+1))
    num_fft: Positive = 1024
    num_bands: Positive = NUM_BANDS
    max_hz: Positive = 8000
    power_floor: float = Field(1e-10, gt=0)
    mel_floor: float = Field(1e-10, gt=0)
    min_log10: float = -7.0
    max_log10: float = 2.0
    first_threshold: float = -6.7  # code = number of n in 0 … 14 with float32(mel16) > float32(first + step·n)
    threshold_step: float = 0.6
    num_codes: int = Field(16, ge=2, le=256)


class PictureSpec(Strict):
    """Which pictures are kept, at what size, and how they are tiled.

    Attributes:
        every_ticks: a pair is perceived in ticks 0, n, 2n, … of the session; 1 keeps a pair in every tick.
        max_width_px, max_height_px: a picture is fitted inside, keeping its display aspect; it is never enlarged.
        max_age_samples: a picture older than this at its deadline is not shown (32000 = 2 s).
        tiling: `plain` has ceil(W/40) columns; `inkling` has W // 40 + 1, as the open model.
        codec: `npy` stores patches.npy, `png` one lossless tall picture, patches.png.
    """

    every_ticks: int = Field(5, ge=1, le=WINDOW_TICKS)
    max_width_px: int = Field(320, ge=40, le=4096)
    max_height_px: int = Field(240, ge=40, le=4096)
    max_age_samples: int = Field(2 * SAMPLE_RATE_HZ, ge=1)
    patch_px: Literal[40] = PATCH_PX
    tiling: Literal["plain", "inkling"] = "plain"
    codec: Literal["npy", "png"] = "npy"


class ActivitySpec(Strict):
    """Voice activity from frame energy over a tracked noise floor and under a tracked peak. A level is the variance of a 50 ms frame, in dB
    re full scale (32768²). Frames that hold no sound, being absent or digital silence, enter neither floor nor peak.

    Attributes:
        min_level_db: quieter than this is never active.
        above_floor_db: a frame becomes active when it is so far above the floor,
        below_peak_db: and less than this below the peak: another speaker's bleed lies lower.
        release_db: and stays active until it falls so far below what made it active.
        floor_frames: the floor is the smallest level of the last so many frames (60 = 3 s);
        early_floor_db: until there were so many, it is at most this: a session that begins inside speech has no floor but speech yet.
        peak_frames: the peak is the largest level of the last so many frames (600 = 30 s)
        peak_hold_frames: that so many frames in a row reached, so that a click is no peak.
    """

    min_level_db: float = Field(-60.0, le=0, allow_inf_nan=False)
    above_floor_db: float = Field(9.0, ge=0, le=100)
    below_peak_db: float = Field(22.0, ge=0, le=200)
    release_db: float = Field(5.0, ge=0, le=100)
    floor_frames: int = Field(60, ge=1, le=72_000)
    early_floor_db: float = Field(-45.0, le=0, allow_inf_nan=False)
    peak_frames: int = Field(600, ge=1, le=72_000)
    peak_hold_frames: int = Field(3, ge=1, le=600)


class EventSpec(Strict):
    """Thresholds of the events that are found (FORMAT.md section 3)."""

    turn_pause_samples: Count = 8_000  # pauses under 0.5 s belong to the turn
    backchannel_max_samples: Count = 16_000
    backchannel_max_words: Count = 3
    interruption_stop_samples: Count = 32_000  # the interrupted one stops within 2 s
    interruption_min_overlap_samples: Count = 4_000  # shorter is a quick hand-over: in real meetings nearly every one overlaps a little


class LimitSpec(Strict):
    """Stated limits on hostile or broken input. What exceeds them is dropped: as a function of content, so they are in the spec."""

    max_session_samples: int = Field(24 * 3600 * SAMPLE_RATE_HZ, ge=1, le=20 * 24 * 3600 * SAMPLE_RATE_HZ)  # keys have 7 digits of ticks
    max_start_samples: Count = 3600 * SAMPLE_RATE_HZ  # a stream that starts later than this after its file's first sample is refused
    max_gap_samples: Count = 3600 * SAMPLE_RATE_HZ  # a longer jump forward in time ends the stream: the rest is dropped
    max_pixels: Positive = 8192 * 4320
    max_channels: Positive = 64
    max_streams: Positive = 64
    max_rate_hz: Positive = 768_000
    max_words: Positive = 2_000_000
    max_word_chars: Positive = 1_000
    max_transcript_bytes: Positive = 128 << 20
    max_corrupt_packets: Count = 1_000  # the rest of a stream with more is dropped


class FeatureSpec(Strict):
    """Everything that the bytes of a part depend on, besides the input and the toolchain.

    Attributes:
        window_ticks: ticks of a window (300 = 60 s).
        heard: `sum` mixes the other participants into one heard stream; `each` keeps a stream for each of them.
        views: `all` gives a view to every `assistant`, and to every `user` who has audio; `assistant` to the former only.
        span_break_samples: a timestamp further than this from where the count of samples puts it starts a new span (640 = 40 ms).
        keep_heard_pcm: also store what is heard as PCM, to listen to; never an input of a model.
    """

    version: Literal[1] = 1
    window_ticks: int = Field(WINDOW_TICKS, ge=1, le=6000)
    heard: Literal["sum", "each"] = "sum"
    views: Literal["all", "assistant"] = "all"
    resampler: Literal["soxr_hq"] = "soxr_hq"
    span_break_samples: Count = 640
    keep_heard_pcm: bool = False
    dmel: DmelSpec = DmelSpec()
    pictures: PictureSpec = PictureSpec()
    activity: ActivitySpec = ActivitySpec()
    events: EventSpec = EventSpec()
    limits: LimitSpec = LimitSpec()

    @model_validator(mode="after")
    def _window_fits(self) -> "FeatureSpec":
        if (size := self.max_window_bytes()) > MAX_WINDOW_BYTES:
            raise ValueError(
                f"a window could hold {size} bytes of patches, the limit is {MAX_WINDOW_BYTES}: "
                "fewer window_ticks, more pictures.every_ticks or smaller pictures are needed"
            )
        return self

    @model_validator(mode="after")
    def _record_holds_it(self) -> "FeatureSpec":
        for name, fixed in (("sample_rate_hz", SAMPLE_RATE_HZ), ("hop_samples", FRAME_SAMPLES), ("num_bands", NUM_BANDS)):
            if (found := getattr(self.dmel, name)) != fixed:
                raise ValueError(f"dmel.{name} is {fixed} in every record, found {found}")
        return self

    def max_window_bytes(self) -> int:
        """Bytes of patches in a window in which every pair is as large as it may be: nearly all that a window can hold."""
        pictures = self.pictures
        rows, cols = (-(-size // pictures.patch_px) for size in (pictures.max_height_px, pictures.max_width_px))
        pairs = -(-self.window_ticks // pictures.every_ticks)
        return pairs * rows * (cols + (pictures.tiling == "inkling")) * 2 * pictures.patch_px**2 * 3
