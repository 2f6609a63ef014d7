"""What the commands of `valueflow.cli.main` do: read texts, ask a server or a service in this process, show the answer."""

import contextlib
import functools
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm
from yaml import YAMLError

from valueflow import api, store
from valueflow.cli import output
from valueflow.cli.options import FORMATS, ROOT
from valueflow.cli.output import Lines, Row, Sheet
from valueflow.client import AsyncClient, Settings
from valueflow.client.protocol import SERVER_ENV, Line, ValueFlowError, fitting, flat
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, JudgeConfig, SimulatedJudge
from valueflow.records import UNDECODABLE
from valueflow.tabular import KINDS, cell, columns, rows

if TYPE_CHECKING:
    from valueflow.service.service import Service

ROOT_ENV = "VALUEFLOW_ROOT"
SETTINGS = ("mode", "k", "m", "sampling", "seed")


class Local:
    """A service in this process, asked as `AsyncClient` asks a server; loaded once a request is known to be well formed."""

    def __init__(self, root: str, version: str, judge: AnyJudge | None, fast: bool) -> None:
        self.root, self.version, self.judge, self.fast = root, version, judge, fast

    @functools.cached_property
    def service(self) -> "Service":
        """The service."""
        from valueflow.service import local

        return local.local(self.root, self.version, self.judge, self.fast)

    def stream(self, texts: list[str], values: list[str], **settings: Any) -> AsyncIterator[Line]:
        """Yield a start, scores and an end."""
        body = fitting(api.StreamRequest, {"texts": texts, "values": values, **settings})
        return self.service.stream(body, "local")

    async def compare(self, first: str, second: str, values: list[str], **settings: Any) -> api.CompareResponse:
        """Return which of two texts expresses each value more."""
        body = fitting(api.CompareRequest, {"first": first, "second": second, "values": values, **settings})
        return await self.service.compare(body, "local")

    async def profile(self, texts: list[str], values: list[str], **settings: Any) -> api.ProfileResponse:
        """Return the values of a person or group."""
        body = fitting(api.ProfileRequest, {"texts": texts, "values": values, **settings})
        return await self.service.profile(body, "local")

    async def extract(self, texts: list[str], theories: list[str] | None, top: int) -> api.ExtractResponse:
        """Return the nodes that texts may express."""
        body = fitting(api.ExtractRequest, {"texts": texts, "theories": theories, "top": top})
        return await self.service.extract(body, "local")

    async def theories(self) -> api.TheoriesResponse:
        """Return the theories and their nodes."""
        return self.service.theories()

    async def value(self, value: str) -> api.ValueResponse:
        """Return what a value means."""
        return self.service.value(value)


async def score(asked: Namespace) -> None:
    """Score texts, and write each score as soon as it is there."""
    texts = read_texts(asked.texts, asked.column)
    async with backend(asked) as asks:
        with sheet(asked, output.scores) as out, progress(len(texts), asked) as bar:
            async for line in asks.stream(texts, asked.value or ["all"], **settings(asked)):
                if isinstance(line, api.StreamStart):
                    out.made = line.model_dump(exclude={"type", "num_scores"})
                elif isinstance(line, api.StreamScore):
                    out.add(flat(line, texts))
                    bar.update(line.index - bar.n)
                elif line.problem:
                    raise ValueFlowError(f"{line.problem.title}: {line.problem.detail}", line.problem)


async def compare(asked: Namespace) -> None:
    """Tell for each value which of two texts expresses it more."""
    async with backend(asked) as asks:
        answer = await asks.compare(asked.first, asked.second, asked.value or ["all"], **settings(asked))
    with sheet(asked, output.comparisons) as out:
        out.made = answer.model_dump(exclude={"comparisons"})
        for compared in answer.comparisons:
            sides = {"first": compared.first, "second": compared.second}
            named = {
                f"{side}_{name}": getattr(scored, name)
                for side, scored in sides.items()
                for name in ("intensity", "low", "high", "num_windows", "num_failed", "error")
            }
            out.add({"value": compared.value, "probability": compared.probability, **named})


async def profile(asked: Namespace) -> None:
    """Show the mean intensity of values over texts."""
    texts = read_texts(asked.texts, asked.column)
    async with backend(asked) as asks:
        answer = await asks.profile(texts, asked.value or ["all"], **settings(asked))
    with sheet(asked, output.profiles) as out:
        out.made = answer.model_dump(exclude={"profile"})
        for profiled in answer.profile:
            out.add(profiled.model_dump())


async def extract(asked: Namespace) -> None:
    """Show the nodes that texts may express."""
    texts = read_texts(asked.texts, asked.column)
    async with backend(asked) as asks:
        answer = await asks.extract(texts, asked.theory, asked.top)
    with sheet(asked, output.nodes) as out:
        out.made = answer.model_dump(exclude={"texts"})
        for found in answer.texts:
            for node in found.nodes:
                out.add({"index": found.index, "text": texts[found.index], **node.model_dump(), "path": " > ".join(node.path)})


async def values(asked: Namespace) -> None:
    """Show all values, those of a theory, or one with its place and examples."""
    # Nobody is asked to judge: the judge that needs nothing will do.
    async with backend(asked, SimulatedJudge()) as asks:
        theories = (await asks.theories()).theories
        shown = [theory for theory in theories if asked.name in (None, theory.id)]
        meaning = None if shown else await asks.value(asked.name)
    with sheet(asked, output.meaning if meaning else output.definitions) as out:
        if meaning:
            out.made = meaning.model_dump(exclude={"examples"})
            for anchor in meaning.examples:
                out.add(anchor.model_dump())
        for theory in shown:
            for node in theory.nodes:
                out.add(node.model_dump(include={"id", "name", "scored", "definition"}))


async def vidb(asked: Namespace) -> None:
    """List the finished versions, or show one."""
    await {"list": _versions, "show": _version}[asked.action](asked)


async def _versions(asked: Namespace) -> None:
    root = root_of(asked)
    published = store.current(root).version
    with sheet(asked, output.versions) as out:
        for version in store.finished(root, "vidb"):
            made = store.require_manifest(store.Build(root, "vidb", version))
            details = made.details(store.VidbDetails)
            out.add(
                {
                    "version": version, "created": made.created[:19], "texts": made.num_rows,
                    "values": len(details.calibrations), "judge": details.judge,
                    "current": "current" if version == published else "",
                }
            )  # fmt: skip


async def _version(asked: Namespace) -> None:
    if url := server_of(asked):
        async with AsyncClient(url) as client:
            answer = (await client.vidb()).model_dump()
        if asked.version not in (None, answer["version"]):
            raise InputError(
                f"the server uses VIDB {answer['version']}, not {asked.version}; give --root to look there instead"
            )
    else:
        answer = _described(root_of(asked), asked.version or "current")
    with sheet(asked, output.version) as out:
        out.made = {name: content for name, content in answer.items() if name != "values"}
        for value, number in answer["values"].items():
            out.add({"value": value, "anchors": number})


def _described(root: str, name: str) -> Row:
    """A version in the words of api.VidbResponse, as far as they do not speak of a server."""
    from valueflow import vidb as vidbs

    version = vidbs.load(root, name)
    made = version.manifest
    numbers: Counter[str] = Counter()
    for value in version.calibrations:
        folder = store.value_folder(value)
        numbers[value] = sum(file.rows for file in made.files if file.path.startswith(f"{folder}/"))
    return {
        "version": version.build.build_id, "judge": version.details.judge, "values": dict(numbers),
        "num_texts": made.num_rows, "licenses": version.details.licenses or vidbs.licenses(version),
        "lineage": [source.url for source in made.inputs], "created": made.created, "valueflow": made.code_version,
    }  # fmt: skip


def server_of(asked: Namespace) -> str:
    """Return the server to ask, "" for none: what is said on the command line goes before the environment."""
    here = [f"--{name}" for name in ("root", "vidb", "judge") if getattr(asked, name, None)]
    if asked.server and here:
        raise InputError(f"{here[0]} is for work in this process, --server {asked.server} for a server's; leave one out")
    return asked.server or ("" if here else os.environ.get(SERVER_ENV, ""))


def root_of(asked: Namespace) -> str:
    """Return the folder of tables for work in this process."""
    return asked.root or os.environ.get(ROOT_ENV) or ROOT


@contextlib.asynccontextmanager
async def backend(asked: Namespace, judge: AnyJudge | None = None) -> AsyncIterator[AsyncClient | Local]:
    """Give the server, or a service in this process with the judge of --judge, else `judge`."""
    if url := server_of(asked):
        async with AsyncClient(url) as client:
            yield client
    else:
        fast = getattr(asked, "mode", None) == "fast"
        yield Local(root_of(asked), asked.vidb or "current", read_judge(asked.judge) if asked.judge else judge, fast)


def settings(asked: Namespace) -> Settings:
    """Return how texts are scored, as far as the command line says."""
    return cast(Settings, {name: value for name in SETTINGS if (value := getattr(asked, name)) is not None})


@contextlib.contextmanager
def sheet(asked: Namespace, lines: Lines) -> Iterator[Sheet]:
    """Give the sheet that rows go to: the file of --output, else standard output."""
    kind = kind_of(asked)
    if not asked.output:
        with Sheet(kind, sys.stdout, lines) as out:
            yield out
    else:
        with open(asked.output, "w", encoding="utf-8", newline="") as file, Sheet(kind, file, lines) as out:
            yield out


def kind_of(asked: Namespace) -> str:
    """Return the format of the output; InputError where the name of the file does not tell it."""
    ending = (asked.output or "x.txt").rpartition(".")[2].lower()
    if asked.format or ending in FORMATS:
        return asked.format or ending
    if ending != "txt":
        raise InputError(f"--output {asked.output} does not tell the format: give --format {'|'.join(FORMATS)}")
    return "table"


def progress(num_texts: int, asked: Namespace) -> tqdm:
    """Return a bar on standard error: for people, and where it does not run through the rows."""
    mixed = kind_of(asked) in ("csv", "jsonl") and not asked.output and sys.stdout.isatty()
    return tqdm(total=num_texts, unit=" texts", leave=False, disable=num_texts < 2 or mixed or not sys.stderr.isatty())


def read_judge(path: str) -> AnyJudge:
    """Return the judge of a YAML file: a judge itself, or a config that has one.

    Raises:
        InputError: there is no such file, or no judge in it.
    """
    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        given = found.get("judge", found) if isinstance(found, dict) else found
        judge: AnyJudge = TypeAdapter(JudgeConfig).validate_python(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(['judge', *map(str, wrong['loc'])])}: {wrong['msg']}") from None
    except (OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no config of a judge: {error}") from None
    return judge


def read_texts(named: str, column: str) -> list[str]:
    """Return the texts that an argument stands for; what is left out is counted on standard error.

    Raises:
        InputError: the file is missing or not readable, has no such column, or holds no text.
    """
    if named == "-":
        found = _lines(sys.stdin.buffer.read(), "standard input")
    elif os.path.isfile(named):
        found = _lines(Path(named).read_bytes(), named) if named.lower().endswith(".txt") else _cells(named, column)
    elif named.lower().endswith(tuple(f".{kind}" for kind in (*KINDS, "txt"))) and len(named.split()) == 1:
        raise InputError(f"file {named!r} does not exist")
    else:
        return [named]
    texts, left_out = [], []
    for place, text, error in found:
        error = error or ("bytes that are not UTF-8" if UNDECODABLE.search(text) else "" if text.strip() else "no text")
        if error:
            left_out.append(f"{place}: {error}")
        else:
            texts.append(text)
    if left_out:
        print(f"{len(left_out)} of {len(left_out) + len(texts)} rows left out (first: {left_out[0]})", file=sys.stderr)
    if not texts:
        raise InputError(f"{named} holds no text")
    return texts


def _lines(content: bytes, name: str) -> Iterator[tuple[str, str, str]]:
    """Place, text and error of each line that is not blank."""
    for number, line in enumerate(content.decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        if line.strip():
            yield f"{name}:{number}", line.rstrip("\r"), ""


def _cells(path: str, column: str) -> Iterator[tuple[str, str, str]]:
    """Place, text and error of each row of a table."""
    there = columns(path)
    if column not in there:
        raise InputError(f"{path} has no column {column!r}; name one of {', '.join(there) or 'none'} with --column")
    for row in rows(path, [column]):
        try:
            yield row.row_id, cell(row.fields, column), row.error
        except InputError as error:
            yield row.row_id, "", str(error)


COMMANDS: dict[str, Callable[[Namespace], Coroutine[None, None, None]]] = {
    "score": score, "compare": compare, "profile": profile, "extract": extract, "values": values, "vidb": vidb,
}  # fmt: skip
