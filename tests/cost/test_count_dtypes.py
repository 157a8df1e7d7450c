"""The table of costs at every dtype and at odd shapes, against what XLA counts."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from refgrad.cost import count
from tests.cost.lax_samples import BINARY, INTEGER_BINARY, UNARY, names, since, spec
from tests.lanes import fast_if

FLOATS = ("bfloat16", "float16", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int8", "uint32", "int32")
SHAPES = ((13,), (3, 5, 7))

NO_COMPLEX = set(
    names(
        "atan2 bessel_i0e bessel_i1e cbrt ceil complex digamma erf erf_inv erfc floor ge gt igamma igamma_grad_a "
        "igammac is_finite le lgamma lt nextafter polygamma random_gamma_grad rem round zeta"
    )
)
INTEGER_TOO = names("abs neg sign square add sub mul div rem max min eq ne lt le gt ge")
INTEGER_TOO += since((0, 11, 2), ["one_minus_square"])
ELEMENTWISE = [
    *((name, dtype) for name in (*UNARY, *BINARY) for dtype in FLOATS),
    *((name, dtype) for name in (*UNARY, *BINARY) if name not in NO_COMPLEX for dtype in COMPLEX),
    *((name, dtype) for name in (*INTEGER_TOO, *INTEGER_BINARY) for dtype in INTEGERS),
    *((name, "bool") for name in ("max", "min", "eq", "ne", "lt", "bitwise_and", "bitwise_or")),
]
# random_gamma_grad is a program of loops, whose constants XLA folds; JAX has no such dtype for the others
SKIPPED = {
    *(("random_gamma_grad", dtype) for dtype in FLOATS),
    *((name, "uint32") for name in ("abs",)),
    *((name, dtype) for name in ("conj",) for dtype in ("bfloat16", "float16")),
    *(("complex", dtype) for dtype in ("bfloat16", "float16")),
}


FAST = ("bfloat16", "float64", "complex64", "int32", "bool")  # one of each kind


@pytest.mark.parametrize(
    ("name", "dtype"), fast_if(lambda _, dtype: dtype in FAST, [case for case in ELEMENTWISE if case not in SKIPPED])
)
def test_elementwise(name, dtype, lowered, x64):
    f = getattr(lax, name)
    operands = 1 if name in UNARY else 2
    for shape in SHAPES[: 2 if dtype == "float64" else 1]:
        args = [spec(*shape, dtype=dtype)] * operands
        cost = count(f, *args)
        assert (cost.flops, cost.transcendental) == lowered(f, *args)


CONVERSIONS = (*FLOATS, *COMPLEX, *INTEGERS, "float32", "bool")


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("source", CONVERSIONS)
def test_conversions(source, lowered, x64):
    x = spec(3, 5, dtype=source)
    for target in CONVERSIONS:
        f = lambda x, t=target: lax.convert_element_type(x, jnp.dtype(t))  # noqa: E731
        with jax.numpy_dtype_promotion("standard"):
            assert count(f, x).flops == lowered(f, x)[0], f"{source} to {target}"


@pytest.mark.parametrize("power", (2, 3, 4, 5, 6, 7, 8, 11, 15, 16, 23, -1, -2, -3, -4, -7))
def test_integer_powers(power, lowered):
    f = lambda x: lax.integer_pow(x, power)  # noqa: E731
    assert count(f, spec(5, 7)).flops == lowered(f, spec(5, 7))[0]


AXES = {
    **{f"reduce_{op}": (lambda x, op=op: getattr(lax, f"reduce_{op}")(x, (0, 2))) for op in ("sum", "max", "prod")},
    **{f"{op}": (lambda x, op=op: getattr(lax, op)(x, 1)) for op in ("cumsum", "cummax", "cumprod")},
    "argmax": lambda x: lax.argmax(x, 1, jnp.int32),
    "sort": lax.sort,
    "window": lambda x: lax.reduce_window(x, lax.full_like(x, 0, shape=()), lax.add, (1, 2, 3), (1, 1, 2), "SAME"),
    "dot": lambda x: lax.dot_general(x, x, (((2,), (2,)), ((0,), (0,)))),
    "clamp": lambda x: lax.clamp(x[:1, :1, 0].reshape(()), x, x[:1, 1:2, 1].reshape(())),
}


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("dtype", ("float32", "bfloat16", "float64", "int8", "uint32", "complex64"))
def test_reductions_and_dots(name, dtype, lowered, x64):
    if name == "argmax" and dtype == "complex64":
        return  # JAX has no order of complex numbers here
    x = spec(3, 5, 7, dtype=dtype)
    assert count(AXES[name], x).flops == lowered(AXES[name], x)[0]


CONVOLUTIONS = [
    (stride, padding, base, window)
    for stride in ((1, 1), (2, 3))
    for padding in (((0, 0), (0, 0)), ((2, 1), (0, 3)), ((1, 1), (1, 0)))
    for base in ((1, 1), (2, 3))
    for window in ((1, 1), (2, 1))
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_meet_only_valid_taps(case, lowered):
    x, k = spec(2, 6, 7, 9), spec(4, 6, 3, 2)
    f = lambda x, k: lax.conv_general_dilated(x, k, *case)  # noqa: E731
    assert count(f, x, k).matmul == lowered(f, x, k)[0]


@pytest.mark.parametrize(
    ("groups", "kernel", "dtype"),
    [
        (dict(feature_group_count=3), (6, 2, 3, 2), "float32"),
        (dict(batch_group_count=2), (4, 6, 3, 2), "float32"),
        (dict(dimension_numbers=("NCHW", "HWIO", "NHWC")), (3, 2, 6, 4), "float32"),
        ({}, (4, 6, 3, 2), "bfloat16"),
        ({}, (4, 6, 3, 2), "complex64"),
    ],
)
def test_grouped_and_other_convolutions(groups, kernel, dtype, lowered):
    x, k = spec(2, 6, 7, 9, dtype=dtype), spec(*kernel, dtype=dtype)
    f = lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", **groups)  # noqa: E731
    assert count(f, x, k).flops == lowered(f, x, k)[0]
    pull = lambda x, k, ct: jax.vjp(f, x, k)[1](ct)  # noqa: E731
    out = jax.eval_shape(f, x, k)
    assert count(pull, x, k, out).flops == lowered(pull, x, k, out)[0]


KEY, KEYS = (jax.eval_shape(f) for f in (lambda: jax.random.key(0), lambda: jax.random.split(jax.random.key(0), 5)))


def _keys_and_data(impl, batch):
    key = jax.random.key(0, impl=impl)
    data = jnp.zeros((batch,) if batch else (), jnp.uint32)
    return (jax.random.split(key, batch) if batch else key), data


RANDOM = {
    "bits": (lambda k: jax.random.bits(k, (13,)), KEY),
    "bits of two axes": (lambda k: jax.random.bits(k, (7, 11)), KEY),
    "bits of three axes": (lambda k: jax.random.bits(k, (3, 5, 2)), KEY),
    "bits8": (lambda k: jax.random.bits(k, (7, 11), jnp.uint8), KEY),
    "bits16": (lambda k: jax.random.bits(k, (13,), jnp.uint16), KEY),
    "bits64": (lambda k: jax.random.bits(k, (7, 11), jnp.uint64), KEY),
    "bits of many keys": (jax.vmap(lambda k: jax.random.bits(k, (3,))), KEYS),
    "bits of none": (lambda k: jax.random.bits(k, (0, 3)), KEY),
    "bits of one": (jax.random.bits, KEY),
    "bits along an axis of one": (lambda k: jax.random.bits(k, (1, 3)), KEY),
    "bits along axes of one": (lambda k: jax.random.bits(k, (1, 1)), KEY),
    "split": (lambda k: jax.random.split(k, 7), KEY),
    "split into one": (lambda k: jax.random.split(k, 1), KEY),
    "split in two axes": (lambda k: jax.random.split(k, (2, 3)), KEY),
    "split many": (jax.vmap(lambda k: jax.random.split(k, 3)), KEYS),
    "fold_in": (jax.random.fold_in, KEY, spec(dtype=jnp.uint32)),
    "fold_in many": (jax.vmap(jax.random.fold_in), KEYS, spec(5, dtype=jnp.uint32)),
    "fold_in one": (jax.vmap(jax.random.fold_in, (0, None)), KEYS, spec(dtype=jnp.uint32)),
    "seed": (jax.random.key, spec(dtype=jnp.int32)),
    **{
        f"seeds {dtype}": (jax.vmap(jax.random.key), spec(5, dtype=dtype))
        for dtype in ("uint8", "int16", "int32", "uint32", "int64", "uint64")
    },
    "uniform": (lambda k: jax.random.uniform(k, (7, 11)), KEY),
    "normal": (lambda k: jax.random.normal(k, (7, 11)), KEY),
    "bernoulli": (lambda k: jax.random.bernoulli(k, 0.3, (7, 11)), KEY),
    **{
        f"{name} {impl} {batch or 'one'}": (
            f if batch is None else jax.vmap(f),
            *jax.eval_shape(lambda impl=impl, batch=batch: _keys_and_data(impl, batch)),
        )
        for impl in ("rbg", "unsafe_rbg", "threefry2x32")
        for batch in (None, 3)
        for name, f in (
            ("bits", lambda k, i: jax.random.bits(k, (3, 5))),
            ("split", lambda k, i: jax.random.split(k, 5)),
            ("fold_in", jax.random.fold_in),
        )
    },
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_bits_as_unrolled(name, lowered, x64):
    """For TPU and GPU; the CPU lowering rolls threefry's rounds into a loop, which XLA counts once."""
    f, *args = RANDOM[name]
    cost = count(f, *args)
    assert (cost.flops, cost.transcendental) == lowered(f, *args, platform="tpu")


_ONE = (spec(4, 1, dtype="int32"), (1, 2), (0,), (0,), (1, 10, 5))
_TWO = (spec(4, 3, 2, dtype="int32"), (2,), (0, 1), (0, 1), (1, 1, 5))


@pytest.mark.parametrize("mode", ("clip", "fill", "promise_in_bounds"))
@pytest.mark.parametrize("index_dtype", ("int32", "uint8", "int64"))
@pytest.mark.parametrize("points", (_ONE, _TWO), ids=("rows", "points"))
def test_out_of_bounds_modes(mode, index_dtype, points, lowered, x64):
    indices, kept, taken, mapped, sizes = points
    x, indices = spec(6, 10, 5), spec(*indices.shape, dtype=index_dtype)
    take = lambda x, i: lax.gather(x, i, lax.GatherDimensionNumbers(kept, taken, mapped), sizes, mode=mode)  # noqa: E731
    updates = jax.eval_shape(take, x, indices)
    numbers = lax.ScatterDimensionNumbers(kept, taken, mapped)
    assert count(take, x, indices).flops == lowered(take, x, indices)[0]
    for put in (lax.scatter, lax.scatter_add, lax.scatter_max):
        f = lambda x, i, u, put=put: put(x, i, u, numbers, mode=mode)  # noqa: E731
        assert count(f, x, indices, updates).flops == lowered(f, x, indices, updates)[0]


INDEXED = {
    "x[i]": lambda x, i: x[i],
    "take": lambda x, i: jnp.take(x, i, axis=0),
    "take_along_axis": lambda x, i: jnp.take_along_axis(x, i[:, None, None], 0),
    "at add": lambda x, i: x.at[i].add(x[:5]),
    "at set": lambda x, i: x.at[i].set(x[:5]),
    "at max, clipped": lambda x, i: x.at[i].max(x[:5], mode="clip"),
    "one slice": lambda x, i: lax.dynamic_slice_in_dim(x, i[2], 3),
    "one hot": lambda x, i: jax.nn.one_hot(i, 9),
}


@pytest.mark.parametrize("name", INDEXED)
def test_indexing(name, lowered):
    f, x, i = INDEXED[name], spec(6, 10, 5), spec(5, dtype="int32")
    assert count(f, x, i).flops == lowered(f, x, i)[0]
