"""Profiles of units: read their texts, score shard by shard, estimate; units whose texts are as before are taken over."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import __version__, store, vidb
from valueflow.config import Resources
from valueflow.distributed.cluster import Progress, require_resources, result_of
from valueflow.distributed.embed import embed, encoder_fingerprint, read_examples, resolve_labels
from valueflow.distributed.extract import build_extractor
from valueflow.distributed.profiles.config import BuildProfileConfig, ProfileConfig
from valueflow.distributed.profiles.scorer import EvaluationScorer, FastScorer, Scorer, evaluated
from valueflow.distributed.watch import watched
from valueflow.errors import InputError, allowed
from valueflow.evaluation.regression import IntensityRegression, training_texts
from valueflow.judging import value_head
from valueflow.profiles.estimate import TextScores
from valueflow.profiles.people_scale import with_residual
from valueflow.profiles.reliability import over_units
from valueflow.profiles.requested import corpus_sd
from valueflow.profiles.table import Basis, profile_rows, unit_ids
from valueflow.profiles.unit_texts import save_unit_texts
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, ValueId, digest
from valueflow.store import Build, EvaluationsDetails, ProfilesDetails, UnitTextsDetails
from valueflow.theories import expand, theories
from valueflow.theories.taxonomy import THEORIES
from valueflow.vidb import validity
from valueflow.vidb.candidates import ALL

log = logging.getLogger(__name__)
KEPT = 100_000  # distinct texts whose scores a worker keeps: 50 MB on 32 values
ONE_CPU = Resources(1)


class _Plan(NamedTuple):
    """What is decided before texts are scored."""

    version: vidb.Vidb
    basis: Basis
    basis_id: str
    inputs: list[Build]
    scored_by: str
    scorer: Any  # what workers make their scorer from: references into the object store


def build_profiles(config: BuildProfileConfig) -> Build:
    """Return the build of the profiles of the units of a file; see `profile_texts`.

    Raises:
        InputError: a column is missing, or no row is usable.
    """
    task = ray.remote(save_unit_texts).options(num_cpus=1)
    texts = result_of("profiles, reading", task.remote(config.texts, config.root, config.columns), ONE_CPU)
    return profile_texts(config, texts)


def profile_texts(config: ProfileConfig, texts: Build, shared_threads: bool = False) -> Build:
    """Return the build of the profiles; a finished one is returned as it is, an unfinished one is continued.

    Args:
        config: settings.
        texts: build of `unit_texts`.
        shared_threads: the units wrote about the same threads, by which they are compared: few units, such as models.

    Raises:
        InputError: a value or an evaluation is missing, or no text of any unit has a score.
    """
    plan = _ranked(config) if config.evaluation else _fast(config)
    if shared_threads:
        basis = plan.basis._replace(shared_threads=True)
        plan = plan._replace(basis=basis, basis_id=digest(plan.basis_id, "shared threads"))
    out = Build(config.root, "profiles", digest(texts.build_id, plan.basis_id))
    if store.reusable(out):
        log.info("profiles: %s rows, done before", f"{store.require_manifest(out).num_rows:,}")
        return out
    earlier = _earlier(config.root, plan.basis_id)
    reused = _shards(config, texts, plan, earlier, out)
    manifest = store.require_manifest(texts)
    if not any(_scored(out, path) for path in store.part_paths(out)):
        raise InputError(
            f"no unit of {manifest.details(UnitTextsDetails).path} has a value with {plan.basis.config.min_texts} relevant "
            "texts; lower estimate.min_texts or estimate.min_relevance, or give more texts per unit"
        )
    reliability = result_of("profiles, reliability", ray.remote(_reliability).options(num_cpus=1).remote(out), ONE_CPU)
    details = ProfilesDetails(
        resolved=config.public(), basis=plan.basis_id, vidb_version=plan.version.build.build_id, unit_texts=texts.build_id,
        scored_by=plan.scored_by, content_errors={v: e.model_dump() for v, e in plan.basis.errors.items()},
        scale=dict(plan.basis.scale), units=manifest.counts["units"], reused=reused, reliability=reliability,
    )  # fmt: skip
    store.commit(out, details, [texts, *plan.inputs])
    return out


def _values(config: ProfileConfig, available: list[ValueId]) -> tuple[ValueId, ...]:
    return tuple(available if config.values == ALL else expand(config.values, available))


def _scales(version: vidb.Vidb, errors: dict[ValueId, ContentError], values: tuple[ValueId, ...]) -> dict[ValueId, float]:
    def scale(value: ValueId) -> float:
        rows = store.read_table(version.build, ["intensity"], store.value_folder(value))
        return corpus_sd(errors[value], rows["intensity"].to_numpy())

    return {value: scale(value) for value in values}


def _ranked(config: ProfileConfig) -> _Plan:
    evaluation = Build(config.root, "evaluations", config.evaluation)
    details = store.details_of(evaluation, EvaluationsDetails)
    version = vidb.load(config.root, details.vidb_version)
    available = [ValueId(value) for value in details.sharpness]
    values = _values(config, available)
    if missing := [value for value in values if value not in available]:
        raise InputError(f"evaluation {config.evaluation} does not hold {missing[0]}; {allowed(missing[0], available)}")
    errors = {value: ContentError.model_validate(details.content_errors.get(value, {})) for value in values}
    basis = Basis(values, errors, _scales(version, errors, values), config.estimate)
    table = ray.remote(evaluated).options(num_cpus=1).remote(evaluation, values)
    # Not the id of the evaluation: one of more texts by the same judge gives the texts of before the same scores.
    resolved = details.resolved
    settings = [resolved.get(name) for name in ("judge", "evaluator", "rankings")]
    judge = [details.vidb_version, details.sharpness, settings]
    inputs = [version.build, evaluation]
    return _Plan(version, basis, _basis_id("ranked", judge, basis), inputs, f"evaluation {evaluation.build_id}", table)


def _fast(config: ProfileConfig) -> _Plan:
    require_resources(
        config.encoder.num_actors * config.encoder.num_cpus, config.encoder.num_actors * config.encoder.num_gpus,
        f"encoder {config.encoder.model!r}", "Lower encoder.num_actors, num_cpus or num_gpus",
    )  # fmt: skip
    version = vidb.load(config.root, config.vidb)
    values = _values(config, list(version.calibrations))
    extractor, labelled = _extractor(config, values) if config.relevance.by == "hives" else (None, [])
    arguments = (config, version.build.build_id, values, extractor)
    fitted = ray.remote(_fit).options(num_cpus=1).remote(*arguments)
    fast: IntensityRegression = result_of("profiles, regression", fitted, ONE_CPU)
    if missing := [value for value in values if value not in fast.lines]:
        if config.values != ALL:
            raise InputError(
                f"{missing[0]} has too few texts for mode fast in VIDB {version.build.build_id}; score the texts with "
                "python -m jobs.evaluate and name its build in evaluation"
            )
        values = tuple(value for value in values if value in fast.lines)
    of_judge, trained = validity.of_judge(version, version.judge_fingerprint), training_texts(version)[1]
    errors = {v: with_residual(of_judge[v], fast.lines[v].radius, trained[v].intensity_M) for v in values}
    basis = Basis(values, errors, _scales(version, errors, values), config.estimate)
    knowledge = value_head.SHA256 if config.relevance.by == "head" else [b.build_id for b in labelled]
    settings = [version.build.build_id, encoder_fingerprint(config.encoder), config.relevance.by, config.relevance.k, knowledge]
    scorer = (config, version.build.build_id, values, extractor)
    inputs = [version.build, *labelled]
    return _Plan(version, basis, _basis_id("fast", settings, basis), inputs, config.encoder.model, scorer)


def relevance_of(config: ProfileConfig, texts: Sequence[str]) -> np.ndarray:
    """Return how far texts concern each value of the profiles, from 0 to 1 (T, V); nan where `relevance.by` is none."""
    task = ray.remote(_relevance).options(num_cpus=1).remote(_fast(config).scorer, list(texts))
    of_text: np.ndarray = result_of("profiles, relevance", task, ONE_CPU)
    return of_text


def _relevance(scorer: tuple[Any, ...], texts: list[str]) -> np.ndarray:
    config, version, values, extractor = scorer
    return FastScorer(config, version, values, extractor[0] if extractor else None)(texts).relevance_TV


def _fit(config: ProfileConfig, version: str, values: tuple[ValueId, ...], extractor: "Any") -> IntensityRegression:
    return FastScorer(config, version, values, None).fast


def _extractor(config: ProfileConfig, values: tuple[ValueId, ...]) -> tuple[Any, list[Build]]:
    """The extractor in the object store, and the builds that it rests on."""
    texts, labels = resolve_labels(config.root, config.relevance.texts, config.relevance.labels)
    named = ray.remote(_labelled_theories).options(num_cpus=1).remote(texts, labels)
    labelled = result_of("profiles, labels", named, ONE_CPU)
    for theory in dict.fromkeys(value.theory for value in values):
        if theory not in labelled:
            raise InputError(
                f"no labelled text of {labels.url} has a node of {theories()[theory].name} ({theory}), so HiVES cannot say "
                f"which texts concern its values; set values to theories with labels ({', '.join(labelled) or 'none'}), or "
                "relevance.by: head"
            )
    reference = embed(texts, config.encoder, config.root)
    task = ray.remote(build_extractor).options(num_returns=2)
    extractor_and_size: Any = task.remote(reference, texts, labels, config.relevance.k, config.estimate.seed)
    result_of("profiles, extractor", extractor_and_size[1])  # raises its errors
    return [extractor_and_size[0]], [reference, texts, labels]


def _labelled_theories(texts: Build, labels: Build) -> list[str]:
    return [THEORIES[t] for t in np.unique(read_examples(texts, labels).theory_N)]


def _basis_id(mode: str, settings: list[Any], basis: Basis) -> str:
    errors = {value: basis.errors[value].model_dump(exclude={"source"}) for value in basis.values}
    return digest(
        __version__,
        SCHEMAS["profiles"].names,
        mode,
        settings,
        list(basis.values),
        errors,
        dict(basis.scale),
        basis.config.model_dump(),
    )


def _earlier(root: str, basis: str) -> Build | None:
    """The newest finished build of profiles on the same basis."""
    for build_id in reversed(store.finished(root, "profiles")):
        build = Build(root, "profiles", build_id)
        if store.details_of(build, ProfilesDetails).basis == basis:
            return build
    return None


def _shards(config: ProfileConfig, texts: Build, plan: _Plan, earlier: Build | None, out: Build) -> int:
    """Write the profiles of every shard that has none; return how many units were taken over from an earlier build."""
    done, files = set(store.part_paths(out)), store.require_manifest(texts).files
    pending = [file.model_dump() for file in files if file.path not in done]
    progress = Progress("profiles, texts", sum(f.rows for f in files), sum(f.rows for f in files if f.path in done))
    if not pending:
        return 0
    actors = 1 if config.evaluation else config.encoder.num_actors
    written = ray.data.from_items(pending, override_num_blocks=len(pending)).map_batches(
        ShardProfiler,
        fn_constructor_kwargs={
            "basis": plan.basis, "scorer": _wrapped(plan.scorer), "texts": texts, "earlier": earlier, "out": out,
        },
        batch_format="pyarrow", batch_size=1, compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=config.encoder.num_cpus, num_gpus=config.encoder.num_gpus,
    )  # fmt: skip
    reused = 0
    need = Resources(actors * config.encoder.num_cpus, actors * config.encoder.num_gpus)
    for rows in watched("profiles", written.iter_batches(batch_format="pyarrow", batch_size=None), need):
        progress.add(pc.sum(rows["rows"]).as_py())
        reused += pc.sum(rows["reused"]).as_py()
    return reused


def _wrapped(scorer: Any) -> Any:
    """A reference in a list reaches the worker as a reference; a bare one would be fetched for every task."""
    return scorer if isinstance(scorer, tuple) else [scorer]


class ShardProfiler:
    """Scores the new units of a shard and writes the profiles of all."""

    def __init__(self, basis: Basis, scorer: Any, texts: Build, earlier: Build | None, out: Build) -> None:
        self.basis, self.texts, self.earlier, self.out, self._make = basis, texts, earlier, out, scorer
        self._scorer: Scorer | None = None
        self._known: dict[str, np.ndarray] = {}  # judge and relevance (2, V) by text id
        self.earlier_paths = set(store.part_paths(earlier)) if earlier else set()

    @property
    def scorer(self) -> Scorer:
        """The scorer, loaded when the first unit needs it."""
        if self._scorer is None:
            made = self._make
            if isinstance(made, tuple):
                config, version, values, extractor = made
                self._scorer = FastScorer(config, version, values, extractor[0] if extractor else None)
            else:
                self._scorer = EvaluationScorer(ray.get(made[0]), self.basis.values)
        return self._scorer

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the numbers of texts and of units that were taken over, by shard."""
        counts = []
        for file in map(store.File.model_validate, batch.to_pylist()):
            rows = store.read_part(self.texts, file)
            ids = unit_ids(rows)
            before = self._before(file.path, set(ids.values()))
            known = set(before["unit_id"].to_pylist())
            new = rows.filter(pc.is_in(rows["unit"], pa.array([u for u, i in ids.items() if i not in known], pa.string())))
            tables = [before, *([profile_rows(new, self._scores(new), self.basis, ids)] if new.num_rows else [])]
            store.write_part(self.out, pa.concat_tables(tables), file.path.removeprefix("part-").removesuffix(".parquet"))
            counts.append({"rows": file.rows, "reused": len(known)})
        return pa.Table.from_pylist(counts)

    def _before(self, path: str, ids: set[str]) -> pa.Table:
        if not self.earlier or path not in self.earlier_paths:
            return SCHEMAS["profiles"].empty_table()
        rows = store.read_part(self.earlier, path)
        return rows.filter(pc.is_in(rows["unit_id"], pa.array(sorted(ids), pa.string())))

    def _scores(self, rows: pa.Table) -> TextScores:
        """Scores of the texts, each distinct one once, also where units of several shards have it, such as an option's text."""
        ids = rows["text_id"].to_pylist()
        new = {i: text for i, text in zip(ids, rows["text"].to_pylist(), strict=True) if i not in self._known}
        if new:
            self._known.update(zip(new, np.stack(self.scorer(list(new.values())), 1), strict=True))
        judge_TV, relevance_TV = np.stack([self._known[i] for i in ids], 1)
        if len(self._known) > KEPT:
            self._known = {}
        return TextScores(judge_TV, relevance_TV)


def _scored(out: Build, path: str) -> bool:
    part = store.read_part(out, path, ["intensity"])
    return bool(part["intensity"].null_count < part.num_rows)


def _reliability(out: Build) -> dict[str, float | None]:
    """Split-half reliability over units by value; the halves of all units are in memory: 160 bytes a unit and value."""
    columns = ["unit", "theory", "value", "halves"]
    rows = pa.concat_tables([store.read_part(out, path, columns) for path in store.part_paths(out)])
    result: dict[str, float | None] = {}
    for theory, node in dict.fromkeys(zip(rows["theory"].to_pylist(), rows["value"].to_pylist(), strict=True)):
        halves = rows.filter(pc.and_(pc.equal(rows["theory"], theory), pc.equal(rows["value"], node)))["halves"].to_pylist()
        whole = [numbers for numbers in halves if numbers]
        reliability = float(over_units(np.array(whole)[:, None])[0]) if whole else float("nan")
        result[ValueId.of(theory, node)] = reliability if np.isfinite(reliability) else None
    return result
