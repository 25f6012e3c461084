"""docs/RUNNERS.md and the Dockerfile, as far as they can be held to account without docker, Flink, Spark or Google.

Every command parses, every option is one that ours or the installed Beam reads, with a value that it takes; versions are those of
constraints.txt; what the image copies is there, and is all of the package.
"""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from microturn.pipelines import runners
from microturn.pipelines.build_command import build_command
from microturn.schemas.errors import InputError

HOUSE = Path(__file__).resolve().parent.parent.parent
PAGE, DOCKERFILE = (HOUSE / "docs" / "RUNNERS.md").read_text(encoding="utf-8"), (HOUSE / "Dockerfile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
BUILDS = [shlex.split(line)[2:] for line in LINES if line.startswith("microturn build ")]
NEVER_RUN = ("Flink", "Spark", "Dataflow")


def beam_options(arguments: list[str]) -> list[str]:
    """What is left for Beam of a build's arguments, INPUT and OUT taken off. Raises click.UsageError where they do not parse."""
    context = build_command.make_context("build", list(arguments), resilient_parsing=False)
    rest = context.params["arguments"]
    beam = [argument for argument in rest if argument.startswith("-")]
    if len(rest) - len(beam) != 2:
        raise click.UsageError(f"INPUT and OUT, not {rest}")
    return beam


def refuse(arguments: list[str]) -> None:
    """Nothing where a build would take these. Raises InputError or SystemExit, as Beam does for a value."""
    beam = beam_options(arguments)
    runners.refuse_unknown(beam)
    PipelineOptions(beam).get_all_options()
    if [argument for argument in beam if argument.startswith("--") and "=" not in argument] not in (
        [],
        ["--flink_submit_uber_jar"],
        ["--spark_submit_uber_jar"],
    ):
        raise InputError(f"an option without its value: {beam}")


@pytest.mark.parametrize("arguments", BUILDS, ids=lambda arguments: next((a for a in arguments if a.startswith("--")), "plain"))
def test_every_documented_build_parses_and_every_option_is_read(arguments):
    refuse(arguments)


@pytest.mark.parametrize(
    "wrong", ["--flink_mastr=x", "--flink_version=1.2", "--sdk_worker_paralelism=1", "--parallelism=many", "--job_endpoint"]
)
def test_an_option_that_nobody_reads_would_be_found(wrong):
    """The negative control."""
    with pytest.raises((InputError, SystemExit)):
        refuse(["in", "out", "--runner=FlinkRunner", wrong])


def test_the_page_names_every_runner_and_marks_those_that_nobody_has_run():
    named = {argument.partition("=")[2] for build in BUILDS for argument in build if argument.startswith("--runner=")}
    assert named == {"DaskRunner", "PortableRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"}
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    marked = [name for name, text in sections.items() if "**Not verified here: nobody of us has run this.**" in text]
    assert tuple(marked) == NEVER_RUN and len(BUILDS) >= 10


def test_every_shell_line_of_the_page_parses():
    assert len(LINES) > 12
    for block in BLOCKS:
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert not checked.returncode and not checked.stderr, block
    assert {shlex.split(line)[0] for line in LINES} <= {"microturn", "docker", "dask", "MALLOC_MMAP_THRESHOLD_=1073741824"}


def test_whoever_needs_the_container_names_the_one_that_is_built():
    """The image of the page's `docker build`, wherever workers start it."""
    built = {shlex.split(line)[3] for line in LINES if line.startswith("docker build")}
    for build in BUILDS:
        options = PipelineOptions(beam_options(build)).view_as(PortableOptions)
        if options.environment_type == "DOCKER":
            assert options.environment_config in built
    assert any("--environment_type=DOCKER" in build for build in BUILDS)


# ---- the Dockerfile


def pinned(package: str) -> str:
    """The version that constraints.txt gives."""
    found = re.search(rf"^{package}==(\S+)$", (HOUSE / "constraints.txt").read_text(), re.MULTILINE)
    assert found, package
    return found[1]


def test_the_images_are_of_the_versions_that_were_tested():
    beam = pinned("apache-beam")
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    python = re.fullmatch(r"python:(3\.\d+)-slim", images[1])
    assert python and images[0] == f"apache/beam_python{python[1]}_sdk:{beam}"
    assert f'"apache-beam[${{BEAM}}]=={beam}"' in DOCKERFILE
    assert set(re.findall(r"[\w./-]*(?:microturn|job_server):(\d[\d.]*)", PAGE + DOCKERFILE)) == {beam}
    assert tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["requires-python"] == f">={python[1]}"


def test_what_the_image_copies_is_there_and_is_the_whole_package():
    copies = [line.split()[1:] for line in re.findall(r"^COPY (?!--from).*$", DOCKERFILE, re.MULTILINE)]
    copied = {source for *sources, _ in copies for source in sources}
    assert [name for name in copied if not (HOUSE / name).exists()] == []
    packages = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.split(".")[1] for name in packages if "." in name} <= copied
    assert {path.name for path in HOUSE.glob("*.py")} | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= copied


def test_the_image_starts_beams_worker_and_takes_the_tested_versions():
    boot = "/opt/apache/beam"
    assert f"COPY --from=beam {boot} {boot}\n" in DOCKERFILE and f'ENTRYPOINT ["{boot}/boot"]' in DOCKERFILE
    assert "--constraint constraints.txt" in DOCKERFILE
