"""The losses of HiVES over the rows of all processes: hierarchical contrastive, closeness, nodes, InfoNCE over anchor ids.

Shapes: B rows of a batch (of all processes once gathered), O other labels of a row's text, R labels of all rows, D dimensions,
K nodes with a direction, L levels of a path, coarsest first. A label is a path with a direction. Masks are bool; mask_BB[i, j]
is about row j as seen from row i.
"""

import functools
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from valueflow.config import Config
from valueflow.hives.batches import CONCEPT, HIERARCHY, INDIVIDUAL, Batch
from valueflow.hives.examples import DIRECTION_SIGNS, Examples, prefixes
from valueflow.theories.taxonomy import THEORIES


class LossConfig(Config):
    """Temperatures, margin and weights. Defaults are the paper's; margin, closeness and nodes are ours."""

    tau_hierarchy: float = Field(0.1, gt=0)
    tau_individual: float = Field(0.07, gt=0)
    tau_concept: float = Field(0.07, gt=0)
    margin: float = Field(
        0.2, ge=0, description="added to the cosine of negatives with the same prefix and the opposite direction"
    )
    hierarchy: float = Field(1.0, ge=0, description="weight of the hierarchical contrastive loss")
    closeness: float = Field(0.0, ge=0, description="weight of the regression of cosine on shared levels and direction")
    nodes: float = Field(0.0, ge=0, description="weight of the classification of nodes and directions from the vector")
    individual: float = Field(0.5, ge=0, description="weight of the loss over individual anchors")
    concept: float = Field(1.0, ge=0, description="weight of the loss over concept anchors")


class BatchLabels(NamedTuple):
    """The labels of a `Batch` (all its fields but the row numbers) as int64 tensors."""

    objective_B: Tensor
    text_B: Tensor
    theory_B: Tensor
    prefix_BL: Tensor
    direction_B: Tensor
    anchor_id_B: Tensor
    other_BOL: Tensor
    other_sign_BO: Tensor


class LabelRows(NamedTuple):
    """All labels of the texts of a batch, one per row: the batch row of each, then the labels of a contrastive loss."""

    row_R: Tensor
    theory_R: Tensor
    prefix_RL: Tensor
    direction_R: Tensor
    text_R: Tensor


class LossParts(NamedTuple):
    """The unweighted losses of a batch; 0 for an objective without rows."""

    hierarchy: Tensor
    individual: Tensor
    concept: Tensor
    closeness: Tensor


def label_tensors(batch: Batch, device: torch.device | str = "cpu") -> BatchLabels:
    """Return the labels of a batch as tensors on a device."""
    return BatchLabels(*(torch.as_tensor(array, dtype=torch.int64, device=device) for array in batch[1:]))


def total_loss(z_BD: Tensor, labels: BatchLabels, config: LossConfig) -> tuple[Tensor, LossParts]:
    """Return the weighted sum of the losses, each over the rows of its own objective, and its unweighted parts.

    An objective without rows contributes an exact 0 that keeps the graph. The node loss is not included: each process adds its
    own (`NodeHead.loss`).

    Inputs: z (B, D) of any length, of all processes (`gather_embeddings`).

    Labels: of the same rows in the same order (`gather_labels`).

    Sampler: `Sampler`; stage 1 draws rows of the hierarchy only.

    Reference: VALUEFLOW (arXiv 2602.03160), stages 1 and 2.
    """
    masks = [labels.objective_B == objective for objective in (HIERARCHY, INDIVIDUAL, CONCEPT)]
    (z, hierarchy), (z_individual, individual), (z_concept, concept) = (
        (z_BD[mask_B], BatchLabels(*(part[mask_B] for part in labels))) for mask_B in masks
    )
    zero, label_rows = z_BD.sum() * 0.0, all_labels(hierarchy)
    parts = LossParts(
        hierarchical_contrastive_loss(z[label_rows.row_R], *label_rows[1:], config.tau_hierarchy, config.margin),
        anchor_contrastive_loss(z_individual, individual.anchor_id_B, individual.text_B, config.tau_individual),
        anchor_contrastive_loss(z_concept, concept.anchor_id_B, concept.text_B, config.tau_concept),
        closeness_loss(z, hierarchy, label_rows) if config.closeness else zero,
    )
    return sum((getattr(config, name) * part for name, part in parts._asdict().items()), start=zero), parts


def all_labels(labels: BatchLabels) -> LabelRows:
    """Return every label of each text in the theory it was drawn for.

    Labels of the same text are neither positives nor negatives of each other.

    Reference: ours; VALUEFLOW trains on one label per row, so texts that share another label repel each other.
    """
    prefix_BPL = torch.cat([labels.prefix_BL[:, None], labels.other_BOL], 1)
    sign_BP = torch.cat([labels.direction_B[:, None], labels.other_sign_BO], 1)
    row_R, nth_R = torch.nonzero(prefix_BPL[..., 0] >= 0, as_tuple=True)
    return LabelRows(row_R, labels.theory_B[row_R], prefix_BPL[row_R, nth_R], sign_BP[row_R, nth_R], labels.text_B[row_R])


def closeness_loss(z_BD: Tensor, labels: BatchLabels, label_rows: LabelRows) -> Tensor:
    """Return the mean squared difference of cosine and closeness over pairs of texts of the same theory; 0 without pairs.

    The closeness of two texts is that of the metric "similarity correlation": the number of levels that their labels share from
    the root, plus 1/2 for the same direction, for their closest labels, divided by the theory's maximum.

    Inputs: z (B, D) of any length.

    Labels: of the same rows, and all labels of their texts (`all_labels`).

    Sampler: `Sampler`, rows of the hierarchy.

    Reference: ours.
    """
    row_R, _, prefix_RL, sign_R, _ = label_rows
    num = len(z_BD)
    shared_RR = ((prefix_RL[:, None] == prefix_RL) & (prefix_RL >= 0)).sum(-1)
    close_RR = shared_RR + 0.5 * (sign_R[:, None] == sign_R)
    close_BR = close_RR.new_zeros(num, len(row_R)).scatter_reduce_(0, row_R[:, None].expand_as(close_RR), close_RR, "amax")
    close_BB = close_RR.new_zeros(num, num).scatter_reduce_(1, row_R.expand_as(close_BR), close_BR, "amax")
    depth_H = torch.as_tensor(theory_depths(), dtype=close_BB.dtype, device=z_BD.device)
    target_BB = close_BB / (depth_H[labels.theory_B] + 0.5)
    pair_BB = (labels.theory_B[:, None] == labels.theory_B) & (labels.text_B[:, None] != labels.text_B)
    return (((_cosine(z_BD) - target_BB) ** 2) * pair_BB).sum() / pair_BB.sum().clamp(min=1)


@functools.cache
def theory_depths() -> list[int]:
    """Return the number of levels of every theory."""
    paths = prefixes()
    return [int((paths.ancestors_PL[paths.theory_P == theory] >= 0).sum(1).max()) for theory in range(len(THEORIES))]


class NodeHead(nn.Module):
    """Linear classifier of a text's prefixes and their directions from its vector: z (B, D) -> logits (B, K).

    Args:
        dimension: D.
        examples: define the K classes, their (prefix, direction) pairs.
    """

    key_K: Tensor
    theory_K: Tensor

    def __init__(self, dimension: int, examples: Examples) -> None:
        super().__init__()
        keys = _keys(torch.as_tensor(examples.prefix_NL), torch.as_tensor(examples.direction_N, dtype=torch.int64))
        key_K = keys[keys >= 0].unique()
        # Checkpoints contain the names of parameters: renaming `read` would orphan those of unfinished trainings.
        self.read = nn.Linear(dimension, len(key_K))
        self.register_buffer("key_K", key_K, persistent=False)
        theory_K = torch.as_tensor(prefixes().theory_P)[key_K // len(DIRECTION_SIGNS)]
        self.register_buffer("theory_K", theory_K, persistent=False)

    def forward(self, z_BD: Tensor) -> Tensor:
        """Return the logits."""
        return self.read(z_BD.to(self.read.weight.dtype)).float()

    def loss(self, logit_BK: Tensor, labels: BatchLabels) -> Tensor:
        """Return the binary cross-entropy over the nodes of each row's theory, averaged over nodes, then rows; 0 without rows.

        Inputs: logits (B, K) of this process; no row depends on another.

        Labels: of the same rows.

        Sampler: `Sampler`, rows of the hierarchy; others do not count.

        Reference: ours.
        """
        row_R, _, prefix_RL, sign_R, _ = all_labels(labels)
        key_RL = _keys(prefix_RL, sign_R)
        class_RL = torch.searchsorted(self.key_K, key_RL).clamp(max=len(self.key_K) - 1)
        target_BK = torch.zeros_like(logit_BK)
        match_RL = self.key_K[class_RL] == key_RL
        target_BK[row_R[:, None].expand_as(class_RL)[match_RL], class_RL[match_RL]] = 1.0
        counts_BK = (self.theory_K == labels.theory_B[:, None]) & (labels.objective_B == HIERARCHY)[:, None]
        loss_BK = functional.binary_cross_entropy_with_logits(logit_BK, target_BK, reduction="none") * counts_BK
        num_classes_B = counts_BK.sum(1)
        return (loss_BK.sum(1) / num_classes_B.clamp(min=1)).sum() / (num_classes_B > 0).sum().clamp(min=1)


def _keys(prefix_NL: Tensor, direction_N: Tensor) -> Tensor:
    """Codes of (prefix, direction) pairs, -1 below the end of a path."""
    return torch.where(prefix_NL >= 0, prefix_NL * len(DIRECTION_SIGNS) + direction_N[:, None] + 1, -1)


def hierarchical_contrastive_loss(
    z_BD: Tensor, theory_B: Tensor, prefix_BL: Tensor, direction_B: Tensor, text_B: Tensor, tau: float, margin: float
) -> Tensor:
    """Return the hierarchical multi-label contrastive loss with the hierarchy constraint, averaged over rows with positives.

    Per theory: the sum over levels of 2^(1/l) times the constrained loss of level l, divided by the sum of these weights, where
    l = 1 is the finest level with positives. Theories are weighted by their number of rows with positives.

    Inputs: z (B, D) of any length; tau: temperature; margin: see `level_contrastive_losses`.

    Labels: theory ids (B,), rows of other theories are neither positives nor negatives; ids of the path's prefixes (B, L),
    coarsest first, -1 below its end; directions -1, 0, 1 (B,); text ids (B,), rows of the same text are neither.

    Sampler: `Sampler`, rows of the hierarchy, with all labels of their texts (`all_labels`).

    Reference: HiMulConE of arXiv 2204.13207, as in VALUEFLOW, but from fine to coarse and with a smooth maximum.
    """
    loss_BL, has_BL = level_contrastive_losses(z_BD, theory_B, prefix_BL, direction_B, text_B, tau, margin)
    # Each row holds the means of its own theory, which avoids a loop over theories.
    theory_BB = (theory_B[:, None] == theory_B).to(loss_BL.dtype)
    number_BL = theory_BB @ has_BL.to(loss_BL.dtype)
    mean_BL = theory_BB @ loss_BL / number_BL.clamp(min=1)
    present_BL = number_BL > 0
    nth_BL = present_BL.flip(1).cumsum(1).flip(1).clamp(min=1)
    weight_BL = torch.exp2(1 / nth_BL) * present_BL
    loss_B = (weight_BL * hierarchy_constrained(mean_BL, present_BL)).sum(1) / weight_BL.sum(1).clamp(min=1)
    counted_B = has_BL.any(1)
    return (loss_B * counted_B).sum() / counted_B.sum().clamp(min=1)


def level_contrastive_losses(
    z_BD: Tensor, theory_B: Tensor, prefix_BL: Tensor, direction_B: Tensor, text_B: Tensor, tau: float, margin: float
) -> tuple[Tensor, Tensor]:
    """Return the supervised contrastive loss (B, L) of every row and level, 0 without a positive, and the mask of the rest.

    A positive at a level is a row of another text with the same prefix at this level and the same direction. Negatives are the
    other rows of the theory except those that may be similar: rows with the text of this row or of one of its positives, and
    rows of the same direction whose path is a prefix of this row's path and ends above the level.

    Inputs: z (B, D) of any length; tau: temperature; margin: added to the cosine of negatives with the same prefix and the
    opposite direction, which raises their share of the denominator and so their repulsion.

    Labels: as `hierarchical_contrastive_loss`.

    Sampler: as `hierarchical_contrastive_loss`.

    Reference: SupCon (arXiv 2004.11362, L_out) at each level, as HiMulCon of arXiv 2204.13207; the margin is ours.
    """
    logit_BB = _cosine(z_BD) / tau
    depth_B = (prefix_BL >= 0).sum(1)
    agree_BBL = (prefix_BL[:, None] == prefix_BL) & (prefix_BL >= 0)
    shared_BB = agree_BBL.sum(-1)
    same_text_BB = text_B[:, None] == text_B
    other_BB = (theory_B[:, None] == theory_B) & ~same_text_BB
    like_BB = other_BB & (direction_B[:, None] == direction_B)
    opposite_BB = direction_B[:, None] * direction_B == -1
    losses, masks = [], []
    for level in range(prefix_BL.shape[1]):
        positive_BB = agree_BBL[..., level] & like_BB
        ambiguous_BB = (depth_B <= level) & (shared_BB == depth_B) & like_BB
        candidate_BB = other_BB & ~ambiguous_BB & ~_duplicates_of_positives(positive_BB, same_text_BB)
        raised_BB = logit_BB + margin / tau * (agree_BBL[..., level] & opposite_BB)
        loss_B, has_B = _contrast(logit_BB, raised_BB, positive_BB, candidate_BB)
        losses.append(loss_B)
        masks.append(has_B)
    return torch.stack(losses, 1), torch.stack(masks, 1)


def hierarchy_constrained(loss_BL: Tensor, present_BL: Tensor) -> Tensor:
    """Return level losses (B, L) such that each is at least that of the next finer level, by a smooth maximum of the two.

    The result is the log of the sum of exp(loss) over this and all finer levels present, 0 at absent levels. Every level
    present has a gradient; a hard maximum gives it to one level only.

    Inputs: the loss of each level (B, L), coarsest first, and the mask (B, L) of levels present; others are skipped.

    Reference: HiConE of arXiv 2204.13207 with logaddexp for max.
    """
    finer_B = torch.full_like(loss_BL[:, 0], -torch.inf)
    levels: list[Tensor] = []
    for level in reversed(range(loss_BL.shape[1])):
        finer_B = torch.where(present_BL[:, level], torch.logaddexp(loss_BL[:, level], finer_B), finer_B)
        levels.insert(0, torch.where(present_BL[:, level], finer_B, 0.0))
    return torch.stack(levels, 1)


def anchor_contrastive_loss(z_BD: Tensor, anchor_id_B: Tensor, text_B: Tensor, tau: float) -> Tensor:
    """Return InfoNCE over anchor ids with several positives: minus the log-probability of a positive, averaged over positives,
    then over rows that have one; 0 without such rows.

    Inputs: z (B, D) of any length; tau: temperature.

    Labels: anchor ids (B,), rows of another text with the same id are positives, rows with other ids negatives; text ids (B,),
    rows with the text of this row or of one of its positives are not negatives.

    Sampler: `Sampler`, rows of one anchor objective.

    Reference: VALUEFLOW (arXiv 2602.03160), stage 2, individual and concept anchors; SupCon (arXiv 2004.11362, L_out).
    """
    logit_BB = _cosine(z_BD) / tau
    same_text_BB = text_B[:, None] == text_B
    positive_BB = (anchor_id_B[:, None] == anchor_id_B) & ~same_text_BB
    candidate_BB = ~same_text_BB & ~_duplicates_of_positives(positive_BB, same_text_BB)
    loss_B, has_B = _contrast(logit_BB, logit_BB, positive_BB, candidate_BB)
    return loss_B.sum() / has_B.sum().clamp(min=1)


def _cosine(z_BD: Tensor) -> Tensor:
    """Cosines (B, B) in single precision or better: half precision is too coarse at these temperatures."""
    z_BD = functional.normalize(z_BD.to(torch.promote_types(z_BD.dtype, torch.float32)), dim=1)
    return z_BD @ z_BD.T


def _duplicates_of_positives(positive_BB: Tensor, same_text_BB: Tensor) -> Tensor:
    """Negatives with the same text as a positive: a vector cannot be attracted and repelled at once."""
    return ((positive_BB.float() @ same_text_BB.float()) > 0) & ~positive_BB


def _contrast(logit_BB: Tensor, raised_BB: Tensor, positive_BB: Tensor, candidate_BB: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the mean log-probability of the positives among the candidates of a row, 0 without any; the mask of the rest."""
    lowest = torch.finfo(logit_BB.dtype).min / 2  # finite, since rows without candidates must not produce NaN gradients
    total_B = raised_BB.masked_fill(~candidate_BB, lowest).logsumexp(1)
    number_B = positive_BB.sum(1)
    loss_B = ((total_B[:, None] - logit_BB) * positive_BB).sum(1) / number_B.clamp(min=1)
    return loss_B, number_B > 0
