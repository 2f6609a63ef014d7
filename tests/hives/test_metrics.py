"""Metrics equal slow loops, random vectors give their floors, built vectors give 1, intervals cover."""

import itertools
import tracemalloc

import numpy as np
import pytest

from valueflow.errors import InputError
from valueflow.hives import metrics
from valueflow.hives.examples import Examples, path_ids, prefixes
from valueflow.hives.metrics import RELATIONS, EmbeddingMetric, embedding_metrics, value_vectors
from valueflow.hives.theory_texts import MAX_QUERIES, path_values, texts_by_theory
from valueflow.theories.taxonomy import THEORIES

SVT = [path for path, theory in enumerate(prefixes().theory_P) if theory == 0]
CARE = [prefixes().names.index(f"mft:care-harm{end}") for end in ("", "/kindness", "/compassion")]


def examples_at(paths: np.ndarray, directions: np.ndarray, texts: np.ndarray, groups: np.ndarray | None = None) -> Examples:
    """Rows with these paths, directions and texts; each text is a separate group unless `groups` is set."""
    none = np.full(len(paths), -1)
    names = [str(i) for i in range(texts.max() + 1)]
    group_N = texts if groups is None else groups[texts]
    tree = prefixes()
    return Examples(
        names,
        names,
        texts,
        tree.theory_P[paths],
        tree.ancestors_PL[paths],
        directions.astype(np.int8),
        none,
        none,
        group_N,
    )


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(num: int, seed: int = 0, size: int = 48) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((num, size)))


def multi_label(num: int = 60, seed: int = 3) -> tuple[np.ndarray, Examples]:
    """Texts of two theories, some with several labels, with vectors that depend partly on the labels."""
    rng = np.random.default_rng(seed)
    pool = [*SVT[::3], *CARE, prefixes().names.index("duty:justice"), prefixes().names.index("duty:gratitude")]
    rows = sorted({(t, int(rng.choice(pool))) for t in [*range(num), *rng.integers(num, size=num // 2).tolist()]})
    texts, paths = np.array(rows).T
    directions = rng.choice([-1, 1], len(rows))
    z = rng.standard_normal((num, 16))
    np.add.at(z, texts, rng.standard_normal((len(prefixes().names), 16))[paths] * directions[:, None])
    return unit(z), examples_at(paths, directions, texts)


def labels_of(examples: Examples, theory: int) -> dict[int, list[tuple[list[int], int]]]:
    """Text -> its (path as prefix ids, direction) in the theory."""
    labels: dict[int, list[tuple[list[int], int]]] = {}
    columns = (examples.text_N, examples.theory_N, examples.prefix_NL, examples.direction_N)
    for text, of, prefix, direction in zip(*columns, strict=True):
        if of == theory:
            labels.setdefault(int(text), []).append(([int(p) for p in prefix if p >= 0], int(direction)))
    return labels


def relation_of(a: list[tuple[list[int], int]], b: list[tuple[list[int], int]]) -> int:
    def one(p: list[int], d: int, q: list[int], e: int) -> int:
        if p == q:
            return 0 if d == e else 1
        shared = sum(x == y for x, y in zip(p, q, strict=False))
        return 2 if shared >= 2 else 3 if shared == 1 else 4

    return min(one(p, d, q, e) for p, d in a for q, e in b)


def closeness_of(a: list[tuple[list[int], int]], b: list[tuple[list[int], int]]) -> float:
    pairs = [(p, d, q, e) for p, d in a for q, e in b]
    return max(sum(x == y for x, y in zip(p, q, strict=False)) + 0.5 * (d == e) for p, d, q, e in pairs)


@pytest.mark.parametrize("theory", [0, 1, 2])
def test_ranking_equals_a_loop_over_every_draw(theory):
    z, examples = multi_label()
    labels = labels_of(examples, theory)
    pairwise, strict = [], []
    for anchor, anchor_labels in labels.items():
        by = [[t for t in labels if t != anchor and relation_of(anchor_labels, labels[t]) == r] for r in range(len(RELATIONS))]
        sims = [(z[texts] @ z[anchor]) for texts in by if texts]
        if len(sims) < 2:
            continue
        pairwise.append(np.mean([(a[:, None] > b).mean() for a, b in itertools.combinations(sims, 2)]))
        rng = np.random.default_rng(anchor)
        draws = np.stack([rng.choice(s, 4000) for s in sims])
        strict.append((np.diff(draws, axis=0) < 0).all(0).mean())
    results = embedding_metrics(z, examples)
    assert results[f"pairwise/{THEORIES[theory]}"].count == len(pairwise) > 5
    assert results[f"pairwise/{THEORIES[theory]}"].value == pytest.approx(np.mean(pairwise), abs=0.02)
    assert results[f"strict/{THEORIES[theory]}"].value == pytest.approx(np.mean(strict), abs=0.02)


def test_draws_have_their_relation_and_are_never_the_anchor():
    z, examples = multi_label()
    theory = texts_by_theory(z, examples, None, "text", 0)["svt"]
    labels = labels_of(examples, 0)
    draw = metrics._draw(theory, np.random.default_rng(0))
    for anchor, picks in zip(draw.query_Q, draw.picks_QSR, strict=True):
        for _, r in np.argwhere(picks >= 0):
            for other in np.unique(picks[:, r]):
                assert other != anchor
                assert relation_of(labels[theory.texts[anchor]], labels[theory.texts[other]]) == r


def test_correlation_equals_a_loop():
    z, examples = multi_label()
    for theory in (0, 1):
        labels = labels_of(examples, theory)
        pairs = list(itertools.combinations(labels, 2))
        expected = np.corrcoef([z[a] @ z[b] for a, b in pairs], [closeness_of(labels[a], labels[b]) for a, b in pairs])[0, 1]
        assert embedding_metrics(z, examples)[f"correlation/{THEORIES[theory]}"].value == pytest.approx(expected, abs=1e-5)


def of_value(examples: Examples, value: str, direction: int | None = None) -> list[int]:
    """Texts with a label at or below the value."""
    names = [prefixes().names[p] for p in path_ids(examples.prefix_NL)]
    theory, _, node = value.partition(":")
    rows = [i for i, n in enumerate(names) if n.startswith(f"{theory}:") and node in n.partition(":")[2].split("/")]
    return sorted({int(examples.text_N[i]) for i in rows if direction in (None, examples.direction_N[i])})


def one_label(num: int, seed: int, directions: bool = True) -> tuple[np.ndarray, Examples]:
    rng = np.random.default_rng(seed)
    paths = np.array(SVT)[rng.integers(len(SVT), size=num)]
    sign = rng.choice([-1, 1], num) if directions else np.ones(num, int)
    center = rng.standard_normal((len(prefixes().names), 24))
    z = center[prefixes().ancestors_PL[paths][:, 0]] + center[paths] * sign[:, None] + rng.standard_normal((num, 24))
    return unit(z), examples_at(paths, sign, np.arange(num))


@pytest.mark.parametrize("directions", [True, False])
def test_value_vectors_and_orthogonality_equal_a_loop(directions):
    z, examples = one_label(500, 1, directions)
    names, vectors = value_vectors(z, examples)
    assert 9 <= len(names) <= 12
    assert "svt:hedonism" in names  # once, though two paths lead to it
    expected = []
    for name in names:
        plus = of_value(examples, name, 1)
        minus = of_value(examples, name, -1)
        if min(len(plus), len(minus)) < 5:
            plus, minus = of_value(examples, name), list(range(len(z)))
        expected.append(np.mean([z[i] for i in plus], axis=0) - np.mean([z[i] for i in minus], axis=0))
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    cosines = [abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(expected, 2)]
    orthogonality = embedding_metrics(z, examples)["orthogonality/svt"]
    assert orthogonality.value == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    assert orthogonality.count == len(names)
    coarse, _ = value_vectors(z, examples, level=1)
    assert coarse == ["svt:growth", "svt:self-protection"]


def test_the_influence_of_a_text_is_the_derivative_by_its_weight():
    z, examples = one_label(300, 2)
    theory = texts_by_theory(z, examples, None, "text", 0)["svt"]
    influence = metrics._orthogonality(theory)["orthogonality"].influence_G
    values, ends = metrics._poles(theory)

    def weighted(weight: np.ndarray) -> float:
        vectors = [np.average(z[p], 0, weight[p]) - np.average(z[m], 0, weight[m]) for p, m in ends]
        v = np.stack(vectors).astype(float)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        cosine = np.abs(v @ v.T)
        return 1 - (cosine.sum() - np.trace(cosine)) / (len(values) * (len(values) - 1))

    for text in (0, 17, 255):
        step = 1e-3 * (np.arange(300) == text)
        assert (weighted(1 + step) - weighted(1 - step)) / 2e-3 == pytest.approx(influence[text], rel=0.02, abs=1e-6)


def test_neighbour_accuracies_equal_a_loop():
    z, examples = multi_label(120)
    results = embedding_metrics(z, examples, k=5)
    values, _ = path_values("svt", None)
    having = {v: set(of_value(examples, v)) for v in values}
    texts = sorted(set().union(*having.values()))
    right = []
    for text in texts:
        near = sorted((t for t in texts if t != text), key=lambda t: -float(z[t] @ z[text]))[:5]
        votes = {v: sum(1 + 1e-3 * float(z[t] @ z[text]) for t in near if t in of) for v, of in having.items()}
        right.append(text in having[max(votes, key=votes.__getitem__)])
    assert results["label_accuracy/svt"].count == len(texts)
    assert results["label_accuracy/svt"].value == pytest.approx(np.mean(right), abs=1e-6)
    right = []
    for value in values:
        sign = {t: (t in of_value(examples, value, 1)) - (t in of_value(examples, value, -1)) for t in having[value]}
        sign = {t: s for t, s in sign.items() if s}
        if len(sign) < 5 or len(set(sign.values())) < 2:
            continue
        for text, direction in sign.items():
            near = sorted((t for t in sign if t != text), key=lambda t: -float(z[t] @ z[text]))[:5]
            right.append(np.sign(sum(sign[t] * (1 + 1e-3 * float(z[t] @ z[text])) for t in near)) == direction)
    assert results["direction_accuracy/svt"].count == len(right) > 20
    assert results["direction_accuracy/svt"].value == pytest.approx(np.mean(right), abs=1e-6)


def test_copies_leak_labels_unless_the_group_is_left_out():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(80), 4)
    z = unit(rng.standard_normal((80, 16))[group] + 0.01 * rng.standard_normal((320, 16)))
    paths, sign = np.array(SVT)[rng.integers(len(SVT), size=80)[group]], rng.choice([-1, 1], 80)[group]
    examples = examples_at(paths, sign, np.arange(320), group)
    assert embedding_metrics(z, examples, k=3)["label_accuracy"].value == 1
    apart = embedding_metrics(z, examples, k=3, leave="group")
    assert apart["label_accuracy"].value < 0.3
    assert apart["direction_accuracy"].value == pytest.approx(0.5, abs=0.15)


def test_random_vectors_score_at_their_floors():
    _, examples = one_label(800, 5)
    results = embedding_metrics(random_vectors(800), examples)
    assert results["pairwise"].value == pytest.approx(0.5, abs=0.02)
    assert results["correlation"].value == pytest.approx(0, abs=0.02)
    assert results["direction_accuracy"].value == pytest.approx(0.5, abs=0.06)
    for metric in results.values():
        assert metric.floor == pytest.approx(metric.value, abs=0.06)
    for name in ("pairwise", "strict", "correlation"):
        assert results[name].low <= results[name].floor <= results[name].high


def test_vectors_built_from_the_labels_reach_one():
    rng = np.random.default_rng(0)
    paths, sign = np.array(SVT)[rng.integers(len(SVT), size=1000)], rng.choice([-1, 1], 1000)
    examples = examples_at(paths, sign, np.arange(1000))
    size, levels = len(prefixes().names), prefixes().ancestors_PL.shape[1]
    near, exact = np.zeros((1000, 2 * size)), np.zeros((1000, size + 2 + 1000))
    for i, (path, s) in enumerate(zip(paths, sign, strict=True)):
        above = [p for p in prefixes().ancestors_PL[path] if p >= 0]
        near[i, above] = 1
        near[i, path] = 3
        near[i, [size + p for p in above]] = 0.8 * s
        exact[i, above] = 1
        exact[i, size + (s > 0)] = np.sqrt(0.5)
        exact[i, size + 2 + i] = np.sqrt(levels - len(above))
    results = embedding_metrics(unit(near), examples)
    assert results["pairwise"].value > 0.9
    assert results["label_accuracy"].value > 0.97
    assert results["direction_accuracy"].value > 0.97
    assert embedding_metrics(unit(exact), examples)["correlation"].value == pytest.approx(1, abs=1e-6)


def test_two_flat_values_at_right_angles_are_perfect():
    flat = prefixes().names.index("duty:justice"), prefixes().names.index("duty:gratitude")
    two = np.repeat(flat, 30)
    flat_z = unit(np.eye(2)[np.repeat([0, 1], 30)])
    results = embedding_metrics(flat_z, examples_at(two, np.ones(60), np.arange(60)))
    assert results["pairwise"][:3] == (1, 1, 1)
    assert results["correlation"].value == pytest.approx(1)
    assert results["label_accuracy"].value == 1
    assert "direction_accuracy" not in results


def test_ties_are_half_right():
    _, examples = one_label(100, 1)
    results = embedding_metrics(np.tile(unit(np.ones((1, 4))), (100, 1)), examples)
    assert results["pairwise"].value == 0.5
    assert results["strict"].value == 0
    assert results["correlation"].value == pytest.approx(0, abs=1e-6)
    assert "orthogonality" not in results


MANY = pytest.mark.statistics


@pytest.mark.parametrize(
    ("per_group", "samples"), [(3, 15), pytest.param(1, 100, marks=MANY), pytest.param(3, 100, marks=MANY)]
)
def test_intervals_cover(per_group, samples):
    """Coverage of the mean over samples of this size; nominal 95 %."""
    nodes = np.array([p for p in SVT if prefixes().names[p].count("/") >= 2][:8])
    fixed = np.random.default_rng(9)
    center, pole = fixed.standard_normal((2, 8, 12)) * 0.6
    seen: dict[str, list[EmbeddingMetric]] = {}
    for sample in range(samples):
        rng = np.random.default_rng(sample)
        group = np.repeat(np.arange(240 // per_group), per_group)
        node = np.where(rng.random(240) < 0.7, rng.integers(8, size=240)[group], rng.integers(8, size=240))
        sign = rng.choice([-1, 1], 240)
        shared = rng.standard_normal((240, 12))[group] * 0.5 * (per_group > 1)
        z = unit(center[node] + pole[node] * sign[:, None] + shared + rng.standard_normal((240, 12)))
        results = embedding_metrics(z, examples_at(nodes[node], sign, np.arange(240), group), seed=sample)
        for name in ("pairwise", "strict", "correlation", "orthogonality", "label_accuracy", "direction_accuracy"):
            seen.setdefault(name, []).append(results[name])
    for name, of in seen.items():
        middle = np.mean([metric.value for metric in of])
        covered = np.mean([metric.low <= middle <= metric.high for metric in of])
        assert covered >= 0.87, (name, covered)
        spread = np.std([metric.value for metric in of])
        width = np.mean([metric.high - metric.low for metric in of]) / 3.92
        assert width < 1.6 * spread, (name, width, spread)


def test_the_total_is_the_mean_over_theories_and_depends_on_the_seed():
    z, examples = multi_label(200)
    results = embedding_metrics(z, examples)
    parts = [metric.value for name, metric in results.items() if name.startswith("pairwise/")]
    assert len(parts) == 3
    assert results["pairwise"].value == pytest.approx(np.mean(parts))
    assert results == embedding_metrics(z, examples)
    assert results["pairwise"] != embedding_metrics(z, examples, seed=1)["pairwise"]


def test_wrong_vectors_are_refused():
    z, examples = multi_label()
    with pytest.raises(InputError, match="59 vectors for 60 texts"):
        embedding_metrics(z[:-1], examples)
    with pytest.raises(InputError, match="length 1"):
        embedding_metrics(2 * z, examples)


def test_many_texts_are_sampled_and_no_square_matrix_is_held():
    z, examples = one_label(6000, 4)
    tracemalloc.start()
    results = embedding_metrics(z, examples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert results["pairwise"].count == results["strict"].count == MAX_QUERIES == 4000
    assert results["correlation"].count == metrics.NUM_PAIRS == 200_000
    assert results["label_accuracy"].count <= MAX_QUERIES
    assert peak < 64e6  # all similarities would be 144 MB
