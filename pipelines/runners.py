"""Which Beam runner, with which options. Names that people type, mapped to what Beam 2.77 takes; options that nobody reads are refused."""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.transforms import environments
from google.protobuf import struct_pb2

from ..schemas.errors import InputError, MicroturnError
from .wording.near import near

LOCAL = ("DirectRunner", "FnApiRunner")
PARTITIONS_PER_CORE = 4
CONNECT_S = 30
PROCESSES = "multi_processing"
LOCAL_WORKER = "-P -m microturn.pipelines.local_worker"  # -P: no module of the folder that we happen to stand in
DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"


def make(arguments: Sequence[str], *, num_elements: int) -> tuple[Any, PipelineOptions]:
    """(runner, options) of these arguments, written as on Beam's own command line; `--runner` names the runner, DirectRunner by default.

    DirectRunner runs as Beam's FnApiRunner, which it would pick in the end: it first tries to download another runner, and says nothing
    when that fails. Raises InputError for an option that no part of Beam knows, naming the near miss.
    """
    options, name = _named(arguments)
    refuse_unknown(arguments)
    if name in LOCAL:
        direct = options.view_as(DirectOptions)
        if direct.direct_num_workers == 0:
            direct.direct_num_workers = os.cpu_count() or 1
        environment = None
        if direct.direct_running_mode == PROCESSES:
            direct.direct_running_mode = None  # else Beam starts a command of its own
            environment = environments.SubprocessSDKEnvironment.from_command_string(f"exec {shlex.quote(sys.executable)} {LOCAL_WORKER}")
        return FnApiRunner(environment, provision_info=_quiet_workers()), options
    if name == DASK:
        from apache_beam.runners.dask.dask_runner import DaskOptions

        dask = options.view_as(DaskOptions)
        if not dask.npartitions and not dask.partition_size:
            dask.npartitions = max(1, min(num_elements, PARTITIONS_PER_CORE * _cluster_cores(dask)))
    options.view_as(StandardOptions).runner = name
    return name, options


def _cluster_cores(options: Any) -> int:
    """Threads of the workers that a Dask scheduler has now; this machine's cores where Beam makes the cluster itself."""
    where = {"address": options.address} if options.address else {"scheduler_file": options.scheduler_file}
    if not any(where.values()):
        return os.cpu_count() or 1
    from distributed import Client

    try:
        with Client(**where, timeout=CONNECT_S, set_as_default=False) as client:
            return max(1, sum(client.ncores().values()))
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler at {next(iter(where.values()))}: {error}", hint="start it, or mend its address") from None


def _quiet_workers() -> ExtendedProvisionInfo:
    """What local worker processes are told: to keep their notes to themselves. FnApiRunner does not pass its options on to them."""
    options = struct_pb2.Struct()
    options.update({"default_sdk_harness_log_level": "ERROR"})
    return ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused-retrieval-token", pipeline_options=options))


@contextlib.contextmanager
def in_words(again: str) -> Iterator[None]:
    """What a runner raises becomes a sentence with a hint that ends in `again`, or the interrupt that a person meant."""
    try:
        yield
    except MicroturnError:
        raise
    except Exception as error:
        if "KeyboardInterrupt" in str(error):  # Beam wraps it
            raise KeyboardInterrupt from None
        said = (str(error).strip() or type(error).__name__).splitlines()[-1]  # worker processes raise their whole traceback as one text
        died = "a worker process has died, perhaps for want of memory" if "Channel closed prematurely" in said else "mend what it names"
        raise MicroturnError(f"the runner gave up: {said}", hint=f"{died}; {again}") from error


def workers(num: int) -> list[str]:
    """Beam's arguments for `num` local worker processes; one runs in memory."""
    return [] if num == 1 else [f"--direct_num_workers={num}", f"--direct_running_mode={PROCESSES}"]


def refuse_unknown(arguments: Sequence[str], ours: Sequence[str] = ()) -> None:
    """Nothing where Beam reads every option of these. Raises InputError, naming the near miss among Beam's options and `ours`."""
    if _named(arguments)[1] == DASK:
        try:
            import apache_beam.runners.dask.dask_runner  # noqa: F401 - its options register themselves when imported
        except ImportError as error:
            raise InputError(f"--runner=DaskRunner: {error}", hint="pip install 'microturn[dask]'") from None
    known: set[str] = set()
    for options in _subclasses(PipelineOptions):
        taken: Any = argparse.ArgumentParser(add_help=False)
        options._add_argparse_args(taken)
        known |= {flag for action in taken._actions for flag in action.option_strings}
    for argument in arguments:
        flag = argument.split("=", 1)[0]
        if argument.startswith("-") and flag not in known:
            close = near(flag, ours) or near(flag, sorted(known))
            raise InputError(f"no such option: {flag}", hint=f"did you mean {close[0]}?" if close else "see --help, and Beam's options")


def _named(arguments: Sequence[str]) -> tuple[PipelineOptions, str]:
    """Beam's options of these arguments, and the runner's name."""
    options = PipelineOptions(list(arguments))
    name = options.view_as(StandardOptions).runner or LOCAL[0]
    return options, DASK if name == "DaskRunner" else name


def _subclasses(kind: type[PipelineOptions]) -> list[type[PipelineOptions]]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in _subclasses(child))]
