"""A version whose files are deleted or damaged while it is served, and judges that are misconfigured: answers tell no paths."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fakes.server import eventually, listening
from served import log_lines, refused

from serve.http import create
from serve.settings import HttpConfig
from valueflow import vidb
from valueflow.errors import InputError
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.online import online_judge
from valueflow.service.local import LOCAL_LIMITS
from valueflow.service.service import EmbeddingBackend, Service
from valueflow.store import current, publish
from valueflow.theories import operational

JUDGE = SimulatedJudge(spread=3.0)
VALUES = list(operational())[:12]  # more than once fitted into a cache of rows
SCORE = {"texts": ["I help my neighbour."], "values": VALUES[:1]}


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "bucket-of-ours"
    folder.mkdir()
    rows = [
        {"theory": value.theory, "value": value.node, "text": f"anchor {i}", "intensity": i / 4 - 5}
        for value in VALUES
        for i in range(40)
    ]
    (folder / "anchors.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    version, _ = vidb.import_version([str(folder / "anchors.jsonl")], "MIT", "made up", str(folder))
    publish(str(folder), version.build_id, current(str(folder)))
    return folder


def service_of(root: Path, ask_judge=None, embedding: EmbeddingBackend | None = None) -> Service:
    return Service(vidb.load(str(root)), JUDGE, ask_judge or online_judge(JUDGE), LOCAL_LIMITS, embedding)


@contextmanager
def client_of(service: Service) -> Iterator[httpx.Client]:
    with (
        listening(create(lambda: service, HttpConfig())) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        yield http


def all_answers(http: httpx.Client) -> dict[str, httpx.Response]:
    pair = {"first": "a", "second": "b", "values": VALUES[:1]}
    posted = {"score": SCORE, "score/stream": SCORE, "profile": SCORE, "compare": pair}
    looked_up = ["theories", "vidb", *(f"values/{v}" for v in VALUES), *(f"values/{v}/anchors" for v in VALUES)]
    return {path: http.post(f"/v1/{path}", json=body) for path, body in posted.items()} | {
        path: http.get(f"/v1/{path}") for path in looked_up
    }


def without_request_id(answer: httpx.Response) -> str:
    return answer.text.replace(answer.headers["x-request-id"], "")


def part_of(root: Path, value: str) -> Path:
    theory, _, node = value.partition(":")
    (part,) = root.glob(f"vidb/*/theory={theory}/value={node}/*.parquet")
    return part


DAMAGE = {
    "deleted": lambda root: shutil.rmtree(root / "vidb"),
    "part deleted": lambda root: part_of(root, VALUES[0]).unlink(),
    "part truncated": lambda root: part_of(root, VALUES[0]).write_bytes(b"PAR1"),
    "bytes changed": lambda root: part_of(root, VALUES[0]).write_bytes(bytes(part_of(root, VALUES[0]).stat().st_size)),
    "manifest damaged": lambda root: next(root.glob("vidb/*/_manifest.json")).write_text("{"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_loaded_version_goes_on_answering_when_its_files_are_lost(root, how):
    service = service_of(root)
    service.load()
    with client_of(service) as http:
        before = all_answers(http)
        DAMAGE[how](root)
        after = all_answers(http)
        assert {answer.status_code for answer in before.values()} == {200}
        assert {path: without_request_id(answer) for path, answer in after.items()} == {
            path: without_request_id(answer) for path, answer in before.items()
        }
        assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize("how", DAMAGE)
def test_rows_that_cannot_be_read_are_a_503_without_paths_whose_cause_is_logged(root, how, caplog):
    service, path = service_of(root), f"/v1/values/{VALUES[0]}"
    DAMAGE[how](root)
    with caplog.at_level(logging.INFO), client_of(service) as http:
        answers = [http.get(path), http.get(f"{path}/anchors"), http.post("/v1/score", json=SCORE), http.get("/v1/vidb")]
        answers.append(http.post("/v1/score/stream", json=SCORE))
        for answer in answers:
            refused(answer, 503, "unavailable")
            for secret in (str(root), "bucket", "parquet", "manifest", "vidb/", "rerun", "delete"):
                assert secret not in answer.text
        refused(http.get("/v1/values/svt:powr"), 404, "unknown-value")
        refused(http.get("/readyz"), 503, "not-ready")
        assert http.get("/healthz").status_code == 200
        eventually(lambda: len(log_lines(caplog.records)) == 8)
    logged = [line for line in log_lines(caplog.records) if line["reason"] == "unavailable"]
    assert len(logged) == len(answers)
    assert all(str(root) in line["traceback"] for line in logged)


def test_other_numbers_in_a_file_of_a_version_are_damage(root):
    part = part_of(root, VALUES[0])
    part.write_bytes(part.read_bytes()[:-1] + b"2")
    service = service_of(root)
    with pytest.raises(InputError, match=r"part-\w+.parquet is damaged"):
        service.load()


async def misconfigured(*_: object) -> None:
    raise InputError("put a valid key into the environment variable that key_env names ('OUR_KEY')")


@pytest.mark.parametrize("mode", ["ranked", "fast"])
def test_what_only_the_operator_can_change_is_no_error_of_the_caller(root, mode, caplog):
    class Fitted:
        agreement = dict.fromkeys(VALUES)

    embedding = EmbeddingBackend("encoder", misconfigured, Fitted(), lambda z_TD, top: [])
    service = service_of(root, misconfigured, embedding)
    with caplog.at_level(logging.INFO), client_of(service) as http:
        answers = [http.post("/v1/score", json=SCORE | {"mode": mode})]
        answers += [http.post("/v1/extract", json={"texts": ["a"]})]
        for answer in answers:
            refused(answer, 503, "unavailable")
            assert "OUR_KEY" not in answer.text
        eventually(lambda: len(log_lines(caplog.records)) == 2)
    assert all("OUR_KEY" in line["traceback"] for line in log_lines(caplog.records))
