"""The command line, asked in this process, and as a program where signals and pipes matter."""

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_api import VALUES, Fake, intensity, lines, problem, serving
from fastapi.responses import StreamingResponse

import valueflow
from valueflow import api, store
from valueflow.cli.main import main
from valueflow.client.protocol import LINE
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, EncoderJudge, SimulatedJudge
from valueflow.vidb.anchor_files import import_version

KEY = "vf-secret-0123456789"
TEXTS = ['We "helped", she said.', "I broke\nmy promise", "我们照顾了邻居的孩子"]
COLUMNS = ["index", "text", "value", "intensity", "low", "high", "num_windows", "num_failed", "error"]


class FakeService:
    """`valueflow.service.service.Service` with the numbers of the fake server; `problem` ends a stream after its first text."""

    problem: api.Problem | None = None

    async def stream(self, asked: api.StreamRequest, request_id: str) -> AsyncIterator[Any]:
        self.asked = asked
        if asked.values == ["svt:nothing"]:
            raise InputError("unknown value 'svt:nothing'")
        *made, end = [LINE.validate_json(line) for line in lines(asked.texts, VALUES)]
        for line in made[: 1 + len(VALUES)] if self.problem else made:
            yield line
        yield end.model_copy(update={"problem": self.problem})

    async def compare(self, asked: api.CompareRequest, request_id: str) -> api.CompareResponse:
        return api.CompareResponse.model_validate(Fake().good("compare", asked.model_dump()))

    async def profile(self, asked: api.ProfileRequest, request_id: str) -> api.ProfileResponse:
        return api.ProfileResponse.model_validate(Fake().good("profile", asked.model_dump()))

    async def extract(self, asked: api.ExtractRequest, request_id: str) -> api.ExtractResponse:
        return api.ExtractResponse.model_validate(Fake().good("extract", asked.model_dump()))

    def theories(self) -> api.TheoriesResponse:
        node = api.NodeInfo(id="svt:benevolence", name="B", definition="Care for one's own.", parents=[], scored=True)
        theory = api.TheoryInfo(id="svt", name="Schwartz", nodes=[node])
        return api.TheoriesResponse(theories=[theory, api.TheoryInfo(id="mft", name="Moral foundations", nodes=[])])

    def value(self, value: str) -> api.ValueResponse:
        return api.ValueResponse.model_validate(Fake().good(f"values/{value}", {}))


@pytest.fixture
def local(monkeypatch) -> FakeService:
    """The service in this process; `loaded` is what it was loaded with."""
    service, module = FakeService(), ModuleType("valueflow.service.local")

    def load(root: str, version: str = "current", judge: AnyJudge | None = None, fast: bool = False) -> FakeService:
        service.loaded, service.fast = (root, version, judge), fast
        return service

    module.local = load
    monkeypatch.setitem(sys.modules, "valueflow.service.local", module)
    monkeypatch.setattr(valueflow, "local", module, raising=False)
    for name in ("VALUEFLOW_SERVER", "VALUEFLOW_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return service


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    fake = Fake()
    with serving(fake.app) as fake.url:
        yield fake


@pytest.fixture
def run(capsys):
    """Runs a command and returns its code, its output and its lines on standard error."""

    def command(*words: object) -> tuple[int, str, list[str]]:
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err.splitlines()

    return command


@pytest.fixture
def table(tmp_path) -> Path:
    """A CSV of texts whose column is `said`."""
    path = tmp_path / "said.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "said"], *enumerate(TEXTS)])
    return path


def test_one_text_is_a_table_of_values(local, run):
    code, out, err = run("score", "We help.", "--value", "svt:benevolence", "--value", "mft", "--m", 5, "--mode", "ranked")
    sums = [f"{intensity('We help.', value):+.1f}" for value in VALUES]
    assert out.splitlines() == [
        "value                  intensity  95 % interval   windows  error",
        *(f"{value:21}  {number:>9}  [-10.0, +10.0]        3  one two" for value, number in zip(VALUES, sums, strict=True)),
        "",
        "judge fake, VIDB v-1, mode ranked, k 6, m 3, sampling adaptive, seed 0",
    ]
    assert (code, err) == (0, [])
    asked = {"texts": ["We help."], "values": ["svt:benevolence", "mft"], "m": 5, "mode": "ranked"}
    assert local.asked.model_dump(exclude_unset=True) == asked
    assert local.loaded == ("runs/demo", "current", None)


def written(path: Path, texts: list[str]) -> Path:
    """A file of texts of the kind that its name says."""
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        case ".parquet":
            pq.write_table(pa.table({"text": texts, "n": range(len(texts))}), path)
        case ".txt":
            path.write_bytes("\ufeff".encode() + "\r\n\n".join(texts).encode())
        case _:
            with open(path, "w", newline="", encoding="utf-8") as file:
                csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([["text"], *([t] for t in texts)])
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "txt"])
def test_every_kind_of_file_gives_its_texts(local, run, tmp_path, kind):
    texts = [text.replace("\n", " ") for text in TEXTS] if kind == "txt" else TEXTS
    code, out, err = run("score", written(tmp_path / f"in.{kind}", texts), "--format", "jsonl")
    rows = [json.loads(line) for line in out.strip().split("\n")]
    assert (code, err) == (0, [])
    assert list(rows[0]) == COLUMNS
    assert [row["text"] for row in rows[::3]] == texts
    assert [row["intensity"] for row in rows] == [intensity(text, value) for text in texts for value in VALUES]


def test_standard_input_gives_a_text_a_line(local, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\r\n\ntwo\n\xff\n")))
    code, out, err = run("score", "-", "--format", "json")
    shown = json.loads(out)
    assert [row["text"] for row in shown["rows"][::3]] == ["one", "two"]
    assert (shown["vidb_version"], shown["judge"], shown["m"]) == ("v-1", "fake", 3)
    assert err == ["1 of 3 rows left out (first: standard input:4: bytes that are not UTF-8)"]
    assert code == 0


def test_a_file_goes_in_and_a_file_comes_out_with_the_same_texts(local, run, table, tmp_path):
    out = tmp_path / "out.csv"
    assert run("score", table, "--column", "said", "--output", out) == (0, "", [])
    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows[::3]] == TEXTS
    assert [float(row["intensity"]) for row in rows] == [intensity(text, value) for text in TEXTS for value in VALUES]
    assert (rows[0]["error"], rows[0]["num_windows"]) == ("one\u2028two", "3")


def test_rows_that_cannot_be_read_are_counted_not_scored(local, run, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("text,n\ngood,1\n  ,2\nshort\nlast,4\n")
    code, out, err = run("score", path)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:7:3]] == ["good", "last"]
    assert err == ["2 of 4 rows left out (first: in.csv:3: no text)"]


def test_a_server_and_this_process_say_the_same(local, run, server, table, monkeypatch):
    def shown() -> list[tuple[int, str, list[str]]]:
        texts = [table, "--column", "said"]
        return [
            run("score", *texts, "--value", "svt"), run("score", *texts, "--format", "csv"), run("profile", *texts),
            run("compare", "a", "b", "--format", "json"), run("extract", "a"), run("values", "duty:fidelity"),
        ]  # fmt: skip

    here, server.seen = shown(), []
    monkeypatch.setenv("VALUEFLOW_SERVER", server.url)
    monkeypatch.setenv("VALUEFLOW_API_KEY", KEY)
    assert shown() == here
    assert {call.headers["authorization"] for call in server.seen} == {f"Bearer {KEY}"}
    del local.__dict__["loaded"]
    assert run("score", "a", "--root", "elsewhere")[0] == 0
    assert local.loaded[0] == "elsewhere"  # the command line goes before the environment


def test_comparison_profile_nodes_and_values_are_shown(local, run, tmp_path):
    code, out, _ = run("compare", "a", "b", "--value", "svt:benevolence")
    assert code == 0
    assert out.splitlines()[0].split() == ["value", "P(first", "is", "higher)", "first", "second"]
    assert out.splitlines()[1].split()[:3] == ["svt:benevolence", "0.80", f"{intensity('a', VALUES[0]):+.1f}"]
    code, out, _ = run("profile", written(tmp_path / "in.txt", ["a", "b"]), "--format", "csv")
    assert out == "value,intensity,low,high,num_texts,band\nsvt:benevolence,1.0,0.0,2.0,2,neutral\n"
    code, out, _ = run("extract", "a", "--theory", "svt", "--top", 1)
    assert out.splitlines()[1].split() == ["svt", "a", "supports", "0.50", "0.10"]
    assert run("values")[1].splitlines()[1].split()[:3] == ["svt:benevolence", "yes", "Care"]
    assert run("values", "mft")[1] == ""
    out = run("values", "svt:benevolence")[1]
    assert "opposes: o" in out
    assert "We help." in out
    assert isinstance(local.loaded[2], SimulatedJudge)  # nobody is asked to judge


def test_versions_are_listed_and_shown(run, server, tmp_path, monkeypatch):
    monkeypatch.setenv("VALUEFLOW_ROOT", str(tmp_path))
    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)
    assert run("vidb", "list") == (0, "no version is finished\n", [])
    made = []
    for number in (2, 3):
        path = tmp_path / "benevolence_svt.csv"
        path.write_text("text,final_rating\n" + "".join(f"text {i},{i}\n" for i in range(number)))
        made.append(import_version([str(path)], "MIT", "sample", str(tmp_path))[0].build_id)
    store.publish(str(tmp_path), made[1], store.current(str(tmp_path)))
    listed = [line.split() for line in run("vidb", "list")[1].splitlines()]
    assert [(line[0], line[2], line[3], line[4:]) for line in listed[1:]] == [
        (made[0], "2", "1", []), (made[1], "3", "1", ["current"]),
    ]  # fmt: skip
    assert f"version: {made[1]}" in run("vidb", "show")[1]
    shown = json.loads(run("vidb", "show", made[0], "--format", "json")[1])
    assert (shown["num_texts"], shown["licenses"]) == (2, {"MIT": 2})
    assert shown["rows"] == [{"value": "svt:benevolence", "anchors": 2}]
    assert "max_texts 1,000" in run("vidb", "show", "--server", server.url)[1]
    code, _, err = run("vidb", "show", "v-9", "--server", server.url)
    assert (code, err) == (2, ["error: the server uses VIDB v-1, not v-9; give --root to look there instead"])


def test_the_real_service_scores_in_this_process(run, table, tmp_path, monkeypatch):
    service = pytest.importorskip("valueflow.service.local")
    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)
    anchors, judge = tmp_path / "benevolence_svt.csv", tmp_path / "judge.yaml"
    anchors.write_text("text,final_rating\n" + "".join(f"anchor {i},{i / 4 - 5}\n" for i in range(40)))
    judge.write_text("{kind: simulated, seed: 1}")
    version = import_version([str(anchors)], "MIT", "sample", str(tmp_path))[0].build_id
    words = ["score", table, "--column", "said", "--root", tmp_path, "--vidb", version, "--judge", judge, "--seed", 7]
    code, out, err = run(*words, "--format", "csv")
    body = api.ScoreRequest(texts=TEXTS, seed=7)
    expected = asyncio.run(service.local(str(tmp_path), version, SimulatedJudge(seed=1)).score(body, "r")).scores
    assert (code, err) == (0, [])
    assert [float(row["intensity"]) for row in csv.DictReader(io.StringIO(out))] == [score.intensity for score in expected]


def test_mode_fast_needs_no_server(run, tmp_path, monkeypatch):
    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)
    anchors, judge = tmp_path / "benevolence_svt.csv", tmp_path / "judge.yaml"
    anchors.write_text("text,final_rating\n" + "".join(f"I did thing {i} for them.,{i / 15 - 5}\n" for i in range(150)))
    judge.write_text("{kind: simulated, seed: 1}")
    version = import_version([str(anchors)], "MIT", "sample", str(tmp_path))[0].build_id
    words = ["score", "I did thing 7 for them.", "--mode", "fast", "--root", tmp_path, "--vidb", version, "--judge", judge]
    code, out, _ = run(*words, "--format", "json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["low"] <= row["intensity"] <= row["high"]
    assert row["num_windows"] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["score", "nowhere.csv"], "error: file 'nowhere.csv' does not exist"),
        (["score", "in.csv", "--column", "x"], "error: in.csv has no column 'x'; name one of text with --column"),
        (["score", "in.csv"], "error: in.csv holds no text"),
        (["score", ""], "error: texts.0: String should have at least 1 character"),
        (["score", "a", "--mode", "fas"], "error: mode: Input should be 'ranked' or 'fast' (got 'fas')"),
        (["score", "a", "--value", "svt:nothing"], "error: unknown value 'svt:nothing'"),
        (["score", "a", "--server", "http://h", "--judge", "j.yaml"], "error: --judge is for work in this process"),
        (["score", "a", "--server", "h:1"], "error: the server's address 'h:1' is not of the form"),
        (["score", "a", "--judge", "none.yaml"], "error: none.yaml is no config of a judge"),
        (["score", "a", "--judge", "in.csv"], "error: in.csv"),
        (["score", "a", "--judge", "judge.yaml"], "error: judge.yaml: judge.encoder.bath_size: Extra inputs"),
        (["score", "a", "--output", "no/folder.csv"], "error: [Errno 2] No such file or directory: 'no/folder.csv'"),
        (["score", "a", "--output", "out.parquet"], "error: --output out.parquet does not tell the format: give --format"),
        (["vidb", "show", "--root", "empty"], "error: nothing is published under empty"),
        (["extract", "a", "--top", "99"], "error: top: Input should be less than or equal to 20 (got '99')"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(local, run, tmp_path, monkeypatch, words, why):
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\n")
    Path("judge.yaml").write_text("judge: {kind: encoder, bath_size: 3}")
    code, out, err = run(*words)
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(why)


def test_a_mistake_in_the_words_is_one_line_and_code_2(capsys):
    for words in (
        [],
        ["score"],
        ["score", "a", "--bogus"],
        ["score", "a", "--m", "x"],
        ["vidb"],
        ["score", "a", "--format", "x"],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_the_judge_of_a_config_is_asked(local, run, tmp_path):
    assert run("score", "a", "--judge", "conf/evaluate/tiny.yaml", "--root", "r", "--vidb", "v-2")[0] == 0
    assert local.loaded == ("r", "v-2", EncoderJudge(name="minilm-encoder", num_cpus=2))
    alone = tmp_path / "judge.yaml"
    alone.write_text("kind: simulated\nseed: 7\n")
    run("score", "a", "--judge", alone)
    assert local.loaded[2] == SimulatedJudge(seed=7)


def test_what_came_before_a_problem_is_kept(local, run, server, table, caplog):
    local.problem = api.Problem(title="Judge", status=500, detail="gone")
    code, out, err = run("score", table, "--column", "said", "--format", "jsonl")
    assert (code, out.count("\n"), err) == (2, len(VALUES), ["error: Judge: gone"])
    server.faults = [lambda b: server.stream(b, 5), lambda _: problem(400, "enough")]
    code, out, err = run("score", table, "--column", "said", "--format", "csv", "--server", server.url)
    assert (code, len(list(csv.reader(io.StringIO(out))))) == (2, 1 + 4)
    assert "asking again" in caplog.text
    assert err[0].endswith("400 Refused: enough (request r-p); 4 scores had come until then")


def program(*words: str, **settings: Any) -> subprocess.Popen:
    """The command as a program of its own."""
    code = "import sys; from valueflow.cli.main import main; sys.exit(main())"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *words], **(pipes | settings))


def test_an_interrupted_list_keeps_what_came_and_shows_no_traceback(server, tmp_path):
    ended = threading.Event()

    def slowly(body: dict) -> StreamingResponse:
        def written() -> Iterator[str]:
            for number, line in enumerate(lines(body["texts"], VALUES)):
                yield line
                if number == 4:
                    ended.wait(60)

        return StreamingResponse(written())

    path, out = written(tmp_path / "in.txt", ["a", "b", "c"]), tmp_path / "out.csv"
    server.faults = [slowly]
    running = program("score", str(path), "--server", server.url, "--output", str(out))
    until = time.monotonic() + 120
    while time.monotonic() < until and (not out.exists() or out.read_text().count("svt:") < 2):
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=120) == ("", "")
    ended.set()
    assert running.returncode == 130
    assert len(list(csv.reader(out.open(newline="")))) == 1 + 4


def test_a_reader_that_has_enough_ends_the_command_quietly(server, tmp_path):
    path = written(tmp_path / "in.txt", [f"text {i}" for i in range(2000)])
    read, write = os.pipe()
    running = program("score", str(path), "--server", server.url, "--format", "jsonl", stdout=write)
    os.close(write)
    with open(read) as lines_out:
        assert json.loads(lines_out.readline())["text"] == "text 0"
    assert running.communicate(timeout=120)[1] == ""
    assert running.returncode == 141


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from valueflow.cli.main import main\n"
        "try: main(['score', '--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--value NAME" in shown.stdout
    assert not set(shown.stderr.split()) & {"pydantic", "httpx", "numpy", "pyarrow", "torch", "valueflow.api"}
