"""OpinionQA with a model behind an endpoint: profiles from one side of the questions, answers to the other by each arm."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from configs import job_config
from fakes import choice_server
from roots import with_texts_of, with_version_of

from jobs import build_vidb, opinionqa
from valueflow import store
from valueflow.errors import InputError
from valueflow.store import Build, ChoicesDetails

pytestmark = pytest.mark.ray
VALUES = ["svt:benevolence"]


def statements(direction: str) -> list[str]:
    path = Path(__file__).parents[3] / "valueflow" / "samples" / "corpus.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["theory"], row["value"]) == ("svt", "benevolence")]
    return [row["text"] for row in rows if row["direction"] == direction]


KIND, HARD = statements("1"), statements("-1")


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> str:
    """Two groups of opposite leaning choose between a kind statement and a hard one."""
    rng = np.random.default_rng(0)
    entries = []
    for number in range(60):
        word = "".join(rng.choice(list("abcdefghij"), 8))  # no two wordings are alike, and the options say everything
        pair = [KIND[number % len(KIND)], HARD[number % len(HARD)]]
        kind_first = bool(rng.random() < 0.5)
        for group, kind in (("Kind", 0.9), ("Hard", 0.1)):
            shares = [kind, 1 - kind] if kind_first else [1 - kind, kind]
            entry = {"question": f"Question: {word}?", "options": pair if kind_first else pair[::-1]}
            entries.append(entry | {"attribute": f"LEAN_{group}", "gold_distribution": shares})
    path = tmp_path_factory.mktemp("items") / "items.json"
    path.write_text(json.dumps(entries), "utf-8")
    return str(path)


MIDDLE = 3.5  # of the profiles of the two groups and the population, which the encoder judge puts at +2, +5 and +4


def by_profile(before: str, options: list[str]) -> list[float]:
    """A model that believes what a profile says of benevolence, and prefers the first letter a little."""
    said = re.search(r"benevolence \(([+-]\d+) of 10\)", before)
    p = 1 / (1 + np.exp(MIDDLE - float(said[1]))) if said else 0.5
    shares = np.array([p if option in KIND else 1 - p for option in options]) * np.array([1.3, 1.0])
    return (shares / shares.sum()).tolist()


@pytest.fixture(scope="module")
def read_by_encoder(ingested, tmp_path_factory) -> Path:
    """A root whose version a judge has made that reads the texts, so that profiles follow them."""
    root = with_texts_of(ingested, tmp_path_factory.mktemp("encoder"))
    judge = {"kind": "encoder", "name": "minilm-encoder"}
    build_vidb.main(job_config(build_vidb, root, "candidates.values=[svt:benevolence]", judge=judge))
    return root


@pytest.fixture
def asked(read_by_encoder, items, tmp_path):
    root = with_version_of(read_by_encoder, tmp_path)

    def run(url: str, *overrides: str, **settings: object):
        model = {"kind": "openai", "name": "stub", "model": "m", "url": url, "key_env": "", "structured": "none"}
        values = {"items": items, "values": VALUES, "models": [model], "relevance": {"by": "head"}} | settings
        return opinionqa.main(job_config(opinionqa, root, *overrides, name="public", **values))

    return run


@pytest.mark.slow
def test_a_model_that_reads_profiles_earns_a_contrast_and_a_rerun_asks_nothing(asked, capsys):
    with choice_server.start(by_profile, refuses=lambda before: "river" in before) as server:
        result = asked(server.url)
        rows = {(row["reading"], row["arm"]): row for row in result.tables["measures"]}
        assert len(rows) == 2 * 8
        for reading in ("probabilities", "letter"):
            assert rows[reading, "profile"]["contrast_low"] > 0.9
            assert rows[reading, "shuffled profile"]["contrast_high"] < -0.9  # of two groups, the other one
            assert rows[reading, "default"]["contrast"] == 0
            assert rows[reading, "profile"]["accuracy"] > rows[reading, "default"]["accuracy"]
        assert abs(rows["probabilities", "population profile"]["contrast"]) < 1e-9
        assert 0 <= result.facts["thresholds"]["stub, probabilities"] <= 1.01
        # Irrelevant sentences that end at the river are refused in words; log-probabilities cannot refuse.
        assert rows["probabilities", "irrelevant text"]["unread"] == 0
        baselines = {row["arm"] for row in result.tables["baselines"]}
        assert {"uniform", "nearest questions"} <= baselines
        calls = server.calls
        assert asked(server.url).study_id == result.study_id
        assert server.calls == calls
    (build,) = result.facts["builds"]
    details = store.details_of(Build(result.root, "choices", build), ChoicesDetails)
    assert (details.questions, details.errors) == (4 * result.facts["prompts"], 0)
    page = Path(result.root, "reports", f"opinionqa-{result.study_id}.html").read_text("utf-8")
    assert "Told a profile, the model moves towards the group" in page
    assert "contrast r" in capsys.readouterr().out
    folder = Path(result.root, "answers", result.study_id)
    assert {path.stem for path in folder.glob("*.csv")} == set(result.tables)


def test_a_model_that_reads_only_the_question_earns_none(asked):
    with choice_server.start(lambda _, options: [0.7 if len(o) % 2 else 0.3 for o in options]) as server:
        result = asked(server.url, readings=["probabilities"], arms=["profile", "shuffled profile"], max_items=20)
    rows = {row["arm"]: row for row in result.tables["measures"]}
    assert set(rows) == {"default", "profile", "shuffled profile"}
    assert rows["profile"]["contrast"] == 0
    assert result.facts["num_items"] == 20
    page = Path(result.root, "reports", f"opinionqa-{result.study_id}.html").read_text("utf-8")
    assert "Nothing shows that the model uses what the profile says" in page


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"relevance": {"by": "none"}}, "adaptive"),
        (
            {"models": [{"kind": "openai", "name": "a", "model": "m", "url": "http://127.0.0.1:1/v1", "key_env": ""}]},
            "structured",
        ),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is(asked, settings, match):
    with pytest.raises(InputError, match=match):
        asked("http://127.0.0.1:1/v1", **settings)
