"""Individual anchors: the everyday instance of a text's own node that is nearest to the text.

Shapes: T distinct texts, N examples, P paths of all theories, I instances of the inventory, D dimensions.
"""

import numpy as np
import pyarrow as pa

from valueflow.hives.examples import Examples, path_ids, prefixes
from valueflow.records import SCHEMAS
from valueflow.theories import Instance
from valueflow.theories.taxonomy import THEORIES

BLOCK_ROWS = 10_000  # rows of the similarity matrix computed at a time


def related_instances(instances: tuple[Instance, ...]) -> np.ndarray:
    """Return a bool matrix (P, I): whether the instance's node lies on the path or below its end."""
    paths = prefixes()
    related_PI = np.zeros((len(paths.names), len(instances)), bool)
    for i, instance in enumerate(instances):
        for end in paths.ends[instance.value]:
            above = paths.ancestors_PL[end]
            related_PI[above[above >= 0], i] = True  # paths that end at or above the instance's node
            related_PI[(paths.ancestors_PL == end).any(1), i] = True  # paths that continue below it
    return related_PI


def nearest_instances(
    z_TD: np.ndarray, z_ID: np.ndarray, instances: tuple[Instance, ...], examples: Examples, min_similarity: float
) -> pa.Table:
    """Return the rows of table `individuals`: for each text and theory, the nearest instance of one of its nodes.

    Vectors are centered before cosines are taken, texts and phrases each by their own mean, since the two kinds of text differ;
    chance is then 0. Texts whose best cosine is below `min_similarity` get no row.

    Args:
        z_TD: vectors of `examples.texts`.
        z_ID: vectors of the instances' phrases.
        instances: the inventory.
        examples: the labeled texts.
        min_similarity: smallest cosine.
    """
    x_TD, y_ID = _centered(z_TD), _centered(z_ID)
    related_PI, path_N = related_instances(instances), path_ids(examples.prefix_NL)
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for start in range(0, len(path_N), BLOCK_ROWS):
        text, path = examples.text_N[start : start + BLOCK_ROWS], path_N[start : start + BLOCK_ROWS]
        cosine = np.where(related_PI[path], x_TD[text] @ y_ID.T, -np.inf)
        chosen = cosine.argmax(1)
        theory = examples.theory_N[start : start + BLOCK_ROWS]
        for key_text, key_theory, i, near in zip(
            text.tolist(), theory.tolist(), chosen.tolist(), cosine.max(1).tolist(), strict=True
        ):
            if near >= min_similarity:
                best[key_text, key_theory] = max(best.get((key_text, key_theory), (-np.inf, 0)), (near, i))
    rows = [
        {
            "text_id": examples.text_ids[text], "theory": THEORIES[theory], "individual": instances[i].id, "similarity": near,
        }
        for (text, theory), (near, i) in sorted(best.items())
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMAS["individuals"])


def with_individuals(examples: Examples, individuals: pa.Table) -> Examples:
    """Return the examples with the instances of table `individuals` as individual anchors."""
    names = sorted(set(individuals["individual"].to_pylist()))
    number = {name: n for n, name in enumerate(names)}
    columns = (individuals[name].to_pylist() for name in ("text_id", "theory", "individual"))
    individual_by_key = {
        (text_id, THEORIES.index(theory)): number[name] for text_id, theory, name in zip(*columns, strict=True)
    }
    keys = zip(examples.text_N.tolist(), examples.theory_N.tolist(), strict=True)
    individual = [individual_by_key.get((examples.text_ids[text], theory), -1) for text, theory in keys]
    return examples._replace(individual_N=np.array(individual, np.int64), individuals=names)


def _centered(z_XD: np.ndarray) -> np.ndarray:
    x_XD = z_XD - z_XD.mean(0)
    return x_XD / np.maximum(np.linalg.norm(x_XD, axis=1, keepdims=True), 1e-12)
