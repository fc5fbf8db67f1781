"""The operators for JAX against JAX itself."""

import numpy as np
import pytest

import relugrad as rg

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy


def network(dtype: str = "float64") -> rg.Network:
    return rg.Mlp([5, 8, 7, 3]).build(seed=4, dtype=dtype)


def plain(params: dict, x):
    """The same network in JAX, for one sample."""
    # JAX sorts the names of a dict.
    arrays = [params[name] for name, _ in network().layout]
    layers = list(zip(arrays[::2], arrays[1::2], strict=True))
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(weight @ x + bias)
    weight, bias = layers[-1]
    return weight @ x + bias


def plain_batch(params: dict, x):
    return jax.vmap(plain, (None, 0))(params, x)


def jacobians(params: dict, x):
    return jax.vmap(jax.jacrev(plain, 1), (None, 0))(params, x)


def batch():
    random = np.random.default_rng(7)
    return jnp.asarray(random.normal(size=(4, 5))), random


def same(found, expected) -> None:
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("jit", [False, True])
def test_gradients_are_those_of_double_backpropagation(jit: bool) -> None:
    net = network()
    params = rg.jax.parameters(net)
    x, random = batch()
    w = jnp.asarray(random.normal(size=(4, 3, 3)))
    v = jnp.asarray(random.normal(size=(4, 3, 5)))
    u = jnp.asarray(random.normal(size=(4, 3)))

    def of_gram(params, x):
        f, g = rg.jax.gram(net, params, x)
        return (w * g**2).sum() + jnp.sin(f).sum()

    def expected_gram(params, x):
        j = jacobians(params, x)
        return (w * (j @ j.mT) ** 2).sum() + jnp.sin(plain_batch(params, x)).sum()

    def of_jacobian(params, x):
        f, j = rg.jax.jacobian(net, params, x)
        return jnp.tanh(v * j).sum() + (f**3).sum()

    def expected_jacobian(params, x):
        return jnp.tanh(v * jacobians(params, x)).sum() + (plain_batch(params, x) ** 3).sum()

    def of_vjp(params, x, u):
        f, g = rg.jax.vjp(net, params, x, u)
        return (g**2).sum() + f.sum()

    def expected_vjp(params, x, u):
        g = jnp.einsum("bkd,bk->bd", jacobians(params, x), u)
        return (g**2).sum() + plain_batch(params, x).sum()

    wrap = jax.jit if jit else lambda function: function
    pairs = [
        (of_gram, expected_gram, (x,)),
        (of_jacobian, expected_jacobian, (x,)),
        (of_vjp, expected_vjp, (x, u)),
    ]
    for ours, theirs, arguments in pairs:
        numbers = tuple(range(1 + len(arguments)))
        found = wrap(jax.value_and_grad(ours, numbers))(params, *arguments)
        same(found, jax.value_and_grad(theirs, numbers)(params, *arguments))


def test_the_parameters_are_those_that_are_given() -> None:
    net = network()
    before = net.parameters
    params = jax.tree.map(lambda array: array + 0.1, rg.jax.parameters(net))
    x, _ = batch()
    same(rg.jax.logits(net, params, x), plain_batch(params, x))
    assert np.array_equal(net.parameters, before)


def test_images_keep_their_shape() -> None:
    net = rg.Architecture("lenet").build([1, 8, 8], 4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 8, 8)))
    params = rg.jax.parameters(net)
    f, j = rg.jax.jacobian(net, params, x)
    assert f.shape == (2, 4) and j.shape == (2, 4, 1, 8, 8)
    gradient = jax.grad(lambda x: rg.jax.logits(net, params, x)[:, 1].sum())(x)
    same(gradient, j[:, 1])


def test_many_forward_passes_before_the_first_way_back() -> None:
    net = network()
    params = rg.jax.parameters(net)
    x, _ = batch()

    def of(scale):
        return lambda params: rg.jax.gram(net, params, x * scale)[1].sum()

    ways = [jax.vjp(of(scale), params)[1] for scale in range(1, 8)]
    for scale, back in enumerate(ways, 1):
        same(back(jnp.asarray(1.0))[0], jax.grad(of(scale))(params))


def test_vmap_is_a_loop() -> None:
    net = network()
    params = rg.jax.parameters(net)
    x, _ = batch()
    found = jax.vmap(lambda x: rg.jax.gram(net, params, x)[1])(jnp.stack([x, 2 * x]))
    same(found[1], rg.jax.gram(net, params, 2 * x)[1])


def test_training_steps_in_float32() -> None:
    net = network(dtype="float32")
    params = rg.jax.parameters(net)
    x = batch()[0].astype("float32")

    def value(params):
        return jnp.trace(rg.jax.gram(net, params, x)[1], axis1=1, axis2=2).mean()

    @jax.jit
    def step(params):
        loss, gradient = jax.value_and_grad(value)(params)
        return loss, jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)

    losses = []
    for _ in range(5):
        loss, params = step(params)
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_what_is_refused() -> None:
    net = network()
    params = rg.jax.parameters(net)
    x, _ = batch()
    with pytest.raises(rg.ArrayTypeError, match="x is float32"):
        rg.jax.gram(net, params, x.astype("float32"))
    with pytest.raises(rg.Error, match=r"\[B, 5\] is needed"):
        rg.jax.gram(net, params, x[:, :4])
    with pytest.raises(rg.Error, match="lacks"):
        rg.jax.gram(net, dict(list(params.items())[1:]), x)
    name = next(iter(params))
    with pytest.raises(rg.Error, match="is needed"):
        rg.jax.gram(net, {**params, name: params[name][:1]}, x)
    with pytest.raises(Exception, match="not finite"):
        jax.block_until_ready(rg.jax.gram(net, params, x.at[0, 0].set(jnp.nan)))
