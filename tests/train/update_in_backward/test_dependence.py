"""Which leaf depends on which gradient: through calls, branches and loops; transformations that mix are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from refgrad.jaxpr.dependence import dependence, evaluate
from refgrad.models import gpt2
from refgrad.train.optimiser import State, init_state
from refgrad.train.update_in_backward.layerwise import EACH, MIXED, OTHER, SAME, kinds
from refgrad.train.update_in_backward.per_leaf import per_leaf_update
from refgrad.train.update_in_backward.scanned import layerwise_update

PARAMS = {"a": jnp.ones((3, 4)), "b": jnp.ones(4), "c": jnp.ones(())}


def scanned(x, y):
    (x, y), total = lax.scan(lambda c, _: ((c[0] * 2, c[1] + 1), c[0].sum()), (x, y), None, length=3)
    return x, y, total


def looped(x, y):
    return lax.while_loop(lambda c: c[0].sum() < 9, lambda c: (c[0] + 1, c[1] * 2), (x, y))


def shifted(x, y, z):
    return lax.fori_loop(0, 5, lambda _, c: (c[1], c[2], c[2]), (x, y, z))


PROGRAMS = {
    "jit": (lambda x, y: jax.jit(lambda a, b: (a + 1, b * 2))(x, y), 2, [1, 2]),
    "cond": (lambda x, y: lax.cond(True, lambda: (x, y), lambda: (y, y)), 2, [3, 2]),
    "cond's index": (lambda x, y: lax.cond(x[0] > 0, lambda: y, lambda: 2 * y), 2, [3]),
    "scan": (scanned, 2, [1, 2, 1]),
    "while: how often it runs": (looped, 2, [1, 3]),
    "fori_loop: after two iterations": (shifted, 3, [7, 6, 4]),
    "sort": (lambda x, y: lax.sort((x, y)), 2, [3, 3]),
    "custom_jvp": (lambda x, y: (jax.nn.relu(x), jax.nn.silu(y)), 2, [1, 2]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_sets_of_inputs(name):
    f, n, want = PROGRAMS[name]
    program = jax.make_jaxpr(f)(*(jnp.ones(2) for _ in range(n)))
    assert dependence(program, [1 << i for i in range(n)]) == want


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_part_evaluated_is_the_whole(name):
    f, n, sets = PROGRAMS[name]
    inputs = [jnp.asarray([0.5 + i, 2.0 - i]) for i in range(n)]
    program = jax.make_jaxpr(f)(*inputs)
    whole = jax.tree.leaves(f(*inputs))
    for place, found in enumerate(sets):
        wanted = [i == place for i in range(len(sets))]
        given = [x if found >> i & 1 else None for i, x in enumerate(inputs)]
        part = evaluate(program, given, wanted)
        np.testing.assert_array_equal(part[place], whole[place])
        assert [x is not None for x in part] == wanted


def hidden(rate):
    """Plain descent, but the step of "a" has the largest entry of "b"'s gradient in it, inside a branch in a loop."""

    def update(grads, state, params=None):
        seen = lax.fori_loop(0, 2, lambda _, x: lax.cond(x > 0, lambda: grads["b"].max(), lambda: x), jnp.ones(()))
        return {k: -rate * g * (seen if k == "a" else 1.0) for k, g in grads.items()}, state

    return optax.GradientTransformation(lambda params: (), update)


MIXING = {
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(1e-3), 3),
    "clip_by_global_norm": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
    "prodigy": optax.contrib.prodigy,
    "dog": lambda: optax.contrib.dog(1.0),
    "normalize_by_update_norm": optax.normalize_by_update_norm,
    "hidden": lambda: hidden(0.1),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_is_refused_by_name_with_a_way_out(name):
    tx = MIXING[name]()
    with pytest.raises(ValueError, match=r"tx mixes gradients at \S+.* depends on those of .*, .*: go this way"):
        per_leaf_update(tx, init_state(PARAMS, tx), "go this way")


def test_each_leaf_from_its_own_gradient():
    tx = optax.adamw(1e-2)
    state = init_state(PARAMS, tx)
    grads = jax.tree.map(lambda leaf: 0.5 + leaf, PARAMS)
    parts = per_leaf_update(tx, state, "")
    flat, opt = jax.tree.leaves(state.params), jax.tree.leaves(state.opt_state)
    with jax.numpy_dtype_promotion("standard"):
        updates, after = tx.update(grads, state.opt_state, state.params)
        want = State(optax.apply_updates(state.params, updates), after)
    for place, gradient in enumerate(jax.tree.leaves(grads)):
        (new,), owned = parts.update({place: gradient}, flat, opt)
        np.testing.assert_allclose(new, jax.tree.leaves(want.params)[place], rtol=1e-6)
        for i, leaf in zip(parts.owned([place]), owned, strict=True):
            np.testing.assert_allclose(leaf, jax.tree.leaves(want.opt_state)[i], rtol=1e-6)
    _, (count,) = parts.update({}, flat, opt, shared=True)
    assert count == 1


STACKED = jnp.ones((3, 4))
KINDS = {
    "element-wise": (lambda x, y: 0.9 * x + jnp.sqrt(x), EACH),
    "with a count": (lambda x, y: x * y[0], EACH),
    "a sum over all": (lambda x, y: x / x.sum(), MIXED),
    "a sum in each layer": (lambda x, y: x.sum(1), EACH),
    "a sum over layers": (lambda x, y: x - x.mean(0, keepdims=True), MIXED),
    "another array of as many rows": (lambda x, y: x + y[:3, None], MIXED),
    "the layer's number": (lambda x, y: x * lax.broadcasted_iota(x.dtype, x.shape, 0), MIXED),
    "cumulative": (lambda x, y: jnp.cumsum(x, 0), MIXED),
    "reversed": (lambda x, y: x[::-1], MIXED),
    "a constant": (lambda x, y: jnp.zeros_like(x), SAME),
    "nothing stacked": (lambda x, y: y.sum(), OTHER),
}


@pytest.mark.parametrize("name", KINDS)
def test_layers_kept_apart_or_not(name):
    f, want = KINDS[name]
    program = jax.make_jaxpr(f)(STACKED, jnp.ones(5))
    assert kinds(program, [EACH, OTHER]) == [want]


LAYERS = gpt2.Config(n_layer=3, n_head=2, n_embd=8, n_positions=8, vocab_size=16)
OTHERWISE = {
    "a literal": lambda g: -g / g.size,
    "a power": lambda g: -lax.integer_pow(g, g.shape[0]),
    "numbers counted": lambda g: -g * jnp.arange(g.shape[0]).astype(g.dtype).sum(),
    "in a branch": lambda g: lax.cond(jnp.ones(()) > 0, lambda x: x * float(x.shape[0]), lambda x: x, g),
    "in a loop": lambda g: g * lax.fori_loop(0, g.shape[0], lambda _, c: 0.5 * c, jnp.ones(())),
}


def leaf_by_leaf(f):
    return optax.GradientTransformation(lambda params: (), lambda g, state, params=None: (jax.tree.map(f, g), state))


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_depends_on_how_many_layers_are_stacked_is_refused(name):
    params = jax.eval_shape(gpt2.stack, gpt2.shapes(LAYERS))
    with pytest.raises(ValueError, match="something else with one layer than with all of them stacked: go this way"):
        layerwise_update(leaf_by_leaf(OTHERWISE[name]), State(params, ()), "go this way")
    layerwise_update(leaf_by_leaf(lambda g: -0.1 * g / (1 + jnp.abs(g))), State(params, ()), "")
