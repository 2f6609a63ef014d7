"""The inventory: enough instances of each node, in short and distinct phrases; refusal of invalid inventories."""

import itertools
import re
from collections import Counter
from importlib import resources

import numpy as np
import pytest

from valueflow.errors import InputError
from valueflow.judging.encoder import LayerEncoder
from valueflow.models import MINILM
from valueflow.records import ValueId
from valueflow.theories import inventory, operational, theories
from valueflow.theories.instances import instances

pytestmark = pytest.mark.component

# Words of a phrase, its opening ("the duty to", "valuing", "the right to") included.
SHORTEST, LONGEST = 5, 15
# Two phrases are less alike than this. Most paraphrases are above 0.72; the nearest phrases that ship are at 0.70 and 0.23.
COSINE, JACCARD = 0.72, 0.3
PARAPHRASES = {
    "the duty to repay a loan from a cousin on the day agreed": "the duty to return a cousin's money on the date agreed",
    "the duty to give blood when the hospital runs short": "the duty to donate blood during a shortage at the hospital",
    "valuing a steady job with a pension at the end": "valuing secure work and a pension",
    "valuing a police force that comes quickly when called": "valuing police who arrive fast in an emergency",
    "the right to join a union without losing one's job": "the right to become a union member without being sacked",
    "the right to clean drinking water from a tap nearby": "the right to safe water to drink close to home",
}
WIDTH = 384  # of MiniLM's last layer, whose mean-pooled states are its sentence embedding


def words(phrase: str) -> list[str]:
    return re.findall(r"[a-z0-9'-]+", phrase.lower())


def per_node() -> Counter:
    return Counter(instance.value for instance in inventory())


def leaves() -> set[ValueId]:
    return {ValueId.of(t.id, node.id) for t in theories().values() for node in t.nodes if not t.children(node.id)}


def shingles(phrase: str) -> set[tuple[str, ...]]:
    tokens = words(phrase)
    return {tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)}


def overlap(one: set, other: set) -> float:
    return len(one & other) / len(one | other)


def embedded(phrases: list[str]) -> np.ndarray:
    last = LayerEncoder(MINILM)(phrases)[:, -WIDTH:]
    return last / np.linalg.norm(last, axis=1, keepdims=True)


def test_the_inventory_is_at_least_as_large_as_in_the_paper():
    count = Counter(instance.value.theory for instance in inventory())
    assert count["duty"] >= 158
    assert count["svt"] + count["mft"] >= 142
    assert count["right"] >= 107


def test_every_operational_value_has_three_instances_at_or_below_it():
    count = per_node()
    for value in operational():
        theory = theories()[value.theory]
        below = [node.id for node in theory.nodes if any(value.node in path for path in theory.paths(node.id))]
        assert sum(count[ValueId.of(theory.id, node_id)] for node_id in below) >= 3, value


def test_instances_belong_to_leaves_and_every_leaf_has_one():
    # Disaster relief and fairness to those yet unborn belong to this group of rights, but to no right below it.
    assert set(per_node()) - leaves() == {"right:social-group-solidarity"}
    assert leaves() <= set(per_node())


def test_an_id_is_unique_and_consists_of_value_id_and_phrase():
    ids = [instance.id for instance in inventory()]
    assert len(set(ids)) == len(ids)
    assert "duty:fidelity/turn-up-at-a-daughters-school-play-after-saying-one-would" in ids
    assert all(re.fullmatch(re.escape(instance.value) + r"/[a-z0-9]+(-[a-z0-9]+)*", instance.id) for instance in inventory())


def test_no_line_of_the_file_is_lost():
    text = resources.files("valueflow.theories").joinpath("inventory.yaml").read_text("utf-8")
    assert len(re.findall(r"^  - ", text, re.MULTILINE)) == len(inventory()), "a node is listed twice"


def test_a_phrase_is_short_plain_and_not_padded():
    for _, _, phrase in inventory():
        assert SHORTEST <= len(words(phrase)) <= LONGEST, phrase
        assert re.fullmatch(r"[a-zA-Z0-9',-]+( [a-zA-Z0-9',-]+)*", phrase), phrase


def test_no_phrase_repeats_another():
    assert len({" ".join(words(instance.phrase)) for instance in inventory()}) == len(inventory())
    pairs = itertools.combinations([(instance.phrase, shingles(instance.phrase)) for instance in inventory()], 2)
    shared, one, other = max((overlap(a, b), one, other) for (one, a), (other, b) in pairs)
    assert shared < JACCARD, (one, other)


def test_no_phrase_paraphrases_another():
    phrases = [instance.phrase for instance in inventory()]
    states = embedded([*phrases, *PARAPHRASES.values()])
    original, paraphrase = states[[phrases.index(phrase) for phrase in PARAPHRASES]], states[len(phrases) :]
    assert ((original * paraphrase).sum(1) > COSINE).all()
    cosine = np.triu(states[: len(phrases)] @ states[: len(phrases)].T, 1)
    one, other = np.unravel_index(cosine.argmax(), cosine.shape)
    assert cosine[one, other] < COSINE, (phrases[one], phrases[other])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"duty:fidelty": ["the duty to keep one's word"]},
            "inventory.yaml: unknown value 'duty:fidelty'; did you mean 'duty:fidelity'?",
        ),
        (
            {"fidelity": ["the duty to keep one's word"]},
            "inventory.yaml: unknown value 'fidelity'; did you mean 'duty:fidelity'?",
        ),
        (
            {"duty:fidelity": ["the duty to keep one's word"], "duty:justice": ["The duty to keep  one's word."]},
            'duty:justice repeats the phrase "The duty to keep  one\'s word." of duty:fidelity; delete one of them',
        ),
        (
            {"svt:face": ["the duty to save face"]},
            "svt:face has the phrase 'the duty to save face'; it must start with 'valuing'",
        ),
        ({"duty:fidelity": "the duty to keep one's word"}, "inventory.yaml: 1 validation error"),
        ({"duty:fidelity": [{"the duty": "to keep one's word"}]}, "inventory.yaml: 1 validation error"),
        (None, "inventory.yaml: 1 validation error"),
    ],
)
def test_an_invalid_inventory_is_refused(mapping, message):
    with pytest.raises(InputError) as refused:
        instances(mapping)
    assert message in str(refused.value)
