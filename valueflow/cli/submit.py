"""`valueflow submit`: a job on a Ray cluster."""

import importlib
import os
import pkgutil
from argparse import Namespace
from typing import Any

from valueflow.config import load, read_yaml
from valueflow.errors import InputError, allowed
from valueflow.job import work_of
from valueflow.records import digest

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


async def submit(args: Namespace) -> int:
    """Check the config here, run the job on the cluster, and return its exit code.

    Raises:
        InputError: there is no such job, its config is invalid, or the cluster does not take it.
    """
    if any(map(os.environ.get, TOKENS)):  # who has a token means to use it; Ray reads this once, when it is loaded
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # By name: jobs are above this room, and the user says which one.
    names = [module.name for module in pkgutil.iter_modules(importlib.import_module("jobs").__path__)]
    if args.job not in names:
        raise InputError(f"there is no job {args.job!r}; {allowed(args.job, names)}")
    config = load(importlib.import_module(f"jobs.{args.job}").SCHEMA, args.config, args.override)
    from valueflow.distributed.submit import Submission, run  # Ray takes seconds to load

    base = f"{args.job}-{digest(work_of(args.job, config), getattr(config, 'root', ''))}"
    submission = Submission(args.job, args.config, args.override, base, _runtime_env(args.runtime_env))
    return await run(submission, args.address, args.retry, not args.no_wait)


def _runtime_env(path: str) -> dict[str, Any]:
    settings = read_yaml(path).values if path else {}
    if not isinstance(settings, dict) or "working_dir" in settings:
        raise InputError(f"{path} must be a mapping of Ray's runtime environment without working_dir, which this command makes")
    return settings
