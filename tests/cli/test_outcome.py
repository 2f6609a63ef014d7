"""Scores in this process: what fails is named, what the judge is asked beyond the windows is said and kept, dry runs."""

import csv
import io
import json
from pathlib import Path

import fault_server
import pytest
from foreign import foreign_version

from valueflow import store
from valueflow.cli.main import main
from valueflow.judging.simulated import SimulatedRanker

FORMATS = ("table", "csv", "json", "jsonl")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An imported version, so that no judge built it."""
    for name in ("VALUEFLOW_SERVER", "VALUEFLOW_ROOT"):
        monkeypatch.delenv(name, raising=False)
    foreign_version(tmp_path / "root", None)
    return tmp_path / "root"


@pytest.fixture
def ask(root, tmp_path, capsys, monkeypatch):
    """Runs a command with a simulated judge; returns its code, output, error lines and the windows that were asked."""
    asked = []
    answer = SimulatedRanker.__call__

    def recorded(self, windows):
        asked.extend(windows["window_id"].to_pylist())
        return answer(self, windows)

    monkeypatch.setattr(SimulatedRanker, "__call__", recorded)

    def command(*words: object, judge: str = "{kind: simulated, seed: 1}") -> tuple[int, str, list[str], int]:
        (tmp_path / "judge.yaml").write_text(judge)
        asked.clear()
        code = main([*map(str, words), "--root", str(root), "--judge", str(tmp_path / "judge.yaml")])
        out, err = capsys.readouterr()
        return code, out, err.splitlines(), len(asked)

    return command


BROKEN = "{kind: simulated, seed: 1, broken_share: 1.0}"


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_scored_is_code_2_with_the_reason_in_every_format(ask, tmp_path, format_):
    (tmp_path / "in.txt").write_text("one text\nanother text\n")
    for words in (["score", "a text"], ["score", tmp_path / "in.txt"], ["profile", tmp_path / "in.txt"], ["compare", "a", "b"]):
        code, out, err, _ = ask(*words, "--format", format_, judge=BROKEN)
        assert (code, len(err)) == (2, 1)
        assert err[0].startswith("error: nothing was scored")
        assert "windows failed" in err[0] or words[0] == "profile"
        assert len(err[0].partition("(first: ")[2]) > 20
        assert out  # the rows with their errors are written all the same


def test_an_empty_text_alone_is_nothing_scored(ask):
    code, _, err, _ = ask("score", " \n")
    assert (code, "the text is empty" in err[-1]) == (2, True)


def test_what_failed_beside_scores_is_named_and_the_code_is_0(ask, tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(f"text {i}" for i in range(40)))
    code, out, err, _ = ask("score", tmp_path / "in.txt", "--format", "csv", "--m", 2, judge=BROKEN.replace("1.0", "0.4"))
    rows = list(csv.DictReader(io.StringIO(out)))
    failed = sum(int(row["num_failed"]) for row in rows)
    missing = sum(row["intensity"] == "" for row in rows)
    assert failed > 10
    assert missing > 0
    assert code == 0
    assert f"{missing} of 40 scores are missing; {failed} of 80 windows failed (first: text " in err[-1]


def test_the_sharpness_of_a_judge_is_announced_once_kept_and_counted(ask, root, caplog):
    words = ("score", "a text", "--m", "2", "--format", "json")
    code, planned, _, num_asked = ask(*words, "--dry-run")
    (plan,) = json.loads(planned)["rows"]
    assert (code, num_asked) == (0, 0)
    assert (plan["texts"], plan["values"], plan["windows"], plan["sharpness"], plan["calls"]) == (1, 1, 2, 60, 62)
    assert "60 calls" not in caplog.text

    code, first, _, num_asked = ask(*words)
    assert (code, num_asked) == (0, plan["calls"])
    assert caplog.text.count("60 calls about anchors of svt:benevolence") == 1
    caplog.clear()

    code, again, _, num_asked = ask(*words)
    assert (code, num_asked, again) == (0, 2, first)
    assert "calls about anchors" not in caplog.text
    assert json.loads(ask(*words, "--dry-run")[1])["rows"][0]["calls"] == 2
    assert ask(*words, judge="{kind: simulated, seed: 2}")[3] == 62  # another judge
    assert len(list((root / "cache" / "sharpness").iterdir())) == 2


def test_texts_that_the_judge_reads_in_part_are_said_on_standard_error(root, tmp_path, capsys):
    (tmp_path / "in.txt").write_text(f"short\n{'I kept my word. ' * 10}\n{'I broke my word. ' * 10}\n")
    with fault_server.start() as server:
        server.reset(key="")
        settings = {"kind": "openai", "name": "llm", "model": "m", "url": server.url, "key_env": "", "max_chars": 80}
        (tmp_path / "judge.yaml").write_text(json.dumps(settings))
        words = ["--root", str(root), "--judge", str(tmp_path / "judge.yaml"), "--m", "2", "--k", "3"]
        for command in (["score", "in.txt"], ["profile", "in.txt"]):
            for format_ in FORMATS:
                main([command[0], str(tmp_path / command[1]), "--format", format_, *words])
                err = capsys.readouterr().err
                assert "2 texts are longer than max_chars (80) of 'llm', which read their beginning only" in err
                assert ("(first: text 2)" in err) == (command[0] == "score")
        main(["compare", "short", "x" * 81, *words])
        assert "1 text is longer than max_chars (80) of 'llm'" in capsys.readouterr().err
        main(["score", "short", *words])
        assert "max_chars" not in capsys.readouterr().err


@pytest.mark.parametrize("status", ["500", "prose"])  # calls that are lost, calls that are paid for
def test_a_judge_that_answers_nothing_about_the_first_texts_is_asked_no_more(root, tmp_path, capsys, status):
    (tmp_path / "in.txt").write_text("".join(f"text {i}\n" for i in range(640)))
    with fault_server.start() as server:
        server.reset(key="", faults={status: 1.0}, times=10**6)
        settings = {"kind": "openai", "name": "llm", "model": "m", "url": server.url, "key_env": "", "retries": 0}
        (tmp_path / "judge.yaml").write_text(json.dumps(settings))
        words = ["--root", str(root), "--judge", str(tmp_path / "judge.yaml"), "--m", "2", "--k", "3", "--format", "csv"]
        code = main(["score", str(tmp_path / "in.txt"), *words])
        out, err = capsys.readouterr()
        assert sum(server.seen()["seen"].values()) < 640  # of 1,280 windows and the estimate of the sharpness
    assert code == 2
    assert len(list(csv.DictReader(io.StringIO(out)))) == 64
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "nothing was scored; 128 of 128 windows failed, after 64 of 640 scores (first: text 1, svt:benevolence: " in line
    assert "status 500" in line or status == "prose"


DAMAGED = (b"", b"{", b"[1]", b"3", b"\xff\x00", b'{"svt:benevolence": -1}', b'{"svt:benevolence": NaN}')


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_estimate_is_set_aside_and_made_again(ask, root, content):
    words = ("score", "a text", "--m", "2", "--format", "json")
    first = ask(*words)[1]
    (file,) = (root / "cache" / "sharpness").iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    assert ask(*words)[1:] == (first, [], 62)
    assert file.read_bytes() == whole
    assert file.with_name(file.name + ".bad").read_bytes() == content


def test_an_estimate_from_too_few_answers_is_not_kept(ask, root):
    assert ask("score", "a text", judge=BROKEN)[3] == 63
    assert not (root / "cache" / "sharpness").exists()


def test_a_root_that_cannot_be_written_is_said_and_the_scores_are_the_same(ask, root, caplog, monkeypatch):
    expected = ask("score", "a text", "--format", "json")[1]
    (file,) = (root / "cache" / "sharpness").iterdir()
    file.unlink()

    def refuse(url: str, content: bytes) -> None:
        raise store.files.storage_error(PermissionError(13, "Permission denied"), f"write {url}")

    monkeypatch.setattr(store, "write_bytes", refuse)
    code, out, _, num_asked = ask("score", "a text", "--format", "json")
    assert (code, out, num_asked) == (0, expected, 63)
    assert "kept for this process alone" in caplog.text
    assert not file.exists()
