"""A version that somebody hands over, whose manifest names a judge; and a listener that must hear nothing."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valueflow import store, vidb
from valueflow.store import VidbDetails

SECRET = "planted-secret-7f3a"


def foreign_version(root: Path, judge: dict[str, Any] | None, num_texts: int = 60) -> store.Build:
    """Write and publish a version whose manifest says that `judge` built it; None: an imported version."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"theory": "svt", "value": "benevolence", "text": f"anchor {i}", "intensity": i / 5 - 6} for i in range(num_texts)]
    (root / "anchors.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    version, _ = vidb.import_version([str(root / "anchors.jsonl")], "MIT", "made up", str(root))
    if judge is not None:
        written = store.require_manifest(version)
        details = written.details(VidbDetails).model_copy(update={"resolved": {"judge": judge}, "judge": judge.get("name", "")})
        store.commit(version, VidbDetails.model_validate(details.model_dump()), written_inputs(written), written.files)
    store.publish(str(root), version.build_id, store.current(str(root)))
    return version


def written_inputs(manifest: store.Manifest) -> list[store.Build | str]:
    """The inputs of a manifest as `commit` takes them."""
    return [source.build or source.url for source in manifest.inputs]


@contextlib.contextmanager
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """Accept connections on loopback; yields the URL and whatever arrives, an empty entry for a bare connection."""
    heard: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(2)
                    heard.append(b"")
                    with contextlib.suppress(OSError):
                        heard.append(connection.recv(1 << 20))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", heard
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


HOSTILE = ("openai", "openai with extras", "vllm", "encoder folder", "encoder hub", "encoder url", "unknown setting", "shell")


def hostile_judge(name: str, url: str, folder: Path) -> dict[str, Any]:
    """Return settings of a judge that would send texts and a secret to `url`, or run the Python of `folder`.

    If that Python runs, it writes the file `ran` into the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "evil.Config"}}), "utf-8")
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n", "utf-8")
    endpoint = {"kind": "openai", "name": "o", "model": "m", "url": url, "key_env": "AWS_SECRET_ACCESS_KEY"}
    judges: dict[str, dict[str, Any]] = {
        "openai": endpoint,
        "openai with extras": endpoint | {"extra": {"headers": {"x": "y"}}, "structured": "none"},
        "vllm": {
            "kind": "vllm", "name": "v", "model": str(folder), "engine": {"trust_remote_code": True},
            "env": {"PYTHONPATH": "/"},
        },
        "encoder folder": {"kind": "encoder", "name": "e", "model": str(folder)},
        "encoder hub": {"kind": "encoder", "name": "e", "model": "someone/model"},
        "encoder url": {"kind": "encoder", "name": "e", "model": url},
        "unknown setting": {"kind": "encoder", "name": "e", "headers": {"a": "b"}},
        "shell": {"kind": "shell", "name": "s", "command": "true"},
    }  # fmt: skip
    return judges[name]
