"""Examine a judge on anchors of known intensity, keep the verdict, and refuse judges that failed."""

import functools
import logging
import time
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
from pydantic import Field

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.answer import check_answers, collect_answers
from valueflow.distributed.build.rank import in_folder, rankings_details, unanswered
from valueflow.distributed.cluster import ClusterConfig
from valueflow.errors import InputError
from valueflow.judging.audit import exam
from valueflow.judging.audit.exam import AuditConfig, AuditResult
from valueflow.judging.audit.rated_texts import SAMPLE, rated_texts, with_judge_truth
from valueflow.judging.configs import AnyJudge, JudgeConfig
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.tasks import RANK
from valueflow.llm.cost import CostEstimate, MeasuredSpeed, estimate
from valueflow.ranking.windows import with_texts
from valueflow.records import digest
from valueflow.store import Build, RankingsDetails
from valueflow.theories import resolve

log = logging.getLogger(__name__)

Policy = Literal["refuse", "require", "ignore"]


class AuditJudgeConfig(Config):
    """Which judge is examined, on what."""

    root: str = Field(description="folder or URL under which all tables live")
    judge: JudgeConfig
    anchors: str = Field(SAMPLE, description="'sample', or an official CSV or JSONL with intensities")
    values: list[str] = Field([], description="values by any spelling; empty: all that the anchors have")
    exam: AuditConfig = AuditConfig()
    dry_run: bool = Field(False, description="print what the exam will take, ask nothing")
    cluster: ClusterConfig = ClusterConfig()


def dry_run(config: AuditJudgeConfig) -> list[CostEstimate]:
    """Return what the exam will take."""
    table = _exam(
        config, with_judge_truth(config.judge, rated_texts(config.anchors, [resolve(value) for value in config.values]))
    )
    last = measured_speed(config.root, config.judge)
    return [estimate(config.judge, RANK, table.slice(0, 50).to_pylist(), table.num_rows, last)]


def _exam(config: AuditJudgeConfig, anchors: pa.Table) -> pa.Table:
    """The windows of the exam with their texts."""
    windows = exam.plan(anchors, config.exam)
    texts = dict(zip(anchors["text_id"].to_pylist(), anchors["text"].to_pylist(), strict=True))
    return in_folder(with_texts(windows, texts), "")


def audit_judge(config: AuditJudgeConfig) -> tuple[AuditResult, str]:
    """Ask the exam's windows and return the verdict and the URL where it is kept for later jobs."""
    anchors = with_judge_truth(config.judge, rated_texts(config.anchors, [resolve(value) for value in config.values]))
    table = _exam(config, anchors)
    asked = digest(__version__, table["window_id"].to_pylist(), fingerprint(config.judge))
    out = Build(config.root, "rankings", f"a-{asked}")
    made = store.manifest(out)
    if not made:
        started, before = time.monotonic(), len(store.committed_ids(out, "window_id"))
        collect_answers(config.judge, RANK, functools.partial(unanswered, table), out, table.num_rows, "audit")
        seconds = time.monotonic() - started if not before else 0.0
        totals = check_answers(out, RANK, table.num_rows, 1.0, "audit")
        settings = {"judge": config.judge.public(), "fingerprint": fingerprint(config.judge), "seconds": seconds}
        made = store.commit(out, rankings_details(totals, **settings))
    rankings = store.read_table(out)
    price = getattr(config.judge, "price", None)
    verdict = exam.examine(anchors, rankings, config.exam, made.details(RankingsDetails).seconds, price)
    verdict = verdict.model_copy(update={"created": datetime.now(UTC).isoformat(timespec="seconds")})
    url = _url(config.root, config.judge)
    store.write_bytes(url, verdict.model_dump_json(indent=1).encode())
    return verdict, url


def stored_audit(root: str, judge: AnyJudge) -> AuditResult | None:
    """Return the kept verdict on a judge, None where it was not examined."""
    try:
        return AuditResult.model_validate_json(store.read_bytes(_url(root, judge)))
    except FileNotFoundError:
        return None


def measured_speed(root: str, judge: AnyJudge) -> MeasuredSpeed | None:
    """Return what the audit measured of a judge's speed and tokens, None where there is nothing."""
    verdict = stored_audit(root, judge)
    if verdict is None or not verdict.windows_per_second:
        return None
    return MeasuredSpeed(verdict.windows_per_second, verdict.tokens_in, verdict.tokens_out)


def check_admitted(root: str, judge: AnyJudge, policy: Policy) -> str:
    """Return what is to be said of a judge's audit in everything it judges.

    Raises:
        InputError: the judge failed its audit, or was not audited though `policy` requires it.
    """
    verdict = stored_audit(root, judge)
    if verdict is None:
        if policy == "require":
            raise InputError(
                f"judge {judge.name!r} has not been audited under {root}; run python -m jobs.audit_judge with it, "
                "or set audit=refuse"
            )
        return "not audited"
    if verdict.passed:
        return f"passed its audit of {verdict.created}"
    failed = f"failed its audit of {verdict.created}: {'; '.join(verdict.reasons)}"
    if policy != "ignore":
        raise InputError(f"judge {judge.name!r} {failed}. Use another judge, or set audit=ignore to use it all the same")
    log.warning("judge %r %s; used because audit=ignore", judge.name, failed)
    return f"{failed}; used all the same (audit=ignore)"


def check_panel_admitted(root: str, voters: list[AnyJudge], policy: Policy) -> dict[str, str]:
    """Return what is to be said of each voter's audit, by name; refuses like `admit`."""
    return {voter.name: check_admitted(root, voter, policy) for voter in voters}


def _url(root: str, judge: AnyJudge) -> str:
    return store.audit_url(root, fingerprint(judge))
