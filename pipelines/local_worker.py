"""A worker process of a build on this machine: Beam's own, which prints nothing of its own accord and ends at once with Ctrl-C.

Beam's would print what libraries it misses, and answer Ctrl-C with tracebacks; what a person should read the driver says. What is logged
here goes to the driver alone. An end at once costs what a kill costs: the session under way is done again.
"""

import logging
import os
import signal
import sys


def main() -> None:
    """Serves the driver that started it until that closes the connection. Where it is comes in the environment, as Beam has it."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))  # with another code Beam would raise in a thread of the driver
    logging.getLogger().addHandler(logging.NullHandler())  # without any, the first warning of a library sends all that follows to stderr
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
