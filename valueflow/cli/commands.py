"""The commands: read texts, send them to a server or a service in this process, and write the result."""

import contextlib
import os
import re
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from valueflow import api, store
from valueflow.cli import output
from valueflow.cli.options import FORMATS, ROOT
from valueflow.cli.outcome import Outcome
from valueflow.cli.output import Lines, Row, Sheet
from valueflow.cli.steer_prompt import steer_prompt
from valueflow.cli.submit import submit
from valueflow.cli.trusted import Trusted
from valueflow.client import AsyncClient, LocalClient, Settings, ValueFlowError
from valueflow.client.address import SERVER_ENV
from valueflow.client.protocol import flat_row
from valueflow.config import read_yaml, remember
from valueflow.console import say
from valueflow.decoding import decode
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, JudgeConfig, SimulatedJudge
from valueflow.records import ValueId, flaw
from valueflow.tabular import EXTENSIONS, cell, columns, row_error, rows
from valueflow.theories import find_theory

# One word that ends like a file: what is not there must not be scored as a text.
FILE_NAME = re.compile(
    rf"^\S+({'|'.join(map(re.escape, EXTENSIONS))}|\.(txt|xlsx?|ods|docx?|pdf|gz|zip|bz2|xz|zst))$", re.IGNORECASE
)
ROOT_ENV = "VALUEFLOW_ROOT"
SETTINGS = ("mode", "k", "m", "sampling", "seed")


async def score(args: Namespace) -> None:
    """Score texts and write each score as it arrives."""
    texts, outcome = read_texts(args.texts, args.column), Outcome()
    async with backend(args) as client:
        if args.dry_run:
            dry_run(args, client, texts)
            return
        with sheet(args, output.scores) as out:
            async for line in scores_of(args, client, texts, out, outcome):
                out.add(flat_row(line, texts))
    outcome.report()


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


COMPARED = (
    "intensity", "low", "high", "judge_intensity", "judge_low", "judge_high", "relevance", "num_windows", "num_failed", "error",
    "truncated",
)  # fmt: skip


async def compare(args: Namespace) -> None:
    """Write for each value the probability that the first of two texts expresses it more."""
    first, second, outcome = one_text(args.first), one_text(args.second), Outcome()
    async with backend(args) as client:
        if args.dry_run:
            dry_run(args, client, [first, second])
            return
        answer = await client.compare(first, second, args.value or ["all"], **settings(args))
    with sheet(args, output.comparisons) as out:
        out.header = answer.model_dump(exclude={"comparisons"})
        outcome.begin(answer)
        for comparison in answer.comparisons:
            sides = {"first": comparison.first, "second": comparison.second}
            outcome.add(comparison.value, comparison.probability is not None, *sides.values())
            columns = {f"{side}_{name}": getattr(score, name) for side, score in sides.items() for name in COMPARED}
            out.add({"value": comparison.value, "probability": comparison.probability, **columns})
    outcome.report()


async def profile(args: Namespace) -> None:
    """Write the mean intensity of values over texts."""
    texts, outcome = read_texts(args.texts, args.column), Outcome()
    if args.trusted and args.min_relevance is not None:
        raise InputError("--min-relevance excludes --trusted: a profile that is corrected has all texts; leave one out")
    trusted = Trusted(args.trusted, texts, args.value) if args.trusted else None
    if trusted:
        args.value = trusted.values
    async with backend(args) as client:
        if args.dry_run:
            dry_run(args, client, texts)
            return
        if trusted:
            await corrected_profile(args, client, texts, trusted)
            return
        least = {} if args.min_relevance is None else {"min_relevance": args.min_relevance}
        answer = await client.profile(texts, args.value or ["all"], **settings(args), **least)
    with sheet(args, output.profiles) as out:
        out.header = answer.model_dump(exclude={"profile"})
        outcome.begin(answer)
        for profiled in answer.profile:
            out.add(profiled.model_dump(exclude={"error"}))
            num_scored = profiled.num_texts + profiled.num_left_out
            for number in range(len(texts)):
                outcome.add(profiled.value, number < num_scored, reason=profiled.error)
    outcome.report()


async def corrected_profile(args: Namespace, client: AsyncClient | LocalClient, texts: list[str], trusted: Trusted) -> None:
    """Write the mean intensity of values over texts, corrected by trusted scores of some of them."""
    outcome, judge_VT = Outcome(), {value: np.full(len(texts), np.nan) for value in trusted.values}
    with sheet(args, output.profiles) as out:
        async for line in scores_of(args, client, texts, out, outcome):
            if line.intensity is not None:
                judge_VT[ValueId(line.value)][line.index] = line.intensity
        for value, judge_T in judge_VT.items():
            out.add(trusted.row(value, judge_T))
    outcome.report()


async def extract(args: Namespace) -> None:
    """Write the nodes that texts may express."""
    texts, outcome = read_texts(args.texts, args.column), Outcome()
    async with backend(args) as client:
        answer = await client.extract(texts, args.theory, args.top)
    with sheet(args, output.nodes) as out:
        out.header = answer.model_dump(exclude={"texts"})
        for text in answer.texts:
            outcome.add(f"text {text.index + 1}", not text.error, reason=text.error)
            for node in text.nodes:
                out.add({"index": text.index, "text": texts[text.index], **node.model_dump(), "path": " > ".join(node.path)})
    outcome.report()


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


async def values(args: Namespace) -> None:
    """Write all values, those of a theory, or one with its paths and examples."""
    # No judging happens: use the judge that is cheapest to load.
    async with backend(args, SimulatedJudge()) as client:
        theories, chosen = (await client.theories()).theories, find_theory(args.name or "")
        selected = [theory for theory in theories if not args.name or theory.id == chosen]
        value = None if selected else await client.value(args.name)
    with sheet(args, output.definition if value else output.definitions) as out:
        if value:
            out.header = value.model_dump(exclude={"examples"})
            for anchor in value.examples:
                out.add(anchor.model_dump())
        for theory in selected:
            for node in theory.nodes:
                out.add(node.model_dump(include={"id", "name", "scored", "definition"}))


async def vidb(args: Namespace) -> None:
    """Write the list of finished versions, or the contents of one; pin, unpin or publish one."""
    await {"list": _versions, "show": _version, "pin": _pin, "unpin": _pin, "rollback": _rollback}[args.action](args)


async def _pin(args: Namespace) -> None:
    root = root_of(args)
    version = (store.current(root).version or "") if args.version == "current" else args.version
    if not version:
        raise InputError(f"nothing is published under {root}; name a version")
    {"pin": store.pin, "unpin": store.unpin}[args.action](root, version)
    say(f"{version}: {args.action}ned")


async def _rollback(args: Namespace) -> None:
    root = root_of(args)
    before = store.rollback(root, args.version).version
    say(f"published: {store.current(root).version} (before: {before})")


async def _versions(args: Namespace) -> None:
    root = root_of(args)
    published, pinned = store.current(root).version, store.pinned(root)
    with sheet(args, output.versions) as out:
        for version in store.finished(root, "vidb"):
            manifest = store.require_manifest(store.Build(root, "vidb", version))
            details = manifest.details(store.VidbDetails)
            out.add(
                {
                    "version": version, "created": manifest.created[:19], "texts": manifest.num_rows,
                    "values": len(details.calibrations), "judge": details.judge,
                    "current": "current" if version == published else "", "pinned": "pinned" if version in pinned else "",
                }
            )  # fmt: skip


async def _version(args: Namespace) -> None:
    if url := server_of(args):
        async with AsyncClient(url) as client:
            answer = (await client.vidb()).model_dump()
        if args.version not in (None, answer["version"]):
            raise InputError(
                f"the server uses VIDB {answer['version']}, not {args.version}; use --root to read versions without the server"
            )
    else:
        answer = _describe(root_of(args), args.version or "current")
    with sheet(args, output.version) as out:
        out.header = {name: content for name, content in answer.items() if name != "values"}
        for value, number in answer["values"].items():
            out.add({"value": value, "anchors": number})


def _describe(root: str, name: str) -> Row:
    """The fields of `api.VidbResponse` that do not depend on a server."""
    from valueflow import vidb as vidbs

    version = vidbs.load(root, name)
    manifest = version.manifest
    num_anchors: Counter[str] = Counter()
    for value in version.calibrations:
        folder = store.value_folder(value)
        num_anchors[value] = sum(file.rows for file in manifest.files if file.path.startswith(f"{folder}/"))
    return {
        "version": version.build.build_id, "judge": version.details.judge, "values": dict(num_anchors),
        "num_texts": manifest.num_rows, "licenses": version.details.licenses or vidbs.licenses(version),
        "lineage": [source.url for source in manifest.inputs], "created": manifest.created, "valueflow": manifest.code_version,
        "truncated": version.details.truncated,
    }  # fmt: skip


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


def read_texts(argument: str, column: str) -> list[str]:
    """Return the texts of an argument: a text, a file, or - for standard input; rows left out are counted on standard error.

    Raises:
        InputError: the file is missing or unreadable, has no such column, or contains no text.
    """
    if argument == "-":
        items = _lines(sys.stdin.buffer.read(), "standard input")
    elif os.path.isfile(argument):
        is_text = argument.lower().endswith(".txt")
        items = _lines(Path(argument).read_bytes(), argument) if is_text else _cells(argument, column)
    elif os.path.lexists(argument):
        raise InputError(f"{argument!r} is a folder or no plain file; name a file, or send the text to standard input: -")
    elif FILE_NAME.search(argument):
        raise InputError(f"file {argument!r} does not exist")
    else:
        return [one_text(argument)]
    texts, skipped = [], []
    for place, text, error in items:
        error = error or flaw(text) or ("" if text.strip() else "no text")
        if error:
            skipped.append(f"{place}: {error}")
        else:
            texts.append(text)
    if skipped:
        say(f"{len(skipped)} of {len(skipped) + len(texts)} rows left out (first: {skipped[0]})", sys.stderr)
    if not texts:
        raise InputError(f"{argument} holds no text")
    return texts


def one_text(argument: str) -> str:
    """Return a text of the command line; InputError if it cannot be judged."""
    if problem := flaw(argument):
        raise InputError(f"the text {argument[:40]!a} has {problem}")
    return argument


def _lines(content: bytes, name: str) -> Iterator[tuple[str, str, str]]:
    """Location, text and error of each line that is not blank."""
    for number, line in enumerate(decode(content, name).split("\n"), 1):
        if line.strip():
            yield f"{name}:{number}", line, ""


def _cells(path: str, column: str) -> Iterator[tuple[str, str, str]]:
    """Location, text and error of each row of a table."""
    available = columns(path, wanted=[column])
    if column not in available:
        raise InputError(f"{path} has no column {column!r}; set --column to one of: {', '.join(available) or 'none'}")
    for row in rows(path, [column]):
        error = row_error(row, [column])
        yield row.row_id, "" if error else cell(row.fields, column), error


COMMANDS: dict[str, Callable[[Namespace], Coroutine[None, None, int | None]]] = {
    "score": score, "compare": compare, "profile": profile, "extract": extract, "values": values, "vidb": vidb,
    "steer-prompt": steer_prompt, "submit": submit,
}  # fmt: skip
