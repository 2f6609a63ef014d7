"""What the commands share: the service that they ask, its settings, and where their rows go."""

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from valueflow import api
from valueflow.cli import output
from valueflow.cli.options import FORMATS, ROOT
from valueflow.cli.outcome import Outcome
from valueflow.cli.output import Lines, Sheet
from valueflow.client import AsyncClient, LocalClient, Settings, ValueFlowError
from valueflow.client.address import SERVER_ENV
from valueflow.config import read_yaml, remember
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, JudgeConfig

ROOT_ENV = "VALUEFLOW_ROOT"
SETTINGS = ("mode", "k", "m", "sampling", "seed")


def server_of(args: Namespace) -> str:
    """Return the address of the server, "" for none; the command line takes precedence over the environment."""
    local = [f"--{name}" for name in ("root", "vidb", "judge") if getattr(args, name, None)]
    if args.server and local:
        raise InputError(f"{local[0]} is for scoring in this process and excludes --server {args.server}; leave one out")
    return args.server or ("" if local else os.environ.get(SERVER_ENV, ""))


def root_of(args: Namespace) -> str:
    """Return the folder or URL of the tables for scoring in this process."""
    return args.root or os.environ.get(ROOT_ENV) or ROOT


@contextlib.asynccontextmanager
async def backend(args: Namespace, judge: AnyJudge | None = None) -> AsyncIterator[AsyncClient | LocalClient]:
    """Yield a client of the server, or of a service in this process with the judge of --judge, else `judge`."""
    if url := server_of(args):
        async with AsyncClient(url) as client:
            yield client
    else:
        fast = getattr(args, "mode", None) == "fast"
        yield LocalClient(root_of(args), args.vidb or "current", read_judge(args.judge) if args.judge else judge, fast)


def settings(args: Namespace) -> Settings:
    """Return the scoring settings given on the command line."""
    return cast(Settings, {name: value for name in SETTINGS if (value := getattr(args, name)) is not None})


@contextlib.contextmanager
def sheet(args: Namespace, lines: Lines) -> Iterator[Sheet]:
    """Yield the sheet for the rows; it writes to the file of --output, else to standard output."""
    format_ = format_of(args)
    if not args.output:
        with Sheet(format_, sys.stdout, lines) as out:
            yield out
    else:
        with open(args.output, "w", encoding="utf-8", newline="") as file, Sheet(format_, file, lines) as out:
            yield out


def format_of(args: Namespace) -> str:
    """Return the output format.

    Raises:
        InputError: the extension of the output file is unknown and --format is absent.
    """
    extension = (args.output or "x.txt").rpartition(".")[2].lower()
    if args.format or extension in FORMATS:
        return args.format or extension
    if extension != "txt":
        raise InputError(f"--output {args.output} has no known extension; set --format {'|'.join(FORMATS)}")
    return "table"


def progress(num_texts: int, args: Namespace) -> tqdm:
    """Return a progress bar on standard error; disabled if not a terminal, or if rows go to the same terminal."""
    mixed = format_of(args) in ("csv", "jsonl") and not args.output and sys.stdout.isatty()
    return tqdm(total=num_texts, unit=" texts", leave=False, disable=num_texts < 2 or mixed or not sys.stderr.isatty())


def read_judge(path: str) -> AnyJudge:
    """Return the judge in a YAML file: the file is a judge's config, or has one under `judge`.

    Raises:
        InputError: the file is unreadable or has no valid judge.
    """
    try:
        config, written = map(_judge_in, read_yaml(path))
        judge: AnyJudge = TypeAdapter(JudgeConfig).validate_python(config)
        if written is not None:
            remember(judge, written)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(['judge', *map(str, first['loc'])])}: {first['msg']}") from None
    except InputError as error:
        raise InputError(f"{path} is not the config of a judge: {error}") from None
    return judge


def _judge_in(content: Any) -> Any:
    return content.get("judge", content) if isinstance(content, dict) else content


async def scores_of(
    args: Namespace, client: AsyncClient | LocalClient, texts: list[str], out: Sheet, outcome: Outcome
) -> AsyncIterator[api.StreamScore]:
    """Yield the scores as they arrive; the first line becomes the header of the output.

    Raises:
        ValueFlowError: the server ended the stream early.
    """
    with progress(len(texts), args) as bar:
        async for line in client.stream(texts, args.value or ["all"], **settings(args)):
            if isinstance(line, api.StreamStart):
                out.header = line.model_dump(exclude={"type", "num_scores"})
                outcome.begin(line)
            elif isinstance(line, api.StreamScore):
                yield line
                outcome.add(f"text {line.index + 1}, {line.value}", line.intensity is not None, line)
                bar.update(line.index - bar.n)
            elif line.problem:
                raise ValueFlowError(f"{line.problem.title}: {line.problem.detail}", line.problem)


def dry_run(args: Namespace, client: AsyncClient | LocalClient, texts: list[str]) -> None:
    """Write how many calls the judge would get.

    Raises:
        InputError: the judge is a server's.
    """
    if not isinstance(client, LocalClient):
        raise InputError(f"--dry-run counts the calls of a judge in this process; leave out --server (or {SERVER_ENV})")
    plan = client.plan(texts, args.value or ["all"], **settings(args))
    sharpness = sum(plan.sharpness.values())
    with sheet(args, output.plan) as out:
        calls = {"windows": plan.windows, "relevance": plan.relevance, "sharpness": sharpness}
        calls["calls"] = sum(calls.values())
        out.add({"texts": plan.texts, "values": len(plan.values), **calls})
