"""A job as a command: from the command line to an exit code, one attempt of the same work at a time."""

from valueflow.job.run import run_config, run_job
from valueflow.job.work import work_of

__all__ = ["run_config", "run_job", "work_of"]
