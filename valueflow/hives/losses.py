"""The losses of HiVES: hierarchical multi-label contrastive, InfoNCE over anchor ids, their sum, over all ranks.

Shapes: B rows of a batch (of all ranks, once gathered), O other places of a row's text, D dimensions, L levels of a path,
coarsest first. Masks are bool; mask_BB[i, j] speaks of row j as seen from row i.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from valueflow.config import Config
from valueflow.hives.batches import CONCEPT, HIERARCHY, INDIVIDUAL, Batch


class LossConfig(Config):
    """Temperatures, margin and weights; the defaults are the paper's, the margin ours."""

    tau_hierarchy: float = Field(0.1, gt=0)
    tau_individual: float = Field(0.07, gt=0)
    tau_concept: float = Field(0.07, gt=0)
    margin: float = Field(
        0.2, ge=0, description="cosine added to rows of the same prefix and the opposite direction before they are repelled"
    )
    individual: float = Field(0.5, ge=0, description="weight of the individual anchors; the hierarchy has 1")
    concept: float = Field(1.0, ge=0, description="weight of the concept anchors")


class Labels(NamedTuple):
    """What the losses know of the rows: a `Batch` without its row numbers, as int64 tensors."""

    objective_B: Tensor
    text_B: Tensor
    theory_B: Tensor
    prefix_BL: Tensor
    direction_B: Tensor
    label_B: Tensor
    other_BOL: Tensor
    other_sign_BO: Tensor


class Parts(NamedTuple):
    """The unweighted losses of a batch; 0 for an objective without rows."""

    hierarchy: Tensor
    individual: Tensor
    concept: Tensor


def labels_of(batch: Batch, device: torch.device | str = "cpu") -> Labels:
    """Return the labels of a batch as tensors.

    Shapes: as their names say.

    Args:
        batch: what the sampler drew.
        device: where the tensors shall lie.

    Returns: objective, text, theory, prefixes, direction and anchor id of every row.

    Source: ours.
    """
    return Labels(*(torch.as_tensor(array, dtype=torch.int64, device=device) for array in batch[1:]))


def total(z_BD: Tensor, labels: Labels, config: LossConfig) -> tuple[Tensor, Parts]:
    """Return L_hierarchy + 0.5 L_individual + 1.0 L_concept (weights from the config), each over its own rows.

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
        (z_BD[mine], Labels(*(part[mine] for part in labels))) for mine in rows
    )
    parts = Parts(
        hierarchical(*every_place(z, placed), config.tau_hierarchy, config.margin),
        cross_theory(z_individual, individual.label_B, individual.text_B, config.tau_individual),
        cross_theory(z_concept, concept.label_B, concept.text_B, config.tau_concept),
    )
    return parts.hierarchy + config.individual * parts.individual + config.concept * parts.concept, parts


def every_place(z_BD: Tensor, labels: Labels) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return one row for each place of each text in the theory it was drawn for, what `hierarchical` takes.

    Shapes: z (B, D) and labels -> z (R, D), theory (R,), prefixes (R, L), direction (R,), text (R,), R the places.

    Args:
        z_BD: embeddings.
        labels: with the other places of the texts.

    Returns: embeddings and labels of all places; a text's are equal embeddings, neither positives nor negatives of each other.

    Source: ours; VALUEFLOW trains on one place a row, so that texts which share another one repel each other.
    """
    prefix_BPL = torch.cat([labels.prefix_BL[:, None], labels.other_BOL], 1)
    sign_BP = torch.cat([labels.direction_B[:, None], labels.other_sign_BO], 1)
    row_R, place_R = torch.nonzero(prefix_BPL[..., 0] >= 0, as_tuple=True)
    return z_BD[row_R], labels.theory_B[row_R], prefix_BPL[row_R, place_R], sign_BP[row_R, place_R], labels.text_B[row_R]


def hierarchical(
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
    loss_BL, has_BL = level_losses(z_BD, theory_B, prefix_BL, direction_B, text_B, tau, margin)
    # Row by row the means of the row's theory, so that no theory has to be looped over.
    theory_BB = (theory_B[:, None] == theory_B).to(loss_BL.dtype)
    number_BL = theory_BB @ has_BL.to(loss_BL.dtype)
    mean_BL = theory_BB @ loss_BL / number_BL.clamp(min=1)
    present_BL = number_BL > 0
    nth_BL = present_BL.flip(1).cumsum(1).flip(1).clamp(min=1)
    weight_BL = torch.exp2(1 / nth_BL) * present_BL
    loss_B = (weight_BL * constrained(mean_BL, present_BL)).sum(1) / weight_BL.sum(1).clamp(min=1)
    counted_B = has_BL.any(1)
    return (loss_B * counted_B).sum() / counted_B.sum().clamp(min=1)


def level_losses(
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


def constrained(loss_BL: Tensor, present_BL: Tensor) -> Tensor:
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


def cross_theory(z_BD: Tensor, label_B: Tensor, text_B: Tensor, tau: float) -> Tensor:
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


def gather(z_BD: Tensor) -> Tensor:
    """Return the embeddings of all ranks with their gradient; the same tensor without a process group.

    With the mean of gradients over ranks that DDP and DeepSpeed take, n ranks of B rows learn exactly as one of n B rows.

    Shapes: (B, D) -> (ranks * B, D).

    Args:
        z_BD: this rank's embeddings; every rank must have as many.

    Returns: rows in the order of ranks; the gradient of a row is the sum of those that all ranks have for it.

    Source: ours.
    """
    return _Gather.apply(z_BD) if dist.is_initialized() else z_BD


def gather_batch(labels: Labels) -> Labels:
    """Return the labels of all ranks in the order of `gather`; the same tensors without a process group.

    Shapes: (B, …) -> (ranks * B, …).

    Args:
        labels: of this rank's rows; every rank must have as many.

    Returns: labels of all rows, gathered in one call.

    Source: ours.
    """
    if not dist.is_initialized():
        return labels
    columns = [part.flatten(1) if part.dim() > 1 else part[:, None] for part in labels]
    every = torch.cat(_all_gather(torch.cat(columns, 1))).split([column.shape[1] for column in columns], 1)
    return Labels(*(column.reshape(len(column), *own.shape[1:]) for column, own in zip(every, labels, strict=True)))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_BD: Tensor) -> Tensor:
        ctx.num_rows = len(z_BD)
        return torch.cat(_all_gather(z_BD))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[dist.get_rank() * ctx.num_rows :][: ctx.num_rows]


def _all_gather(x: Tensor) -> list[Tensor]:
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return parts


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
