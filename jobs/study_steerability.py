"""Study what steered models express: effects, verdicts, refusals, side effects, composition; or plan a study.

python -m jobs.study_steerability conf/study_steerability/tiny.yaml
"""

from valueflow.console import say
from valueflow.job import run_job
from valueflow.report.steerability_page import verdict_table, write_study
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.planner import plan, plan_table
from valueflow.steering.study.run import StudyResult, study
from valueflow.store import study_url

SCHEMA = StudyConfig


def main(config: StudyConfig) -> StudyResult | None:
    """Study, print the verdicts and where page and tables are; with plan=true print what a study takes."""
    if config.plan:
        say(plan_table(config.planned, plan(config.planned)))
        return None
    result = study(config)
    page = write_study(result)
    say(verdict_table(result))
    say(f"tables: {study_url(config.root, result.study_id)}\nreport: {page}")
    return result


if __name__ == "__main__":
    run_job(SCHEMA, main)
