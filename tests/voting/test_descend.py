"""Descent of a theory: worked cases, invariants, and the exact probabilities of simulated voters."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom, multinomial

from valueflow.theories import Theory, theories
from valueflow.voting.descend import DIRECTIONS, NEUTRAL, Ballot, DescentConfig, Label, OpenQuestion, step

SVT = theories()["svt"]
PAPER, ALWAYS = DescentConfig(), DescentConfig(neutral="always")
DEFINITION = "a definition that is long enough to say what is meant"


def toy(**parents: list[str]) -> Theory:
    nodes = [{"id": n, "name": n.title(), "definition": DEFINITION, "parents": p} for n, p in parents.items()]
    return Theory.model_validate({"id": "toy", "name": "Toy", "source": "none", "nodes": nodes})


def votes(*counts: tuple[str | None, int]) -> list[str | None]:
    return [choice for choice, n in counts for _ in range(n)]


def all_for(choice: str) -> list[str | None]:
    return [choice] * 7


def split(first: str, second: str) -> list[str | None]:
    return votes((first, 4), (second, 3))


def descend(theory, config, panel_size, vote: Callable[[Ballot], list]) -> tuple[Label | OpenQuestion, list[Ballot]]:
    """Result of the descent of one text, and its ballots."""
    past_votes, ballots = {}, []
    while isinstance(result := step(theory, "t", past_votes, config, panel_size), Ballot):
        assert (result.kind, result.node, result.round) not in past_votes, "a question is asked once"
        past_votes[result.kind, result.node, result.round] = vote(result)
        ballots.append(result)
    return result, ballots


def scripted(theory, config, *script: list[str | None]) -> tuple[Label | OpenQuestion, list[Ballot]]:
    left = iter(script)
    result, ballots = descend(theory, config, 7, lambda _: next(left))
    assert list(left) == [], "votes that nobody asked for"
    return result, ballots


def votes_along(*nodes: str, direction: str = "supports") -> Callable[[Ballot], list]:
    """Unanimous votes of seven voters along a path through these nodes."""
    return lambda ballot: all_for(direction if ballot.kind == "direction" else next(n for n in ballot.options if n in nodes))


def test_a_full_descent():
    result, ballots = scripted(
        SVT, PAPER,
        all_for("growth"), votes(("self-transcendence", 6), ("openness-to-change", 1)),
        votes(("universalism", 4), ("benevolence", 2), ("humility", 1)), all_for("universalism-nature"),
        votes(("opposes", 5), (None, 2)),
    )  # fmt: skip
    path = ("growth", "self-transcendence", "universalism", "universalism-nature")
    assert result == Label("t", "svt", path, [path], -1, "lead", pytest.approx((1 + 6 / 7 + 4 / 7 + 1 + 1) / 5), False)
    assert [b[:4] + b[5:] for b in ballots] == [
        ("child", "svt", "", "t", 0, ""),
        ("child", "svt", "growth", "t", 0, ""),
        ("child", "svt", "self-transcendence", "t", 0, ""),
        ("child", "svt", "universalism", "t", 0, ""),
        ("direction", "svt", "universalism-nature", "t", 0, ""),
    ]
    assert ballots[0].options == ("growth", "self-protection")
    assert ballots[3].options == ("universalism-concern", "universalism-nature", "universalism-tolerance")
    assert ballots[4].options == DIRECTIONS


@pytest.mark.parametrize(("direction", "sign"), [("supports", 1), ("opposes", -1), ("neither", 0)])
def test_a_unanimous_panel(direction, sign):
    result, _ = descend(theories()["duty"], PAPER, 7, votes_along("gratitude", direction=direction))
    assert result == Label("t", "duty", ("gratitude",), [("gratitude",)], sign, "accepted", 1.0, True)


def test_one_voter_is_a_panel():
    result, ballots = descend(theories()["duty"], PAPER, 1, lambda b: votes_along("gratitude")(b)[:1])
    assert (result.path, result.decision, len(ballots)) == (("gratitude",), "accepted", 2)


def test_neutral_is_offered_in_the_re_prompt_only():
    result, ballots = scripted(SVT, PAPER, split("growth", "self-protection"), all_for(NEUTRAL))
    assert [(b.round, b.options) for b in ballots] == [
        (0, ("growth", "self-protection")),
        (1, ("growth", "self-protection", NEUTRAL)),
    ]
    assert result == Label("t", "svt", (), [], 0, "neutral", 1.0, True)


def test_a_level_decided_in_round_1_lowers_the_decision_and_the_descent_continues():
    result, _ = scripted(
        theories()["duty"], PAPER,
        split("justice", "fidelity"), votes(("justice", 5), (NEUTRAL, 2)),
        votes(("supports", 4), ("opposes", 2), ("neither", 1)),
    )  # fmt: skip
    assert result == Label("t", "duty", ("justice",), [("justice",)], 1, "neutral", pytest.approx((5 / 7 + 4 / 7) / 2), False)


def test_neutral_below_the_top_ends_the_descent_at_the_last_node():
    result, ballots = scripted(
        SVT, PAPER, all_for("growth"), split("self-transcendence", "openness-to-change"), all_for(NEUTRAL), all_for("neither")
    )
    assert result == Label("t", "svt", ("growth",), [("growth",)], 0, "neutral", 1.0, True)
    assert ballots[-1].node == "growth"


def test_two_undecided_rounds_are_for_a_human():
    result, _ = scripted(SVT, PAPER, all_for("growth"), *[split("self-transcendence", "openness-to-change")] * 2)
    assert result == OpenQuestion(
        "t", "svt", ("growth",), "child", "growth", ("self-transcendence", "openness-to-change", NEUTRAL),
        {"self-transcendence": 4, "openness-to-change": 3},
    )  # fmt: skip


def test_too_few_valid_votes_are_for_a_human():
    result, _ = scripted(SVT, PAPER, *[votes(("growth", 3), (None, 4))] * 2)
    assert result[2:] == ((), "child", "", ("growth", "self-protection", NEUTRAL), {"growth": 3})


def test_the_direction_has_a_re_prompt():
    duty = theories()["duty"]
    result, ballots = scripted(
        duty, PAPER, all_for("justice"), split("supports", "opposes"), votes(("opposes", 5), ("supports", 2))
    )
    assert [(b.kind, b.round, b.options) for b in ballots[1:]] == [("direction", 0, DIRECTIONS), ("direction", 1, DIRECTIONS)]
    assert (result.direction, result.decision, result.unanimous) == (-1, "accepted", False)
    assert result.agreement == pytest.approx((1 + 5 / 7) / 2)
    result, _ = scripted(duty, PAPER, all_for("justice"), *[split("supports", "opposes")] * 2)
    assert result == OpenQuestion("t", "duty", ("justice",), "direction", "justice", DIRECTIONS, {"supports": 4, "opposes": 3})


def test_neutral_always():
    result, ballots = scripted(SVT, ALWAYS, votes((NEUTRAL, 5), ("growth", 2)))
    assert ballots[0].options == ("growth", "self-protection", NEUTRAL)
    assert result == Label("t", "svt", (), [], 0, "accepted", 5 / 7, False)
    result, ballots = scripted(SVT, ALWAYS, split("growth", NEUTRAL), all_for(NEUTRAL))
    assert ballots[0].options == ballots[1].options
    assert ballots[0].ballot_id != ballots[1].ballot_id
    assert result.decision == "neutral"
    result, _ = scripted(SVT, ALWAYS, *[split("growth", NEUTRAL)] * 2)
    assert (result.path, result.counts) == ((), {"growth": 4, NEUTRAL: 3})


@pytest.mark.parametrize("config", [PAPER, ALWAYS])
def test_an_only_child_has_one_round_against_neutral(config):
    theory = toy(top=[], other=[], only=["top"])
    result, ballots = scripted(theory, config, all_for("top"), votes(("only", 5), (NEUTRAL, 2)), all_for("supports"))
    assert (result.path, result.decision, ballots[1].options) == (("top", "only"), "accepted", ("only", NEUTRAL))
    result, _ = scripted(theory, config, all_for("top"), all_for(NEUTRAL), all_for("opposes"))
    assert (result.path, result.direction, result.decision) == (("top",), -1, "accepted")
    result, _ = scripted(theory, config, all_for("top"), split("only", NEUTRAL))
    assert result == OpenQuestion("t", "toy", ("top",), "child", "top", ("only", NEUTRAL), {"only": 4, NEUTRAL: 3})


@pytest.mark.parametrize(("max_level", "depth"), [(1, 1), (2, 2), (3, 3), (4, 4), (9, 4), (None, 4)])
def test_max_level(max_level, depth):
    way = ("growth", "self-transcendence", "universalism", "universalism-nature")
    result, ballots = descend(SVT, DescentConfig(max_level=max_level), 7, votes_along(*way))
    assert result.path == way[:depth]
    assert [b.kind for b in ballots] == ["child"] * depth + ["direction"]


def test_max_level_0_is_refused():
    with pytest.raises(ValidationError, match="max_level"):
        DescentConfig(max_level=0)


MANY_PARENTS = {
    "humility": {("growth", "self-transcendence"), ("self-protection", "conservation")},
    "hedonism": {("growth", "openness-to-change"), ("self-protection", "self-enhancement")},
    "face": {("self-protection", "self-enhancement"), ("self-protection", "conservation")},
}


@pytest.mark.parametrize(("value", "way"), [(value, way) for value, ways in MANY_PARENTS.items() for way in sorted(ways)])
def test_a_value_with_two_parents_is_reached_through_both_and_keeps_both_paths(value, way):
    result, _ = descend(SVT, PAPER, 7, votes_along(*way, value))
    assert result.path == (*way, value)
    assert sorted(result.paths) == sorted((*w, value) for w in MANY_PARENTS[value])


@pytest.mark.parametrize("foreign", ["hedonism", NEUTRAL, "Growth"])
def test_a_choice_that_was_not_offered_is_refused(foreign):
    with pytest.raises(ValueError, match=rf"choice '{foreign}' is not an option of its ballot \(growth, self-protection\): "):
        step(SVT, "t", {("child", "", 0): [*all_for("growth")[1:], foreign]}, PAPER, 7)


def test_votes_off_the_path_change_nothing():
    path_votes = {("child", "", 0): all_for("growth")}
    others = {("child", "self-protection", 0): all_for("conservation"), ("child", "", 1): all_for(NEUTRAL)}
    assert step(SVT, "t", path_votes | others, PAPER, 7) == step(SVT, "t", path_votes, PAPER, 7)
    assert step(SVT, "t", path_votes, PAPER, 7).node == "growth"


def test_every_field_of_a_ballot_is_in_its_id():
    ballot = Ballot("child", "svt", "", "t", ("growth", "self-protection"), 0)
    others = {
        "kind": "direction",
        "theory": "mft",
        "node": "growth",
        "text_id": "u",
        "options": ("growth",),
        "round": 1,
        "detail": "7",
    }
    assert others.keys() == set(Ballot._fields)
    ids = {ballot._replace(**{field: value}).ballot_id for field, value in others.items()} | {ballot.ballot_id}
    assert len(ids) == 8
    assert ballot._replace(options=list(ballot.options)).ballot_id == ballot.ballot_id, (
        "options come back from a table as a list"
    )


def test_no_node_id_equals_an_answer():
    assert not [node.id for theory in theories().values() for node in theory.nodes if node.id in (NEUTRAL, *DIRECTIONS)]


@st.composite
def dags(draw) -> Theory:
    ids = [f"n{'a' * n}" for n in range(draw(st.integers(1, 9)))]
    parents = [draw(st.lists(st.sampled_from(ids[:n]), unique=True, max_size=3)) if n else [] for n in range(len(ids))]
    return toy(**dict(zip(ids, parents, strict=True)))


CONFIGS = st.builds(DescentConfig, neutral=st.sampled_from(["second", "always"]), max_level=st.none() | st.integers(1, 4))


@given(st.sampled_from(sorted(theories().values(), key=lambda t: t.id)) | dags(), CONFIGS, st.integers(1, 7), st.data())
def test_descent_stays_in_the_dag_and_ends(theory, config, panel_size, data):
    edges = {(parent, node.id) for node in theory.nodes for parent in node.parents or [""]}

    def vote(ballot):
        if ballot.kind == "child":
            offered = {option for option in ballot.options if option != NEUTRAL}
            assert offered == {child for parent, child in edges if parent == ballot.node}
        favourite = st.sampled_from(ballot.options)  # without a favorite, nearly no ballot is decided
        drawn = data.draw(st.lists(st.sampled_from([*ballot.options, None]), min_size=0, max_size=panel_size // 2))
        return drawn + [data.draw(favourite)] * (panel_size - len(drawn))

    result, ballots = descend(theory, config, panel_size, vote)
    num_levels = max(len(path) for node in theory.nodes for path in theory.paths(node.id))
    num_levels = min(num_levels, config.max_level or num_levels)
    assert 1 <= len(ballots) <= 2 * num_levels + 2
    assert all(edge in edges for edge in itertools.pairwise(("", *result.path)))
    assert len(result.path) <= num_levels
    if isinstance(result, OpenQuestion):
        assert result.options == ballots[-1].options
        assert sum(result.counts.values()) <= panel_size
    else:
        assert result.paths == (theory.paths(result.path[-1]) if result.path else [])
        assert not result.path or result.path in result.paths
        assert 0 < result.agreement <= 1
        assert result.unanimous == (result.agreement == 1)
        assert result.direction in ((-1, 0, 1) if result.path else (0,))


# Simulated voters: right with probability p, else any other option.


def chances(num_options: int, p: float) -> tuple[float, float]:
    """Exact probabilities that seven voters choose the right option, and that they stay undecided."""
    each = [p] + [(1 - p) / (num_options - 1)] * (num_options - 1)
    counts = np.array([c for c in itertools.product(range(8), repeat=num_options) if sum(c) == 7])
    first, second = np.sort(counts, axis=1)[:, :-3:-1].T
    decided = (first >= 5) | (first - second >= 2)
    pmf = multinomial.pmf(counts, 7, each)
    return pmf[decided & (counts[:, 0] == first)].sum(), pmf[~decided].sum()


@pytest.mark.parametrize("neutral", ["second", "always"])
def test_the_share_of_correct_paths_matches_the_multinomial(neutral):
    path, p, num_texts = ("growth", "openness-to-change", "self-direction", "self-direction-thought"), 0.6, 4000
    rng = np.random.default_rng(5)

    def vote(ballot):
        right = "opposes" if ballot.kind == "direction" else next((o for o in ballot.options if o in path), None)
        others = [option for option in ballot.options if option != right]
        return [right if right and rng.random() < p else others[rng.integers(len(others))] for _ in range(7)]

    exact = 1.0
    for options, again in [(2, 3), (2, 3), (3, 4), (2, 3)]:
        right, undecided = chances(again if neutral == "always" else options, p)
        exact *= right + undecided * chances(again, p)[0]
    right, undecided = chances(3, p)
    exact *= right + undecided * right
    ends = [descend(SVT, DescentConfig(neutral=neutral), 7, vote)[0] for _ in range(num_texts)]
    num_right = sum(isinstance(end, Label) and (end.path, end.direction) == (path, -1) for end in ends)
    low, high = binom.interval(0.99, num_texts, exact)
    assert low <= num_right <= high
