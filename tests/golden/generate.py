#!/usr/bin/env python3
"""Golden cases for relugrad, by general automatic differentiation.

Every expected number comes from PyTorch in float64: Jacobians and Hessians from
`torch.autograd.functional`, input gradients from `torch.autograd.grad(create_graph=True)`, and parameter
gradients of penalties by differentiating through those once more (double and triple backpropagation).
Nothing here uses a closed form in activation patterns: that is what the cases are there to test.

    command    python3 tests/golden/generate.py     (from the root of the repository; ten seconds)
    writes     tests/golden/cases/NAME.json, each with the versions and the seed that made it
    versions   Python 3.11.7, PyTorch 2.15.0, NumPy 2.4.6
    seed       2007_02209 + 100 * (position in CASES, from 0) + the case's `redraw`

Numbers are written with `repr`: 17 digits, every float64 exact. Parameters, inputs and directions are
multiples of 1/256 (slope and smoothing of 0.1 excepted), so float32 runs see the very same network.

Layout of a case (B samples, D inputs, K logits):

    name, made_by: {python, torch, numpy, seed}
    network: {inputs: D, layers: [
        {kind: "dense", weight: out×in, bias: [out] or null} | {kind: "relu"} | {kind: "abs"}
        | {kind: "leaky_relu", slope} | {kind: "prelu", slope: [units]} ]}
    loss:    {kind: "softmax_cross_entropy", label_smoothing} | {kind: "logistic"} | {kind: "squared_error"}
    targets: {classes: [B]} | {probabilities: B×K} | {values: B×K}
    inputs: B×D, tangent: B×D (v), cotangent: B×K (u)
    expected:
        logits B×K, loss B, jacobian B×K×D, jvp B×K (J v), vjp B×D (Jᵀ u), gram B×K×K (J Jᵀ),
        input_gradient B×D, hvp B×D (H v), hessian B×D×D,
        hessian_eigenvalues B×min(K, D), largest first
        loss_gradient: gradient of the batch mean of the loss, one array per parameter in the order of the
            layers (dense: weight, then bias if there is one; prelu: slope)
        penalties: {NAME: {values: B, gradient: as loss_gradient, of the batch mean of the penalty}}
        omitted: {NAME: reason}, the penalties that are undefined or not differentiable at these points

The penalties are defined in `PENALTIES` below, per sample and unscaled.

Points are drawn until they are regular (see `irregularity`): every pre-activation at least 1e-2 from its
kink, also at `x + h z` for CURE; entries of the input gradient away from zero; leading eigenvalues distinct.
Each gradient is then compared with central differences of the values, and the worst error is printed.
"""

import json
import platform
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.functional import hessian, hvp, jacobian

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # one order of summation: the same bits on each run

SEED = 2007_02209
BATCH = 3
CURE_STEP = 1.5
MARGIN = 1e-2  # least distance to a kink, and least relative gap
DIFFERENCE_TOLERANCE = 1e-7


# --- networks ---------------------------------------------------------------------------------------------


def forward(layers, parameters, x):
    """Logits at one input `x: [D]`, and the pre-activations of all gates in one vector."""
    parameters = iter(parameters)
    pre_activations = []
    for layer in layers:
        kind = layer["kind"]
        if kind != "dense":
            pre_activations.append(x)
        if kind == "dense":
            x = F.linear(x, next(parameters), None if layer["bias"] is None else next(parameters))
        elif kind == "relu":
            x = F.relu(x)
        elif kind == "leaky_relu":
            x = F.leaky_relu(x, layer["slope"])
        elif kind == "prelu":
            x = F.prelu(x[None], next(parameters))[0]  # with a batch axis, else the slope must be one number
        elif kind == "abs":
            x = torch.abs(x)
    return x, torch.cat([*pre_activations, torch.empty(0)])


def parameters_of(layers):
    """The parameter arrays, in the order of the layers."""
    arrays = []
    for layer in layers:
        names = {"dense": ["weight", "bias"], "prelu": ["slope"]}.get(layer["kind"], [])
        arrays += [layer[name] for name in names if layer[name] is not None]
    return [torch.tensor(array, requires_grad=True) for array in arrays]


def loss_of(kind, smoothing, logits, target):
    """Loss of one sample."""
    if kind == "softmax_cross_entropy":
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    if kind == "logistic":
        return F.binary_cross_entropy_with_logits(logits[0], target.to(logits.dtype))
    return 0.5 * F.mse_loss(logits, target, reduction="sum")


# --- one sample -------------------------------------------------------------------------------------------


class Point:
    """A network with its loss at one input, and the derivatives there; all carry the graph to the parameters."""

    def __init__(self, case, parameters, index):
        self.case, self.parameters, self.index = case, parameters, index
        self.x = torch.tensor(case["inputs"][index], requires_grad=True)
        name, values = next(iter(case["targets"].items()))
        self.target = torch.tensor(values[index])

    def logits(self, x):
        return forward(self.case["network"]["layers"], self.parameters, x)[0]

    def pre_activations(self, x):
        return forward(self.case["network"]["layers"], self.parameters, x)[1]

    def loss(self, x):
        loss = self.case["loss"]
        return loss_of(loss["kind"], loss.get("label_smoothing", 0.0), self.logits(x), self.target)

    def probabilities(self, x):
        logits = self.logits(x)
        return torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, 0)

    def gradient(self, x):
        """Input gradient at `x`, which may itself depend on the parameters."""
        return torch.autograd.grad(self.loss(x), x, create_graph=True)[0]

    @cached_property
    def g(self):
        return self.gradient(self.x)

    @cached_property
    def J(self):
        return jacobian(self.logits, self.x, create_graph=True)

    @cached_property
    def H(self):
        return hessian(self.loss, self.x, create_graph=True)

    @cached_property
    def probability_jacobian(self):
        return jacobian(self.probabilities, self.x, create_graph=True)

    def sign_direction(self):
        return unit(torch.sign(self.g))

    def gradient_direction(self):
        return unit(self.g)


def unit(v):
    return v / v.norm()


# --- penalties --------------------------------------------------------------------------------------------


def cross_lipschitz(J):
    """The sum over ordered pairs of classes of `‖J_j − J_k‖²`."""
    return sum(((row - other) ** 2).sum() for row in J for other in J)


def cure(at, z):
    """`‖∇ℓ(x + h z) − ∇ℓ(x)‖²`."""
    return ((at.gradient(at.x + CURE_STEP * z) - at.g) ** 2).sum()


# Each takes the point and, for directions that are held constant, the point that fixes the direction.
PENALTIES = {
    "input-gradient": lambda at, held: (at.g**2).sum(),
    "input-gradient-l2": lambda at, held: at.g.norm(),
    "input-gradient-l1": lambda at, held: at.g.abs().sum(),
    "input-gradient-linf": lambda at, held: at.g.abs().max(),
    "jacobian": lambda at, held: (at.J**2).sum(),
    "jacobian-spectral": lambda at, held: torch.linalg.matrix_norm(at.J, 2) ** 2,
    "jacobian-nuclear": lambda at, held: torch.linalg.svdvals(at.J).sum(),
    "jacobian-probabilities": lambda at, held: (at.probability_jacobian**2).sum(),
    "cross-lipschitz": lambda at, held: cross_lipschitz(at.J),
    "curvature-trace": lambda at, held: at.H.trace(),
    "curvature-frobenius": lambda at, held: (at.H**2).sum(),
    "curvature-spectral": lambda at, held: torch.linalg.matrix_norm(at.H, 2),
    "curvature-directional": lambda at, held: ((at.H @ at.gradient_direction()) ** 2).sum(),
    "cure": lambda at, held: cure(at, held.sign_direction().detach()),
    "cure-gradient": lambda at, held: cure(at, at.gradient_direction()),
    "cure-gradient-held": lambda at, held: cure(at, held.gradient_direction().detach()),
}

NO_PROBABILITIES = {"jacobian-probabilities": "squared error has no probabilities"}


# --- cases ------------------------------------------------------------------------------------------------


def dense(units, bias=True):
    return {"kind": "dense", "units": units, "bias": bias}


RELU, LEAKY, PRELU, ABS = ({"kind": kind} for kind in ["relu", "leaky_relu", "prelu", "abs"])

# `dead` lists (dense layer, unit) whose bias is set so low that the ReLU above never opens.
# `redraw` picks other random numbers where the first ones saturate the softmax, cross few
# boundaries or repeat a class.
CASES = [
    dict(name="affine", inputs=6, layers=[dense(5)], targets="classes"),
    dict(name="relu", inputs=5, layers=[dense(7), RELU, dense(5)], targets="classes"),
    dict(
        name="relu_without_biases",
        inputs=4,
        layers=[dense(7, bias=False), RELU, dense(6, bias=False), RELU, dense(3, bias=False)],
        targets="classes",
    ),
    dict(
        name="relu_two_classes",
        inputs=4,
        layers=[dense(6), RELU, dense(5), RELU, dense(2)],
        targets="classes",
    ),
    dict(
        name="relu_dead_units",
        inputs=4,
        layers=[dense(7), RELU, dense(6), RELU, dense(3)],
        dead=[(0, 1), (0, 4), (1, 2)],
        targets="classes",
    ),
    dict(
        name="relu_logistic",
        inputs=4,
        layers=[dense(7), RELU, dense(5), RELU, dense(1)],
        loss="logistic",
        targets="classes",
    ),
    dict(
        name="leaky_relu_probabilities",
        inputs=5,
        layers=[dense(6), LEAKY, dense(6), LEAKY, dense(4)],
        targets="probabilities",
    ),
    dict(
        name="prelu_label_smoothing",
        inputs=5,
        layers=[dense(6), PRELU, dense(6), PRELU, dense(5)],
        smoothing=0.1,
        targets="classes",
    ),
    dict(
        name="abs_squared_error",
        inputs=4,
        layers=[dense(6), ABS, dense(3)],
        loss="squared_error",
        targets="values",
        omitted=NO_PROBABILITIES,
    ),
    dict(
        name="mixed_gates_five_layers",
        inputs=6,
        layers=[dense(7), RELU, dense(6), PRELU, dense(6, bias=False), ABS, dense(6), LEAKY, dense(4)],
        targets="classes",
        redraw=3,
    ),
    dict(
        name="more_logits_than_inputs",
        inputs=3,
        layers=[dense(6), LEAKY, dense(5)],
        targets="probabilities",
        redraw=7,
    ),
    dict(
        name="prelu_at_output",
        inputs=5,
        layers=[dense(6), RELU, dense(4), PRELU],
        targets="classes",
        redraw=2,
    ),
    dict(
        name="relu_at_output",
        inputs=4,
        layers=[dense(6, bias=False), LEAKY, dense(4), RELU],
        loss="squared_error",
        targets="values",
        omitted=NO_PROBABILITIES
        | {"jacobian-nuclear": "inactive logits make rows of J zero: singular values at 0 are a kink"},
    ),
]


def dyadic(array):
    """Nearest multiples of 1/256, as nested lists."""
    return (np.round(np.asarray(array) * 256) / 256 + 0.0).tolist()


def draw_layers(spec, rng):
    """The layers of a case with random parameters."""
    units, layers, dense_index = spec["inputs"], [], 0
    for layer in spec["layers"]:
        layer = dict(layer)
        if layer["kind"] == "dense":
            fan_in, units, has_bias = units, layer.pop("units"), layer["bias"]
            layer["weight"] = dyadic(rng.normal(size=(units, fan_in)) * np.sqrt(2 / fan_in))
            layer["bias"] = dyadic(rng.normal(size=units) * 0.3) if has_bias else None
            for unit_index in [unit for at, unit in spec.get("dead", []) if at == dense_index]:
                layer["bias"][unit_index] = -16.0
            layer = {name: layer[name] for name in ["kind", "weight", "bias"]}
            dense_index += 1
        elif layer["kind"] == "leaky_relu":
            layer["slope"] = 0.1
        elif layer["kind"] == "prelu":
            layer["slope"] = dyadic(rng.normal(0.2, 0.3, size=units))
        layers.append(layer)
    return layers, units


def draw_target(spec, outputs, rng):
    """The target of one sample."""
    if spec["targets"] == "classes":
        return int(rng.integers(max(outputs, 2)))
    if spec["targets"] == "probabilities":
        return (rng.multinomial(64, rng.dirichlet(np.ones(outputs))) / 64).tolist()
    return dyadic(rng.normal(size=outputs))


def irregularity(point, omitted):
    """Why some penalty is not smooth, or nearly so, at this point; `None` where all are."""
    x = point.x
    directions = [torch.zeros_like(x), point.sign_direction(), point.gradient_direction()]
    if any((point.pre_activations(x + CURE_STEP * z).abs() < MARGIN).any() for z in directions):
        return "a pre-activation near its kink"
    g = point.g.abs().sort(descending=True).values
    if g[0] < MARGIN or g[-1] < MARGIN * g[0] or near(g[0], g[1]):
        return "an entry of the input gradient near zero, or its largest two nearly equal"
    sigma = torch.linalg.svdvals(point.J)
    if len(sigma) > 1 and near(sigma[0] ** 2, sigma[1] ** 2):
        return "the leading singular values of J nearly equal"
    if "jacobian-nuclear" not in omitted and sigma[-1] < MARGIN * sigma[0]:
        return "J nearly rank deficient"
    eigenvalues = torch.linalg.eigvalsh(point.H)
    if near(eigenvalues[-1], eigenvalues[-2]):
        return "the leading eigenvalues of H nearly equal"
    return None


def near(largest, next_largest):
    return largest - next_largest < MARGIN * largest


def draw_case(spec, seed):
    """A case without its expected values: random parameters, and samples redrawn until they are regular."""
    rng = np.random.default_rng(seed)
    layers, outputs = draw_layers(spec, rng)
    loss = {"kind": spec.get("loss", "softmax_cross_entropy")}
    if loss["kind"] == "softmax_cross_entropy":
        loss["label_smoothing"] = spec.get("smoothing", 0.0)
    case = {
        "name": spec["name"],
        "made_by": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "numpy": np.__version__,
            "seed": seed,
        },
        "network": {"inputs": spec["inputs"], "layers": layers},
        "loss": loss,
        "targets": {spec["targets"]: []},
        "inputs": [],
        "tangent": dyadic(rng.normal(size=(BATCH, spec["inputs"]))),
        "cotangent": dyadic(rng.normal(size=(BATCH, outputs))),
    }
    parameters = parameters_of(layers)
    for sample in range(BATCH):
        for _ in range(1000):
            case["inputs"][sample:] = [dyadic(rng.normal(size=spec["inputs"]))]
            case["targets"][spec["targets"]][sample:] = [draw_target(spec, outputs, rng)]
            reason = irregularity(Point(case, parameters, sample), spec.get("omitted", {}))
            if reason is None:
                break
        else:
            raise RuntimeError(f"{spec['name']}: no regular point; last: {reason}")
    return case


# --- expected values --------------------------------------------------------------------------------------


def batch_mean(values):
    return torch.stack(values).mean()


def parameter_gradient(scalar, parameters):
    """Gradient in each parameter array; zeros where the scalar does not depend on it."""
    return torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)


def expected_of(case, omitted):
    parameters = parameters_of(case["network"]["layers"])
    points = [Point(case, parameters, index) for index in range(BATCH)]
    tangents, cotangents = torch.tensor(case["tangent"]), torch.tensor(case["cotangent"])
    rank = min(points[0].J.shape)
    losses = [at.loss(at.x) for at in points]
    expected = {
        "logits": [at.logits(at.x) for at in points],
        "loss": losses,
        "jacobian": [at.J for at in points],
        "jvp": [torch.func.jvp(at.logits, (at.x,), (v,))[1] for at, v in zip(points, tangents)],
        "vjp": [torch.func.vjp(at.logits, at.x)[1](u)[0] for at, u in zip(points, cotangents)],
        "gram": [at.J @ at.J.T for at in points],
        "input_gradient": [at.g for at in points],
        "hvp": [hvp(at.loss, at.x, v)[1] for at, v in zip(points, tangents)],
        "hessian": [at.H for at in points],
        "hessian_eigenvalues": [torch.linalg.eigvalsh(at.H).flip(0)[:rank] for at in points],
        "loss_gradient": parameter_gradient(batch_mean(losses), parameters),
        "penalties": {},
        "omitted": omitted,
    }
    for name in PENALTIES.keys() - omitted.keys():
        values = [PENALTIES[name](at, at) for at in points]
        gradient = parameter_gradient(batch_mean(values), parameters)
        expected["penalties"][name] = {"values": values, "gradient": gradient}
    expected["penalties"] = {name: expected["penalties"][name] for name in PENALTIES if name not in omitted}
    return plain(expected)


def plain(value):
    """Tensors as nested lists, throughout; finite everywhere."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, torch.Tensor):
        assert torch.isfinite(value).all()
        return (value.detach() + 0.0).tolist()  # + 0.0: no negative zeros
    return value


# --- checks -----------------------------------------------------------------------------------------------


def worst_difference(case, rng, entries=8, step=1e-4):
    """Worst error of the gradients of loss and penalties against central differences, over random entries.

    `(8 (φ(θ+s) − φ(θ−s)) − (φ(θ+2s) − φ(θ−2s))) / 12 s`, relative to the largest entry of the gradient or,
    where that is smaller (it can be zero), to the value.
    """
    layers, expected = case["network"]["layers"], case["expected"]
    base = parameters_of(layers)
    held = [Point(case, base, index) for index in range(BATCH)]

    def means(array, entry, shift):
        moved = [parameter.detach().clone() for parameter in base]
        moved[array].view(-1)[entry] += shift
        points = [Point(case, moved, index) for index in range(BATCH)]
        found = {"loss": batch_mean([at.loss(at.x) for at in points])}
        for name in expected["penalties"]:
            found[name] = batch_mean([PENALTIES[name](at, fixed) for at, fixed in zip(points, held)])
        return {name: value.item() for name, value in found.items()}

    gradients = {name: item["gradient"] for name, item in expected["penalties"].items()}
    gradients["loss"] = expected["loss_gradient"]
    values = means(0, 0, 0.0)
    errors = {name: 0.0 for name in gradients}
    for _ in range(entries):
        array = int(rng.integers(len(base)))
        entry = int(rng.integers(base[array].numel()))
        plus, minus, plus2, minus2 = (means(array, entry, k * step) for k in [1, -1, 2, -2])
        for name, gradient in gradients.items():
            difference = (8 * (plus[name] - minus[name]) - (plus2[name] - minus2[name])) / (12 * step)
            error = abs(difference - np.ravel(gradient[array])[entry])
            largest = max(np.abs(np.ravel(part)).max() for part in gradient)
            errors[name] = max(errors[name], error / max(largest, abs(values[name]), 1e-300))
    worst = max(errors, key=errors.get)
    return errors[worst], worst


def crossings(case):
    """How many samples have another activation pattern at `x + h z`, with CURE's `z = sign(g)/‖sign(g)‖`."""
    parameters = parameters_of(case["network"]["layers"])
    count = 0
    for index in range(BATCH):
        at = Point(case, parameters, index)
        there = at.pre_activations(at.x + CURE_STEP * at.sign_direction())
        count += bool(((there > 0) != (at.pre_activations(at.x) > 0)).any())
    return count


def check_dead(spec, case):
    """The units meant to be dead have zero gradients (row of the weight, and bias), of loss and penalties."""
    expected = case["expected"]
    gradients = [expected["loss_gradient"], *(item["gradient"] for item in expected["penalties"].values())]
    for layer, unit_index in spec.get("dead", []):
        for gradient in gradients:
            weight, bias = gradient[2 * layer : 2 * layer + 2]
            assert not any(weight[unit_index]) and not bias[unit_index], (layer, unit_index)


# --- files ------------------------------------------------------------------------------------------------


def text_of(value, indent=""):
    """JSON with a vector, or a short object, on each line."""
    inner = indent + " "
    if isinstance(value, dict) and any(isinstance(item, (dict, list)) for item in value.values()):
        items = [f"{inner}{json.dumps(name)}: {text_of(item, inner)}" for name, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(inner + text_of(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def main():
    folder = Path(__file__).parent / "cases"
    folder.mkdir(exist_ok=True)
    for position, spec in enumerate(CASES):
        seed = SEED + 100 * position + spec.get("redraw", 0)
        case = draw_case(spec, seed)
        case["expected"] = expected_of(case, spec.get("omitted", {}))
        check_dead(spec, case)
        error, name = worst_difference(case, np.random.default_rng(seed))
        assert error < DIFFERENCE_TOLERANCE, (spec["name"], name, error)
        path = folder / f"{spec['name']}.json"
        path.write_text(text_of(case) + "\n", encoding="utf-8")
        print(
            f"{path.stem:26}{path.stat().st_size:7} bytes   CURE leaves the region in {crossings(case)} of {BATCH}"
            f"   worst difference {error:.1e} ({name})",
            flush=True,
        )


if __name__ == "__main__":
    main()
