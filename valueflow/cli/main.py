"""Entry point of the command `valueflow`.

valueflow score "We looked after the neighbours' children." --value svt:benevolence
"""

import asyncio
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine
from importlib import import_module

from valueflow.cli.options import parser
from valueflow.console import one_line, say, start, unwritten
from valueflow.errors import InputError, of_storage

INTERRUPTED, PIPE_CLOSED = 130, 141
# Commands with a module of their name; `valueflow.cli.commands` has the others.
OWN_MODULE = ("profile", "profile_model", "steer_prompt", "submit")
# Most run in an event loop; a job, which has loops of its own, has run when it returns.
Command = Callable[[Namespace], Coroutine[None, None, int | None] | None]


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; a user's mistake is one line on stderr and code 2."""
    args = parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # no progress bars while an encoder loads
    start(logging.WARNING)
    for name in ("valueflow.client.protocol", "valueflow.service.local", "valueflow.service.service"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        # Imported here: it takes half a second to load, and --help does not need it.
        from valueflow.client import ValueFlowError

        try:
            work = _function_of(args.command)(args)
            code = _run(work) if work else 0
            sys.stdout.flush()
            return code or 0
        except (InputError, ValueFlowError, OSError) as error:
            return _failed(error, getattr(args, "output", ""))
    except KeyboardInterrupt:
        return INTERRUPTED


def _function_of(command: str) -> Command:
    """The function of a command; only its own module is imported, since others would take seconds to load."""
    name = command.replace("-", "_")
    return getattr(import_module(f"valueflow.cli.{name if name in OWN_MODULE else 'commands'}"), name)


def _failed(error: Exception, output: str) -> int:
    """Say what went wrong, and return the exit code; `output`: the file for the rows, "" for standard output."""
    unwritten()
    if isinstance(error, BrokenPipeError):  # the reader of the output has enough
        return PIPE_CLOSED
    # A write that fails does not say where; errors of other files have their names.
    nameless = of_storage(error) and not isinstance(error, InputError) and not getattr(error, "filename", None)
    where = f"cannot write {output or 'standard output'}: " if nameless else ""
    say(f"error: {where}{one_line(str(error))}", sys.stderr)
    return 2


def _run(work: Coroutine[None, None, int | None]) -> int | None:
    runner = asyncio.Runner()
    try:
        return runner.run(work)
    except KeyboardInterrupt:
        # Do not wait for a judge that runs in a thread; all output has been written and flushed.
        os._exit(INTERRUPTED)
    finally:
        runner.close()
