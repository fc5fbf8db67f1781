"""Trains a network with a Jacobian penalty on several processes, and goes on after an end.

    torchrun --nproc-per-node 2 data_parallel.py --checkpoint run.pt

The operators go inside a module that gives the loss, and `DistributedDataParallel` goes around that.
"""

import argparse
import os
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import relugrad as rg


class Penalized(nn.Module):
    """Cross-entropy plus `λ/2 · ‖J‖²`, the mean over a batch.

    Its parameters are the model's. `DistributedDataParallel` prepares the sums of gradients when its
    own `forward` is called, so the operator must be called in there.
    """

    def __init__(self, model: nn.Module, weight: float) -> None:
        super().__init__()
        self.model, self.weight = model, weight

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        f, gram = rg.torch.gram(self.model, x)
        norm = gram.diagonal(dim1=1, dim2=2).sum(1)
        return F.cross_entropy(f, y) + self.weight / 2 * norm.mean()


def gradient(objective: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Adds the gradient of the whole batch, of which each process takes its share.

    The gradients of the processes are averaged, so means over shares of different lengths need
    weights: with the `B_r` samples of process `r` of `R`, the batch's mean is
    `1/R · Σ_r (R · B_r / B) · mean_r`.
    """
    rank, processes = dist.get_rank(), dist.get_world_size()
    mine = slice(rank, None, processes)
    share = len(y[mine]) * processes / len(y)
    (share * objective(x[mine], y[mine])).backward()


def train(arguments: argparse.Namespace) -> None:
    """Takes steps from the checkpoint on, if there is one, and writes one after each."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    objective = DistributedDataParallel(Penalized(model.double(), 0.01))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    begin = 0
    if os.path.exists(arguments.checkpoint):
        begin, parameters, state = torch.load(arguments.checkpoint)
        model.load_state_dict(parameters)
        optimizer.load_state_dict(state)
    images, labels = (torch.from_numpy(array) for array in rg.digits())
    for step in range(begin, arguments.steps):
        # The batch follows from the step alone, for every number of processes.
        order = torch.Generator().manual_seed(step)
        batch = torch.randperm(len(labels), generator=order)[: arguments.batch]
        optimizer.zero_grad()
        gradient(objective, images[batch].double(), labels[batch])
        optimizer.step()
        if dist.get_rank() == 0:
            written = arguments.checkpoint + ".new"
            torch.save((step + 1, model.state_dict(), optimizer.state_dict()), written)
            os.replace(written, arguments.checkpoint)
            print(f"step {step + 1}", flush=True)
    # None leaves while another still needs it.
    dist.barrier()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="where to write, and to go on from")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for the others")
    arguments = parser.parse_args()
    # A process that is lost ends the others by an error: at once where its connections break, after
    # the timeout where it hangs.
    dist.init_process_group("gloo", timeout=timedelta(seconds=arguments.timeout))
    try:
        train(arguments)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
