#!/usr/bin/env python3
"""What other programs compute from the ONNX files that relugrad writes.

    command    python3 tests/golden/written.py    (from the root of the repository; a minute)
    writes     tests/golden/written.json
    versions   in the file under `made_by`
    seed       those of the networks in tests/src/written.rs; inputs are drawn by NumPy from the same seed

The networks are random and have every operation with every attribute between them. `cargo run -p relugrad-tests
--example write_onnx` writes each in float64 and in float32. Each file must pass ONNX's checker and is run on a batch of
three inputs, the float32 one by onnxruntime, the float64 one by onnxruntime or, where that has no float64 kernel, by the
reference implementation of ONNX. Both must agree to the rounding of float32, but for averages over windows that the
reference implementation takes in another place than the standard: then the outputs in float32 stand for those in float64.

Layout: made_by, cases: [{seed, inputs 3×D, f64 and f32: {crc32 of the file, by, outputs 3×K}}].
"""

import json
import platform
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime

BATCH = 3
WRITE = ["cargo", "run", "--quiet", "--package", "relugrad-tests", "--example", "write_onnx", "--"]


def program(path):
    """The outputs of a file as a function, and the name of what computes them."""
    options = onnxruntime.SessionOptions()
    # Some optimisations fail on float64.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options).run, "onnxruntime"
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return onnx.reference.ReferenceEvaluator(onnx.load(path)).run, "onnx.reference"


def outputs(path, x):
    """The outputs of a file on a batch, and what the test needs to know the file by."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    entry = model.graph.input[0]
    shape = [d.dim_value for d in entry.type.tensor_type.shape.dim][1:]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
    run, by = program(path)
    y = run(None, {entry.name: x.astype(dtype).reshape([len(x)] + shape)})[0].reshape(len(x), -1)
    return {"crc32": zlib.crc32(path.read_bytes()), "by": by, "outputs": y.astype(np.float64).tolist()}


def features(path):
    """Number of entries of one input."""
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    return int(np.prod([d.dim_value for d in dims][1:]))


def main():
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*WRITE, folder], check=True)
        paths = Path(folder).glob("*.f64.onnx")
        for seed in sorted(int(path.name.split(".")[0]) for path in paths):
            double, single = (Path(folder) / f"{seed}.{precision}.onnx" for precision in ("f64", "f32"))
            random = np.random.default_rng(seed)
            x = random.uniform(-1, 1, (BATCH, features(double))).astype(np.float32).astype(np.float64)
            case = {"seed": seed, "inputs": x.tolist(), "f64": outputs(double, x), "f32": outputs(single, x)}
            wide, narrow = (np.array(case[precision]["outputs"]) for precision in ("f64", "f32"))
            error = np.abs(wide - narrow).max() / max(np.abs(wide).max(), 1e-3)
            print(f"{seed:6} {case['f64']['by']:14} {error:.1e}")
            if error > 2e-5:
                pools = [n for n in onnx.load(double).graph.node if n.op_type == "AveragePool"]
                assert pools and case["f64"]["by"] == "onnx.reference", seed
                case["f64"] |= {"by": "onnxruntime in f32", "outputs": case["f32"]["outputs"]}
            cases.append(case)
    made_by = {"python": platform.python_version(), "numpy": np.__version__, "onnx": onnx.__version__,
               "onnxruntime": onnxruntime.__version__}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = f'{{"made_by": {json.dumps(made_by)}, "cases": [\n{lines}\n]}}\n'
    (Path(__file__).parent / "written.json").write_text(text)


if __name__ == "__main__":
    main()
