"""`microturn report`: report.html beside the shards."""

import click

from .report import SAMPLE_WINDOWS

PAGE = "report.html"


@click.command("report", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", metavar="OUT")
@click.option("--sample", "sample_windows", default=SAMPLE_WINDOWS, show_default=True, type=click.IntRange(0), help="Windows to look into.")
@click.option("--tokenizer", "tokenizer_path", default="", metavar="FILE", help="The tokenizer.json, when the corpus was built with one.")
def report_command(out: str, sample_windows: int, tokenizer_path: str) -> None:
    """Write OUT/report.html: what the corpus OUT holds, and where its input went. One file, opens offline.

    Totals come from index and ledger; what only windows know comes from a sample that is the same on every run. The page names no path
    and no date: the same folder gives the same bytes.

    \b
    Examples:
      microturn report corpus
      microturn report s3://bucket/corpus --sample 1000
    """
    from ..pipelines.corpus import Corpus
    from .report import report

    corpus = Corpus.open(out)
    corpus.folder.write(PAGE, report(corpus, sample_windows=sample_windows, tokenizer_path=tokenizer_path).encode())
    click.echo(f"{out.rstrip('/')}/{PAGE}")
