"""The closed forms by PyTorch's own kernels, against double backpropagation."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch_modules import Call, inputs, modules, randomize

from relugrad.torch import _closed
from relugrad.torch._read import read

quiet = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# The largest relative error of a gradient in double precision.
TOLERANCE = 1e-10


def prelu(x, weight):
    """PReLU, written out."""
    return torch.where(x > 0, x, along(x, weight) * x)


def batch_norm(x, mean, variance, weight=None, bias=None, training=False, momentum=0, eps=0):
    """Batch norm with frozen statistics, written out."""
    y = (x - along(x, mean)) / (along(x, variance) + eps).sqrt()
    y = y if weight is None else y * along(x, weight)
    return y if bias is None else y + along(x, bias)


def along(x, channels):
    return channels.reshape(-1, *[1] * (x.dim() - 2))


# PyTorch 1.13 differentiates these wrongly where tensors are not contiguous: PReLU the second time
# behind `torch.cat`, batch norm the first time behind a transposition. Finite differences tell.
WRONG = {"prelu": prelu, "batch_norm": batch_norm} if torch.__version__ < "2" else {}


def double_backpropagation(module, x):
    """Logits and Jacobians with a graph of their own."""
    x = x if x.requires_grad else x.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        for name, function in WRONG.items():
            patch.setattr(F, name, function)
        f = module(x)
    rows = [
        torch.autograd.grad(f[:, k].sum(), x, create_graph=True, allow_unused=True)[0]
        for k in range(f.shape[1])
    ]
    rows = [torch.zeros_like(x) if row is None else row for row in rows]
    return f, torch.stack(rows, dim=1)


def gram_of(j):
    flat = j.flatten(2)
    return flat @ flat.transpose(1, 2)


# Terms of penalties of the logits and Gram matrices, and of the logits and Jacobians.
GRAM_TERMS = [
    lambda f, g, r: g.diagonal(dim1=1, dim2=2).sum(),
    lambda f, g, r: (g @ g).diagonal(dim1=1, dim2=2).sum().add(1).sqrt(),
    lambda f, g, r: torch.logdet(g + torch.eye(g.shape[1], dtype=g.dtype)).sum(),
    lambda f, g, r: torch.einsum("bi,bij,bj->b", f.softmax(1), g, f.softmax(1)).sum(),
    lambda f, g, r: (g * r[:, :, None] * r[:, None]).tanh().sum(),
    lambda f, g, r: (g[:, 0] * f).sum(),
    lambda f, g, r: g.amax(dim=(1, 2)).mean(),
    lambda f, g, r: (r[:1, :, None] * g).sin().sum(),
    lambda f, g, r: F.cross_entropy(f, r.argmax(1)),
]
JACOBIAN_TERMS = [
    lambda f, j, r: j.square().sum(),
    lambda f, j, r: j.abs().sum(),
    lambda f, j, r: torch.einsum("bk,bkd->bd", f.softmax(1), j.flatten(2)).square().sum(),
    lambda f, j, r: (j.flatten(2) * r[:, :, None]).tanh().sum(),
    lambda f, j, r: j.flatten(1).norm(dim=1).mean(),
    lambda f, j, r: (j.flatten(2).sum(2) * f).sum(),
    lambda f, j, r: torch.logsumexp(j.flatten(1), 1).sum(),
    lambda f, j, r: F.cross_entropy(f, r.argmax(1)),
]


@st.composite
def penalties(draw, terms):
    """A weighted sum of some terms."""
    chosen = draw(
        st.lists(st.tuples(st.sampled_from(terms), st.floats(-2, 2)), min_size=1, max_size=3)
    )

    def penalty(f, derivative):
        generator = torch.Generator().manual_seed(f.shape[1])
        r = torch.randn(f.shape, dtype=torch.float64, generator=generator).to(f)
        return sum(weight * term(f, derivative, r) for term, weight in chosen)

    return penalty


def gradients(value, tensors):
    """Gradients, with zeros where the value does not depend on a tensor."""
    found = [None] * len(tensors)
    if value.requires_grad:
        found = torch.autograd.grad(value, tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found)]


def relative_error(found, expected):
    """The largest error of a tensor beside its own size, or a thousandth of the largest one's or of
    1, for what only rounding keeps from being 0."""
    largest = max(1, *(e.abs().max().item() for e in expected))
    sizes = [max(e.abs().max().item(), largest / 1000) for e in expected]
    errors = [(f - e).abs().max().item() for f, e in zip(found, expected)]
    return max(error / size for error, size in zip(errors, sizes))


worst = {"cases": 0, "error": 0.0}


def compare(found, expected, tolerance=TOLERANCE):
    error = relative_error(found, expected)
    worst["cases"] += 1
    worst["error"] = max(worst["error"], error)
    assert error <= tolerance, f"relative error {error:.1e}"


@pytest.fixture(scope="module", autouse=True)
def report():
    yield
    print(f"\n{worst['cases']} comparisons, largest relative error {worst['error']:.1e}")


@quiet
@given(modules(), penalties(GRAM_TERMS), st.integers(1, 3))
def test_gradients_of_gram_penalties_are_those_of_double_backpropagation(drawn, penalty, batch):
    module, shape = drawn
    x = inputs(shape, batch, 1).requires_grad_()
    wanted = [x, *module.parameters()]
    f, j = double_backpropagation(module, x)
    expected_gram = gram_of(j)
    expected = gradients(penalty(f, expected_gram), wanted)
    description = read(module, shape)
    found_f, found_gram = _closed.gram(description, x, description.tensors())
    compare([found_f, found_gram], [f, expected_gram])
    compare(gradients(penalty(found_f, found_gram), wanted), expected)


@quiet
@given(modules(), penalties(JACOBIAN_TERMS), st.integers(1, 3))
def test_gradients_of_jacobian_penalties_are_those_of_double_backpropagation(drawn, penalty, batch):
    module, shape = drawn
    x = inputs(shape, batch, 2).requires_grad_()
    wanted = [x, *module.parameters()]
    f, j = double_backpropagation(module, x)
    expected = gradients(penalty(f, j), wanted)
    description = read(module, shape)
    found_f, found_j = _closed.jacobian(description, x, description.tensors())
    compare([found_f, found_j], [f, j])
    compare(gradients(penalty(found_f, found_j), wanted), expected)


@quiet
@given(modules(), st.integers(1, 3))
def test_input_gradients_are_differentiable_also_in_what_they_are_taken_of(drawn, batch):
    module, shape = drawn
    x = inputs(shape, batch, 3).requires_grad_()
    wanted = list(module.parameters())
    f, j = double_backpropagation(module, x)
    y = torch.arange(batch) % f.shape[1]
    r = f.softmax(1) - F.one_hot(y, f.shape[1])
    g = torch.einsum("bk,bk...->b...", r, j)
    expected = gradients(F.cross_entropy(f, y) + g.square().sum(), wanted)
    description = read(module, shape)
    tensors = description.tensors()
    u = _closed.logits(description, x, tensors).softmax(1) - F.one_hot(y, f.shape[1])
    found_f, found_g = _closed.vjp(description, x, u, tensors)
    compare([found_f, found_g], [f, g])
    compare(gradients(F.cross_entropy(found_f, y) + found_g.square().sum(), wanted), expected)


@settings(quiet, max_examples=40)
@given(modules(), penalties(GRAM_TERMS[:1] + GRAM_TERMS[3:5]))
def test_single_precision_is_as_exact_as_it_can_be(drawn, penalty):
    module, shape = drawn
    x = inputs(shape, 2, 4)
    description = read(module, shape)
    f, g = _closed.gram(description, x, description.tensors())
    expected = gradients(penalty(f, g), list(module.parameters()))
    exact_f, exact_g = f, g
    module, x = module.float(), x.float()
    f, g = _closed.gram(description, x, description.tensors())
    assert relative_error([f], [exact_f]) <= 1e-4
    # Otherwise a unit is so close to its kink that rounding opens or closes it.
    assume(relative_error([g], [exact_g]) <= 1e-3)
    found = gradients(penalty(f, g), list(module.parameters()))
    assert all(gradient.dtype is torch.float32 for gradient in found)
    error = relative_error(found, expected)
    assert error <= 5e-3, f"relative error {error:.1e}"


def mlp(*, outputs=3):
    torch.manual_seed(5)
    return randomize(nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, outputs)), 5)


def cnn():
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    return randomize(module, 6)


@pytest.mark.parametrize(("make", "shape"), [(mlp, (4,)), (cnn, (1, 4, 4))])
def test_gradcheck(make, shape):
    module = make()
    description = read(module, shape)
    tensors = [t.detach().requires_grad_() for t in description.tensors()]
    x = inputs(shape, 2, 7).requires_grad_()
    u = inputs((description.outputs,), 2, 8).requires_grad_()
    gradcheck = torch.autograd.gradcheck
    assert gradcheck(lambda x, *t: _closed.logits(description, x, t), (x, *tensors))
    assert gradcheck(lambda x, *t: _closed.gram(description, x, t), (x, *tensors))
    assert gradcheck(lambda x, *t: _closed.jacobian(description, x, t), (x, *tensors))
    assert gradcheck(lambda x, u, *t: _closed.vjp(description, x, u, t), (x, u, *tensors))


def penalized(module, x):
    description = read(module, tuple(x.shape[1:]))
    f, g = _closed.gram(description, x, description.tensors())
    return f.square().sum() + g.square().sum()


def test_gradients_accumulate_over_calls_and_losses():
    module, x = mlp(), inputs((4,), 3, 9)
    parameters = list(module.parameters())
    first = gradients(penalized(module, x), parameters)
    second = gradients(penalized(module, 2 * x) + module(x).sum(), parameters)
    penalized(module, x).backward()
    (penalized(module, 2 * x) + module(x).sum()).backward()
    for parameter, one, two in zip(parameters, first, second):
        torch.testing.assert_close(parameter.grad, one + two, rtol=1e-12, atol=1e-12)


def test_a_second_backward_pass_needs_retain_graph():
    module, x = mlp(), inputs((4,), 3, 9)
    loss = penalized(module, x)
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in module.parameters()]
    loss.backward()
    for parameter, one in zip(module.parameters(), once):
        assert torch.equal(parameter.grad, 2 * one)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("changed", ["weight", "statistics", "input"])
def test_what_is_changed_between_forward_and_backward_is_noticed(changed):
    module, x = cnn(), inputs((1, 4, 4), 2, 9)
    loss = penalized(module, x)
    with torch.no_grad():
        {"weight": module[0].weight, "statistics": module[1].running_var, "input": x}[changed].add_(
            1
        )
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_derivative_is_refused():
    module, x = mlp(), inputs((4,), 3, 9)
    parameters = list(module.parameters())
    found = torch.autograd.grad(penalized(module, x), parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found[0].sum().backward()


def test_gradients_that_nobody_wants_are_not_computed():
    module, x = mlp(), inputs((4,), 3, 9)
    module[0].weight.requires_grad_(False)
    penalized(module, x).backward()
    assert module[0].weight.grad is None
    assert module[2].weight.grad is not None
    with torch.no_grad():
        assert not penalized(module, x).requires_grad


@pytest.mark.parametrize("room", [1, 600, 1 << 30])
def test_rows_may_be_carried_in_parts(room, monkeypatch):
    module, x = cnn(), inputs((1, 4, 4), 3, 9)
    parameters = list(module.parameters())
    expected = gradients(penalized(module, x), parameters)
    monkeypatch.setattr(_closed, "ROOM", room)
    found = gradients(penalized(module, x), parameters)
    assert relative_error(found, expected) < 1e-13


def everything():
    """A module with every kind of node."""

    def middle(x):
        y = F.avg_pool2d(F.pad(x, (1, 1), value=0.5), 2, 2, 1)
        y = torch.cat([y + y.relu(), y.abs(), y.clamp(-1, 1)], 1) + 0.5
        return y.transpose(2, 3).mean(-1).max(1).values.view(-1, 3, 1).squeeze(2) * 2

    return nn.Sequential(cnn()[:4], nn.PReLU(), Call("middle", middle), nn.Linear(3, 2)).double()


@pytest.mark.skipif(torch.__version__ < "2", reason="PyTorch 1.13 has no meta kernels for pooling")
def test_no_operation_asks_for_a_value():
    """Tensors without values stand for those of a GPU, which would have to be waited for."""
    module = everything().eval().to("meta")
    kinds = {node.kind for node in read(module, (1, 4, 4)).nodes}
    gates = {"relu", "leaky-relu", "prelu", "abs", "clip", "max-pool", "max"}
    maps = "input dense conv2d average-pool mean batch-norm scale shift add concat reshape"
    assert kinds == {*gates, *maps.split(), "transpose", "gather"}
    x = torch.empty(3, 1, 4, 4, dtype=torch.float64, device="meta", requires_grad=True)
    penalized(module, x).backward()
    assert all(p.grad.shape == p.shape for p in module.parameters())
    description = read(module, (1, 4, 4))
    u = torch.empty(3, 2, dtype=torch.float64, device="meta", requires_grad=True)
    f, g = _closed.vjp(description, x, u, description.tensors())
    (f.sum() + g.square().sum()).backward()
    assert u.grad.shape == u.shape


def test_an_exact_zero_has_the_slope_of_the_inactive_side():
    gates = [
        (nn.ReLU(), 0.0),
        (nn.LeakyReLU(0.25), 0.25),
        (nn.PReLU(init=0.5), 0.5),
        (Call("abs", torch.abs), -1.0),
        (nn.Hardtanh(0.0, 1.0), 0.0),
        (nn.Hardtanh(-1.0, 0.0), 0.0),
    ]
    for gate, slope in gates:
        description = read(gate.double(), (1,))
        x = torch.zeros(1, 1, dtype=torch.float64)
        _, j = _closed.jacobian(description, x, description.tensors())
        assert j.item() == slope, gate


def test_the_first_of_equal_maxima_wins():
    pools = [
        Call("max", lambda x: x.max(dim=1, keepdim=True)[0].flatten(1)),
        Call("amax", lambda x: torch.amax(x, 1, keepdim=True).flatten(1)),
        nn.Sequential(nn.MaxPool1d(3), nn.Flatten()),
    ]
    for pool, shape in zip(pools, [(3, 1), (3, 1), (1, 3)]):
        description = read(pool, shape)
        x = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64).reshape(1, *shape)
        _, j = _closed.jacobian(description, x, [])
        assert j.flatten().tolist() == [0.0, 1.0, 0.0]


def test_batches_of_one_and_of_none():
    module = cnn()
    description = read(module, (1, 4, 4))
    for batch in (0, 1):
        x = inputs((1, 4, 4), batch, 9)
        f, g = _closed.gram(description, x, description.tensors())
        assert (f.shape, g.shape) == ((batch, 2), (batch, 2, 2))
        (f.sum() + g.sum()).backward()


def test_many_calls_leave_nothing_behind():
    import gc

    module, x = mlp(), inputs((4,), 2, 9)
    for _ in range(20):
        penalized(module, x).backward()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        penalized(module, x).backward()
    gc.collect()
    assert len(gc.get_objects()) < before + 100
