"""Run a job in a process group of its own and kill all of it, as a machine that is lost does."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence


def run_and_kill(command: Sequence[str], ready: Callable[[], bool], seconds: float = 90) -> None:
    """Kill -9 the command and its children once `ready`, or after so many seconds; it must not have ended before."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "the job ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
