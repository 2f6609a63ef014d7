"""End a job as a lost machine does: its processes by SIGKILL, or its files as they were at an earlier moment."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from valueflow import store


def kill_tree(process: subprocess.Popen, seconds: float = 0) -> None:
    """End a process and all it has started, also in sessions of their own: SIGTERM, and SIGKILL after so many seconds."""
    started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    if seconds:
        process.terminate()
        started = psutil.wait_procs(started, seconds)[1]
    for one in started:
        if one.is_running():
            one.kill()
    process.wait()


def run_and_kill(command: Sequence[str], ready: Callable[[], object], seconds: float = 90) -> None:
    """Kill -9 the command and its children once `ready`, or after so many seconds; it must not have ended before."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "the job ended before it could be killed"
    kill_tree(process)


def rewind(build: store.Build, num_parts: int) -> None:
    """Bring a root back to when a build had so many parts, the last of them half written: later files are deleted."""
    parts = sorted((Path(build.url, path) for path in store.part_paths(build)), key=lambda path: path.stat().st_mtime_ns)
    last = parts[num_parts - 1]
    moment = last.stat().st_mtime_ns
    for path in Path(build.root).rglob("*"):  # does not enter linked tables
        if path.is_file() and path.stat().st_mtime_ns > moment:
            path.unlink()
    last.write_bytes(last.read_bytes()[:100])
