"""The losses of HiVES: hierarchical multi-label contrastive, closeness, nodes, InfoNCE over anchor ids; sum, over all ranks.

Shapes: B rows of a batch (of all ranks, once gathered), O other places of a row's text, R places of all rows, D dimensions,
K nodes with a direction, L levels of a path, coarsest first. Masks are bool; mask_BB[i, j] speaks of row j as seen from row i.
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
    """Temperatures, margin and weights; the defaults are the paper's; margin, closeness and nodes are ours."""

    tau_hierarchy: float = Field(0.1, gt=0)
    tau_individual: float = Field(0.07, gt=0)
    tau_concept: float = Field(0.07, gt=0)
    margin: float = Field(
        0.2, ge=0, description="cosine added to rows of the same prefix and the opposite direction before they are repelled"
    )
    hierarchy: float = Field(1.0, ge=0, description="weight of the contrastive loss of the hierarchy")
    closeness: float = Field(0.0, ge=0, description="weight of the regression of cosine on shared levels and direction")
    nodes: float = Field(0.0, ge=0, description="weight of telling a text's nodes and directions from its vector")
    individual: float = Field(0.5, ge=0, description="weight of the individual anchors")
    concept: float = Field(1.0, ge=0, description="weight of the concept anchors")


class BatchLabels(NamedTuple):
    """What the losses know of the rows: a `Batch` without its row numbers, as int64 tensors."""

    objective_B: Tensor
    text_B: Tensor
    theory_B: Tensor
    prefix_BL: Tensor
    direction_B: Tensor
    label_B: Tensor
    other_BOL: Tensor
    other_sign_BO: Tensor


class LabelRows(NamedTuple):
    """All places of the texts of a batch, what `hierarchical` takes beside the vectors, behind the rows they are of."""

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
    """Return the labels of a batch as tensors.

    Shapes: as their names say.

    Args:
        batch: what the sampler drew.
        device: where the tensors shall lie.

    Returns: objective, text, theory, prefixes, direction and anchor id of every row.

    Source: ours.
    """
    return BatchLabels(*(torch.as_tensor(array, dtype=torch.int64, device=device) for array in batch[1:]))


def total_loss(z_BD: Tensor, labels: BatchLabels, config: LossConfig) -> tuple[Tensor, LossParts]:
    """Return L_hierarchy + 0.5 L_individual + 1.0 L_concept + 0 L_closeness (weights from the config), each over its own rows.

    The loss of nodes is not in it: it is a rank's own (`Nodes.loss`).

    Shapes: z (B, D); labels (B,), prefixes (B, L).

    Args:
        z_BD: embeddings of any length; of all ranks (`gather`) where there are several.
        labels: of the same rows in the same order (`gather_batch`).
        config: temperatures, margin and weights.

    Returns: the loss and its unweighted parts; an objective without rows is an exact 0 that keeps the graph.

    Source: VALUEFLOW (arXiv 2602.03160), stage 2; stage 1 is the same with rows of the hierarchy only.
    """
    rows = [labels.objective_B == objective for objective in (HIERARCHY, INDIVIDUAL, CONCEPT)]
    (z, placed), (z_individual, individual), (z_concept, concept) = (
        (z_BD[mine], BatchLabels(*(part[mine] for part in labels))) for mine in rows
    )
    nothing, places = z_BD.sum() * 0.0, all_labels(placed)
    parts = LossParts(
        hierarchical_contrastive_loss(z[places.row_R], *places[1:], config.tau_hierarchy, config.margin),
        anchor_contrastive_loss(z_individual, individual.label_B, individual.text_B, config.tau_individual),
        anchor_contrastive_loss(z_concept, concept.label_B, concept.text_B, config.tau_concept),
        closeness_loss(z, placed, places) if config.closeness else nothing,
    )
    return sum((getattr(config, name) * part for name, part in parts._asdict().items()), start=nothing), parts


def all_labels(labels: BatchLabels) -> LabelRows:
    """Return each place of each text in the theory it was drawn for.

    Shapes: as their names say.

    Args:
        labels: with the other places of the texts.

    Returns: the row that each place is of, and its labels; places of a text are neither positives nor negatives of each other.

    Source: ours; VALUEFLOW trains on one place a row, so that texts which share another one repel each other.
    """
    prefix_BPL = torch.cat([labels.prefix_BL[:, None], labels.other_BOL], 1)
    sign_BP = torch.cat([labels.direction_B[:, None], labels.other_sign_BO], 1)
    row_R, place_R = torch.nonzero(prefix_BPL[..., 0] >= 0, as_tuple=True)
    return LabelRows(row_R, labels.theory_B[row_R], prefix_BPL[row_R, place_R], sign_BP[row_R, place_R], labels.text_B[row_R])


def closeness_loss(z_BD: Tensor, labels: BatchLabels, places: LabelRows) -> Tensor:
    """Return the mean squared difference of cosine and closeness over pairs of texts of the same theory.

    The closeness of two texts is what the metric "similarity correlation" counts, the number of levels that their places share
    from the root plus 1/2 for the same direction there, of their closest places, over the most there can be in the theory.

    Shapes: z (B, D), prefixes (B, L), else (B,).

    Args:
        z_BD: embeddings of any length.
        labels: of the same rows.
        places: all of them (`every_place`).

    Returns: a scalar, 0 without pairs.

    Source: ours.
    """
    row_R, _, prefix_RL, sign_R, _ = places
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
    known = prefixes()
    return [int((known.ancestors_PL[known.theory_P == theory] >= 0).sum(1).max()) for theory in range(len(THEORIES))]


class NodeHead(nn.Module):
    """Reads nodes from vectors: which prefixes a text has, and in which direction.

    Shapes: z (B, D) -> logits (B, K).

    Args:
        dimension: D.
        examples: whose prefixes and directions are read, K of them.
    """

    key_K: Tensor
    theory_K: Tensor

    def __init__(self, dimension: int, examples: Examples) -> None:
        super().__init__()
        keys = _keys(torch.as_tensor(examples.prefix_NL), torch.as_tensor(examples.direction_N, dtype=torch.int64))
        key_K = keys[keys >= 0].unique()
        self.read = nn.Linear(dimension, len(key_K))
        self.register_buffer("key_K", key_K, persistent=False)
        theory_K = torch.as_tensor(prefixes().theory_P)[key_K // len(DIRECTION_SIGNS)]
        self.register_buffer("theory_K", theory_K, persistent=False)

    def forward(self, z_BD: Tensor) -> Tensor:
        """Return the logits."""
        return self.read(z_BD.to(self.read.weight.dtype)).float()

    def loss(self, logit_BK: Tensor, labels: BatchLabels) -> Tensor:
        """Return the binary cross-entropy of the nodes of each row's theory, mean over nodes, then over rows of the hierarchy.

        Shapes: logits (B, K), labels of the same rows; a rank's own, since no row depends on another.

        Returns: a scalar, 0 without such rows.

        Source: ours.
        """
        row_R, _, prefix_RL, sign_R, _ = all_labels(labels)
        key_RL = _keys(prefix_RL, sign_R)
        at_RL = torch.searchsorted(self.key_K, key_RL).clamp(max=len(self.key_K) - 1)
        target_BK = torch.zeros_like(logit_BK)
        known_RL = self.key_K[at_RL] == key_RL
        target_BK[row_R[:, None].expand_as(at_RL)[known_RL], at_RL[known_RL]] = 1.0
        asked_BK = (self.theory_K == labels.theory_B[:, None]) & (labels.objective_B == HIERARCHY)[:, None]
        loss_BK = functional.binary_cross_entropy_with_logits(logit_BK, target_BK, reduction="none") * asked_BK
        asked_B = asked_BK.sum(1)
        return (loss_BK.sum(1) / asked_B.clamp(min=1)).sum() / (asked_B > 0).sum().clamp(min=1)


def _keys(prefix_NL: Tensor, direction_N: Tensor) -> Tensor:
    """Numbers of (prefix, direction), -1 below the end of a path."""
    return torch.where(prefix_NL >= 0, prefix_NL * len(DIRECTION_SIGNS) + direction_N[:, None] + 1, -1)


def hierarchical_contrastive_loss(
    z_BD: Tensor, theory_B: Tensor, prefix_BL: Tensor, direction_B: Tensor, text_B: Tensor, tau: float, margin: float
) -> Tensor:
    """Return the hierarchical multi-label contrastive loss with the hierarchy constraint, mean over rows that have positives.

    Shapes: z (B, D), prefixes (B, L), else (B,).

    Args:
        z_BD: embeddings of any length.
        theory_B: theory ids; rows of other theories are neither positives nor negatives, and each theory has its own levels.
        prefix_BL: ids of the path's prefixes, coarsest first, -1 below its end.
        direction_B: -1, 0, 1.
        text_B: ids of the texts; rows of the same text are neither positives nor negatives.
        tau: temperature.
        margin: cosine added to opposite rows, see `level_losses`.

    Returns: a scalar; per theory the sum of 2^(1/l) times the constrained loss of level l, l = 1 for the finest level that has
        positives, over the sum of those weights; theories weigh by their rows that have positives.

    Source: HiMulConE of arXiv 2204.13207, as in VALUEFLOW, but from fine to coarse and with a smooth maximum.
    """
    loss_BL, has_BL = level_contrastive_losses(z_BD, theory_B, prefix_BL, direction_B, text_B, tau, margin)
    # Row by row the means of the row's theory, so that no theory has to be looped over.
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
    """Return the supervised contrastive loss of every row at every level, and where there is one.

    A positive at a level is a row of another text with the same prefix down to it and the same direction. Negatives are the
    other rows of the theory, but for those that may be alike: of the same text as the row or as one of its positives, and of
    the same direction with a path that ends above the level on the way to the row.

    Shapes: z (B, D), prefixes (B, L), else (B,).

    Args:
        z_BD: embeddings of any length.
        theory_B: theory ids.
        prefix_BL: ids of prefixes, -1 below the end of the path.
        direction_B: -1, 0, 1.
        text_B: ids of the texts.
        tau: temperature.
        margin: negatives of the same prefix and the opposite direction count as more similar by so much cosine, which raises
            their share of the denominator, and with it the force that drives them away.

    Returns: loss (B, L), 0 where a row has no positive; a mask (B, L) of the rows that have one.

    Source: SupCon (arXiv 2004.11362, L_out) at each level, as HiMulCon of arXiv 2204.13207; the margin is ours.
    """
    logit_BB = _cosine(z_BD) / tau
    depth_B = (prefix_BL >= 0).sum(1)
    agree_BBL = (prefix_BL[:, None] == prefix_BL) & (prefix_BL >= 0)
    shared_BB = agree_BBL.sum(-1)
    same_text_BB = text_B[:, None] == text_B
    other_BB = (theory_B[:, None] == theory_B) & ~same_text_BB
    like_BB = other_BB & (direction_B[:, None] == direction_B)
    against_BB = direction_B[:, None] * direction_B == -1
    losses, masks = [], []
    for level in range(prefix_BL.shape[1]):
        positive_BB = agree_BBL[..., level] & like_BB
        unknown_BB = (depth_B <= level) & (shared_BB == depth_B) & like_BB
        kept_BB = other_BB & ~unknown_BB & ~_twins(positive_BB, same_text_BB)
        raised_BB = logit_BB + margin / tau * (agree_BBL[..., level] & against_BB)
        loss_B, has_B = _contrast(logit_BB, raised_BB, positive_BB, kept_BB)
        losses.append(loss_B)
        masks.append(has_B)
    return torch.stack(losses, 1), torch.stack(masks, 1)


def hierarchy_constrained(loss_BL: Tensor, present_BL: Tensor) -> Tensor:
    """Return level losses of which each is at least that of the next finer level: the smooth maximum of the two.

    Shapes: both (B, L), coarsest level first.

    Args:
        loss_BL: the loss of each level.
        present_BL: where there is one; other levels are passed over.

    Returns: (B, L), log of the sum of exp(loss) over this and all finer levels present, 0 where none is; every level present
        has a gradient, which a hard maximum gives to one level only.

    Source: HiConE of arXiv 2204.13207 with logaddexp for max.
    """
    finer_B = torch.full_like(loss_BL[:, 0], -torch.inf)
    found: list[Tensor] = []
    for level in reversed(range(loss_BL.shape[1])):
        finer_B = torch.where(present_BL[:, level], torch.logaddexp(loss_BL[:, level], finer_B), finer_B)
        found.insert(0, torch.where(present_BL[:, level], finer_B, 0.0))
    return torch.stack(found, 1)


def anchor_contrastive_loss(z_BD: Tensor, label_B: Tensor, text_B: Tensor, tau: float) -> Tensor:
    """Return InfoNCE over anchor ids with several positives, mean over rows that have one.

    Shapes: z (B, D), else (B,).

    Args:
        z_BD: embeddings of any length.
        label_B: anchor ids; rows of another text with the same id are positives, of any other id negatives.
        text_B: ids of the texts; rows of the same text as the row or one of its positives are no negatives.
        tau: temperature.

    Returns: a scalar: minus the log-probability of a positive, averaged over positives, then over rows.

    Source: VALUEFLOW (arXiv 2602.03160), stage 2, individual and theory anchors; SupCon (arXiv 2004.11362, L_out).
    """
    logit_BB = _cosine(z_BD) / tau
    same_text_BB = text_B[:, None] == text_B
    positive_BB = (label_B[:, None] == label_B) & ~same_text_BB
    kept_BB = ~same_text_BB & ~_twins(positive_BB, same_text_BB)
    loss_B, has_B = _contrast(logit_BB, logit_BB, positive_BB, kept_BB)
    return loss_B.sum() / has_B.sum().clamp(min=1)


def _cosine(z_BD: Tensor) -> Tensor:
    """Cosines in single precision at least: half is too coarse at these temperatures."""
    z_BD = functional.normalize(z_BD.to(torch.promote_types(z_BD.dtype, torch.float32)), dim=1)
    return z_BD @ z_BD.T


def _twins(positive_BB: Tensor, same_text_BB: Tensor) -> Tensor:
    """Rows that are no positives, but of the text of one: the same vector cannot be drawn near and driven away."""
    return ((positive_BB.float() @ same_text_BB.float()) > 0) & ~positive_BB


def _contrast(logit_BB: Tensor, raised_BB: Tensor, positive_BB: Tensor, kept_BB: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the mean log-probability of each row's positives among the kept rows, 0 without positives; who has some."""
    nothing = torch.finfo(logit_BB.dtype).min / 2  # finite: rows that keep no one must not make NaN gradients
    total_B = raised_BB.masked_fill(~kept_BB, nothing).logsumexp(1)
    number_B = positive_BB.sum(1)
    loss_B = ((total_B[:, None] - logit_BB) * positive_BB).sum(1) / number_B.clamp(min=1)
    return loss_B, number_B > 0
