"""The engine on NumPy arrays, against formulas written in NumPy."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relugrad as rg

DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}


def weights(network):
    """The weights and biases of a network of dense layers."""
    flat, place, found = network.parameters, 0, []
    for _, shape in network.layout:
        size = int(np.prod(shape))
        found.append(flat[place : place + size].reshape(shape))
        place += size
    return list(zip(found[::2], found[1::2], strict=True))


def reference(network, x):
    """Logits, Jacobians and pre-activations by the chain rule."""
    layers = weights(network)
    value, jacobian, pre = x, np.broadcast_to(np.eye(x.shape[1]), (len(x), *[x.shape[1]] * 2)), []
    for number, (w, b) in enumerate(layers):
        value, jacobian = value @ w.T + b, w @ jacobian
        if number + 1 < len(layers):
            pre.append(value)
            active = value > 0
            value, jacobian = value * active, jacobian * active[:, :, None]
    return value, jacobian, pre


def softmax(f):
    e = np.exp(f - f.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def close(found, expected, dtype):
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype] * scale, rtol=0)


@st.composite
def problems(draw):
    widths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    network = rg.Mlp(widths).build(draw(st.integers(0, 2**32)), dtype)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    network.parameters = random.normal(size=network.parameters.size).astype(dtype)
    x = random.normal(size=(draw(st.integers(1, 5)), widths[0])).astype(dtype)
    return network, x, random, dtype


@settings(max_examples=60, deadline=None)
@given(problems())
def test_a_trace_has_the_values_of_the_chain_rule(problem):
    network, x, random, dtype = problem
    f, j, pre = reference(network, x)
    trace = network.trace(x)
    close(network(x), f, dtype)
    close(trace.logits, f, dtype)
    close(trace.jacobian(), j, dtype)
    close(trace.gram(), j @ j.transpose(0, 2, 1), dtype)
    for found, z in zip(trace.pattern, pre, strict=True):
        np.testing.assert_array_equal(found, z > 0)
    v = random.normal(size=x.shape).astype(dtype)
    u = random.normal(size=f.shape).astype(dtype)
    close(trace.jvp(v), np.einsum("bkd,bd->bk", j, v), dtype)
    close(trace.vjp(u), np.einsum("bkd,bk->bd", j, u), dtype)
    assert trace.shape == (len(x), f.shape[1], x.shape[1])
    assert trace.logits.dtype == trace.jacobian().dtype == dtype
    assert trace.same_region(trace).all()


@settings(max_examples=40, deadline=None)
@given(problems())
def test_curvature_is_the_hessian_of_cross_entropy(problem):
    network, x, random, dtype = problem
    f, j, _ = reference(network, x)
    classes = f.shape[1]
    if classes == 1:
        return
    y = random.integers(0, classes, len(x))
    p = softmax(f)
    s = np.einsum("bk,kl->bkl", p, np.eye(classes)) - p[:, :, None] * p[:, None, :]
    h = j.transpose(0, 2, 1) @ s @ j
    trace = network.trace(x)
    close(trace.input_gradient(y), np.einsum("bkd,bk->bd", j, p - np.eye(classes)[y]), dtype)
    curvature = trace.curvature()
    close(curvature.to_dense(), h, dtype)
    close(curvature.trace(), np.trace(h, axis1=1, axis2=2), dtype)
    close(curvature.frobenius_norm(), np.linalg.norm(h, axis=(1, 2)), dtype)
    close(curvature.spectral_norm(), np.linalg.eigvalsh(h)[:, -1], dtype)
    v = random.normal(size=x.shape).astype(dtype)
    close(curvature.apply(v), np.einsum("bde,be->bd", h, v), dtype)


def test_an_objective_is_the_sum_of_its_terms():
    network = rg.Mlp([5, 7, 3]).build(1)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, 5)), random.integers(0, 3, 6)
    f, j, _ = reference(network, x)
    losses = -np.log(softmax(f)[np.arange(6), y])
    objective = rg.Objective([("jacobian", 0.5)])
    found, gradient = objective.gradient(network, x, y)
    close(found["sample_losses"], losses, "float64")
    (penalty,) = found["penalties"].values()
    close(penalty, (j**2).sum((1, 2)).mean(), "float64")
    close(found["value"], losses.mean() + 0.5 * penalty, "float64")
    quotient = rg.FiniteDifference.central(1e-5)
    np.testing.assert_allclose(
        gradient, quotient.parameter_gradient(objective, network, x, y), atol=1e-6
    )


def test_an_objective_takes_formulas():
    network = rg.Mlp([5, 7, 3]).build(1)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, 5)), random.integers(0, 3, 6)
    own = ("own", 0.5, {"formula": "a*tr(J*J^T)", "constants": {"a": 2.0}})
    found, gradient = rg.Objective([own]).gradient(network, x, y)
    expected, theirs = rg.Objective([("jacobian", 1.0)]).gradient(network, x, y)
    close(found["penalties"]["own"], 2 * expected["penalties"]["jacobian"], "float64")
    np.testing.assert_allclose(gradient, theirs, rtol=1e-10, atol=1e-12)
    with pytest.raises(rg.Error, match="did you mean `norm2`"):
        rg.Objective([("own", 1.0, {"formula": "norn2(J)"})])
    with pytest.raises(rg.Error, match="no option step"):
        rg.Objective([("own", 1.0, {"formula": "tr(G)", "step": 1.0})])
    with pytest.raises(TypeError, match="must be a str"):
        rg.Objective([("own", 1.0, {"formula": 1})])


def test_a_region_is_where_the_network_is_affine():
    network = rg.Mlp([4, 9, 3]).build(2)
    random = np.random.default_rng(1)
    x = random.normal(size=4)
    f, j, (z,) = reference(network, x[None])
    region = network.region(x)
    map_, offset = region.affine_map()
    close(map_, j[0], "float64")
    close(map_ @ x + offset, f[0], "float64")
    (w, _), _ = weights(network)
    expected = {
        "l1": np.abs(z[0]) / np.abs(w).max(1),
        "l2": np.abs(z[0]) / np.linalg.norm(w, axis=1),
        "linf": np.abs(z[0]) / np.abs(w).sum(1),
    }
    for norm, distances in expected.items():
        close(region.distances(norm), distances, "float64")
        close(region.kink_distances()[norm], distances.min(), "float64")
        near = region.nearest(3, norm)
        close([one["distance"] for one in near], np.sort(distances)[:3], "float64")
        label = int(f[0].argmax())
        assert 0 <= region.certified_radius(label, norm) <= region.kink_distances()[norm]
        assert region.certified_radius((label + 1) % 3, norm) == 0
    assert network.distance(x) == region.kink_distances()
    planes = region.hyperplanes()
    for unit, plane in enumerate(planes):
        close(plane["margin"], np.abs(z[0, unit]), "float64")
        close(plane["normal"], w[unit] * np.sign(z[0, unit]), "float64")
    assert region.hyperplanes([3])[0]["unit"] == planes[3]["unit"]


def test_a_walk_passes_every_kink():
    network = rg.Mlp([3, 8, 2]).build(3)
    random = np.random.default_rng(4)
    x, z = random.normal(size=3), random.normal(size=3)
    (w, b), _ = weights(network)
    kinks = -(w @ x + b) / (w @ z)
    kinks = np.sort(kinks[(kinks > 0) & (kinks < 4)])
    steps = network.walk(x, z, 4.0, jacobians=True)
    close([step["crossing"]["at"] for step in steps[:-1]], kinks, "float64")
    assert steps[-1]["crossing"] is None and steps[-1]["end"] == 4.0
    for step in steps:
        middle = x + (step["start"] + step["end"]) / 2 * z
        close(step["jacobian"], reference(network, middle[None])[1][0], "float64")
        close(step["logits_start"], network((x + step["start"] * z)[None])[0], "float64")
    close(
        network.integrated_gradients(x + 4 * z, x, 1).sum(),
        network((x + 4 * z)[None])[0, 1] - network(x[None])[0, 1],
        "float64",
    )


def test_a_slice_tiles_its_window_and_shows_itself():
    network = rg.Mlp([5, 12, 3]).build(4)
    points = np.random.default_rng(5).normal(size=(3, 5))
    found = network.slice(points)
    (left, right), (bottom, top) = found.window
    assert found.complete
    close(sum(cell["area"] for cell in found.cells), (right - left) * (top - bottom), "float64")
    origin, u, v = found.plane
    for cell in found.cells:
        a, b = cell["corners"].mean(0)
        f = network((origin + a * u + b * v)[None])[0]
        close(cell["logits"] @ [1, a, b], f, "float64")
        assert len(cell["edges"]) == len(cell["corners"])
    assert found._repr_svg_().startswith("<svg") and len(found) == len(found.cells)
    few = network.slice(points, limit=2)
    assert not few.complete
    assert "<table>" in network._repr_html_()


def test_operators_are_scipys():
    scipy = pytest.importorskip("scipy.sparse.linalg", reason="SciPy is not installed")
    network = rg.Mlp([12, 16, 4]).build(5)
    x = np.random.default_rng(6).normal(size=(3, 12))
    trace = network.trace(x)
    curvature = trace.curvature()
    dense, jacobians = curvature.to_dense(), trace.jacobian()
    for sample in range(3):
        operator = curvature.linear_operator(sample)
        values = scipy.eigsh(operator, k=2, return_eigenvectors=False)
        close(np.sort(values), np.linalg.eigvalsh(dense[sample])[-2:], "float64")
        jacobian = trace.jacobian_operator(sample)
        close(jacobian @ np.eye(12), jacobians[sample], "float64")
        close(jacobian.T @ np.eye(4), jacobians[sample].T, "float64")
    with pytest.raises(rg.Error, match="sample 3"):
        curvature.linear_operator(3)


LAYOUTS = {
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "transposed": lambda x: np.asfortranarray(x),
    "strided": lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    "offset": lambda x: np.pad(x, 1)[1:-1, 1:-1],
    "list": lambda x: x.tolist(),
    "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "record": lambda x: np.rec.fromarrays([np.zeros(x.shape, "i1"), x]).f1,
    "images": lambda x: x.reshape(len(x), 2, 3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_an_array_is_the_same_array(layout):
    network = rg.Mlp([6, 5, 2]).build(6)
    x = np.random.default_rng(7).normal(size=(4, 6))
    given = LAYOUTS[layout](x)
    np.testing.assert_array_equal(network(given), network(x))
    np.testing.assert_array_equal(network.trace(given).gram(), network.trace(x).gram())
    if layout != "images":
        trace = network.trace(x)
        np.testing.assert_array_equal(trace.jvp(given), trace.jvp(x))


def test_threads_share_a_trace_and_a_network():
    network = rg.Mlp([16, 32, 4]).build(7)
    x = np.random.default_rng(8).normal(size=(32, 16))
    trace = network.trace(x)
    before, first = network.parameters, (trace.gram(), trace.jacobian())
    kept, seen = threading.Event(), []

    def ask():
        for _ in range(50):
            np.testing.assert_array_equal(trace.gram(), first[0])
            np.testing.assert_array_equal(trace.jacobian(), first[1])
            seen.append(float(network(x)[0, 0]))

    def change():
        scale = 1.0
        while not kept.is_set():
            scale = 3.0 - scale
            network.parameters = scale * before

    threads = [threading.Thread(target=ask) for _ in range(2)]
    changing = threading.Thread(target=change)
    for thread in [changing, *threads]:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    kept.set()
    changing.join(60)
    assert len(seen) == 100
    # Each pass had either the ones or the others, and no mixture.
    once, twice = [], []
    for scale, values in ((1.0, once), (2.0, twice)):
        network.parameters = scale * before
        values.append(float(network(x)[0, 0]))
    assert set(seen) <= {*once, *twice}
