"""A root on S3 whose answers are lost, refused or damaged on the way: a proxy before moto's server fails on purpose."""

import contextlib
import http.client
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pytest

from valueflow import retry, store
from valueflow.errors import InputError, StorageError
from valueflow.records import SCHEMAS
from valueflow.store import Build, ResponsesDetails, VidbDetails

pytest.importorskip("s3fs")
pytestmark = pytest.mark.timeout(180)

Fault = Callable[[str, str, bytes], str]


class Proxy(ThreadingHTTPServer):
    """Passes requests on. `fault(method, path, body)`: "" passes, "lost" passes but drops the answer, else an error's code."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target)
        self.fault: Fault = lambda method, path, body: ""
        self.calls: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.append(f"{self.command} {self.path}")
        fault = self.server.fault(self.command, self.path, body)
        if fault and fault not in ("lost", "cut"):
            status, _, code = fault.partition(" ")
            content = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
            return self._answer(int(status), [("Content-Type", "application/xml")], None if self.command == "HEAD" else content)
        connection = http.client.HTTPConnection(self.server.target.hostname or "", self.server.target.port or 80)
        connection.request(self.command, self.path, body, dict(self.headers))
        reply = connection.getresponse()
        content, headers = reply.read(), [(k, v) for k, v in reply.getheaders() if k.lower() not in ("transfer-encoding",)]
        if fault == "lost":
            self.close_connection = True
            return None
        if self.command == "HEAD":
            return self._answer(reply.status, headers, None)
        return self._answer(reply.status, headers, content, cut=fault == "cut")

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes | None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if content is None or name.lower() != "content-length":
                self.send_header(name, value)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write((content or b"")[: 5 if cut else None])
        self.close_connection = self.close_connection or cut

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on


@pytest.fixture
def s3(bucket, tmp_path, monkeypatch) -> Iterator[tuple[str, Proxy]]:
    """A root of this test in the bucket, and the proxy that its requests pass."""
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"])
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setattr(retry, "BACKOFF", 0.01)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield f"{bucket}/{tmp_path.name}", proxy
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    proxy.shutdown()


def version(root: str, name: str) -> str:
    build = Build(root, "vidb", name)
    store.write_part(build, SCHEMAS["vidb"].empty_table(), "0")
    store.commit(build, VidbDetails())
    return name


def first(matches: Callable[[str, str], bool], fault: str, times: int = 1) -> Fault:
    """The first so many requests that match fail."""
    left = [times]

    def of(method: str, path: str, body: bytes) -> str:
        if not left[0] or not matches(method, path):
            return ""
        left[0] -= 1
        return fault

    return of


def writes_pointer(method: str, path: str) -> bool:
    return method == "PUT" and "CURRENT" in path


@pytest.mark.parametrize(
    "fault", ["lost", "409 ConditionalRequestConflict", "412 PreconditionFailed", "500 InternalError", "503 SlowDown"]
)
@pytest.mark.parametrize("earlier", [False, True])
def test_a_publication_whose_answer_fails_is_published_once(s3, fault, earlier):
    root, proxy = s3
    if earlier:
        store.publish(root, version(root, "v-0"), store.current(root))
    seen, name = store.current(root), version(root, "v-1")
    proxy.fault = first(writes_pointer, fault)
    store.publish(root, name, seen)
    assert store.current(root)[:2] == ("v-1", 1 + earlier)


def test_another_attempt_of_the_same_command_has_published(s3):
    root, _ = s3
    seen, name = store.current(root), version(root, "v-1")
    store.publish(root, name, seen)
    before = store.current(root)
    store.publish(root, name, seen)
    assert store.current(root) == before


def test_a_publication_between_reading_and_writing_is_not_replaced(s3):
    """Another job publishes after this one has compared: the condition of the write must be that of the bytes compared."""
    root, proxy = s3
    store.publish(root, version(root, "v-0"), store.current(root))
    seen, names = store.current(root), [version(root, name) for name in ("v-1", "v-2")]
    real, done = proxy.fault, []

    def meanwhile(method: str, path: str, body: bytes) -> str:
        if writes_pointer(method, path) and not done:
            done.append(path)
            proxy.fault = real
            store.publish(root, names[1], seen)
        return ""

    proxy.fault = meanwhile
    with pytest.raises(InputError, match="'v-2' was published while 'v-1'"):
        store.publish(root, names[0], seen)
    assert store.current(root).version == "v-2"


@pytest.mark.parametrize("number", range(2, 6))
def test_a_publication_between_any_two_requests_is_not_replaced(s3, number):
    root, proxy = s3
    store.publish(root, version(root, "v-0"), store.current(root))
    seen, names = store.current(root), [version(root, name) for name in ("v-1", "v-2")]
    calls: list[str] = []
    won: list[str] = []

    def publish(name: str) -> None:
        with contextlib.suppress(InputError):
            store.publish(root, name, seen)
            won.append(name)

    def meanwhile(method: str, path: str, body: bytes) -> str:
        if "CURRENT" in path:
            calls.append(path)
            if len(calls) == number:
                proxy.fault = lambda method, path, body: ""
                publish(names[1])
        return ""

    proxy.fault = meanwhile
    publish(names[0])
    assert (*won, 2) == store.current(root)[:2]


@pytest.mark.parametrize("fault", ["500 InternalError", "503 SlowDown", "400 RequestTimeout", "lost", "cut"])
def test_reads_on_s3_outlast_weather_and_nothing_is_removed(s3, fault):
    root, proxy = s3
    build = Build(root, "responses", "b1")
    rows = pa.table({name: ["a"] for name in SCHEMAS["responses"].names})
    store.write_part(build, rows, "0")
    store.commit(build, ResponsesDetails())
    proxy.fault = first(lambda method, path: method == "GET" and "part-0" in path, fault, times=2)
    assert store.committed_ids(build, "response_id").tolist() == [b"a"]
    proxy.fault = first(lambda method, path: method == "GET" and "part-0" in path, fault, times=2)
    assert store.reusable(build)
    assert store.part_paths(build) == ["part-0.parquet"]


def test_a_store_that_refuses_for_good_is_one_sentence(s3, monkeypatch):
    root, proxy = s3
    monkeypatch.setattr("valueflow.store.files.ATTEMPTS", 2)
    proxy.fault = lambda method, path, body: "403 AccessDenied"
    with pytest.raises(StorageError, match="permission") as raised:
        store.current(root)
    assert "\n" not in str(raised.value)


def test_damage_on_s3_is_set_aside(s3):
    root, _ = s3
    build = Build(root, "responses", "b1")
    rows = pa.table({name: ["a"] for name in SCHEMAS["responses"].names})
    store.write_part(build, rows, "0")
    store.commit(build, ResponsesDetails())
    before = store.read_bytes(build.manifest_url)
    store.write_bytes(f"{build.url}/part-0.parquet", b"PAR1 cut off")
    assert store.reusable(build) is None
    assert store.read_bytes(f"{build.url}/part-0.parquet.bad") == b"PAR1 cut off"
    assert json.loads(store.read_bytes(f"{build.url}/_manifest.json.bad"))["build_id"] == "b1"
    store.write_part(build, rows, "0")
    store.commit(build, ResponsesDetails())
    assert store.read_bytes(build.manifest_url) == before
