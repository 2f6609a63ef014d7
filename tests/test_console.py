"""Printing: nothing that comes from outside steers a terminal, on every way out of the command, the jobs and their logs."""

import ast
import io
import json
import logging
import sys
import time
from pathlib import Path

import pytest

from valueflow import console
from valueflow.config import Config
from valueflow.console import PrintableFormatter, json_text, one_line, printable, say
from valueflow.errors import InputError
from valueflow.job import run_job

HOSTILE = "a\x1b[2Jb\x9b31mc\x00\x07\r\u202ed\udce9"
SHOWN = "a�[2Jb�31mc����d�"


class JobConfig(Config):
    """Settings of a job that does nothing."""

    root: str = ""


def test_what_a_terminal_acts_on_is_replaced_and_words_stay():
    assert printable(HOSTILE) == SHOWN
    words = "Ærlighet 诚实 👩\u200d🚀 a\u00a0b\n\tc مرحبا"
    assert printable(words) == words
    assert one_line("a\n\tb\x1b[2J") == "a b�[2J"


def test_json_loses_nothing():
    text = json_text({"a": HOSTILE}, indent=1)
    assert not console.UNSAFE.search(text)
    assert json.loads(text) == {"a": HOSTILE}
    assert json_text("诚实") == '"诚实"'


def test_logs_and_their_tracebacks_are_printable():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("row %s", HOSTILE)
    assert stream.getvalue().count(SHOWN) == 2
    assert printable(stream.getvalue()) == stream.getvalue()


def test_say_and_uncaught_errors_are_printable(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    console.start(logging.INFO)
    say(HOSTILE)
    say(HOSTILE, sys.stderr)
    error = ValueError(HOSTILE)
    sys.excepthook(ValueError, error, None)
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n"
    assert err == f"{SHOWN}\nValueError: {SHOWN}\n"


def test_the_error_of_a_job_is_printable(capsys, monkeypatch, tmp_path):
    def main(_: JobConfig) -> None:
        raise InputError(f"file {HOSTILE} does not exist")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text("root: here\n")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["job", str(tmp_path / "job.yaml")])
    with pytest.raises(SystemExit):
        run_job(JobConfig, main)
    assert f"error: file {SHOWN} does not exist\n" in capsys.readouterr().err


def test_everything_is_printed_by_say():
    source = Path(__file__).parents[1]
    for path in (path for room in ("valueflow", "serve", "jobs") for path in (source / room).rglob("*.py")):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        prints = [call.lineno for call in calls if ast.unparse(call) in ("print", "logging.StreamHandler", "sys.stdout.write")]
        assert not prints or path.name == "console.py", f"{path}:{prints}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@h/v1 refused", "http://***@h/v1 refused"),
        ("https://tok@h", "https://***@h"),
        ("simplecache::http://u:p@ss@h/x", "simplecache::http://***@h/x"),
        ("s3://k:se/cret@b", "s3://***@b"),
        ("http://h/v1?api-key=abc&x=1", "http://h/v1?api-key=***&x=1"),
        ("http://h/a.csv?X-Amz-Signature=abc&X-Amz-Date=1", "http://h/a.csv?X-Amz-Signature=***&X-Amz-Date=1"),
        ("{'api_key': 'abc', 'x': 1}", "{'api_key': '***', 'x': 1}"),
        ('"Authorization": "Bearer abc def"', '"Authorization": "***"'),
        ("Authorization: Bearer abcdef", "Authorization: ***"),
        *[
            (text, text)
            for text in (
                "abfss://c@acc/x", "http://[::1]:8000/@x", "http://h:8000/@a/x", "http://h:8000 a@b", '{"u":"http://h:8000","x":"a@b"}',
                "LLM 'j' needs an API key: set the environment variable OPENAI_API_KEY", "max_tokens=5 key_env=K tokens_in=3",
                "api_key=${oc.env:KEY}", "windows.m=4",
            )
        ],
    ],
)  # fmt: skip
def test_secrets_are_hidden_and_nothing_else(text, shown):
    assert console.without_secrets(text) == shown
    assert str(InputError(text)) == shown
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (text,), None)
    assert PrintableFormatter("%(message)s").format(record) == shown


@pytest.mark.parametrize("run", [" ", "\n", "a", "a=", '"', "://:", "authorization ", "token"])
def test_a_message_that_quotes_a_large_file_is_shown_at_once_and_without_its_secret(run):
    message = f"a.csv: token={'s3cret' * 2000} {run * (1_000_000 // len(run))} password=s3cret"
    started = time.monotonic()
    shown = str(InputError(message))
    assert time.monotonic() - started < 2  # it was quadratic in the length: hours
    assert shown.startswith("a.csv: token=***")
    assert "s3cret" not in shown
    assert "\n" not in shown
