"""Steer models: put queries under conditions to each, commit the replies, and export them for the evaluation."""

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import __version__, store, vidb
from valueflow.distributed.answer import AnswerStage, AnswerTotals, check_answers, collect_answers
from valueflow.distributed.cluster import ordered_results, stage_tasks
from valueflow.distributed.commit import Done
from valueflow.distributed.steering.generate_config import SteerConfig
from valueflow.distributed.steering.generate_export import export_responses
from valueflow.distributed.steering.generate_votes import judged_outcomes
from valueflow.judging.fingerprint import voter_fingerprint
from valueflow.llm.configs import EndpointModel
from valueflow.llm.question import Task
from valueflow.prompts.render import prompt_hash
from valueflow.records import ValueId, digest
from valueflow.steering.conditions import Condition, Exemplar, conditions
from valueflow.steering.generation import Answers, AnyGenerator, generation_task, generator_fingerprint
from valueflow.steering.model_checks import check_engine, check_system_role, refused_fields, rendered, warn_of_added_text
from valueflow.steering.plan import Plan, plan_hash
from valueflow.steering.queries import read_queries
from valueflow.steering.wording import wording_hash
from valueflow.store import Build, File, GenerationsDetails
from valueflow.theories import expand, operational
from valueflow.vidb.candidates import ALL
from valueflow.vidb.version import Vidb

log = logging.getLogger(__name__)
USUAL_LENGTH = 90  # characters of a text of a version
BLOCKS = 200  # of a dataset of chunks: its size does not grow with the plan


class Study(NamedTuple):
    """What all models of a job share.

    hash: of queries, conditions, wording and sampling.
    version: whose texts the prompts show; None where they show none.
    """

    plan: Plan
    values: list[ValueId]
    hash: str
    version: Build | None


class SteerResult(NamedTuple):
    """The finished builds of generations, and the files of each for jobs/evaluate, by model."""

    builds: dict[str, Build]
    exports: dict[str, str]


def study(config: SteerConfig) -> Study:
    """Return the plan of a job, without its models.

    Raises:
        InputError: no query, an unknown value, a value without wording, or a version without texts of a value or level.
    """
    settings = config.conditions
    queries = tuple(read_queries(config.queries, config.max_queries))
    values = list(operational()) if settings.values == ALL else expand(settings.values)
    pairs = [(first, second) for first, second in (expand(pair) for pair in settings.pairs)]
    profiles = [{expand([v])[0]: level for v, level in profile.values.items()} for profile in settings.profiles]
    version, exemplars = None, None
    if settings.needs_vidb and config.dry_run and store.current(config.root).version is None:
        log.warning("steer: nothing is published under %s; prompts are counted with texts of usual length", config.root)
        exemplars = _usual_exemplars
    elif settings.needs_vidb:
        version = vidb.load(config.root, settings.exemplars.vidb)
        exemplars = functools.cache(functools.partial(_exemplars, version))
    found = tuple(conditions(settings, values, pairs, profiles, exemplars))
    plan = Plan("", found, queries, config.replicates, config.sampling, settings.instruction)
    alone = values if not settings.regimes or {"intensity_anchor", "user_texts"} & set(settings.regimes) else []
    about = list(dict.fromkeys([*alone, *(v for pair in pairs for v in pair), *(v for p in profiles for v in p)]))
    return Study(plan, about, plan_hash(plan, wording_hash()), version.build if version else None)


def _exemplars(version: Vidb, value: ValueId) -> list[Exemplar]:
    version.anchors(value)  # refuses a value that it does not hold
    rows = store.read_table(version.build, ["text_id", "text", "intensity"], store.value_folder(value))
    return [Exemplar(**row) for row in rows.to_pylist()]


def _usual_exemplars(_: ValueId) -> list[Exemplar]:
    """Texts as long as those of a usual version, some in each bin of the intensity; for an estimate without a version."""
    bins = [(level, n) for level in (-8.0, -4.5, 4.5, 8.0) for n in range(20)]
    return [Exemplar(f"{level:+.1f} {n:02d}", "x" * USUAL_LENGTH, level) for level, n in bins]


def plan_of(config: SteerConfig, model: AnyGenerator, of: Study) -> Plan:
    """Return the plan of one model: without conditions in the system turn where it has none."""
    system = model.name not in config.user_turn_only
    allowed: tuple[Condition, ...] = tuple(c for c in of.plan.conditions if system or c.turn == "user")
    return of.plan._replace(model=generator_fingerprint(model), conditions=allowed)


def steer(config: SteerConfig) -> SteerResult:
    """Answer the plan by every model and return the builds; finished ones are reused, unfinished ones resumed.

    Raises:
        InputError: a setting or input is wrong, a model refuses system turns, too many calls failed, or a budget is spent.
    """
    of, builds, exports = study(config), {}, {}
    for model in config.models:
        check_engine(model)
        check_system_role(model, plan_of(config, model, of).conditions)
    for model in config.models:
        builds[model.name] = out = _answered(config, model, of)
        exports[model.name] = store.details_of(out, GenerationsDetails).export
    return SteerResult(builds, exports)


def _answered(config: SteerConfig, model: AnyGenerator, of: Study) -> Build:
    refused: dict[str, str] = {}
    if isinstance(model, EndpointModel):
        refused = refused_fields(model, config.sampling, store.cache_url(config.root), _has_system(plan_of(config, model, of)))
        model = model.model_copy(update={"refused_fields": sorted({*model.refused_fields, *refused})})
    plan = plan_of(config, model, of)
    judge = [voter_fingerprint(config.outcome_judge), prompt_hash("outcome")] if config.outcome_judge else []
    out = Build(config.root, "generations", digest(__version__, of.hash, plan.model, _turns(plan), *judge))
    if store.reusable(out):
        log.info("steer, %s: done before", model.name)
        return out
    prompts = rendered(model, plan)
    warn_of_added_text(model, prompts)
    task = generation_task(Answers(plan, wording_hash()))
    stage, what = AnswerStage(out, task, config.max_error_share, plan.num_rows), f"steer, {model.name}"
    collect_answers(model, stage, functools.partial(_questions, plan, task), plan.num_rows, what)
    totals = check_answers(stage, plan.num_rows, config.max_error_share, what)
    files = stage.finish()
    if config.outcome_judge:
        files = judged_outcomes(config.outcome_judge, out, files, config.max_error_share, what)
    export = export_responses(out, files, plan, of.values)
    details = _details(config, model, of, totals, files, out, refused=refused, prompts=prompts, export=export)
    store.commit(out, details, [*config.queries, *([of.version] if of.version else [])], files)
    return out


def _has_system(plan: Plan) -> bool:
    return any(condition.turn == "system" for condition in plan.conditions)


def _turns(plan: Plan) -> list[str]:
    return sorted({condition.turn for condition in plan.conditions})


def _questions(plan: Plan, task: Task, done: Done) -> Dataset:
    """The rows of the plan without a reply, made chunk by chunk where they are needed."""
    chunks = ray.data.range(plan.num_chunks, override_num_blocks=min(plan.num_chunks, BLOCKS))
    return chunks.map_batches(
        _open_rows,
        fn_kwargs={"plan": plan, "id_column": task.id_column, "done": done},
        batch_size=1,
        batch_format="pyarrow",
        **stage_tasks(),
    )


def _open_rows(batch: pa.Table, plan: Plan, id_column: str, done: Done) -> Iterator[pa.Table]:
    for index in batch["id"].to_pylist():
        chunk = plan.chunk(index)
        rows = done.open_rows(chunk, id_column, chunk["folder"][0].as_py())
        if rows.num_rows:
            yield rows


def _details(
    config: SteerConfig, model: AnyGenerator, of: Study, totals: AnswerTotals, files: Sequence[File], out: Build, **more: Any
) -> GenerationsDetails:  # fmt: skip
    tally = ray.remote(_tally).options(num_cpus=1)
    counts: Counter[str] = Counter()
    cost = 0.0
    for of_file, money in ordered_results("tally", [tally.remote(out, file) for file in files]):
        counts.update(of_file)
        cost += money
    outcomes = {name.partition(" ")[2]: n for name, n in sorted(counts.items()) if name.startswith("outcome ")}
    return GenerationsDetails(
        resolved=config.public(), plan=of.hash, models={model.name: model.public()}, sampling=config.sampling.model_dump(),
        wording_hash=wording_hash(), generations=totals.questions, errors=totals.errors, tokens_in=totals.tokens_in,
        tokens_out=totals.tokens_out, reasoning_tokens=counts["reasoning"], truncated=counts["length"], outcomes=outcomes,
        cost=cost, **more,
    )  # fmt: skip


def _tally(out: Build, file: File) -> tuple[dict[str, int], float]:
    """Counts of one part, and what its replies cost."""
    rows = store.read_part(out, file, ["outcome", "finish_reason", "reasoning_tokens", "cost"])
    outcomes = Counter(f"outcome {name}" for name in rows["outcome"].to_pylist() if name)
    cut = pc.sum(pc.equal(rows["finish_reason"], "length")).as_py() or 0
    reasoning = pc.sum(rows["reasoning_tokens"]).as_py() or 0
    return dict(outcomes) | {"length": cut, "reasoning": reasoning}, pc.sum(rows["cost"]).as_py() or 0.0


def outcome_lines(builds: dict[str, Build]) -> list[str]:
    """Return a line about the replies of each model."""
    lines = []
    for name, build in builds.items():
        details = store.details_of(build, GenerationsDetails)
        shares = ", ".join(f"{n:,} {outcome}" for outcome, n in details.outcomes.items())
        refused = f"; not sent: {', '.join(details.refused)}" if details.refused else ""
        lines.append(
            f"{name}: {details.generations:,} generations, {details.errors:,} failed ({shares}); {details.truncated:,} cut at "
            f"max_tokens{refused}: {build.url}"
        )
    return lines
