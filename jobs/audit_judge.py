"""Examine a judge on anchors of known intensity; jobs under the same root refuse a judge that failed.

python -m jobs.audit_judge conf/audit_judge/tiny.yaml
"""

from valueflow.config import run_job
from valueflow.distributed.audit import AuditJudgeConfig, audit_judge, dry_run
from valueflow.distributed.cluster import session
from valueflow.judging.audit.exam import AuditResult
from valueflow.judging.fingerprint import fingerprint
from valueflow.report.audit_page import audit_page
from valueflow.report.terminal import cost_table
from valueflow.store import report_url, write_bytes

SCHEMA = AuditJudgeConfig


def main(config: AuditJudgeConfig) -> AuditResult | None:
    """Examine, print the verdict, its reasons and where the page is."""
    with session(config.cluster):
        if config.dry_run:
            print(cost_table(dry_run(config)))
            return None
        verdict, url = audit_judge(config)
    page = report_url(config.root, f"audit-{fingerprint(config.judge)}")
    write_bytes(page, audit_page(verdict, config.judge.public()).encode())
    print(f"judge {verdict.judge}: {'passed' if verdict.passed else 'REFUSED'}")
    for reason in verdict.reasons:
        print(f"- {reason}")
    print(f"verdict: {url}\nreport: {page}")
    return verdict


if __name__ == "__main__":
    run_job(SCHEMA, main)
