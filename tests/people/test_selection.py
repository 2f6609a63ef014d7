"""Which texts people rate: a share at random, the rest where a rating tells most; by seed, without duplicates."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valueflow.config import load
from valueflow.errors import InputError
from valueflow.people.pool import Pool, mean_places
from valueflow.people.selection import RatingTasksConfig, rating_tasks, shares
from valueflow.people.tasks import read_register, register_csv
from valueflow.records import SCHEMAS, ValueId, text_id

VALUES = [ValueId("svt:power"), ValueId("mft:purity"), ValueId("duty:fidelity")]


def pool(size: int, seed: int = 0, known: bool = True) -> Pool:
    rng = np.random.default_rng(seed)
    texts = [f"text {seed} {n}" for n in range(size)]
    by_id = sorted((text_id(text), text) for text in texts)
    intensity_N, width_N = rng.uniform(-10, 10, size), rng.uniform(0.1, 5, size)
    place_N3 = np.stack([intensity_N, intensity_N - width_N, intensity_N + width_N], axis=1)
    disagreement_N = rng.uniform(0, 1, size)
    nan = np.full(size, math.nan)
    return Pool(
        [i for i, _ in by_id], [t for _, t in by_id], place_N3 * (1 if known else math.nan), disagreement_N if known else nan
    )


def config(**settings) -> RatingTasksConfig:
    return RatingTasksConfig(root="r", name="n", **settings)


def test_the_chosen_texts_are_the_extremes_of_each_criterion():
    texts = pool(200)
    tasks = rating_tasks(VALUES[:1], lambda _: texts, config(texts=30, random_share=0.4))
    assert [task.basis for task in tasks] == ["random"] * 12 + ["chosen"] * 18
    assert {why: sum(t.why == why for t in tasks) for why in {t.why for t in tasks}} == {
        "random": 12, "wide interval": 6, "extreme intensity": 6, "judges disagree": 6,
    }  # fmt: skip
    drawn = {task.text_id for task in tasks[:13]}
    left = [n for n, i in enumerate(texts.text_ids) if i not in drawn]
    widest = max(left, key=lambda n: texts.place_N3[n, 2] - texts.place_N3[n, 1])
    assert (tasks[12].why, tasks[13].text_id) == ("judges disagree", texts.text_ids[widest])
    width = {i: high - low for i, (_, low, high) in zip(texts.text_ids, texts.place_N3, strict=True)}
    assert np.mean([width[t.text_id] for t in tasks if t.why == "wide interval"]) > np.quantile(list(width.values()), 0.95)


def test_the_random_part_is_one_of_the_whole_pool():
    """Over seeds every text is drawn equally often, whatever judges say of it."""
    texts = pool(20)
    counts = dict.fromkeys(texts.text_ids, 0)
    for seed in range(400):
        for task in rating_tasks(VALUES[:1], lambda _: texts, config(texts=10, random_share=0.5, seed=seed)):
            counts[task.text_id] += task.basis == "random"
    assert sum(counts.values()) == 2000
    assert np.std(list(counts.values())) < 1.6 * math.sqrt(400 * 0.25 * 0.75)
    assert min(counts.values()) > 65


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=3), texts=st.integers(0, 40), pairs=st.integers(1, 20),
    share=st.floats(0, 1), known=st.booleans(), seed=st.integers(0, 5),
)  # fmt: skip
def test_tasks_are_as_many_as_there_can_be_without_duplicates(sizes, texts, pairs, share, known, seed):
    pools = {value: pool(size, n, known) for n, (value, size) in enumerate(zip(VALUES, sizes, strict=False))}
    settings = config(texts=texts, pairs=pairs, random_share=share, seed=seed)
    tasks = rating_tasks(list(pools), pools.__getitem__, settings)
    assert tasks == rating_tasks(list(pools), pools.__getitem__, settings) or not known  # nan is not equal to itself
    ids = [task.task_id for task in tasks]
    assert len(set(ids)) == len(ids)
    assert sum(task.kind == "rating" for task in tasks) == min(texts, sum(sizes))
    assert sum(task.kind == "pair" for task in tasks) == min(pairs, sum(size * (size - 1) // 2 for size in sizes))
    assert all(task.text_id != task.other_id for task in tasks)
    unordered = {(task.value, *sorted((task.text_id, task.other_id))) for task in tasks}
    assert len(unordered) == len(tasks)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 200), st.integers(0, 3))
def test_shares_are_even(sizes, total, seed):
    values = {ValueId(f"svt:v{n}"): size for n, size in enumerate(sizes)}
    result = shares(values, total, seed)
    assert sum(result.values()) == min(total, sum(sizes))
    unfilled = [result[value] for value in values if result[value] < values[value]]
    assert not unfilled or max(result.values()) - min(unfilled) <= 1


def test_close_pairs_are_close_and_their_order_is_by_lot():
    texts = pool(100)
    tasks = rating_tasks(VALUES[:1], lambda _: texts, config(texts=0, pairs=60, random_share=0.5))
    gap = {
        b: np.mean([abs(t.place.intensity - t.other_intensity) for t in tasks if t.basis == b]) for b in ("random", "chosen")
    }
    assert gap["chosen"] < 0.2 * gap["random"]
    assert 15 < sum(task.place.intensity > task.other_intensity for task in tasks) < 45


def test_the_places_that_a_judge_gives():
    rows = [(["a", "b"], [1, 0]), (["a", "c"], [0, 1]), (["a", "b"], None), (["a", "b", "c"], [2, 0, 1])]
    table = pa.table(
        {"text_ids": [ids for ids, _ in rows], "order": pa.array([o for _, o in rows], SCHEMAS["rankings"].field("order").type)}
    )
    assert mean_places(table) == {"a": (1 + 0 + 0.5) / 3, "b": (0 + 1) / 2, "c": (1 + 0) / 2}


def test_the_register_is_read_as_it_was_written(tmp_path):
    texts = pool(20)._replace(
        texts=["=1+1", "-5", 'She said "no"\r\nand, left', "nan", "'quoted", *(f"Größe 🙂 {n}" for n in range(15))]
    )
    tasks = rating_tasks(VALUES[:2], lambda _: texts, config(texts=20, pairs=9))
    path = tmp_path / "tasks.csv"
    path.write_bytes(register_csv(tasks).encode())
    read = read_register(str(path))
    assert list(read) == [task.task_id for task in tasks]
    assert [repr(task) for task in read.values()] == [repr(task) for task in tasks]  # nan is equal to itself here
    path.write_text(path.read_text("utf-8").replace("svt,power", "svt,face", 1), "utf-8")
    with pytest.raises(InputError, match=r"tasks\.csv:2: task .* was changed"):
        read_register(str(path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["texts=0", "pairs=0"], "texts and pairs"),
        (["name=a/b"], "name"),
        (["raters=[anna,../b]"], "raters.*'../b'"),
        (["raters=[anna,Anna]"], "raters names somebody twice"),
        (["random_share=1.5"], "random_share"),
        (["vidb=x", "evaluations=[y]"], "not both"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        load(RatingTasksConfig, "conf/export_rating_tasks/tiny.yaml", settings)
