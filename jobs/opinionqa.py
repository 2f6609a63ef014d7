"""OpinionQA: damage in the file, a split without leaks, baselines, and how models answer that are told of a group.

python -m jobs.opinionqa conf/opinionqa/public.yaml items=steerable_dev.json
"""

from valueflow.choices.study import ChoiceStudy
from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.opinionqa import OpinionQaConfig, ask
from valueflow.job import run_job
from valueflow.profiles.opinionqa.baseline_table import Baselines, baselines
from valueflow.profiles.opinionqa.sides import read_sides
from valueflow.report.opinionqa_page import measure_table, opinionqa_page
from valueflow.report.study_files import write_choice_study
from valueflow.store import answers_url

SCHEMA = OpinionQaConfig


def main(config: OpinionQaConfig) -> Baselines | ChoiceStudy:
    """Print what is damaged and the baselines; let the models answer, print their table and where page and tables are."""
    sides = read_sides(config.items, config.seed)
    found = baselines(sides, config.seed)
    say("\n".join(found.lines()))
    if not config.models:
        return found
    with session(config.cluster):
        result = ask(config, sides)
    page = write_choice_study(result, "opinionqa", opinionqa_page(result))
    say(measure_table(result))
    say(f"tables: {answers_url(config.root, result.study_id)}\nreport: {page}")
    return result


if __name__ == "__main__":
    run_job(SCHEMA, main)
