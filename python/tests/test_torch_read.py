"""Reading modules: which nodes they become, what is refused and how, and what is noticed later."""

import gc
import threading
import weakref

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize, prune

from relugrad.torch._read import UnsupportedModule, read


class Function(nn.Module):
    """A module whose forward is a function, with tensors as attributes."""

    def __init__(self, function, **tensors):
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                setattr(self, name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, x):
        return self.function(self, x)


def kinds(module, shape):
    return [node.kind for node in read(module.eval(), shape).nodes[1:]]


def parameter(*shape):
    return nn.Parameter(torch.randn(*shape))


def mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_an_mlp_is_its_layers_with_their_own_parameters():
    module = mlp()
    nodes = read(module, (3,)).nodes
    assert [node.name for node in nodes] == ["input", "0", "1", "2"]
    assert [node.operation for node in nodes] == [
        {"operation": "input"},
        {"operation": "dense", "bias": True},
        {"operation": "gate", "gate": "relu"},
        {"operation": "dense", "bias": True},
    ]
    assert [node.shape for node in nodes] == [(3,), (4,), (4,), (2,)]
    assert [node.inputs for node in nodes] == [(), (0,), (1,), (2,)]
    tensors = read(module, (3,)).tensors()
    assert all(found is own for found, own in zip(tensors, module.parameters()))


def test_windows_say_all_that_torch_was_told():
    conv = nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0), (1, 2), groups=2, bias=False)
    pool = nn.MaxPool2d(3, 2, 1, 1, ceil_mode=True)
    mean = nn.AvgPool2d(2, padding=1, count_include_pad=False)
    module = nn.Sequential(conv, pool, mean, nn.Flatten())
    nodes = read(module, (2, 9, 9)).nodes
    window = {
        "kernel": [3, 2],
        "stride": [2, 1],
        "dilation": [1, 2],
        "padding": [[1, 1], [0, 0]],
        "ceil": False,
    }
    expected = {"operation": "conv2d", "window": window, "groups": 2, "bias": False}
    assert nodes[1].operation == expected
    assert nodes[2].operation["window"]["ceil"] is True
    assert nodes[3].operation["count_padding"] is False
    with torch.no_grad():
        found = module[:3](torch.zeros(1, 2, 9, 9)).shape
    assert nodes[3].shape == tuple(found[1:])


def test_an_even_kernel_with_same_padding_has_the_odd_entry_behind():
    nodes = read(nn.Sequential(nn.Conv2d(1, 1, (4, 3), padding="same"), nn.Flatten()), (1, 5, 5))
    assert nodes.nodes[1].operation["window"]["padding"] == [[1, 2], [1, 1]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: x.view(x.size(0), -1), ["reshape"]),
        (lambda m, x: x.view(-1, 12), ["reshape"]),
        (lambda m, x: x.reshape(x.shape[0], x.shape[1] * x.shape[2]), ["reshape"]),
        (lambda m, x: torch.flatten(x, 1), ["reshape"]),
        (lambda m, x: x.permute(0, 2, 1).flatten(1), ["transpose", "reshape"]),
        (lambda m, x: x.transpose(1, 2)[:, 0], ["transpose", "gather"]),
        (lambda m, x: x[:, 1], ["gather"]),
        (lambda m, x: x[..., 1:3, 0].squeeze(), ["gather"]),
        (
            lambda m, x: torch.cat(x.chunk(2, 2)[::-1], 2).flatten(1),
            ["gather"] * 2 + ["concat", "reshape"],
        ),
        (lambda m, x: F.pad(x, (1, 0))[:, 0], ["gather", "gather"]),
        (lambda m, x: x.flip(1).flatten(1), ["gather", "reshape"]),
        (lambda m, x: x.mean(-1), ["mean"]),
        (lambda m, x: x.mean(dim=(1,), keepdim=True).squeeze(1), ["mean", "reshape", "reshape"]),
        (lambda m, x: x.sum(1), ["mean", "scale"]),
        (lambda m, x: x.max(dim=2).values, ["max"]),
        (lambda m, x: torch.max(x, 2)[0], ["max"]),
        (lambda m, x: torch.amax(x, 1), ["max"]),
        (
            lambda m, x: torch.relu(x[:, 0]) + F.relu(x[:, 1]),
            ["gather", "relu", "gather", "relu", "add"],
        ),
        (lambda m, x: 2 * x[:, 0] - 1, ["gather", "scale", "shift"]),
        (lambda m, x: 1 - x[:, 0] / 2, ["gather", "scale", "scale", "shift"]),
        (lambda m, x: x[:, 0].clamp(-1, 1), ["gather", "clip"]),
        (lambda m, x: x[:, 0].clamp(min=0), ["gather", "relu"]),
        (lambda m, x: abs(-x[:, 0]), ["gather", "scale", "abs"]),
        (lambda m, x: sum([x[:, 0], x[:, 1]]), ["gather", "gather", "add"]),
        (lambda m, x: x.flatten(1) if x.dim() == 3 else x, ["reshape"]),
    ],
)
def test_functional_forms_are_nodes(function, expected):
    assert kinds(Function(function), (3, 4)) == expected


def test_parameters_and_buffers_scale_and_shift():
    module = Function(
        lambda m, x: (x * m.w + m.c) / m.w2, w=parameter(3), c=torch.ones(3), w2=torch.ones(3)
    )
    nodes = read(module, (3,)).nodes
    assert [node.operation.get("learned") for node in nodes[1:]] == [True, False, False]
    assert read(module, (3,)).tensors()[0] is module.w


def test_a_parameter_used_twice_is_the_same_tensor_twice():
    linear = nn.Linear(3, 3)
    module = nn.Sequential(linear, nn.ReLU(), linear)
    tensors = read(module, (3,)).tensors()
    assert [id(t) for t in tensors] == [id(linear.weight), id(linear.bias)] * 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("normalize", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_normalized_weights_are_computed_anew_and_differentiable(normalize):
    linear = normalize(nn.Linear(3, 2)).eval()
    description = read(linear, (3,))
    before = description.tensors()[0]
    before.sum().backward()
    assert all(p.grad is not None for name, p in linear.named_parameters() if name != "bias")
    token = description.token()
    with torch.no_grad():
        for p in linear.parameters():
            p.mul_(torch.rand_like(p) + 2)
    assert read(linear, (3,)) is description
    assert description.token() != token
    assert not torch.equal(description.tensors()[0], before)
    x = torch.randn(5, 3)
    weight, bias = description.tensors()
    assert torch.allclose(linear(x), F.linear(x, weight, bias))


def test_parametrized_and_pruned_weights_are_computed_anew():
    class Double(nn.Module):
        def forward(self, w):
            return 2 * w

    linear = nn.Linear(3, 2)
    parametrize.register_parametrization(linear, "weight", Double())
    original = linear.parametrizations.weight.original
    assert torch.equal(read(linear, (3,)).tensors()[0], 2 * original)
    description = read(Function(lambda m, x: F.linear(x, 3 * m.w.t()), w=parameter(3, 2)), (3,))
    assert description.tensors()[0].requires_grad
    pruned = prune.random_unstructured(nn.Linear(3, 2), "weight", amount=3)
    assert (read(pruned, (3,)).tensors()[0] == 0).sum() == 3


def without(context, x):
    with context:
        return x * 2


unregistered = nn.Parameter(torch.ones(2, 3))

REFUSED = [
    (
        nn.Sequential(mlp(), nn.Sequential(nn.Linear(2, 2), nn.GELU())),
        (3,),
        r"^1\.1 \(GELU\): `gelu` is not",
    ),
    (nn.Sequential(nn.Sigmoid()), (3,), r"^0 \(Sigmoid\): `sigmoid` is not piecewise linear; use"),
    (nn.Sequential(mlp(), nn.Softmax(1)), (3,), r"^1 \(Softmax\): .*; return the logits"),
    (
        nn.Sequential(nn.BatchNorm1d(3)),
        (3,),
        r"^0 \(BatchNorm1d\): it is in training mode.*\.eval\(\)",
    ),
    (nn.Sequential(nn.Dropout()), (3,), r"^0 \(Dropout\): it is in training mode.*\.eval\(\)"),
    (
        nn.BatchNorm1d(3, track_running_stats=False).eval(),
        (3,),
        "takes its statistics from the batch",
    ),
    (nn.Sequential(nn.LayerNorm(3)), (3,), r"^0 \(LayerNorm\): .*divides by a statistic"),
    (nn.Sequential(nn.InstanceNorm1d(3)), (3, 4), r"^0 \(InstanceNorm1d\): "),
    (nn.LSTM(3, 3), (4, 3), r"^LSTM: `lstm` is not among"),
    (nn.Sequential(nn.AdaptiveAvgPool2d(2)), (1, 5, 5), r"^0 \(AdaptiveAvgPool2d\): .*divisor"),
    (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), (1, 4, 4), "indices"),
    (nn.Bilinear(2, 2, 2), (2,), "several inputs, also input2"),
    (nn.Linear(4, 2), (3,), "its weight has the shape"),
    (nn.Sequential(nn.Conv2d(1, 1, 3)), (1, 2, 2), "is larger than its input"),
    (nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 9), r"needs \[batch, channels, height, width\]"),
    (nn.Sequential(nn.Conv2d(1, 1, 3)), (1, 4, 4), r"no row of logits"),
    (Function(lambda m, x: x * x), (3,), "multiplies two values"),
    (Function(lambda m, x: x / x), (3,), "divides by a value"),
    (
        Function(lambda m, x: x @ x.transpose(1, 2)),
        (3, 3),
        "depends on the input, which makes prod",
    ),
    (Function(lambda m, x: x if x.sum() > 0 else -x), (3,), "combines the samples|supported"),
    (Function(lambda m, x: x if x[:, 0] > 0 else -x), (3,), "`gt` is not among"),
    (Function(lambda m, x: x.view(64, -1)), (3,), "`view` cannot be applied here"),
    (Function(lambda m, x: x.reshape(-1, 2)), (4,), "moves or fixes the axis of the batch"),
    (Function(lambda m, x: x.t()), (3,), "`t` is not among"),
    (Function(lambda m, x: x.transpose(0, 1)), (3,), "moves the axis of the batch"),
    (Function(lambda m, x: x.roll(1, 0)), (3,), "mixes the samples"),
    (Function(lambda m, x: x.mean()), (3,), "combines the samples of a batch"),
    (Function(lambda m, x: x - x.mean(0)), (3,), "combines the samples of a batch"),
    (Function(lambda m, x: x * x.size(0)), (3,), "it is combined with Barred|size of the batch"),
    (Function(lambda m, x: x.view(x.size(0) * 1, -1)), (3,), "computes with the size of the batch"),
    (Function(lambda m, x: (x, x)), (3,), "several values"),
    (Function(lambda m, x: {"logits": x}), (3,), "several values"),
    (Function(lambda m, x: m.w, w=parameter(3)), (3,), "does not depend on the input"),
    (Function(lambda m, x: x.detach()), (3,), "stops derivatives"),
    (Function(lambda m, x: x.half()), (3,), "`half` is not among"),
    (Function(lambda m, x: torch.cat([x, torch.ones(4, 1)], 1)), (3,), "joins values with tensors"),
    (Function(lambda m, x: next(iter(x))), (3,), "the entries, one by one"),
    (Function(lambda m, x: x.numpy()), (3,), "`numpy` is not among"),
    (Function(lambda m, x: x[:, :0]), (3,), "empty"),
    (Function(lambda m, x: x.unfold(1, 2, 1).flatten(1) @ object()), (3,), "."),
    (nn.DataParallel(mlp()), (3,), r"give its \.module"),
    (nn.Sequential(nn.LazyLinear(2)), (3,), r"^0 \(LazyLinear\): .*call the module once"),
    (Function(lambda m, x: without(torch.no_grad(), x)), (3,), "turns derivatives off"),
    (Function(lambda m, x: without(torch.autocast("cpu"), x)), (3,), "turns autocast on"),
    (Function(lambda m, x: F.linear(x, unregistered * 2)), (3,), "computed from others before"),
]


@pytest.mark.parametrize(("module", "shape", "message"), REFUSED)
def test_what_has_no_closed_form_is_refused_by_name(module, shape, message):
    with pytest.raises(UnsupportedModule, match=message):
        read(module, shape)


def test_a_compiled_module_is_refused():
    compiled = torch.jit.script(nn.Linear(3, 3))
    for module, where in [(compiled, "Recursive"), (nn.Sequential(compiled), r"0 \(Recursive")]:
        with pytest.raises(UnsupportedModule, match=f"^{where}.*TorchScript"):
            read(module, (3,))


def test_attributes_that_forward_assigns_are_left_as_they_were():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.calls = nn.Linear(3, 2), 0

        def forward(self, x):
            self.calls += 1
            self.last = self.linear(x)
            return self.last

    module = Keeping()
    assert read(module, (3,)) is read(module, (3,))
    assert module.calls == 0 and not hasattr(module, "last")


def test_the_error_has_parts_and_can_be_sent_to_other_processes():
    import pickle

    with pytest.raises(ValueError) as caught:
        read(nn.Sequential(nn.Linear(3, 3), nn.GELU()), (3,))
    sent = pickle.loads(pickle.dumps(caught.value))
    assert type(sent) is UnsupportedModule
    assert sent.where == "1 (GELU)" and sent.problem == "`gelu` is not piecewise linear"
    assert str(sent) == str(caught.value) == f"{sent.where}: {sent.problem}; {sent.advice}"


def test_other_mistakes_are_named():
    with pytest.raises(TypeError, match="an nn.Module is needed"):
        read(lambda x: x, (3,))
    with pytest.raises(ValueError, match="must be positive"):
        read(mlp(), (0,))
    with torch.autocast("cpu"), pytest.raises(UnsupportedModule, match="autocast is on"):
        read(mlp(), (3,))


def test_types_and_devices_are_checked_at_every_call():
    module = mlp()
    description = read(module, (3,))
    module[2].double()
    with pytest.raises(UnsupportedModule, match="^2: .*torch.float64.*torch.float32"):
        description.tensors()
    with pytest.raises(UnsupportedModule, match="float32 and float64"):
        read(module.half(), (3,)).tensors()
    module = mlp()
    module[2].to("meta")
    with pytest.raises(UnsupportedModule, match="meta.*one device"):
        read(module, (3,)).tensors()


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_refused_when_they_come(register):
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU()))
    read(module, (3,))
    handle = getattr(module[1][0], register)(lambda *_: None)
    with pytest.raises(UnsupportedModule, match=r"^1\.0 \(ReLU\): it has a forward (pre )?hook"):
        read(module, (3,))
    handle.remove()
    read(module, (3,))
    handle = module[0].register_full_backward_hook(lambda *_: None)
    with pytest.raises(UnsupportedModule, match="backward hook"):
        read(module, (3,))
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedModule, match="hooks for all modules"):
        read(module, (3,))
    handle.remove()


def change_slope(m):
    m[1].negative_slope = 0.5


def change_mode(m):
    m[3].train()


def change_layer(m):
    m[1] = nn.ReLU()


def change_bias(m):
    m[2].bias = None


def change_forward(m):
    m[1].forward = torch.relu


def change_list(m):
    m[4].scales.append(3.0)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scales = [2.0]

    def forward(self, x):
        for scale in self.scales:
            x = x * scale
        return x


CHANGES = [change_slope, change_layer, change_bias, change_forward, change_list]


def layers():
    return nn.Sequential(
        nn.Linear(3, 4), nn.LeakyReLU(0.1), nn.Linear(4, 2), nn.Dropout(), Scaled()
    ).eval()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_structure_is_noticed(change):
    module = layers()
    before = read(module, (3,))
    assert read(module, (3,)) is before
    change(module)
    after = read(module, (3,))
    assert [node.operation for node in after.nodes] != [node.operation for node in before.nodes]
    assert read(module, (3,)) is after


def test_training_mode_is_noticed():
    module = layers()
    read(module, (3,))
    module.train()
    with pytest.raises(UnsupportedModule, match=r"^3 \(Dropout\)"):
        read(module, (3,))
    module.eval()
    read(module, (3,))


def test_changed_weights_are_seen_without_reading_anew():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    description = read(module, (3,))
    tokens = {description.token()}
    with torch.no_grad():
        module[0].weight.add_(1)
    tokens.add(description.token())
    module[0].weight = nn.Parameter(torch.ones(4, 3))
    tokens.add(description.token())
    assert description.tensors()[0] is module[0].weight
    module[1].running_mean.mul_(0.5).add_(1)
    tokens.add(description.token())
    assert any(c is module[1].running_mean for c in description.constants())
    assert read(module, (3,)) is description
    assert len(tokens) == 4 and description.token() in tokens


def test_decisions_by_buffers_are_made_anew():
    module = Function(
        lambda m, x: x[:, m.order] if m.on else x, order=torch.tensor([1, 0]), on=torch.tensor(True)
    )
    assert kinds(module, (2,)) == ["gather"]
    module.on.fill_(False)
    assert kinds(module, (2,)) == []
    module.on.fill_(True)
    module.order.copy_(torch.tensor([0, 1]))
    assert kinds(module, (2,)) == []


def test_ties_that_break_are_noticed():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    before = read(module, (3,)).tensors()
    assert before[0] is before[2]
    second.weight = nn.Parameter(torch.zeros(3, 3))
    after = read(module, (3,)).tensors()
    assert after[0] is first.weight and after[2] is second.weight


def test_operations_in_place_change_what_they_change():
    def used_later(m, x):
        y = x + 1
        F.relu(y, inplace=True)
        return y

    def alias(m, x):
        y = x + 1
        z = y
        z += x
        return y

    def other_view(m, x):
        y = x + 1
        z = y.view(-1, 3)
        z.relu_()
        return y

    assert kinds(Function(used_later), (3,)) == ["shift", "relu"]
    assert kinds(Function(alias), (3,)) == ["shift", "add"]
    with pytest.raises(UnsupportedModule, match="changed in place under another name"):
        read(Function(other_view), (3,))
    with pytest.raises(UnsupportedModule, match="changes a tensor of the module by `mul_`"):
        read(Function(lambda m, x: x * m.w.mul_(2), w=torch.ones(3)), (3,))


def test_modules_can_be_freed_and_copied():
    import copy

    module = Function(lambda m, x: F.linear(x, m.w) * m.c, w=parameter(2, 3), c=torch.ones(2))
    read(module, (3,))
    copied = copy.deepcopy(module)
    assert read(copied, (3,)).tensors()[0] is copied.w
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_other_threads_do_not_notice_that_a_module_is_read():
    started, stop, results = threading.Event(), threading.Event(), []
    other, x = mlp(), torch.randn(4, 3)

    def compute():
        while not stop.is_set():
            results.append(type(other(x)) is torch.Tensor)
            started.set()

    thread = threading.Thread(target=compute)
    thread.start()
    started.wait(60)
    for _ in range(50):
        read(mlp(), (3,))
    stop.set()
    thread.join(60)
    assert results and all(results)
