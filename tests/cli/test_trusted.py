"""`profile --trusted`: the judge's mean corrected by trusted scores of a random subset, in this process and by a server."""

import csv
import io
import json

import numpy as np
import pytest
from fakes.server import FakeServer, running
from fakes.service import UNJUDGEABLE, FakeService, fake_score, share

from valueflow.cli.main import main
from valueflow.evaluation.prediction_powered import Estimate, Sample, mean
from valueflow.records import text_id

TEXTS = [f"What I wrote on day {i}." for i in range(60)]
VALUE, OTHER = "svt:power", "mft:care-harm"
RATED = TEXTS[::3]  # 20 of 60


def trusted_score(text: str, value: str) -> float:
    """A trusted score that follows the fake judge's, on another scale and with an error."""
    return round(0.5 * fake_score(0, text, value).intensity + 2 + share(text, value, "error"), 3)


@pytest.fixture
def service(monkeypatch, tmp_path) -> FakeService:
    service = FakeService(request_id="r-1")
    monkeypatch.setattr("valueflow.service.local.local_service", lambda *_: service)
    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)
    monkeypatch.chdir(tmp_path)
    write("all.csv", "text", *([text] for text in TEXTS))
    return service


@pytest.fixture
def run(capsys):
    def command(*words: str) -> tuple[int, str, list[str]]:
        code = main(["profile", "all.csv", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return command


def write(name: str, columns: str, *rows: list) -> str:
    with open(name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(), *rows])
    return name


def expected(value: str) -> Estimate:
    judge_T = np.array([fake_score(0, text, value).intensity for text in TEXTS])
    return mean(Sample(judge_T, np.array([trusted_score(text, value) if text in RATED else np.nan for text in TEXTS])))


def test_a_profile_is_corrected_by_the_trusted_scores(service, run):
    rows = [[text, value, trusted_score(text, value)] for value in (VALUE, OTHER) for text in RATED]
    write("trusted.csv", "text value rating", *rows)
    code, out, err = run("--trusted", "trusted.csv", "--format", "csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, [row["value"] for row in table]) == (0, [], [VALUE, OTHER])
    for row in table:
        result = expected(row["value"])
        assert [float(row[name]) for name in ("intensity", "low", "high")] == pytest.approx(result[:3])
        assert (row["num_texts"], row["num_trusted"], row["method"]) == ("60", "20", "prediction-powered")
        assert float(row["judge_weight"]) == pytest.approx(result.judge_weights[0])
        assert float(row["judge_weight"]) > 0.2
    assert service.requests[-1].values == [VALUE, OTHER]  # nothing else is judged


@pytest.mark.parametrize(
    ("columns", "of"),
    [
        ("text value rating", lambda text, score: [text, VALUE, score]),
        ("theory value text_id rating", lambda text, score: ["Schwartz", "Power", text_id(text), score]),
        ("index text value intensity low high", lambda text, score: [0, text, VALUE, score, "", ""]),  # of `valueflow score`
        ("text_id text theory value rating", lambda text, score: ["1.2E+15", f" {text} ", "", "svt:power", score]),
    ],
)
def test_every_form_of_the_file_gives_the_same(service, run, columns, of):
    write("trusted.csv", columns, *(of(text, trusted_score(text, VALUE)) for text in RATED))
    code, out, _ = run("--trusted", "trusted.csv", "--value", VALUE, "--format", "json")
    (row,) = json.loads(out)["rows"]
    assert code == 0
    assert [row[name] for name in ("intensity", "low", "high")] == pytest.approx(expected(VALUE)[:3])


def test_a_server_gives_the_same_table_as_this_process(service, run, monkeypatch):
    write("trusted.csv", "text value rating", *([text, VALUE, trusted_score(text, VALUE)] for text in RATED))
    local = run("--trusted", "trusted.csv")
    assert local[0] == 0
    assert local[1].splitlines()[0].split()[-4:] == ["trusted", "judge's", "weight", "band"]
    assert "prediction-powered means" in local[1]
    with running(FakeServer(FakeService(request_id="r-1"))) as server:
        monkeypatch.setenv("VALUEFLOW_SERVER", server.url)
        assert run("--trusted", "trusted.csv") == local


def test_what_the_judge_cannot_score_is_no_reason_to_leave_a_trusted_score_out(service, run):
    texts = [f"{text} {UNJUDGEABLE}" if i < 6 else text for i, text in enumerate(TEXTS)]
    write("all.csv", "text", *([text] for text in texts))
    write("trusted.csv", "text value rating", *([texts[i], VALUE, i / 10] for i in range(0, 60, 3)))
    code, out, err = run("--trusted", "trusted.csv", "--format", "json")
    (row,) = json.loads(out)["rows"]
    assert (code, row["num_texts"], row["num_trusted"]) == (0, 54, 20)
    assert err[0].startswith("6 of 60 scores are missing")


def test_values_with_too_few_trusted_scores_are_named_and_left_out(service, run):
    rows = [[text, VALUE, trusted_score(text, VALUE)] for text in RATED]
    write("trusted.csv", "text value rating", *rows, [TEXTS[0], OTHER, 3], *([text, "svt:face", 1] for text in RATED))
    code, out, err = run("--trusted", "trusted.csv", "--format", "csv")
    assert [row["value"] for row in csv.DictReader(io.StringIO(out))] == [VALUE]
    assert (code, len(err)) == (0, 1)
    assert err[0].startswith(f"2 of 3 values left out (first: {OTHER}: an interval needs at least 2 trusted scores, not 1")


def test_a_subset_that_is_not_random_is_named(service, run):
    by_judge = sorted(TEXTS, key=lambda text: fake_score(0, text, VALUE).intensity)
    write("trusted.csv", "text value rating", *([text, VALUE, trusted_score(text, VALUE)] for text in by_judge[30:]))
    code, _, err = run("--trusted", "trusted.csv")
    assert code == 0
    assert f"{VALUE}: the judge scores the trusted texts" in err[0]
    assert "higher than the others" in err[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[TEXTS[0], VALUE, 1], ["elsewhere", VALUE, 2], ["too", VALUE, 2]],
         "error: 2 of 3 ratings are of none of the 60 texts (first: trusted.csv:3: 'elsewhere')"),
        ([[TEXTS[0], VALUE, 1]], "error: trusted.csv has too few ratings for a profile; svt:power: an interval needs"),
        ([[TEXTS[0], VALUE, 1], [TEXTS[1], VALUE, 1]], "error: trusted.csv has too few ratings for a profile; svt:power: all"),
        ([[TEXTS[0], VALUE, ""]], "error: trusted.csv has no rating"),
        ([[TEXTS[0], VALUE, 11]], "error: trusted.csv:2 rating is 11"),
        ([[TEXTS[0], "svt:powr", 1]], "error: trusted.csv:2: unknown value 'svt:powr'"),
    ],
)  # fmt: skip
def test_a_file_that_corrects_nothing_is_refused_before_anything_is_asked(service, run, rows, message):
    write("trusted.csv", "text value rating", *rows)
    code, out, err = run("--trusted", "trusted.csv")
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(message)
    assert not service.requests


def test_a_file_without_a_column_is_refused(service, run):
    for columns, missing in (("text value", "rating"), ("value rating", "text"), ("text rating", "value")):
        code, _, err = run("--trusted", write("trusted.csv", columns, ["a", "b"]))
        assert (code, err[0].startswith(f"error: trusted.csv lacks column(s) ['{missing}']")) == (2, True)
