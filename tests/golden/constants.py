#!/usr/bin/env python3
"""Golden constants for relugrad: subgraphs without inputs, with what onnxruntime computes of them.

    command    python3 tests/golden/constants.py     (from the root of the repository; a minute)
    writes     tests/golden/constants/subgraphs.json, all files and results in it
    versions   in it under `made_by`, with the seed

Each case is an ONNX file `y = x + F`, in base64, where F is a flat constant that nodes compute from initialisers and
Constant nodes; the result is F, as onnxruntime computes it without optimisation, or ONNX's reference implementation where
onnxruntime has no kernel. Whatever they disagree on, or refuse both, is drawn again.
"""

import base64
import json
import math
import platform
import random
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

SEED = 2007_02209
CASES = 300
OUT = Path(__file__).parent / "constants"

FLOATS = ["float32", "float64", "float16", "bfloat16"]
SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]
CODES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9,
    "float16": 10, "float64": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}
ort.set_default_logger_severity(4)


def dtype(name):
    if name == "bfloat16":
        import ml_dtypes
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class Draw:
    """One case: its nodes, its arrays and what they are called."""

    def __init__(self, rng):
        self.rng, self.nodes, self.arrays, self.count = rng, [], [], 0
        self.opset = rng.choice([7, 9, 10, 11, 12, 13, 14, 15, 17, 18, 20, 21])

    def name(self):
        self.count += 1
        return f"c{self.count}"

    def shape(self, ranks=(0, 1, 1, 2, 2, 3), zero=0.03):
        sizes = [0 if self.rng.random() < zero else self.rng.choice([1, 2, 3, 4]) for _ in range(self.rng.choice(ranks))]
        return sizes

    def values(self, kind, shape, near=None):
        n = math.prod(shape)
        if kind == "bool":
            flat = [self.rng.random() < 0.5 for _ in range(n)]
        elif kind in FLOATS:
            flat = [self.rng.choice([0.0, -0.0, 1.0, -2.5, 0.5, 3.5]) if self.rng.random() < 0.2
                    else self.rng.uniform(-4, 4) for _ in range(n)]
        else:
            low, high = np.iinfo(kind).min, np.iinfo(kind).max
            def whole():
                r = self.rng.random()
                if r < 0.15:
                    return self.rng.choice([low, high, high - 1, low + 1])
                return max(low, self.rng.randint(-7, 7))
            flat = [whole() for _ in range(n)]
        return np.array(flat, dtype=dtype(kind)).reshape(shape)

    def given(self, array):
        """An array of the file: an initialiser or what a Constant node holds."""
        name = self.name()
        array = np.asarray(array)
        raw = self.rng.random() < 0.5 or array.dtype == dtype("bfloat16")
        if raw:
            tensor = numpy_helper.from_array(array, name)
        else:
            code = CODES[str(array.dtype)]
            flat = array.flatten()
            if code == 9:
                flat = flat.astype(np.int32)
            if code == 10:
                flat = flat.view(np.uint16)
            tensor = TensorProto(name=name, data_type=code, dims=array.shape)
            field = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}
            getattr(tensor, field.get(code, "int32_data")).extend(flat.tolist())
        if self.rng.random() < 0.4:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.arrays.append(tensor)
        return name

    def call(self, op, inputs, outputs=1, **attributes):
        names = [self.name() for _ in range(outputs)]
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def axes_as(self, since, op, inputs, axes, **attributes):
        """Axes as an attribute, or from an opset on as an input."""
        if axes is None:
            return self.call(op, inputs, **attributes)
        if self.opset >= since:
            return self.call(op, inputs + [self.given(np.array(axes, dtype=np.int64))], **attributes)
        return self.call(op, inputs, axes=axes, **attributes)

    def kind(self, *kinds):
        return self.rng.choice(kinds)

    def part(self, shape):
        """A shape that broadcasting may meet with `shape`."""
        other = [n if self.rng.random() < 0.6 else 1 for n in shape]
        return other[self.rng.randint(0, len(other)):] if self.rng.random() < 0.4 else other

    def axis(self, rank):
        return self.rng.randint(-rank, rank - 1)

    def axes(self, rank):
        chosen = self.rng.sample(range(rank), self.rng.randint(1, rank))
        return [a - rank if self.rng.random() < 0.4 else a for a in chosen]


def elementwise(d):
    op = d.kind("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod", "Equal", "Less", "Greater", "LessOrEqual",
                "GreaterOrEqual", "And", "Or", "Xor", "Where", "Sum", "Mean")
    shape = d.shape()
    shapes = [d.part(shape), d.part(shape)]
    if op in ("And", "Or", "Xor"):
        kind = "bool"
    elif op in ("Mean", "Sum"):
        kind = d.kind(*FLOATS)
    elif op == "Equal":
        kind = d.kind(*FLOATS, *SIGNED, *UNSIGNED, "bool")
    else:
        kind = d.kind(*FLOATS, *SIGNED, *SIGNED, *UNSIGNED)
    a, b = (d.values(kind, s) for s in shapes)
    fmod = None
    if op == "Mod":
        fmod = 1 if kind in FLOATS else d.kind(0, 1)
    if op in ("Div", "Mod"):
        b = np.where(b == 0, np.ones_like(b), b).astype(b.dtype)
        if kind in SIGNED:
            b = np.where(b == -1, np.full_like(b, -3), b).astype(b.dtype)
    if op == "Pow":
        a = np.abs(a.astype(np.float64)).clip(0, 5).astype(a.dtype)
        b = b.astype(np.float64).clip(0 if kind not in FLOATS else -3, 3).astype(b.dtype)
        if kind in FLOATS:
            a = (a + a.dtype.type(0.5)).astype(a.dtype)
    names = [d.given(a), d.given(b)]
    if op == "Where":
        names = [d.given(d.values("bool", d.part(shape)))] + names
    if op in ("Sum", "Mean", "Max", "Min") and d.rng.random() < 0.3:
        names.append(d.given(d.values(kind, d.part(shape))))
    return d.call(op, names, fmod=fmod)


def unary(d):
    op = d.kind("Neg", "Abs", "Sqrt", "Relu", "Exp", "Log", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sigmoid", "Tanh",
                "Not", "Identity", "Sin", "Cos")
    if op == "Not":
        kind = "bool"
    elif op in ("Abs", "Sign", "Neg", "Relu"):
        kind = d.kind(*FLOATS, *SIGNED)
    else:
        kind = d.kind(*FLOATS)
    x = d.values(kind, d.shape())
    if op in ("Sqrt", "Log"):
        x = (np.abs(x) + x.dtype.type(0.25)).astype(x.dtype)
    if op == "Reciprocal":
        x = np.where(x == 0, np.ones_like(x), x).astype(x.dtype)
    if kind in SIGNED:
        x = np.where(x == np.iinfo(kind).min, np.ones_like(x), x).astype(x.dtype)
    return d.call(op, [d.given(x)])


def cast(d):
    kinds = [*FLOATS, *SIGNED, *UNSIGNED, "bool"]
    a, b = d.kind(*kinds), d.kind(*kinds)
    x = d.values(a, d.shape())
    if a in FLOATS and b in UNSIGNED:
        x = np.abs(x)
    if a in FLOATS and d.rng.random() < 0.2 and a in ("float32", "float64"):
        x = (x * 1e4).astype(x.dtype) if b in ("int32", "int64", "float16", "bfloat16") else x
    y = d.call("Cast", [d.given(x)], to=CODES[b])
    if d.rng.random() < 0.3 and d.opset >= 15:
        y = d.call("CastLike", [y, d.given(d.values(d.kind("float32", "int32", "int64", "bool"), [1]))])
    return y


def reduction(d):
    op = d.kind("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    kind = d.kind("float32", "float64", "float32", "float64", "int32", "int64", "float16")
    shape = d.shape((1, 2, 2, 3), zero=0.02)
    x = d.values(kind, shape)
    if op == "LogSum":
        x = (np.abs(x) + x.dtype.type(1)).astype(x.dtype)
    axes = d.axes(len(shape)) if d.rng.random() < 0.85 else None
    since = 13 if op == "Sum" else 18
    noop = 1 if d.opset >= since and d.rng.random() < 0.1 and op in ("Sum", "Max", "Mean", "Prod", "Min") else None
    keep = d.kind(None, 0, 1)
    return d.axes_as(since, "Reduce" + op, [d.given(x)], axes, keepdims=keep, noop_with_empty_axes=noop)


def winner(d):
    shape = d.shape((1, 2, 3), zero=0)
    x = d.values(d.kind("float32", "float64", "int32", "int64"), shape)
    last = d.kind(None, 0, 1) if d.opset >= 12 else None
    return d.call(d.kind("ArgMax", "ArgMin"), [d.given(x)], axis=d.kind(None, d.axis(len(shape))),
                  keepdims=d.kind(None, 0, 1), select_last_index=last)


def any_kind(d):
    return d.kind("float32", "float64", "int64", "int32", "bool", "float16", "uint8")


def moving(d):
    op = d.kind("Transpose", "Slice", "Slice", "Slice", "Gather", "Gather", "GatherElements", "Concat", "Concat", "Split", "Split",
                "Expand", "Tile", "Pad", "Pad", "Squeeze", "Unsqueeze", "Reshape", "Reshape", "Flatten")
    kind = any_kind(d) if op != "Pad" else d.kind("float32", "float64", "int64", "int32")
    shape = d.shape((1, 2, 3, 3), zero=0.04)
    x, rank = d.given(d.values(kind, shape)), len(shape)
    whole = lambda v: d.given(np.array(v, dtype=d.kind(np.int64, np.int64, np.int32) if op in ("Slice", "Gather", "GatherElements") else np.int64))
    if op == "Transpose":
        return d.call(op, [x], perm=d.kind(None, d.rng.sample(range(rank), rank)))
    if op == "Slice":
        axes = d.axes(rank) if d.rng.random() < 0.8 else None
        n = rank if axes is None else len(axes)
        edge = lambda: d.kind(-9, -3, -2, -1, 0, 1, 2, 3, 9, 2**63 - 1, -2**63)
        starts, ends = [edge() for _ in range(n)], [edge() for _ in range(n)]
        if d.opset < 10:
            return d.call(op, [x], starts=starts, ends=ends, axes=axes)
        as64 = lambda v: d.given(np.array(v, dtype=np.int64))
        inputs = [x, as64(starts), as64(ends)]
        steps = [d.kind(1, -1, 2, -2, 3) for _ in range(n)]
        if d.rng.random() < 0.6:
            inputs += [as64(list(range(n)) if axes is None else axes), as64(steps)]
        elif axes is not None:
            inputs += [as64(axes)]
        return d.call(op, inputs)
    if op == "Gather":
        a = d.axis(rank)
        n = max(shape[a], 1)
        index = np.array([d.rng.randint(-n, n - 1) for _ in range(6)])
        index = index.reshape(2, 3) if d.rng.random() < 0.5 else index[: d.rng.randint(1, 4)]
        return d.call(op, [x, whole(index if d.rng.random() < 0.85 else index.flatten()[0])], axis=a)
    if op == "GatherElements":
        a = d.axis(rank)
        out = [n if i != a % rank else d.rng.randint(1, 4) for i, n in enumerate(shape)]
        n = max(shape[a], 1)
        index = np.array([d.rng.randint(-n, n - 1) for _ in range(math.prod(out))]).reshape(out)
        return d.call(op, [x, whole(index)], axis=a)
    if op == "Concat":
        a = d.axis(rank)
        parts = [x]
        for _ in range(d.rng.randint(0, 2)):
            other = list(shape)
            other[a] = d.rng.randint(0, 3)
            parts.append(d.given(d.values(kind, other)))
        return d.call(op, parts, axis=a)
    if op == "Split":
        a = d.axis(rank)
        n, k = shape[a], d.rng.randint(1, 3)
        if d.rng.random() < 0.6:
            cuts = sorted(d.rng.randint(0, n) for _ in range(k - 1))
            lengths = [b - c for b, c in zip(cuts + [n], [0] + cuts)]
            if d.opset >= 13:
                parts = d.call(op, [x, whole(lengths)], outputs=k, axis=a)
            else:
                parts = d.call(op, [x], outputs=k, axis=a, split=lengths)
        else:
            parts = d.call(op, [x], outputs=k, axis=a, num_outputs=k if d.opset >= 18 else None)
        parts = [parts] if k == 1 else parts
        return d.call("Concat", parts[::-1], axis=a)
    if op == "Expand":
        out = d.part([d.rng.randint(0, 3) for _ in range(rank + 1)])
        return d.call(op, [x, whole(out)])
    if op == "Tile":
        return d.call(op, [x, whole([d.rng.randint(0 if d.rng.random() < 0.2 else 1, 3) for _ in shape])])
    if op == "Pad":
        mode = d.kind("constant", "constant", "edge", "reflect") if kind.startswith("float") else "constant"
        axes = d.axes(rank) if d.opset >= 18 and d.rng.random() < 0.5 else None
        around = list(range(rank)) if axes is None else axes
        low = -1 if mode == "constant" else 0
        most = [2 if mode != "reflect" else max(shape[a] - 1, 0) for a in around]
        pads = [d.rng.randint(low, m) for m in most + most]
        if d.opset < 11:
            return d.call(op, [x], pads=pads, mode=mode, value=d.kind(None, 1.5) if kind.startswith("float") else None)
        inputs = [x, whole(pads)]
        if mode == "constant" and (d.rng.random() < 0.6 or axes is not None):
            inputs.append(d.given(d.values(kind, [])))
        if axes is not None:
            inputs += [""] * (3 - len(inputs)) + [whole(axes)]
        return d.call(op, inputs, mode=mode)
    if op == "Squeeze":
        wide = list(shape)
        for _ in range(2):
            wide.insert(d.rng.randint(0, len(wide)), 1)
        x = d.given(d.values(kind, wide))
        ones = [i - (len(wide) if d.rng.random() < 0.4 else 0) for i, n in enumerate(wide) if n == 1]
        return d.axes_as(13, op, [x], d.kind(None, d.rng.sample(ones, d.rng.randint(1, len(ones)))))
    if op == "Unsqueeze":
        k = d.rng.randint(1, 2)
        axes = [a - (rank + k if d.opset >= 11 and d.rng.random() < 0.4 else 0) for a in d.rng.sample(range(rank + k), k)]
        return d.axes_as(13, op, [x], axes)
    if op == "Reshape":
        n = math.prod(shape)
        zero = d.kind(0, 1) if d.opset >= 14 else None
        if n == 0:
            target = d.kind([0, 2], list(shape), [0]) if zero else list(shape)
        else:
            target = d.kind([-1], [n], [1, -1], [-1, 1, n], [0, -1] if not zero else [n, -1], [n, 1])
        return d.call(op, [x, whole(target)], allowzero=zero)
    return d.call(op, [x], axis=d.kind(None, d.axis(rank) if d.opset >= 11 else d.rng.randint(0, rank)) if rank > 0 else 0)


def product(d):
    m, k, n = (d.rng.randint(1, 4) for _ in range(3))
    kind = d.kind("float32", "float64", "float32", "int32", "int64", "uint32")
    if d.rng.random() < 0.4:
        kind = d.kind("float32", "float64")
        ta, tb = d.kind(None, 0, 1), d.kind(None, 0, 1)
        a, b = d.values(kind, [k, m] if ta else [m, k]), d.values(kind, [n, k] if tb else [k, n])
        inputs = [d.given(a), d.given(b)]
        if d.opset < 11 or d.rng.random() < 0.7:
            inputs.append(d.given(d.values(kind, d.part([m, n]))))
        return d.call("Gemm", inputs, transA=ta, transB=tb, alpha=d.kind(None, 0.5), beta=d.kind(None, -2.0))
    stack = d.shape((0, 0, 1, 2), zero=0)
    a = d.part(stack) + [m, k]
    b = d.part(stack) + [k, n]
    if d.rng.random() < 0.2:
        a = [k]
    elif d.rng.random() < 0.2:
        b = [k]
    return d.call("MatMul", [d.given(d.values(kind, a)), d.given(d.values(kind, b))])


def made(d):
    op = d.kind("ConstantOfShape", "Range", "Clip", "Shape", "Size")
    if op == "ConstantOfShape":
        kind = d.kind("float32", "float64", "int64", "bool", "float16", "int32", "uint8")
        value = numpy_helper.from_array(d.values(kind, [1]), "v")
        shape = np.array(d.shape(), dtype=np.int64)
        return d.call(op, [d.given(shape)], value=d.kind(None, value))
    if op == "Range":
        kind = d.kind("float32", "float64", "int32", "int64", "int16")
        step = d.kind(1, 2, -1, -3, 0.5 if "float" in kind else 2)
        ends = [np.array(v, dtype=kind) for v in (d.rng.randint(-4, 4), d.rng.randint(-6, 6), step)]
        return d.call(op, [d.given(v) for v in ends])
    if op == "Clip":
        kind = d.kind("float32", "float64", "int32", "int64") if d.opset >= 12 else "float32"
        x = d.given(d.values(kind, d.shape()))
        if d.opset < 11:
            return d.call(op, [x], min=d.kind(None, -1.5), max=d.kind(None, 0.75))
        low = d.kind("", d.given(np.array(-1, dtype=kind)))
        return d.call(op, [x, low, d.given(np.array(d.kind(2, 1, -3), dtype=kind))])
    x = d.given(d.values("float32", d.shape((1, 2, 3))))
    if op == "Size":
        return d.call(op, [x])
    ends = dict(start=d.kind(None, -2, 1), end=d.kind(None, -1, 2, 9)) if d.opset >= 15 else {}
    return d.call(op, [x], **ends)


DRAWS = [elementwise] * 5 + [moving] * 5 + [reduction] * 3 + [unary] * 2 + [cast] * 3 + [product] * 2 + [made] * 2 + [winner]


def model(d, last, count):
    """`y = x + F`, of float64, where F is the flat constant."""
    flat = d.call("Reshape", [last, d.given(np.array([-1], dtype=np.int64))])
    wide = d.call("Cast", [flat], to=11)
    d.nodes.append(helper.make_node("Add", ["x", wide], ["y"]))
    x = helper.make_tensor_value_info("x", 11, [max(count, 1)])
    y = helper.make_tensor_value_info("y", 11, None)
    graph = helper.make_graph(d.nodes, "g", [x], [y], d.arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", d.opset)], ir_version=8)


def constant_alone(d, last):
    out = onnx.ValueInfoProto(name=last)
    graph = helper.make_graph(d.nodes, "g", [], [out], d.arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", d.opset)], ir_version=8)


def coarsest(alone):
    """The coarsest floating type among the arrays and casts, to which runtimes round each term of a sum."""
    nodes = alone.graph.node
    codes = [t.data_type for t in alone.graph.initializer]
    codes += [a.t.data_type if a.type == 4 else a.i for n in nodes for a in n.attribute if a.name in ("value", "to")]
    kinds = [kind for kind in ("bfloat16", "float16", "float32", "float64") if CODES[kind] in codes]
    return (kinds + ["float32"])[0]


def evaluate(alone):
    """The result and who gave it, or None."""
    results = []
    try:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(alone.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(("onnxruntime", np.asarray(session.run(None, {})[0])))
    except Exception:
        pass
    try:
        with np.errstate(all="ignore"):
            results.append(("reference", np.asarray(ReferenceEvaluator(alone).run(None, {})[0])))
    except Exception:
        pass
    return results


@np.errstate(all="ignore")
def agree(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = a.astype(np.float64), b.astype(np.float64)
    size = max(1.0, float(np.abs(a[np.isfinite(a)]).max(initial=0.0)))
    bound = {"float16": 4e-3, "bfloat16": 4e-2, "float32": 2e-6}.get(str(a.dtype), 4e-2)
    return bool(np.all((a == b) | (np.abs(a - b) <= bound * size) | (np.isnan(a) & np.isnan(b))))


def main():
    rng = random.Random(SEED)
    cases, disagree, refused = [], {}, 0
    while len(cases) < CASES:
        d = Draw(rng)
        drawn = rng.choice(DRAWS)
        try:
            last = drawn(d)
        except (ValueError, OverflowError):
            continue
        op = d.nodes[-1].op_type
        if rng.random() < 0.15:
            last = d.call("Cast", [last], to=rng.choice([1, 9, 7]))
        alone = constant_alone(d, last)
        results = evaluate(alone)
        if not results:
            refused += 1
            continue
        if len(results) == 2 and not agree(results[0][1], results[1][1]):
            disagree[op] = disagree.get(op, 0) + 1
            continue
        source, value = results[0]
        if value.dtype.name not in CODES or value.size == 0 and rng.random() < 0.7 or value.size > 40:
            continue
        wide = value.astype(np.float64) if value.dtype.name != "float64" else value
        if not np.all(np.isfinite(wide)):
            continue
        file = model(d, last, value.size).SerializeToString()
        exact = [str(int(v)) for v in value.flatten()] if value.dtype.kind in "iu" else [float(v) for v in wide.flatten()]
        cases.append({"operator": op, "opset": d.opset, "type": value.dtype.name, "coarsest": coarsest(alone),
                      "by": source, "shape": list(value.shape),
                      "file": base64.b64encode(file).decode(), "values": exact})
    OUT.mkdir(exist_ok=True)
    made_by = {"python": platform.python_version(), "numpy": np.__version__, "onnx": onnx.__version__,
               "onnxruntime": ort.__version__, "seed": SEED}
    text = json.dumps({"made_by": made_by})[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(c) for c in cases) + "\n]}\n"
    (OUT / "subgraphs.json").write_text(text)
    print(len(text), "bytes;", refused, "refused by both;", "disagreements:", disagree, file=sys.stderr)


if __name__ == "__main__":
    main()
