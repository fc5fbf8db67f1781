"""A training step with a Jacobian penalty in PyTorch: relugrad.torch beside double backpropagation.

    pip install ./python torch numpy
    python3 benches/peers/penalty_step.py

The same modules, data and optimizer (SGD) in float32; the loss is cross-entropy + 0.01 · mean ‖J‖_F². Contenders are
timed in turns, so that a disturbance of the machine hits all alike, and each is run alone in a process of its own for
the growth of its peak memory over that of the process before its first step. The penalty's value is compared.

  rows      a loop over the logits with autograd.grad(create_graph=True)
  vmap      torch.func.vmap over torch.func.jacrev
  relugrad  relugrad.torch.gram on the engine
  closed    the same with backend="torch", the closed forms by PyTorch's own kernels

With --crossing it measures what a call costs beside its work, on a network of 8-8-2 with one sample.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--nets", default="mlp,lenet,resnet", help="names with commas: mlp, small, lenet, resnet")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=11, help="timed runs of each contender")
parser.add_argument("--crossing", action="store_true", help="measure the cost of a call instead")
parser.add_argument("--alone", nargs=2, metavar=("NET", "CONTENDER"), help=argparse.SUPPRESS)
options = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = str(options.threads)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

import torch
import torch.nn.functional as F
from torch import nn

import relugrad as rg

torch.set_num_threads(options.threads)


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016), batch norm folded."""

    def __init__(self, inputs, outputs):
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def mlp(*widths):
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )


def resnet():
    blocks = [Block(16, 16), Block(16, 32), Block(32, 64)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *blocks, *head)


NETS = {
    "mlp": ("784-512-512-10, batch 128", lambda: mlp(784, 512, 512, 10), (128, 784)),
    "small": ("64-128-128-10, batch 64", lambda: mlp(64, 128, 128, 10), (64, 64)),
    "lenet": ("LeNet, batch 64", lenet, (64, 1, 28, 28)),
    "resnet": ("CIFAR ResNet-8 (16, 32, 64), batch 32", resnet, (32, 3, 32, 32)),
}


def rows(model, x):
    x = x.clone().requires_grad_()
    f = model(x)
    j = [torch.autograd.grad(f[:, k].sum(), x, create_graph=True)[0].flatten(1) for k in range(f.shape[1])]
    return f, torch.stack(j, 1).square().sum((1, 2)).mean()


def vmap(model, x):
    parameters = dict(model.named_parameters())

    def twice(x):
        f = torch.func.functional_call(model, parameters, (x[None],))[0]
        return f, f

    j, f = torch.func.vmap(torch.func.jacrev(twice, has_aux=True))(x)
    return f, j.flatten(1).square().sum(1).mean()


def relugrad(model, x, backend="engine"):
    f, g = rg.torch.gram(model, x, backend=backend)
    return f, g.diagonal(dim1=1, dim2=2).sum(1).mean()


CONTENDERS = {
    "rows": rows,
    "vmap": vmap,
    "relugrad": relugrad,
    "closed": lambda model, x: relugrad(model, x, "torch"),
}


def stepper(net, contender):
    torch.manual_seed(0)
    _, make, shape = NETS[net]
    model, x = make(), torch.randn(shape)
    y = torch.randint(0, 10, shape[:1])
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)

    def step():
        optimizer.zero_grad()
        f, penalty = CONTENDERS[contender](model, x)
        (F.cross_entropy(f, y) + 0.01 * penalty).backward()
        optimizer.step()
        return penalty.item()

    return step


def peak():
    """Peak memory of this program in MiB. (What getrusage tells begins with that of the process which started it.)"""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def alone(net, contender):
    """Growth of the peak memory in MiB by five steps, over that of a plain step of a tiny network."""
    plain = mlp(4, 4, 2)
    F.cross_entropy(plain(torch.randn(2, 4)), torch.tensor([0, 1])).backward()
    rg.torch.gram(plain, torch.randn(2, 4))[1].sum().backward()
    step, before = stepper(net, contender), peak()
    for _ in range(5):
        step()
    print(json.dumps(peak() - before))


def measured(net):
    steps = {contender: stepper(net, contender) for contender in CONTENDERS}
    values = [step() for step in steps.values()]
    assert max(values) - min(values) < 1e-3 * max(values), values
    times = {contender: [] for contender in steps}
    for _ in range(options.rounds):
        for contender, step in steps.items():
            start, count = time.perf_counter(), 0
            while count < 1 or time.perf_counter() - start < 0.1:
                step()
                count += 1
            times[contender].append((time.perf_counter() - start) / count)
    return {contender: 1e3 * statistics.median(found) for contender, found in times.items()}


def memory(net, contender):
    command = [sys.executable, __file__, "--threads", str(options.threads), "--alone", net, contender]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def crossing():
    """Microseconds of a call with and without the engine's own work, medians."""
    model, x = mlp(8, 8, 2), torch.randn(1, 8)
    network = rg.torch.network(model, x)
    array = x.numpy()

    def engine():
        trace = network.trace(array)
        trace.gram()
        return trace.logits

    def median(call):
        found = []
        for _ in range(2000):
            start = time.perf_counter()
            call()
            found.append(1e6 * (time.perf_counter() - start))
        return statistics.median(found)

    with torch.no_grad():
        call, work, forward = median(lambda: rg.torch.gram(model, x)), median(engine), median(lambda: model(x))
    print(f"gram: {call:.1f} µs, of which NumPy and engine {work:.1f} µs; the module's own forward {forward:.1f} µs")


def main():
    if options.alone:
        return alone(*options.alone)
    if options.crossing:
        return crossing()
    print("| network | " + " | ".join(f"{name} ms | MiB" for name in CONTENDERS) + " | time | memory |")
    print("| --- |" + " ---: |" * (2 * len(CONTENDERS) + 2))
    for net in options.nets.split(","):
        times = measured(net)
        sizes = {contender: memory(net, contender) for contender in CONTENDERS}
        best = min(times["rows"], times["vmap"])
        least = min(sizes["rows"], sizes["vmap"])
        cells = [f"{times[c]:.2f} | {sizes[c]:.0f}" for c in CONTENDERS]
        # What is less than the noise of the allocator has no ratio.
        memory_ratio = f"{sizes['relugrad'] / least:.2f}" if least > 10 else "–"
        ratios = [f"{times['relugrad'] / best:.2f}", memory_ratio]
        print(f"| {NETS[net][0]} | " + " | ".join(cells + ratios) + " |", flush=True)


main()
