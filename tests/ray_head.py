"""A head node on this machine that asks for a token."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kills import kill_tree
from moto_bucket import free_port

BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef0123456789abcdef"


class Head(NamedTuple):
    """Its dashboard, and the environment of commands that have the token; Python's own commands come first on the path."""

    url: str
    environment: dict[str, str]

    def without_token(self, home: Path) -> dict[str, str]:
        """The environment of who has no token."""
        return {k: v for k, v in self.environment.items() if not k.startswith("RAY_AUTH")} | {"HOME": str(home)}


@contextlib.contextmanager
def head_node(folder: Path) -> Iterator[Head]:
    """Run a head node until the end of the block."""
    port, dashboard = free_port(), free_port()
    # The submitting side must say that it uses tokens.
    environment = os.environ | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "PATH": f"{BIN}:{os.environ['PATH']}",
    }  # fmt: skip
    (folder / "token").write_text(TOKEN)
    start = [
        str(BIN / "ray"), "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=8",
        "--disable-usage-stats", f"--temp-dir=/tmp/vf-{port}", "--dashboard-agent-listen-port=0", "--block",
    ]  # fmt: skip
    head = subprocess.Popen(
        start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_for(f"http://127.0.0.1:{dashboard}/api/version")
        yield Head(f"http://127.0.0.1:{dashboard}", environment)
    finally:
        kill_tree(head, 20)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:  # it answers, and asks for a token
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"nobody answers at {url}")
