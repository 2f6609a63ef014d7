"""A root on S3 whose answers are lost, refused or damaged on the way: a proxy before moto's server fails on purpose."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

import fsspec
import pyarrow as pa
import pytest
from s3_proxy import Fault, Proxy

from valueflow import retry, store
from valueflow.errors import InputError, StorageError
from valueflow.records import SCHEMAS
from valueflow.store import Build, ResponsesDetails, VidbDetails

pytest.importorskip("s3fs")
pytestmark = [pytest.mark.component, pytest.mark.timeout(180)]


@pytest.fixture
def s3(bucket, tmp_path, monkeypatch) -> Iterator[tuple[str, Proxy]]:
    """A root of this test in the bucket, and the proxy that its requests pass."""
    with Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(retry, "BACKOFF", 0.01)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield f"{bucket}/{tmp_path.name}", proxy
        fsspec.get_filesystem_class("s3").clear_instance_cache()


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


def test_a_committed_part_takes_at_most_three_requests(s3):
    """Its file, its record in the journal, and what a rerun reads to know its ids."""
    root, proxy = s3
    build, parts = Build(root, "responses", "b1"), 32
    journal = store.Journal(build, "response_id")
    for n in range(parts):
        rows = pa.table({name: [f"{n}"] for name in SCHEMAS["responses"].names})
        journal.add(store.write_recorded(build, rows, f"{n}", "", "response_id"))
    journal.save()
    assert store.Journal(build, "response_id").load()[""].tolist() == sorted(f"{n}".encode() for n in range(parts))
    assert len(proxy.calls) <= 3 * parts
    assert sum(call.startswith("PUT") for call in proxy.calls) <= parts + 2


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
