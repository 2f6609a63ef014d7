"""Rows from labels in every format, splits and removals without leakage, and the reason of each refusal."""

import itertools
import re

import numpy as np
import pyarrow as pa
import pytest

from valueflow.errors import InputError
from valueflow.hives.examples import (
    OFFICIAL_COLUMNS,
    examples_from_tables,
    path_ids,
    prefixes,
    read_official,
    select_rows,
    split_examples,
    without_near_duplicates,
)
from valueflow.hives.near_duplicates import near_duplicates
from valueflow.records import SCHEMAS
from valueflow.theories import theories
from valueflow.theories.taxonomy import THEORIES

Label = tuple[str, str, str | list[str], int | None]


def texts_table(texts: dict[str, str], groups: dict[str, str] | None = None) -> pa.Table:
    rows = [{"text_id": i, "text": text, "group_id": (groups or {}).get(i, i)} for i, text in texts.items()]
    return pa.Table.from_pylist(rows, SCHEMAS["texts"])


def labels_table(labels: list[Label]) -> pa.Table:
    name = "source_labels" if isinstance(labels[0][2], str) else "labels"
    where = "node" if name == "source_labels" else "path"
    rows = [{"text_id": i, "theory": theory, where: node, "direction": sign} for i, theory, node, sign in labels]
    return pa.Table.from_pylist(rows, SCHEMAS[name])


def read(labels: list[Label], ids: str = "abc"):
    return examples_from_tables(texts_table({i: f"text {i}" for i in ids}), labels_table(labels))


def spoken(examples) -> list[tuple[str, str, int]]:
    names = prefixes().names
    paths = path_ids(examples.prefix_NL)
    return [
        (examples.text_ids[t], names[p], int(d)) for t, p, d in zip(examples.text_N, paths, examples.direction_N, strict=True)
    ]


def test_a_prefix_is_a_path_from_the_top_and_belongs_to_one_theory():
    tree = prefixes()
    assert tree.names[0] == "svt:growth"
    assert len(tree.names) == len(set(tree.names)) == len(tree.ancestors_PL)
    for i, (name, ancestors) in enumerate(zip(tree.names, tree.ancestors_PL, strict=True)):
        theory, _, path = name.partition(":")
        steps = path.split("/")
        assert [tree.names[a] for a in ancestors if a >= 0] == [
            f"{theory}:{'/'.join(steps[: n + 1])}" for n in range(len(steps))
        ]
        assert ancestors[len(steps) - 1] == i
        assert THEORIES[tree.theory_P[i]] == theory
        assert i in tree.ends[f"{theory}:{steps[-1]}"]
    benevolence = tree.ids["svt:growth/self-transcendence/benevolence"][0]
    assert tree.ancestors_PL[benevolence].tolist()[3] == -1
    assert tree.ancestors_PL.shape[1] == 4


def test_a_node_with_two_parents_has_one_row_per_path_and_a_labelled_path_has_one_row():
    for node in ("hedonism", "face", "humility"):
        got = read([("a", "svt", node, 1)])
        assert [name for _, name, _ in spoken(got)] == [f"svt:{'/'.join(path)}" for path in theories()["svt"].paths(node)]
        assert got.text_N.tolist() == [0, 0]
    assert spoken(read([("a", "svt", ["growth", "openness-to-change", "hedonism"], -1)])) == [
        ("a", "svt:growth/openness-to-change/hedonism", -1)
    ]


def test_columns_match_their_names():
    got = read([("b", "duty", "justice", -1), ("a", "mft", "care-harm", 1), ("b", "mft", "care-harm", None)])
    assert spoken(got) == [("a", "mft:care-harm", 1), ("b", "mft:care-harm", 0), ("b", "duty:justice", -1)]
    assert got.texts == ["text a", "text b"]
    assert got.text_N.tolist() == [0, 1, 1]
    assert [THEORIES[t] for t in got.theory_N] == ["mft", "mft", "duty"]
    assert (got.prefix_NL[:, 1:] == -1).all()
    assert got.direction_N.dtype == np.int8
    assert got.individual_N.tolist() == got.concept_N.tolist() == [-1, -1, -1]
    assert got.group_N[1] == got.group_N[2] != got.group_N[0]


@pytest.mark.parametrize(
    ("directions", "direction"),
    [([1], 1), ([-1, -1], -1), ([None], 0), ([None, -1], -1), ([1, None], 1), ([1, -1], 0), ([0, 1], 0), ([1, -1, None], 0)],
)
def test_a_duplicate_label_is_one_row_and_a_direction_overrides_an_unknown_one(directions, direction):
    assert spoken(read([("a", "duty", "justice", sign) for sign in directions])) == [("a", "duty:justice", direction)]


def test_rows_do_not_depend_on_the_order_of_the_tables():
    labels = [(i, t, n, d) for i in "abc" for t, n in (("svt", "face"), ("duty", "fidelity")) for d in (1, None)]
    texts, table = texts_table({i: f"text {i}" for i in "abc"}), labels_table(labels)
    reverse = pa.array(range(len(labels))[::-1])
    one, two = examples_from_tables(texts, table), examples_from_tables(texts.take(pa.array([2, 0, 1])), table.take(reverse))
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)


def test_unplaced_texts_and_labels_of_other_texts_are_left_out():
    assert spoken(read([("a", "duty", [], 0), ("x", "duty", ["justice"], 1), ("b", "duty", ["justice"], 1)])) == [
        ("b", "duty:justice", 1)
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [("a", "svt", "face", 1), ("b", "svt", "benevolense", 1)],
            "source_labels row 1 (text b): svt has no node 'benevolense'; did you mean 'benevolence'?",
        ),
        (
            [("a", "svt", ["growth", "benevolence"], 1)],
            "labels row 0 (text a): svt has no path 'growth/benevolence'; did you mean",
        ),
        ([("a", "svt", ["benevolence"], 1)], "labels row 0 (text a): svt has no path 'benevolence'"),
        ([("a", "big5", "face", 1)], "row 0 (text a): unknown theory 'big5'; allowed: svt, mft, duty, right"),
        ([("a", "big5", [], 1)], "row 0 (text a): unknown theory 'big5'; allowed: svt, mft, duty, right"),
        ([("a", "svt", None, 1), ("a", "svt", "face", 1)], "row 0 (text a): theory or path is missing"),
        ([("a", "svt", "face", 1), ("c", "svt", "face", 2)], "row 1 (text c): direction '2' is not one of -1, 0, 1"),
        ([("x", "svt", "face", 1)], "no row has both a path and a known text"),
        ([("a", "svt", [], 1)], "no row has both a path and a known text"),
    ],
)
def test_a_bad_label_is_refused_by_row_value_and_what_is_allowed(labels, message):
    if labels[0][2] is None:
        labels = [(i, t, n and [n], d) for i, t, n, d in labels]
    with pytest.raises(InputError, match=re.escape(message)):
        read(labels)


def test_a_missing_column_is_refused_by_name():
    labels = labels_table([("a", "svt", "face", 1)])
    with pytest.raises(InputError, match=r"table 'source_labels' lacks column\(s\) \['direction'\]; it has"):
        examples_from_tables(texts_table({"a": "b"}), labels.drop_columns(["direction"]))
    with pytest.raises(InputError, match=r"table 'texts' lacks column\(s\) \['group_id'\]"):
        examples_from_tables(texts_table({"a": "b"}).drop_columns(["group_id"]), labels)


def write(folder, *rows: str) -> str:
    path = folder / "official.csv"
    path.write_text("\n".join([",".join(OFFICIAL_COLUMNS), *rows]))
    return str(path)


def test_the_official_file(tmp_path):
    got = read_official(
        write(
            tmp_path,
            "Help him,Schwartz,Growth,Self-Transcendence,Benevolence,1,caring for a friend,Care",
            "Help  him,mft,care/harm,None,nan,1.0,None,Care",
            "Enjoy it,pvq,self-enhancement,hedonism,,-1,pleasure,",
            "Enjoy it all,pvq,hedonism,None,None,,pleasure,Fun",
            "Nothing here,rights,None,None,None,0,,",
        )
    )
    assert got.individuals == ["caring for a friend", "pleasure"]
    assert got.concepts == ["Care", "Fun"]
    by_text = {
        (got.texts[t], prefixes().names[p]): (int(d), int(i), int(c))
        for t, p, d, i, c in zip(
            got.text_N, path_ids(got.prefix_NL), got.direction_N, got.individual_N, got.concept_N, strict=True
        )
    }
    assert by_text == {
        ("Help him", "svt:growth/self-transcendence/benevolence"): (1, 0, 0),
        ("Help him", "mft:care-harm"): (1, -1, 0),
        ("Enjoy it", "svt:self-protection/self-enhancement/hedonism"): (-1, 1, -1),
        ("Enjoy it all", "svt:growth/openness-to-change/hedonism"): (0, 1, 1),
        ("Enjoy it all", "svt:self-protection/self-enhancement/hedonism"): (0, 1, 1),
    }
    assert len(set(got.group_N.tolist())) == len(got.texts) == 3


def test_the_same_text_and_path_with_two_anchors_is_two_rows_of_one_direction(tmp_path):
    got = read_official(
        write(tmp_path, *(f"a b,duty,justice,,,{sign},{anchor},X" for sign, anchor in ((1, "p"), (1, "q"), ("", "p"))))
    )
    assert (got.individual_N.tolist(), got.direction_N.tolist(), got.text_N.tolist()) == ([0, 1], [1, 1], [0, 0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("t,svt,growth,conservation,tradition,1,,", "official.csv:2: svt: growth/conservation/tradition is not on one path; "),
        ("t,svt,growth,conservation,tradition,1,,", "'tradition' is at self-protection/conservation/tradition"),
        ("t,svt,growth,justice,,1,,", "official.csv:2: unknown value 'svt:justice'"),
        ("t,xyz,growth,,,1,,", "official.csv:2: unknown theory 'xyz'"),
        ("t,svt,growth,,,up,,", "official.csv:2: direction 'up' is not one of -1, 0, 1"),
        (" ,svt,growth,,,1,,", "official.csv:2: text is empty"),
        ("t,svt,growth", "official.csv:2: row has 3 fields, the header has 8"),
        ("t,svt,None,,,1,,", "no row has both a path"),
        ("", "no row has both a path"),
    ],
)
def test_a_bad_official_row_is_refused(tmp_path, row, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_official(write(tmp_path, row))


def test_an_official_file_without_a_column_or_with_bytes_that_are_no_text_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("text,theory\n")
    with pytest.raises(InputError, match=r"x.csv lacks column\(s\) \['level_1'"):
        read_official(str(tmp_path / "x.csv"))
    path = write(tmp_path)
    with open(path, "ab") as file:
        file.write(b"\nt\xff,svt,growth,,,1,,")
    with pytest.raises(InputError, match=r"official.csv:2: row has bytes that are not UTF-8"):
        read_official(path)


def folded(text: str) -> tuple[str, ...]:
    return tuple(re.sub(r"[\W_]+", " ", text.lower()).split())


def alike(one: str, two: str) -> bool:
    """Jaccard similarity of the sets of 5-grams of words, by definition."""
    a, b = ({words[i : i + 5] for i in range(max(len(words) - 4, 1))} for words in (folded(one), folded(two)))
    return 5 * len(a & b) >= 4 * len(a | b)


def linked(texts: list[str]) -> list[set[int]]:
    parts = [{i} for i in range(len(texts))]
    for i, j in itertools.combinations(range(len(texts)), 2):
        if alike(texts[i], texts[j]):
            one, two = (next(part for part in parts if k in part) for k in (i, j))
            if one is not two:
                parts.remove(two)
                one |= two
    return sorted(parts, key=min)


def varied(num: int, seed: int, num_words: int = 12) -> list[str]:
    """Random texts, and copies of them with words replaced, dropped, added or respelled."""
    rng = np.random.default_rng(seed)
    texts = []
    while len(texts) < num:
        words = [f"w{i}" for i in rng.integers(num_words, size=rng.integers(1, 40))]
        for _ in range(rng.integers(1, 5)):
            copy = list(words)
            for _ in range(rng.integers(3)):
                at = int(rng.integers(len(copy)))
                copy[at : at + int(rng.integers(2))] = [f"w{i}" for i in rng.integers(num_words, size=rng.integers(2))] or ["x"]
            texts.append(rng.choice([" ", ", ", " - "]).join(copy).upper() if rng.random() < 0.3 else " ".join(copy))
    return texts[:num]


@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_are_those_of_the_definition(seed):
    texts = varied(150, seed, num_words=4 if seed % 2 else 300)
    label = near_duplicates(texts)
    groups = [set(np.flatnonzero(label == i).tolist()) for i in np.unique(label)]
    assert sorted(groups, key=min) == linked(texts)
    assert all((label[label] == label).tolist())


def test_texts_without_words_are_like_none_but_themselves():
    assert near_duplicates(["🙂", "😡", "🙂", "a", "A!", ""]).tolist() == [0, 1, 0, 3, 3, 5]
    assert near_duplicates([]).tolist() == []


def planted(num: int = 400, seed: int = 0):
    """Texts of 30 words; every tenth has a near copy in another group; groups of three."""
    rng = np.random.default_rng(seed)
    texts, groups = {}, {}
    for i in range(num):
        words = [f"w{j}" for j in rng.integers(5000, size=30)]
        texts[f"{i:04d}"] = " ".join(words)
        groups[f"{i:04d}"] = f"g{i // 3}"
        if i % 10 == 0:
            texts[f"{i:04d}c"] = ", ".join([*words[:-1], "changed"]).title()
            groups[f"{i:04d}c"] = f"h{i}"
    nodes = [("svt", "face"), ("duty", "justice"), ("mft", "care-harm")]
    labels = [(i, *nodes[j % 3], (-1, 0, 1)[j % 3]) for j, i in enumerate(texts)]
    return examples_from_tables(texts_table(texts, groups), labels_table(labels))


@pytest.mark.parametrize("seed", range(3))
def test_a_split_separates_no_group_text_or_near_duplicates(seed):
    examples = planted()
    sides = split_examples(examples, (0.8, 0.1, 0.1), seed)
    assert sorted(np.concatenate(sides).tolist()) == list(range(len(examples.text_N)))
    for share, side in zip((0.8, 0.1, 0.1), sides, strict=True):
        assert len(side) / len(examples.text_N) == pytest.approx(share, abs=0.02)
    for one, two in itertools.combinations(sides, 2):
        assert not set(examples.text_N[one]) & set(examples.text_N[two])
        assert not set(examples.group_N[one]) & set(examples.group_N[two])
    copies = {i for i, text_id in enumerate(examples.text_ids) if text_id.endswith("c")}
    assert len(copies) == 40
    side_of = {int(t): n for n, side in enumerate(sides) for t in examples.text_N[side]}
    for copy in copies:
        assert side_of[copy] == side_of[examples.text_ids.index(examples.text_ids[copy][:-1])]


def test_a_split_is_a_function_of_the_texts_and_the_seed():
    examples = planted()
    again, other = split_examples(examples, (0.5, 0.25, 0.25), 7), split_examples(examples, (0.5, 0.25, 0.25), 8)
    for one, two in zip(split_examples(examples, (0.5, 0.25, 0.25), 7), again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(again.test, other.test)
    assert len(split_examples(examples, (1, 0, 0), 0).train) == len(examples.text_N)


def test_shares_that_cannot_be_met_are_refused():
    examples = planted(20)
    with pytest.raises(InputError, match=r"shares \(0.5, 0.5, 0.5\) must be three numbers from 0 that sum to 1"):
        split_examples(examples, (0.5, 0.5, 0.5), 0)
    with pytest.raises(InputError, match="must be three numbers"):
        split_examples(examples, (1.5, -0.5, 0.0), 0)
    one_group = examples._replace(group_N=np.zeros(len(examples.text_N), int))
    with pytest.raises(InputError, match=r"leave train without a row: the 30 rows form 1 units .*, the largest of 30 rows"):
        split_examples(one_group, (0.4, 0.2, 0.4), 0)


def test_without_drops_copies_and_near_copies_of_other_texts():
    examples = planted()
    text = dict(zip(examples.text_ids, examples.texts, strict=True))
    near, far = text["0010"].split(), text["0020"].split()
    others = [
        "; ".join(text["0004"].split()),
        text["0008"].upper(),
        " ".join(["x", *near[1:]]),
        " ".join(["x", *far[:9], *far[11:]]),
    ]
    left = without_near_duplicates(examples, others)
    gone = set(examples.text_ids) - set(left.text_ids)
    assert gone == {"0004", "0008", "0010", "0010c"}
    assert spoken(left) == [row for row in spoken(examples) if row[0] not in gone]
    assert without_near_duplicates(examples, []).texts == examples.texts


def test_taking_rows_takes_their_texts():
    examples = planted(30)
    some = np.array([3, 8, 2])
    got = select_rows(examples, some)
    assert spoken(got) == [spoken(examples)[i] for i in some]
    assert len(got.texts) == 3
    np.testing.assert_array_equal(got.group_N, examples.group_N[some])
