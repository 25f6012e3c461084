"""The build on media nobody here made: a clip with two pictures, two sounds and two subtitle streams, a telephone call, meetings."""

from click.testing import CliRunner
from microturn.cli import microturn
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify


def test_recordings_of_other_people_build_and_verify(media, tmp_path):
    out = str(tmp_path / "corpus")
    result = CliRunner().invoke(microturn, ["build", str(media), out])
    assert result.exit_code == 0, result.output
    corpus = Corpus.open(out)
    found = verify(corpus)
    assert found.faults == [] and found.num_windows >= 8
    assert "nasa_13013" in {row["session"] for row in corpus.rows()}
