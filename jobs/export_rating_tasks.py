"""Choose texts for people to rate, and write the files for them: CSV, Label Studio, Argilla.

python -m jobs.export_rating_tasks conf/export_rating_tasks/tiny.yaml
"""

from valueflow.console import say
from valueflow.job import run_job
from valueflow.people.results import export_tasks
from valueflow.people.selection import RatingTasksConfig
from valueflow.people.tasks import Task
from valueflow.report.raters import tasks_table

SCHEMA = RatingTasksConfig


def main(config: RatingTasksConfig) -> list[Task]:
    """Write the tasks; print how many each value has and where the files are."""
    tasks, files = export_tasks(config)
    say(tasks_table(tasks))
    for file in files:
        say(f"written: {file}")
    return tasks


if __name__ == "__main__":
    run_job(SCHEMA, main)
