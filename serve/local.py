"""The service on this machine alone: with a Ray of its own, which listens on 127.0.0.1 only and asks for a token.

python -m serve.local root=runs/demo
python -m serve.local root=runs/demo http.max_in_flight=2 --port 8001
python -m serve.local infra/serve/laptop.yaml
"""

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from valueflow.console import one_line, say
from valueflow.errors import InputError

HOST, PORT = "127.0.0.1", 8000
# For this process and all that Ray starts.
ENVIRONMENT = {
    "RAY_ADDRESS": "local",  # a new Ray, whatever runs or is named elsewhere
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there: every part of Ray listens on 127.0.0.1 instead of on all interfaces
    # Ray's HTTP proxy would repeat any X-Request-Id that a client sends.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.request_ids.proxy_middlewares",
    "RAY_DEDUP_LOGS": "0",  # otherwise a request's line is left out if another replica has written a similar one
}


def main(argv: list[str] | None = None) -> None:
    """Serve until interrupted; a user's mistake is one line on stderr and code 2."""
    parser = argparse.ArgumentParser(
        "python -m serve.local", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="+", help="a Serve config, or settings key=value (root is required)")
    parser.add_argument("--port", type=int, help=f"of the page and the API; default {PORT}, or that of the Serve config")
    options = parser.parse_args(argv)
    os.environ.update(ENVIRONMENT)
    # Ray reads its environment when it is imported.
    from ray.serve.scripts import cli

    from serve.check import check

    try:
        where, content = _content(options.what)
        port = _bring_home(content, where, options.port)
        check(content, where)
        _require_free(port)
    except InputError as error:
        say(f"error: {one_line(str(error))}", sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "serve.yaml")
        path.write_text(yaml.safe_dump(content), "utf-8")
        cli(["run", str(path)])


def _content(what: list[str]) -> tuple[str, dict[str, Any]]:
    """The Serve config of the command line, and its name in messages."""
    from serve.check import IMPORT_PATH, read

    if len(what) == 1 and "=" not in what[0]:
        return what[0], read(what[0])
    if wrong := [word for word in what if "=" not in word]:
        raise InputError(f"{wrong[0]!r} is no setting; write key=value, for example root=runs/demo")
    args = dict(word.split("=", 1) for word in what)
    application = {"name": "valueflow", "route_prefix": "/", "import_path": IMPORT_PATH, "args": args}
    logging = {"encoding": "JSON", "enable_access_log": False}
    return "settings", {"proxy_location": "HeadOnly", "logging_config": logging, "applications": [application]}


def _bring_home(content: dict[str, Any], where: str, port: int | None) -> int:
    """Set the host, the port and absolute roots in a Serve config; returns the port."""
    from serve.app import absolute
    from serve.check import parse

    parse(content, where)
    http = content.setdefault("http_options", {})
    if http.setdefault("host", HOST) != HOST:
        raise InputError(f"{where}: http_options.host is {http['host']!r}; this command serves {HOST} only, see serve deploy")
    http["port"] = port or http.get("port", PORT)
    for application in content["applications"]:
        args = application.get("args", {})
        if isinstance(root := args.get("root"), str):
            args["root"] = absolute(root)
    return int(http["port"])


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} of {HOST}: {error}; choose another with --port") from None


if __name__ == "__main__":
    main()
