#!/usr/bin/env python3
"""Golden ONNX files for relugrad: networks of PyTorch with what general automatic differentiation says of them.

    command    python3 tests/golden/export.py     (from the root of the repository; a minute)
    writes     tests/golden/onnx/NAME.onnx and NAME.json
    versions   in each JSON file under `made_by`
    seed       2007_02209 + the network's place in NETWORKS, from 0, + 1000 for each draw that would not do

Numbers of the JSON files come from PyTorch in float64 by nested `torch.func.jacrev`, with no closed form in
activation patterns. Each file's logits are checked against onnxruntime, or
the reference implementation of ONNX where onnxruntime has no float64 kernel. Gradients are of the batch mean, and stand
under the name and in the layout of the ONNX initialiser that holds the parameter.

Layout (B samples, D inputs, K logits; arrays nested, row-major):
    name, made_by, input_shape (of one sample)
    inputs B×D, tangent B×D (v), cotangent B×K (u), labels B
    expected: logits, loss, jacobian, jvp, vjp, input_gradient, hvp, hessian_eigenvalues (min(K, D), largest first),
        penalties: {NAME: {values: B, gradient: {INITIALISER: array}}}, `loss` among the names
"""

import json
import platform
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call, grad, jacrev

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
warnings.filterwarnings("ignore")

SEED = 2007_02209
BATCH = 2
CURE_STEP = 1.5


class Lambda(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


class Residual(nn.Module):
    """A residual block, with batch normalisation after the convolution or before it."""

    def __init__(self, channels, before):
        super().__init__()
        self.before = before
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=before)

    def forward(self, x):
        if self.before:
            y = self.conv1(self.norm1(F.relu(x)))
            return x + self.conv2(self.norm2(F.relu(y)))
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class Branches(nn.Module):
    """Concatenation, slices, a node used twice, and an input that skips to the output."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 2, 3, padding=1)
        self.head, self.skip = nn.Linear(5 * 16, 3), nn.Linear(32, 3, bias=False)

    def forward(self, x):
        a, b = F.relu(self.a(x)), F.leaky_relu(self.b(x), 0.125)
        y = torch.cat([a, b], dim=1)
        y = y + torch.cat([y[:, 2:], y[:, :2]], dim=1)
        return self.head(y.flatten(1)) + self.skip(x.flatten(1))


class Clipped(nn.Module):
    """Two-sided clips, one-sided ones, and the maximum and minimum of branches."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = torch.maximum(F.hardtanh(self.a(x), -0.5, 0.625), self.b(x))
        y = torch.minimum(y, torch.clamp(2 * self.a(x), min=-0.25))
        return self.c(F.relu6(8 * y))


class Constants(nn.Module):
    """Input normalisation, learned factors and summands, and a shape that the graph computes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.25, -0.5]).view(1, 2, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.5, 2.0]).view(1, 2, 1, 1))
        self.factor = nn.Parameter(torch.tensor([1.5, -0.75]).view(1, 2, 1, 1))
        self.summand = nn.Parameter(torch.tensor([0.125, 0.5]).view(1, 2, 1, 1))
        self.conv, self.head = nn.Conv2d(2, 3, 2), nn.Linear(27, 3)

    def forward(self, x):
        x = (x - self.mean) / self.deviation * self.factor + self.summand
        y = F.relu(self.conv(x))
        return self.head(y.view(y.size(0), -1))


class Sequence(nn.Module):
    """Products along the last of three axes, a mean over one axis, squeezing."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        y = F.relu(self.second(F.relu(self.first(x))))
        return self.head(y.unsqueeze(1).mean(dim=2).squeeze(1))


class NoBatch(nn.Module):
    """An input without a batch axis."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.empty(6, 4)), nn.Parameter(torch.empty(3, 6))

    def forward(self, x):
        return self.b @ F.relu(self.a @ x)


def channels_last():
    return nn.Sequential(
        Lambda(lambda x: x.permute(0, 3, 1, 2)), nn.Conv2d(2, 3, 2), nn.ReLU(),
        Lambda(lambda x: x.permute(0, 2, 3, 1).flatten(1)), nn.Linear(27, 3),
    )


# name: (network, shape of one sample, opset, options)
NETWORKS = {
    "dense": (lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3)), [5], 13, {}),
    "dense_gates": (lambda: nn.Sequential(
        nn.Linear(5, 6), nn.LeakyReLU(0.125), nn.Linear(6, 6), nn.PReLU(6), nn.Linear(6, 5, bias=False),
        Lambda(torch.abs), nn.Linear(5, 3)), [5], 11, {}),
    "lenet": (lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), [1, 8, 8], 17, {}),
    "convolutions": (lambda: nn.Sequential(
        nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(2, 4, 3, stride=2, bias=False), nn.ReLU(),
        nn.Conv2d(4, 4, 2, padding=1, groups=2), nn.PReLU(4), nn.Conv2d(4, 2, 2, dilation=2), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(3)), [2, 5, 5], 13, {}),
    "average_pooling": (lambda: nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, 1, padding=1, count_include_pad=True), nn.Conv2d(3, 4, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), [1, 6, 6], 11, {}),
    "max_pooling": (lambda: nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(3, 2, 1), nn.ReLU(),
        nn.MaxPool2d(2, 2, ceil_mode=True), nn.Flatten(), nn.LazyLinear(3)), [1, 6, 6], 13, {}),
    "residual_after": (lambda: nn.Sequential(
        nn.Conv2d(1, 2, 1), Residual(2, False), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)),
        [1, 4, 4], 17, {"keep": True}),
    "residual_before": (lambda: nn.Sequential(
        nn.Conv2d(1, 2, 1), Residual(2, True), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)),
        [1, 4, 4], 14, {"keep": True}),
    "dense_batch_norm": (lambda: nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3)), [5], 16, {"keep": True}),
    "folded_batch_norm": (lambda: nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(18, 3)), [1, 4, 4], 13, {}),
    "channels_last": (channels_last, [4, 4, 2], 13, {}),
    "softmax": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.Softmax(dim=1)), [5], 13, {"tail": 1}),
    "no_batch": (NoBatch, [4], 13, {"batch": False}),
    "branches": (Branches, [2, 4, 4], 13, {}),
    "clips": (Clipped, [5], 13, {}),
    "constants": (Constants, [2, 4, 4], 9, {}),
    "sequence": (Sequence, [3, 4], 13, {}),
    "signal": (lambda: nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 3)), [2, 8], 15, {}),
    "modern_export": (lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)), [1, 4, 4], 18, {"dynamo": True}),
    "modern_residual": (lambda: nn.Sequential(
        nn.Conv2d(1, 2, 1), Residual(2, False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)),
        [1, 4, 4], 20, {"dynamo": True}),
    "single_precision": (lambda: nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)), [1, 4, 4], 13, {"float": True}),
}


def sixteenths(tensor, random, size):
    """Fills with multiples of 1/256, exact in float32."""
    values = torch.empty_like(tensor).uniform_(-size, size, generator=random)
    with torch.no_grad():
        tensor.copy_((values * 256).round() / 256)


def prepare(make, shape, batch, random):
    network = make().eval()
    network(torch.zeros(([1] if batch else []) + shape))
    for name, parameter in network.named_parameters():
        fan = max(parameter[0].numel() if parameter.dim() > 1 else 1, 1)
        sixteenths(parameter, random, 2.5 / fan**0.5 if parameter.dim() > 1 else 0.75)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 2.0**-16  # exact in the attribute, which is a float32
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            sixteenths(buffer, random, 0.5)
        if name.endswith("running_var"):
            sixteenths(buffer, random, 0.5)
            buffer.abs_().add_(0.25)
    return network


def export(network, shape, opset, options, path):
    batch = options.get("batch", True)
    example = torch.zeros(([1] if batch else []) + shape)
    if options.get("float"):
        network, example = network.float(), example.float()
    common = dict(input_names=["input"], output_names=["logits"], opset_version=opset)
    if options.get("dynamo"):
        torch.onnx.export(network, (example,), str(path), dynamo=True, external_data=False, verbose=False, **common)
    else:
        axes = {"input": {0: "N"}, "logits": {0: "N"}} if batch and opset != 15 else None
        keep = options.get("keep", False)
        training = torch.onnx.TrainingMode.PRESERVE if keep else torch.onnx.TrainingMode.EVAL
        torch.onnx.export(network, (example,), str(path), dynamo=False, dynamic_axes=axes, training=training,
                          do_constant_folding=not keep, **common)
    network.double()


def expected(network, xs, vs, us, labels, shape, options):
    """All expected values, by nested automatic differentiation."""
    batch = options.get("batch", True)
    body = network[:-1] if options.get("tail") else network
    parameters = {name: p.detach().clone() for name, p in body.named_parameters()}
    buffers = dict(body.named_buffers())

    def logits(p, x):
        x = x.reshape(([1] if batch else []) + shape)
        return functional_call(body, {**p, **buffers}, (x,)).flatten()

    def loss(p, x, y):
        return F.cross_entropy(logits(p, x)[None], torch.tensor([y]))

    def terms(p, x, y):
        J = jacrev(logits, argnums=1)(p, x)
        g = grad(loss, argnums=1)(p, x, y)
        H = jacrev(grad(loss, argnums=1), argnums=1)(p, x, y)
        sign = torch.sign(g.detach())
        z = sign / sign.norm()
        moved = grad(loss, argnums=1)(p, x + CURE_STEP * z, y)
        differences = J[:, None] - J[None]
        return {
            "loss": loss(p, x, y), "input-gradient": g @ g, "jacobian": (J * J).sum(),
            "cross-lipschitz": (differences * differences).sum(), "curvature-trace": torch.trace(H),
            "curvature-frobenius": (H * H).sum(), "cure": ((moved - g) ** 2).sum(),
        }

    result = {key: [] for key in ("logits", "loss", "jacobian", "jvp", "vjp", "input_gradient", "hvp", "hessian_eigenvalues")}
    names = list(terms(parameters, xs[0], labels[0]))
    penalties = {name: {"values": [], "gradient": {}} for name in names}
    for x, v, u, y in zip(xs, vs, us, labels):
        f, J = logits(parameters, x), jacrev(logits, argnums=1)(parameters, x)
        H = jacrev(grad(loss, argnums=1), argnums=1)(parameters, x, y)
        eigenvalues = torch.linalg.eigvalsh((H + H.T) / 2).flip(0)[: min(J.shape)]
        values = dict(logits=f, loss=loss(parameters, x, y), jacobian=J, jvp=J @ v, vjp=J.T @ u,
                      input_gradient=grad(loss, argnums=1)(parameters, x, y), hvp=H @ v, hessian_eigenvalues=eigenvalues)
        for key, value in values.items():
            result[key].append(value.tolist())
        for name in names:
            penalties[name]["values"].append(terms(parameters, x, y)[name].item())
    for name in names:
        mean = lambda p: sum(terms(p, x, y)[name] for x, y in zip(xs, labels)) / len(labels)
        penalties[name]["gradient"] = grad(mean)(parameters)
    result["penalties"] = penalties
    return result, parameters


def by_initializer(path, parameters, gradient):
    """The gradient under the names and in the layouts of the file; parameters that were folded away are left out."""
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    found = {}
    for name, value in parameters.items():
        value, g = value.numpy(), gradient[name].numpy()
        for stored, array in arrays.items():
            if stored in found:
                continue
            if array.shape == value.shape and np.array_equal(array, value):
                found[stored] = g.tolist()
                break
            if value.ndim == 2 and array.shape == value.T.shape and np.array_equal(array, value.T):
                found[stored] = g.T.tolist()
                break
            if array.size == value.size and array.ndim != value.ndim and np.array_equal(array.ravel(), value.ravel()):
                found[stored] = g.reshape(array.shape).tolist()
                break
    return found


def evaluator(path):
    """onnxruntime, or where it lacks a float64 kernel the reference implementation of ONNX."""
    try:
        return onnxruntime.InferenceSession(str(path))
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return onnx.reference.ReferenceEvaluator(str(path))


def main():
    folder = Path(__file__).parent / "onnx"
    folder.mkdir(exist_ok=True)
    for place, (name, (make, shape, opset, options)) in enumerate(NETWORKS.items()):
        path = folder / f"{name}.onnx"
        # Drawn again until both samples have a Jacobian that is not small.
        for attempt in range(100):
            seed = SEED + place + 1000 * attempt
            random = torch.Generator().manual_seed(seed)
            network = prepare(make, shape, options.get("batch", True), random)
            d, k = int(np.prod(shape)), 4 if name == "softmax" else 3
            xs, vs, us = torch.empty(BATCH, d), torch.empty(BATCH, d), torch.empty(BATCH, k)
            for array in (xs, vs, us):
                sixteenths(array, random, 1.0)
            labels = [place % k, (place + 1) % k]
            values, parameters = expected(network, xs, vs, us, labels, shape, options)
            sizes = values["penalties"]["jacobian"]["values"] + values["penalties"]["input-gradient"]["values"]
            if min(sizes) > 1e-2:
                break
        else:
            raise RuntimeError(f"no draw of {name} will do")
        export(network, shape, opset, options, path)
        for penalty in values["penalties"].values():
            penalty["gradient"] = by_initializer(path, parameters, penalty["gradient"])
        session = evaluator(path)
        worst = 0.0
        for x, f in zip(xs, values["logits"]):
            x = x.numpy().reshape(([1] if options.get("batch", True) else []) + shape)
            out = session.run(None, {"input": x.astype(np.float32) if options.get("float") else x})[0].ravel()
            f = np.exp(f) / np.exp(f).sum() if options.get("tail") else np.array(f)
            worst = max(worst, np.abs(out - f).max())
        assert worst < (1e-5 if options.get("float") else 1e-12), (name, worst)
        case = {
            "name": name,
            "made_by": {"python": platform.python_version(), "torch": torch.__version__, "onnx": onnx.__version__,
                        "onnxruntime": onnxruntime.__version__, "seed": seed, "opset": opset,
                        "exporter": "dynamo" if options.get("dynamo") else "torchscript"},
            "input_shape": shape, "inputs": xs.tolist(), "tangent": vs.tolist(), "cotangent": us.tolist(),
            "labels": labels, "expected": values,
        }
        (folder / f"{name}.json").write_text(json.dumps(case) + "\n")
        operators = sorted({node.op_type for node in onnx.load(path).graph.node})
        named = len(values["penalties"]["loss"]["gradient"])
        print(f"{name:18} opset {opset:2} {worst:7.1e} {named}/{len(parameters)} parameters: {' '.join(operators)}")


if __name__ == "__main__":
    main()
