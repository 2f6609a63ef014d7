"""Losses against loops over the definition; gradients, row order, processes; absence of the bugs of the official code."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from valueflow.hives.batches import CONCEPT, HIERARCHY, INDIVIDUAL, Batch, BatchConfig, Sampler
from valueflow.hives.collectives import gather_embeddings, gather_labels
from valueflow.hives.examples import Examples, prefixes
from valueflow.hives.losses import (
    BatchLabels,
    LossConfig,
    NodeHead,
    all_labels,
    anchor_contrastive_loss,
    closeness_loss,
    hierarchical_contrastive_loss,
    hierarchy_constrained,
    label_tensors,
    level_contrastive_losses,
    theory_depths,
    total_loss,
)

pytestmark = pytest.mark.component

SEEDS = range(25)
CONFIG = LossConfig()


def random_labels(
    num: int, seed: int, objectives: tuple[int, ...] = (HIERARCHY,), num_theories: int = 4, others: int = 0
) -> BatchLabels:
    """Random rows from few paths, so that every level has positives; some texts have several rows."""
    rng = np.random.default_rng(seed)
    tree = prefixes()
    allowed = np.flatnonzero(tree.theory_P < num_theories)
    path = rng.choice(rng.choice(allowed, 6), num)
    objective = rng.choice(objectives, num)
    return BatchLabels(
        *(
            torch.as_tensor(column, dtype=torch.int64)
            for column in (
                objective,
                rng.integers(num, size=num),
                tree.theory_P[path],
                tree.ancestors_PL[path],
                rng.integers(-1, 2, size=num),
                np.where(objective == HIERARCHY, -1, rng.integers(3, size=num)),
                np.where(rng.random((num, others, 1)) < 0.5, tree.ancestors_PL[rng.choice(path, (num, others))], -1),
                rng.integers(-1, 2, size=(num, others)),
            )
        )
    )


def random_z(num: int, seed: int, width: int = 8) -> torch.Tensor:
    return torch.randn(num, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(labels: BatchLabels) -> dict[str, torch.Tensor]:
    return {name: getattr(labels, name) for name in ("theory_B", "prefix_BL", "direction_B", "text_B")}


def like(i: int, j: int, level: int, labels: BatchLabels) -> bool:
    path = labels.prefix_BL
    return (
        labels.theory_B[i] == labels.theory_B[j]
        and path[i, level] >= 0
        and bool((path[i, : level + 1] == path[j, : level + 1]).all())
        and labels.direction_B[i] == labels.direction_B[j]
        and labels.text_B[i] != labels.text_B[j]
    )


def slow_row(z, i: int, level: int, labels: BatchLabels, tau: float, margin: float) -> float | None:
    """The loss of one row at one level, as the docstring defines it."""
    rows = range(len(z))
    unit = [(v / np.linalg.norm(v)) for v in z.numpy()]
    positives = [j for j in rows if like(i, j, level, labels)]
    if not positives:
        return None
    texts = {int(labels.text_B[j]) for j in positives}
    bottom = 0.0
    for j in rows:
        path = [p for p in labels.prefix_BL[j].tolist() if p >= 0]
        on_the_way = len(path) <= level and labels.prefix_BL[i, : len(path)].tolist() == path
        if (
            labels.theory_B[j] != labels.theory_B[i]
            or labels.text_B[j] == labels.text_B[i]
            or (j not in positives and int(labels.text_B[j]) in texts)
            or (on_the_way and labels.direction_B[j] == labels.direction_B[i])
        ):
            continue
        same_prefix = labels.prefix_BL[i, level] == labels.prefix_BL[j, level] >= 0
        opposite = labels.direction_B[i] * labels.direction_B[j] == -1
        bottom += math.exp((unit[i] @ unit[j] + (margin if same_prefix and opposite else 0.0)) / tau)
    return -sum(math.log(math.exp(unit[i] @ unit[j] / tau) / bottom) for j in positives) / len(positives)


def slow_hierarchical(z, labels: BatchLabels, tau: float, margin: float) -> float:
    """Theory by theory, fine to coarse."""
    total_loss, total_rows = 0.0, 0
    for theory in labels.theory_B.unique():
        rows = [i for i in range(len(z)) if labels.theory_B[i] == theory]
        by_level = []  # finest first
        counted = set()
        for level in reversed(range(labels.prefix_BL.shape[1])):
            losses = {i: slow_row(z, i, level, labels, tau, margin) for i in rows}
            row_losses = {i: loss for i, loss in losses.items() if loss is not None}
            counted |= set(row_losses)
            if row_losses:
                by_level.append(sum(row_losses.values()) / len(row_losses))
        constrained_losses = [math.log(sum(math.exp(x) for x in by_level[: n + 1])) for n in range(len(by_level))]
        weights = [2 ** (1 / n) for n in range(1, len(by_level) + 1)]
        if by_level:
            total_loss += len(counted) * sum(w * c for w, c in zip(weights, constrained_losses, strict=True)) / sum(weights)
            total_rows += len(counted)
    return total_loss / max(total_rows, 1)


def slow_cross(z, label, text, tau: float) -> float:
    unit = [(v / np.linalg.norm(v)) for v in z.numpy()]
    losses = []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if label[j] == label[i] and text[j] != text[i]]
        texts = {int(text[j]) for j in positives}
        negatives = [j for j in range(len(z)) if label[j] != label[i] and text[j] != text[i] and int(text[j]) not in texts]
        bottom = sum(math.exp(unit[i] @ unit[j] / tau) for j in positives + negatives)
        if positives:
            losses.append(-sum(math.log(math.exp(unit[i] @ unit[j] / tau) / bottom) for j in positives) / len(positives))
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_hierarchical_loss_is_that_of_the_loops(seed):
    labels, z = random_labels(24, seed, num_theories=1 + seed % 4), random_z(24, seed)
    loss_BL, has_BL = level_contrastive_losses(z, **of(labels), tau=0.3, margin=0.2)
    slow = [[slow_row(z, i, level, labels, 0.3, 0.2) for level in range(4)] for i in range(24)]
    assert has_BL.tolist() == [[x is not None for x in row] for row in slow]
    torch.testing.assert_close(loss_BL, torch.tensor([[x or 0.0 for x in row] for row in slow], dtype=torch.float64))
    assert hierarchical_contrastive_loss(z, **of(labels), tau=0.3, margin=0.2).item() == pytest.approx(
        slow_hierarchical(z, labels, 0.3, 0.2)
    )


def places(labels: BatchLabels, i: int) -> list[tuple[list[int], int]]:
    """Paths and directions of a row, the drawn one first."""
    pairs = [(labels.prefix_BL[i], labels.direction_B[i]), *zip(labels.other_BOL[i], labels.other_sign_BO[i], strict=True)]
    return [([p for p in path.tolist() if p >= 0], int(sign)) for path, sign in pairs if path[0] >= 0]


def slow_closeness(z, labels: BatchLabels) -> float:
    unit, errors = [(v / np.linalg.norm(v)) for v in z.numpy()], []
    for i in range(len(z)):
        for j in range(len(z)):
            if labels.theory_B[i] != labels.theory_B[j] or labels.text_B[i] == labels.text_B[j]:
                continue
            shared = [
                len([1 for a, b in zip(path, other, strict=False) if a == b]) + (0.5 if sign == other_sign else 0.0)
                for path, sign in places(labels, i)
                for other, other_sign in places(labels, j)
            ]
            errors.append((unit[i] @ unit[j] - max(shared) / (theory_depths()[labels.theory_B[i]] + 0.5)) ** 2)
    return float(np.mean(errors)) if errors else 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_closeness_is_that_of_the_loops(seed):
    labels, z = random_labels(20, seed, others=3), random_z(20, seed)
    assert closeness_loss(z, labels, all_labels(labels)).item() == pytest.approx(slow_closeness(z, labels))
    assert theory_depths() == [4, 2, 1, 3]


def test_vectors_whose_cosines_are_the_closeness_have_no_loss():
    """Three texts at the same leaf, two with the same direction: cosines 1 and 4 / 4.5."""
    path = prefixes().ancestors_PL[np.flatnonzero((prefixes().ancestors_PL[:, 3] >= 0) & (prefixes().theory_P == 0))[0]]
    labels = random_labels(3, 0)._replace(
        text_B=torch.arange(3), theory_B=torch.zeros(3, dtype=torch.int64), prefix_BL=torch.as_tensor(np.tile(path, (3, 1))),
        direction_B=torch.tensor([1, 1, -1]),
    )  # fmt: skip
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [8 / 9, math.sqrt(1 - (8 / 9) ** 2)]], dtype=torch.float64)
    assert closeness_loss(z, labels, all_labels(labels)).item() == pytest.approx(0, abs=1e-12)
    alike = labels._replace(direction_B=torch.ones(3, dtype=torch.int64))
    assert closeness_loss(z, alike, all_labels(alike)).item() > 1e-3


def examples_of(labels: BatchLabels) -> Examples:
    size = len(labels.text_B)
    return Examples(
        texts=[str(i) for i in range(size)], text_ids=[str(i) for i in range(size)], theory_N=labels.theory_B.numpy(),
        prefix_NL=labels.prefix_BL.numpy(), direction_N=labels.direction_B.numpy().astype(np.int8),
        **{name: np.arange(size) for name in ("text_N", "group_N")},
        **{name: np.full(size, -1) for name in ("individual_N", "concept_N")},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_of_nodes_is_that_of_the_loops(seed):
    labels = random_labels(20, seed, (HIERARCHY, CONCEPT), others=2)
    nodes, z = NodeHead(8, examples_of(random_labels(30, seed))), random_z(20, seed).float()
    logit = nodes(z)
    node_keys = [(int(key) // 3, int(key) % 3 - 1) for key in nodes.key_K]
    losses = []
    for i in range(20):
        columns = [k for k, (prefix, _) in enumerate(node_keys) if prefixes().theory_P[prefix] == labels.theory_B[i]]
        if labels.objective_B[i] != HIERARCHY or not columns:
            continue
        has = {(p, sign) for path, sign in places(labels, i) for p in path}
        log_probabilities = [torch.nn.functional.logsigmoid(logit[i, k] * (1 if node_keys[k] in has else -1)) for k in columns]
        losses.append(-sum(log_probabilities) / len(log_probabilities))
    assert nodes.loss(logit, labels).item() == pytest.approx(float(sum(losses) / len(losses)), rel=1e-5)
    assert torch.autograd.grad(nodes.loss(nodes(z), labels), nodes.read.weight)[0].abs().max() > 0
    nothing = labels._replace(objective_B=torch.full((20,), CONCEPT))
    assert nodes.loss(nodes(z), nothing).item() == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_infonce_is_that_of_the_loops(seed):
    labels, z = random_labels(20, seed, (CONCEPT,)), random_z(20, seed)
    expected = slow_cross(z, labels.anchor_id_B, labels.text_B, 0.3)
    assert anchor_contrastive_loss(z, labels.anchor_id_B, labels.text_B, 0.3).item() == pytest.approx(expected)


def test_infonce_of_two_ids_with_two_texts_each():
    """Orthogonal pairs: each row has one positive at cosine 1 and two negatives at cosine 0."""
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    loss = anchor_contrastive_loss(z, torch.tensor([5, 5, 9, 9]), torch.arange(4), tau=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_level_with_positives_moves_the_embeddings_in_every_batch(seed):
    """In the official code levels 2 and 3 have no gradient in most batches."""
    labels, z = random_labels(32, seed), random_z(32, seed).requires_grad_()
    loss_BL, has_BL = level_contrastive_losses(z, **of(labels), tau=0.1, margin=0.2)
    for theory in labels.theory_B.unique():
        rows = labels.theory_B == theory
        for level in range(4):
            if not has_BL[rows, level].any():
                continue
            at_level = torch.where(rows & has_BL[:, level], loss_BL[:, level], 0.0).sum()
            assert torch.autograd.grad(at_level, z, retain_graph=True)[0].abs().sum() > 0
    # The derivative of the loss with respect to each level's loss of each row is positive wherever that loss exists.
    leaf_BL = loss_BL.detach().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("valueflow.hives.losses.level_contrastive_losses", lambda *_: (leaf_BL, has_BL))
        hierarchical_contrastive_loss(z, **of(labels), tau=0.1, margin=0.2).backward()
    assert (leaf_BL.grad[has_BL] > 0).all()


def test_the_finest_level_weighs_most_and_a_level_alone_weighs_all():
    gradients = {}
    for depth in (1, 2, 3, 4):
        prefix = torch.tensor([[*range(depth), *[-1] * (4 - depth)]] * 4)
        ones = torch.ones(4, dtype=torch.int64)
        losses = torch.full((4, 4), 2.0, requires_grad=True)
        has = (prefix >= 0).clone()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("valueflow.hives.losses.level_contrastive_losses", lambda *_, of=(losses, has): of)
            loss = hierarchical_contrastive_loss(torch.zeros(4, 2), ones, prefix, ones, torch.arange(4), 0.1, 0.0)
        gradients[depth] = torch.autograd.grad(loss, losses)[0].sum(0)
        weights = [2 ** (1 / n) for n in range(1, depth + 1)]
        expected = sum(w * (2.0 + math.log(n)) for n, w in enumerate(weights, 1)) / sum(weights)
        assert loss.item() == pytest.approx(expected)
        assert gradients[depth].sum().item() == pytest.approx(1.0)
        assert torch.equal(gradients[depth][:depth].argsort(), torch.arange(depth))
    assert gradients[1].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_coarser_level_costs_at_least_as_much_as_the_finer(seed):
    generator = torch.Generator().manual_seed(seed)
    loss, present = torch.rand(50, 4, generator=generator) * 5, torch.rand(50, 4, generator=generator) < 0.7
    got = hierarchy_constrained(loss, present)
    assert (got[~present] == 0).all()
    assert (got[present] >= loss[present]).all()
    for row, mask in zip(got, present, strict=True):
        fine_to_coarse = row[mask].flip(0)
        assert (fine_to_coarse.diff() >= 0).all()


def opposite_pair(margin: float) -> tuple[float, float]:
    """The loss of a batch, and the force between two rows of one path and opposite directions."""
    prefix = torch.tensor([[0, 1, -1, -1]] * 3 + [[5, 6, -1, -1]])
    direction = torch.tensor([1, 1, -1, 1])
    angle = torch.tensor([0.0, 0.4, 0.9, 2.0], dtype=torch.float64)
    z = torch.stack([angle.cos(), angle.sin()], 1).requires_grad_()
    zeros = torch.zeros(4, dtype=torch.int64)
    loss = hierarchical_contrastive_loss(z, zeros, prefix, direction, torch.arange(4), 0.1, margin)
    (gradient,) = torch.autograd.grad(loss, z)
    along = torch.stack([-angle.sin(), angle.cos()], 1)
    return loss.item(), (gradient[2] * along[2]).sum().item()


def test_a_larger_margin_repels_opposite_directions_more():
    """In the official code the penalty weakens this force."""
    losses, forces = zip(*(opposite_pair(margin) for margin in (0.0, 0.1, 0.2, 0.4, 0.8)), strict=True)
    assert list(losses) == sorted(set(losses))
    # Gradient descent turns the row away from the two rows of the opposite direction.
    assert all(force < 0 for force in forces)
    assert list(forces) == sorted(set(forces), reverse=True)


def test_the_margin_touches_the_same_prefix_and_the_opposite_direction_only():
    for direction, prefix, changes in (((1, -1), 0, True), ((1, 0), 0, False), ((1, -1), 7, False), ((0, 0), 7, False)):
        labels = {
            "theory_B": torch.zeros(3, dtype=torch.int64),
            "prefix_BL": torch.tensor([[0], [0], [prefix]]),
            "direction_B": torch.tensor([direction[0], direction[0], direction[1]]),
            "text_B": torch.arange(3),
        }
        z = random_z(3, 0)
        moved = hierarchical_contrastive_loss(z, **labels, tau=0.1, margin=0.5) > hierarchical_contrastive_loss(
            z, **labels, tau=0.1, margin=0.0
        )
        assert bool(moved) == changes


def test_rows_of_one_text_are_neither_positives_nor_negatives():
    """A text at two paths (hedonism has two parents) is not repelled from itself or from a positive's other path."""
    labels = {
        "theory_B": torch.zeros(4, dtype=torch.int64),
        "prefix_BL": torch.tensor([[0, 1], [0, 1], [5, 6], [5, 7]]),
        "direction_B": torch.ones(4, dtype=torch.int64),
        "text_B": torch.tensor([0, 1, 1, 2]),
    }
    z = random_z(4, 0)
    loss, has = level_contrastive_losses(z, **labels, tau=0.1, margin=0.2)
    cosine = torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(z, dim=1).T / 0.1
    # Row 0: positive row 1, negative row 3; row 2 is the positive's text at another path.
    assert loss[0, 1].item() == pytest.approx(torch.logsumexp(cosine[0, [1, 3]], 0).sub(cosine[0, 1]).item())
    assert has.tolist() == [[True, True], [True, True], [True, False], [True, False]]


def test_a_label_at_an_inner_node_is_no_negative_below_it():
    labels = {
        "theory_B": torch.zeros(4, dtype=torch.int64),
        "prefix_BL": torch.tensor([[0, 1], [0, 1], [0, -1], [0, -1]]),
        "direction_B": torch.tensor([1, 1, 1, -1]),
        "text_B": torch.arange(4),
    }
    z = random_z(4, 0)
    cosine = torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(z, dim=1).T / 0.1
    loss, has = level_contrastive_losses(z, **labels, tau=0.1, margin=0.0)
    # Among the rows with labels above, only the one with another direction is a certain negative.
    assert loss[0, 1].item() == pytest.approx(torch.logsumexp(cosine[0, [1, 3]], 0).sub(cosine[0, 1]).item())
    assert has.tolist() == [[True, True], [True, True], [True, False], [False, False]]


def every(labels: BatchLabels, z: torch.Tensor, config: LossConfig = CONFIG) -> tuple[torch.Tensor, torch.Tensor]:
    z = z.clone().requires_grad_()
    loss, _ = total_loss(z, labels, config)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_does_not_depend_on_the_order_of_the_rows(seed):
    """In the official code stage 2 shuffles the batch that the loss then slices by position."""
    labels, z = random_labels(48, seed, (HIERARCHY, INDIVIDUAL, CONCEPT)), random_z(48, seed)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(seed))
    loss, gradient = every(labels, z)
    moved_loss, moved_gradient = every(BatchLabels(*(part[order] for part in labels)), z[order])
    torch.testing.assert_close(moved_loss, loss)
    torch.testing.assert_close(moved_gradient, gradient[order])


def test_the_total_is_the_weighted_sum_of_the_means_of_each_objective():
    labels, z = random_labels(60, 0, (HIERARCHY, INDIVIDUAL, CONCEPT)), random_z(60, 0)
    weights = {"hierarchy": 0.9, "individual": 0.7, "concept": 1.3, "closeness": 1.1}
    config = LossConfig(tau_hierarchy=0.2, tau_individual=0.3, tau_concept=0.4, margin=0.3, **weights)
    loss, parts = total_loss(z, labels, config)
    pick = [labels.objective_B == objective for objective in (HIERARCHY, INDIVIDUAL, CONCEPT)]
    only = [BatchLabels(*(part[rows] for part in labels)) for rows in pick]
    assert parts.hierarchy.item() == pytest.approx(slow_hierarchical(z[pick[0]], only[0], 0.2, 0.3))
    assert parts.individual.item() == pytest.approx(slow_cross(z[pick[1]], only[1].anchor_id_B, only[1].text_B, 0.3))
    assert parts.concept.item() == pytest.approx(slow_cross(z[pick[2]], only[2].anchor_id_B, only[2].text_B, 0.4))
    assert parts.closeness.item() == pytest.approx(slow_closeness(z[pick[0]], only[0]))
    assert loss.item() == pytest.approx(sum(weight * getattr(parts, name).item() for name, weight in weights.items()))
    assert (CONFIG.individual, CONFIG.concept) == (0.5, 1.0)
    assert (CONFIG.tau_hierarchy, CONFIG.tau_individual, CONFIG.tau_concept) == (0.1, 0.07, 0.07)


@pytest.mark.parametrize("objective", [HIERARCHY, INDIVIDUAL, CONCEPT])
def test_an_objective_without_rows_or_positives_is_zero_with_a_graph(objective):
    labels, z = random_labels(24, 1, (objective,)), random_z(24, 1).requires_grad_()
    loss, parts = total_loss(z, labels, CONFIG)
    assert [part.item() != 0 for part in parts[:3]] == [objective == mine for mine in (HIERARCHY, INDIVIDUAL, CONCEPT)]
    assert parts.closeness.item() == 0  # weight 0 by default
    assert all(part.requires_grad for part in parts)
    assert torch.autograd.grad(loss, z)[0].isfinite().all()
    alone = labels._replace(text_B=torch.zeros(24, dtype=torch.int64))
    loss, _ = total_loss(z, alone, CONFIG)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, z)[0] == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_gradients_are_those_of_finite_differences(seed):
    labels, z = random_labels(16, seed, (HIERARCHY, CONCEPT)), random_z(16, seed, 3).requires_grad_()
    config = LossConfig(tau_hierarchy=0.5, tau_concept=0.5, closeness=3.0)
    assert torch.autograd.gradcheck(lambda z: total_loss(z, labels, config)[0], z)


def test_half_precision_is_computed_in_single():
    labels, z = random_labels(32, 0), random_z(32, 0)
    half = z.to(torch.bfloat16)
    loss, _ = total_loss(half, labels, CONFIG)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(total_loss(half.double(), labels, CONFIG)[0].item(), rel=1e-5)


def test_labels_of_a_batch_are_its_columns_as_tensors():
    labels = random_labels(8, 0)
    batch = Batch(np.arange(8), *(part.numpy() for part in labels))
    for actual, expected in zip(label_tensors(batch), labels, strict=True):
        assert torch.equal(actual, expected)


def test_free_vectors_learn_the_hierarchy_and_the_direction():
    """Recovery: similarity grows with the number of common levels; texts at one path with opposite directions are farthest."""
    tree = prefixes()
    path_N = np.repeat(np.flatnonzero(tree.theory_P == 0), 20)
    size = len(path_N)
    rows = {name: np.arange(size) for name in ("text_N", "group_N")} | {
        name: np.full(size, -1) for name in ("individual_N", "concept_N")
    }
    examples = Examples(
        texts=[str(i) for i in range(size)], text_ids=[str(i) for i in range(size)], theory_N=np.zeros(size, int),
        prefix_NL=tree.ancestors_PL[path_N], direction_N=np.tile(np.array([-1, 1], np.int8), size // 2), **rows,
    )  # fmt: skip
    z_ND = torch.randn(size, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer, sampler = torch.optim.Adam([z_ND], lr=0.1), Sampler(examples, BatchConfig(), 0)
    for step in range(400):
        labels = label_tensors(sampler.batch(step))
        loss, _ = total_loss(z_ND[labels.text_B], labels, CONFIG)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unit_ND = torch.nn.functional.normalize(z_ND.detach(), dim=1).numpy()
    cosine = unit_ND @ unit_ND.T
    agree = examples.prefix_NL[:, None] == examples.prefix_NL
    shared = (agree & (examples.prefix_NL >= 0)).sum(-1)
    shared[path_N[:, None] == path_N] = 4
    sign = np.outer(examples.direction_N, examples.direction_N)
    np.fill_diagonal(sign, 0)
    together, apart = ([cosine[(shared == n) & (sign == s)].mean() for n in range(5)] for s in (1, -1))
    assert (np.diff(together) > 0.02).all()
    assert together[4] > 0.5
    assert max(apart) < together[0]
    assert apart[4] == min(apart)


def learn(z_in: torch.Tensor, labels: BatchLabels, dtype: torch.dtype) -> tuple[float, list[torch.Tensor]]:
    """The loss and the gradients of a small model, all ranks' embeddings gathered."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 6)).to(dtype)
    config = CONFIG.model_copy(update={"closeness": 2.0})
    loss, _ = total_loss(gather_embeddings(model(z_in.to(dtype))), gather_labels(labels), config)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters()]


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    labels, z = random_labels(64, 0, (HIERARCHY, INDIVIDUAL, CONCEPT), others=2), random_z(64, 0)
    mine = slice(32 * rank, 32 * rank + 32)
    loss, gradients = learn(z[mine], BatchLabels(*(part[mine] for part in labels)), torch.float64)
    for gradient in gradients:  # as DDP does
        dist.all_reduce(gradient)
        gradient /= 2
    assert all(torch.equal(x, y) for x, y in zip(gather_labels(BatchLabels(*(p[mine] for p in labels))), labels, strict=True))
    torch.save((loss, gradients), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_learn_as_one_with_all_rows(tmp_path: Path):
    mp.spawn(functools.partial(one_of_two, folder=str(tmp_path)), nprocs=2)
    labels, z = random_labels(64, 0, (HIERARCHY, INDIVIDUAL, CONCEPT), others=2), random_z(64, 0)
    loss, gradients = learn(z, labels, torch.float64)
    for rank in (0, 1):
        rank_loss, rank_gradients = torch.load(tmp_path / f"{rank}.pt")
        assert rank_loss == pytest.approx(loss, abs=1e-6)
        torch.testing.assert_close(rank_gradients, gradients, atol=1e-6, rtol=1e-6)
    assert max(gradient.abs().max().item() for gradient in gradients) > 1e-3


def test_without_a_process_group_nothing_is_gathered():
    z, labels = random_z(4, 0), random_labels(4, 0)
    assert gather_embeddings(z) is z
    assert gather_labels(labels) is labels


def test_texts_that_share_a_label_attract_whichever_label_is_drawn():
    """Each text was drawn for a place of its own; the first two share another one."""
    tree = prefixes()
    shared, *leaves = tree.ancestors_PL[np.flatnonzero(tree.theory_P == 0)[[3, 8, 9, 10]]]
    nowhere = np.full_like(shared, -1)
    z = random_z(3, 0).requires_grad_()

    def loss(other: list[np.ndarray]) -> torch.Tensor:
        labels = BatchLabels(
            *(torch.as_tensor(np.array(c), dtype=torch.int64) for c in ([HIERARCHY] * 3, [0, 1, 2], [0] * 3, leaves, [1] * 3)),
            torch.full((3,), -1), torch.as_tensor(np.array(other))[:, None], torch.ones(3, 1, dtype=torch.int64),
        )  # fmt: skip
        return total_loss(z, labels, CONFIG)[0]

    def pull(value: torch.Tensor) -> float:
        """How much a step down the gradient raises the cosine of the first two."""
        step = -torch.autograd.grad(value, z)[0]
        near = torch.nn.functional.cosine_similarity
        return (near(z[0] + 1e-4 * step[0], z[1] + 1e-4 * step[1], dim=0) - near(z[0], z[1], dim=0)).item()

    assert pull(loss([shared, shared, nowhere])) > pull(loss([nowhere, nowhere, nowhere]))
