"""Build a VIDB: select candidates, plan, rank, aggregate, calibrate, publish; each stage is a build that a rerun resumes."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import pyarrow.compute as pc
import ray
from pydantic import Field, model_validator

from valueflow import __version__, store, vidb
from valueflow.config import Config, Resources
from valueflow.distributed.audit import Policy, check_admitted, check_panel_admitted, measured_speed
from valueflow.distributed.build import aggregate as aggregating
from valueflow.distributed.build.aggregate import AggregateConfig, Source
from valueflow.distributed.build.early import EarlyFits, OneJudge
from valueflow.distributed.build.extend import check_base, new_texts, rank_new, refit
from valueflow.distributed.build.plan import plan
from valueflow.distributed.build.publish_early import EarlyVersions
from valueflow.distributed.build.rank_rounds import rank_in_rounds
from valueflow.distributed.cluster import ClusterConfig, completed_results
from valueflow.distributed.panel.vote import PanelConfig, collect_votes, plausibility_flags, vote_builds
from valueflow.distributed.rank import rank
from valueflow.distributed.side_by_side import most_at_once, side_by_side
from valueflow.distributed.texts import ValueTexts
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, JudgeConfig, check_windows
from valueflow.judging.cost import estimate
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.kinds import true_correlation
from valueflow.judging.tasks import RANK, VOTE
from valueflow.llm.cost import CostEstimate
from valueflow.ranking.calibration import NO_NEUTRAL, CalibrateConfig
from valueflow.ranking.windows import WindowsConfig, plan_table, with_texts
from valueflow.records import ValueId, digest
from valueflow.report.collect import version_card
from valueflow.store import (
    BallotsDetails,
    Build,
    CandidatesDetails,
    FitSummary,
    JudgeSharpness,
    RankingsDetails,
    UtilitiesDetails,
    VidbDetails,
)
from valueflow.vidb import calibrated, candidates, publish, validity
from valueflow.vidb.candidates import CandidatesConfig
from valueflow.vidb.content import Knowledge
from valueflow.vidb.publish import PLAUSIBLE, HumanConfig
from valueflow.vidb.ratings import Means
from valueflow.vidb.validity import ValidityRecord
from valueflow.vidb.version import Vidb
from valueflow.voting.descend import Ballot

log = logging.getLogger(__name__)
T = TypeVar("T")


class PlausibilityConfig(Config):
    """The panel that looks for implausible intensities, and how many of its voters send a text to people."""

    panel: PanelConfig
    max_flags: int = Field(2, ge=1, description="voters who must find the intensity weird to put the text in the human queue")


class BuildVidbConfig(Config):
    """Everything that makes a VIDB from ingested texts."""

    root: str = Field(description="folder or URL under which all tables live")
    texts: str = Field("latest", description="build id of the texts; latest: the newest finished ingest")
    candidates: CandidatesConfig = CandidatesConfig()
    windows: WindowsConfig = WindowsConfig()
    judge: JudgeConfig
    further_judges: list[JudgeConfig] = Field(
        [], description="they rank the same windows; the sharpness and position bias of each judge is then estimated"
    )
    extend: str = Field(
        "", description="a version, or current: only texts that it lacks are ranked, against its texts, on its scale"
    )
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of failed windows above which the job fails")
    aggregate: AggregateConfig = AggregateConfig()
    calibrate: CalibrateConfig = CalibrateConfig()
    plausibility: PlausibilityConfig | None = Field(None, description="a panel that checks every text and intensity")
    human: HumanConfig = HumanConfig()
    audit: Policy = Field("refuse", description="refuse a judge that failed its audit, require a passed one, or ignore")
    publish_early: int = Field(
        0, ge=0, description="publish a version of the values that are done whenever so many more are, while the judges still "
        "work on the others; 0: only the whole; not for rounds, extend"
    )  # fmt: skip
    dry_run: bool = Field(False, description="plan, print what the calls of judge and panel will take, call nothing")
    publish: bool = Field(True, description="point CURRENT at the version")
    cluster: ClusterConfig = ClusterConfig()

    @property
    def judges(self) -> list[AnyJudge]:
        """All judges that rank."""
        return [self.judge, *self.further_judges]

    @model_validator(mode="after")
    def _one_judge(self) -> "BuildVidbConfig":
        for judge in self.judges:
            check_windows(judge, self.windows.k, "windows", self.windows.mirrored)
        names = [judge.name for judge in self.judges]
        if len(set(names)) < len(names):
            raise ValueError(f"judge and further_judges share a name: {', '.join(names)}")
        if self.further_judges and (self.windows.in_rounds or self.extend):
            why = f"windows.mode {self.windows.mode}" if self.windows.in_rounds else f"extend {self.extend}"
            raise ValueError(f"{why} takes one judge; further_judges names {', '.join(names[1:])}")
        return self


class BuildStages(NamedTuple):
    """The builds behind one version, one of rankings per judge. An extension plans in rounds and has no build of windows."""

    texts: Build
    candidates: Build
    windows: Build
    rankings: tuple[Build, ...]
    utilities: Build
    vidb: Build

    def ids(self) -> dict[str, str]:
        """Return build ids by stage."""
        names = {f"rankings {n}" if n else "rankings": build.build_id for n, build in enumerate(self.rankings)}
        return {name: build.build_id for name, build in self._asdict().items() if name != "rankings"} | names


def version_to_extend(config: BuildVidbConfig) -> Vidb | None:
    """Return the version to extend, None where a version is built from scratch.

    A version that extends another one with the same texts stands for that other, so that the same command, run again, finds its
    own result.
    """
    if not config.extend:
        return None
    base = vidb.load(config.root, config.extend)
    if base.details.extends and base.details.builds["texts"] == store.ingested(config.root, config.texts).build_id:
        base = vidb.load(config.root, base.details.extends)
    check_base(base, config.judge)
    return base


def stages(config: BuildVidbConfig, base: Vidb | None = None) -> BuildStages:
    """Return the address of every stage; each id is a hash of everything that can change its rows."""
    texts = store.ingested(config.root, config.texts)
    fit_settings = config.aggregate.model_dump(exclude={"windows_per_shard"})
    extends = [base.build.build_id] if base else []
    pooled = digest(__version__, texts.build_id, config.candidates.model_dump(), *extends)
    candidates = Build(config.root, "candidates", pooled)
    # A plan in rounds follows from the answers, so from the judge and from how its rounds are fitted.
    follows = [fingerprint(config.judge), fit_settings] if config.windows.in_rounds else []
    windows = Build(config.root, "windows", digest(__version__, candidates.build_id, config.windows.model_dump(), follows))
    ranked = [digest(__version__, windows.build_id, fingerprint(judge)) for judge in config.judges]
    rankings = tuple(Build(config.root, "rankings", build_id) for build_id in ranked)
    utilities = Build(config.root, "utilities", digest(__version__, *ranked, fit_settings))
    ratings = _content(config.calibrate.ratings)
    calibrated = digest(__version__, utilities.build_id, config.calibrate.model_dump(), ratings)
    panel = config.plausibility
    panel_settings = [panel.panel.fingerprint(), panel.max_flags] if panel else []
    record = _record(config)
    measured = [record.id] if record else []
    published = digest(calibrated, panel_settings, config.human.model_dump(), _content(config.human.ratings), *measured)
    version = Build(config.root, "vidb", f"v-{published}")
    return BuildStages(texts, candidates, windows, rankings, utilities, version)


def _record(config: BuildVidbConfig) -> ValidityRecord | None:
    """The validity record of the judge; the common axis of several judges has none."""
    return None if config.further_judges else validity.load(config.root, fingerprint(config.judge))


def _content(url: str) -> str:
    return digest(store.read_input(url).hex()) if url else ""


def plan_stages(config: BuildVidbConfig, base: Vidb | None) -> BuildStages:
    """Finish the stages before ranking: the candidates and, where it does not depend on answers, the plan of windows."""
    at = stages(config, base)
    store.require_manifest(at.texts)
    if not store.reusable(at.candidates):
        previous = Build(config.root, "candidates", base.details.builds["candidates"]) if base else None
        selected = candidates.select_candidates(at.texts, config.candidates, at.candidates, previous, _in_tasks)
        details = CandidatesDetails(settings=config.candidates.public(), sizes={**selected})
        store.commit(at.candidates, details, [at.texts])
    sizes = store.details_of(at.candidates, CandidatesDetails).sizes
    log.info("candidates: %s texts for %d values", f"{sum(sizes.values()):,}", len(sizes))
    if base:
        return at
    if config.calibrate.mode == "neutral" and not any(store.read_table(at.candidates, ["neutral"])["neutral"].to_pylist()):
        raise InputError(NO_NEUTRAL)
    if not config.windows.in_rounds:
        plan(at.candidates, config.windows, at.windows)
    return at


def _in_tasks(write: Callable[[list[ValueId]], T], groups: list[list[ValueId]]) -> Iterator[T]:
    task: Any = ray.remote(_call).options(num_cpus=1)
    return completed_results("candidates", [task.remote(write, group) for group in groups], Resources(1))


def _call(function: Callable[[list[ValueId]], T], group: list[ValueId]) -> T:
    return function(group)


def dry_run(config: BuildVidbConfig) -> list[CostEstimate]:
    """Return what the judges and the plausibility panel will take."""
    base = version_to_extend(config)
    at = plan_stages(config, base)
    pools = store.require_manifest(at.candidates).files
    pool = store.read_part(at.candidates, pools[0].path, ["theory", "value", "text_id"])
    # Windows of one value as an example; those of rounds and extensions depend on answers.
    windows = plan_table(pool["theory"][0].as_py(), pool["value"][0].as_py(), pool["text_id"].to_pylist(), config.windows.start)
    if base:
        calls = config.windows.m * sum(len(chunk.text_ids) for chunk in new_texts(base, at.candidates))
    elif config.windows.in_rounds:
        calls = sum(pool.rows for pool in pools) * config.windows.m // config.windows.k
    else:
        planned = store.require_manifest(at.windows)
        windows, calls = store.read_part(at.windows, planned.files[0].path), planned.num_rows
    sample = with_texts(windows.slice(0, 50), ValueTexts((at.candidates,))(pools[0].path)).to_pylist()
    size = {"texts": sum(pool.rows for pool in pools), "values": len(pools)}
    estimates = [estimate(judge, RANK, sample, calls, measured_speed(config.root, judge), **size) for judge in config.judges]
    if config.plausibility:
        ballots = [
            Ballot("plausible", row["theory"], row["value"], i, PLAUSIBLE, 0, "+0.0")._asdict() | {"text": text}
            for row in sample
            for i, text in zip(row["text_ids"], row["texts"], strict=True)
        ]
        texts = store.require_manifest(at.candidates).num_rows
        voters = config.plausibility.panel.voters
        estimates += [estimate(voter, VOTE, ballots, texts, measured_speed(config.root, voter)) for voter in voters]
    return estimates


def build_vidb(config: BuildVidbConfig) -> BuildStages:
    """Finish every stage and return the builds.

    Raises:
        InputError: no ingested texts, too few candidates, too many failed windows, or another version published meanwhile.
        NotConverged: a fit missed its tolerance; nothing is published.
    """
    pointer = store.replaceable(config.root)
    base = version_to_extend(config)
    at = plan_stages(config, base)
    review = publish.review_of(at.candidates, config.calibrate, config.human, base)
    audits = [check_admitted(config.root, judge, config.audit) for judge in config.judges]
    if config.plausibility:
        check_panel_admitted(config.root, config.plausibility.panel.voters, config.plausibility.panel.audit)
    settings = [
        {"judge": judge.public(), "fingerprint": fingerprint(judge), "audit": audit}
        for judge, audit in zip(config.judges, audits, strict=True)
    ]
    share = config.max_error_share
    names = [judge.name for judge in config.judges]
    sources = [Source(answers, n, name) for n, (name, answers) in enumerate(zip(names, at.rankings, strict=True))]
    fits: Mapping[str, FitSummary] = {}
    if base:
        rank_new(base, at.candidates, config.windows, config.judge, at.rankings[0], share, settings[0])
        refit(base, at.rankings[0], config.aggregate, at.utilities)
    else:
        if config.windows.in_rounds:
            builds = (at.windows, at.rankings[0])
            rank_in_rounds(at.candidates, config.windows, config.aggregate, config.judge, *builds, share, settings[0])
        elif store.reusable(at.utilities):
            _rank(config, at, settings)
        else:
            early = EarlyFits(at.candidates, at.windows, sources, config.windows.k, config.aggregate, at.utilities)

            def write(utilities: Build, version: Build) -> store.Manifest:
                pending = len(early.planned) - len(early.fits)
                lineage = _lineage(config, at._replace(utilities=utilities), audits, early.truncated(), None)
                return _write(config, at, review, lineage.model_copy(update={"pending": pending}), utilities, version)

            every = config.publish_early if config.publish else 0
            versions = EarlyVersions(every, at.candidates, at.utilities, at.vidb, len(early.planned), write, pointer)
            early.on_fit = versions
            _rank(config, at, settings, early)
            fits, pointer = early.fits, versions.pointer
        aggregating.aggregate(at.candidates, sources, config.windows.k, config.aggregate, at.utilities, fits)
    if config.plausibility and not store.reusable(at.vidb):
        flags = _flags(config, config.plausibility, at, review.calibrating, base)
        review = review._replace(flags=flags, max_flags=config.plausibility.max_flags)
    lineage = _lineage(config, at, audits, _truncated(at.rankings, base), base)
    _write(config, at, review, lineage, at.utilities, at.vidb, base)
    if config.publish:
        store.publish(config.root, at.vidb.build_id, pointer)
    return at


def _lineage(config: BuildVidbConfig, at: BuildStages, audits: list[str], truncated: int, base: Vidb | None) -> VidbDetails:
    return VidbDetails(
        resolved=config.public(),
        judge=", ".join(judge.name for judge in config.judges),
        judge_fingerprint=fingerprint(config.judge),
        judge_audit=", ".join(audits),
        judges=_judges(config, at.utilities),
        builds=at.ids(),
        truncated=truncated,
        **({"extends": base.build.build_id} if base else {}),
    )


def _write(
    config: BuildVidbConfig, at: BuildStages, review: publish.Review, lineage: VidbDetails, utilities: Build, version: Build,
    base: Vidb | None = None,
) -> store.Manifest:  # fmt: skip
    """Write a version of the values in these utilities."""
    record = _record(config)
    fits = store.details_of(utilities, UtilitiesDetails).fits
    shares = {ValueId(value): fit.content_share for value, fit in fits.items() if fit.content_share is not None}
    knowledge = Knowledge(true_correlation(config.judges), record.by_value if record else {}, shares)
    card = functools.partial(version_card, at.texts)
    return publish.write_version(
        at.candidates, utilities, config.calibrate, review, lineage, version, base, card, knowledge
    )  # fmt: skip


def _rank(config: BuildVidbConfig, at: BuildStages, settings: list[dict[str, Any]], early: EarlyFits | None = None) -> None:
    """Put the planned windows to every judge, to all at once where the cluster has room for them."""
    texts, several = ValueTexts((at.candidates,)), len(config.judges) > 1

    def answers_of(number: int) -> store.Manifest:
        judge, what = config.judges[number], f"rank, {config.judges[number].name}" if several else "rank"
        follower = OneJudge(early, number) if early else None
        share = config.max_error_share
        return rank(at.windows, texts, judge, at.rankings[number], share, settings[number], what, follower)

    side_by_side(range(len(config.judges)), answers_of, most_at_once(config.judges))


def _truncated(rankings: tuple[Build, ...], base: Vidb | None) -> int:
    """How many texts a judge read in part, those of an extended version included."""
    some = [answers for answers in rankings if store.details_of(answers, RankingsDetails).truncated]
    texts: set[str] = set()
    for answers in some:
        texts.update(pc.unique(pc.list_flatten(store.read_table(answers, ["truncated_ids"])["truncated_ids"])).to_pylist())
    if base is None or not texts:
        return len(texts) + (base.details.truncated if base else 0)
    before = store.read_table(base.build, ["text_id"])["text_id"]
    return base.details.truncated + len(texts.difference(before.to_pylist()))


def _judges(config: BuildVidbConfig, utilities: Build) -> dict[str, JudgeSharpness]:
    """Sharpness by value of every judge that was modelled, by fingerprint."""
    fits = store.details_of(utilities, UtilitiesDetails).fits
    return {
        fingerprint(judge): JudgeSharpness(name=judge.name, sharpness={v: fit.judges[n].sharpness for v, fit in fits.items()})
        for n, judge in enumerate(config.judges)
        if all(fit.judges for fit in fits.values())
    }


def _flags(
    config: BuildVidbConfig, plausibility: PlausibilityConfig, at: BuildStages, ratings: Means, base: Vidb | None
) -> dict[tuple[ValueId, str], int]:
    """How many voters find the intensity of each (value, text id) weird."""
    settings = [config.calibrate.model_dump(), _content(config.calibrate.ratings)]
    ballots = Build(config.root, "ballots", f"p-{digest(__version__, at.utilities.build_id, settings)}")
    if not store.reusable(ballots):
        values = calibrated.calibrated_values(at.candidates, at.utilities, config.calibrate, ratings, base)
        publish.plausibility_ballots(values, ballots)
        store.commit(ballots, BallotsDetails(settings=config.calibrate.public()), [at.utilities])
    votes = vote_builds(config.root, plausibility.panel, ballots.build_id)
    collect_votes(plausibility.panel, ballots, ValueTexts((at.candidates,)), votes, 0, "plausibility")
    return plausibility_flags(votes.values())
