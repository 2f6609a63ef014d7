"""The rule of the panel against a table, a second implementation and the exact probabilities of simulated voters."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom, multinomial

from valueflow.voting.rules import VoteRule, tally

RULE = VoteRule()


def ballot(*counts: int, failed: int = 0) -> list[str | None]:
    return [option for option, n in zip("abcdefg", counts, strict=False) for _ in range(n)] + [None] * failed


def paper(votes: tuple[str, ...]) -> tuple[str | None, str]:
    """Seven voters: 5 agree, or every other option is at least 2 votes behind."""
    for option in set(votes):
        if votes.count(option) >= 5:
            return option, "accepted"
        if all(votes.count(option) - votes.count(other) >= 2 for other in set("abcd") - {option}):
            return option, "lead"
    return None, "undecided"


# All distributions of seven votes over at most four options.
@pytest.mark.parametrize(
    ("counts", "decision"),
    [
        ((7,), "accepted"),
        ((6, 1), "accepted"),
        ((5, 2), "accepted"),
        ((5, 1, 1), "accepted"),
        ((4, 3), "undecided"),
        ((4, 2, 1), "lead"),
        ((4, 1, 1, 1), "lead"),
        ((3, 3, 1), "undecided"),
        ((3, 2, 2), "undecided"),
        ((3, 2, 1, 1), "undecided"),
        ((2, 2, 2, 1), "undecided"),
    ],
)
def test_seven_voters(counts, decision):
    result = tally(ballot(*counts), RULE, 7)
    assert result.decision == decision
    assert result.choice == (None if decision == "undecided" else "a")
    assert result.agreement == (0 if decision == "undecided" else counts[0] / 7)
    assert result.unanimous == (counts == (7,))
    assert list(result.counts.items()) == list(zip("abcd", counts, strict=False))


@pytest.mark.parametrize("options", ["abc", "abcd"])
def test_every_outcome_of_seven_votes_against_a_second_implementation(options):
    outcomes = list(itertools.product(options, repeat=7))
    wrong = [votes for votes in outcomes if tally(votes, RULE, 7)[:2] != paper(votes)]
    assert len(outcomes) == len(options) ** 7
    assert wrong == []


@pytest.mark.parametrize(
    ("counts", "decision"),
    [
        ((1,), "accepted"),
        ((2,), "accepted"),
        ((1, 1), "undecided"),
        ((3,), "accepted"),
        ((2, 1), "lead"),
        ((1, 1, 1), "undecided"),
        ((3, 1), "accepted"),
        ((2, 2), "undecided"),
        ((2, 1, 1), "undecided"),
        ((4, 1), "accepted"),
        ((3, 1, 1), "lead"),
        ((3, 2), "undecided"),
        ((2, 1, 1, 1), "undecided"),
        ((5, 1), "accepted"),
        ((4, 2), "lead"),
        ((3, 1, 1, 1), "lead"),
        ((3, 2, 1), "undecided"),
        ((3, 3), "undecided"),
        ((10, 4), "accepted"),  # a multiple of 7 keeps its whole thresholds: 10 and 4 of 14
        ((9, 5), "lead"),
        ((8, 5, 1), "undecided"),
    ],
)
def test_the_thresholds_scale_with_the_panel(counts, decision):
    assert tally(ballot(*counts), RULE, sum(counts)).decision == decision


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
def test_the_scaled_thresholds_are_sevenths_rounded_up(votes):
    result = tally(votes, RULE, len(votes))
    first, second = sorted((votes.count(option) for option in "abcde"), reverse=True)[:2]
    accepted = first > second and first >= math.ceil(Fraction(5, 7) * len(votes))
    leads = first - second >= math.ceil(Fraction(2, 7) * len(votes))
    assert result.decision == ("accepted" if accepted else "lead" if leads else "undecided")


def test_thresholds_can_be_set():
    assert tally(ballot(4, 3), VoteRule(accept=4), 7).decision == "accepted"
    assert tally(ballot(4, 3), VoteRule(lead=1), 7).decision == "lead"
    assert tally(ballot(4, 2, 1), VoteRule(lead=3), 7).decision == "undecided"
    assert tally(ballot(6, 1), VoteRule(accept=7), 7).decision == "lead"
    assert tally(ballot(5, failed=2), VoteRule(accept=6, lead=6), 7).decision == "undecided"


def test_a_tie_never_decides():
    assert tally(ballot(3, 3, 1), VoteRule(accept=1, lead=1), 7).choice is None


def test_failed_votes_count_as_abstentions():
    result = tally(ballot(4, 1, failed=2), RULE, 7)
    assert result == ("a", "accepted", 0.8, False, {"a": 4, "b": 1})  # 4 of 5, where 4 of 7 would need a lead
    assert tally(ballot(2, 1, failed=2), RULE, 5).decision == "lead"  # 1 ahead of 3, where 5 would need 2
    assert tally(ballot(4, failed=3), RULE, 7).unanimous
    assert tally(ballot(failed=7), RULE, 7) == (None, "undecided", 0.0, False, {})
    assert tally([], RULE, 7) == (None, "undecided", 0.0, False, {})


@pytest.mark.parametrize(
    ("valid", "panel_size", "quorum", "decided"),
    [
        (3, 7, 0.5, False),
        (4, 7, 0.5, True),
        (3, 6, 0.5, False),  # half is not enough
        (4, 6, 0.5, True),
        (1, 1, 0.5, True),
        (1, 7, 0.0, True),
        (6, 8, 0.75, False),
        (7, 8, 0.75, True),
    ],
)
def test_the_quorum(valid, panel_size, quorum, decided):
    rule = VoteRule(quorum=quorum)
    assert (tally(ballot(valid, failed=panel_size - valid), rule, panel_size).choice == "a") == decided
    assert (tally(ballot(valid), rule, panel_size).choice == "a") == decided, (
        "a voter that is missing counts like a failed vote"
    )
    assert tally(ballot(valid), rule, panel_size).counts == {"a": valid}


def test_more_votes_than_voters_are_refused():
    with pytest.raises(ValueError, match="8 votes on one ballot, but the panel has 7 voters"):
        tally(ballot(5, failed=3), RULE, 7)


@pytest.mark.parametrize("settings", [{"accept": 0}, {"lead": 0}, {"quorum": 1.0}, {"quorum": -0.1}, {"acccept": 5}])
def test_rules_that_cannot_be_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        VoteRule(**settings)


VOTES = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9)


@given(VOTES, st.randoms(use_true_random=False), st.integers(0, 3))
def test_the_order_of_the_voters_is_irrelevant(votes, random, missing):
    shuffled = random.sample(votes, len(votes))
    before, after = (tally(v, RULE, len(votes) + missing) for v in (votes, shuffled))
    assert before == after
    assert list(before.counts) == list(after.counts)


@given(VOTES)
def test_the_names_of_the_options_are_irrelevant(votes):
    other = {"a": "z", "b": "y", "c": "x", None: None}
    before, after = tally(votes, RULE, len(votes)), tally([other[v] for v in votes], RULE, len(votes))
    assert after.choice == other[before.choice]
    assert after[1:4] == before[1:4]


TRIALS = 20_000


def simulated(p: float, num_options: int, num_voters: int, rng: np.random.Generator) -> int:
    """Probability that the panel chooses "a", when each voter does with probability p and else chooses any other option."""
    wrong = rng.integers(1, num_options, (TRIALS, num_voters))
    votes_TV = np.where(rng.random((TRIALS, num_voters)) < p, 0, wrong)
    return sum(tally(["abcdefg"[v] for v in votes], RULE, num_voters).choice == "a" for votes in votes_TV)


@pytest.mark.parametrize("p", [0.55, 0.7, 0.9])
def test_accuracy_of_a_simulated_panel_with_two_options_is_binomial(p):
    exact = binom.sf(4, 7, p)  # with two options a lead of 2 is 5 of 7
    low, high = binom.interval(0.99, TRIALS, exact)
    assert low <= simulated(p, 2, 7, np.random.default_rng(7)) <= high


@pytest.mark.parametrize(("num_voters", "num_options", "p"), [(7, 3, 0.5), (7, 4, 0.6), (7, 6, 0.35)])
def test_accuracy_of_a_simulated_panel_with_more_options_is_multinomial(num_voters, num_options, p):
    chances = [p] + [(1 - p) / (num_options - 1)] * (num_options - 1)
    outcomes = [c for c in itertools.product(range(num_voters + 1), repeat=num_options) if sum(c) == num_voters]
    decisive = [c for c in outcomes if c[0] >= 5 or c[0] - max(c[1:]) >= 2]
    exact = multinomial.pmf(np.array(decisive), num_voters, chances).sum()
    low, high = binom.interval(0.99, TRIALS, exact)
    assert low <= simulated(p, num_options, num_voters, np.random.default_rng(3)) <= high
