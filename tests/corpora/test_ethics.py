import csv
from collections import Counter
from pathlib import Path

import pytest

from valueflow.corpora import CorpusConfig, check, ethics, read
from valueflow.errors import InputError
from valueflow.records import ValueId, digest, text_id
from valueflow.theories import theories

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "ethics"


def rows(path):
    """The three tables of a file as lists of rows."""
    chunks = list(read(CorpusConfig(format="ethics", path=str(path))))
    return [[row for chunk in chunks for row in chunk[i].to_pylist()] for i in range(3)]


def labels(rows):
    return [(row["text_id"], ValueId.of(row["theory"], row["node"]), row["direction"]) for row in rows]


def write(folder, head, *lines, name="ethics.csv"):
    path = folder / name
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *lines])
    return path


def virtue(folder, *lines):
    return write(folder, ["label", "scenario"], *lines)


def test_an_exemplified_trait_labels_the_text_and_labels_accumulate(tmp_path):
    honest, lying = "Ann told her boss the truth about the till.", "Ann told her boss the truth about nothing."
    path = virtue(
        tmp_path,
        (1, f"{honest} [SEP] honest"),
        (0, f"{honest} [SEP] cruel"),
        (1, f"{honest} [SEP] Respectful:"),
        (1, f"{lying} [SEP] lying"),
    )
    texts, label_rows, rejected = rows(path)
    assert [(row["text_id"], row["text"]) for row in texts] == [(text_id(text), text) for text in (honest, honest, lying)]
    assert {row["group_id"] for row in texts} == {digest("ann told her boss the truth")}
    assert {(row["license"], row["source"]) for row in texts} == {("MIT", "ethics")}
    assert labels(label_rows) == [
        (text_id(honest), "mft:honesty", 1), (text_id(honest), "duty:fidelity", 1),
        (text_id(honest), "svt:conformity-interpersonal", 1), (text_id(lying), "mft:honesty", -1),
        (text_id(lying), "duty:fidelity", -1),
    ]  # fmt: skip
    assert [(row["source_id"], row["reason"]) for row in rejected] == [
        ("ethics.csv:3", "label 0: the text does not show the trait, so it has no label of a value")
    ]


@pytest.mark.parametrize(
    ("claim", "node"),
    [
        ("I deserve to be paid because I keep her house clean.", "mft:proportionality"),
        ("I feel that I merit a day off, as I usually work late.", "mft:proportionality"),
        ("I am justified in expecting that my mail will arrive.", "mft:justice"),
        ("I am entitled to remain silent because it is the law.", "mft:justice"),
        ("I usually greet Joe but didn't today because he deserved it.", "mft:justice"),
        ("I used to write to Ann, but I stopped because she moved.", "mft:justice"),
    ],
)
def test_a_claim_is_just_or_unjust(tmp_path, claim, node):
    path = write(tmp_path, ["label", "scenario"], (1, claim), (0, claim + " Not."))
    texts, label_rows, rejected = rows(path)
    assert [(value, direction) for _, value, direction in labels(label_rows)] == [
        ("duty:justice", 1), (node, 1), ("duty:justice", -1), (node, -1)
    ]  # fmt: skip
    assert texts[0]["group_id"] == texts[1]["group_id"]
    assert rejected == []


def test_rows_without_a_label_of_a_value_are_rejected(tmp_path):
    path = virtue(
        tmp_path, (1, "He sat. [SEP] kind"), (1, "She sat. [SEP] gloomy"), (2, "He stood. [SEP] kind"), (1, " [SEP] kind"),
        (1, "The waiters were treated well because they work."), ("", "I deserve it."), (1, "I deserve it."),
    )  # fmt: skip
    texts, _, rejected = rows(path)
    assert [row["text"] for row in texts] == ["He sat.", "I deserve it."]
    assert [row["reason"] for row in rejected] == [
        "trait 'gloomy' maps to no value; valueflow/corpora/ethics_traits.yaml lists the traits that do",
        "label '2' is not 0 or 1",
        "text is empty",
        "scenario does not claim that something is deserved or due, or that an exception was justified",
        "label '' is not 0 or 1",
    ]


@pytest.mark.parametrize(
    ("head", "line", "message"),
    [
        (
            ["label", "input", "is_short", "edited"],
            [1, "I hit him.", "True", "False"],
            "is ETHICS' commonsense, whose labels name no",
        ),
        (["label", "scenario", "excuse"], [0, "Could you go?", "No"], "is ETHICS' deontology, whose labels name no value"),
        (["label", "scenario"], [1, "[POWER] I gave in."], "0 of its first 1 scenarios have either form"),
        (["scenario"], ["He sat. [SEP] kind"], "lacks column(s) ['label']; it has ['scenario']"),
        (["label", "text"], [1, "He sat. [SEP] kind"], "lacks column(s) ['scenario']; it has ['label', 'text']"),
    ],
)
def test_other_files_are_refused_by_name_also_behind_a_glob(tmp_path, head, line, message):
    path = write(tmp_path, head, line, name="b.csv")
    write(tmp_path, ["label", "scenario"], (1, "He sat. [SEP] kind"), name="a.csv")
    for url in (path, tmp_path / "*.csv"):
        with pytest.raises(InputError) as error:
            check(CorpusConfig(format="ethics", path=str(url)))
        assert f"{path} " in str(error.value)
        assert message in str(error.value)


def test_every_trait_maps_to_existing_nodes_without_repetition():
    for trait, labels in ethics.traits().items():
        assert trait == trait.strip(" .:").lower()
        assert labels
        assert len({label.value for label in labels}) == len(labels), trait
        for label in labels:
            assert label.value.node in theories()[label.value.theory], (trait, label)
            assert label.direction in (-1, 1), (trait, label)


def test_nodes_in_the_file_are_ids_and_not_aliases():
    text = (Path(ethics.__file__).parent / ethics.TRAITS).read_text()
    for label in {label for labels in ethics.traits().values() for label in labels}:
        assert f"{label.value}:{label.direction:+d}" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("brave: [mft:bravery:+1]", "unknown value 'mft:bravery'"),
        ("brave: [mft:resistance:+2]", "direction '+2' is not one of -1, 0, 1"),
        ("kind, nice: [mft:kindness:+1]\nnice: [mft:gentleness:+1]", "has the trait 'nice' twice"),
    ],
)
def test_a_wrong_traits_file_is_refused(tmp_path, monkeypatch, text, message):
    (tmp_path / ethics.TRAITS).write_text(text)
    monkeypatch.setattr(ethics.resources, "files", lambda _: tmp_path)
    with pytest.raises(InputError) as error:
        ethics.traits.__wrapped__()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("honest", "dishonest"), ("truthful", "lying"), ("trustworthy", "untrustworthy"), ("reliable", "unreliable"),
        ("loyal", "disloyal"), ("faithful", "unfaithful"), ("patriotic", "unpatriotic"), ("grateful", "ungrateful"),
        ("generous", "stingy"), ("charitable", "uncharitable"), ("helpful", "unhelpful"), ("selfless", "selfish"),
        ("kind", "unkind"), ("caring", "uncaring"), ("considerate", "inconsiderate"), ("empathetic", "unsympathetic"),
        ("merciful", "merciless"), ("harmless", "harmful"), ("forgiving", "unforgiving"), ("just", "unjust"),
        ("fair", "biased"),
        ("tolerant", "close-minded"), ("respectful", "rude"), ("friendly", "unfriendly"), ("patient", "impatient"),
        ("good temper", "ill temper"), ("professional", "unprofessional"), ("obedient", "disobedient"), ("modest", "immodest"),
        ("sober", "drunk"), ("sanitary", "insanitary"), ("humble", "arrogant"), ("diligent", "lazy"),
        ("ambitious", "unambitious"), ("independent", "dependent"), ("adventurous", "unadventurous"), ("cautious", "reckless"),
    ],
)  # fmt: skip
def test_opposite_traits_have_the_opposite_labels(positive, negative):
    traits = ethics.traits()
    assert {(label.value, label.direction) for label in traits[positive]} == {
        (label.value, -label.direction) for label in traits[negative]
    }
    assert {label.direction for label in traits[positive]} == {1}


@pytest.mark.skipif(not DATA.exists(), reason="the real corpora are missing")
class TestRealFiles:
    def test_virtue_uses_three_quarters_of_the_exemplified_traits(self):
        texts, label_rows, rejected = rows(DATA / "virtue_train.csv")
        unused = Counter(row["reason"].partition(" ")[0] for row in rejected)
        assert unused == {"label": 25_830, "trait": 592}
        assert (len(texts), len(label_rows)) == (1_823, 2_970)
        assert len(texts) / (len(texts) + unused["trait"]) > 0.75
        distinct = set(labels(label_rows))
        assert not [1 for (text, value, direction) in distinct if (text, value, -direction) in distinct]

    def test_justice(self):
        texts, label_rows, rejected = rows(DATA / "justice_train.csv")
        assert (len(texts), len(label_rows), len(rejected)) == (21_781, 43_562, 10)
        seen = Counter((value, direction) for _, value, direction in labels(label_rows))
        assert seen == {
            ("duty:justice", 1): 11_824, ("duty:justice", -1): 9_957, ("mft:justice", 1): 8_620, ("mft:justice", -1): 6_393,
            ("mft:proportionality", 1): 3_204, ("mft:proportionality", -1): 3_564,
        }  # fmt: skip

    @pytest.mark.parametrize("part", ["commonsense", "deontology_train"])
    def test_parts_that_name_no_value_are_refused(self, part):
        with pytest.raises(InputError, match="whose labels name no value"):
            check(CorpusConfig(format="ethics", path=f"{DATA}/{part}.csv"))


def test_commonsense_is_read_if_values_are_set_and_wrong_conduct_opposes_them(tmp_path):
    path = tmp_path / "commonsense.csv"
    rows = [
        "1,I gave a gun to my baby.,True,False",
        "0,I gave my baby a green rattle.,True,False",
        f"1,{'word ' * 61},False,False",
    ]
    path.write_text("\n".join(["label,input,is_short,edited", *rows, "2,I sang.,True,False"]), "utf-8")
    config = CorpusConfig(format="ethics", path=str(path), values=["non-maleficence", "mft:care-harm"])
    ((texts, labels, rejected),) = list(read(config))
    assert texts.num_rows == 2
    wrong, right = (
        {tuple(r.values()) for r in labels.select(["theory", "node", "direction"]).to_pylist()[i : i + 2]} for i in (0, 2)
    )
    assert wrong == {("duty", "non-maleficence", -1), ("mft", "care-harm", -1)}
    assert right == {("duty", "non-maleficence", 1), ("mft", "care-harm", 1)}
    assert [reason.split()[0] for reason in rejected["reason"].to_pylist()] == ["text", "label"]
    with pytest.raises(InputError, match="if `values` names"):
        check(config.model_copy(update={"values": []}))
