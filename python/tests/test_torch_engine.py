"""The operators on the engine, against double backpropagation on random modules."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_torch_closed import (
    GRAM_TERMS,
    JACOBIAN_TERMS,
    compare,
    double_backpropagation,
    gradients,
    gram_of,
    penalties,
    quiet,
    report,  # noqa: F401
    worst,
)
from torch_modules import inputs, modules

import relugrad as rg


@pytest.fixture(scope="module", autouse=True)
def from_none():
    worst.update(cases=0, error=0.0)


@quiet
@given(modules(), penalties(GRAM_TERMS), st.integers(1, 3))
def test_gram_penalties(drawn, penalty, batch):
    module, shape = drawn
    x = inputs(shape, batch, 1).requires_grad_()
    wanted = [x, *module.parameters()]
    f, j = double_backpropagation(module, x)
    expected_gram = gram_of(j)
    found_f, found_gram = rg.torch.gram(module, x)
    compare([found_f, found_gram], [f, expected_gram])
    expected = gradients(penalty(f, expected_gram), wanted)
    compare(gradients(penalty(found_f, found_gram), wanted), expected)


@quiet
@given(modules(), penalties(JACOBIAN_TERMS), st.integers(1, 3))
def test_jacobian_penalties(drawn, penalty, batch):
    module, shape = drawn
    x = inputs(shape, batch, 2).requires_grad_()
    wanted = [x, *module.parameters()]
    f, j = double_backpropagation(module, x)
    found_f, found_j = rg.torch.jacobian(module, x)
    compare([found_f, found_j], [f, j])
    compare(gradients(penalty(found_f, found_j), wanted), gradients(penalty(f, j), wanted))


@quiet
@given(modules(), st.integers(1, 3))
def test_input_gradients(drawn, batch):
    module, shape = drawn
    x = inputs(shape, batch, 3).requires_grad_()
    wanted = list(module.parameters())
    f, j = double_backpropagation(module, x)
    y = torch.arange(batch) % f.shape[1]
    r = f.softmax(1) - F.one_hot(y, f.shape[1])
    g = torch.einsum("bk,bk...->b...", r, j)
    found_f, found_g = rg.torch.input_gradient(module, x, y)
    compare([found_f, found_g], [f, g])
    expected = gradients(F.cross_entropy(f, y) + g.square().sum(), wanted)
    compare(gradients(F.cross_entropy(found_f, y) + found_g.square().sum(), wanted), expected)


@quiet
@given(modules(), st.integers(1, 3))
def test_penalties_of_the_engine(drawn, batch):
    module, shape = drawn
    x = inputs(shape, batch, 4)
    wanted = list(module.parameters())
    y = torch.arange(batch) % module(x).shape[1]

    def by_hand(name):
        f, j = double_backpropagation(module, x)
        g, p = gram_of(j), f.softmax(1)
        if name == "curvature-frobenius":
            g = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) @ g
            g = g @ g
        return g.diagonal(dim1=1, dim2=2).sum(1).mean()

    for name in ("jacobian", "curvature-frobenius"):
        # A single logit is taken for class 1 by the logistic loss.
        found = rg.torch.penalty(module, x, y, name, loss="softmax-cross-entropy")
        expected = by_hand(name)
        compare([found], [expected])
        compare(gradients(found, wanted), gradients(expected, wanted))
