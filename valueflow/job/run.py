"""Run a job from the command line."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from valueflow import __version__
from valueflow.config import Config, load, shown
from valueflow.console import say, start, unwritten
from valueflow.errors import InputError, of_storage, storage_error
from valueflow.job.work import work_of
from valueflow.store.attempts import attempt

log = logging.getLogger(__name__)
SchemaT = TypeVar("SchemaT", bound=Config)
NOISY = ("ray", "httpx", "sentence_transformers", "botocore", "aiobotocore")


def run_job(schema: type[SchemaT], main: Callable[[SchemaT], object]) -> None:
    """Run `main` on the config of the command line, `CONFIG.yaml [key.path=value ...]`.

    It is an attempt of its work under the root: another attempt of the same work that runs is waited for.
    An InputError, or a disk that is full, read-only, forbidden or broken, becomes one line on standard error and an exit code
    (2, or that of its class in `errors`); any other exception is raised.
    """
    with exit_codes():
        if len(sys.argv) < 2:
            raise InputError(f"usage: python {sys.argv[0]} CONFIG.yaml [key.path=value ...]")
        job, config = Path(sys.argv[0]).stem, load(schema, sys.argv[1], sys.argv[2:])
        run_config(job, config, main, " ".join([sys.argv[1], shown(sys.argv[2:])]).strip())


def run_config(job: str, config: SchemaT, main: Callable[[SchemaT], object], command: str) -> None:
    """Run `main` on a config as an attempt of its work under the root; errors as in `run_job`. `command` is for the log."""
    start(logging.INFO)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with exit_codes():
        log.info("%s, ValueFlow %s", command, __version__)
        root = getattr(config, "root", "")
        # Within the attempt too, so that its lease ends with the exit code.
        with attempt(root, work_of(job, config), f"{job} {command}") if root else contextlib.nullcontext(), exit_codes():
            main(config)


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """End the process with one line and its exit code on what a user can mend."""
    try:
        yield
        if error_of_output := unwritten():
            raise InputError(f"cannot write standard output: {error_of_output}")
        return
    except InputError as error:
        message, code = str(error), error.exit_code
    except OSError as error:
        if not of_storage(error):
            raise
        message, code = str(storage_error(error)), InputError.exit_code
    say(f"error: {message}", sys.stderr)
    unwritten()
    sys.exit(code)
