"""Build a VIDB: curate, plan, rank, aggregate, calibrate, publish; each stage is a build that is finished or continued."""

import logging
from typing import NamedTuple

from pydantic import Field

from valueflow import __version__, curate, store, vidb
from valueflow.config import Config
from valueflow.curate import CandidatesConfig
from valueflow.distributed import aggregate as aggregating
from valueflow.distributed.aggregate import AggregateConfig
from valueflow.distributed.cluster import ClusterConfig
from valueflow.distributed.judge import judge
from valueflow.distributed.plan import plan
from valueflow.distributed.rank import rank
from valueflow.errors import InputError
from valueflow.judging.judges import JudgeConfig, fingerprint
from valueflow.ranking.calibrate import NO_NEUTRAL, CalibrateConfig
from valueflow.ranking.windows import WindowsConfig
from valueflow.records import digest
from valueflow.store import Build

log = logging.getLogger(__name__)


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
    candidates = Build(config.root, "candidates", digest(__version__, texts_id, config.candidates.model_dump()))
    windows = Build(config.root, "windows", digest(__version__, candidates.build_id, config.windows.model_dump()))
    rankings = Build(config.root, "rankings", digest(__version__, windows.build_id, fingerprint(config.judge)))
    fit_settings = config.aggregate.model_dump(exclude={"windows_per_shard"})
    utilities = Build(config.root, "utilities", digest(__version__, rankings.build_id, fit_settings))
    ratings = digest(store.read_input(config.calibrate.ratings).hex()) if config.calibrate.ratings else ""
    published = digest(__version__, utilities.build_id, config.calibrate.model_dump(), ratings)
    version = Build(config.root, "vidb", f"v-{published}")
    return Stages(texts, candidates, windows, rankings, utilities, version)


def build_vidb(config: BuildVidbConfig) -> Stages:
    """Bring every stage to its end and return where they are.

    Raises:
        InputError: no ingested texts, a pool too small, too many broken answers, or another version published meanwhile.
        NotConverged: a fit missed its tolerance; nothing is published.
    """
    seen = store.current(config.root)
    at = stages(config)
    store.need(at.texts)
    if not store.manifest(at.candidates):
        sizes = curate.curate(at.texts, config.candidates, at.candidates)
        store.commit(at.candidates, config.candidates.model_dump(), [at.texts.url], sizes)
    sizes = store.need(at.candidates).counts
    log.info("candidates: %s texts for %d values", f"{sum(sizes.values()):,}", len(sizes))
    if config.calibrate.mode == "neutral" and not any(store.read_table(at.candidates, ["neutral"])["neutral"].to_pylist()):
        raise InputError(NO_NEUTRAL)
    plan(at.candidates, config.windows, at.windows)
    rank(
        at.windows, [at.candidates], lambda windows: judge(config.judge)(windows), at.rankings,
        batch_size=config.judge.batch_size, max_error_share=config.max_error_share, what="rank",
        config=config.judge.public() | {"fingerprint": fingerprint(config.judge)},
    )  # fmt: skip
    aggregating.aggregate(at.candidates, at.rankings, config.aggregate, at.utilities)
    lineage = {
        "resolved": config.public(),
        "judge": config.judge.name,
        "judge_fingerprint": fingerprint(config.judge),
        "builds": {name: build.build_id for name, build in at._asdict().items()},
    }
    vidb.write(at.candidates, at.utilities, config.calibrate, lineage, at.vidb)
    if config.publish:
        store.publish(config.root, at.vidb.build_id, seen)
    return at
