"""The shipped reverse proxy, infra/serve/nginx.conf, as a real nginx on loopback."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.server import eventually
from moto_bucket import free_port

CONFIG = Path(__file__).parents[1] / "infra" / "serve" / "nginx.conf"


def nginx() -> str:
    """The path of nginx; the test is skipped without one."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if path is None:
        pytest.skip("no nginx is installed")
    return path


@contextlib.contextmanager
def reverse_proxy(folder: Path, upstream: int) -> Iterator[int]:
    """Run nginx with the shipped configuration in front of a port of this machine; yields its own port."""
    port, text = free_port(), CONFIG.read_text("utf-8")
    for shipped, changed in (
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("server 127.0.0.1:8000 ", f"server 127.0.0.1:{upstream} "),
        ("worker_processes auto;", "worker_processes 1;"),
    ):
        assert text.count(shipped) == 1
        text = text.replace(shipped, changed)
    (folder / "nginx.conf").write_text(text, "utf-8")
    # The folders of a test are closed to the user to which a root's nginx would change.
    user = "user root; " if os.getuid() == 0 else ""
    command = [nginx(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", f"{user}daemon off;"]
    with (folder / "error.log").open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors)
    try:
        eventually(lambda: (folder / "nginx.pid").exists() or process.poll() is not None)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)
