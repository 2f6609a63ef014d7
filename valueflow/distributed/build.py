"""Build a VIDB: curate, plan, rank, aggregate, calibrate, publish; each stage is a build that is finished or continued."""

import logging
from typing import NamedTuple

from pydantic import Field

from valueflow import __version__, curate, store, vidb
from valueflow.config import Config
from valueflow.curate import CandidatesConfig
from valueflow.distributed import aggregate as aggregating
from valueflow.distributed.adapt import rank_adaptively
from valueflow.distributed.aggregate import AggregateConfig
from valueflow.distributed.audit import Policy, admit, admit_panel, measured
from valueflow.distributed.cluster import ClusterConfig
from valueflow.distributed.plan import plan
from valueflow.distributed.rank import rank, with_texts
from valueflow.distributed.vote import PanelConfig, poll, votes_of, weird
from valueflow.errors import InputError
from valueflow.judging.cost import Estimate, estimate
from valueflow.judging.judges import JudgeConfig, fingerprint
from valueflow.judging.tasks import RANK, VOTE
from valueflow.ranking.calibrate import NO_NEUTRAL, CalibrateConfig
from valueflow.ranking.windows import WindowsConfig, plan_table
from valueflow.records import digest
from valueflow.store import Build
from valueflow.vidb import PLAUSIBLE, HumanConfig, Review, read_ratings
from valueflow.voting.descend import Ballot

log = logging.getLogger(__name__)


class PlausibilityConfig(Config):
    """Who looks for weird intensities, and how many of them send a text to people."""

    panel: PanelConfig
    max_flags: int = Field(2, ge=1, description="as many voters who find the intensity weird put the text in the human queue")


class BuildVidbConfig(Config):
    """Everything that makes a VIDB from ingested texts."""

    root: str = Field(description="folder or URL under which all tables live")
    texts: str = Field("latest", description="build id of the texts; latest: the newest finished ingest")
    candidates: CandidatesConfig = CandidatesConfig()
    windows: WindowsConfig = WindowsConfig()
    judge: JudgeConfig
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of windows without an order above which the job fails")
    aggregate: AggregateConfig = AggregateConfig()
    calibrate: CalibrateConfig = CalibrateConfig()
    plausibility: PlausibilityConfig | None = Field(None, description="a panel that looks at every text and intensity")
    human: HumanConfig = HumanConfig()
    audit: Policy = Field("refuse", description="refuse a judge that failed its audit, require a passed one, or ignore")
    dry_run: bool = Field(False, description="plan, print what the calls of judge and panel will take, ask nothing")
    publish: bool = Field(True, description="point CURRENT at the version")
    cluster: ClusterConfig = ClusterConfig()


class Stages(NamedTuple):
    """The builds behind one version."""

    texts: Build
    candidates: Build
    windows: Build
    rankings: Build
    utilities: Build
    vidb: Build


def stages(config: BuildVidbConfig) -> Stages:
    """Return the address of every stage; each id is a fingerprint of all that can change its rows."""
    ingested = store.finished(config.root, "texts")
    if not ingested:
        raise InputError(f"no ingested texts under {config.root}; run python -m jobs.ingest first")
    texts_id = ingested[-1] if config.texts == "latest" else config.texts
    texts = Build(config.root, "texts", texts_id)
    fit_settings = config.aggregate.model_dump(exclude={"windows_per_shard"})
    candidates = Build(config.root, "candidates", digest(__version__, texts_id, config.candidates.model_dump()))
    # An adaptive plan follows from the answers, so from the judge and from how its rounds are fitted.
    follows = [fingerprint(config.judge), fit_settings] if config.windows.mode == "adaptive" else []
    windows = Build(config.root, "windows", digest(__version__, candidates.build_id, config.windows.model_dump(), follows))
    rankings = Build(config.root, "rankings", digest(__version__, windows.build_id, fingerprint(config.judge)))
    utilities = Build(config.root, "utilities", digest(__version__, rankings.build_id, fit_settings))
    ratings = _content(config.calibrate.ratings)
    calibrated = digest(__version__, utilities.build_id, config.calibrate.model_dump(), ratings)
    panel = config.plausibility
    asked = [panel.panel.fingerprint(), panel.max_flags] if panel else []
    published = digest(calibrated, asked, config.human.model_dump(), _content(config.human.ratings))
    version = Build(config.root, "vidb", f"v-{published}")
    return Stages(texts, candidates, windows, rankings, utilities, version)


def _content(url: str) -> str:
    return digest(store.read_input(url).hex()) if url else ""


def planned(config: BuildVidbConfig) -> Stages:
    """Bring the stages before the judge's to their end: the candidates and the plan of windows."""
    at = stages(config)
    store.need(at.texts)
    if not store.manifest(at.candidates):
        sizes = curate.curate(at.texts, config.candidates, at.candidates)
        store.commit(at.candidates, config.candidates.model_dump(), [at.texts.url], sizes)
    sizes = store.need(at.candidates).counts
    log.info("candidates: %s texts for %d values", f"{sum(sizes.values()):,}", len(sizes))
    if config.calibrate.mode == "neutral" and not any(store.read_table(at.candidates, ["neutral"])["neutral"].to_pylist()):
        raise InputError(NO_NEUTRAL)
    if config.windows.mode != "adaptive":
        plan(at.candidates, config.windows, at.windows)
    return at


def dry_run(config: BuildVidbConfig) -> list[Estimate]:
    """Return what the judge and the plausibility panel will take."""
    at = planned(config)
    pools = store.need(at.candidates).files
    if config.windows.mode == "adaptive":
        pool = store.read_part(at.candidates, pools[0].path, ["theory", "value", "text_id"])
        ids = pool["text_id"].to_pylist()
        windows = plan_table(pool["theory"][0].as_py(), pool["value"][0].as_py(), ids, config.windows.start)
        calls = sum(pool.rows for pool in pools) * config.windows.m // config.windows.k
    else:
        windows = store.read_part(at.windows, store.need(at.windows).files[0].path)
        calls = store.need(at.windows).num_rows
    sample = with_texts(windows.slice(0, 50), [at.candidates], "").to_pylist()
    found = [estimate(config.judge, RANK, sample, calls, measured(config.root, config.judge))]
    if config.plausibility:
        ballots = [
            Ballot("plausible", row["theory"], row["value"], i, PLAUSIBLE, 0, "+0.0")._asdict() | {"text": text}
            for row in sample
            for i, text in zip(row["text_ids"], row["texts"], strict=True)
        ]
        texts = store.need(at.candidates).num_rows
        voters = config.plausibility.panel.voters
        found += [estimate(voter, VOTE, ballots, texts, measured(config.root, voter)) for voter in voters]
    return found


def build_vidb(config: BuildVidbConfig) -> Stages:
    """Bring every stage to its end and return where they are.

    Raises:
        InputError: no ingested texts, a pool too small, too many broken answers, or another version published meanwhile.
        NotConverged: a fit missed its tolerance; nothing is published.
    """
    seen = store.current(config.root)
    at = planned(config)
    admitted = admit(config.root, config.judge, config.audit)
    if config.plausibility:
        admit_panel(config.root, config.plausibility.panel.voters, config.plausibility.panel.audit)
    described = config.judge.public() | {"fingerprint": fingerprint(config.judge), "audit": admitted}
    if config.windows.mode == "adaptive":
        rank_adaptively(
            at.candidates,
            config.windows,
            config.aggregate,
            config.judge,
            at.windows,
            at.rankings,
            config.max_error_share,
            described,
        )
    else:
        rank(at.windows, [at.candidates], config.judge, at.rankings, config.max_error_share, described)
    aggregating.aggregate(at.candidates, at.rankings, config.aggregate, at.utilities)
    review = Review(human=read_ratings(config.human.ratings) if config.human.ratings else {}, config=config.human)
    if config.plausibility and not store.manifest(at.vidb):
        review = review._replace(flags=_flags(config, config.plausibility, at), max_flags=config.plausibility.max_flags)
    lineage = {
        "resolved": config.public(),
        "judge": config.judge.name,
        "judge_fingerprint": fingerprint(config.judge),
        "judge_audit": admitted,
        "builds": {name: build.build_id for name, build in at._asdict().items()},
    }
    vidb.write(at.candidates, at.utilities, config.calibrate, review, lineage, at.vidb)
    if config.publish:
        store.publish(config.root, at.vidb.build_id, seen)
    return at


class PoolTexts(NamedTuple):
    """The candidates of a value by id: the texts of a plausibility plan's folder."""

    candidates: Build

    def __call__(self, folder: str) -> dict[str, str]:
        """Return text by id."""
        table = store.read_table(self.candidates, ["text_id", "text"], folder)
        return dict(zip(table["text_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def _flags(config: BuildVidbConfig, plausibility: PlausibilityConfig, at: Stages) -> dict[tuple[str, str], int]:
    """How many voters find each (value, text)'s intensity weird."""
    settings = [config.calibrate.model_dump(), _content(config.calibrate.ratings)]
    ballots = Build(config.root, "ballots", f"p-{digest(__version__, at.utilities.build_id, settings)}")
    if not store.manifest(ballots):
        vidb.plausibility_ballots(vidb.calibrated(at.candidates, at.utilities, config.calibrate), ballots)
        store.commit(ballots, config.calibrate.model_dump(), [at.utilities.url], {})
    votes = votes_of(config.root, plausibility.panel, ballots.build_id)
    poll(plausibility.panel, ballots, PoolTexts(at.candidates), votes, 0, "plausibility")
    return weird(votes.values())
