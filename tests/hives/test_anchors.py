"""Planted clusters over several theories become anchors, other clusters are dropped and counted, and the target is met."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from valueflow.errors import InputError
from valueflow.hives import anchors as anchors_of
from valueflow.hives.anchors import (
    AnchorsConfig,
    AnchorTables,
    balance,
    find_anchors,
    merge_same_names,
    rename_anchors,
    with_concept_anchors,
)
from valueflow.hives.batches import BatchConfig, Sampler, single_theory_concepts
from valueflow.hives.examples import Examples, prefixes
from valueflow.records import SCHEMAS, text_id
from valueflow.theories.taxonomy import THEORIES, fold

PLACES = {
    "svt": "svt:growth/self-transcendence/benevolence",
    "mft": "mft:care-harm",
    "duty": "duty:gratitude",
    "right": "right:civil-political/civil-rights",
}
WORDS = [a + b for a, b in itertools.product(["bo", "ka", "li", "mu", "ne", "ro", "si", "tu"], repeat=2)]


def corpus(clusters: list[dict[str, int]], noise: float = 0.05, dim: int = 32, seed: int = 0) -> tuple[np.ndarray, Examples]:
    """Texts around one center per cluster, with a number of texts per theory; the first word of a text is its cluster."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(clusters), dim))
    rows = [(c, theory, n) for c, sizes in enumerate(clusters) for theory, size in sizes.items() for n in range(size)]
    tree = prefixes()
    paths = {theory: next(p for p, name in enumerate(tree.names) if name.startswith(f"{theory}:")) for theory in THEORIES}
    rows = sorted((text_id(f"{WORDS[c]} of {theory} {n}"), c, theory, f"{WORDS[c]} of {theory} {n}") for c, theory, n in rows)
    ids, at, theories, texts = zip(*rows, strict=True)
    z = centres[list(at)] + noise * np.sqrt(dim) * rng.standard_normal((len(rows), dim))
    path_N, text_N = np.array([paths[theory] for theory in theories]), np.arange(len(rows))
    none, sign = np.full(len(rows), -1), np.ones(len(rows), np.int8)
    examples = Examples(
        list(texts),
        list(ids),
        text_N,
        tree.theory_P[path_N],
        tree.ancestors_PL[path_N],
        sign,
        none,
        none,
        text_N,
    )
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32), examples


def words_at(tables: AnchorTables, examples: Examples) -> dict[str, set[str]]:
    """The first words of the texts at each anchor."""
    text = dict(zip(examples.text_ids, examples.texts, strict=True))
    at: dict[str, set[str]] = {}
    for row in tables.anchored.to_pylist():
        at.setdefault(row["anchor_id"], set()).add(text[row["text_id"]].split()[0])
    return at


def rows_of(tables: AnchorTables) -> list:
    return [tables.anchors.to_pylist(), sorted(tables.anchored.to_pylist(), key=lambda row: row["text_id"]), tables.dropped]


def test_planted_clusters_become_anchors_unless_they_have_one_theory():
    shared = [
        {"svt": 12, "mft": 9},
        {"svt": 8, "duty": 8, "right": 8},
        {"mft": 15, "right": 5},
        {"svt": 5, "mft": 5, "duty": 20},
    ]
    alone = [{"svt": 25}]
    z, examples = corpus(shared + alone)
    tables = find_anchors(z, examples, AnchorsConfig(target=4, min_cohesion=0.9))
    at = words_at(tables, examples)
    assert sorted(at.values(), key=min) == sorted(({word} for word in WORDS[:4]), key=min)
    assert tables.dropped == {"one theory": 1}
    for row in tables.anchors.to_pylist():
        (word,) = at[row["anchor_id"]]
        planted = shared[WORDS.index(word)]
        assert {theory: row[theory] for theory in THEORIES if row[theory]} == planted
        assert row["num_texts"] == sum(planted.values())
        assert row["name"].split()[0] == word
        assert row["named_by"] == "medoid"
        assert row["cohesion"] > 0.8
        theories = {examples.texts[examples.text_ids.index(i)].split()[2] for i in row["medoids"]}
        assert theories == set(planted)  # the theories take turns
    assert tables.anchored.schema == SCHEMAS["anchored"]
    assert tables.anchors.schema == SCHEMAS["anchors"]


def test_a_text_far_from_every_anchor_has_none():
    z, examples = corpus([{"svt": 20, "mft": 20}, {"svt": 20, "duty": 20}, {"mft": 20, "duty": 20}])
    rng = np.random.default_rng(1)
    far = rng.permutation(len(z))[:10]
    z[far] = np.linalg.qr(rng.standard_normal((32, 10)))[0].T
    tables = find_anchors(z, examples, AnchorsConfig(target=3, min_similarity=0.75))
    assert not {examples.text_ids[i] for i in far} & set(tables.anchored["text_id"].to_pylist())
    assert tables.anchored.num_rows == len(z) - 10
    assert min(tables.anchored["similarity"].to_pylist()) >= 0.75


def test_similar_clusters_are_merged():
    z, examples = corpus([{"svt": 100, "mft": 100}, {"duty": 100, "right": 100}])
    tables = find_anchors(z, examples, AnchorsConfig(target=2, tries=1, seed=3))
    assert tables.anchors.num_rows == 2
    assert tables.dropped["like another"] == 1  # k-means was given three clusters
    assert sorted(words_at(tables, examples).values(), key=min) == sorted([{WORDS[0]}, {WORDS[1]}], key=min)


@pytest.mark.parametrize("target", [5, 17, 30])
def test_the_target_is_met_if_the_texts_have_enough_clusters(target):
    rng = np.random.default_rng(0)
    clusters = [dict.fromkeys(rng.choice(THEORIES, 2, replace=False).tolist(), 12) for _ in range(40)]
    z, examples = corpus(clusters, noise=0.15)
    tables = find_anchors(z, examples, AnchorsConfig(target=target))
    assert tables.anchors.num_rows == target
    assert set(tables.anchored["anchor_id"].to_pylist()) == set(tables.anchors["anchor_id"].to_pylist())
    for row in tables.anchors.to_pylist():
        assert row["num_texts"] >= 10
        assert sum(row[theory] >= 3 for theory in THEORIES) >= 2


def test_a_surplus_is_cut_to_the_anchors_with_the_most_even_theories():
    z, examples = corpus([{"svt": 30, "mft": 3}] * 6 + [{"svt": 15, "mft": 15}] * 6)
    tables = find_anchors(z, examples, AnchorsConfig(target=10, tries=1, min_cohesion=0.9))
    assert tables.anchors.num_rows == 10
    assert tables.dropped["beyond the target"] == 2
    assert set(WORDS[6:12]) <= set().union(*words_at(tables, examples).values())


def test_too_high_a_target_gives_all_anchors():
    z, examples = corpus([{"svt": 12, "mft": 12}] * 7)
    assert find_anchors(z, examples, AnchorsConfig(target=50)).anchors.num_rows == 7


def test_the_same_seed_gives_the_same_anchors():
    z, examples = corpus([{"svt": 12, "duty": 9}] * 9, noise=0.2)
    config = AnchorsConfig(target=8)
    assert rows_of(find_anchors(z, examples, config)) == rows_of(find_anchors(z.copy(), examples, config))
    other = find_anchors(z, examples, config.model_copy(update={"seed": 1}))
    assert other.anchors.num_rows == 8


@pytest.mark.parametrize("fitted", [300, 200_000])
def test_many_texts_are_clustered_in_small_batches_or_by_a_sample_of_them(monkeypatch, fitted):
    monkeypatch.setattr(anchors_of, "MAX_FULL_KMEANS", 100)
    z, examples = corpus([{"svt": 40, "duty": 40}] * 8)
    config = AnchorsConfig(target=8, min_cohesion=0.9, max_fitted=fitted)
    tables = find_anchors(z, examples, config)
    assert sorted(map(len, words_at(tables, examples).values())) == [1] * 8
    assert tables.anchored.num_rows == len(z)
    assert rows_of(tables) == rows_of(find_anchors(z, examples, config))


def test_a_large_theory_does_not_dominate():
    """k-means centers are balanced by theory, not by text: forty clusters of SVT in one region, few texts elsewhere."""
    z, examples = corpus([{"svt": 900, "mft": 12}] * 2 + [{"duty": 12, "right": 12}] * 8, noise=0.1)
    tables = find_anchors(z, examples, AnchorsConfig(target=10))
    assert tables.anchors.num_rows == 10
    assert sum(row["svt"] == 0 for row in tables.anchors.to_pylist()) == 8


def tables() -> tuple[pa.Table, pa.Table]:
    base = {"named_by": "medoid", "duty": 0, "right": 0}
    rows = [
        {"anchor_id": "a", "name": "Old age", "medoids": ["1"], "num_texts": 3, "svt": 2, "mft": 1, "cohesion": 0.9},
        {"anchor_id": "b", "name": "Dogs", "medoids": ["4"], "num_texts": 2, "svt": 1, "mft": 1, "cohesion": 0.5},
        {"anchor_id": "c", "name": "old_age", "medoids": ["6"], "num_texts": 1, "svt": 1, "mft": 0, "cohesion": 0.5},
    ]
    anchored = [{"text_id": str(i), "anchor_id": a, "similarity": 0.5} for i, a in enumerate("aaabbc", 1)]
    return pa.Table.from_pylist([row | base for row in rows], SCHEMAS["anchors"]), pa.Table.from_pylist(
        anchored, SCHEMAS["anchored"]
    )


def test_anchors_whose_names_fold_alike_are_one():
    anchors, anchored = merge_same_names(*tables())
    assert anchors["anchor_id"].to_pylist() == ["a", "b"]
    first = anchors.to_pylist()[0]
    assert (first["num_texts"], first["svt"], first["mft"], first["medoids"]) == (4, 3, 1, ["1"])
    assert first["cohesion"] == pytest.approx((3 * 0.9 + 0.5) / 4)
    assert anchored["anchor_id"].to_pylist() == list("aaabba")


def test_names_of_a_namer_replace_the_medoids():
    anchors, anchored = rename_anchors(*tables(), {"b": "Old age", "c": "Cats"}, "llm")
    assert {row["anchor_id"]: (row["name"], row["named_by"]) for row in anchors.to_pylist()} == {
        "a": ("Old age", "medoid"),
        "c": ("Cats", "llm"),
    }
    assert anchored["anchor_id"].to_pylist() == list("aaaaac")


def test_anchors_are_the_concepts_that_stage_two_draws():
    z, examples = corpus([{"svt": 12, "mft": 9}, {"svt": 8, "duty": 8}, {"svt": 25}])
    tables = find_anchors(z, examples, AnchorsConfig(target=2))
    of = with_concept_anchors(examples, tables.anchors, tables.anchored)
    assert of.concepts == tables.anchors["name"].to_pylist()
    at = {row["text_id"]: row["anchor_id"] for row in tables.anchored.to_pylist()}
    ids = tables.anchors["anchor_id"].to_pylist()
    for text, concept in zip(of.text_N, of.concept_N, strict=True):
        assert at.get(of.text_ids[text]) == (ids[concept] if concept >= 0 else None)
    assert not len(single_theory_concepts(of))
    batch = Sampler(of, BatchConfig(hierarchy=0, concept=4), seed=0).batch(0)
    assert sorted(set(batch.anchor_id_B.tolist())) == [0, 1]


def test_the_balance_counts_texts_nodes_and_anchors_of_each_theory_and_level():
    z, examples = corpus([{"svt": 12, "mft": 9}, {"svt": 8, "duty": 8}, {"svt": 25}])
    tables = find_anchors(z, examples, AnchorsConfig(target=2))
    spread = balance(tables.anchors, tables.anchored, examples)
    by = {(row["theory"], row["level"]): row for row in spread.levels}
    assert set(by) == {("svt", 1), ("mft", 1), ("duty", 1)}
    svt = by["svt", 1]
    assert (svt["texts"], svt["anchored"], svt["anchors"], svt["nodes"], svt["nodes_anchored"]) == (45, 20, 2, 1, 1)
    assert by["duty", 1]["anchors"] == 1
    assert spread.spans == {"2": 2}
    names = {"svt": ["svt:growth", "svt:self-protection"]}
    both = np.array([prefixes().names.index(name) for name in names["svt"]])
    prefix = examples.prefix_NL.copy()
    in_svt = np.flatnonzero(examples.theory_N == 0)
    prefix[in_svt, 0] = both[np.arange(len(in_svt)) % 2]
    row = balance(tables.anchors, tables.anchored, examples._replace(prefix_NL=prefix)).levels[0]
    assert row["nodes"] == 2
    assert 0.5 < row["evenness"] <= 1


def test_names_of_anchors_are_distinct_phrases():
    z, examples = corpus([{"svt": 12, "mft": 12}] * 7)
    tables = find_anchors(z, examples, AnchorsConfig(target=7, name_words=2))
    names = tables.anchors["name"].to_pylist()
    assert len({fold(name) for name in names}) == 7
    assert all(name.endswith(" of…") for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, ex: (z[:-1], ex), "39 vectors for 40 texts"),
        (lambda z, ex: (2 * z, ex), "must have length 1"),
        (lambda z, ex: (z * np.nan, ex), "must have length 1"),
        (lambda z, ex: (z, ex._replace(theory_N=np.zeros(40, int))), "all labels are of theory 'svt'"),
    ],
)
def test_what_cannot_be_clustered_is_refused(change, message):
    z, examples = corpus([{"svt": 20, "mft": 20}])
    with pytest.raises(InputError, match=message):
        find_anchors(*change(z, examples), AnchorsConfig(target=1))


def test_no_anchor_at_all_is_refused_with_the_reasons():
    z, examples = corpus([{"svt": 20}, {"mft": 20}])
    with pytest.raises(
        InputError, match=r"none of the clusters of 40 texts is an anchor: .*'one theory'.*min_per_theory \(3\)"
    ):
        find_anchors(z, examples, AnchorsConfig(target=2))
