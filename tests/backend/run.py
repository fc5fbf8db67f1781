#!/usr/bin/env python3
"""The official backend tests of ONNX, run by `relugrad derive`.

    command    python3 tests/backend/run.py [--relugrad PATH] [--write]
    needs      pip install -r tests/backend/requirements.txt (the tests are part of that version of ONNX)
    reads      tests/backend/refused.txt, which --write writes anew, with its summary in docs/guide.md
    exit code  1 if a result is wrong, a run ends otherwise than by a result or a refusal, an operator is missing in
               the list of `relugrad convert --help`, or the refused ones are not those of refused.txt

Those tests are taken all of whose operators `relugrad convert --help` lists, those for constants alone only where the
result agrees. A network has one input and one output, so
each test is expressed once for every input and output of float or double numbers: this input becomes that of the
network, flat, behind a Reshape that gives it its dimensions (so its first axis is no batch), all other inputs become
initialisers, and the logits are compared with the recorded output to the tolerances of the test. Tests of all other
operators must be refused.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

HERE = Path(__file__).parent
REFUSED = HERE / "refused.txt"
GUIDE = HERE.parent.parent / "docs/guide.md"
MARKS = ("<!-- refused backend tests, written by tests/backend/run.py --write -->", "<!-- end of refused backend tests -->")
FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")
# Every array of `derive` but the logits.
SKIPPED = ("loss,jacobian,input_gradient,jacobian_frobenius_squared,jacobian_spectral,cross_lipschitz,hessian_trace,"
           "hessian_frobenius,hessian_spectral,hessian_eigenvalues,near_kink")
# An entry of the input would be a row of the Jacobian; tests beyond this are about size, not about operators.
LARGEST = 1 << 20
SECONDS = 60


@dataclass
class Test:
    name: str
    model: onnx.ModelProto
    inputs: list
    outputs: list
    rtol: float
    atol: float


@dataclass
class Case:
    """A test as a network of one sample."""
    name: str
    operators: set
    model: onnx.ModelProto
    x: np.ndarray
    y: np.ndarray
    rtol: float
    atol: float


def tests():
    """All tests: those that ONNX computes, and those in the folders of its package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            for place, (inputs, outputs) in enumerate(case.data_sets):
                name = case.name if place == 0 else f"{case.name}#{place}"
                yield Test(name, case.model, inputs, outputs, case.rtol, case.atol)
    data = Path(onnx.__file__).parent / "backend/test/data"
    for path in sorted(path for folder in FOLDERS for path in (data / folder).iterdir()):
        arrays = [[read(file) for file in sorted((path / "test_data_set_0").glob(f"{kind}_*.pb"), key=number)]
                  for kind in ("input", "output")]
        yield Test(path.name, onnx.load(path / "model.onnx"), *arrays, 1e-3, 1e-7)


def number(path):
    return int(path.stem.split("_")[1])


def read(path):
    """The array of a file, or None if it holds something else."""
    try:
        return numpy_helper.to_array(onnx.load_tensor(path))
    except Exception:
        return None


def operators(nodes):
    """Every operator of nodes and of the graphs in their attributes, with its domain unless that is ONNX's own."""
    found = set()
    for node in nodes:
        found.add(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}")
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                found |= operators(inner.node)
    return found


def is_float(array):
    return isinstance(array, np.ndarray) and array.dtype in (np.float32, np.float64)


def expressed(test):
    """The networks of one sample that a test is, one for each floating input and output."""
    graph = test.model.graph
    inputs = [(info.name, np.asarray(a) if isinstance(a, np.generic) else a) for info, a in zip(graph.input, test.inputs)]
    outputs = [(info.name, np.asarray(a) if isinstance(a, np.generic) else a) for info, a in zip(graph.output, test.outputs)]
    if any(not isinstance(array, np.ndarray) for _, array in inputs):
        return
    floats = [name for name, array in inputs if is_float(array) and 0 < array.size <= LARGEST]
    for name, x in inputs:
        for output, y in outputs:
            if name in floats and is_float(y) and y.size > 0:
                label = test.name + (f" from {name}" if len(floats) > 1 else "") + (f" to {output}" if len(outputs) > 1 else "")
                nodes = leading_to(output, graph.node)
                if any(name in node.input for node in nodes):
                    model = network(test.model, dict(inputs), name, output, nodes)
                    yield Case(label, operators(nodes), model, x, y, test.rtol, test.atol)


def network(model, inputs, name, output, nodes):
    """The model with one flat input in place of `name`, constants in place of the others, and one output."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    graph, x = new.graph, inputs[name]
    used = {value for node in graph.node for value in [*node.input, *node.output]} | {t.name for t in graph.initializer} | set(inputs)
    flat, shape = (next(n for n in (base + "'" * i for i in range(99)) if n not in used) for base in ("flat", "shape"))
    others = [numpy_helper.from_array(array, other) for other, array in inputs.items() if other != name]
    kept = [info for info in graph.output if info.name == output]
    nodes = [helper.make_node("Reshape", [flat, shape], [name]), *nodes]
    known = [t for t in graph.initializer if t.name not in inputs]
    target = numpy_helper.from_array(np.array(x.shape, np.int64), shape)
    for field in ("input", "output", "initializer", "node"):
        graph.ClearField(field)
    graph.input.append(helper.make_tensor_value_info(flat, helper.np_dtype_to_tensor_dtype(x.dtype), [1, x.size]))
    graph.output.extend(kept)
    graph.initializer.extend([*known, *others, target])
    graph.node.extend(nodes)
    return new


def leading_to(output, nodes):
    """The nodes that a value depends on, in their order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def listed(relugrad):
    """The operators of `relugrad convert --help`, and those that only compute constants."""
    text = subprocess.run([relugrad, "convert", "--help"], check=True, capture_output=True, text=True).stdout
    text = re.sub(r"\n(?!\s*\n)", " ", text)
    lists = (re.search(start + "(.*)", text).group(1) for start in ("refused\\s+by\\s+name:", "Of\\s+constants\\s+alone.*?also:"))
    return tuple(set(re.findall(r"\b[A-Z][A-Za-z0-9]+\b", names)) for names in lists)


def run(relugrad, case):
    """(verdict, what to say about it); the verdict is `agrees`, `refused` or `WRONG`."""
    with tempfile.TemporaryDirectory() as folder:
        model, x, out = (os.path.join(folder, name) for name in ("m.onnx", "x.npy", "o.npz"))
        onnx.save(case.model, model)
        np.save(x, case.x.reshape(1, -1))
        command = [relugrad, "derive", model, "--input", x, "--out", out, "--skip", SKIPPED, "--threads", "1"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return "WRONG", f"no answer within {SECONDS} s"
        said = done.stderr.replace(folder + os.sep, "").strip()
        if done.returncode == 1 and "panicked" not in said:
            return "refused", said.splitlines()[-1]
        if done.returncode != 0:
            return "WRONG", f"exit code {done.returncode}: {said}"
        found = np.load(out)["logits"][0]
    found, expected = outputs(found, said), case.y.astype(np.float64).ravel()
    if found.shape != expected.shape:
        return "WRONG", f"{found.size} logits instead of {expected.size}"
    if not np.allclose(found, expected, case.rtol, case.atol):
        return "WRONG", f"a difference of {np.abs(found - expected).max():.3g}"
    return "agrees", ""


def outputs(logits, said):
    """What the model gives for its logits, if `derive` says that it has dropped a final node."""
    dropped = re.search(r"dropped the final (\w+)", said)
    if dropped is None:
        return logits
    exponentials = np.exp(logits - logits.max())
    return {
        "Softmax": exponentials / exponentials.sum(),
        "LogSoftmax": logits - logits.max() - np.log(exponentials.sum()),
        "Sigmoid": 1 / (1 + np.exp(-logits)),
    }[dropped.group(1)]


def reason(said):
    """What a refusal says, without the names and numbers of the case."""
    said = re.sub(r"^error: (m\.onnx: )?", "", said)
    said = re.sub(r"^node `[^`]*` \((\w+)\): ", r"\1: ", said)
    said = re.sub(r"`[^`]*`", "`…`", said)
    return re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "n", re.sub(r"\[[^\]]*\]", "[…]", said))


def groups(refused):
    """The names of refused cases under each reason."""
    found = {}
    for name, said in sorted(refused.items()):
        found.setdefault(reason(said), []).append(name)
    return dict(sorted(found.items()))


def written(refused):
    """The text of refused.txt: names of cases under the reason for which they are refused."""
    lines = [f"# Backend tests of ONNX {onnx.__version__} that relugrad refuses, written by run.py --write."]
    for said, names in groups(refused).items():
        lines += ["", f"# {said}", *names]
    return "\n".join(lines) + "\n"


def table(refused, agree):
    """The summary in the guide: what is refused for which reason, by operator."""
    lines = [f"Of {agree + len(refused)} cases of ONNX {onnx.__version__} {agree} agree and {len(refused)} are refused:", "",
             "| operator | cases | why |", "| --- | --- | --- |"]
    for said, names in groups(refused).items():
        operator, colon, why = said.partition(": ")
        operator, why = (operator, why) if colon and " " not in operator else ("(the whole graph)", said)
        lines.append(f"| {operator} | {len(names)} | {why} |")
    return "\n".join(lines)


def write(refused, agree):
    """Writes refused.txt, and its summary into the guide."""
    REFUSED.write_text(written(refused))
    begin, end = MARKS
    before, rest = GUIDE.read_text().split(begin)
    GUIDE.write_text(f"{before}{begin}\n\n{table(refused, agree)}\n\n{end}{rest.split(end)[1]}")


def recorded():
    """The names in refused.txt."""
    lines = REFUSED.read_text().splitlines() if REFUSED.exists() else []
    return {line for line in lines if line and not line.startswith("#")}


def complaints(results, unlisted, refused, renewed):
    """What is not as it should be, a line each."""
    for name, (verdict, said) in results.items():
        if verdict == "WRONG":
            yield f"WRONG {name}: {said}"
    for name, (verdict, said) in unlisted.items():
        if verdict != "refused":
            yield f"{name}: {verdict}, though `relugrad convert --help` does not list all of its operators {said}"
    if not renewed:
        known = recorded()
        yield from (f"{name} is refused: {refused[name]}" for name in sorted(refused.keys() - known))
        yield from (f"{name} is in {REFUSED.name}, but is not refused" for name in sorted(known - refused.keys()))


def main():
    parser = argparse.ArgumentParser(description="The official backend tests of ONNX, run by `relugrad derive`.")
    parser.add_argument("--relugrad", default="target/debug/relugrad", help="the program")
    parser.add_argument("--write", action="store_true", help=f"write the refused ones to {REFUSED.name} and the guide")
    arguments = parser.parse_args()
    known, of_constants = listed(arguments.relugrad)
    cases = [case for test in tests() for case in expressed(test)]
    assert len({case.name for case in cases}) == len(cases), "each case has a name of its own"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda case: run(arguments.relugrad, case), cases))
    results, unlisted = {}, {}
    for case, verdict in zip(cases, verdicts):
        is_listed = case.operators <= known or verdict[0] == "agrees" and case.operators <= known | of_constants
        (results if is_listed else unlisted)[case.name] = verdict
    refused = {name: said for name, (verdict, said) in results.items() if verdict == "refused"}
    agree = sum(verdict == "agrees" for verdict, _ in results.values())
    wrong = len(results) - agree - len(refused)
    print(f"ONNX {onnx.__version__}: of {len(results)} cases {agree} agree, {len(refused)} are refused, {wrong} are wrong; "
          f"{len(unlisted)} more have operators that are not read")
    if arguments.write:
        write(refused, agree)
    problems = list(complaints(results, unlisted, refused, arguments.write))
    print("\n".join(problems), end="\n" if problems else "")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
