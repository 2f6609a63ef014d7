"""The simulated voter has its configured accuracy; the encoder voter returns valid options and is better than chance."""

import csv
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib import resources
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest, chisquare, fisher_exact

from valueflow.judging.configs import EncoderJudge, SimulatedJudge
from valueflow.judging.encoder import EncoderVoter
from valueflow.judging.simulated import SimulatedVoter, true_choice
from valueflow.records import SCHEMAS, text_id
from valueflow.theories import Theory, operational, theories
from valueflow.voting.descend import DIRECTIONS, NEUTRAL, SIGNS, Ballot, ballot_table

pytestmark = pytest.mark.component

SCALE = tuple(str(i) for i in range(-10, 11))
MFT = tuple(node.id for node in theories()["mft"].children(None))
QUESTIONS = {
    2: Ballot("child", "svt", "", "", ("growth", "self-protection"), 0),
    3: Ballot("direction", "duty", "justice", "", DIRECTIONS, 0),
    7: Ballot("child", "mft", "", "", (*MFT, NEUTRAL), 1),
}


def voter_table(ballots: list[Ballot], texts: list[str] | None = None) -> pa.Table:
    """Ballots as the input table of a voter."""
    table = ballot_table(ballots)
    table = table.append_column("vote_id", table["ballot_id"]).append_column("folder", pa.array(["f"] * len(ballots)))
    return table.append_column("text", pa.array(texts, pa.string())) if texts else table


def many(question: Ballot, count: int) -> list[Ballot]:
    return [question._replace(text_id=f"t{i}") for i in range(count)]


def simulated(ballots: list[Ballot], **settings: object) -> list[str | None]:
    return SimulatedVoter(SimulatedJudge(**settings))(voter_table(ballots))["choice"].to_pylist()


def truth(ballot: Ballot) -> str:
    return true_choice(ballot.theory, ballot.node, ballot.text_id, list(ballot.options))


@pytest.mark.parametrize("num_options", QUESTIONS)
@pytest.mark.parametrize("accuracy", [0.0, 0.35, 0.8, 1.0])
def test_a_simulated_voter_is_right_as_often_as_it_says_and_wrong_evenly(num_options, accuracy):
    ballots = many(QUESTIONS[num_options], 2000)
    choices = simulated(ballots, accuracy=accuracy)
    right = sum(choice == truth(ballot) for choice, ballot in zip(choices, ballots, strict=True))
    assert binomtest(right, len(ballots), accuracy).pvalue > 1e-3
    wrong = Counter(
        sorted(set(ballot.options) - {truth(ballot)}).index(choice)
        for choice, ballot in zip(choices, ballots, strict=True)
        if choice != truth(ballot)
    )
    if accuracy < 1 and num_options > 2:
        assert chisquare([wrong[place] for place in range(num_options - 1)]).pvalue > 1e-3


@pytest.mark.parametrize("num_options", QUESTIONS)
def test_the_truth_is_evenly_any_option_but_neutral(num_options):
    seen = Counter(truth(ballot) for ballot in many(QUESTIONS[num_options], 2000))
    assert seen.keys() == set(QUESTIONS[num_options].options) - {NEUTRAL}
    assert chisquare(list(seen.values())).pvalue > 1e-3


@pytest.mark.parametrize("other", [{"name": "v2"}, {"seed": 1}, {"round": 1}])
def test_voters_seeds_and_rounds_err_apart(other):
    ballots = many(QUESTIONS[3], 2000)
    first = simulated(ballots, accuracy=0.6)
    if "round" in other:
        second = simulated([ballot._replace(**other) for ballot in ballots], accuracy=0.6)
    else:
        second = simulated(ballots, accuracy=0.6, **other)
    both = sum(a == b == truth(ballot) for a, b, ballot in zip(first, second, ballots, strict=True))
    assert binomtest(both, len(ballots), 0.36).pvalue > 1e-3


def test_a_vote_is_a_function_of_ballot_and_config():
    ballots = [ballot for question in QUESTIONS.values() for ballot in many(question, 60)]
    voter = SimulatedVoter(SimulatedJudge(broken_share=0.2))
    table = voter_table(ballots)
    together = voter(table)
    reverse = table.take(np.arange(len(ballots))[::-1])
    apart = pa.concat_tables([voter(reverse.slice(i, 7)) for i in range(0, len(ballots), 7)])
    assert apart.sort_by("vote_id").equals(together.sort_by("vote_id"))
    # The order of the options differs between voters.
    reversed_options = pa.array([list(ballot.options)[::-1] for ballot in ballots], pa.list_(pa.string()))
    turned = voter(table.set_column(table.schema.get_field_index("options"), "options", reversed_options))
    assert turned["choice"].equals(together["choice"])


def test_another_process_votes_the_same():
    ballots = many(QUESTIONS[7], 50)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(simulated, ballots, accuracy=0.5).result(timeout=120) == simulated(ballots, accuracy=0.5)


@pytest.mark.parametrize("broken_share", [0.0, 0.25, 1.0])
def test_broken_votes_have_a_reason_and_the_others_keep_the_accuracy(broken_share):
    ballots = many(QUESTIONS[3], 2000)
    voted = SimulatedVoter(SimulatedJudge(name="v", broken_share=broken_share, accuracy=0.7))(voter_table(ballots))
    assert voted.drop_columns("folder").schema == SCHEMAS["votes"]
    rows = voted.to_pylist()
    broken = [row for row in rows if row["error"]]
    assert binomtest(len(broken), len(rows), broken_share).pvalue > 1e-3
    assert all((row["choice"] is None) == bool(row["error"]) for row in rows)
    right = sum(row["choice"] == truth(ballot) for row, ballot in zip(rows, ballots, strict=True))
    if broken_share < 1:
        assert binomtest(right, len(rows) - len(broken), 0.7).pvalue > 1e-3


@pytest.mark.parametrize("sharpness", [0.0, 1.0])
def test_simulated_ratings_are_on_the_scale(sharpness):
    ballots = many(Ballot("rating", "svt", "power", "", SCALE, 0), 300)
    assert set(simulated(ballots, sharpness=sharpness)) <= set(SCALE)


# The encoder, with its real weights.


def ballots_of(theory: Theory, text: str) -> list[Ballot]:
    """Every possible ballot of a text in a theory."""
    ballots = []
    for parent in ["", *(node.id for node in theory.nodes)]:
        children = tuple(node.id for node in theory.children(parent or None))
        if children:
            ballots += [Ballot("child", theory.id, parent, text, children, 0)] if len(children) > 1 else []
            ballots += [Ballot("child", theory.id, parent, text, (*children, NEUTRAL), 1)]
    ballots += [Ballot("direction", theory.id, node.id, text, DIRECTIONS, 0) for node in theory.nodes]
    for node in theory.nodes:
        if node.operational:
            ballots += [Ballot("plausible", theory.id, node.id, text, ("plausible", "weird"), 0, d) for d in ("+9.9", "-9.9")]
            ballots += [Ballot("rating", theory.id, node.id, text, SCALE, 0)]
    return ballots


@pytest.fixture(scope="module")
def voter() -> EncoderVoter:
    return EncoderVoter(EncoderJudge())


@pytest.fixture(scope="module")
def corpus() -> list[dict]:
    """The sample's texts; no exemplar repeats one (see test_known)."""
    text = resources.files("valueflow").joinpath("samples/corpus.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def choices(voter: EncoderVoter, ballots: list[Ballot], texts: list[str]) -> list[str]:
    return voter(voter_table(ballots, texts))["choice"].to_pylist()


def test_every_ballot_of_every_theory_gets_one_of_its_options(voter):
    texts = ["She lied to her brother about the money.", "🙂", "no end of words " * 600]
    ballots = [ballot for text in texts for theory in theories().values() for ballot in ballots_of(theory, text)]
    voted = voter(voter_table(ballots, [ballot.text_id for ballot in ballots]))
    assert voted.drop_columns("folder").schema == SCHEMAS["votes"]
    assert voted["error"].null_count == len(ballots)
    for choice, ballot in zip(voted["choice"].to_pylist(), ballots, strict=True):
        assert choice in ballot.options, ballot


def test_votes_of_the_encoder_do_not_depend_on_the_batch(voter, corpus):
    texts = [row["text"] for row in corpus[::240]]
    ballots = [ballot for text in texts for ballot in ballots_of(theories()["svt"], text_id(text))]
    table = voter_table(ballots, [text for text in texts for _ in range(len(ballots) // len(texts))])
    together = voter(table)
    voter.ranker._judgements.clear()
    reverse = table.take(np.arange(len(ballots))[::-1])
    apart = pa.concat_tables([voter(reverse.slice(i, 100)) for i in range(0, len(ballots), 100)])
    assert apart.sort_by("vote_id").equals(together.sort_by("vote_id"))


@pytest.fixture(scope="module")
def votes_on_corpus(voter, corpus) -> list[tuple[dict, Ballot, str]]:
    """Two questions on every fourth row: its value among the siblings, then its direction."""
    questions = []
    for row in corpus[::4]:
        theory, i = theories()[row["theory"]], text_id(row["text"])
        parent = (("", *theory.paths(row["value"])[0]))[-2]
        options = tuple(node.id for node in theory.children(parent or None))
        questions.append((row, Ballot("child", theory.id, parent, i, options, 0)))
        questions.append((row, Ballot("direction", theory.id, row["value"], i, DIRECTIONS, 0)))
    chosen = choices(voter, [ballot for _, ballot in questions], [row["text"] for row, _ in questions])
    return [(*question, choice) for question, choice in zip(questions, chosen, strict=True)]


@pytest.mark.parametrize("theory", theories())
def test_the_encoder_predicts_values_better_than_chance(votes_on_corpus, theory):
    mine = [(r, b, c) for r, b, c in votes_on_corpus if (b.theory, b.kind) == (theory, "child")]
    right = sum(choice == row["value"] for row, _, choice in mine)
    chance = np.mean([1 / len(ballot.options) for _, ballot, _ in mine])
    assert binomtest(right, len(mine), chance, alternative="greater").pvalue < 1e-6, (right / len(mine), chance)


def test_the_encoder_predicts_direction_better_than_chance(votes_on_corpus):
    mine = [
        (SIGNS[choice], int(row["direction"]))
        for row, ballot, choice in votes_on_corpus
        if ballot.kind == "direction" and row["direction"] != "0" and choice != "neither"
    ]
    assert len(mine) > 180
    right = sum(vote == direction for vote, direction in mine)
    assert binomtest(right, len(mine), alternative="greater").pvalue < 1e-6, right / len(mine)


def test_neutral_is_chosen_more_often_for_neutral_texts(voter, corpus):
    lines = resources.files("valueflow").joinpath("samples/neutral.csv").read_text("utf-8").splitlines()
    neutral = [row["text"] for row in csv.DictReader(lines)]
    concerned = [row["text"] for row in corpus[::2] if row["theory"] == "mft"]
    counts = []
    for texts in (neutral, concerned):
        ballots = [QUESTIONS[7]._replace(text_id=text_id(text)) for text in texts]
        chosen = Counter(choice == NEUTRAL for choice in choices(voter, ballots, texts))
        counts.append([chosen[True], chosen[False]])
    assert fisher_exact(counts, alternative="greater").pvalue < 1e-6, counts


def test_below_the_operational_values_a_definition_is_nearest_to_its_node(voter):
    cases = []
    for theory in theories().values():
        for node in theory.nodes:
            parent = theory.paths(node.id)[0][-2:-1]
            siblings = tuple(n.id for n in theory.children(parent[0])) if parent else ()
            if parent and theory.node(parent[0]).operational and len(siblings) > 1:
                cases.append((Ballot("child", theory.id, parent[0], node.id, siblings, 0), node))
    assert len(cases) > 40
    chosen = choices(voter, [ballot for ballot, _ in cases], [node.definition for _, node in cases])
    assert chosen == [node.id for _, node in cases]


def test_an_intensity_is_plausible_near_the_rating_and_weird_far_from_it(voter, corpus):
    texts = [row["text"] for row in corpus[::20]]
    values = [operational()[i % len(operational())].split(":") for i in range(len(texts))]

    def ask(kind: str, options: tuple[str, ...], details: list[str]) -> list[str]:
        ballots = [
            Ballot(kind, *value, text_id(text), options, 0, detail)
            for value, text, detail in zip(values, texts, details, strict=True)
        ]
        return choices(voter, ballots, texts)

    ratings = [int(rating) for rating in ask("rating", SCALE, [""] * len(texts))]
    assert len(set(ratings)) > 3
    near = ask("plausible", ("plausible", "weird"), [f"{rating:+.1f}" for rating in ratings])
    far = ask("plausible", ("plausible", "weird"), [f"{rating - np.sign(rating or 1) * 10.6:+.1f}" for rating in ratings])
    assert (set(near), set(far)) == ({"plausible"}, {"weird"})


def test_voters_that_learned_from_other_bags_differ_and_agree_mostly(voter, corpus):
    texts = [row["text"] for row in corpus[::4] if row["theory"] == "duty"]
    options = tuple(node.id for node in theories()["duty"].children(None))
    ballots = [Ballot("child", "duty", "", text_id(text), options, 0) for text in texts]
    plain, bagged = (choices(v, ballots, texts) for v in (voter, EncoderVoter(EncoderJudge(bag=1))))
    alike = np.mean([a == b for a, b in zip(plain, bagged, strict=True)])
    assert 0.5 < alike < 1
