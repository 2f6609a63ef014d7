"""Composition of batches over many draws: positives, negatives, several anchor ids; resumption, processes, refusals."""

import re

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from valueflow.errors import InputError
from valueflow.hives.batches import (
    CONCEPT,
    HIERARCHY,
    INDIVIDUAL,
    Batch,
    BatchConfig,
    Sampler,
    example_counts,
    single_theory_concepts,
)
from valueflow.hives.examples import Examples, examples_from_tables, path_ids, select_rows
from valueflow.records import SCHEMAS
from valueflow.theories import theories

STAGE_2 = BatchConfig(individual=16, concept=16)
NODES = [(theory.id, node.id) for theory in theories().values() for node in theory.nodes]


def examples_at(labels: list[tuple[str, str, str, int]]) -> Examples:
    ids = sorted({i for i, *_ in labels})
    texts = [{"text_id": i, "text": f"text {i}", "group_id": i} for i in ids]
    rows = [{"text_id": i, "theory": theory, "node": node, "direction": sign} for i, theory, node, sign in labels]
    columns = ["text_id", "theory", "node", "direction"]
    table = pa.Table.from_pylist(rows, pa.schema([SCHEMAS["source_labels"].field(name) for name in columns]))
    return examples_from_tables(pa.Table.from_pylist(texts, SCHEMAS["texts"]), table)


def drawn(num: int = 2000, seed: int = 0, num_individuals: int = 30, num_concepts: int = 20) -> Examples:
    """Random labels of any level, one to three per text; anchors for a third of the rows, concepts over all theories."""
    rng = np.random.default_rng(seed)
    labels = [
        (f"{i:06d}", *NODES[rng.integers(len(NODES))], int(rng.integers(-1, 2)))
        for i in range(num)
        for _ in range(rng.integers(1, 4))
    ]
    examples = examples_at(labels)
    size = len(examples.text_N)
    return examples._replace(
        individual_N=np.where(rng.random(size) < 0.3, rng.integers(num_individuals, size=size), -1),
        concept_N=np.where(rng.random(size) < 0.3, rng.integers(num_concepts, size=size), -1),
        individuals=[f"i{i}" for i in range(num_individuals)],
        concepts=[f"c{i}" for i in range(num_concepts)],
    )


EXAMPLES = drawn()


def keys(examples: Examples) -> np.ndarray:
    return path_ids(examples.prefix_NL) * 3 + examples.direction_N


def test_the_labels_of_a_batch_are_those_of_its_examples():
    batch = Sampler(EXAMPLES, STAGE_2, 0).batch(5)
    assert all(column.dtype == np.int64 and len(column) == 64 for column in batch)
    assert np.bincount(batch.objective_B).tolist() == [32, 16, 16]
    for name in ("text", "theory", "direction"):
        np.testing.assert_array_equal(getattr(batch, f"{name}_B"), getattr(EXAMPLES, f"{name}_N")[batch.row_B])
    np.testing.assert_array_equal(batch.prefix_BL, EXAMPLES.prefix_NL[batch.row_B])
    for b, row in enumerate(batch.row_B):
        mine = (EXAMPLES.text_N == EXAMPLES.text_N[row]) & (EXAMPLES.theory_N == EXAMPLES.theory_N[row])
        mine[row] = False
        others = batch.other_BOL[b, :, 0] >= 0
        pairs = np.column_stack([batch.other_BOL[b, others], batch.other_sign_BO[b, others]])
        expected = np.column_stack([EXAMPLES.prefix_NL[mine], EXAMPLES.direction_N[mine]])
        assert sorted(map(tuple, pairs)) == sorted(map(tuple, expected))
    for objective, expected in ((INDIVIDUAL, EXAMPLES.individual_N), (CONCEPT, EXAMPLES.concept_N)):
        rows = batch.objective_B == objective
        np.testing.assert_array_equal(batch.anchor_id_B[rows], expected[batch.row_B[rows]])
        assert (batch.anchor_id_B[rows] >= 0).all()
    assert (batch.anchor_id_B[batch.objective_B == HIERARCHY] == -1).all()


@pytest.mark.parametrize(
    "config", [BatchConfig(), BatchConfig(hierarchy=64, groups=4, positives=3, hard=1.0), BatchConfig(hard=0)]
)
def test_a_group_is_an_anchor_its_positives_and_texts_of_its_theory_that_are_not_like_it(config):
    sampler, key_N = Sampler(EXAMPLES, config, 0), keys(EXAMPLES)
    keys_of_text = {int(t): set(key_N[EXAMPLES.text_N == t].tolist()) for t in np.unique(EXAMPLES.text_N)}
    anchors = set()
    for step in range(50):
        batch = sampler.batch(step)
        for rows in np.split(batch.row_B, config.groups):
            texts = EXAMPLES.text_N[rows]
            assert len(set(texts.tolist())) == len(rows) == config.hierarchy // config.groups
            assert len(set(EXAMPLES.theory_N[rows].tolist())) == 1
            like = key_N[rows] == key_N[rows[0]]
            others = len(set(EXAMPLES.text_N[key_N == key_N[rows[0]]].tolist())) - 1
            assert like.sum() == 1 + min(config.positives, others) > 1
            assert all(key_N[rows[0]] not in keys_of_text[t] for t in texts[~like].tolist())
            anchors.add(int(rows[0]))
    assert len(anchors) > 40 * config.groups


def shares(hard: float) -> tuple[float, float]:
    """Number of negatives with the anchor's first prefix, and with its path and the other direction."""
    examples = examples_at([(f"{i:05d}", *NODES[i % 31], (-1, 1)[i // 31 % 2]) for i in range(31 * 60)])
    sampler, near, opposite, total = Sampler(examples, BatchConfig(hard=hard), 0), 0, 0, 0
    for step in range(300):
        rows = sampler.batch(step).row_B
        prefix, direction = examples.prefix_NL[rows], examples.direction_N[rows]
        near += (prefix[5:, 0] == prefix[0, 0]).sum()
        opposite += ((path_ids(prefix)[5:] == path_ids(prefix)[0]) & (direction[5:] == -direction[0])).sum()
        total += len(rows) - 5
    return near / total, opposite / total


def test_hard_negatives_share_a_prefix_or_only_differ_in_direction():
    random, half, every = shares(0.0), shares(0.5), shares(1.0)
    assert random[0] < 0.6
    assert random[1] < 0.05
    assert every[0] == pytest.approx(1.0, abs=0.05)
    assert every[1] > 0.15
    for r, h, e in zip(random, half, every, strict=True):
        assert h == pytest.approx((r + e) / 2, abs=0.05)


@pytest.mark.parametrize("texts_per_id", [2, 4])
def test_several_anchor_ids_meet_each_with_other_texts_and_concepts_bridge_theories(texts_per_id):
    sampler = Sampler(EXAMPLES, BatchConfig(hierarchy=0, individual=16, concept=16, texts_per_id=texts_per_id), 0)
    seen: dict[int, set] = {INDIVIDUAL: set(), CONCEPT: set()}
    for step in range(200):
        batch = sampler.batch(step)
        for objective in seen:
            mine = batch.objective_B == objective
            ids, counts = np.unique(batch.anchor_id_B[mine], return_counts=True)
            assert len(ids) == 16 // texts_per_id >= 2
            assert (counts == texts_per_id).all()
            seen[objective] |= set(ids.tolist())
            for i in ids:
                of_id = mine & (batch.anchor_id_B == i)
                assert len(set(batch.text_B[of_id].tolist())) == texts_per_id
                assert objective == INDIVIDUAL or len(set(batch.theory_B[of_id].tolist())) >= 2
    assert seen == {INDIVIDUAL: set(range(30)), CONCEPT: set(range(20))}


def test_a_concept_whose_texts_lie_in_two_theories_at_once_still_pairs_different_texts():
    """Text a is in three theories and b in one of them: few pairs of rows are usable."""
    labels = [
        ("a", "mft", "care-harm", 1),
        ("a", "duty", "justice", 1),
        ("a", "right", NODES[-1][1], 1),
        ("b", "mft", "care-harm", 1),
    ]
    more = [(f"{i}{t}", t, n, 1) for i in "xy" for t, n in (("duty", "justice"), ("mft", "care-harm"))]
    examples = examples_at(labels + more)
    concept_N = np.array([0 if examples.text_ids[t] in "ab" else 1 for t in examples.text_N])
    examples = examples._replace(concept_N=concept_N, concepts=["one", "two"])
    sampler = Sampler(examples, BatchConfig(hierarchy=0, concept=4), 0)
    for step in range(100):
        batch = sampler.batch(step)
        for i in (0, 1):
            assert len(set(batch.text_B[batch.anchor_id_B == i].tolist())) == 2
            assert len(set(batch.theory_B[batch.anchor_id_B == i].tolist())) == 2


def same(one: Batch, two: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))


def test_a_batch_depends_on_seed_step_and_rank_alone():
    fresh, used = Sampler(EXAMPLES, STAGE_2, 3), Sampler(EXAMPLES, STAGE_2, 3)
    for step in range(20):
        used.batch(step, 1, 2)
    for step, rank in ((0, 0), (7, 1), (450_000, 3)):
        assert same(fresh.batch(step, rank, 8), used.batch(step, rank, 4))
    assert not same(fresh.batch(7, 0, 2), fresh.batch(7, 1, 2))
    assert not same(fresh.batch(7, 0, 2), fresh.batch(8, 0, 2))
    assert not same(fresh.batch(7), Sampler(EXAMPLES, STAGE_2, 4).batch(7))


def test_ranks_draw_different_rows():
    sampler = Sampler(EXAMPLES, BatchConfig(), 0)
    drawn = [sampler.batch(0, rank, 8) for rank in range(8)]
    assert len({int(batch.row_B[0]) for batch in drawn}) == 8
    assert len(np.unique([batch.row_B for batch in drawn])) > 7 * 32


def test_rows_that_can_be_no_anchor_are_negatives_and_counted():
    labels = [(f"a{i}", "duty", "justice", 1) for i in range(5)] + [
        (f"b{i}", "duty", n.id, -1) for i, n in enumerate(theories()["duty"].nodes)
    ]
    examples = examples_at(labels)
    assert example_counts(examples)["paths"] == 8
    assert example_counts(examples)["paths of one text"] == 7
    sampler = Sampler(examples, BatchConfig(hierarchy=8, positives=2), 0)
    batches = [sampler.batch(step) for step in range(50)]
    first = [examples.text_ids[batch.text_B[0]] for batch in batches]
    assert set(first) == {f"a{i}" for i in range(5)}
    assert {examples.text_ids[t] for batch in batches for t in batch.text_B[3:]} == {f"b{i}" for i in range(7)}


def test_statistics():
    got = example_counts(
        examples_at(
            [("a", "svt", "hedonism", 1), ("b", "svt", "growth", 1), ("c", "duty", "justice", -1), ("d", "duty", "justice", -1)]
        )._replace(individual_N=np.array([0, 0, 1, -1, -1]), concept_N=np.array([0, 1, 0, 1, 1]), concepts=["x", "y"])
    )
    assert got == {
        "texts": 4,
        "rows": 5,
        "levels": {"svt": [3, 2, 2], "duty": [2]},
        "directions": {"-1": 2, "0": 0, "1": 3},
        "paths": 4,
        "paths of one text": 3,
        "individuals": 2,
        "individuals of one text": 2,
        "concepts": 2,
        "concepts of one text": 0,
        "concepts of one theory": ["x"],
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hierarchy": 33, "groups": 2}, "hierarchy (33) must be a multiple of groups (2)"),
        ({"hierarchy": 10, "groups": 2}, "hierarchy / groups (10 / 2) must be at least positives + 2 (4 + 2)"),
        ({"individual": 5}, "individual (5) must be 0 or a multiple of texts_per_id (2) with two ids or more"),
        ({"concept": 4, "texts_per_id": 4}, "concept (4) must be 0 or a multiple of texts_per_id (4) with two ids or more"),
        ({"hierarchy": 0}, "hierarchy (0), individual (0) and concept (0) leave the batch empty"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        BatchConfig(**settings)


def test_examples_without_a_positive_or_without_negatives_are_refused():
    alone = examples_at([(f"{i}", "duty", node.id, 1) for i, node in enumerate(theories()["duty"].nodes)])
    with pytest.raises(
        InputError, match="none of 7 rows can be a query: 7 have no other text of the same path and direction, 0"
    ):
        Sampler(alone, BatchConfig(), 0)
    alike = examples_at([(f"{i}", "duty", "justice", 1) for i in range(40)])
    with pytest.raises(
        InputError, match=r"0 have no other text .*, 40 no 27 negatives in their theory \(hierarchy 32, groups 1"
    ):
        Sampler(alike, BatchConfig(), 0)


def test_concepts_of_one_theory_are_refused_by_name_and_can_be_taken_out():
    narrow = EXAMPLES._replace(concept_N=np.where(EXAMPLES.theory_N == 2, EXAMPLES.concept_N + 20, EXAMPLES.concept_N))
    narrow = narrow._replace(
        concept_N=np.where(EXAMPLES.concept_N < 0, -1, narrow.concept_N), concepts=[f"c{i}" for i in range(40)]
    )
    with pytest.raises(InputError, match=r"20 concept anchors have texts of one theory only.*'c20', 'c21',.* 'c39'; give them"):
        Sampler(narrow, STAGE_2, 0)
    left = narrow._replace(concept_N=np.where(np.isin(narrow.concept_N, single_theory_concepts(narrow)), -1, narrow.concept_N))
    assert set(Sampler(left, STAGE_2, 0).batch(0).anchor_id_B[48:].tolist()) < set(range(20))


def test_too_few_anchor_ids_are_refused():
    few = EXAMPLES._replace(individual_N=np.where(EXAMPLES.individual_N < 5, EXAMPLES.individual_N, -1))
    with pytest.raises(InputError, match=r"individual / texts_per_id \(16 / 2\) is 8 anchors a batch; 5 of the 5 have 2 texts"):
        Sampler(few, STAGE_2, 0)
    none = select_rows(EXAMPLES, np.flatnonzero(EXAMPLES.individual_N < 0))
    with pytest.raises(InputError, match="is 8 anchors a batch; 0 of the 0 have 2 texts"):
        Sampler(none, STAGE_2, 0)


def test_a_rank_beyond_the_world_is_refused():
    with pytest.raises(InputError, match=r"rank \(2\) must be from 0 to below world \(2\)"):
        Sampler(EXAMPLES, BatchConfig(), 0).batch(0, 2, 2)


def test_a_batch_of_many_examples_holds_as_much_as_one_of_few():
    many = Sampler(drawn(50_000, num_individuals=400, num_concepts=274), STAGE_2, 0).batch(3)
    few = Sampler(EXAMPLES, STAGE_2, 0).batch(3)
    assert [column.shape[0] for column in many] == [column.shape[0] for column in few] == [64] * len(few)
    assert len(np.unique(many.text_B)) == 64
