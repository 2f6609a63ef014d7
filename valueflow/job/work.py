"""The work of a job: what two attempts must have in common to be attempts of the same thing."""

from typing import Any

from valueflow import __version__
from valueflow.config import Config
from valueflow.records import digest

# Where the tables are, under which a work has its lease, and where the job runs.
PLACE = ("root", "cluster")


def work_of(job: str, config: Config) -> str:
    """Return the name of a job's work: equal for equal settings and code, wherever it runs. Secrets count as written."""
    settings: dict[str, Any] = {name: value for name, value in config.public().items() if name not in PLACE}
    return f"{job}-{digest(__version__, settings)}"
