"""Gather embeddings and labels of all processes of a training, in the same order.

B rows of this process's batch, D dimensions.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from valueflow.hives.losses import BatchLabels


def gather_embeddings(z_BD: Tensor) -> Tensor:
    """Return the embeddings (processes * B, D) of all processes in the order of ranks, or z_BD without a process group.

    The gradient of a row is the sum of its gradients in all processes. DDP and DeepSpeed average gradients over processes, so n
    processes of B rows learn exactly as one of n B rows.

    Args:
        z_BD: this process's embeddings; B must be the same everywhere.
    """
    return _Gather.apply(z_BD) if dist.is_initialized() else z_BD


def gather_labels(labels: BatchLabels) -> BatchLabels:
    """Return the labels of all processes in the order of `gather_embeddings`, by one call; unchanged without a process group.

    Args:
        labels: of this process's rows; B must be the same everywhere.
    """
    if not dist.is_initialized():
        return labels
    columns = [part.flatten(1) if part.dim() > 1 else part[:, None] for part in labels]
    every = torch.cat(_all_gather(torch.cat(columns, 1))).split([column.shape[1] for column in columns], 1)
    return BatchLabels(*(column.reshape(len(column), *part.shape[1:]) for column, part in zip(every, labels, strict=True)))


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
