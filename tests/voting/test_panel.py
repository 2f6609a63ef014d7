"""A panel of simulated voters: its accuracy is binomial or multinomial, and its alpha has a closed form."""

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom, binomtest, multinomial

from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.simulated import SimulatedVoter, true_choice
from valueflow.voting.agreement import agreement
from valueflow.voting.descend import DIRECTIONS, Ballot, ballot_table
from valueflow.voting.rules import VoteRule, tally

BALLOTS = 1500
QUESTIONS = {
    2: Ballot("child", "svt", "", "", ("growth", "self-protection"), 0),
    3: Ballot("direction", "duty", "justice", "", DIRECTIONS, 0),
}


def polled(question: Ballot, accuracy: float) -> list[tuple[str, list[str]]]:
    """The truth and seven votes of every ballot."""
    ballots = [question._replace(text_id=f"t{i}") for i in range(BALLOTS)]
    table = ballot_table(ballots)
    table = table.append_column("vote_id", table["ballot_id"]).append_column("folder", table["ballot_id"])
    panel = [SimulatedVoter(SimulatedJudge(name=f"v{v}", accuracy=accuracy))(table)["choice"].to_pylist() for v in range(7)]
    truths = [true_choice(b.theory, b.node, b.text_id, list(b.options)) for b in ballots]
    return list(zip(truths, map(list, zip(*panel, strict=True)), strict=True))


@pytest.mark.parametrize("accuracy", [0.55, 0.7, 0.9])
def test_of_two_options_the_panel_is_right_as_the_binomial_says(accuracy):
    """Five of seven votes, or a lead of two; with two options, the lead also means five of seven (4:3 is a lead of one)."""
    decided = Counter()
    for truth, votes in polled(QUESTIONS[2], accuracy):
        result = tally(votes, VoteRule(), 7)
        decided["open" if result.choice is None else "right" if result.choice == truth else "wrong"] += 1
    expected = {"right": binom.sf(4, 7, accuracy), "wrong": binom.cdf(2, 7, accuracy)}
    for outcome, probability in expected.items():
        assert binomtest(decided[outcome], BALLOTS, probability).pvalue > 1e-3


@pytest.mark.parametrize("accuracy", [0.5, 0.8])
def test_of_three_options_the_panel_is_right_as_the_multinomial_says(accuracy):
    chances = [accuracy, (1 - accuracy) / 2, (1 - accuracy) / 2]
    expected = Counter()
    for counts in itertools.product(range(8), repeat=3):
        if sum(counts) == 7:
            votes = [option for option, n in zip("abc", counts, strict=True) for _ in range(n)]
            result = tally(votes, VoteRule(), 7)
            outcome = "open" if result.choice is None else "right" if result.choice == "a" else "wrong"
            expected[outcome] += multinomial.pmf(counts, 7, chances)
    decided = Counter()
    for truth, votes in polled(QUESTIONS[3], accuracy):
        result = tally(votes, VoteRule(), 7)
        decided["open" if result.choice is None else "right" if result.choice == truth else "wrong"] += 1
    for outcome in ("right", "wrong", "open"):
        assert binomtest(decided[outcome], BALLOTS, expected[outcome]).pvalue > 1e-3


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.9])
def test_agreement_of_the_panel_has_its_closed_form(accuracy):
    """Two of two options agree with a² + (1-a)²; truths are even, so chance is 1/2: alpha = (2a - 1)²."""
    votes = np.array([[choice == "growth" for choice in votes] for _, votes in polled(QUESTIONS[2], accuracy)])
    yes = votes.sum(1)
    observed = np.mean(yes * (7 - yes) / 21)
    share = votes.mean()
    alpha = 1 - observed / (2 * share * (1 - share) * votes.size / (votes.size - 1))

    ballots = np.repeat(np.arange(BALLOTS), 7).astype(str)
    table = pa.table(
        {
            "ballot_id": ballots, "voter": np.tile([f"v{v}" for v in range(7)], BALLOTS), "theory": ["svt"] * len(ballots),
            "kind": ["child"] * len(ballots), "node": [""] * len(ballots), "round": [0] * len(ballots),
            "choice": np.where(votes.ravel(), "growth", "self-protection"),
        }
    )  # fmt: skip
    estimate = agreement(table).alphas[0].alpha
    assert estimate == pytest.approx(alpha, abs=1e-9)
    assert estimate == pytest.approx((2 * accuracy - 1) ** 2, abs=0.03)
