"""Bad input is one clear exception, and the interpreter goes on."""

import gc
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import relugrad as rg
from relugrad import _relugrad

NETWORK = rg.Mlp([6, 5, 3]).build(0)
X = np.random.default_rng(0).normal(size=(4, 6))


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (X.astype("float32"), TypeError, "float32.*float64.*astype"),
        (X.astype("int64"), TypeError, "int64.*float64"),
        (X.astype("complex128"), TypeError, "complex128"),
        (X.astype(object), TypeError, "object"),
        (X.astype(X.dtype.newbyteorder()), TypeError, "bytes are in the other order"),
        (X[:, :5], ValueError, r"\[4, 5\].*6"),
        (X[0], ValueError, r"\[6\].*needed"),
        (np.float64(1.0), (TypeError, ValueError), "x"),
        (np.zeros((0, 6)), ValueError, "x|sample|empty|batch"),
        (np.where(X == X[1, 2], np.nan, X), ValueError, r"1, 2"),
        (np.where(X == X[3, 0], np.inf, X), ValueError, r"3, 0"),
        ("words", TypeError, "x"),
        (None, (TypeError, ValueError), "x"),
        ([[1.0, 2.0], [1.0]], TypeError, "x"),
        (np.zeros((4, 6), "S3"), TypeError, "S3"),
    ],
)
def test_batches_that_are_none(x, error, says):
    for call in (NETWORK.trace, NETWORK.forward):
        with pytest.raises(error, match=says) as raised:
            call(x)
        assert isinstance(raised.value, rg.Error | rg.ArrayTypeError)


def test_unaligned_arrays_are_taken():
    raw = np.zeros(X.nbytes + 1, "u1")
    raw[1:] = X.ravel().view("u1")
    unaligned = raw[1:].view("float64").reshape(X.shape)
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(NETWORK(unaligned), NETWORK(X))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: NETWORK.trace(X).input_gradient([0, 1, 2, 9]), "9"),
        (lambda: NETWORK.trace(X).input_gradient([0, 1, 2, -1]), "-1"),
        (lambda: NETWORK.trace(X).input_gradient([0, 1]), "2|4"),
        (lambda: NETWORK.trace(X).curvature("nonsense"), "nonsense"),
        (lambda: NETWORK.region(X), r"\[4, 6\]"),
        (lambda: NETWORK.region(X[0]).distances("l3"), "l3.*linf"),
        (lambda: NETWORK.region(X[0]).hyperplanes([5]), "hyperplane 5"),
        (lambda: NETWORK.region(X[0]).certified_radius(7), "7"),
        (lambda: NETWORK.walk(X[0], X[1], -1.0), "length"),
        (lambda: NETWORK.slice(X[:2]), "3 points"),
        (lambda: NETWORK.slice([X[0], X[1], X[1]]), "line"),
        (lambda: NETWORK.slice(X[:3], ((1, 0), (0, 1))), "window"),
        (lambda: rg.FiniteDifference.central(0.0), "step|0"),
        (lambda: rg.Objective([("nonsense", 1.0)]), "nonsense"),
        (lambda: rg.Objective([("jacobian", float("nan"))]), "NaN"),
        (lambda: rg.Mlp([3]).build(), "width|layer|3"),
        (lambda: rg.Mlp([3, 2]).build(dtype="float16"), "float16"),
        (lambda: NETWORK.trace(X).same_region(NETWORK.trace(X[:2])), "4 and 2"),
        (lambda: rg.load("nowhere.onnx"), "nowhere.onnx"),
        (lambda: rg.train({"epoch": 3}), "epoch"),
        (lambda: rg.train({"epochs": "three"}), "epochs"),
        (lambda: rg.train(resume=True), "out"),
        (lambda: rg.train("nowhere.toml"), "nowhere.toml"),
        (lambda: rg.train({}, data=(X, [0, 1])), r"\(2,\)"),
        (lambda: rg.evaluate(NETWORK, nonsense=3), "nonsense"),
        (lambda: rg.evaluate(NETWORK, "digits"), "6|64"),
        (lambda: rg.verify(NETWORK, "nowhere"), "nowhere"),
        (lambda: rg.compare({"nonsense": 3}), "nonsense"),
    ],
)
def test_what_is_refused_says_why(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert isinstance(raised.value, rg.Error)


def values():
    """Whatever a caller may hand over."""
    arrays = st.tuples(
        st.sampled_from(["float64", "float32", "int64", "bool", ">f8", "O"]),
        st.lists(st.integers(0, 6), max_size=3),
    ).map(lambda drawn: np.zeros(drawn[1], drawn[0]))
    plain = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=5),
        st.just(X),
        st.just(X[0]),
        st.just(NETWORK),
        st.sampled_from(["l1", "float32", "softmax-cross-entropy", "jacobian"]),
        arrays,
    )
    return st.one_of(
        plain, st.lists(plain, max_size=3), st.dictionaries(st.text(max_size=3), plain)
    )


def subjects():
    trace = NETWORK.trace(X)
    return [
        NETWORK,
        trace,
        trace.curvature(),
        NETWORK.region(X[0]),
        NETWORK.slice(X[:3]),
        rg.FiniteDifference.central(1e-5),
        rg.Objective([("jacobian", 1.0)]),
        rg.Mlp([3, 2]),
        rg.Architecture("mlp:4"),
    ]


# What does not end, prints, or works in folders has tests of its own.
APART = {"command", "train", "evaluate", "verify", "set_num_threads"}
CALLS = [
    (type(subject).__name__, name, getattr(subject, name))
    for subject in subjects()
    for name in dir(type(subject))
    if not name.startswith("__") and callable(getattr(subject, name))
]
CALLS += [
    ("relugrad", name, getattr(_relugrad, name))
    for name in dir(_relugrad)
    if not name.startswith("_") and name not in APART
]


# What parameters of these names may well be; a call that fits is as likely as one that does not.
FITTING = {
    "x": [X, X[0], X[:0]],
    "z": [X[1], -X[0], 0 * X[0]],
    "v": [X, X[0]],
    "u": [X[:, :3], X[:2]],
    "y": [[0, 1, 2, 0], [0], np.array([0.0, 1.0]), X[:, :3]],
    "length": [0.0, 1.0, 1e300],
    "points": [X[:3], [X[0], X[0], X[1]]],
    "window": [((0.0, 1.0), (0.0, 1.0)), ((0.0, 0.0), (1.0, 2.0)), ((-1e200, 1e200),) * 2],
    "limit": [0, 1, 100],
    "label": [0, 2, 3, 2**63],
    "count": [0, 1, 2**63],
    "numbers": [[], [0], [4, 0], [5], [2**63]],
    "memory": [0, 1, 2**40],
    "sample": [0, 3, 4, 2**63],
    "loss": ["softmax-cross-entropy", "squared-error", {"name": "hinge"}],
    "network": [NETWORK],
    "objective": [rg.Objective([("jacobian", 1.0)])],
    "other": [NETWORK.trace(X), NETWORK.trace(X[:2])],
    "direction": [X[0], 0 * X[0]],
    "baseline": [X[1]],
    "norm": ["l1", "l2", "linf"],
    "visit": [lambda *block: None, lambda *block: 1 / 0],
    "gram": [np.zeros((4, 3, 3)), np.zeros((4, 3, 2))],
    "jacobian": [np.zeros((4, 3, 6)), np.zeros((3, 3, 6))],
    "logits": [np.zeros((4, 3)), np.zeros((3, 4))],
    "vjp": [(X[:, :3], X), (X, X)],
    "input_shape": [[6], [1, 8, 8], [0], []],
    "outputs": [0, 1, 3],
    "step": [1e-5, 0.0, float("nan")],
    "arrays": [[], [X]],
}


def names(call):
    signature = (call.__text_signature__ or "()").strip("()").replace("$", "")
    found = [part.split("=")[0].strip() for part in signature.split(", ")]
    return [name for name in found if name not in ("", "self", "slf", "/", "*")]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}.{call[1]}")
def test_no_argument_panics(call):
    def argument(name):
        fitting = st.sampled_from(FITTING[name]) if name in FITTING else values()
        return st.one_of(fitting, fitting, fitting, values())

    drawn = st.fixed_dictionaries({}, optional={name: argument(name) for name in names(call[2])})

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(drawn)
    def fuzz(arguments):
        # A panic is no Exception.
        with suppress(Exception):
            call[2](**arguments)

    fuzz()


def python(script):
    """A script in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(rg.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_after_work_is_refused():
    done = python(
        """
        import os
        import numpy as np
        import relugrad as rg
        network = rg.Mlp([64, 64, 10]).build()
        x = np.zeros((256, 64))
        network.trace(x).jacobian()
        child = os.fork()
        if child == 0:
            try:
                network.trace(x).jacobian()
            except RuntimeError as error:
                os._exit(7 if "spawn" in str(error) else 1)
            os._exit(2)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        network.trace(x).jacobian()
        """
    )
    assert (done.stdout.strip(), done.returncode) == ("7", 0), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_ten_thousand_calls_leak_nothing():
    def resident():
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    network = rg.Mlp([32, 32, 8]).build()
    x = np.random.default_rng(0).normal(size=(8, 32))
    y = np.zeros(8, "int64")
    objective = rg.Objective([("jacobian", 0.1)])

    def calls(count):
        for number in range(count):
            trace = network.trace(x)
            trace.gram_kept()
            trace.gradient(gram=np.zeros((8, 8, 8)))
            trace.curvature().apply(x)
            network.region(x[0]).kink_distances()
            objective.gradient(network, x, y)
            network.parameters = network.parameters
            if number % 10 == 0:
                with pytest.raises(rg.Error):
                    network.trace(x[:, :3])

    calls(500)
    before = resident()
    calls(10_000)
    # A result of 8 Jacobians, leaked at each call, would be 160 MB.
    assert resident() - before < 16 << 20
