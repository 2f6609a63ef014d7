"""The shorter commands: read texts, send them to a server or a service in this process, and write the result."""

from argparse import Namespace
from collections import Counter

from valueflow import store
from valueflow.cli import output
from valueflow.cli.backend import backend, dry_run, root_of, scores_of, server_of, settings, sheet
from valueflow.cli.outcome import Outcome
from valueflow.cli.output import Row
from valueflow.cli.texts import one_text, read_texts
from valueflow.client import AsyncClient
from valueflow.client.protocol import flat_row
from valueflow.console import say
from valueflow.errors import InputError
from valueflow.judging.configs import SimulatedJudge
from valueflow.theories import find_theory


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
