"""Rows as functions of their number: ids, order, seeds, and memory that does not grow with the plan."""

import tracemalloc

import pytest

from valueflow.llm.configs import Sampling
from valueflow.records import ValueId
from valueflow.steering.conditions import Condition
from valueflow.steering.plan import CHUNK, FOLDER_ROWS, Plan, dose, plan_hash
from valueflow.steering.queries import Query

POWER = ValueId("svt:power")


def small(conditions: int = 3, queries: int = 4, replicates: int = 2, model: str = "m") -> Plan:
    told = tuple(Condition("intensity_anchor", "value", "user", (POWER,), (2,), n, f"persona {n}") for n in range(conditions))
    return Plan(model, told, tuple(Query(f"{n:016}", "d", f"query {n}") for n in range(queries)), replicates, Sampling(), "")


def test_rows_are_conditions_by_replicates_by_queries_in_this_order():
    plan = small()
    assert plan.num_rows == 24
    rows = [plan.row(n) for n in range(24)]
    assert [(r.condition.variant, r.replicate, r.query.text) for r in rows[:5]] == [
        (0, 0, "query 0"), (0, 0, "query 1"), (0, 0, "query 2"), (0, 0, "query 3"), (0, 1, "query 0"),
    ]  # fmt: skip
    assert [r.condition.variant for r in rows] == [0] * 8 + [1] * 8 + [2] * 8
    assert len(set(rows)) == 24


def test_ids_are_distinct_and_depend_on_what_determines_a_reply():
    plan = small()
    ids = plan.chunk(0)["generation_id"].to_pylist()
    assert len(set(ids)) == 24
    assert small().chunk(0)["generation_id"].to_pylist() == ids
    for other in (
        small(model="n"), plan._replace(sampling=Sampling(top_p=0.9)), plan._replace(instruction="Be brief."),
        plan._replace(sampling=Sampling(seed=1)),
    ):  # fmt: skip
        assert not set(other.chunk(0)["generation_id"].to_pylist()) & set(ids)
    more = plan._replace(queries=(*plan.queries, Query("f" * 16, "d", "one more")))
    assert set(ids) < set(more.chunk(0)["generation_id"].to_pylist()), "rows of a smaller plan keep their ids"


def test_every_row_has_a_seed_of_its_own_and_all_sampling_fields():
    plan = small()
    ids = plan.chunk(0)["generation_id"].to_pylist()
    fields = [plan.sampling_of(i) for i in ids]
    assert len({f["seed"] for f in fields}) == 24
    assert set(fields[0]) == set(Sampling.model_fields) - {"stop"}
    assert plan._replace(sampling=Sampling(stop=["\n"])).sampling_of(ids[0])["stop"] == ["\n"]
    assert plan.sampling_of(ids[0]) == fields[0]


def test_chunks_are_the_rows_once_and_no_chunk_is_in_two_folders():
    plan = small(conditions=30, queries=1700, replicates=1)
    tables = list(plan.chunks())
    numbers = [n for table in tables for n in table["number"].to_pylist()]
    assert numbers == list(range(plan.num_rows))
    assert FOLDER_ROWS % CHUNK == 0
    assert [len(set(table["folder"].to_pylist())) for table in tables] == [1] * len(tables)
    assert tables[-1]["folder"][0].as_py() == "chunk=00001"


def test_a_dose_says_values_and_levels_or_the_control():
    told = small().conditions[0]
    assert dose(told) == "svt:power=2"
    assert dose(told._replace(values=(POWER, ValueId("svt:face")), levels=(2, -1))) == "svt:power=2|svt:face=-1"
    assert dose(told._replace(values=(), levels=(), condition="bare")) == "bare"


def test_the_hash_of_a_plan_is_that_of_all_models():
    assert plan_hash(small(model="a"), "w") == plan_hash(small(model="b"), "w")
    assert plan_hash(small(), "w") != plan_hash(small(), "v")
    assert plan_hash(small(), "w") != plan_hash(small(replicates=1), "w")


@pytest.mark.parametrize("replicates", [10, 10_000])
def test_memory_of_a_plan_does_not_grow_with_its_rows(replicates):
    tracemalloc.start()
    plan = small(conditions=100, queries=10, replicates=replicates)
    for index in (0, plan.num_chunks // 2, plan.num_chunks - 1):
        plan.chunk(index)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.num_rows == 1000 * replicates
    assert peak < 8e6
