"""Individual anchors: each labelled text at the everyday instance of its own node that is nearest to it.

Shapes: T distinct texts, N examples, P paths of all theories, I instances of the inventory, D dimensions.
"""

import numpy as np
import pyarrow as pa

from valueflow.hives.examples import Examples, path_ids, prefixes
from valueflow.records import SCHEMAS
from valueflow.theories import Instance
from valueflow.theories.taxonomy import THEORIES

BLOCK_ROWS = 10_000  # rows compared at a time


def related_instances(instances: tuple[Instance, ...]) -> np.ndarray:
    """Return whether a path and an instance are of one line (P, I): the instance's node is on it, or below its end."""
    known = prefixes()
    found_PI = np.zeros((len(known.names), len(instances)), bool)
    for i, instance in enumerate(instances):
        for end in known.ends[instance.value]:
            above = known.ancestors_PL[end]
            found_PI[above[above >= 0], i] = True  # paths that end on the way to the instance
            found_PI[(known.ancestors_PL == end).any(1), i] = True  # paths that go on below it
    return found_PI


def nearest_instances(
    z_TD: np.ndarray, z_ID: np.ndarray, instances: tuple[Instance, ...], examples: Examples, min_similarity: float
) -> pa.Table:
    """Return the rows of table `individuals`: of each text and theory the nearest instance of one of its nodes.

    Cosines are between vectors from which their own mean was taken, so that chance is 0: phrases and texts are of two kinds.
    Texts whose best is below `min_similarity` have none.
    """
    x_TD, y_ID = _centred(z_TD), _centred(z_ID)
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
    """Return the examples with the instances as their individual anchors."""
    names = sorted(set(individuals["individual"].to_pylist()))
    number = {name: n for n, name in enumerate(names)}
    columns = (individuals[name].to_pylist() for name in ("text_id", "theory", "individual"))
    at = {(text_id, THEORIES.index(theory)): number[name] for text_id, theory, name in zip(*columns, strict=True)}
    keys = zip(examples.text_N.tolist(), examples.theory_N.tolist(), strict=True)
    found = [at.get((examples.text_ids[text], theory), -1) for text, theory in keys]
    return examples._replace(individual_N=np.array(found, np.int64), individuals=names)


def _centred(z_XD: np.ndarray) -> np.ndarray:
    x_XD = z_XD - z_XD.mean(0)
    return x_XD / np.maximum(np.linalg.norm(x_XD, axis=1, keepdims=True), 1e-12)
