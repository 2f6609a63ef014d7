"""Categorize texts by a panel: it descends through every theory until each text has a label or is in the human queue."""

import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field

from valueflow import __version__, store
from valueflow.config import Config, Resources
from valueflow.distributed.answer import AnswerStage, check_answers
from valueflow.distributed.audit import check_panel_admitted, measured_speed
from valueflow.distributed.cluster import ClusterConfig, ordered_results
from valueflow.distributed.panel.chunks import ChunkTexts, chunks_of
from valueflow.distributed.panel.vote import PanelConfig, collect_votes, vote_builds
from valueflow.distributed.warm_pools import warm_pools
from valueflow.errors import InputError
from valueflow.judging.cost import estimate
from valueflow.judging.fingerprint import voter_fingerprint
from valueflow.judging.tasks import VOTE
from valueflow.llm.cost import CostEstimate
from valueflow.records import SCHEMAS, digest
from valueflow.store import BallotsDetails, Build, LabelsDetails, QueueDetails, VotesDetails
from valueflow.theories import resolve_theory, theories
from valueflow.theories.taxonomy import THEORIES
from valueflow.voting.descend import Ballot, DescentConfig, Label, OpenQuestion, ballot_table, step
from valueflow.voting.human import HumanDecision, queue_csv, read_decisions

log = logging.getLogger(__name__)


class CategorizeConfig(Config):
    """Texts, theories and panel of a categorization."""

    root: str = Field(description="folder or URL under which all tables live")
    texts: str = Field("latest", description="build id of the texts; latest: the newest finished ingest")
    sources: list[str] | None = Field(None, description="only texts of these corpora; null: all")
    max_texts: int | None = Field(None, ge=1, description="only this number of texts, the first ones; null: all")
    theories: list[str] = Field(list(THEORIES), min_length=1, description="theory ids or aliases")
    panel: PanelConfig
    descent: DescentConfig = DescentConfig()
    human: list[str] = Field([], description="CSVs of the human queue with the columns node and direction filled in")
    chunk: int = Field(2000, ge=1, description="texts in one task of planning or labelling")
    dry_run: bool = Field(False, description="print the estimated cost of the votes and stop")
    cluster: ClusterConfig = ClusterConfig()


class Categorization(NamedTuple):
    """The builds of a categorization."""

    texts: Build
    votes: dict[str, Build]
    labels: Build
    queue: Build


class _Descents(NamedTuple):
    """What determines the next step of every text: its texts, the votes so far by voter, the settings and the theories."""

    texts: ChunkTexts
    votes: dict[str, Build]
    config: DescentConfig
    theories: list[str]


def categorize(config: CategorizeConfig) -> Categorization:
    """Collect votes level by level until every text has, in every theory, a label or an entry in the human queue.

    Raises:
        InputError: no texts, an unknown theory, a failed voter, or a human decision that cannot be used.
        BudgetSpent: a voter's budget is spent.
    """
    texts, source, chosen = _inputs(config)
    admitted = check_panel_admitted(config.root, config.panel.voters, config.panel.audit)
    recipe = digest(
        __version__, texts.build_id, config.sources, config.max_texts, chosen, config.descent.model_dump(), config.chunk
    )
    votes = vote_builds(config.root, config.panel, recipe)
    human, places = read_decisions(config.human, chosen)
    if config.human and not human:
        log.warning("no row of %s has a node: people decide nothing", ", ".join(config.human))
    output_id = digest(__version__, sorted(votes.values()), digest(sorted(human.items())) if human else "")
    builds = Categorization(texts, votes, Build(config.root, "labels", output_id), Build(config.root, "queue", output_id))
    if store.reusable_together([builds.labels, builds.queue]):
        log.info("categorize: labels %s, done before", builds.labels.build_id)
        return builds
    descents = _Descents(source, votes, config.descent, chosen)
    num_ballots = _collect_all_votes(config, texts, descents, digest(recipe, config.panel.fingerprint()))
    for name, build in votes.items():
        if not store.reusable(build):
            stage = AnswerStage(build, VOTE, 1.0, num_ballots)
            totals = check_answers(stage, num_ballots, 1.0, f"categorize, {name}")
            voter = next(v for v in config.panel.voters if v.name == name)
            settings = {"voter": voter.public(), "fingerprint": voter_fingerprint(voter), "audit": admitted[name]}
            store.commit(build, VotesDetails(**settings, **totals._asdict()), [texts], stage.finish())
    open_questions = _over_chunks("label", _label_chunk, descents, builds.labels, builds.queue, human)
    _check_human(places, open_questions)
    _finish(builds, config, num_ballots)
    return builds


def _collect_all_votes(config: CategorizeConfig, texts: Build, descents: _Descents, plan_id: str) -> int:
    """Plan ballots and collect their votes, step by step, until no text has a further ballot; return the number of ballots."""
    num_ballots = 0
    with warm_pools(config.panel.voters, VOTE):
        plans: list[Build] = []
        for number in itertools.count():
            plan = Build(config.root, "ballots", f"{plan_id}-{number}")
            if not store.reusable(plan):
                _over_chunks(f"plan step {number + 1}", _plan_chunk, descents, plan, plans)
                settings = {"descent": config.descent.public(), "step": number}
                store.commit(plan, BallotsDetails(settings=settings), [texts])
            step_ballots = store.require_manifest(plan).num_rows
            if not step_ballots:
                break
            step_name = f"categorize step {number + 1}"
            collect_votes(config.panel, plan, descents.texts, descents.votes, num_ballots, step_name)
            num_ballots += step_ballots
            plans.append(plan)
    return num_ballots


def dry_run(config: CategorizeConfig) -> list[CostEstimate]:
    """Return cost estimates: for each voter, text and theory one ballot a level and one for the direction, no re-prompts."""
    _, source, chosen = _inputs(config)
    num_texts = sum(chunk.size for chunk in source.chunks)
    first_texts = list(itertools.islice(source(source.chunks[0].folder).items(), 20)) if source.chunks else []
    calls, sample = 0, []
    for name in chosen:
        theory = theories()[name]
        leaves = [node.id for node in theory.nodes if not theory.children(node.id)]
        levels = min(sum(len(theory.paths(leaf)[0]) for leaf in leaves) / len(leaves), config.descent.max_level or math.inf)
        calls += round(num_texts * (levels + 1))
        for text_id, text in first_texts:
            first = step(theory, text_id, {}, config.descent, len(config.panel.voters))
            if isinstance(first, Ballot):
                sample.append(first._asdict() | {"text": text})
    return [estimate(voter, VOTE, sample, calls, measured_speed(config.root, voter)) for voter in config.panel.voters]


def _inputs(config: CategorizeConfig) -> tuple[Build, ChunkTexts, list[str]]:
    """Return the ingested texts, their chunks and the ids of the theories."""
    texts = store.ingested(config.root, config.texts)
    source = ChunkTexts(texts, tuple(chunks_of(texts, config.chunk, config.max_texts)), tuple(config.sources or ()))
    return texts, source, [resolve_theory(name) for name in dict.fromkeys(config.theories)]


def _over_chunks(what: str, task: Callable[..., object], descents: _Descents, *args: object) -> list[Any]:
    """Run a task on every chunk; return its results, which must be small."""
    remote = ray.remote(task).options(num_cpus=1)
    shared = ray.put(descents)
    tasks = [remote.remote(shared, chunk.number, *args) for chunk in descents.texts.chunks]
    return ordered_results(what, tasks, Resources(1))


def _steps(descents: _Descents, number: int, plans: Sequence[Build] | None = None) -> Iterator[Ballot | Label | OpenQuestion]:
    """Return the next step of each text of a chunk in each theory, after the votes on all plans or on these."""
    folder = descents.texts.chunks[number].folder
    votes = _read_votes(descents.votes, folder, plans)
    for theory in descents.theories:
        for text_id in descents.texts(folder):
            text_votes = votes.get((text_id, theory), {})
            yield step(theories()[theory], text_id, text_votes, descents.config, len(descents.votes))


def _read_votes(
    votes: dict[str, Build], folder: str, plans: Sequence[Build] | None
) -> dict[tuple[str, str], dict[tuple[str, str, int], list[str | None]]]:
    """Return (text id, theory) -> (kind, node, vote round) -> the choice of each voter, None for a failed vote."""
    names = ["text_id", "theory", "kind", "node", "round", "choice"]
    parts = [store.read_part(plan, path, ["ballot_id"]) for plan in plans or () for path in store.part_paths(plan, folder)]
    planned = pa.array([i for part in parts for i in part["ballot_id"].to_pylist()], pa.string())
    choices: dict[tuple[str, str], dict[tuple[str, str, int], list[str | None]]] = {}
    for voter, build in enumerate(votes.values()):
        for path in store.part_paths(build, folder):
            part = store.read_part(build, path, [*names, "ballot_id"])
            if plans is not None:
                part = part.filter(pc.is_in(part["ballot_id"], planned))
            for text_id, theory, kind, node, round_, choice in zip(*(part[n].to_pylist() for n in names), strict=True):
                ballot = choices.setdefault((text_id, theory), {}).setdefault((kind, node, round_), [None] * len(votes))
                ballot[voter] = choice
    return choices


def _plan_chunk(descents: _Descents, number: int, out: Build, plans: list[Build]) -> None:
    """Write a chunk's ballots of the step after these plans; later votes are there where a lost plan is made again."""
    ballots = [next_ for next_ in _steps(descents, number, plans) if isinstance(next_, Ballot)]
    if ballots:
        store.write_part(out, ballot_table(ballots), "0", descents.texts.chunks[number].folder)


def _label_chunk(
    descents: _Descents, number: int, labels: Build, queue: Build, human: dict[tuple[str, str], HumanDecision]
) -> list[tuple[str, str]]:
    """Write a chunk's labels and its rows of the human queue; return (text id, theory) of all open questions."""
    folder = descents.texts.chunks[number].folder
    texts = descents.texts(folder)
    results: list[Label] = []
    queued: list[OpenQuestion] = []
    open_questions: list[tuple[str, str]] = []
    for outcome in _steps(descents, number):
        if isinstance(outcome, OpenQuestion):
            open_questions.append((outcome.text_id, outcome.theory))
            decision = human.get((outcome.text_id, outcome.theory))
            if decision is None:
                queued.append(outcome)
            else:
                results.append(_human_label(outcome, decision))
        elif isinstance(outcome, Label):
            results.append(outcome)
    if results:
        rows = [label._asdict() | {"path": list(label.path), "paths": [list(p) for p in label.paths]} for label in results]
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
    return open_questions


def _human_label(question: OpenQuestion, decision: HumanDecision) -> Label:
    """Return a person's label; of several paths to the node, one that continues the panel's path if there is one."""
    paths = theories()[question.theory].paths(decision.node) if decision.node else []
    path = next((p for p in paths if p[: len(question.path)] == question.path), paths[0] if paths else ())
    return Label(question.text_id, question.theory, path, paths, decision.direction, "human", 0.0, False)


def _check_human(places: dict[tuple[str, str], str], open_questions: list[list[tuple[str, str]]]) -> None:
    """Check that every human decision answers an open question.

    Raises:
        InputError: a decision about a text that is not in the queue.
    """
    waiting = {pair for chunk in open_questions for pair in chunk}
    unknown = [key for key in places if key not in waiting]
    if unknown:
        text_id, theory = unknown[0]
        raise InputError(
            f"{places[unknown[0]]} has a decision on text {text_id} in {theory}, which is not in this job's human queue "
            f"({len(unknown)} such rows, {len(waiting)} open questions); fill in the CSV that this configuration wrote"
        )


def _finish(builds: Categorization, config: CategorizeConfig, ballots: int) -> None:
    """Write the queue as CSV, commit the queue, then the labels."""
    parts = [store.read_part(builds.queue, path) for path in store.part_paths(builds.queue)]
    rows = pa.concat_tables(parts) if parts else SCHEMAS["queue"].empty_table()
    store.write_for_people(f"{builds.queue.url}/human_queue.csv", queue_csv(rows).encode())
    store.commit(builds.queue, QueueDetails(texts=rows.num_rows), [builds.texts])
    decisions: Counter[str] = Counter()
    for path in store.part_paths(builds.labels):
        decisions.update(store.read_part(builds.labels, path, ["decision"])["decision"].to_pylist())
    details = LabelsDetails(
        resolved=config.public(), votes={name: build.build_id for name, build in builds.votes.items()}, ballots=ballots,
        queued=rows.num_rows, decisions=dict(sorted(decisions.items())),
    )  # fmt: skip
    store.commit(builds.labels, details, [builds.texts, *builds.votes.values()])
