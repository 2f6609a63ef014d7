"""Candidates of a value: balanced labelled texts, neutral texts, and no text with an excluded license."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.store import Build
from valueflow.theories import operational
from valueflow.vidb import candidates as module
from valueflow.vidb.candidates import CandidatesConfig, chosen_values, operational_values, select_candidates

POWER = {"values": ["svt:power"]}
Labels = list[tuple[str, str, int | None]]


def corpus(root: Path, labels: Labels, unlabelled: int = 0, neutral: int = 0) -> Build:
    """Texts that contain their labels, some unlabelled, some neutral; every second text is CC-BY."""
    texts = Build(str(root), "texts", "t")
    named = list(dict.fromkeys(text for text, _, _ in labels)) + [f"unlabelled {i}" for i in range(unlabelled)]
    rows = [(text, "corpus", "CC-BY-4.0" if i % 2 else "MIT") for i, text in enumerate(named)]
    rows += [(f"neutral {i}", "neutral", "MIT") for i in range(neutral)]
    described = [
        {"text_id": text_id(t), "text": t, "language": "en", "group_id": "g", "source": s, "source_id": t, "license": x}
        for t, s, x in rows
    ]
    half = len(described) // 2
    for name, part in (("a", described[:half]), ("b", described[half:])):
        store.write_part(texts, table("texts", part), name)
    label_rows = [
        {"text_id": text_id(t), "theory": ValueId(v).theory, "node": ValueId(v).node, "direction": d, "source": "corpus"}
        for t, v, d in labels
    ]
    labels_build = Build(str(root), "source_labels", "t")
    store.write_part(labels_build, table("source_labels", label_rows), "a")
    store.commit(texts, store.IngestDetails())
    store.commit(labels_build, store.IngestDetails())
    return texts


def table(name, rows):
    return pa.Table.from_pylist(rows, SCHEMAS[name])


def pools(root: Path, labels: Labels, unlabelled: int = 0, neutral: int = 0, **config) -> dict[str, list[dict]]:
    out = Build(str(root), "candidates", "c")
    sizes = select_candidates(corpus(root, labels, unlabelled, neutral), CandidatesConfig(**config), out)
    store.commit(out, store.CandidatesDetails())
    by_value = {v: store.read_table(out, folder=store.value_folder(v)).to_pylist() for v in sizes}
    assert sizes == {value: len(rows) for value, rows in by_value.items()}
    for rows in by_value.values():
        ids = [row["text_id"] for row in rows]
        assert ids == sorted(set(ids))
    return by_value


def many(value: str, supporting: int, opposing: int, other: int = 0) -> Labels:
    return [
        (f"{value} {direction} {i}", value, direction)
        for direction, count in ((1, supporting), (-1, opposing), (None, other))
        for i in range(count)
    ]


def test_a_label_applies_to_the_operational_values_at_or_above_its_node():
    assert operational_values(ValueId("svt:power")) == ("svt:power",)
    assert operational_values(ValueId("svt:benevolence-caring")) == ("svt:benevolence",)
    assert operational_values(ValueId("right:right-to-property")) == ("right:civil-rights", "right:economic-rights")
    assert operational_values(ValueId("mft:justice")) == ("mft:fairness-cheating",)
    assert operational_values(ValueId("svt:conservation")) == ()


def test_each_value_gets_the_texts_labelled_with_it_and_their_direction(tmp_path):
    labels = [
        ("boss", "svt:power-dominance", 1), ("servant", "svt:power", -1), ("house", "right:right-to-property", 1),
        ("theft", "right:economic-rights", -1), ("vote", "right:civil-rights", None), ("calm", "svt:conservation", 1),
    ]  # fmt: skip
    values = ["svt:power", "right:civil-rights", "right:economic-rights"]
    by_value = pools(tmp_path, labels, values=values, neutral=0, num_neutral=0)
    seen = {value: {row["text"]: row["direction"] for row in rows} for value, rows in by_value.items()}
    assert seen == {
        "svt:power": {"boss": 1, "servant": -1},
        "right:civil-rights": {"house": 1, "vote": None},
        "right:economic-rights": {"house": 1, "theft": -1},
    }
    row = by_value["svt:power"][0]
    assert (row["theory"], row["value"], row["source"], row["neutral"]) == ("svt", "power", "corpus", False)


def test_neutral_texts_join_every_pool_with_direction_zero(tmp_path):
    labels = many("svt:power", 3, 3) + many("svt:face", 2, 2)
    by_value = pools(tmp_path, labels, neutral=30, values=["svt:power", "svt:face"], num_neutral=12)
    for rows in by_value.values():
        neutral = [row for row in rows if row["neutral"]]
        assert len(neutral) == 12
        assert {row["direction"] for row in neutral} == {0}
        assert {row["source"] for row in neutral} == {"neutral"}
        assert not any(row["neutral"] for row in rows if row["source"] != "neutral")


def test_other_texts_have_no_direction_and_no_label_of_the_value(tmp_path):
    labels = many("svt:power", 3, 3) + many("svt:face", 5, 5)
    rows = pools(tmp_path, labels, unlabelled=4, neutral=9, max_texts=4, num_other=14, num_neutral=2, **POWER)["svt:power"]
    others = [row for row in rows if row["direction"] is None]
    assert len(rows) == 4 + 14 + 2
    assert len(others) == 14
    assert all(row["text"].startswith(("unlabelled", "svt:face")) for row in others)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 6), st.integers(2, 20), st.integers(0, 9))
def test_labelled_texts_are_balanced_as_far_as_possible(supporting, opposing, other, limit, seed):
    directions = {text: direction for text, _, direction in many("svt:power", supporting, opposing, other)}
    picked = module._balanced(directions, limit, np.random.default_rng(seed))
    assert len(picked) == min(limit, len(directions))
    assert all(directions[text] == direction for text, direction in picked.items())
    counts = [sum(d == sign for d in picked.values()) for sign in (1, -1)]
    smaller = min(supporting, opposing)
    assert min(counts) == min(smaller, limit // 2)
    if limit <= 2 * smaller + other:
        assert abs(counts[0] - counts[1]) <= 1


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_the_rows(tmp_path):
    labels = many("svt:power", 20, 20)
    chosen = {}
    for name, ordered, seed in (("plain", labels, 0), ("reverse", labels[::-1], 0), ("other", labels, 1)):
        rows = pools(tmp_path / name, ordered, max_texts=10, num_neutral=0, seed=seed, **POWER)["svt:power"]
        chosen[name] = {row["text"] for row in rows}
    assert chosen["plain"] == chosen["reverse"] != chosen["other"]


@pytest.mark.parametrize(("directions", "direction"), [((1, None), 1), ((None, -1, -1), -1), ((1, -1), None), ((0, 1), None)])
def test_a_direction_overrides_an_unknown_one_and_two_that_disagree_are_unknown(tmp_path, directions, direction):
    labels = [("text", "svt:power", d) for d in directions] + many("svt:power", 1, 1)
    for at, ordered in enumerate(itertools.permutations(labels[: len(directions)])):
        root = tmp_path / str(at)
        rows = pools(root, [*ordered, *labels[len(directions) :]], num_neutral=0, **POWER)["svt:power"]
        assert {row["text"]: row["direction"] for row in rows}["text"] == direction


def test_a_third_label_does_not_settle_a_disagreement(tmp_path):
    for at, ordered in enumerate([(1, 1, -1), (1, -1, 1), (-1, 1, 1)]):
        labels = [("text", "svt:power", direction) for direction in ordered] + many("svt:power", 1, 1)
        rows = pools(tmp_path / str(at), labels, num_neutral=0, **POWER)["svt:power"]
        assert {row["text"]: row["direction"] for row in rows}["text"] is None


def test_a_license_filter_excludes_all_other_texts(tmp_path):
    rows = pools(
        tmp_path, many("svt:power", 6, 6), unlabelled=6, neutral=4, num_other=9, license_filter=["CC-BY-4.0"], **POWER
    )["svt:power"]
    assert len(rows) == 6 + 3
    assert {row["license"] for row in rows} == {"CC-BY-4.0"}


def test_a_license_that_the_corpus_lacks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"license_filter names 'GPL'; the corpus has .*MIT"):
        pools(tmp_path, many("svt:power", 2, 2), license_filter=["MIT", "GPL"], **POWER)


def test_a_value_without_texts_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(
        InputError, match=r"svt:face has 0 texts; ingest a corpus with labels for it or set candidates.num_other"
    ):
        pools(tmp_path, many("svt:power", 2, 2), values=["svt:face"])


def test_values_are_taken_by_any_spelling_once():
    assert chosen_values(CandidatesConfig()) == list(operational())
    assert chosen_values(CandidatesConfig(values=["Care/Harm", "pvq:power", "care"])) == ["mft:care-harm", "svt:power"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("svt:conservation", "'svt:conservation' (svt:conservation) is not one of the 32 operational values: svt:benevolence"),
        ("power-dominance", "'power-dominance' (svt:power-dominance) is not one of the 32"),
        ("powr", "did you mean 'power'?"),
        ("justice", "ambiguous"),
    ],
)
def test_a_value_that_cannot_be_ranked_is_refused(name, message):
    with pytest.raises(InputError) as refused:
        chosen_values(CandidatesConfig(values=[name]))
    assert message in str(refused.value)


def test_existing_pools_are_extended(tmp_path):
    few = [
        ("kind", "svt:benevolence", 1),
        ("mean", "svt:benevolence", -1),
        ("mighty", "svt:power", 1),
        ("meek", "svt:power", -1),
    ]
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, out = Build(str(tmp_path), "candidates", "old"), Build(str(tmp_path), "candidates", "new")
    values = {"values": ["svt:benevolence", "svt:power"], "num_neutral": 1}
    select_candidates(corpus(tmp_path / "old", few, neutral=1), CandidatesConfig(**values), old)
    store.commit(old, store.CandidatesDetails())
    more = [("kind", "svt:benevolence", -1), ("warm", "svt:benevolence", 1)]
    texts = corpus(tmp_path / "new", more, neutral=2)
    sizes = select_candidates(texts, CandidatesConfig(values=["svt:benevolence"]), out, old)
    assert sizes == {"svt:benevolence": 4, "svt:power": 3}
    store.commit(out, store.CandidatesDetails())
    pool = {row["text"]: row for row in store.read_table(out, folder=store.value_folder("svt:benevolence")).to_pylist()}
    assert set(pool) == {"kind", "mean", "warm", "neutral 0"}  # no neutral text is added
    assert pool["kind"]["direction"] == 1  # as it was
    with pytest.raises(
        InputError, match="names svt:tradition, which the version to extend lacks; it has svt:benevolence, svt:power"
    ):
        select_candidates(texts, CandidatesConfig(values=["svt:tradition"]), out, old)
