"""Submit a job to a Ray cluster, or attach to the same one that runs; follow its log; end with its exit code."""

import asyncio
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import requests
from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from valueflow import retry
from valueflow.console import one_line, say
from valueflow.distributed.address import TOKENS
from valueflow.errors import BudgetSpent, DeadlinePassed, InputError
from valueflow.job.upload import Upload, fill

T = TypeVar("T")
# How often a request is tried that a head node does not answer: about two minutes.
ATTEMPTS = 12
STOPPED, KILLED = 143, 128
YOUNG = "No available agent to submit job"  # what a head that has just started answers, after ten seconds
# After these another run of the same command ends the same way: success, an error of the user, a limit that the user has set.
FINAL = (0, InputError.exit_code, DeadlinePassed.exit_code, BudgetSpent.exit_code)


class Submission(NamedTuple):
    """A job to submit.

    Attributes:
        job: module of `jobs`.
        config: path of its YAML.
        overrides: `key.path=value` each.
        base: submission id of its first run; later ones end in -2, -3 …
        runtime_env: Ray's, without a working directory.
    """

    job: str
    config: str
    overrides: Sequence[str]
    base: str
    runtime_env: dict[str, Any]


async def run(submission: Submission, address: str | None, retries: int = 0, follow: bool = True) -> int:
    """Submit a job or attach to the run of it that has not ended, and return its exit code.

    A run that was killed, crashed, stalled or waited for capacity in vain is followed by another one, `retries` times; not one
    that was stopped, that says what the user must mend (exit code 2), or that has spent its time or budget (5, 6). A run
    resumes what the one before it has left.

    Raises:
        InputError: the cluster does not answer or refuses, or the upload is too large.
    """
    client = _client(address)
    for left in range(retries, -1, -1):
        name = _submit_or_attach(client, submission)
        if not follow:
            return 0
        details = await _follow(client, name)
        code = exit_code(details)
        outcome = details.status.value.lower()
        say(f"{name}: {outcome}, exit code {code}", sys.stderr)
        if details.status == JobStatus.FAILED and details.driver_exit_code is None:
            say(f"{name}: {one_line(details.message or '')[:1_000]}", sys.stderr)
        if code in FINAL or details.status == JobStatus.STOPPED or not left:
            return code
        say(f"running it again ({left} left)", sys.stderr)
        await asyncio.sleep(retry.backoff(retries - left))
    raise AssertionError("unreachable")


def exit_code(details: JobDetails) -> int:
    """Return the exit code of a job's own process, which `ray job submit` makes 0 or 1; as a shell tells that of a signal."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return STOPPED
    code = details.driver_exit_code
    if not code:
        return 1
    return code if code > 0 else KILLED - code


def _client(address: str | None) -> JobSubmissionClient:
    return _request("connect", lambda: JobSubmissionClient(address), address)


def _submit_or_attach(client: JobSubmissionClient, submission: Submission) -> str:
    """The submission id of the run that has not ended, which is submitted where there is none."""
    while True:
        runs = {details.submission_id: details for details in _request("list jobs", client.list_jobs)}
        number, name, last = 1, submission.base, ""
        while name in runs:
            last, number = name, number + 1
            name = f"{submission.base}-{number}"
        if last and not runs[last].status.is_terminal():
            say(f"{last}: attached, it is {runs[last].status.value.lower()}", sys.stderr)
            return last
        if _submit(client, submission, name):
            return name


def _submit(client: JobSubmissionClient, submission: Submission, name: str) -> bool:
    """Submit a run under a name; False where somebody has just done so."""
    with tempfile.TemporaryDirectory() as folder:
        upload = fill(Path(folder), submission.config)
        _check_size(upload)
        say(f"{name}: working directory of {upload.files:,} files, {upload.size / 1e6:.1f} MB", sys.stderr)
        command = ["python", "-m", f"jobs.{submission.job}", upload.config, *submission.overrides]
        runtime_env = {**submission.runtime_env, "working_dir": folder}
        try:
            _request(
                f"submit {name}",
                lambda: client.submit_job(entrypoint=shlex.join(command), submission_id=name, runtime_env=runtime_env),
            )
        except InputError:
            # Also where the request was repeated because its answer was lost.
            if any(details.submission_id == name for details in _request("list jobs", client.list_jobs)):
                return False
            raise
    say(f"{name}: submitted", sys.stderr)
    return True


def _check_size(upload: Upload) -> None:
    if upload.size >= GCS_STORAGE_MAX_SIZE:
        raise InputError(
            f"the working directory has {upload.size / 1e6:,.1f} MB, Ray takes less than {GCS_STORAGE_MAX_SIZE / 1e6:,.1f}: "
            "it holds ValueFlow's packages and the config; remove what does not belong there"
        )


async def _follow(client: JobSubmissionClient, name: str) -> JobDetails:
    """Print the log of a run from its beginning until it has ended."""
    shown, failures = 0, 0
    try:
        while True:
            position = 0
            try:
                async for text in client.tail_job_logs(name):
                    new, position = text[max(0, shown - position) :], position + len(text)
                    say(new, end="")
                    shown = max(shown, position)
            except (RuntimeError, OSError, aiohttp.ClientError) as error:
                failures += 1
                if failures > ATTEMPTS:
                    raise InputError(
                        f"cannot read the log of {name}: {error}. The job goes on; the same command attaches to it"
                    ) from error
            details = _request(f"look for {name}", lambda: client.get_job_info(name))
            if details.status.is_terminal():
                return details
            await asyncio.sleep(1.0)
    except asyncio.CancelledError:
        say(f"{name} goes on; the same command attaches to it, `ray job stop {name}` stops it", sys.stderr)
        raise


def _request(doing: str, request: Callable[[], T], address: str | None = None) -> T:
    """The result of a request to a head node, which is tried again as long as nobody answers."""
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except (ConnectionError, requests.ConnectionError, requests.Timeout) as error:
            # At the start nobody may be there at all: that is said soon.
            if attempt == (2 if doing == "connect" else ATTEMPTS - 1):
                where = f" at {address}" if address else ""
                raise InputError(
                    f"cannot {doing}: no Ray head node answers{where} ({one_line(str(error))[:300]}). Name its dashboard with "
                    "--address, or in RAY_API_SERVER_ADDRESS: http://host:8265"
                ) from error
            time.sleep(retry.backoff(attempt))
        except AuthenticationError as error:
            raise InputError(f"cannot {doing}: {one_line(str(error)).partition('. ')[0]}. {TOKENS}") from error
        except (RuntimeError, ValueError, requests.RequestException) as error:
            if YOUNG in str(error) and attempt < ATTEMPTS - 1:
                time.sleep(retry.backoff(attempt))
                continue
            raise InputError(f"cannot {doing}: {one_line(str(error))[:1_000]}") from error
    raise AssertionError("unreachable")
