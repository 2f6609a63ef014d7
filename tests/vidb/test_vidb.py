"""A version is calibrated, licensed and readable by other tools; imported files become a version, and a bad line is named."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valueflow import store, vidb
from valueflow.errors import InputError
from valueflow.evaluation.scoring import EvaluatorConfig, Posterior, check_anchors, plan_round
from valueflow.ranking.calibration import CalibrateConfig
from valueflow.records import SCHEMAS, text_id
from valueflow.store import Build
from valueflow.vidb import publish
from valueflow.vidb.content import Knowledge

EXACT = Knowledge(correlation=1.0)

TEXTS = {"I helped my sister move.": 8.0, "I ate an apple.": 0.0, "I lied to my brother.": -7.5}


def official(folder: Path, rows: dict[str, object], name: str = "benevolence_svt.csv") -> str:
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "final_rating"), *rows.items()])
    return str(path)


def jsonl(folder: Path, *lines: object, name: str = "anchors.jsonl") -> str:
    path = folder / name
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines), "utf-8"
    )
    return str(path)


def anchor(text: str, intensity: object, **other: object) -> dict:
    return {"theory": "svt", "value": "benevolence", "text": text, "intensity": intensity} | other


def imported(folder: Path, *paths: str) -> tuple[vidb.Vidb, dict[str, int]]:
    build, counts = vidb.import_version(list(paths), "CC-BY-4.0", "somewhere", str(folder))
    return vidb.load(str(folder), build.build_id), counts


def refusal(folder: Path, *paths: str) -> str:
    with pytest.raises(InputError) as refused:
        vidb.import_version(list(paths), "MIT", "somewhere", str(folder))
    assert not (folder / "vidb").exists()
    return str(refused.value)


def as_intensities(version: vidb.Vidb, value: str) -> dict[str, float]:
    rows = store.read_table(version.build, ["text", "intensity"], store.value_folder(value))
    return dict(zip(rows["text"].to_pylist(), rows["intensity"].to_pylist(), strict=True))


def test_official_csv_and_jsonl_become_the_same_anchors(tmp_path):
    from_csv, counts = imported(tmp_path, official(tmp_path, TEXTS))
    from_json, _ = imported(tmp_path, jsonl(tmp_path, *(anchor(text, rating) for text, rating in TEXTS.items())))
    assert counts == {"texts": 3, "duplicates": 0, "empty": 0}
    assert from_csv.build == from_json.build
    assert as_intensities(from_csv, "svt:benevolence") == TEXTS
    anchor_set = from_csv.anchors("svt:benevolence")
    assert anchor_set.theta_A.tolist() == [-7.5, 0.0, 8.0]
    assert anchor_set.text_ids.tolist() == [text_id(text) for text in sorted(TEXTS, key=TEXTS.get)]
    np.testing.assert_allclose(anchor_set.calibration.to_intensity(anchor_set.theta_A), anchor_set.theta_A)
    assert vidb.licenses(from_csv) == {"CC-BY-4.0": 3}
    assert from_csv.judge_fingerprint == ""


def test_an_import_depends_on_the_content_of_the_files_only(tmp_path):
    first, _ = imported(tmp_path, official(tmp_path, TEXTS))
    other = tmp_path / "elsewhere"
    other.mkdir()
    again, _ = imported(tmp_path, official(other, dict(reversed(TEXTS.items()))))
    assert again == first
    changed, _ = imported(tmp_path, official(tmp_path, TEXTS | {"I ate an apple.": 0.5}))
    assert changed.build != first.build


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("care-harm_mft.csv", "mft:care-harm"),
        ("civil_rights_right.csv", "right:civil-rights"),
        ("Self-Direction_pvq.csv", "svt:self-direction"),
        ("justice_duties.csv", "duty:justice"),
    ],
)
def test_the_value_of_an_official_file_is_in_its_name(tmp_path, name, value):
    version, _ = imported(tmp_path, official(tmp_path, TEXTS, name))
    assert list(version.calibrations) == [value]


def test_duplicates_and_empty_texts_are_counted_and_dropped(tmp_path):
    lines = [anchor("a  b", 1), anchor("a b ", 9), anchor("  ", 3), anchor("", 3), anchor("c", -10)]
    version, counts = imported(tmp_path, jsonl(tmp_path, *lines, anchor("a b", 4, theory="duty", value="fidelity")))
    assert counts == {"texts": 3, "duplicates": 1, "empty": 2}
    assert as_intensities(version, "svt:benevolence") == {"a b": 1.0, "c": -10.0}
    assert as_intensities(version, "duty:fidelity") == {"a b": 4.0}


def test_texts_of_any_script_line_break_and_quote_survive(tmp_path):
    texts = {'She said "no", then\nleft.': 1.0, "Ærlighet — 诚实": 2.0, "a,b;c\td": 3.0, "\ufeffmarked": 4.0}
    from_csv, _ = imported(tmp_path, official(tmp_path, texts))
    assert as_intensities(from_csv, "svt:benevolence") == {" ".join(text.split()): rating for text, rating in texts.items()}


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    path = tmp_path / "benevolence_svt.csv"
    path.write_bytes("\ufefftext,final_rating\r\nkind,5\r\n".encode())
    version, _ = imported(tmp_path, str(path))
    assert as_intensities(version, "svt:benevolence") == {"kind": 5.0}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_json_line_ends_with_a_line_feed_only(tmp_path, separator):
    version, _ = imported(tmp_path, jsonl(tmp_path, anchor(f"one{separator}two", 5), anchor("three", 1)))
    assert as_intensities(version, "svt:benevolence") == {"one two": 5.0, "three": 1.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "anchors.jsonl:2: row is not JSON"),
        (
            {"theory": "svt", "value": "power", "intensity": 3},
            "anchors.jsonl:2 lacks 'text'; a row needs theory, value, text, intensity",
        ),
        ({"text": "t", "theory": "svt", "intensity": 3}, "anchors.jsonl:2 lacks 'value'"),
        ({"text": "t", "theory": "svt", "value": "power"}, "anchors.jsonl:2 lacks 'intensity'"),
        (anchor(["t"], 3), "anchors.jsonl:2: 'text' holds a list, not a string"),
        (json.dumps(anchor("\ud800", 3)), "anchors.jsonl:2: row has bytes that are not UTF-8, or lone surrogates"),
        (anchor(3, 3), "anchors.jsonl:2: text is 3, not a string"),
        (anchor("t", "high"), "anchors.jsonl:2 intensity is 'high', not a number"),
        (anchor("t", None), "anchors.jsonl:2 intensity is None, not a number"),
        (anchor("t", 11), "anchors.jsonl:2 intensity is 11; intensities lie in [-10, 10]"),
        (anchor("t", float("nan")), "anchors.jsonl:2 intensity is None, not a number"),
        (anchor("t", 1, value="benevolance"), "unknown value 'svt:benevolance'; did you mean 'benevolence'?"),
        ("3", "anchors.jsonl:2: row is not a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    assert message in refusal(tmp_path, jsonl(tmp_path, anchor("fine", 1), line, anchor("fine too", 2)))


def test_an_unknown_value_is_named_with_its_line(tmp_path):
    assert "anchors.jsonl:2" in refusal(tmp_path, jsonl(tmp_path, anchor("a", 1), anchor("b", 1, value="benevolance")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,final_rating\na,1\nb,many\n", "benevolence_svt.csv:3 final_rating is 'many', not a number"),
        (b"text,final_rating\na,1\nb\n", "benevolence_svt.csv:3: row has 1 fields, the header has 2"),
        (b"text,final_rating\na,-10.5\n", "benevolence_svt.csv:2 final_rating is -10.5; intensities lie in [-10, 10]"),
        (b"text,rating\na,1\n", "benevolence_svt.csv lacks column(s) ['final_rating']; it has ['text', 'rating']"),
        (b"", "benevolence_svt.csv lacks column(s) ['text', 'final_rating']; it has []"),
        (b"text,final_rating\n\xff,1\n", "benevolence_svt.csv:2: row has bytes that are not UTF-8"),
        (b"text,final_rating\n", "no text in "),
    ],
)
def test_a_bad_official_file_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "benevolence_svt.csv"
    path.write_bytes(content)
    assert message in refusal(tmp_path, str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("benevolence_svt.csv", b"final_rating,text\n1,a\n2\n"),
        ("a.jsonl", b'{"text": "\xff"}\n'),
    ],
)
def test_an_unreadable_file_is_an_input_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert name in refusal(tmp_path, str(tmp_path / name))


def test_empty_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + json.dumps(anchor("a", 1)) + "\r\n\r\n" + json.dumps(anchor("b", 2)) + "\n\n", "utf-8")
    version, _ = imported(tmp_path, str(path))
    assert as_intensities(version, "svt:benevolence") == {"a": 1.0, "b": 2.0}


def test_only_the_32_operational_values_can_be_imported(tmp_path):
    assert "svt:conservation is not one of the 32 operational values" in refusal(
        tmp_path, official(tmp_path, TEXTS, "conservation_svt.csv")
    )


def test_a_missing_or_badly_named_file_is_refused(tmp_path):
    assert "benevolence_svt.csv does not exist" in refusal(tmp_path, f"{tmp_path}/benevolence_svt.csv")
    assert "x.jsonl does not exist" in refusal(tmp_path, f"{tmp_path}/x.jsonl")
    (tmp_path / "power_svt.csv").mkdir()
    assert "power_svt.csv does not exist or is not a file" in refusal(tmp_path, f"{tmp_path}/power_svt.csv")
    assert "the name must be {value}_{theory}.csv" in refusal(tmp_path, official(tmp_path, TEXTS, "anchors.csv"))
    assert "unknown theory 'svtt'; did you mean 'svt'?" in refusal(tmp_path, official(tmp_path, TEXTS, "power_svtt.csv"))


def test_the_published_anchors_can_be_imported_and_used(data, tmp_path):
    version, counts = imported(tmp_path, str(data / "vidb_anchors" / "dev.jsonl"))
    assert counts["texts"] + counts["duplicates"] == 358
    assert len(version.calibrations) == 30
    config = EvaluatorConfig(k=3, m=2)
    anchor_set = version.anchors("duty:fidelity")
    check_anchors(anchor_set, config)
    (window,) = plan_round(Posterior(anchor_set, 1, 1.0), ["u"], ["x"], [set()], 0, config)
    assert len(window.anchors) == 2


def test_an_unknown_value_of_a_version_gets_the_near_one(tmp_path):
    version, _ = imported(tmp_path, official(tmp_path, TEXTS))
    with pytest.raises(InputError, match=r"has no 'svt:benevolance'; did you mean 'svt:benevolence'\?"):
        version.anchors("svt:benevolance")
    with pytest.raises(InputError, match=r"has no 'duty:fidelity'; allowed: svt:benevolence"):
        version.anchors("duty:fidelity")


def test_loading_needs_something_published_or_an_id_that_exists(tmp_path):
    with pytest.raises(InputError, match=r"nothing is published under .*; run python -m jobs.build_vidb or jobs.import_vidb"):
        vidb.load(str(tmp_path))
    version, _ = imported(tmp_path, official(tmp_path, TEXTS))
    with pytest.raises(InputError, match=r"nothing is published"):
        vidb.load(str(tmp_path))
    with pytest.raises(InputError, match=rf"no finished 'vidb' build 'v-7' .*finished: {version.build.build_id}"):
        vidb.load(str(tmp_path), "v-7")
    store.publish(str(tmp_path), version.build.build_id, store.current(str(tmp_path)))
    assert vidb.load(str(tmp_path)) == version


class Pool:
    """Candidates and utilities of two values, as the output of their stages: text i has theta (i - 10) / 2; 8 to 12 neutral."""

    values = ("svt:power", "duty:fidelity")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.candidates, self.utilities = Build(str(root), "candidates", "c"), Build(str(root), "utilities", "u")
        for value in self.values:
            theory, _, node = value.partition(":")
            texts = sorted((f"text {i} of {node}" for i in range(21)), key=text_id)
            number = np.array([int(text.split()[1]) for text in texts])
            common = {"theory": [theory] * 21, "value": [node] * 21, "text_id": [text_id(t) for t in texts]}
            pool = common | {
                "text": texts, "direction": np.sign(number - 10), "neutral": np.abs(number - 10) <= 2,
                "source": ["s"] * 21, "license": ["MIT" if i % 3 else "CC-BY-4.0" for i in number],
            }  # fmt: skip
            fitted = common | {
                "theta": (number - 10) / 2, "standard_error": np.full(21, 0.5), "num_windows": np.full(21, 8),
                "wins": np.full(21, 4.0), "component": np.zeros(21),
            }  # fmt: skip
            for build, columns, order in (
                (self.candidates, pool, slice(None)),
                (self.utilities, fitted, slice(None, None, -1)),
            ):
                rows = pa.table(columns).cast(SCHEMAS[build.table], safe=False).take(np.arange(21)[order])
                store.write_part(build, rows, "0", store.value_folder(f"{theory}:{node}"))
        store.commit(self.candidates, store.CandidatesDetails())
        store.commit(self.utilities, store.UtilitiesDetails())

    def write(self, name: str, rated: str = "", knowledge: Knowledge = EXACT, **config: object) -> vidb.Vidb:
        out = Build(str(self.root), "vidb", name)
        calibrate, human = CalibrateConfig(**config), publish.HumanConfig(ratings=rated)
        publish.write_version(
            self.candidates,
            self.utilities,
            calibrate,
            publish.review_of(self.candidates, calibrate, human),
            store.VidbDetails(judge_fingerprint="77aa"),
            out,
            knowledge=knowledge,
        )
        return vidb.load(str(self.root), name)

    def ratings(self, rows: list[tuple]) -> str:
        path = self.root / "ratings.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("theory", "value", "text", "rating"), *rows])
        return str(path)


@pytest.fixture
def pool(tmp_path) -> Pool:
    return Pool(tmp_path)


def test_a_version_has_theta_and_interval_of_every_text(pool):
    version = pool.write("v-1")
    assert set(version.calibrations) == set(pool.values)
    assert version.judge_fingerprint == "77aa"
    for value in pool.values:
        rows = store.read_table(version.build, folder=store.value_folder(value)).to_pylist()
        for row in rows:
            number = int(row["text"].split()[1])
            assert row["theta"] == (number - 10) / 2
            assert row["text_id"] == text_id(row["text"])
            assert row["intensity"] == pytest.approx(number - 10, abs=0.2)
            assert row["low"] <= row["intensity"] == row["final_rating"] <= row["high"]
            assert row["direction"] == np.sign(number - 10)
            assert row["license"] == ("MIT" if number % 3 else "CC-BY-4.0")
        assert version.anchors(value).theta_A.tolist() == sorted(row["theta"] for row in rows)
    assert vidb.licenses(version) == version.details.licenses == {"MIT": 28, "CC-BY-4.0": 14}


def test_the_official_csv_of_a_version_is_the_version(pool):
    version = pool.write("v-1")
    again, counts = imported(pool.root, f"{version.build.url}/csv/power_svt.csv", f"{version.build.url}/csv/fidelity_duty.csv")
    assert counts == {"texts": 42, "duplicates": 0, "empty": 0}
    for value in pool.values:
        assert as_intensities(again, value) == as_intensities(version, value)


def test_a_version_that_is_finished_is_not_written_again(pool):
    first = pool.write("v-1")
    assert pool.write("v-1", extreme_quantile=0.6).manifest == first.manifest


@pytest.mark.parametrize("mode", ["human", "rated"])
def test_ratings_by_people_set_the_scale(pool, mode):
    rows = [(*value.split(":"), f"text {i} of {value.split(':')[1]}", i / 2 - 3) for value in pool.values for i in (0, 7, 20)]
    version = pool.write("v-1", mode=mode, ratings=pool.ratings(rows))
    intensities = as_intensities(version, "svt:power")
    assert [intensities[f"text {i} of power"] for i in (0, 7, 20)] == pytest.approx([-3.0, 0.5, 7.0])
    rated = store.read_table(version.build, ["human_mean"])["human_mean"].to_pylist()
    assert sorted(r for r in rated if r is not None) == [-3.0, -3.0, 0.5, 0.5, 7.0, 7.0]


def test_ratings_of_no_text_are_counted_in_the_manifest_and_the_others_are_merged(pool):
    rows = [("svt", "power", "text 3 of power", 9), ("svt", "power", "text\u00a03 of p\u00f6wer", 9)]
    version = pool.write("v-1", rated=pool.ratings(rows))
    assert (version.details.unmatched_ratings, version.details.rated_by_humans) == (1, 1)
    (row,) = (row for row in store.read_table(version.build).to_pylist() if row["human_mean"] is not None)
    assert (row["text"], row["human_mean"]) == ("text 3 of power", 9.0)
    assert row["final_rating"] == pytest.approx((row["intensity"] + 9) / 2)
    assert "unmatched_ratings" not in pool.write("v-2", rated=pool.ratings(rows[:1])).details.model_fields_set


def test_an_error_in_the_ratings_names_the_value_or_the_line(pool):
    few = [("svt", "power", f"text {i} of power", i / 4) for i in (0, 7, 20)]
    falling = [("duty", "fidelity", f"text {i} of fidelity", -i / 4) for i in (0, 7, 20)]
    for rows, message in (
        (few, r"duty:fidelity: .*ratings.csv has ratings of 0 texts; at least 3 are needed"),
        (falling[:2], r"duty:fidelity: .*ratings.csv has ratings of 2 texts"),
        (few + falling, r"duty:fidelity: calibration mode 'human': the 3 ratings do not increase with theta"),
        ([*few, ("svt", "power", "x", "12")], r"ratings.csv:5 rating is 12; intensities lie in"),
        ([("svt", "powr", "x", "1")], r"unknown value 'svt:powr'; did you mean 'power'\?"),
    ):
        with pytest.raises(InputError, match=message):
            pool.write("v-1", mode="human", ratings=pool.ratings(rows))
    assert store.manifest(Build(str(pool.root), "vidb", "v-1")) is None


def value_rows(version: vidb.Vidb, value: str) -> list[dict]:
    return store.read_table(version.build, folder=store.value_folder(value)).to_pylist()


def test_a_judge_without_content_error_keeps_its_intervals_and_says_so(pool):
    version = pool.write("v-1")
    for value in pool.values:
        assert "simulated" in version.content_error(value).source
        for row in value_rows(version, value):
            assert [row[f"judge_{name}"] for name in ("intensity", "low", "high")] == [
                row[name] for name in ("intensity", "low", "high")
            ]


def test_the_spread_of_neutral_texts_widens_intervals_and_draws_intensities_to_zero(pool):
    version = pool.write("v-1", knowledge=Knowledge())
    for value in pool.values:
        error = version.content_error(value)
        assert error.basis == "neutral"
        assert error.source == (
            "content error from 5 neutral texts, their spread pooled over 2 values; not calibrated to people"
        )
        assert version.anchors(value).content_error == error
        for row in value_rows(version, value):
            assert abs(row["intensity"]) <= abs(row["judge_intensity"])
            assert row["low"] < row["judge_low"] + 1e-9 or row["low"] == -10
            total = error.total(*([row[f"judge_{name}"]] for name in ("intensity", "low", "high")))
            assert [float(column[0]) for column in total] == [row[name] for name in ("intensity", "low", "high")]


def test_human_ratings_are_better_than_neutral_texts(pool):
    rows = [("svt", "power", f"text {i} of power", (i - 10) / 2) for i in range(21)]
    value = next(v for v in pool.values if v.endswith("power"))
    rows = [(*value.split(":"), text, rating) for _, _, text, rating in rows]
    version = pool.write("v-1", pool.ratings(rows), knowledge=Knowledge())
    error = version.content_error(value)
    assert (error.basis, error.n, error.source) == ("ratings", 21, "content error from 21 human ratings")
    assert error.slope == pytest.approx(0.5, abs=0.02)
    assert error.sd < 0.5
    other = next(v for v in pool.values if v != value)
    assert version.content_error(other).basis == "neutral"


def test_a_version_of_an_earlier_release_keeps_the_numbers_it_was_built_with(tmp_path):
    version, _ = imported(tmp_path, official(tmp_path, TEXTS))
    (part,) = Path(version.build.url).rglob("part-0.parquet")
    old = pq.read_table(part, partitioning=None).drop_columns(["judge_intensity", "judge_low", "judge_high"])
    content, earlier = io.BytesIO(), Build(str(tmp_path), "vidb", "v-earlier")
    pq.write_table(old, content, write_page_checksum=True)
    file = store.write_file(earlier, str(part.relative_to(version.build.url)), content.getvalue(), old.num_rows)
    store.commit(earlier, version.details, [], [file])
    again = vidb.load(str(tmp_path), "v-earlier")
    (value,) = again.calibrations
    assert again.content_error(value).is_exact
    assert "not calibrated to people" in again.content_error(value).source
    rows = store.read_table(again.build, ["judge_intensity", "intensity"])
    assert rows.column_names == ["judge_intensity", "intensity"]
    assert rows["judge_intensity"].null_count == 3
