"""Audit a judge on rated texts, store the result, and refuse judges that failed."""

import functools
import logging
import time
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.answer import AnswerStage, check_answers, check_lost_calls, collect_answers
from valueflow.distributed.cluster import ClusterConfig
from valueflow.distributed.rank import in_folder, rankings_details, unanswered
from valueflow.errors import DamageError, InputError
from valueflow.judging.audit.audit import audit_result, plan_audit
from valueflow.judging.audit.rated_texts import SAMPLE, rated_texts, with_judge_truth
from valueflow.judging.audit.result import AuditConfig, AuditResult
from valueflow.judging.configs import AnyJudge, JudgeConfig
from valueflow.judging.cost import estimate
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.tasks import RANK
from valueflow.llm.cost import CostEstimate, MeasuredSpeed
from valueflow.ranking.windows import with_texts
from valueflow.records import digest
from valueflow.store import Build, RankingsDetails
from valueflow.theories import expand

log = logging.getLogger(__name__)

Policy = Literal["refuse", "require", "ignore"]


class AuditJudgeConfig(Config):
    """The audit of a judge."""

    root: str = Field(description="folder or URL under which all tables live")
    judge: JudgeConfig
    anchors: str = Field(SAMPLE, description="rated texts: 'sample', or an official CSV or JSONL with intensities")
    values: list[str] = Field([], description="values and theories by any spelling; empty: all that have rated texts")
    exam: AuditConfig = Field(AuditConfig(), description="size of the audit, and the marks to reach")
    vidb: str = Field(
        "",
        description="a version, or current: texts rated in points, or of known direction (the sample, or a file of ratings "
        "-1, 0 and 1), are scored against it too, for the judge's validity record",
    )
    dry_run: bool = Field(False, description="print the estimated cost of the audit, make no calls")
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _rated_by_people(self) -> "AuditJudgeConfig":
        if self.vidb and self.judge.kind == "simulated":
            raise ValueError(
                f"vidb ({self.vidb!r}) measures how far a judge is from people: set judge to one that is not simulated (kind "
                f"{self.judge.kind!r})"
            )
        return self


def dry_run(config: AuditJudgeConfig) -> list[CostEstimate]:
    """Return the estimated cost of the audit."""
    rated = audited_texts(config)
    windows = _windows(config, rated)
    measured = measured_speed(config.root, config.judge)
    size = {"texts": rated.num_rows, "values": len(set(windows["value"].to_pylist()))}
    return [estimate(config.judge, RANK, windows.slice(0, 50).to_pylist(), windows.num_rows, measured, **size)]


def audit_judge(config: AuditJudgeConfig) -> tuple[AuditResult, str]:
    """Rank the windows of the audit; return its result and the URL where it is stored for later jobs."""
    rated = audited_texts(config)
    windows = _windows(config, rated)
    build_id = digest(__version__, windows["window_id"].to_pylist(), fingerprint(config.judge))
    out = Build(config.root, "rankings", f"a-{build_id}")
    manifest = store.reusable(out)
    if not manifest:
        # Invalid answers are what an audit measures.
        stage = AnswerStage(out, RANK, config.exam.max_broken, windows.num_rows, lost_setting="exam.max_broken")
        started, before = time.monotonic(), stage.answered()
        collect_answers(config.judge, stage, functools.partial(unanswered, windows), windows.num_rows, "audit")
        seconds = time.monotonic() - started if not before else 0.0
        totals = check_answers(stage, windows.num_rows, 1.0, "audit")
        check_lost_calls(stage, "audit")
        settings = {"judge": config.judge.public(), "fingerprint": fingerprint(config.judge), "seconds": seconds}
        manifest = store.commit(out, rankings_details(totals, **settings), files=stage.finish())
    seconds = manifest.details(RankingsDetails).seconds
    created = datetime.now(UTC).isoformat(timespec="seconds")
    result = audit_result(rated, store.read_table(out), config.exam, seconds, config.judge.price, created)
    url = _url(config.root, config.judge)
    store.write_record(url, result)
    return result, url


def stored_audit(root: str, judge: AnyJudge) -> AuditResult | None:
    """Return the stored audit result of a judge; None if it was not audited."""
    try:
        return store.read_record(_url(root, judge), AuditResult, "the result of an audit")
    except FileNotFoundError:
        return None
    except DamageError as error:
        raise DamageError(f"{error}; run python -m jobs.audit_judge again: its answers are kept") from error


def measured_speed(root: str, judge: AnyJudge) -> MeasuredSpeed | None:
    """Return the speed and tokens per window that the audit measured; None without a measurement."""
    result = stored_audit(root, judge)
    if result is None or not result.windows_per_second:
        return None
    return MeasuredSpeed(result.windows_per_second, result.tokens_in, result.tokens_out, RANK.table)


def check_admitted(root: str, judge: AnyJudge, policy: Policy) -> str:
    """Return the note about a judge's audit that goes into everything it judges.

    Raises:
        InputError: the judge failed its audit, or was not audited though `policy` requires it.
    """
    result = stored_audit(root, judge)
    if result is None:
        if policy == "require":
            raise InputError(
                f"judge {judge.name!r} has not been audited under {root}; run python -m jobs.audit_judge with it, "
                "or set audit=refuse"
            )
        return "not audited"
    if result.passed:
        return f"passed its audit of {result.created}"
    failed = f"failed its audit of {result.created}: {'; '.join(result.reasons)}"
    if policy != "ignore":
        raise InputError(f"judge {judge.name!r} {failed}. Use another judge, or set audit=ignore to use it anyway")
    log.warning("judge %r %s; used because audit=ignore", judge.name, failed)
    return f"{failed}; used anyway (audit=ignore)"


def check_panel_admitted(root: str, voters: list[AnyJudge], policy: Policy) -> dict[str, str]:
    """Return the note about each voter's audit, by name; raises like `check_admitted`."""
    return {voter.name: check_admitted(root, voter, policy) for voter in voters}


def audited_texts(config: AuditJudgeConfig) -> pa.Table:
    """Return the rated texts of an audit."""
    rated = rated_texts(config.anchors, expand(config.values))
    return with_judge_truth(config.judge, rated)


def _windows(config: AuditJudgeConfig, rated: pa.Table) -> pa.Table:
    """The windows of the audit with their texts."""
    windows = plan_audit(rated, config.exam)
    texts = dict(zip(rated["text_id"].to_pylist(), rated["text"].to_pylist(), strict=True))
    return in_folder(with_texts(windows, texts), "")


def _url(root: str, judge: AnyJudge) -> str:
    return store.audit_url(root, fingerprint(judge))
