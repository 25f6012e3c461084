"""The learning rate of a step: a function of the step alone, so that a run that goes on longer is the same run.

    warm-up (linear) → constant → decay (linear to `floor`), only from a stated step

Source of the shape: warmup-stable-decay, arXiv 2404.06395.
"""

from pydantic import Field, model_validator

from ...schemas.strict import Strict


class ScheduleSpec(Strict):
    """Factors of the learning rate.

    Attributes:
        warmup_steps: step s of these has s / warmup_steps of it; steps count from 1.
        decay_from: the last step at the full rate; None never decays.
        decay_steps: so many steps later the factor is `floor`, and stays.
        floor: part of the full rate.
    """

    warmup_steps: int = Field(100, ge=0)
    decay_from: int | None = Field(None, ge=0)
    decay_steps: int = Field(0, ge=0)
    floor: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> "ScheduleSpec":
        if self.decay_from is not None and (self.decay_steps == 0 or self.decay_from < self.warmup_steps):
            raise ValueError(
                f"decay_from {self.decay_from} with decay_steps {self.decay_steps} and warmup_steps {self.warmup_steps}: "
                "a decay has steps, and begins after the warm-up"
            )
        return self


def factor(schedule: ScheduleSpec, step: int) -> float:
    """The part of the learning rate that step `step` (the first is 1) is made with."""
    if step < schedule.warmup_steps:
        return step / schedule.warmup_steps
    if schedule.decay_from is None or step <= schedule.decay_from:
        return 1.0
    gone = min(1.0, (step - schedule.decay_from) / schedule.decay_steps)
    return 1.0 - gone * (1.0 - schedule.floor)


def same_until(one: ScheduleSpec, other: ScheduleSpec, step: int) -> bool:
    """Whether both give the same factors to steps 1 … `step`: then one may take the other's place after it."""
    return one == other or all(factor(one, at) == factor(other, at) for at in range(1, step + 1))
