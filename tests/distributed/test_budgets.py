"""A budget of time ends a job whatever its judge, with one line; a larger one goes on where it stopped."""

import pytest
from configs import SIMULATED, job_config

from jobs import build_vidb
from valueflow import store
from valueflow.errors import BudgetSpent
from valueflow.store import RankingsDetails

RENTED = SIMULATED | {"seconds_per_batch": 0.5, "batch_size": 50, "price": {"hour": 3600.0}}


def build(root, **judge: object):
    return build_vidb.main(job_config(build_vidb, root, "candidates.values=[svt:benevolence]", judge=RENTED | judge))


def test_the_money_of_an_engine_s_hours_counts_over_all_attempts(root):
    with pytest.raises(BudgetSpent, match=r"judge 'sim' is spent: 0 tokens, \d+\.\d\d USD .* budget\.money 3"):
        build(root, budget={"money": 3.0})
    with pytest.raises(BudgetSpent, match="rank: the budget"):  # at once: the time of the first attempt counts
        build(root, budget={"money": 3.0})
    at = build(root, budget={"money": 500.0}, seconds_per_batch=0.0)
    details = store.details_of(at.rankings[0], RankingsDetails)
    rows = store.read_table(at.rankings[0], ["window_id"])["window_id"].to_pylist()
    assert len(rows) == len(set(rows)) == details.windows == store.require_manifest(at.windows).num_rows
    answers = [sample[3] for sample in details.timeline]
    assert answers == sorted(answers)
    assert answers[-1] == details.windows
