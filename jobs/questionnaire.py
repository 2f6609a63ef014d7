"""Put a questionnaire to models, plainly and under personas of a value and level: a second read-out beside what they write.

python -m jobs.questionnaire conf/questionnaire/tiny-llm.yaml
"""

from valueflow.choices.study import ChoiceStudy
from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.questionnaire import QuestionnaireConfig, administer
from valueflow.job import run_job
from valueflow.report.questionnaire_page import questionnaire_page, scale_table
from valueflow.report.study_files import write_choice_study
from valueflow.store import answers_url

SCHEMA = QuestionnaireConfig


def main(config: QuestionnaireConfig) -> ChoiceStudy:
    """Let the models answer; print their scales and where page and tables are."""
    with session(config.cluster):
        result = administer(config)
    page = write_choice_study(result, "questionnaire", questionnaire_page(result))
    say(scale_table(result))
    say(f"tables: {answers_url(config.root, result.study_id)}\nreport: {page}")
    return result


if __name__ == "__main__":
    run_job(SCHEMA, main)
