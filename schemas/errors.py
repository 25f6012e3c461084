"""The exceptions of microturn: what was found, where, and what to do about it.

    MicroturnError
    ├── InputError      outside input cannot be used as it is: a file, a manifest row, an option
    │   └── MediaError  a recording cannot be decoded, in words a ledger row can carry (`reason` is its stable name)
    └── CorpusError     something we wrote ourselves is not what it should be: a shard, an index, a receipt

`assert` is for what we ourselves have broken. An `OSError` is never wrapped: the machine's faults are retried, not blamed on the input.
"""


class MicroturnError(Exception):
    """A sentence that names the place and what was found there; `hint` says what to do.

    Attributes:
        hint: one more sentence, or "" when there is nothing to advise.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self):  # keyword-only arguments do not survive the default pickling that runners use
        return _rebuild, (type(self), self.args, self.__dict__)


class InputError(MicroturnError):
    """Outside input that cannot be used as it is."""


class MediaError(InputError):
    """A recording, or a stream of it, that cannot become micro-turns.

    Attributes:
        reason: stable snake_case name, the ledger's `reason` column, e.g. `not_media`, `no_such_channel`, `too_many_pixels`.
    """

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class CorpusError(MicroturnError):
    """A file of a corpus that is not what dataset.json, an index or a receipt says it is."""


def _rebuild(kind: type[MicroturnError], args: tuple, state: dict) -> MicroturnError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error
