"""Audit a judge on rated texts; jobs under the same root refuse a judge that failed.

python -m jobs.audit_judge conf/audit_judge/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.audit import AuditJudgeConfig, audit_judge, dry_run
from valueflow.distributed.cluster import session
from valueflow.distributed.evaluation.validity import measure_validity
from valueflow.job import run_job
from valueflow.judging.audit.result import AuditResult
from valueflow.judging.fingerprint import fingerprint
from valueflow.report.audit_page import audit_page
from valueflow.report.terminal import cost_table, figure_table, validity_line
from valueflow.store import report_url, write_bytes

SCHEMA = AuditJudgeConfig


def main(config: AuditJudgeConfig) -> AuditResult | None:
    """Audit the judge; print the result, its reasons and the URL of the page."""
    with session(config.cluster):
        if config.dry_run:
            say(cost_table(dry_run(config)))
            return None
        result, url = audit_judge(config)
        measured = measure_validity(config)
    page = report_url(config.root, f"audit-{fingerprint(config.judge)}")
    write_bytes(page, audit_page(result, config.judge.public()).encode())
    say(f"judge {result.judge}: {'passed' if result.passed else 'FAILED'}{result.detector and f', {result.detector}'}")
    for reason in result.reasons:
        say(f"- {reason}")
    say(figure_table(result))
    say(f"audit: {url}\nreport: {page}")
    if measured:
        say(validity_line(*measured))
    return result


if __name__ == "__main__":
    run_job(SCHEMA, main)
