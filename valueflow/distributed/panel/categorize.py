"""Categorize texts by a panel: step by step down every theory, until each text has a label or waits for a human."""

import functools
import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.answer import check_answers
from valueflow.distributed.audit import check_panel_admitted, measured_speed
from valueflow.distributed.cluster import ClusterConfig
from valueflow.distributed.judge import warm_pools
from valueflow.distributed.panel.vote import PanelConfig, collect_votes, vote_builds
from valueflow.errors import InputError
from valueflow.judging.fingerprint import voter_fingerprint
from valueflow.judging.tasks import VOTE
from valueflow.llm.cost import CostEstimate, estimate
from valueflow.records import SCHEMAS, digest
from valueflow.store import BallotsDetails, Build, LabelsDetails, QueueDetails, VotesDetails
from valueflow.theories import resolve_theory, theories
from valueflow.theories.taxonomy import THEORIES
from valueflow.voting.descend import Ballot, DescentConfig, Label, OpenQuestion, ballot_table, step
from valueflow.voting.human import HumanDecision, queue_csv, read_decisions

log = logging.getLogger(__name__)


class CategorizeConfig(Config):
    """Which texts are labelled, with which theories, by whom."""

    root: str = Field(description="folder or URL under which all tables live")
    texts: str = Field("latest", description="build id of the texts; latest: the newest finished ingest")
    sources: list[str] | None = Field(None, description="only texts of these corpora; null: all")
    max_texts: int | None = Field(None, ge=1, description="only the first so many")
    theories: list[str] = Field(list(THEORIES), min_length=1, description="theories by any spelling")
    panel: PanelConfig
    descent: DescentConfig = DescentConfig()
    human: list[str] = Field([], description="CSVs of the human queue with the columns node and direction filled in")
    chunk: int = Field(2000, ge=1, description="texts that one task plans and labels together")
    dry_run: bool = Field(False, description="print what the votes will take, ask nothing")
    cluster: ClusterConfig = ClusterConfig()


class Categorized(NamedTuple):
    """Where everything is."""

    texts: Build
    votes: dict[str, Build]
    labels: Build
    queue: Build


class TextChunk(NamedTuple):
    """Some rows of one part of the texts: the unit that a task plans and labels."""

    path: str
    start: int
    size: int
    number: int

    @property
    def folder(self) -> str:
        """Where the chunk's ballots, votes and labels lie."""
        return f"chunk={self.number:05d}"


class ChunkTexts(NamedTuple):
    """Texts of a chunk by id, kept per worker process."""

    texts: Build
    chunks: tuple[TextChunk, ...]
    sources: tuple[str, ...]

    def __call__(self, folder: str) -> dict[str, str]:
        """Return text by id."""
        return _texts_of(self, int(folder.partition("=")[2]))


@functools.lru_cache(maxsize=16)
def _texts_of(where: ChunkTexts, number: int) -> dict[str, str]:
    chunk = where.chunks[number]
    rows = store.read_part(where.texts, chunk.path, ["text_id", "text", "source"]).slice(chunk.start, chunk.size)
    if where.sources:
        rows = rows.filter(pc.is_in(rows["source"], pa.array(where.sources, pa.string())))
    return dict(zip(rows["text_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def chunks_of(texts: Build, size: int, max_texts: int | None) -> list[TextChunk]:
    """Return the chunks of a build of texts, in the order of its files."""
    found: list[TextChunk] = []
    left = max_texts or store.require_manifest(texts).num_rows
    for file in store.require_manifest(texts).files:
        for start in range(0, file.rows, size):
            take = min(size, file.rows - start, left)
            if take > 0:
                found.append(TextChunk(file.path, start, take, len(found)))
                left -= take
    return found


def categorize(config: CategorizeConfig) -> Categorized:
    """Ask the panel level by level until every text has a label in every theory or stands in the human queue.

    Raises:
        InputError: no texts, an unknown theory, a dead voter, a spent budget, or a human decision that cannot be used.
    """
    texts, where, chosen = _inputs(config)
    admitted = check_panel_admitted(config.root, config.panel.voters, config.panel.audit)
    asked = digest(
        __version__, texts.build_id, config.sources, config.max_texts, chosen, config.descent.model_dump(), config.chunk
    )
    votes = vote_builds(config.root, config.panel, asked)
    human: dict[tuple[str, str], HumanDecision] = {}
    for url in config.human:
        human |= read_decisions(url, chosen)
    made_of = digest(__version__, sorted(votes.values()), digest(sorted(human.items())) if human else "")
    labels, queue = Build(config.root, "labels", made_of), Build(config.root, "queue", made_of)
    at = Categorized(texts, votes, labels, queue)
    if store.manifest(labels):
        log.info("categorize: labels %s, done before", labels.build_id)
        return at
    before = 0
    with warm_pools(config.panel.voters, VOTE):
        for number in itertools.count():
            plan = Build(config.root, "ballots", f"{digest(asked, config.panel.fingerprint())}-{number}")
            if not store.manifest(plan):
                _over_chunks(_plan_chunk, where, votes, config.descent, chosen, plan)
                settings = {"descent": config.descent.model_dump(), "step": number}
                store.commit(plan, BallotsDetails(settings=settings), [texts])
            ballots = store.require_manifest(plan).num_rows
            if not ballots:
                break
            collect_votes(config.panel, plan, where, votes, before, f"categorize step {number + 1}")
            before += ballots
    for name, build in votes.items():
        if not store.manifest(build):
            totals = check_answers(build, VOTE, before, 1.0, f"categorize, {name}")
            voter = next(v for v in config.panel.voters if v.name == name)
            settings = {"voter": voter.public(), "fingerprint": voter_fingerprint(voter), "audit": admitted[name]}
            store.commit(build, VotesDetails(**settings, **totals._asdict()), [texts])
    undecided = _over_chunks(_label_chunk, where, votes, config.descent, chosen, labels, queue, human)
    _check_human(human, undecided, ", ".join(config.human))
    _finish(at, config, before)
    return at


def dry_run(config: CategorizeConfig) -> list[CostEstimate]:
    """Return what the votes will take: one ballot a voter, theory and level and one for the direction, without re-prompts."""
    _, where, chosen = _inputs(config)
    number = sum(chunk.size for chunk in where.chunks)
    known = list(itertools.islice(where(where.chunks[0].folder).items(), 20)) if where.chunks else []
    calls, sample = 0, []
    for name in chosen:
        theory = theories()[name]
        leaves = [node.id for node in theory.nodes if not theory.children(node.id)]
        levels = min(sum(len(theory.paths(leaf)[0]) for leaf in leaves) / len(leaves), config.descent.max_level or math.inf)
        calls += round(number * (levels + 1))
        for text_id, text in known:
            first = step(theory, text_id, {}, config.descent, len(config.panel.voters))
            if isinstance(first, Ballot):
                sample.append(first._asdict() | {"text": text})
    return [estimate(voter, VOTE, sample, calls, measured_speed(config.root, voter)) for voter in config.panel.voters]


def _inputs(config: CategorizeConfig) -> tuple[Build, ChunkTexts, list[str]]:
    """The ingested texts, as chunks, and the ids of the theories asked."""
    texts = store.ingested(config.root, config.texts)
    where = ChunkTexts(texts, tuple(chunks_of(texts, config.chunk, config.max_texts)), tuple(config.sources or ()))
    return texts, where, [resolve_theory(name) for name in dict.fromkeys(config.theories)]


def _over_chunks(task: Callable[..., object], where: ChunkTexts, *args: object) -> list[Any]:
    """Run a task on every chunk; what it returns is small."""
    remote = ray.remote(task).options(num_cpus=1)
    shared = ray.put(where)
    return ray.get([remote.remote(shared, chunk.number, *args) for chunk in where.chunks])


def _steps(
    where: ChunkTexts, number: int, votes: dict[str, Build], descent: DescentConfig, chosen: list[str]
) -> Iterator[Ballot | Label | OpenQuestion]:
    """What comes next for each text of a chunk in each theory."""
    folder = where.chunks[number].folder
    said = _votes_on(votes, folder)
    for theory in chosen:
        for text_id in where(folder):
            yield step(theories()[theory], text_id, said.get((text_id, theory), {}), descent, len(votes))


def _votes_on(votes: dict[str, Build], folder: str) -> dict[tuple[str, str], dict[tuple[str, str, int], list[str | None]]]:
    """(text, theory) -> (kind, node, round) -> the choice of each voter, None where it is broken."""
    names = ["text_id", "theory", "kind", "node", "round", "choice"]
    said: dict[tuple[str, str], dict[tuple[str, str, int], list[str | None]]] = {}
    for place, build in enumerate(votes.values()):
        for path in store.part_paths(build, folder):
            part = store.read_part(build, path, names)
            for text_id, theory, kind, node, round_, choice in zip(*(part[n].to_pylist() for n in names), strict=True):
                ballot = said.setdefault((text_id, theory), {}).setdefault((kind, node, round_), [None] * len(votes))
                ballot[place] = choice
    return said


def _plan_chunk(
    where: ChunkTexts, number: int, votes: dict[str, Build], descent: DescentConfig, chosen: list[str], out: Build
) -> None:
    ballots = [next_ for next_ in _steps(where, number, votes, descent, chosen) if isinstance(next_, Ballot)]
    if ballots:
        store.write_part(out, ballot_table(ballots), "0", where.chunks[number].folder)


def _label_chunk(
    where: ChunkTexts, number: int, votes: dict[str, Build], descent: DescentConfig, chosen: list[str],
    labels: Build, queue: Build, human: dict[tuple[str, str], HumanDecision],
) -> list[tuple[str, str]]:  # fmt: skip
    """Write a chunk's labels and its share of the human queue; return what the panel left undecided."""
    folder = where.chunks[number].folder
    texts = where(folder)
    labelled: list[Label] = []
    queued: list[OpenQuestion] = []
    undecided: list[tuple[str, str]] = []
    for found in _steps(where, number, votes, descent, chosen):
        if isinstance(found, OpenQuestion):
            undecided.append((found.text_id, found.theory))
            decision = human.get((found.text_id, found.theory))
            if decision is None:
                queued.append(found)
            else:
                labelled.append(_decided(found, decision))
        elif isinstance(found, Label):
            labelled.append(found)
    if labelled:
        rows = [label._asdict() | {"path": list(label.path), "paths": [list(p) for p in label.paths]} for label in labelled]
        store.write_part(labels, pa.Table.from_pylist(rows, SCHEMAS["labels"]), "0", folder)
    if queued:
        rows = [
            {
                "text_id": q.text_id, "text": texts[q.text_id], "theory": q.theory, "path": list(q.path), "kind": q.kind,
                "asked": q.node, "options": list(q.options), "counts": json.dumps(q.counts),
            }
            for q in queued
        ]  # fmt: skip
        store.write_part(queue, pa.Table.from_pylist(rows, SCHEMAS["queue"]), "0", folder)
    return undecided


def _decided(open_: OpenQuestion, decision: HumanDecision) -> Label:
    """A person's label; of several paths the one that goes on from where the panel stopped."""
    paths = theories()[open_.theory].paths(decision.node) if decision.node else []
    path = next((p for p in paths if p[: len(open_.path)] == open_.path), paths[0] if paths else ())
    return Label(open_.text_id, open_.theory, path, paths, decision.direction, "human", 0.0, False)


def _check_human(human: dict[tuple[str, str], HumanDecision], undecided: list[list[tuple[str, str]]], urls: str) -> None:
    waiting = {pair for chunk in undecided for pair in chunk}
    unknown = sorted(set(human) - waiting)
    if unknown:
        raise InputError(
            f"{urls} decides text {unknown[0][0]} in {unknown[0][1]}, which is not in this job's human queue "
            f"({len(unknown)} such rows, {len(waiting)} texts wait); use the CSV that this configuration wrote"
        )


def _finish(at: Categorized, config: CategorizeConfig, ballots: int) -> None:
    """Commit the queue, its CSV beside it, then the labels."""
    waiting = [store.read_part(at.queue, path) for path in store.part_paths(at.queue)]
    rows = pa.concat_tables(waiting) if waiting else SCHEMAS["queue"].empty_table()
    store.write_bytes(f"{at.queue.url}/human_queue.csv", queue_csv(rows).encode())
    store.commit(at.queue, QueueDetails(texts=rows.num_rows), [at.texts])
    decisions: Counter[str] = Counter()
    for path in store.part_paths(at.labels):
        decisions.update(store.read_part(at.labels, path, ["decision"])["decision"].to_pylist())
    details = LabelsDetails(
        resolved=config.public(), votes={name: build.build_id for name, build in at.votes.items()}, ballots=ballots,
        queued=rows.num_rows, decisions=dict(sorted(decisions.items())),
    )  # fmt: skip
    store.commit(at.labels, details, [at.texts, *at.votes.values()])
