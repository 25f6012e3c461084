"""`microturn speak`: what a run's flow head has learned, as a wav to listen to."""

from pathlib import Path

import click
import torch

from ...schemas.errors import InputError
from ...schemas.keys import parse_window_key
from ...transforms import own
from ..data import Batch, Loader, Mixture
from ..train.trained import trained
from .frames import on_the_clock, retold
from .vocoder import griffin_lim, write_wav

ASSISTANT = "assistant"


@click.command("speak", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(file_okay=False))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", metavar="CORPUS", help="The corpus that the conversation comes from.  [default: the run's]")
@click.option("--split", default="train", show_default=True, help="Its split.")
@click.option("--session", default="", metavar="ID", help="The session to retell.  [default: the first of the split that speaks]")
@click.option("--view", default="", metavar="NAME", help="Whose speech.  [default: assistant's, where a view is called so; else anyone's]")
@click.option("--ticks", default=150, show_default=True, type=click.IntRange(2), help="Of 200 ms each, at most.")
@click.option("--checkpoint", type=click.Choice(["last", "best"]), default="last", show_default=True, help="Which weights.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the noise that speech is made from.")
def speak_command(
    run: str, out: Path, data: str | None, split: str, session: str, view: str, ticks: int, checkpoint: str, seed: int
) -> None:
    """Let RUN retell the own speech of a conversation into OUT, a wav at 16 kHz.

    Every frame is made by the flow head from what the model has heard and said before it, with the true past. Beside OUT lies OUT with
    `-true` in its name: the recording's own mel through the same vocoder, which is the best that OUT could sound.

    \b
    Examples:
      microturn speak run said.wav
      microturn speak run said.wav --session call-00003 --ticks 300 --split val
    """
    if out.suffix.lower() != ".wav" or not out.parent.is_dir():
        raise InputError(f"{out}: not a .wav in a folder that is there", hint="name a file like said.wav")
    opened = trained(run, "best" if checkpoint == "best" else "last")
    batch, document = _document(opened.documents(data, split, document_ticks=ticks, cut_played=0.0), session, view)
    true = own.from_head(batch.flow_targets.numpy())
    beside = out.with_name(f"{out.stem}-true.wav")
    for name, mel16 in ((out, retold(opened.model, batch, seed=seed)), (beside, true)):
        samples = griffin_lim(on_the_clock(batch, mel16, document)[: 16 * ticks])
        write_wav(name, samples)
    segment = batch.segments[document]
    click.echo(f"{out}: {segment.key}, {len(samples) / 16_000:.1f} s, after step {opened.step}; the recording itself: {beside}")


def _document(mixture: Mixture, session: str, view: str) -> tuple[Batch, int]:
    """A batch, and which of its documents is the first of the session and view, or of all, in which something is said."""
    corpus = mixture.corpora[0]
    if view and view not in corpus.index.view_names:
        raise InputError(f"{corpus.name}: no view {view!r}", hint=f"there are {', '.join(sorted(set(corpus.index.view_names)))}")
    wanted = view or ASSISTANT * (ASSISTANT in corpus.index.view_names)
    for batch in Loader(mixture, step_sequences=1, epochs=1):
        document_F = torch.searchsorted(batch.offsets, batch.flow_rows, right=True) - 1
        for number in torch.unique_consecutive(document_F[batch.flow_weights > 0]).tolist():
            of_session, of_view, _ = parse_window_key(batch.segments[number].key)
            if session in ("", of_session) and wanted in ("", of_view):
                return batch, number
    what = f"session {session!r} does not speak in" if session else "nobody speaks in"
    hint = "`microturn inspect` lists sessions and splits, --view says who is listened to"
    raise InputError(f"{corpus.name}: {what} the split {corpus.split!r}" + (f" as {wanted}" if wanted else ""), hint=hint)
