"""The four theories of the package, every spelling of a value, refusal of invalid taxonomies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from valueflow.errors import InputError
from valueflow.records import ValueId
from valueflow.theories import Theory, fold, operational, resolve, resolve_theory, theories

DEFINITION = "a definition that is long enough to say what is meant"


def theory(*nodes: dict) -> Theory:
    complete = [{"name": node["id"].title(), "definition": DEFINITION} | node for node in nodes]
    return Theory.model_validate({"id": "toy", "name": "Toy", "source": "none", "nodes": complete})


def below(theory_id: str, top: str) -> set[str]:
    theory = theories()[theory_id]
    return {node.id for node in theory.nodes if any(top in path[:-1] for path in theory.paths(node.id))}


def test_the_32_operational_values():
    assert [sum(value.theory == t for value in operational()) for t in ("svt", "mft", "duty", "right")] == [12, 6, 7, 7]
    assert len(set(operational())) == 32
    for value in operational():
        node = theories()[value.theory].node(value.node)
        assert node.supports != node.opposes


def test_the_counts_below_the_operational_values():
    leaves = {t.id: [n.id for n in t.nodes if not n.operational and not t.children(n.id)] for t in theories().values()}
    assert {theory_id: len(nodes) for theory_id, nodes in leaves.items()} == {"svt": 13, "mft": 26, "duty": 0, "right": 30}
    assert [n.id for n in theories()["svt"].children(None)] == ["growth", "self-protection"]
    assert len(theories()["right"].children(None)) == 3


@pytest.mark.parametrize("theory_id", ["svt", "mft", "duty", "right"])
def test_every_leaf_lies_below_an_operational_value_and_none_lies_below_another(theory_id):
    theory = theories()[theory_id]
    for node in theory.nodes:
        for path in theory.paths(node.id):
            num_operational = sum(theory.node(step).operational for step in path)
            assert num_operational == 1 if node.operational or not theory.children(node.id) else num_operational <= 1


@pytest.mark.parametrize(
    ("node", "paths"),
    [
        (
            "hedonism",
            {("growth", "openness-to-change", "hedonism"), ("self-protection", "self-enhancement", "hedonism")},
        ),
        ("face", {("self-protection", "self-enhancement", "face"), ("self-protection", "conservation", "face")}),
        ("humility", {("growth", "self-transcendence", "humility"), ("self-protection", "conservation", "humility")}),
        ("benevolence", {("growth", "self-transcendence", "benevolence")}),
    ],
)
def test_a_node_with_two_parents_has_all_its_paths(node, paths):
    assert set(theories()["svt"].paths(node)) == paths
    for path in paths:
        assert node in [child.id for child in theories()["svt"].children(path[-2])]
        assert node in below("svt", path[0])


def test_paths_multiply_where_parents_have_several_parents():
    diamonds = theory(
        {"id": "a", "parents": []}, {"id": "b", "parents": ["a"]}, {"id": "c", "parents": ["a"]},
        {"id": "d", "parents": ["b", "c"]}, {"id": "e", "parents": ["d"]}, {"id": "f", "parents": ["d", "e"]},
    )  # fmt: skip
    assert len(diamonds.paths("d")) == 2
    assert len(diamonds.paths("f")) == 4


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("care/harm", "mft:care-harm"),
        ("care-harm", "mft:care-harm"),
        ("care_harm", "mft:care-harm"),
        ("Care / Harm", "mft:care-harm"),
        ("care", "mft:care-harm"),
        ("civil_rights", "right:civil-rights"),
        ("civil rights", "right:civil-rights"),
        ("CIVIL-RIGHTS ", "right:civil-rights"),
        ("pvq:benevolence", "svt:benevolence"),
        ("schwartz:Self Direction", "svt:self-direction"),
        ("duties:justice", "duty:justice"),
        ("moral-foundations:justice", "mft:justice"),
        ("rights:privacy", "right:right-to-privacy"),
        ("Benevolence: caring", "svt:benevolence-caring"),
        ("svt:Benevolence: caring", "svt:benevolence-caring"),
    ],
)
def test_every_spelling_leads_to_one_id(spelling, value):
    assert resolve(spelling) == value


@pytest.mark.parametrize(("alias", "theory_id"), [("pvq", "svt"), ("Schwartz", "svt"), ("duties", "duty"), ("rights", "right")])
def test_a_theory_has_aliases(alias, theory_id):
    assert resolve_theory(alias) == theory_id
    assert resolve(operational()[0].node, "pvq") == operational()[0]


def test_all_ids_names_and_aliases_resolve_within_their_theory():
    for theory in theories().values():
        for node in theory.nodes:
            for spelling in (node.id, node.name, node.name.upper(), node.id.replace("-", "_"), *node.aliases):
                assert resolve(spelling, theory.id) == ValueId.of(theory.id, node.id), spelling


def test_a_name_of_several_theories_is_refused_with_all_of_them():
    with pytest.raises(InputError, match=r"value 'justice' is ambiguous; write one of mft:justice, duty:justice"):
        resolve("justice")
    with pytest.raises(InputError, match=r"svt:tradition, mft:tradition"):
        resolve("Tradition")
    assert resolve("justice", "duties") == "duty:justice"


@pytest.mark.parametrize(
    ("misspelt", "theory_id", "near"),
    [
        ("benevolance", None, "did you mean 'benevolence'?"),
        ("svt:benevolance", None, "unknown value 'svt:benevolance'; did you mean 'benevolence'?"),
        ("hedonsim", "svt", "unknown value 'svt:hedonsim'; did you mean 'hedonism'?"),
        ("xyzzy", None, "the values are svt:benevolence, "),
    ],
)
def test_an_unknown_value_gets_the_near_one_or_the_list(misspelt, theory_id, near):
    with pytest.raises(InputError) as refused:
        resolve(misspelt, theory_id)
    assert near in str(refused.value)


def test_an_unknown_theory_gets_the_near_one():
    with pytest.raises(InputError, match=r"unknown theory 'swartz'; did you mean 'schwartz'\?"):
        resolve_theory("swartz")
    with pytest.raises(InputError, match=r"unknown theory 'dutys'; did you mean 'duty'\?"):
        resolve("justice", "dutys")


@given(st.text())
def test_folding_is_stable_and_any_text_is_resolved_or_refused(text):
    assert fold(fold(text)) == fold(text)
    try:
        value = resolve(text)
    except InputError:
        return
    assert theories()[value.theory].node(value.node).id == value.node


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([{"id": "a", "parents": ["b"]}, {"id": "b", "parents": ["a"]}], "theory 'toy' has a cycle through 'a'"),
        ([{"id": "a", "parents": ["a"]}], "theory 'toy' has a cycle through 'a'"),
        (
            [{"id": "caring", "parents": []}, {"id": "b", "parents": ["carring"]}],
            "node 'b' has the unknown parent 'carring'; did you mean 'caring'?",
        ),
        ([{"id": "a"}, {"id": "a"}], "theory 'toy' names a node twice"),
        ([{"id": "a", "aliases": ["x y"]}, {"id": "b", "aliases": ["X_Y"]}], "'x-y' names both 'a' and 'b' in 'toy'"),
        ([{"id": "a", "operational": True, "supports": "s"}], "operational node 'a' needs both 'supports' and 'opposes'"),
        ([{"id": "A b"}], "nodes.0.id"),
    ],
)
def test_an_invalid_taxonomy_is_refused(nodes, message):
    with pytest.raises(ValidationError) as refused:
        theory(*nodes)
    assert message in str(refused.value)
