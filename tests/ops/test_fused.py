"""Properties of the fused operations alone: blocks that are skipped, arrays that never exist, targets ignored."""

import itertools
import operator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from refgrad import cost, ops, verify
from refgrad.numerics import product, weight_grad
from refgrad.ops import TABLE, fused
from refgrad.ops.multi_head_attention import _plain, attend
from refgrad.symbols import evaluate
from tests.lanes import fast_if
from tests.ops.cases import DIMS, NAMES, relative_error, stand_in_for_cudnn, weighted

F32, I32 = jnp.float32, jnp.int32
FUSED = [name for name in NAMES if name.startswith("fused.")]
HEADS = ("head_loss", "head_loss_by_vocabulary")


def z(*shape, dtype=F32):
    return jnp.zeros(shape, dtype)


def layer(h=6):
    return [z(*struct.shape) for struct in TABLE["fused.block"].shapes({**DIMS[0], "h": h}, F32)]


def head(x=(2, 3, 4), E=(7, 4), targets=(2, 3), dtype=I32):
    return z(*x), z(*E), z(*targets, dtype=dtype), z(*targets, dtype=I32)


BAD = {
    "attention, block": (lambda: fused.attention(*3 * [z(2, 3, 4)], 0), ValueError, "block is 0, but must be at least"),
    "attention, kernel": (
        lambda: fused.attention(*3 * [z(2, 3, 4, dtype=jnp.bfloat16)], "cudnn"),
        ValueError,
        "block is 'cudnn', but JAX's device here is a cpu",
    ),
    "attention, another kernel": (
        lambda: fused.attention(*3 * [z(2, 3, 4)], "flash"),
        TypeError,
        "block is 'flash', but must be a static integer: the rows of a block of queries, or 'cudnn'",
    ),
    "attention, negative": (lambda: fused.attention(*3 * [z(2, 3, 4)], -8), ValueError, "block is -8, but must be"),
    "attention, empty": (
        lambda: fused.attention(*3 * [z(2, 0, 4)], 2),
        ValueError,
        r"shape \(2, 0, 4\), but needs one",
    ),
    "attention, shape": (lambda: fused.attention(z(3, 4), z(5, 4), z(3, 4), 2), ValueError, "k has shape .* s = 3"),
    "block, heads": (lambda: fused.block(*layer(), 4, 1e-5, 2), ValueError, "n_head is 4, but must divide h = 6"),
    "block, block": (lambda: fused.block(*layer(), 2, 1e-5, 0), ValueError, "fused.block: block is 0"),
    "block, eps": (lambda: fused.block(*layer(), 2, 0.0, 2), ValueError, r"eps is 0\.0, but must be above 0"),
    "gelu": (lambda: fused.gelu(z(2, dtype=I32)), TypeError, "gelu: x is int32"),
    "head_loss, chunk": (lambda: fused.head_loss(*head(), 0), ValueError, "chunk is 0, but must be at least 1"),
    "head_loss, columns": (lambda: fused.head_loss(*head(), 2, 0), ValueError, "columns is 0, but must be at least 1"),
    "head_loss, empty": (lambda: fused.head_loss(*head((0, 3, 4), (7, 4), (0, 3)), 2), ValueError, "needs one row"),
    "head_loss, ids": (lambda: fused.head_loss(*head(dtype=F32), 2), TypeError, "targets is float32, but ids are int"),
    "head_loss, rows": (lambda: fused.head_loss(*head(targets=(2, 5)), 2), ValueError, r"targets has shape \(2, 5\)"),
    "head_loss, smoothing": (
        lambda: fused.head_loss(*head(), 2, smoothing=1.0),
        ValueError,
        r"smoothing is 1\.0, but must be",
    ),
    "head_loss, z": (lambda: fused.head_loss(*head(), 2, z_loss=-1.0), ValueError, r"z_loss is -1\.0, but must be"),
    "head_loss_by_vocabulary, chunk": (
        lambda: fused.head_loss_by_vocabulary(*head(), -1),
        ValueError,
        "chunk is -1, but must be at least 1",
    ),
    "attention, a fraction": (
        lambda: fused.attention(*3 * [z(2, 3, 4)], 2.5),
        TypeError,
        "block is 2.5, but must",
    ),
    "head_loss, a fraction": (
        lambda: fused.head_loss(*head(), 2.5),
        TypeError,
        "chunk is 2.5, but must",
    ),
    "head_loss, vocabulary": (
        lambda: fused.head_loss(*head(E=(0, 4)), 2),
        ValueError,
        "has one id at least",
    ),
    "head_loss, mask": (lambda: fused.head_loss(*head()[:3], z(2, 3), 2), TypeError, "mask is float32, but is 0"),
    "head_loss, infinite z": (lambda: fused.head_loss(*head(), 2, z_loss=float("inf")), ValueError, "z_loss is inf"),
    "layer_norm": (lambda: fused.layer_norm(z(2, 3), z(3), z(3), 0.0), ValueError, r"eps is 0\.0, but must be above 0"),
    "linear": (lambda: fused.linear(z(2, 3), z(4, 5), z(5)), ValueError, "w has shape .* where i is 4, but i = 3"),
    "rms_norm": (lambda: fused.rms_norm(z(2, 3), z(3), 0.0), ValueError, r"eps is 0\.0, but must be above 0"),
    "rotary": (lambda: fused.rotary(z(2, 3), 1e4), ValueError, "x has 3 columns a head, but they are turned in pairs"),
    "rotary, base": (lambda: fused.rotary(z(2, 4), 0.0), ValueError, r"base is 0\.0, but must be above 0"),
    "swiglu": (lambda: fused.swiglu(z(2, 3), z(2, 4)), ValueError, r"swiglu: u has shape \(2, 4\)"),
    "mlp": (lambda: fused.mlp(z(2, 3), z(3, 5), z(5), z(4, 3), z(3)), ValueError, "w_2 has shape .* o is 4, but o = 5"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named(what):
    call, error, message = BAD[what]
    with pytest.raises(error, match=message):
        call()


def test_every_fused_operation_is_tried():
    assert {what.partition(",")[0] for what in BAD} == {name.removeprefix("fused.") for name in FUSED}


@pytest.mark.parametrize("name", FUSED)
def test_the_forward_of_the_rule_costs_what_it_says(name):
    row = TABLE[name]
    for dims in DIMS:
        counted = cost.count(lambda *a, dims=dims: jax.vjp(row.bound(dims), *a), *row.shapes(dims, F32))
        for part, found in zip(range(2), (counted.flops, counted.transcendental), strict=True):
            assert found == evaluate(row.forward[part] + row.fwd_extra[part], dims)


@pytest.mark.parametrize("s", [1, 2, 4, 5, 9])
def test_attention_equals_the_documents_at_every_length(s, x64):
    rng = np.random.default_rng(s)
    q, k, v = (jnp.asarray(rng.standard_normal((2, 3, s, 5))) for _ in range(3))

    def document(q, k, v):
        scores = ops.attention_scaling.fun(ops.query_key.fun(q, k), q.shape[-1])
        return ops.attn_value.fun(ops.causal_softmax.fun(scores), v)

    both = (partial(fused.attention, block=4), document)
    got, want = jax.jit(lambda *a: [jax.value_and_grad(weighted(f), (0, 1, 2))(*a) for f in both])(q, k, v)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert relative_error(one, other) <= 1e-13


def test_a_common_part_of_keys_and_values_leaves_attentions_digits(x64):
    """A row of the scores' gradient sums to 0, or large keys would multiply what is left of it."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, 9, 5)), F32) for _ in range(3))
    both = jax.jit(jax.grad(weighted(partial(fused.attention, block=4)), (0, 1)))
    args = q, k + 256, v + 256
    for got, want in zip(both(*args), both(*(x.astype(jnp.float64) for x in args)), strict=True):
        assert relative_error(got, want) <= 1e-4


@pytest.fixture
def kernel(monkeypatch):
    return stand_in_for_cudnn(monkeypatch)


@pytest.mark.slow
def test_a_kernel_in_the_blocks_place_is_given_and_gives_the_same(kernel):
    row, dims = TABLE["fused.block"], {**DIMS[0], "h": 6}
    heads = TABLE["fused.attention"].sample(1, dims, jnp.bfloat16)
    layer_ = row.sample(2, dims, jnp.bfloat16)
    for op, args in (
        (lambda *a, by: fused.attention(*a, by), heads),
        (lambda *a, by: fused.block(*a, 2, 1e-5, by), layer_),
        (lambda *a, by: fused.block(*a, 2, 1e-5, by, True), layer_),
    ):
        with jax.numpy_dtype_promotion("standard"):  # which JAX's own attention needs in 16 bits
            got, want = (
                jax.jit(jax.value_and_grad(weighted(partial(op, by=by)), tuple(range(len(args)))))(*args)
                for by in (kernel, 4)
            )
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert relative_error(one, other) <= 0.03


def test_a_kernel_of_16_bits_refuses_more(kernel):
    with pytest.raises(ValueError, match="q is float32, and its kernel is for bfloat16 and float16: take blocks"):
        fused.attention(*3 * [z(2, 3, 4)], kernel)
    with pytest.raises(ValueError, match=r"q has shape \(3, 4\), not \(b, n_h, s, d\)"):
        fused.attention(*3 * [z(3, 4, dtype=jnp.bfloat16)], kernel)


BF16 = jnp.bfloat16


def test_a_weights_gradient_in_bf16_finds_its_kernel():
    """Without a transposition of its own the product's arguments are taken to float32 first."""
    x, dz = jax.ShapeDtypeStruct((64, 48), BF16), jax.ShapeDtypeStruct((64, 80), BF16)
    wide = "f32[64,48]"
    assert wide not in jax.jit(weight_grad).lower(x, dz).compile().as_text()
    plain = jax.jit(lambda x, dz: product("ri,ro->io", x, dz))
    assert wide in plain.lower(x, dz).compile().as_text()


@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 1, 1), (16, 1, 9), (33, 12, 8)], ids=str)
def test_a_weights_gradient_in_bf16_is_right_wherever_it_goes(shape):
    """Transposed and mapped: XLA's CPU compiler turns some such products into ones that it has no kernel for."""
    rng = np.random.default_rng(0)
    r, i, o = shape
    x, dz = (jnp.asarray(rng.standard_normal((3, r, n)), BF16) for n in (i, o))
    want = np.einsum("bri,bro->bio", *(np.asarray(a, np.float32) for a in (x, dz)))

    def forms(x, dz):
        return weight_grad(x, dz), weight_grad(x, dz).T, weight_grad(x, dz).astype(BF16).T

    one = jax.jit(forms)(x[0], dz[0])
    chex.assert_trees_all_close(one[0], one[1].T, want[0], rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(one[2].T.astype(F32), want[0], rtol=1e-2, atol=1e-2)
    for axes, args, expected in (
        ((0, 0), (x, dz), want),
        ((0, None), (x, dz[0]), np.einsum("bri,ro->bio", np.float32(x), np.float32(dz[0]))),
        ((None, 0), (x[0], dz), np.einsum("ri,bro->bio", np.float32(x[0]), np.float32(dz))),
    ):
        mapped = jax.jit(jax.vmap(weight_grad, axes))(*args)
        chex.assert_trees_all_close(mapped, expected, rtol=1e-5, atol=1e-5)


def test_masked_blocks_are_neither_computed_nor_counted():
    shapes = [jax.ShapeDtypeStruct((1, 1, 8, 3), F32)] * 3
    for block, area in ((1, 36), (2, 40), (4, 48), (8, 64), (100, 64)):
        counted = cost.count(partial(fused.attention, block=block), *shapes)
        backward = cost.count_backward(partial(fused.attention, block=block), *shapes)
        assert counted.matmul == 4 * area * 3 and backward.matmul == (10 * 3 + 2) * area
        assert counted.transcendental == backward.transcendental == area


def planned(f, *shapes):
    """Bytes of temporaries of f's forward and backward."""

    def both(ct, *arrays):
        return jax.vjp(f, *arrays)[1](ct)

    program = jax.jit(both).lower(jax.eval_shape(f, *shapes), *shapes).compile()
    return program.memory_analysis().temp_size_in_bytes


def attention_and_block(s):
    """Temporaries of both at one length: two heads of 16 columns, blocks of 64 to 128 rows."""
    block = TABLE["fused.block"]
    layer_ = block.shapes({**DIMS[0], "b": 1, "s": s, "h": 32}, F32)
    heads = [jax.ShapeDtypeStruct((1, 2, s, 16), F32)] * 3
    return planned(partial(fused.attention, block=128), *heads), planned(
        lambda *a: fused.block(*a, 2, 1e-5, 128), *layer_
    )


@pytest.mark.parametrize(
    "lengths", [(256, 512), pytest.param((512, 1024, 2048, 4096), marks=pytest.mark.slow)], ids=str
)
def test_temporaries_grow_linearly(lengths):
    each = [attention_and_block(s) for s in lengths]
    for found in zip(*each, strict=True):
        for short, long in itertools.pairwise(found):
            assert long < 2.3 * short  # 4 where they are quadratic; a tenth is how the compiler packs its buffers
        assert found[-1] / found[0] < 1.25 * lengths[-1] / lengths[0]


def arrays(jaxpr):
    """Every array that a traced program makes, at any depth."""
    for eqn in jaxpr.eqns:
        yield from (v.aval for v in eqn.outvars)
        for inner in jaxprs_in_params(eqn.params):
            yield from arrays(inner)


@pytest.mark.parametrize(
    ("name", "chunk", "largest"), [("head_loss", 3, 2 * 3 * 101), ("head_loss_by_vocabulary", 30, 2 * 11 * 30)]
)
def test_no_logits_beyond_a_chunk(name, chunk, largest):
    """3 of 11 positions or 30 of 101 rows of E at a time; E's own gradient is (101, 4)."""
    shapes = (jax.ShapeDtypeStruct((2, 11, 4), F32), jax.ShapeDtypeStruct((101, 4), F32))
    ids = jax.ShapeDtypeStruct((2, 11), I32)
    loss = partial(getattr(fused, name), chunk=chunk)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(*shapes, ids, ids)
    sizes = {aval.size for aval in arrays(jaxpr.jaxpr) if aval.dtype == F32 and aval.shape != (101, 4)}
    assert max(sizes) == largest < 2 * 11 * 101


def plain_loss(x, E, targets, mask, smoothing, z_loss):
    """The loss in the words of its definition."""
    logits = x @ E.T
    total = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    losses = total - (1 - smoothing) * picked - smoothing * jnp.mean(logits, axis=-1) + z_loss * total**2
    mask = mask.astype(losses.dtype)
    return jnp.sum(losses * mask) / jnp.maximum(jnp.sum(mask), 1)


TERMS = [(0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.2, 0.03)]


@pytest.mark.parametrize(("smoothing", "z_loss"), fast_if(lambda *terms: all(terms), TERMS))
@pytest.mark.parametrize("name", HEADS)
def test_smoothing_z_loss_and_ignored_targets(name, smoothing, z_loss, x64):
    row = TABLE[f"fused.{name}"]
    x, E, targets, mask = row.sample(3, DIMS[1], jnp.float64)
    assert 0 < jnp.sum(mask) < mask.size
    by_rule = partial(getattr(fused, name), chunk=4, smoothing=smoothing, z_loss=z_loss)
    got = jax.jit(jax.value_and_grad(by_rule, (0, 1)))(x, E, jnp.where(mask, targets, -100), mask)
    want = jax.jit(jax.value_and_grad(lambda *a: plain_loss(*a, targets, mask, smoothing, z_loss), (0, 1)))(x, E)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert relative_error(one, other) <= 1e-13


@pytest.mark.parametrize("name", HEADS)
def test_an_ignored_target_may_be_any_id_of_a_vocabulary_of_one(name):
    args = jnp.ones((1, 2, 3)), jnp.ones((1, 3)), jnp.array([[0, -100]]), jnp.array([[1, 0]])
    loss, grads = jax.value_and_grad(partial(getattr(fused, name), chunk=4), (0, 1))(*args)
    chex.assert_trees_all_equal((loss, grads), jax.tree.map(jnp.zeros_like, (loss, grads)))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_smoothing_and_z_loss_hold_to_second_order(name):
    by_rule = partial(getattr(fused, name), chunk=4, smoothing=0.2, z_loss=0.03)
    single = TABLE[f"fused.{name}"].sample(3, DIMS[1], F32)
    verify.assert_ok(by_rule, *single, properties=("structure", "accuracy", "second_order"))


@pytest.mark.parametrize("dtype", fast_if(lambda dtype: dtype == "float32", ["float32", "bfloat16", "float16"]))
@pytest.mark.parametrize("name", HEADS)
def test_no_target_counts(name, dtype):
    x, E, targets, mask = TABLE[f"fused.{name}"].sample(0, DIMS[0], jnp.dtype(dtype))
    for smoothing, z_loss in ((0.0, 0.0), (0.1, 0.01)):
        loss = partial(getattr(fused, name), chunk=2, smoothing=smoothing, z_loss=z_loss)
        value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, E, 0 * targets - 100, 0 * mask)
        assert value == 0 and not any(map(jnp.any, grads))


@pytest.mark.parametrize("name", HEADS)
def test_a_mask_of_truths_is_one_of_numbers(name):
    x, E, targets, mask = TABLE[f"fused.{name}"].sample(3, DIMS[1], F32)
    targets = jnp.where(mask, targets, -100)
    both = jax.jit(jax.value_and_grad(partial(getattr(fused, name), chunk=2), (0, 1)))
    chex.assert_trees_all_equal(both(x, E, targets, targets != -100), both(x, E, targets, mask))


def test_no_example_gives_no_output_and_no_gradient():
    x, *p = layer()
    y, grads = jax.jit(jax.value_and_grad(lambda p: fused.block(x[:0], *p, 2, 1e-5, 2).sum()))(p)
    assert y == 0 and not any(map(jnp.any, grads))


@pytest.mark.parametrize("name", HEADS)
def test_an_id_outside_the_vocabulary_is_nan_only_where_it_counts(name):
    x, E, targets, mask = TABLE[f"fused.{name}"].sample(0, DIMS[0], F32)
    loss = jax.jit(partial(getattr(fused, name), chunk=2))
    for bad in (-1, E.shape[0], 2**31 - 1):
        wrong = targets.at[1, 1].set(bad)
        assert jnp.isnan(loss(x, E, wrong, mask.at[1, 1].set(1)))
        assert jnp.isfinite(loss(x, E, wrong, mask.at[1, 1].set(0)))


@pytest.mark.parametrize("name", ["attention", *HEADS])
def test_a_block_or_chunk_larger_than_its_axis_is_the_axis(name):
    row, dims = TABLE[f"fused.{name}"], DIMS[1]
    axis = dims["V" if name == "head_loss_by_vocabulary" else "s"]
    arrays_ = row.sample(0, dims, F32)
    f = operator.attrgetter(name)(fused)
    chex.assert_trees_all_equal(f(*arrays_, axis), f(*arrays_, axis + 1), f(*arrays_, 10**6))


def test_a_block_that_recomputes_keeps_its_input_alone(x64):
    row, dims = TABLE["fused.block"], DIMS[1]
    arrays_ = row.sample(0, dims, jnp.float64)
    statics = row.static_values(dims)[:-1]
    calls = [lambda *a, again=again: fused.block(*a, *statics, again) for again in (False, True)]
    keep, again = (jax.jit(jax.grad(weighted(f), range(13)))(*arrays_) for f in calls)
    for one, other in zip(keep, again, strict=True):
        assert relative_error(one, other) <= 1e-13
    kept = jax.eval_shape(lambda *a: jax.vjp(calls[1], *a)[1], *row.shapes(dims, F32))
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == sum(a.size for a in arrays_)


def test_the_blocks_forward_is_the_documents(x64):
    row, dims = TABLE["fused.block"], DIMS[1]

    @jax.jit
    def document(x, *p):
        one = x + attend(_plain(), ops.layer_norm.fun(x, *p[:2], 1e-5), *p[2:6], dims["n_h"])
        inner = ops.gelu.fun(ops.linear.fun(ops.layer_norm.fun(one, *p[6:8], 1e-5), *p[8:10]))
        return one + ops.linear.fun(inner, *p[10:])

    arrays_ = row.sample(0, dims, jnp.float64)
    assert relative_error(jax.jit(row.bound(dims))(*arrays_), document(*arrays_)) <= 1e-13


def test_rotary_turns_scores_by_the_distance_alone(x64):
    """Scores of turned queries and keys depend on how far apart they stand, and turning keeps every length."""
    rng = np.random.default_rng(0)
    q, k = (jnp.broadcast_to(jnp.asarray(rng.standard_normal((1, 8))), (6, 8)) for _ in range(2))
    turned_q, turned_k = fused.rotary(q, 100.0), fused.rotary(k, 100.0)
    scores = turned_q @ turned_k.T
    for distance in range(-5, 6):
        along = jnp.diagonal(scores, distance)
        assert relative_error(along, jnp.broadcast_to(along[0], along.shape)) <= 1e-13
    assert relative_error(jnp.linalg.norm(turned_q, axis=-1), jnp.linalg.norm(q, axis=-1)) <= 1e-14
