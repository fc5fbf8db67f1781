#!/usr/bin/env python3
"""Files that `relugrad convert` writes, in onnxruntime.

    command    python3 tests/golden/check_export.py [PATH OF relugrad]

Every network of tests/golden/onnx is converted to the native format and back to ONNX, plain and with
`--fold-batch-norm --max-pool-to-relu`, in float32 (onnxruntime has few float64 kernels) and float64. The float32 file
must load in onnxruntime, the float64 file in the reference implementation of ONNX, both must pass ONNX's checker, and
their logits must be those of PyTorch.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime

RELUGRAD = sys.argv[1] if len(sys.argv) > 1 else "target/release/relugrad"


def convert(*arguments):
    subprocess.run([RELUGRAD, "convert", *map(str, arguments)], check=True, capture_output=True)


def logits(path, inputs, dtype):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    entry = model.graph.input[0]
    shape = [d.dim_value for d in entry.type.tensor_type.shape.dim][1:]
    x = inputs.astype(dtype).reshape([len(inputs)] + shape)
    if dtype == np.float32:
        session = onnxruntime.InferenceSession(str(path))
    else:
        session = onnx.reference.ReferenceEvaluator(model)
    return session.run(None, {entry.name: x})[0].reshape(len(inputs), -1)


def main():
    worst = {np.float32: 0.0, np.float64: 0.0}
    cases = sorted((Path(__file__).parent / "onnx").glob("*.onnx"))
    with tempfile.TemporaryDirectory() as folder:
        native, out = Path(folder) / "model.safetensors", Path(folder) / "model.onnx"
        for path in cases:
            case = json.loads(path.with_suffix(".json").read_text())
            inputs, expected = np.array(case["inputs"]), np.array(case["expected"]["logits"])
            convert(path, native, "--overwrite")
            for options in ([], ["--fold-batch-norm", "--max-pool-to-relu"]):
                for dtype, name, bound in ((np.float32, "f32", 1e-5), (np.float64, "f64", 1e-12)):
                    convert(native, out, "--overwrite", "--dtype", name, *options)
                    error = np.abs(logits(out, inputs, dtype) - expected).max() / np.abs(expected).max()
                    assert error < bound, (path.name, options, name, error)
                    worst[dtype] = max(worst[dtype], error)
            print(path.stem)
    print(f"{len(cases)} networks, ONNX {onnx.__version__}, onnxruntime {onnxruntime.__version__}: "
          f"worst relative difference {worst[np.float32]:.1e} (float32), {worst[np.float64]:.1e} (float64)")


if __name__ == "__main__":
    main()
