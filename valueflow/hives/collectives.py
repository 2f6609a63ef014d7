"""Embeddings and labels of all ranks of a training, in the same order.

B rows of this rank's batch, D dimensions.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from valueflow.hives.losses import BatchLabels


def gather_embeddings(z_BD: Tensor) -> Tensor:
    """Return the embeddings of all ranks with their gradient; the same tensor without a process group.

    With the mean of gradients over ranks that DDP and DeepSpeed take, n ranks of B rows learn exactly as one of n B rows.

    Shapes: (B, D) -> (ranks * B, D).

    Args:
        z_BD: this rank's embeddings; every rank must have as many.

    Returns: rows in the order of ranks; the gradient of a row is the sum of those that all ranks have for it.

    Source: ours.
    """
    return _Gather.apply(z_BD) if dist.is_initialized() else z_BD


def gather_labels(labels: BatchLabels) -> BatchLabels:
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
    return BatchLabels(*(column.reshape(len(column), *own.shape[1:]) for column, own in zip(every, labels, strict=True)))


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
