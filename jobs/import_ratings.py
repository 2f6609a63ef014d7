"""Read what raters sent back, check them, and write one file of ratings for builds and audits.

python -m jobs.import_ratings conf/import_ratings/tiny.yaml
"""

from valueflow.console import say
from valueflow.job import run_job
from valueflow.people.results import ImportRatingsConfig, Summary, import_ratings
from valueflow.report.raters import agreement_table

SCHEMA = ImportRatingsConfig


def main(config: ImportRatingsConfig) -> Summary:
    """Import the ratings; print agreement, raters and the URL of the ratings."""
    summary = import_ratings(config)
    say(agreement_table(summary))
    if summary.ratings_url:
        say(f"ratings: {summary.ratings_url}")
    return summary


if __name__ == "__main__":
    run_job(SCHEMA, main)
