"""Agreement of voters: published examples, closed forms, a second implementation, undefined cases."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import valueflow.voting.agreement as module
from valueflow.records import SCHEMAS
from valueflow.theories import Theory, theories
from valueflow.voting.agreement import Alpha, FailedVotes, agreement

COLUMNS = ("ballot_id", "kind", "theory", "node", "text_id", "round", "voter", "choice")
SCHEMA = pa.schema([SCHEMAS["votes"].field(name) for name in COLUMNS])


def row(text: str, voter: str, choice: str | None, node: str = "", kind: str = "child", theory: str = "duty", round_: int = 0):
    return (f"{kind}:{theory}:{node}:{text}:{round_}", kind, theory, node, text, round_, voter, choice)


def table(rows: list[tuple]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(COLUMNS, r, strict=True)) for r in rows], SCHEMA)


def of_voters(*answers: str) -> pa.Table:
    """One string per voter, one character per text; a dot is a failed vote."""
    return table(
        [row(f"t{n}", f"v{v}", None if c == "." else c) for v, choices in enumerate(answers) for n, c in enumerate(choices)]
    )


def only_alpha(votes: pa.Table) -> float:
    (result,) = agreement(votes).alphas
    return result.alpha


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), sections A, B and C.
@pytest.mark.parametrize(
    ("answers", "alpha", "num_ballots", "num_votes"),
    [
        (("0100000010", "1110010000"), 0.095, 10, 20),
        (("aabbdcccedda", "babbbccceddd"), 0.692, 12, 24),
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743, 11, 40),
    ],
)
def test_the_examples_of_krippendorff(answers, alpha, num_ballots, num_votes):
    (result,) = agreement(of_voters(*answers)).alphas
    assert result[:3] == ("duty", "child", 0)
    assert result.alpha == pytest.approx(alpha, abs=5e-4)
    assert (result.num_ballots, result.num_votes) == (num_ballots, num_votes)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=1, max_size=30))
def test_two_voters_and_two_options_in_closed_form(pairs):
    first, second = zip(*pairs, strict=True)
    a, b, differ = (first + second).count("a"), (first + second).count("b"), sum(x != y for x, y in pairs)
    estimate = only_alpha(of_voters("".join(first), "".join(second)))
    if a and b:
        assert estimate == pytest.approx(1 - (a + b - 1) * differ / (a * b))
    else:
        assert math.isnan(estimate)


def observed(votes: list[str]) -> float:
    return sum(x != y for x, y in itertools.permutations(votes, 2)) / (len(votes) - 1)


def pair_by_pair(nodes: list[list[list[str]]]) -> float:
    """1 - observed / expected disagreement, over all pairs of votes; expected disagreement is computed by node."""
    comparable = [[votes for votes in ballots if len(votes) > 1] for ballots in nodes]
    seen = sum(observed(votes) for ballots in comparable for votes in ballots)
    expected = sum(observed(list(itertools.chain(*ballots))) for ballots in comparable if ballots)
    return 1 - seen / expected if expected else math.nan


# Two nodes of one level, with different options.
CHOICES = {
    "growth": ["self-transcendence", "openness-to-change"],
    "self-protection": ["self-enhancement", "conservation", "neutral"],
}


@given(st.lists(st.tuples(st.sampled_from(sorted(CHOICES)), st.lists(st.integers(-1, 2), min_size=3, max_size=3)), max_size=12))
def test_alpha_of_a_level_pair_by_pair(ballots):
    rows, nodes = [], {node: [] for node in CHOICES}
    for n, (node, picks) in enumerate(ballots):
        choices = [None if pick < 0 else CHOICES[node][pick % len(CHOICES[node])] for pick in picks]
        rows += [row(f"t{n}", f"v{v}", choice, node, theory="svt") for v, choice in enumerate(choices)]
        nodes[node].append([choice for choice in choices if choice])
    alphas = agreement(table(rows)).alphas
    assert [a[:3] for a in alphas] == ([("svt", "child", 1)] if ballots else [])
    if ballots:
        assert alphas[0].alpha == pytest.approx(pair_by_pair(list(nodes.values())), nan_ok=True)
        assert alphas[0].num_ballots == sum(len(votes) > 1 for votes in itertools.chain(*nodes.values()))


def test_voters_at_random_on_many_nodes_do_not_agree_beyond_chance():
    rng = np.random.default_rng(0)
    rows = []
    for n in range(3000):
        node = sorted(CHOICES)[n % 2]
        rows += [row(f"t{n}", f"v{v}", CHOICES[node][rng.integers(2)], node, theory="svt") for v in range(3)]
    assert only_alpha(table(rows)) == pytest.approx(0, abs=0.05)  # 0.33 if options of another node counted as chance


@pytest.mark.parametrize(
    ("p", "truth"),
    [(0.9, [0.5, 0.5]), (0.7, [0.25] * 4), (0.6, [0.7, 0.2, 0.1]), (1 / 3, [0.2, 0.3, 0.5])],
)
def test_alpha_of_simulated_voters_matches_their_accuracy(p, truth):
    q, num_texts, num_voters = len(truth), 3000, 5
    rng = np.random.default_rng(11)
    true_T = rng.choice(q, num_texts, p=truth)
    wrong_TV = (true_T[:, None] + rng.integers(1, q, (num_texts, num_voters))) % q
    picks_TV = np.where(rng.random((num_texts, num_voters)) < p, true_T[:, None], wrong_TV)
    equal = p**2 + (1 - p) ** 2 / (q - 1)
    marginal = np.array([p * t + (1 - p) * (1 - t) / (q - 1) for t in truth])
    expected = 1 - (1 - equal) / (1 - (marginal**2).sum())
    votes = of_voters(*("".join("abcd"[pick] for pick in picks) for picks in picks_TV.T))
    assert only_alpha(votes) == pytest.approx(expected, abs=0.03)
    pairs = np.array(agreement(votes).pairwise.agreement)[np.triu_indices(num_voters, 1)]
    assert pairs == pytest.approx(equal, abs=4 * math.sqrt(equal * (1 - equal) / num_texts))


@pytest.mark.parametrize(
    ("answers", "num_ballots"), [(("aaaa", "aaaa"), 4), (("ab..", "..ab"), 0), (("ab", ".."), 0), (("abc",), 0)]
)
def test_undefined_alpha_is_nan(answers, num_ballots):
    (result,) = agreement(of_voters(*answers)).alphas
    assert math.isnan(result.alpha)
    assert result.num_ballots == num_ballots


def test_a_node_without_disagreement_leaves_the_alpha_of_its_level():
    answers = [("x", "aab"), ("y", "abb"), ("z", "bbb")]
    rows = [row(t, f"v{v}", c, "growth", theory="svt") for t, choices in answers for v, c in enumerate(choices)]
    alone = only_alpha(table(rows))
    rows += [row("w", f"v{v}", "c", "self-protection", theory="svt") for v in range(3)]
    (result,) = agreement(table(rows)).alphas
    assert result.alpha == pytest.approx(alone)
    assert result.num_ballots == 4


def test_only_the_first_round_counts_for_alpha_and_all_rounds_for_the_rest():
    first = [row(f"t{n}", v, c) for n, (x, y) in enumerate(["aa", "bb", "ab"]) for v, c in (("v", x), ("w", y))]
    again = [row("t2", v, "a", round_=1) for v in "vw"]
    result, alone = agreement(table(first + again)), agreement(table(first))
    assert result.alphas == alone.alphas
    assert alone.pairwise.agreement[0][1] == pytest.approx(2 / 3)
    assert result.pairwise.agreement[0][1] == pytest.approx(3 / 4)
    assert agreement(table(again)).alphas == []


def test_one_alpha_for_each_theory_kind_and_level():
    questions = [
        ("", "child", "svt"), ("growth", "child", "svt"), ("self-protection", "child", "svt"), ("hedonism", "direction", "svt"),
        ("universalism-nature", "direction", "svt"), ("", "child", "duty"), ("gratitude", "direction", "duty"),
    ]  # fmt: skip
    rows = [row(t, v, c, *a) for a in questions for t, x in (("t", "aa"), ("u", "bb")) for v, c in zip("vw", x, strict=True)]
    alphas = agreement(table(rows)).alphas
    assert [a[:3] for a in alphas] == [
        ("duty", "child", 0), ("duty", "direction", 1), ("svt", "child", 0), ("svt", "child", 1),
        ("svt", "direction", 3), ("svt", "direction", 4),
    ]  # fmt: skip
    assert [a.num_ballots for a in alphas] == [2, 2, 2, 4, 2, 2]
    assert alphas[0] == Alpha("duty", "child", 0, 1.0, 2, 4)
    assert {type(value) for alpha in alphas for value in alpha} == {str, int, float}


def test_the_level_of_a_node_is_its_shortest_path(monkeypatch):
    definition = "a definition that is long enough to say what is meant"
    parents = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["c"]}
    nodes = [{"id": n, "name": n, "definition": definition, "parents": p} for n, p in parents.items()]
    toy = Theory.model_validate({"id": "toy", "name": "Toy", "source": "none", "nodes": nodes})
    monkeypatch.setattr(module, "theories", lambda: {"toy": toy})
    result = agreement(table([row("t", v, "supports", n, "direction", "toy") for n in "acd" for v in "vw"]))
    assert [a.level for a in result.alphas] == [1, 2, 3]


def test_an_unknown_node_is_refused():
    with pytest.raises(KeyError, match="hedonisn"):
        agreement(table([row("t", v, "supports", "hedonisn", "direction", "svt") for v in "vw"]))
    assert "hedonism" in theories()["svt"]


def test_a_pair_is_compared_on_the_ballots_of_both():
    pairwise = agreement(of_voters("aab.", "ab.b", "....", "aaab")).pairwise
    assert pairwise.voters == ["v0", "v1", "v2", "v3"]
    assert pairwise.num_ballots == [[3, 2, 0, 3], [2, 3, 0, 3], [0, 0, 0, 0], [3, 3, 0, 4]]
    nan = math.nan
    shares = [[1, 0.5, nan, 2 / 3], [0.5, 1, nan, 2 / 3], [nan] * 4, [2 / 3, 2 / 3, nan, 1]]
    assert np.array(pairwise.agreement) == pytest.approx(np.array(shares), nan_ok=True)
    assert {type(n) for line in pairwise.num_ballots for n in line} == {int}
    assert {type(share) for line in pairwise.agreement for share in line} == {float}


def test_failed_votes_of_each_voter():
    votes = table([row(f"t{n}", "v", None if n < 2 else "a") for n in range(8)] + [row("t0", "w", "a"), row("t1", "u", None)])
    assert agreement(votes).failed == [FailedVotes("u", 1, 1.0), FailedVotes("v", 8, 0.25), FailedVotes("w", 1, 0.0)]


def test_votes_that_were_written_twice_count_once_and_the_order_of_rows_is_irrelevant():
    votes = of_voters("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    rows = np.random.default_rng(2).permutation(np.r_[0 : votes.num_rows, 0 : votes.num_rows, 3, 3])
    chunked = pa.concat_tables([votes.take(rows[:50]), votes.take(rows[50:])])
    assert str(agreement(chunked)) == str(agreement(votes))  # as text, since nan differs from nan


def test_a_valid_vote_counts_before_a_failed_one_of_the_same_ballot():
    votes = [row("t", "v", None), row("t", "v", "a"), row("t", "w", "a"), row("t", "w", None)]
    result = agreement(table(votes))
    assert result.pairwise.num_ballots[0][1] == 1
    assert [b.share for b in result.failed] == [0, 0]


def test_no_votes():
    assert agreement(table([])) == ([], ([], [], []), [])
