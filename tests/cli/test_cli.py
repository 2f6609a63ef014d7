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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.server import FakeServer, problem, running, stream_lines
from fakes.service import JUDGE, VERSION, FakeService, anchors, fake_score, probability
from fastapi.responses import StreamingResponse
from foreign import foreign_version

from valueflow import api, store
from valueflow.cli.main import main
from valueflow.console import printable
from valueflow.judging.configs import AnyJudge, EncoderJudge, SimulatedJudge
from valueflow.models import MINILM
from valueflow.records import SCHEMAS
from valueflow.vidb.anchor_files import import_version

KEY = "vf-secret-0123456789"
TEXTS = ['We "helped", she said.', "I broke\nmy promise", "我们照顾了邻居的孩子"]
VALUES = ["svt:benevolence", "mft:fairness-cheating", "duty:fidelity"]
PROVENANCE = f"judge {JUDGE}, VIDB {VERSION}, mode ranked, k 6, m 3, sampling adaptive, seed 0"
COLUMNS = ["index", "text", "value", "intensity", "low", "high", "judge_intensity", "judge_low", "judge_high", "relevance"]
COLUMNS += ["num_windows", "num_failed", "error", "truncated"]


@pytest.fixture
def local(monkeypatch) -> FakeService:
    """The service in this process; `loaded` is what it was loaded with."""
    service = FakeService(VALUES, request_id="r-123", remark="one\u2028two")

    def load(root: str, version: str = "current", judge: AnyJudge | None = None, fast: bool = False) -> FakeService:
        service.loaded, service.fast = (root, version, judge), fast
        return service

    monkeypatch.setattr("valueflow.service.local.local_service", load)
    for name in ("VALUEFLOW_SERVER", "VALUEFLOW_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return service


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with running(FakeServer(FakeService(VALUES, request_id="r-123", remark="one\u2028two"))) as server:
        yield server


@pytest.fixture
def run(capsys):
    """Runs a command and returns its code, its output and its lines on standard error."""

    def command(*words: object) -> tuple[int, str, list[str]]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

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
    scores = [fake_score(0, "We help.", value) for value in VALUES]
    intervals = [f"[{score.low:+.2f}, {score.high:+.2f}]" for score in scores]
    width = max(13, *map(len, intervals))
    assert out.splitlines() == [
        f"{'value':21}  intensity  {'95 % interval':{width}}  windows  error",
        *(
            f"{score.value:21}  {score.intensity:>+9.2f}  {interval:{width}}        5  one two"
            for score, interval in zip(scores, intervals, strict=True)
        ),
        "",
        PROVENANCE.replace("m 3", "m 5"),
    ]
    assert (code, err) == (0, [])
    request = {"texts": ["We help."], "values": ["svt:benevolence", "mft"], "m": 5, "mode": "ranked"}
    assert local.requests[-1].model_dump(exclude_unset=True) == request
    assert local.loaded == ("runs/demo", "current", None)


def filled(table: str, num_rows: int) -> pa.Table:
    """So many rows of a table, with the simplest cells."""
    simple = {pa.string(): "a", pa.bool_(): False}
    fields = list(SCHEMAS[table])
    return pa.table(
        {f.name: pa.array([simple.get(f.type, [] if pa.types.is_nested(f.type) else 0)] * num_rows, f.type) for f in fields}
    )


def write_texts(path: Path, texts: list[str]) -> Path:
    """Write texts in the format of the file's extension."""
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
def test_every_file_format_is_read(local, run, tmp_path, kind):
    texts = [text.replace("\n", " ") for text in TEXTS] if kind == "txt" else TEXTS
    code, out, err = run("score", write_texts(tmp_path / f"in.{kind}", texts), "--format", "jsonl")
    rows = [json.loads(line) for line in out.strip().split("\n")]
    assert (code, err) == (0, [])
    assert list(rows[0]) == COLUMNS
    assert [row["text"] for row in rows[::3]] == texts
    assert [row["intensity"] for row in rows] == [fake_score(0, text, value).intensity for text in texts for value in VALUES]


def test_standard_input_gives_a_text_a_line(local, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\r\n\ntwo\n\xff\n")))
    code, out, err = run("score", "-", "--format", "json")
    result = json.loads(out)
    assert [row["text"] for row in result["rows"][::3]] == ["one", "two"]
    assert (result["vidb_version"], result["judge"], result["m"]) == (VERSION, JUDGE, 3)
    assert len(err) == 1
    assert err[0].startswith("1 of 3 rows left out (first: standard input:4: bytes that are not UTF-8")
    assert code == 0


@pytest.mark.parametrize("name", ["in.txt", "in.csv", "in.tsv", "-"])
def test_utf16_of_powershell_is_decoded(local, run, tmp_path, monkeypatch, name):
    texts = ["I helped my neighbours.", "Ich half der älteren Frau."]
    content = "\r\n".join([*(["text"] if name[-3:] in ("csv", "tsv") else []), *texts, ""]).encode("utf-16")
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, out, err = run("score", name if name == "-" else tmp_path / name, "--format", "jsonl")
    assert (code, err) == (0, [])
    assert [json.loads(line)["text"] for line in out.strip().split("\n")[::3]] == texts


@pytest.mark.parametrize("name", ["in.txt", "in.csv"])
def test_utf16_without_a_byte_order_mark_is_refused_in_words(local, run, tmp_path, name):
    (tmp_path / name).write_bytes("text\r\nI helped my neighbours.\r\n".encode("utf-16-le"))
    code, out, err = run("score", tmp_path / name)
    assert (code, out, len(err)) == (2, "", 1)
    assert f"{name} is not UTF-8" in err[0]


def test_no_text_with_control_characters_is_scored(local, run, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"fine\na\x1b[2Jb\nc\x00d\n" + "e\x9bf\n".encode())
    code, out, err = run("score", tmp_path / "in.txt", "--format", "jsonl")
    assert (code, [json.loads(line)["text"] for line in out.strip().split("\n")[::3]]) == (0, ["fine"])
    assert err[0].startswith("3 of 4 rows left out (first: ")
    assert "in.txt:2: the control character U+001B" in err[0]
    for command in (["score", "a\x1bb"], ["compare", "fine", "a\x1bb"], ["extract", "a\x00b"], ["profile", "a\udce9b"]):
        code, out, err = run(*command)
        assert (code, out, len(err)) == (2, "", 1)
        assert "\x1b" not in err[0]
        assert "the text 'a" in err[0]


@pytest.mark.parametrize("format_", ["table", "csv", "json", "jsonl"])
def test_what_a_server_says_does_not_steer_the_terminal(local, run, monkeypatch, format_):
    local.remark, local.request_id = "a\x1b[2Jb\x9b31mc\u202ed", "\x1b]0;title\x07"
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    code, out, err = run("score", "text", "--format", format_)
    assert (code, err, "[2Jb" in out) == (0, [], True)
    assert printable(out) == out


def test_what_a_user_mistypes_does_not_steer_the_terminal(local, run, capsys, tmp_path):
    for words in (["score", tmp_path / "a\x1b[2Jb.csv"], ["score", "text", "--judge", "a\x1b[2Jb"], ["values", "a\x9b2Jb"]):
        code, _, err = run(*words)
        assert (code, printable(err[-1])) == (2, err[-1])
    with pytest.raises(SystemExit):
        run("score", "text", "a\x1b[2Jb")
    assert "�[2Jb" in capsys.readouterr().err


def test_a_file_goes_in_and_a_file_comes_out_with_the_same_texts(local, run, table, tmp_path):
    out = tmp_path / "out.csv"
    assert run("score", table, "--column", "said", "--output", out) == (0, "", [])
    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows[::3]] == TEXTS
    assert [float(row["intensity"]) for row in rows] == [
        fake_score(0, text, value).intensity for text in TEXTS for value in VALUES
    ]
    assert (rows[0]["error"], rows[0]["num_windows"]) == ("one\u2028two", "3")


def test_no_cell_of_a_csv_is_a_formula_and_the_file_can_be_scored_again(local, run, tmp_path):
    texts = ["=1+1", '@SUM(A1), "or"', "-- she said", "'= quoted", "nan"]
    for name, read in (("in.jsonl", "out.csv"), ("out.csv", "again.csv")):
        if name == "in.jsonl":
            write_texts(tmp_path / name, texts)
        assert run("score", tmp_path / name, "--value", VALUES[0], "--output", tmp_path / read)[0] == 0
        with open(tmp_path / read, newline="", encoding="utf-8") as file:
            written = list(dict.fromkeys(row["text"] for row in csv.DictReader(file)))
        assert written == [*(f"'{text}" for text in texts[:4]), "nan"]


def test_rows_that_cannot_be_read_are_counted_not_scored(local, run, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("text,n\ngood,1\n  ,2\nshort\nlast,4\n")
    code, out, err = run("score", path)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:7:3]] == ["good", "last"]
    assert err == ["2 of 4 rows left out (first: in.csv:3: no text)"]


def test_a_server_and_this_process_say_the_same(local, run, server, table, monkeypatch):
    def outputs() -> list[tuple[int, str, list[str]]]:
        texts = [table, "--column", "said"]
        return [
            run("score", *texts, "--value", "svt"), run("score", *texts, "--format", "csv"), run("profile", *texts),
            run("compare", "a", "b", "--format", "json"), run("values", "duty:fidelity"),
        ]  # fmt: skip

    local_outputs = outputs()
    server.reset()
    monkeypatch.setenv("VALUEFLOW_SERVER", server.url)
    monkeypatch.setenv("VALUEFLOW_API_KEY", KEY)
    assert outputs() == local_outputs
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}"}
    del local.__dict__["loaded"]
    assert run("score", "a", "--root", "elsewhere")[0] == 0
    assert local.loaded[0] == "elsewhere"  # the command line goes before the environment


def test_comparison_profile_nodes_and_values_are_shown(local, run, server, tmp_path):
    first, second = (fake_score(i, text, VALUES[0]) for i, text in enumerate("ab"))
    code, out, _ = run("compare", "a", "b", "--value", "svt:benevolence")
    assert code == 0
    assert out.splitlines()[0].split() == ["value", "P(first", "is", "higher)", "first", "second", "error"]
    assert out.splitlines()[1].split()[:3] == [
        "svt:benevolence",
        f"{probability(first, second):.2f}",
        f"{first.intensity:+.2f}",
    ]
    code, out, _ = run("profile", write_texts(tmp_path / "in.txt", ["a", "b"]), "--format", "csv")
    profiled = list(csv.DictReader(io.StringIO(out)))
    assert list(profiled[0]) == list(api.Profiled.model_fields)
    means = [np.mean([fake_score(i, text, value).intensity for i, text in enumerate("ab")]) for value in VALUES]
    assert [float(row["intensity"]) for row in profiled] == pytest.approx(means)
    code, out, _ = run("extract", "a", "--theory", "svt", "--top", 1, "--server", server.url)
    assert out.splitlines()[1].split() == ["svt", "a", "supports", "0.50", "0.10"]
    assert any(line.split()[:2] == ["svt:benevolence", "yes"] for line in run("values")[1].splitlines())
    assert {line.partition(":")[0] for line in run("values", "mft")[1].splitlines()[1:]} == {"mft"}
    out = run("values", "svt:benevolence")[1]
    assert "opposes: " in out
    assert anchors("svt:benevolence")[0].text[:30] in out
    assert isinstance(local.loaded[2], SimulatedJudge)  # no judging happens


def test_extraction_without_a_server_says_what_the_root_lacks_and_what_makes_it(run, tmp_path, monkeypatch):
    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)

    def refusal() -> str:
        code, out, (line,) = run("extract", "I gave my seat to an old man.", "--root", tmp_path)
        assert (code, out) == (2, "")
        assert f"python -m jobs.extract conf/extract/tiny.yaml root={tmp_path} texts=FILE" in line
        return line

    assert "no texts" in (line := refusal())
    assert f"python -m jobs.ingest conf/ingest/tiny.yaml root={tmp_path}, then" in line
    for rows in (0, 1):
        texts, labels = (store.Build(str(tmp_path), table, f"{rows}") for table in ("texts", "source_labels"))
        for build in (texts, labels):
            store.commit(build, store.IngestDetails(), files=[store.write_part(build, filled(build.table, rows), "0")])
        line = refusal()
        assert ("jobs.categorize" in line) == (rows == 0)
        assert "jobs.ingest" not in line
    assert "extraction.texts=latest" in line


def test_versions_are_listed_and_shown(run, server, tmp_path, monkeypatch):
    monkeypatch.setenv("VALUEFLOW_ROOT", str(tmp_path))
    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)
    assert run("vidb", "list") == (0, "no version is finished\n", [])
    builds = []
    for number in (2, 3):
        path = tmp_path / "benevolence_svt.csv"
        path.write_text("text,final_rating\n" + "".join(f"text {i},{i}\n" for i in range(number)))
        builds.append(import_version([str(path)], "MIT", "sample", str(tmp_path))[0].build_id)
    store.publish(str(tmp_path), builds[1], store.current(str(tmp_path)))
    listed = [line.split() for line in run("vidb", "list")[1].splitlines()]
    assert [(line[0], line[2], line[3], line[4:]) for line in listed[1:]] == [
        (builds[0], "2", "1", []), (builds[1], "3", "1", ["current"]),
    ]  # fmt: skip
    assert f"version: {builds[1]}" in run("vidb", "show")[1]
    version = json.loads(run("vidb", "show", builds[0], "--format", "json")[1])
    assert (version["num_texts"], version["licenses"]) == (2, {"MIT": 2})
    assert version["rows"] == [{"value": "svt:benevolence", "anchors": 2}]
    assert "max_texts 1,000" in run("vidb", "show", "--server", server.url)[1]
    code, _, err = run("vidb", "show", "v-9", "--server", server.url)
    assert (code, err) == (
        2,
        [f"error: the server uses VIDB {VERSION}, not v-9; use --root to read versions without the server"],
    )


@pytest.mark.component
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
    expected = asyncio.run(service.local_service(str(tmp_path), version, SimulatedJudge(seed=1)).score(body, "r")).scores
    assert (code, err) == (0, [])
    assert [float(row["intensity"]) for row in csv.DictReader(io.StringIO(out))] == [score.intensity for score in expected]


@pytest.mark.component
def test_mode_fast_needs_no_server(run, tmp_path, monkeypatch, caplog):
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
    assert [line for line in caplog.messages if "loading" in line] == [f"loading the encoder {MINILM!r}, for mode fast …"]


def test_that_a_judge_is_loaded_is_said_before(run, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)
    said = []
    monkeypatch.setattr("valueflow.service.local.online_judge", lambda judge, cache: said.extend(caplog.messages))
    foreign_version(tmp_path, None)
    assert run("score", "I helped her.", "--dry-run", "--root", tmp_path)[0] == 0
    assert said[-1] == f"loading the judge {EncoderJudge().name!r} …"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "nowhere.csv"], "error: file 'nowhere.csv' does not exist"),
        (["score", "nowhere.XLSX"], "error: file 'nowhere.XLSX' does not exist"),
        (["score", "data/nowhere.csv.gz"], "error: file 'data/nowhere.csv.gz' does not exist"),
        (["score", "empty"], "error: 'empty' is a folder or no plain file; name a file"),
        (["profile", "pipe"], "error: 'pipe' is a folder or no plain file; name a file"),
        (["score", "in.csv", "--column", "x"], "error: in.csv has no column 'x'; set --column to one of: text"),
        (["score", "in.csv"], "error: in.csv holds no text"),
        (["score", ""], "error: texts.0: String should have at least 1 character"),
        (["score", "a", "--mode", "fas"], "error: mode: Input should be 'ranked' or 'fast' (got 'fas')"),
        (["score", "a", "--value", "svt:nothing"], "error: unknown value 'svt:nothing'"),
        (["score", "a", "--server", "http://h", "--judge", "j.yaml"], "error: --judge is for scoring in this process"),
        (["score", "a", "--server", "h:1"], "error: the server's address 'h:1' is not of the form"),
        (["score", "a", "--judge", "none.yaml"], "error: none.yaml is not the config of a judge"),
        (["score", "a", "--judge", "in.csv"], "error: in.csv"),
        (["score", "a", "--judge", "judge.yaml"], "error: judge.yaml: judge.encoder.bath_size: Extra inputs"),
        (["score", "a", "--output", "no/folder.csv"], "error: [Errno 2] No such file or directory: 'no/folder.csv'"),
        (["score", "a", "--output", "out.parquet"], "error: --output out.parquet has no known extension; set --format"),
        (["vidb", "show", "--root", "empty"], "error: nothing is published under empty"),
        (["extract", "a", "--top", "99"], "error: top: Input should be less than or equal to 20 (got '99')"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(local, run, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\n")
    if "pipe" in words or words[1] == "empty":
        Path("empty").mkdir()
        os.mkfifo("pipe")
    Path("judge.yaml").write_text("judge: {kind: encoder, bath_size: 3}")
    code, out, err = run(*words)
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(message)


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


def test_the_judge_of_a_config_is_used(local, run, tmp_path):
    assert run("score", "a", "--judge", "conf/evaluate/tiny.yaml", "--root", "r", "--vidb", "v-2")[0] == 0
    assert local.loaded == ("r", "v-2", EncoderJudge(name="minilm-encoder", num_cpus=2))
    alone = tmp_path / "judge.yaml"
    alone.write_text("kind: simulated\nseed: 7\n")
    run("score", "a", "--judge", alone)
    assert local.loaded[2] == SimulatedJudge(seed=7)


def test_scores_received_before_a_problem_are_written(local, run, server, table, caplog):
    local.end_after, local.ending = len(VALUES), api.Problem(title="Judge", status=500, detail="gone")
    code, out, err = run("score", table, "--column", "said", "--format", "jsonl")
    assert (code, out.count("\n"), err) == (2, len(VALUES), ["error: Judge: gone"])
    server.faults = [lambda b: server.stream(b, 5), lambda _: problem(400, "enough")]
    code, out, err = run("score", table, "--column", "said", "--format", "csv", "--server", server.url)
    assert (code, len(list(csv.reader(io.StringIO(out))))) == (2, 1 + 4)
    assert "retrying" in caplog.text
    assert err[0].endswith("400 Refused: enough (request r-p); 4 scores were received before")


def program(*words: str, **settings: Any) -> subprocess.Popen:
    """The command as a program of its own; it takes SIGINT also where the shell of the tests ignores it (a background job)."""
    default = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"import signal, sys; {default}; from valueflow.cli.main import main; sys.exit(main())"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *words], **(pipes | settings))


@pytest.mark.component
def test_an_interrupted_list_keeps_what_came_and_shows_no_traceback(server, tmp_path):
    ended = threading.Event()

    def slowly(body: dict) -> StreamingResponse:
        def lines() -> Iterator[str]:
            for number, line in enumerate(stream_lines(server.service, body)):
                yield line
                if number == 4:
                    ended.wait(60)

        return StreamingResponse(lines())

    path, out = write_texts(tmp_path / "in.txt", ["a", "b", "c"]), tmp_path / "out.csv"
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


@pytest.mark.component
def test_a_reader_that_has_enough_ends_the_command_quietly(server, tmp_path):
    path = write_texts(tmp_path / "in.txt", [f"text {i}" for i in range(2000)])
    read, write = os.pipe()
    running = program("score", str(path), "--server", server.url, "--format", "jsonl", stdout=write)
    os.close(write)
    with open(read) as lines_out:
        assert json.loads(lines_out.readline())["text"] == "text 0"
    assert running.communicate(timeout=120)[1] == ""
    assert running.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
@pytest.mark.component
def test_an_output_that_is_full_is_one_line_and_code_2(server, tmp_path):
    path = write_texts(tmp_path / "in.txt", [f"text {i}" for i in range(50)])
    scores = [["score", str(path), "--server", server.url, "--format", format_] for format_ in ("table", "json", "jsonl")]
    with open("/dev/full", "w") as full:
        running = {str(words): program(*words, stdout=full) for words in scores}
        running |= {"--output": program(*scores[0], "--output", "/dev/full")}
        for words, process in running.items():
            err = process.communicate(timeout=120)[1]
            file = "/dev/full" if words == "--output" else "standard output"
            message = f"error: cannot write {file}: [Errno 28] No space left on device"
            assert (words, process.returncode, err.splitlines()) == (words, 2, [message])


@pytest.mark.component
def test_help_needs_nothing_heavy():
    code = (
        "import sys; from valueflow.cli.main import main\n"
        "try: main(['score', '--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--value NAME" in process.stdout
    assert not set(process.stderr.split()) & {"pydantic", "httpx", "numpy", "pyarrow", "torch", "valueflow.api"}


def test_a_profile_passes_the_least_relevance_on_and_excludes_it_beside_trusted_scores(local, run):
    assert run("profile", "a", "--min-relevance", "0.4", "--value", VALUES[0])[0] == 0
    assert local.requests[-1].min_relevance == 0.4
    code, _, err = run("profile", "a", "--min-relevance", "2", "--value", VALUES[0])
    assert (code, "min_relevance" in err[0]) == (2, True)
    code, _, err = run("profile", "a", "--min-relevance", "0.4", "--trusted", "t.csv")
    assert (code, "--trusted" in err[0]) == (2, True)
