"""The workloads of `relugrad bench` in PyTorch and JAX, side by side with relugrad on the same weights.

    pip install -r benches/peers/requirements.txt
    cargo build --release -p relugrad-cli
    python3 benches/peers/peers.py --net 784-512-512-10 --batch 128

Every contender computes the same numbers in float32 from the same random weights and data; the norm of all outputs is
compared with relugrad's. Contenders are timed in turns, so that a disturbance of the machine hits all alike. What each
contender is:

  torch            as users write it: double backpropagation (create_graph=True), eager
  torch.func       vmap, jacrev, jvp and grad of torch.func, eager
  torch masked     products with the gates' masks written by hand, one ordinary backward pass, eager
  torch compiled   the same under torch.compile
  jax              grad, jacrev and jvp under jit
  jax masked       products with the gates' masks written by hand under jit
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--net", default="784-512-512-10", help="widths with dashes, or lenet")
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=15, help="timed runs of each contender")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--step", type=float, default=1.5, help="CURE's step h")
parser.add_argument("--lambda", dest="weight", type=float, default=0.1, help="weight of the penalty")
parser.add_argument("--workloads", default="", help="names with commas; all by default")
parser.add_argument("--contenders", default="", help="names with commas; all by default")
parser.add_argument("--weights", help="directory of raw parameters and data instead of random ones")
parser.add_argument("--relugrad", default="target/release/relugrad", help="the command")
parser.add_argument("--json", help="file to append the raw results to")
options = parser.parse_args()

os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={options.threads}"
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(options.threads)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

import jax
import jax.numpy as jnp
import numpy as np
import torch

torch.set_num_threads(options.threads)

STEPS = ["plain-step", "input-gradient-step", "jacobian-step", "cross-lipschitz-step", "hessian-frobenius-step", "cure-step"]
WORKLOADS = STEPS[:2] + ["jacobian"] + STEPS[2:5] + ["hvp", "hessian-frobenius"] + STEPS[5:]
LENET = options.net == "lenet"


# Weights and data.


def shapes():
    if LENET:
        return [(16, 1, 5, 5), (32, 16, 5, 5), (512, 1568), (10, 512)]
    widths = [int(width) for width in options.net.split("-")]
    return [(n, m) for m, n in zip(widths, widths[1:])]


def draw(folder):
    random = np.random.default_rng(options.seed)
    features = 784 if LENET else int(options.net.split("-")[0])
    for i, shape in enumerate(shapes()):
        fan = int(np.prod(shape[1:]))
        (random.standard_normal(shape) * np.sqrt(2 / fan)).astype("<f4").tofile(f"{folder}/w{i}.bin")
        np.zeros(shape[0], "<f4").tofile(f"{folder}/b{i}.bin")
    for name in "xv":
        random.standard_normal((options.batch, features)).astype("<f4").tofile(f"{folder}/{name}.bin")
    random.integers(0, shapes()[-1][0], options.batch).astype("<i8").tofile(f"{folder}/y.bin")


def load(folder):
    parameters = []
    for i, shape in enumerate(shapes()):
        parameters.append(np.fromfile(f"{folder}/w{i}.bin", "<f4").reshape(shape))
        parameters.append(np.fromfile(f"{folder}/b{i}.bin", "<f4"))
    rows = [np.fromfile(f"{folder}/{name}.bin", "<f4").reshape(options.batch, -1) for name in "xv"]
    return parameters, rows[0], rows[1], np.fromfile(f"{folder}/y.bin", "<i8")


# JAX: the network, ordinary and by hand.


def jax_logits(parameters, x):
    """Logits of one sample."""
    if LENET:
        x = x.reshape(1, 1, 28, 28)
        for w, b in (parameters[:2], parameters[2:4]):
            x = jax.lax.conv_general_dilated(x, w, (1, 1), [(2, 2), (2, 2)]) + b[:, None, None]
            x = jax.lax.reduce_window(jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x, parameters = x.reshape(-1), parameters[4:]
    for w, b in zip(parameters[:-2:2], parameters[1:-2:2]):
        x = jax.nn.relu(w @ x + b)
    return parameters[-2] @ x + parameters[-1]


def jax_loss(f, y):
    return jax.nn.logsumexp(f) - f[y]


def jax_batch_logits(parameters, x):
    """Logits and masks of a batch of a dense network."""
    masks = []
    for w, b in zip(parameters[:-2:2], parameters[1:-2:2]):
        z = x @ w.T + b
        masks.append((z > 0).astype(z.dtype))
        x = z * masks[-1]
    return x @ parameters[-2].T + parameters[-1], masks


def jax_down(parameters, masks, c):
    """Cotangents [B, R, K] to the input."""
    for w, mask in zip(parameters[-2::-2], masks[::-1] + [None]):
        c = c @ w
        c = c if mask is None else c * mask[:, None]
    return c


def jax_up(parameters, masks, t):
    """Tangents [B, R, D] to the logits."""
    for w, mask in zip(parameters[::2], masks + [None]):
        t = t @ w.T
        t = t if mask is None else t * mask[:, None]
    return t


def jax_hand_jacobian(parameters, masks):
    identity = parameters[-2][None] * masks[-1][:, None]
    return jax_down(parameters[:-2], masks[:-1], identity) if len(masks) > 0 else identity


def frobenius_of_hessian(xp, p, gram):
    """‖H‖_F² = tr(S G S G) of each sample."""
    s = p[:, :, None] * xp.eye(p.shape[1], dtype=p.dtype) - p[:, :, None] * p[:, None, :]
    sg = s @ gram
    return (sg * sg.swapaxes(1, 2)).sum((1, 2))


def penalty_of_jacobian(xp, workload, j, p):
    if workload == "jacobian-step":
        return (j * j).sum((1, 2))
    if workload == "cross-lipschitz-step":
        k = j.shape[1]
        return 2 * k * (j * j).sum((1, 2)) - 2 * (j.sum(1) ** 2).sum(1)
    return frobenius_of_hessian(xp, p, j @ j.swapaxes(1, 2))


def jax_ordinary(workload, x, v, y):
    loss = lambda parameters, x, y: jax_loss(jax_logits(parameters, x), y)
    gradient = jax.vmap(jax.grad(loss, 1), (None, 0, 0))
    jacobian = jax.vmap(jax.jacrev(jax_logits, 1), (None, 0))
    logits = jax.vmap(jax_logits, (None, 0))

    def objective(parameters):
        value = jax.vmap(loss, (None, 0, 0))(parameters, x, y).mean()
        if workload == "plain-step":
            return value
        if workload == "input-gradient-step":
            penalty = (gradient(parameters, x, y) ** 2).sum(1)
        elif workload == "cure-step":
            g = gradient(parameters, x, y)
            z = jnp.sign(jax.lax.stop_gradient(g))
            z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
            penalty = ((gradient(parameters, x + options.step * z, y) - g) ** 2).sum(1)
        else:
            p = jax.nn.softmax(logits(parameters, x))
            penalty = penalty_of_jacobian(jnp, workload, jacobian(parameters, x), p)
        return value + options.weight * penalty.mean()

    if workload == "jacobian":
        return jacobian
    if workload == "hvp":
        product = lambda parameters, x, v, y: jax.jvp(lambda x: jax.grad(loss, 1)(parameters, x, y), (x,), (v,))[1]
        return lambda parameters, x: jax.vmap(product, (None, 0, 0, 0))(parameters, x, v, y)
    if workload == "hessian-frobenius":

        def norm(parameters, x):
            j, p = jacobian(parameters, x), jax.nn.softmax(logits(parameters, x))
            return jnp.sqrt(frobenius_of_hessian(jnp, p, j @ j.swapaxes(1, 2)))

        return norm
    return lambda parameters, x: jax.value_and_grad(objective)(parameters)


def jax_masked(workload, x, v, y):
    if LENET:
        return None

    def gradient(parameters, x):
        f, masks = jax_batch_logits(parameters, x)
        r = jax.nn.softmax(f) - jax.nn.one_hot(y, f.shape[1])
        return f, jax_down(parameters, masks, r[:, None])[:, 0]

    def objective(parameters):
        f, masks = jax_batch_logits(parameters, x)
        masks = [jax.lax.stop_gradient(mask) for mask in masks]
        value = jax.vmap(jax_loss)(f, y).mean()
        if workload == "plain-step":
            return value
        if workload == "input-gradient-step":
            penalty = (gradient(parameters, x)[1] ** 2).sum(1)
        elif workload == "cure-step":
            g = gradient(parameters, x)[1]
            z = jnp.sign(jax.lax.stop_gradient(g))
            z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
            penalty = ((gradient(parameters, x + options.step * z)[1] - g) ** 2).sum(1)
        else:
            penalty = penalty_of_jacobian(jnp, workload, jax_hand_jacobian(parameters, masks), jax.nn.softmax(f))
        return value + options.weight * penalty.mean()

    if workload == "jacobian":
        return lambda parameters, x: jax_hand_jacobian(parameters, jax_batch_logits(parameters, x)[1])
    if workload == "hvp":

        def product(parameters, x):
            f, masks = jax_batch_logits(parameters, x)
            u, p = jax_up(parameters, masks, v[:, None])[:, 0], jax.nn.softmax(f)
            u = p * u - p * (p * u).sum(1, keepdims=True)
            return jax_down(parameters, masks, u[:, None])[:, 0]

        return product
    if workload == "hessian-frobenius":

        def norm(parameters, x):
            f, masks = jax_batch_logits(parameters, x)
            j = jax_hand_jacobian(parameters, masks)
            return jnp.sqrt(frobenius_of_hessian(jnp, jax.nn.softmax(f), j @ j.swapaxes(1, 2)))

        return norm
    return lambda parameters, x: jax.value_and_grad(objective)(parameters)


# PyTorch.


def torch_logits(parameters, x):
    """Logits of a batch."""
    if LENET:
        x = x.reshape(-1, 1, 28, 28)
        for w, b in (parameters[:2], parameters[2:4]):
            x = torch.nn.functional.max_pool2d(torch.relu(torch.nn.functional.conv2d(x, w, b, padding=2)), 2)
        x, parameters = x.reshape(x.shape[0], -1), parameters[4:]
    for w, b in zip(parameters[:-2:2], parameters[1:-2:2]):
        x = torch.relu(torch.nn.functional.linear(x, w, b))
    return torch.nn.functional.linear(x, parameters[-2], parameters[-1])


def torch_losses(f, y):
    return torch.nn.functional.cross_entropy(f, y, reduction="none")


def torch_jacobian(parameters, x):
    x = x.detach().requires_grad_()
    f = torch_logits(parameters, x)
    rows = [torch.autograd.grad(f[:, k].sum(), x, create_graph=True)[0] for k in range(f.shape[1])]
    return f, torch.stack(rows, 1)


def torch_step(objective):
    def step(parameters, x):
        value = objective(parameters, x)
        return value.detach(), torch.autograd.grad(value, parameters)

    return step


def torch_ordinary(workload, x, v, y):
    def gradient(parameters, x, create=True):
        x = x.detach().requires_grad_()
        losses = torch_losses(torch_logits(parameters, x), y)
        return losses, torch.autograd.grad(losses.sum(), x, create_graph=create)[0]

    def objective(parameters, x):
        if workload == "plain-step":
            return torch_losses(torch_logits(parameters, x), y).mean()
        if workload in ("input-gradient-step", "cure-step"):
            losses, g = gradient(parameters, x)
            if workload == "cure-step":
                z = torch.sign(g.detach())
                z = z / z.norm(dim=1, keepdim=True)
                g = gradient(parameters, x + options.step * z)[1] - g
            return losses.mean() + options.weight * (g * g).sum(1).mean()
        f, j = torch_jacobian(parameters, x)
        penalty = penalty_of_jacobian(torch, workload, j, torch.softmax(f, 1))
        return torch_losses(f, y).mean() + options.weight * penalty.mean()

    if workload == "jacobian":
        return lambda parameters, x: torch_jacobian(parameters, x)[1].detach()
    if workload == "hvp":

        def product(parameters, x):
            x = x.detach().requires_grad_()
            g = torch.autograd.grad(torch_losses(torch_logits(parameters, x), y).sum(), x, create_graph=True)[0]
            return torch.autograd.grad(g, x, v)[0]

        return product
    if workload == "hessian-frobenius":

        def norm(parameters, x):
            f, j = torch_jacobian(parameters, x)
            j, p = j.detach(), torch.softmax(f.detach(), 1)
            return frobenius_of_hessian(torch, p, j @ j.swapaxes(1, 2)).clamp(min=0).sqrt()

        return norm
    return torch_step(objective)


def torch_func(workload, x, v, y):
    func = torch.func

    def sample_logits(parameters, x):
        return torch_logits(parameters, x[None])[0]

    def loss(parameters, x, y):
        f = sample_logits(parameters, x)
        return torch.logsumexp(f, 0) - (f * torch.nn.functional.one_hot(y, f.shape[0])).sum()

    gradient = func.vmap(func.grad(loss, 1), (None, 0, 0))
    jacobian = func.vmap(func.jacrev(sample_logits, 1), (None, 0))

    def objective(parameters, x):
        f = torch_logits(parameters, x)
        value = torch_losses(f, y).mean()
        if workload == "plain-step":
            return value
        if workload == "input-gradient-step":
            penalty = (gradient(parameters, x, y) ** 2).sum(1)
        elif workload == "cure-step":
            g = gradient(parameters, x, y)
            z = torch.sign(g.detach())
            z = z / z.norm(dim=1, keepdim=True)
            penalty = ((gradient(parameters, x + options.step * z, y) - g) ** 2).sum(1)
        else:
            penalty = penalty_of_jacobian(torch, workload, jacobian(parameters, x), torch.softmax(f, 1))
        return value + options.weight * penalty.mean()

    if workload == "jacobian":
        return jacobian
    if workload == "hvp":
        product = lambda parameters, x, v, y: func.jvp(lambda x: func.grad(loss, 1)(parameters, x, y), (x,), (v,))[1]
        return lambda parameters, x: func.vmap(product, (None, 0, 0, 0))(parameters, x, v, y)
    if workload == "hessian-frobenius":

        def norm(parameters, x):
            j, p = jacobian(parameters, x), torch.softmax(torch_logits(parameters, x), 1)
            return frobenius_of_hessian(torch, p, j @ j.swapaxes(1, 2)).clamp(min=0).sqrt()

        return norm
    step = func.grad_and_value(objective)
    return lambda parameters, x: step(parameters, x)[::-1]


def torch_masked(workload, x, v, y):
    if LENET:
        return None

    def forward(parameters, x):
        masks = []
        for w, b in zip(parameters[:-2:2], parameters[1:-2:2]):
            z = torch.nn.functional.linear(x, w, b)
            masks.append((z > 0).to(z.dtype))
            x = z * masks[-1]
        return torch.nn.functional.linear(x, parameters[-2], parameters[-1]), masks

    def down(parameters, masks, c):
        for w, mask in zip(parameters[-2::-2], masks[::-1] + [None]):
            c = c @ w
            c = c if mask is None else c * (mask[:, None] if c.ndim == 3 else mask)
        return c

    def up(parameters, masks, t):
        for w, mask in zip(parameters[::2], masks + [None]):
            t = t @ w.T
            t = t if mask is None else t * mask
        return t

    def jacobian(parameters, masks):
        return down(parameters[:-2], masks[:-1], parameters[-2][None] * masks[-1][:, None])

    def gradient(parameters, x):
        f, masks = forward(parameters, x)
        r = torch.softmax(f, 1) - torch.nn.functional.one_hot(y, f.shape[1])
        return f, down(parameters, masks, r)

    def objective(parameters, x):
        if workload == "plain-step":
            return torch_losses(forward(parameters, x)[0], y).mean()
        if workload in ("input-gradient-step", "cure-step"):
            f, g = gradient(parameters, x)
            if workload == "cure-step":
                z = torch.sign(g.detach())
                z = z / z.norm(dim=1, keepdim=True)
                g = gradient(parameters, x + options.step * z)[1] - g
            return torch_losses(f, y).mean() + options.weight * (g * g).sum(1).mean()
        f, masks = forward(parameters, x)
        penalty = penalty_of_jacobian(torch, workload, jacobian(parameters, masks), torch.softmax(f, 1))
        return torch_losses(f, y).mean() + options.weight * penalty.mean()

    def without_gradient(f):
        def run(parameters, x):
            with torch.no_grad():
                return f(parameters, x)

        return run

    if workload == "jacobian":
        return without_gradient(lambda parameters, x: jacobian(parameters, forward(parameters, x)[1]))
    if workload == "hvp":

        def product(parameters, x):
            f, masks = forward(parameters, x)
            u, p = up(parameters, masks, v), torch.softmax(f, 1)
            return down(parameters, masks, p * u - p * (p * u).sum(1, keepdim=True))

        return without_gradient(product)
    if workload == "hessian-frobenius":

        def norm(parameters, x):
            f, masks = forward(parameters, x)
            j = jacobian(parameters, masks)
            return frobenius_of_hessian(torch, torch.softmax(f, 1), j @ j.swapaxes(1, 2)).clamp(min=0).sqrt()

        return without_gradient(norm)
    return torch_step(objective)


# Timing.


def in_jax(make):
    def contender(workload, parameters, x, v, y):
        parameters, x, v, y = [jnp.asarray(p) for p in parameters], jnp.asarray(x), jnp.asarray(v), jnp.asarray(y)
        function = make(workload, x, v, y)
        function = function and jax.jit(function)
        return function and (lambda: jax.block_until_ready(function(parameters, x)))

    return contender


def in_torch(make, compiled=False):
    def contender(workload, parameters, x, v, y):
        parameters = [torch.tensor(p, requires_grad=True) for p in parameters]
        x, v, y = torch.tensor(x), torch.tensor(v), torch.tensor(y)
        function = make(workload, x, v, y)
        if function and compiled:
            function = torch.compile(function)
        return function and (lambda: function(parameters, x))

    return contender


CONTENDERS = {
    "torch": in_torch(torch_ordinary),
    "torch.func": in_torch(torch_func),
    "torch masked": in_torch(torch_masked),
    "torch compiled": in_torch(torch_masked, compiled=True),
    "jax": in_jax(jax_ordinary),
    "jax masked": in_jax(jax_masked),
}


def norm_of(outputs):
    """The norm of all arrays that a contender returns, without the value of the objective."""
    if isinstance(outputs, (tuple, list)) and len(outputs) == 2 and np.ndim(outputs[0]) == 0:
        outputs = outputs[1]
    arrays = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return float(np.sqrt(sum((np.asarray(a.detach() if hasattr(a, "detach") else a, np.float64) ** 2).sum() for a in arrays)))


def relugrad(workload, folder):
    command = [options.relugrad, "bench", "--net", options.net, "--batch", str(options.batch), "--workload", workload,
               "--weights", folder, "--threads", str(options.threads), "--repeat", "7", "--lambda", str(options.weight),
               "--cure-step", str(options.step), "--json", "--check"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(workload, folder, data):
    """Times in milliseconds by contender, after comparing what they compute."""
    ours = relugrad(workload, folder)
    runs, notes = {}, []
    for name, make in CONTENDERS.items():
        if options.contenders and name not in options.contenders.split(","):
            continue
        try:
            run = make(workload, *data)
            if run is None:
                continue
            outputs = [run() for _ in range(3)][-1]
        except Exception as error:
            notes.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}")
            continue
        difference = abs(norm_of(outputs) / ours["check"][1] - 1)
        if difference > 1e-4:
            notes.append(f"{name}: the norm of its outputs differs by {difference:.1e}")
        runs[name] = run
    times = {name: [] for name in ["relugrad", *runs]}
    for _ in range(max(options.rounds // 3, 1)):
        times["relugrad"].append(relugrad(workload, folder)["median_ms"])
        for name, run in runs.items():
            for _ in range(3):
                start = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(all_times) for name, all_times in times.items()}, notes


def main():
    workloads = options.workloads.split(",") if options.workloads else WORKLOADS
    with tempfile.TemporaryDirectory() as folder:
        folder = options.weights or (draw(folder) or folder)
        data = load(folder)
        names = ["relugrad", *CONTENDERS]
        print(f"{options.net}, batch {options.batch}, {options.threads} threads, float32; milliseconds, medians")
        print("| workload | " + " | ".join(names) + " | best of the others | ratio |")
        print("| --- |" + " ---: |" * len(names) + " --- | ---: |")
        for workload in workloads:
            times, notes = measure(workload, folder, data)
            others = {name: t for name, t in times.items() if name != "relugrad"}
            best = min(others, key=others.get)
            cells = [f"{times[name]:.2f}" if name in times else "–" for name in names]
            print(f"| {workload} | " + " | ".join(cells) + f" | {best} | {times['relugrad'] / others[best]:.2f} |", flush=True)
            for note in notes:
                print(f"  {note}", file=sys.stderr)
            if options.json:
                with open(options.json, "a") as file:
                    file.write(json.dumps({"net": options.net, "batch": options.batch, "workload": workload, "ms": times}) + "\n")


main()
