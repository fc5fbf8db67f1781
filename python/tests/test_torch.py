"""The operators for PyTorch as their users call them, on both backends."""

import copy
import os
import threading

import pytest

import relugrad as rg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
nn, F = torch.nn, torch.nn.functional

BACKENDS = ["engine", "torch"]
backends = pytest.mark.parametrize("backend", BACKENDS)


class Residual(nn.Module):
    """A small image network with most kinds of parameters, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.PReLU(6))
        self.same = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + F.leaky_relu(self.same(x), 0.2)
        x = F.relu(self.same(x))
        return self.head(F.max_pool2d(x, 3).flatten(1))


def model(dtype=torch.float64) -> nn.Module:
    torch.manual_seed(3)
    made = Residual().to(dtype)
    with torch.no_grad():
        made.stem[1].running_mean.normal_()
        made.stem[1].running_var.uniform_(0.5, 2)
        made.stem[1].weight.normal_()
    return made.eval()


def batch(samples: int = 3, dtype=torch.float64):
    torch.manual_seed(5)
    x = torch.randn(samples, 2, 6, 6, dtype=dtype)
    return x, torch.randint(0, 3, (samples,))


def by_rows(module, x):
    """Logits and Jacobians by double backpropagation."""
    x = x if x.requires_grad else x.clone().requires_grad_()
    f = module(x)
    rows = [torch.autograd.grad(f[:, k].sum(), x, create_graph=True)[0] for k in range(f.shape[1])]
    return f, torch.stack(rows, 1)


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def same(found, expected, tolerance=1e-10) -> None:
    for a, b in zip(found, expected, strict=True):
        if a is None or b is None:
            # PyTorch leaves out what nothing depends on.
            assert not any(g is not None and g.any() for g in (a, b))
            continue
        assert (a - b).abs().max() <= tolerance * (1 + b.abs().max())


def value(module, x, y, backend):
    """An objective of a user's own, through all three operators."""
    f, g = rg.torch.gram(module, x, backend=backend)
    _, j = rg.torch.jacobian(module, x, backend=backend)
    _, h = rg.torch.input_gradient(module, x, y, backend=backend)
    return (
        F.cross_entropy(f, y)
        + 0.1 * torch.linalg.eigvalsh(g)[:, -1].mean()
        + 0.2 * j.abs().sum((1, 2, 3, 4)).mean()
        + 0.3 * h.square().sum().sqrt()
    )


def expected_value(module, x, y):
    f, j = by_rows(module, x)
    flat = j.flatten(2)
    g = flat @ flat.transpose(1, 2)
    u = torch.softmax(f, 1) - F.one_hot(y, f.shape[1])
    h = torch.einsum("bkd,bk->bd", flat, u)
    return (
        F.cross_entropy(f, y)
        + 0.1 * torch.linalg.eigvalsh(g)[:, -1].mean()
        + 0.2 * flat.abs().sum((1, 2)).mean()
        + 0.3 * h.square().sum().sqrt()
    )


@backends
def test_operators_compose_to_the_gradients_of_double_backpropagation(backend) -> None:
    module, (x, y) = model(), batch()
    found = value(module, x, y, backend)
    found.backward()
    ours = gradients(module)
    module.zero_grad(set_to_none=True)
    expected = expected_value(module, x, y)
    expected.backward()
    assert torch.allclose(found, expected, rtol=1e-12)
    same(ours, gradients(module))


@backends
def test_gradients_reach_the_inputs(backend) -> None:
    module, (x, y) = model(), batch()
    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    value(module, found, y, backend).backward()
    expected_value(module, expected, y).backward()
    same([found.grad], [expected.grad])
    # Gram matrices and Jacobians alone are constant inside a region.
    for operator in (rg.torch.gram, rg.torch.jacobian):
        x.requires_grad_()
        (zero,) = torch.autograd.grad(operator(module, x, backend=backend)[1].sum(), x)
        assert not zero.any()


@backends
@pytest.mark.parametrize("operator", ["gram", "jacobian"])
def test_gradcheck(backend, operator) -> None:
    module, (x, _) = model(), batch(2)
    names = [name for name, _ in module.named_parameters()]

    def run(*parameters):
        other = copy.deepcopy(module)
        for name, parameter in zip(names, parameters, strict=True):
            owner, _, last = name.rpartition(".")
            del other.get_submodule(owner)._parameters[last]
            setattr(other.get_submodule(owner), last, parameter)
        return getattr(rg.torch, operator)(other, x, backend=backend)

    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(run, parameters, eps=1e-6, atol=1e-6, fast_mode=True)


@backends
def test_several_calls_accumulate(backend) -> None:
    module, (x, y) = model(), batch(4)
    module.zero_grad(set_to_none=True)
    for part in range(0, 4, 2):
        (value(module, x[part : part + 2], y[part : part + 2], backend) / 2).backward()
    parts = gradients(module)
    module.zero_grad(set_to_none=True)
    halves = [value(module, x[i : i + 2], y[i : i + 2], backend) for i in (0, 2)]
    (sum(halves) / 2).backward()
    same(parts, gradients(module), 1e-13)


@backends
def test_going_back_twice(backend) -> None:
    module, (x, y) = model(), batch()
    for operator in (rg.torch.gram, rg.torch.jacobian):
        module.zero_grad(set_to_none=True)
        f, g = operator(module, x, backend=backend)
        loss = F.cross_entropy(f, y) + g.square().sum()
        loss.backward(retain_graph=True)
        once = gradients(module)
        loss.backward()
        same(gradients(module), [2 * g for g in once], 1e-13)
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


@backends
def test_a_second_derivative_is_refused(backend) -> None:
    module, (x, _) = model(), batch()
    _, g = rg.torch.gram(module, x, backend=backend)
    (first,) = torch.autograd.grad(g.square().sum(), module.head.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@backends
def test_changed_weights_are_seen(backend) -> None:
    module, (x, _) = model(), batch()
    before = rg.torch.gram(module, x, backend=backend)[1]
    with torch.no_grad():
        module.head.weight.mul_(2)
    assert torch.allclose(rg.torch.gram(module, x, backend=backend)[1], 4 * before)
    # Where PyTorch does not notice it either.
    module.head.weight.data.mul_(2)
    assert torch.allclose(rg.torch.gram(module, x, backend=backend)[1], 16 * before)
    module.head.weight = nn.Parameter(module.head.weight.detach() / 4)
    assert torch.allclose(rg.torch.gram(module, x, backend=backend)[1], before)
    module.stem[1].running_var.mul_(2)
    _, j = by_rows(module, x)
    found = rg.torch.jacobian(module, x, backend=backend)[1]
    assert torch.allclose(found, j, atol=1e-12)


@backends
def test_weights_that_change_before_the_way_back(backend) -> None:
    module, (x, _) = model(), batch()
    _, g = rg.torch.gram(module, x, backend=backend)
    with torch.no_grad():
        module.head.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        g.sum().backward()


def test_the_engine_goes_back_through_the_weights_of_the_way_forth() -> None:
    module, (x, _) = model(), batch()
    _, g = rg.torch.gram(module, x)
    g.sum().backward(retain_graph=True)
    expected = gradients(module)
    module.zero_grad(set_to_none=True)
    # PyTorch does not notice what is written through `.data`.
    module.head.weight.data.mul_(2)
    g.sum().backward()
    same(gradients(module), expected, 1e-13)


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_are_kept(backend, dtype) -> None:
    module, (x, y) = model(dtype), batch(dtype=dtype)
    f, g = rg.torch.gram(module, x, backend=backend)
    assert f.dtype == g.dtype == dtype
    g.sum().backward()
    _, g64 = rg.torch.gram(copy.deepcopy(module).double(), x.double())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    same([g.double()], [g64], tolerance)
    assert all(p.grad is None or p.grad.dtype == dtype for p in module.parameters())
    assert rg.torch.penalty(module, x, y, "jacobian").dtype == dtype


@backends
def test_without_gradients(backend) -> None:
    module, (x, _) = model(), batch()
    with torch.no_grad():
        f, g = rg.torch.gram(module, x, backend=backend)
        _, j = rg.torch.jacobian(module, x, backend=backend)
    assert not (f.requires_grad or g.requires_grad or j.requires_grad)
    assert torch.allclose(f, module(x))
    flat = by_rows(module, x)[1].flatten(2)
    assert torch.allclose(g, flat @ flat.transpose(1, 2))
    module.requires_grad_(False)
    module.head.bias.requires_grad_(True)
    f, g = rg.torch.gram(module, x, backend=backend)
    (f.sum() + g.sum()).backward()
    assert torch.allclose(module.head.bias.grad, torch.full_like(module.head.bias, 3))
    assert module.head.weight.grad is None


def test_penalties_of_the_engine() -> None:
    module, (x, y) = model(), batch()
    f, j = by_rows(module, x)
    flat = j.flatten(2)
    g = flat @ flat.transpose(1, 2)
    p = torch.softmax(f, 1)
    s = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    sg = s @ g
    by_hand = {
        "jacobian": flat.square().sum((1, 2)).mean(),
        "jacobian-spectral": torch.linalg.eigvalsh(g)[:, -1].mean(),
        "curvature-trace": sg.diagonal(dim1=1, dim2=2).sum(1).mean(),
        "curvature-frobenius": (sg @ sg).diagonal(dim1=1, dim2=2).sum(1).mean(),
    }
    for name, expected in by_hand.items():
        module.zero_grad(set_to_none=True)
        found = 3 * rg.torch.penalty(module, x, y, name)
        found.backward()
        ours = gradients(module)
        module.zero_grad(set_to_none=True)
        (3 * expected).backward(retain_graph=True)
        assert torch.allclose(found, 3 * expected)
        same(ours, gradients(module))


def test_every_penalty_of_the_catalogue() -> None:
    module, (x, y) = model(), batch()
    for entry in rg.penalties():
        module.zero_grad(set_to_none=True)
        rg.torch.penalty(module, x, y, entry["name"]).backward()
        found = torch.cat([p.grad.flatten() for p in module.parameters()])
        # One step against the gradient lowers it.
        with torch.no_grad():
            before = rg.torch.penalty(module, x, y, entry["name"])
            length = 1e-6 / found.norm().clamp_min(1e-12)
            for parameter in module.parameters():
                parameter -= length * parameter.grad
            after = rg.torch.penalty(module, x, y, entry["name"])
            for parameter in module.parameters():
                parameter += length * parameter.grad
        if found.norm() > 1e-9:
            assert torch.allclose(before - after, 1e-6 * found.norm(), rtol=0.02), entry["name"]


@pytest.mark.parametrize(
    ("formula", "by_hand"),
    [
        ("tr(G)", lambda f, j, y: j.square().sum((1, 2))),
        ("sum(abs(J))", lambda f, j, y: j.abs().sum((1, 2))),
        ("norm2(J^T*(p - y))", lambda f, j, y: gradient_of_loss(f, j, y).norm(dim=1)),
        (
            "lse(f - one*dot(y, f) + eps*rownorms2(J - one*(y^T*J)))",
            lambda f, j, y: (
                f
                - f.gather(1, y[:, None])
                + 0.3 * ((j - j[range(len(y)), y][:, None]).square().sum(2) + 1e-300).sqrt()
            ).logsumexp(1),
        ),
    ],
)
def test_a_formula_is_what_pytorch_makes_of_it(formula, by_hand) -> None:
    module, (x, y) = model(), batch()
    f, j = rg.torch.jacobian(module, x)
    expected = by_hand(f, j.flatten(2), y).mean()
    expected.backward()
    theirs = gradients(module)
    module.zero_grad(set_to_none=True)
    constants = {"eps": 0.3} if "eps" in formula else None
    found = rg.torch.penalty(module, x, y, formula=formula, constants=constants)
    found.backward()
    assert torch.allclose(found, expected)
    same(gradients(module), theirs)


def gradient_of_loss(f, j, y):
    r = torch.softmax(f, 1) - F.one_hot(y, f.shape[1])
    return (r[:, None] @ j)[:, 0]


def test_a_formula_that_is_none_is_refused_with_its_place() -> None:
    module, (x, y) = model(), batch()
    with pytest.raises(
        rg.Error, match=r"`f` is \[K\] and `J` is \[K, D\]\n  norm2\(f \+ J\)\n {8}\^{5}$"
    ):
        rg.torch.penalty(module, x, y, formula="norm2(f + J)")
    with pytest.raises(rg.Error, match="no name `eps`"):
        rg.torch.penalty(module, x, y, formula="eps*tr(G)")
    with pytest.raises(rg.Error, match="no formula"):
        rg.torch.penalty(module, x, y, "jacobian", constants={"eps": 0.1})
    with pytest.raises(rg.Error, match="give the name"):
        rg.torch.penalty(module, x, y)
    with pytest.raises(
        rg.Error, match="the term `log\\(-tr\\(G\\)\\)` of formula own is not finite"
    ):
        rg.torch.penalty(module, x, y, "own", formula="log(-tr(G))")
    with pytest.raises(TypeError, match="constants"):
        rg.torch.penalty(module, x, y, formula="c*tr(G)", constants={"c": "much"})


def test_a_loss_of_the_users_own() -> None:
    module, (x, _) = model(), batch()
    y = torch.randn(3, 3, dtype=torch.float64)

    def huber(f, y):
        return F.smooth_l1_loss(f, y, reduction="none").sum(1)

    for backend in BACKENDS:
        module.zero_grad(set_to_none=True)
        _, g = rg.torch.input_gradient(module, x, y, loss=huber, backend=backend)
        g.square().sum().backward()
        ours = gradients(module)
        module.zero_grad(set_to_none=True)
        inputs = x.clone().requires_grad_()
        losses = huber(module(inputs), y).sum()
        (expected,) = torch.autograd.grad(losses, inputs, create_graph=True)
        assert torch.allclose(g, expected)
        expected.square().sum().backward()
        same(ours, gradients(module))
    with pytest.raises(rg.Error, match='reduction="none"'):
        rg.torch.input_gradient(module, x, y, loss=F.mse_loss)


def test_a_module_as_a_network() -> None:
    module, (x, _) = model(), batch()
    network = rg.torch.network(module, x)
    assert torch.allclose(torch.from_numpy(network(x.numpy())), module(x))
    with torch.no_grad():
        module.head.bias.add_(1)
    assert not torch.allclose(torch.from_numpy(network(x.numpy())), module(x))


def test_two_threads_at_once() -> None:
    module, (x, y) = model(), batch()
    expected = value(module, x, y, "engine").item()
    found, errors = [], []

    def work() -> None:
        try:
            for _ in range(20):
                found.append(value(module, x, y, "engine").item())
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert found == [expected] * 40


def test_the_same_bits_every_time() -> None:
    module, (x, y) = model(torch.float32), batch(7, torch.float32)
    runs = []
    for _ in range(3):
        module.zero_grad(set_to_none=True)
        f, g = rg.torch.gram(module, x)
        (F.cross_entropy(f, y) + g.square().mean()).backward()
        runs.append(gradients(module))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_what_is_refused() -> None:
    module, (x, y) = model(), batch()
    with pytest.raises(rg.ArrayTypeError, match="x is torch.float32"):
        rg.torch.gram(module, x.float())
    with pytest.raises(TypeError, match="must be a torch.Tensor"):
        rg.torch.gram(module, x.numpy())
    with pytest.raises(TypeError, match="torch.nn.Module"):
        rg.torch.gram(lambda x: x, x)
    with pytest.raises(rg.Error, match="backend"):
        rg.torch.gram(module, x, backend="tpu")
    with pytest.raises(rg.Error, match="not finite"):
        rg.torch.gram(module, x * float("nan"))
    with pytest.raises(rg.Error, match="x.detach"):
        rg.torch.penalty(module, x.clone().requires_grad_(), y, "jacobian")
    with pytest.raises(rg.Error, match="jacobian"):
        rg.torch.penalty(module, x, y, "jacobain")
    with pytest.raises(rg.Error, match="step"):
        rg.torch.penalty(module, x, y, "cure", step=-1.0)
    with pytest.raises(ValueError, match="stem.1"):
        rg.torch.gram(module.train(), x)
    module.eval()
    with pytest.raises(rg.Error):
        rg.torch.gram(module, x[0, 0, 0])
    with pytest.raises(Exception, match="(?i)meta"):
        rg.torch.gram(module, x.to("meta"))


def test_strides_do_not_matter() -> None:
    module, (x, _) = model(), batch()
    expected = rg.torch.gram(module, x)[1]
    strided = x.to(memory_format=torch.channels_last)
    assert torch.equal(rg.torch.gram(module, strided)[1], expected)
    wide = torch.zeros(3, 2, 6, 12, dtype=torch.float64)
    wide[..., ::2] = x
    assert torch.equal(rg.torch.gram(module, wide[..., ::2])[1], expected)
    _, g = rg.torch.gram(module, x)
    g.transpose(1, 2).flip(0).sum().backward()
    with torch.no_grad():
        module.head.weight.set_(module.head.weight.t().contiguous().t())
    assert torch.allclose(rg.torch.gram(module, x)[1], expected)


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="there is no /proc here")
def test_no_memory_is_lost_over_ten_thousand_calls() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x, y = torch.randn(2, 4).double(), torch.tensor([0, 2])

    def step(backend, number) -> None:
        f, g = rg.torch.gram(module, x, backend=backend)
        if number % 3:
            (F.cross_entropy(f, y) + g.sum()).backward()
        with torch.no_grad():
            module[0].bias.add_(1e-9)
        if number % 100 == 0:
            rg.torch.gram(copy.deepcopy(module), x, backend=backend)

    for backend in BACKENDS:
        for number in range(500):
            step(backend, number)
        before = resident()
        for number in range(10_000):
            step(backend, number)
        # A lost Gram matrix alone, without its graph, would be 1.4 MB.
        assert resident() - before < 1_000_000
