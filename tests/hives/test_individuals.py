"""Individual anchors: texts get instances of their nodes only."""

import numpy as np
import pyarrow as pa

from valueflow.hives.examples import examples_from_tables, prefixes
from valueflow.hives.individuals import nearest_instances, related_instances, with_individuals
from valueflow.theories import Instance, inventory
from valueflow.theories.taxonomy import THEORIES

INSTANCES = (
    Instance("duty:fidelity/a", "duty:fidelity", "the duty to keep a promise"),
    Instance("duty:fidelity/b", "duty:fidelity", "the duty to tell the truth"),
    Instance("duty:gratitude/c", "duty:gratitude", "the duty to thank"),
    Instance("svt:benevolence-caring/d", "svt:benevolence-caring", "valuing care"),
)


def examples(rows):
    texts = {"text_id": [f"{i:016d}" for i in range(len(rows))], "text": [f"text {i}" for i in range(len(rows))]}
    texts["group_id"] = texts["text_id"]
    pairs = [(texts["text_id"][i], *label.split(":")) for i, labels in enumerate(rows) for label in labels]
    ids, theories, nodes = zip(*pairs, strict=True)
    labels = {"text_id": ids, "theory": theories, "node": nodes, "direction": pa.array([1] * len(ids), pa.int8())}
    return examples_from_tables(pa.table(texts), pa.table(labels))


def test_instances_belong_to_the_paths_above_and_below_their_node():
    related, names = related_instances(INSTANCES), prefixes().names
    of = {name: set(np.flatnonzero(row)) for name, row in zip(names, related, strict=True)}
    assert of["duty:fidelity"] == {0, 1}
    assert of["duty:gratitude"] == {2}
    above = [name for name in names if name.startswith("svt:") and name.endswith("/benevolence")]
    assert above
    assert all(of[name] == {3} for name in above)
    assert not of["svt:self-protection"]


def test_every_operational_value_has_instances_of_its_line():
    related = related_instances(inventory())
    assert related.any(1).all()


def test_a_text_gets_the_nearest_instance_of_its_nodes():
    rng = np.random.default_rng(0)
    z = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    # Texts 0 and 1 are near instance 1, 2 and 3 near 2; but 3 is labelled fidelity, so instance 2 does not apply to it.
    rows = examples([["duty:fidelity"], ["duty:fidelity", "svt:benevolence"], ["duty:gratitude"], ["duty:fidelity"]])
    near = np.stack([z[1], z[1], z[2], z[2]])
    table = nearest_instances(near, z[:4], INSTANCES, rows, -1.0)
    individual_by_text = {(row["text_id"], row["theory"]): row["individual"] for row in table.to_pylist()}
    first, second, third, fourth = rows.text_ids
    assert individual_by_text[first, "duty"] == individual_by_text[second, "duty"] == "duty:fidelity/b"
    assert individual_by_text[third, "duty"] == "duty:gratitude/c"
    assert individual_by_text[fourth, "duty"].startswith("duty:fidelity/")
    assert individual_by_text[second, "svt"] == "svt:benevolence-caring/d"
    assert nearest_instances(near, z[:4], INSTANCES, rows, 0.99).num_rows < table.num_rows
    labelled = with_individuals(rows, table)
    for text, theory, individual in zip(labelled.text_N, labelled.theory_N, labelled.individual_N, strict=True):
        assert labelled.individuals[individual] == individual_by_text[labelled.text_ids[text], THEORIES[theory]]
    assert with_individuals(rows, table.slice(0, 1)).individual_N.tolist().count(-1) == len(rows.text_N) - 1
