"""Extraction recovers path and direction of planted clusters, with calibrated confidence."""

import itertools

import numpy as np
import pytest

from valueflow.errors import InputError
from valueflow.hives.examples import Examples, prefixes
from valueflow.hives.extract import Extractor

PLANTED = [
    "svt:growth/self-transcendence/benevolence",
    "svt:growth/self-transcendence/universalism",
    "svt:self-protection/self-enhancement/power",
    "mft:care-harm",
    "mft:fairness-cheating",
]


def place(name: str) -> int:
    return prefixes().names.index(name)


def planted(num: int, noise: float, seed: int = 0) -> tuple[np.ndarray, Examples, np.ndarray]:
    """Texts around one center per (path, direction), each with a label in SVT or MFT; and the centers."""
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((len(PLANTED), 2, 16))
    centre[1] += centre[0]  # universalism is nearer to benevolence than power is
    rng = np.random.default_rng(seed)
    which, side = rng.integers(len(PLANTED), size=num), rng.integers(2, size=num)
    z = centre[which, side] + noise * rng.standard_normal((num, 16))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    paths = np.array([place(name) for name in PLANTED])[which]
    names, none, text_N = [str(i) for i in range(num)], np.full(num, -1), np.arange(num)
    tree = prefixes()
    direction = (2 * side - 1).astype(np.int8)
    examples = Examples(names, names, text_N, tree.theory_P[paths], tree.ancestors_PL[paths], direction, none, none, text_N)
    return z.astype(np.float32), examples, centre / np.linalg.norm(centre, axis=-1, keepdims=True)


def test_extraction_recovers_path_direction_and_distance_of_clusters():
    z, examples, centre = planted(400, 0.3)
    extractor = Extractor(z, examples, k=10)
    for i, name in enumerate(PLANTED):
        theory, _, path = name.partition(":")
        for side, direction in enumerate((-1, 1)):
            best = extractor(centre[i, side][None].astype(np.float32), top=2)[0][theory][0]
            assert (best.theory, best.node, best.path) == (theory, path.rpartition("/")[2], tuple(path.split("/")))
            assert best.direction == direction
            assert best.confidence > 0.9
            of = (examples.prefix_NL.max(1) == place(name)) | (examples.prefix_NL == place(name)).any(1)
            assert best.distance == pytest.approx(1 - (z[of] @ centre[i, side]).max(), abs=1e-5)


def test_every_theory_answers_with_at_most_top_nodes_best_first():
    z, examples, _ = planted(300, 1.0)
    results = Extractor(z, examples)(z[:7], top=2)
    assert len(results) == 7
    for by_theory in results:
        assert list(by_theory) == ["svt", "mft"]
        for nodes in by_theory.values():
            assert 1 <= len(nodes) <= 2
            assert all(a.confidence >= b.confidence for a, b in itertools.pairwise(nodes))
            assert len({n.node for n in nodes}) == len(nodes)


@pytest.mark.parametrize("noise", [0.7, 1.3, 2.5])
def test_confidence_is_the_share_that_is_right_on_new_texts(noise):
    z, examples, _ = planted(1500, noise)
    new_z, new, _ = planted(1500, noise, seed=1)
    confidence, right = [], []
    for by_theory, theory, path in zip(Extractor(z, examples)(new_z), new.theory_N, new.prefix_NL, strict=True):
        best = by_theory["svt" if theory == 0 else "mft"][0]
        confidence.append(best.confidence)
        right.append(prefixes().names[path[path >= 0][-1]] == f"{best.theory}:{'/'.join(best.path)}")
    assert np.mean(confidence) == pytest.approx(np.mean(right), abs=0.06)
    order = np.argsort(confidence)
    lower, upper = np.array(right)[order[:500]].mean(), np.array(right)[order[-500:]].mean()
    assert upper >= lower


def test_neighbours_that_agree_on_the_coarse_level_outvote_a_nearer_one():
    """Two benevolence and two universalism texts, both self-transcendence, against three texts of power."""
    names = [PLANTED[0]] * 2 + [PLANTED[1]] * 2 + [PLANTED[2]] * 3
    paths = np.array([place(name) for name in names])
    z = np.tile(np.eye(4, dtype=np.float32)[0], (7, 1))
    ids, none, text_N = [str(i) for i in range(7)], np.full(7, -1), np.arange(7)
    tree = prefixes()
    examples = Examples(
        ids,
        ids,
        text_N,
        tree.theory_P[paths],
        tree.ancestors_PL[paths],
        np.ones(7, np.int8),
        none,
        none,
        text_N,
    )
    nodes = [match.node for match in Extractor(z, examples, k=7)(z[:1])[0]["svt"]]
    assert nodes[0] in ("benevolence", "universalism")
    assert set(nodes) == {"benevolence", "universalism", "power"}


def test_a_node_with_two_parents_is_one_node():
    both = [p for p, name in enumerate(prefixes().names) if name.startswith("svt:") and name.endswith("/hedonism")]
    assert len(both) == 2
    rng = np.random.default_rng(0)
    rows = [(t, p) for t in range(20) for p in (both if t < 10 else [place(PLANTED[2])])]
    texts, paths = np.array(rows).T
    z = np.eye(8)[np.where(np.arange(20) < 10, 0, 1)] + 0.2 * rng.standard_normal((20, 8))
    z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    ids, none, tree = [str(i) for i in range(20)], np.full(30, -1), prefixes()
    examples = Examples(
        ids, ids, texts, tree.theory_P[paths], tree.ancestors_PL[paths], np.ones(30, np.int8), none, none, texts
    )
    matches = Extractor(z, examples, k=20)(np.eye(8, dtype=np.float32)[:1])[0]["svt"]
    assert [f.node for f in matches] == ["hedonism", "power"]
    assert matches[0].path[-1] == "hedonism"


def test_confidence_excludes_the_group_of_the_text():
    """Labels depend on the group only, and groups are copies: a new text is unpredictable, and the confidence is at chance."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 5)
    z = rng.standard_normal((60, 16))[group] + 0.01 * rng.standard_normal((300, 16))
    z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    paths = np.array([place("duty:justice"), place("duty:gratitude")])[rng.integers(2, size=60)[group]]
    ids, none, text_N, tree = [str(i) for i in range(300)], np.full(300, -1), np.arange(300), prefixes()
    examples = Examples(
        ids,
        ids,
        text_N,
        tree.theory_P[paths],
        tree.ancestors_PL[paths],
        np.ones(300, np.int8),
        none,
        none,
        group,
    )
    results = Extractor(z, examples, k=5)(z)
    assert np.mean([by["duty"][0].confidence for by in results]) == pytest.approx(0.5, abs=0.15)


def test_invalid_requests_are_refused():
    z, examples, _ = planted(50, 0.3)
    with pytest.raises(InputError, match="49 vectors for 50 texts"):
        Extractor(z[:-1], examples)
    with pytest.raises(InputError, match="'svt' are one group"):
        Extractor(z, examples._replace(group_N=np.zeros(50, int)))
