"""float64 all the way inside: the same function, no rounding to less on the way, and every exception named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from refgrad.jaxpr.programs import equations
from refgrad.verify.rules import without_rules
from refgrad.verify.widen import widen
from tests.lanes import fast_if
from tests.verify.scenes import SCENES, X, mesh, rule, trips

WRONG = rule(jnp.sin, lambda x: 7 + 0 * x)
M = jnp.sin(jnp.arange(12.0) * 1.7).reshape(4, 3) + 1.1
WIDE = (np.dtype(np.float64), np.dtype(np.complex128))


def total(f):
    return lambda *args: sum(jnp.sum(y) for y in jax.tree.leaves(f(*args)))


def dtypes_of(eqn):
    """The inexact dtypes of what an equation computes."""
    found = {getattr(v.aval, "dtype", None) for v in eqn.outvars}
    return {d for d in found if d is not None and jnp.issubdtype(d, jnp.inexact)}


def half(dtype):
    """A sine that rounds to `dtype` on the way, and back."""
    return lambda x: jnp.sin(x.astype(dtype)).astype(x.dtype)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("compiled", fast_if(bool, [False, True]), ids=["eager", "jit"])
def test_values_and_gradients_are_float64_in_every_place(scene, compiled):
    program = widen(SCENES[scene](rule(half(jnp.bfloat16), lambda x: 7 + 0 * x)), X)
    assert program.limits == []
    with jax.enable_x64(True):
        f, plain = jax.jit(program) if compiled else program, SCENES[scene](jnp.sin)
        (x,) = program.args
        assert x.dtype == jnp.float64
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), f(x), plain(x))
        expected = jax.grad(total(plain))(x)
        np.testing.assert_allclose(jax.grad(total(f))(x), expected, rtol=1e-12)
        program = jax.make_jaxpr(jax.grad(total(f)))(x)
        assert all(dtypes_of(e) <= set(WIDE) for e in equations(program))


def test_a_while_loop_keeps_its_forward_mode():
    program = widen(trips(WRONG), X)
    with jax.enable_x64(True):
        (x,) = program.args
        expected = jax.jvp(trips(jnp.sin), (x,), (x,))[1]
        np.testing.assert_allclose(jax.jvp(program, (x,), (x,))[1], expected, rtol=1e-13)


def test_upcasting_the_arguments_is_not_enough():
    """The fault that this exists for: a cast in the forward makes a float64 oracle a float32 one."""

    def f(x):
        y = x.astype(jnp.float32)
        return (jnp.exp(y) / jnp.exp(y).sum()).astype(x.dtype)

    truth = np.exp(np.float64(X)) / np.exp(np.float64(X)).sum()
    with jax.enable_x64(True):
        naive = np.abs(f(X.astype(jnp.float64)) - truth).max()
    assert naive > 1e-9
    assert np.abs(np.asarray(widen(f, X)(X)) - truth).max() < 1e-15


def accumulators(x):
    y = lax.dot_general(x, x, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    y += lax.dot(x.T, x, precision=lax.DotAlgorithmPreset.BF16_BF16_F32).astype(y.dtype)
    y += jnp.einsum("ij,ik->jk", x, x, precision="highest", preferred_element_type=jnp.float32)
    z = lax.conv_general_dilated(y[None, None], y[None, None], (1, 1), "SAME", preferred_element_type=jnp.float32)
    return jnp.sum(x, 0, dtype=jnp.float32) + jnp.cumsum(y, 0, dtype=jnp.float32)[0] + z[0, 0, 0]


OPERATIONS = {
    "accumulators": accumulators,
    "rounding": lambda x: lax.reduce_precision(x, 8, 7).astype(jnp.float16).astype(jnp.float8_e4m3fn),
    "constants": lambda x: x * 0.1 + jnp.linspace(0, 1, 3)[None] + jnp.asarray([[0.1, 0.2, 0.3]]) + jnp.float32(0.3),
    "masks": lambda x: jax.nn.softmax(jnp.where(x > 1, x, jnp.finfo(jnp.float32).min)),
    "infinite masks": lambda x: jax.nn.softmax(jnp.where(x > 0.2, x, -jnp.inf)),
    "scatter": lambda x: (
        x.at[jnp.array([0, 1])].add(2.0).at[1].multiply(x[0]).at[0].max(0.5).at[2].min(0.3).at[3].set(1)
    ),
    "gather": lambda x: x[jnp.array([3, 0])] + jnp.take(x, jnp.array([1, 2]), 0),
    "windows": lambda x: (
        lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "SAME")
        + lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "SAME")
    ),
    "reduce": lambda x: lax.reduce(x, jnp.float32(0), lambda a, b: a + b, (0,)) + x.max(0) + x.prod(0),
    "cumulative": lambda x: lax.cumlogsumexp(x) + lax.cummax(x) + lax.cumprod(x),
    "order": lambda x: jnp.sort(x, 0) + lax.top_k(x, 3)[0] + jnp.quantile(x, 0.3),
    "complex": lambda x: jnp.abs(jnp.fft.ifft(jnp.fft.fft(x) * (1 + 2j))) + jnp.real(jnp.exp(1j * x)),
    "linear algebra": lambda x: (
        jnp.linalg.solve(x[:3] @ x[:3].T + jnp.eye(3), x[0]) + jnp.linalg.svd(x, compute_uv=False)
    ),
    "eigenvectors": lambda x: jnp.linalg.eigh(x.T @ x + jnp.diag(jnp.arange(3.0)))[0],
    "special": lambda x: jax.scipy.special.erfinv(x / 3) + jax.scipy.special.gammaln(x) + jnp.sinc(x),
    # primitives of their own since JAX 0.11.2 and 0.12, as is the derivative of tanh
    "polynomials and logarithms": lambda x: jnp.polyval(jnp.array([0.1, 0.7, -0.3]), x) + jnp.log2(x),
    "a gradient": lambda x: jax.grad(lambda x: jnp.sum(jnp.tanh(x)))(x),
    "activations": lambda x: jax.nn.gelu(x) + jax.nn.silu(x) + jax.nn.relu(x) + jax.nn.logsumexp(x),
    "random": lambda x: x * jax.random.normal(jax.random.key(0), x.shape) + jax.random.uniform(jax.random.key(1)),
    "integers": lambda x: x * jnp.argmax(x) + jax.nn.one_hot(jnp.arange(4), 3) * jnp.arange(3)[None],
    "map of branches": jax.vmap(lambda x: lax.cond(x[0] > 1, jnp.sin, jnp.cos, x)),
    "associative scan": lambda x: lax.associative_scan(lambda a, b: a * b, x),
    "reference": lambda x: (lambda r: (r.__setitem__(0, x[1] * 2), r[...])[1])(jax.new_ref(x)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations(operation):
    """Widened, each one computes and differentiates in float64 alone, and stays near the float32 one."""
    f = OPERATIONS[operation]
    with jax.numpy_dtype_promotion("standard"):
        program = widen(f, M)
        expected = np.asarray(jax.jit(f)(M).astype(jnp.float32))
    assert program.limits == []
    tolerance = 0.1 if operation == "rounding" else 3e-5
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):  # JAX's own derivatives of linear algebra need it
        (x,) = program.args
        forward, backward = jax.jit(program), jax.jit(jax.grad(total(program)))
        np.testing.assert_allclose(forward(x), expected, rtol=tolerance, atol=tolerance)
        # random bits become floats at the program's own width, exactly
        made = {e.primitive.name for e in equations(backward.trace(x).jaxpr) if dtypes_of(e) - set(WIDE)}
        assert made <= {"bitcast_convert_type"}
        v = np.cos(np.arange(12.0)).reshape(4, 3) * 1e-5
        slope = np.sum(forward(x + v)) - np.sum(forward(x - v))
        np.testing.assert_allclose(np.sum(backward(x) * v), slope / 2, rtol=1e-5, atol=1e-12)


def test_a_constant_keeps_the_value_that_the_program_has():
    (got,) = widen(lambda x: [x * 0.1 + jnp.bfloat16(0.3).astype(x.dtype)], X)(X)
    expected = np.float64(X) * np.float64(np.float32(0.1)) + np.float64(jnp.bfloat16(0.3))
    np.testing.assert_allclose(got, expected, rtol=1e-15)
    assert np.abs(np.asarray(got) - (np.float64(X) * 0.1 + 0.3)).max() > 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64])
def test_the_program_is_the_one_at_the_users_dtype(dtype):
    """A function that looks at its dtype, or calls JAX under its own x64 setting, is traced as the user runs it."""
    seen = []

    def f(x):
        seen.append((x.dtype, jnp.zeros(3).dtype))
        return x * jnp.arange(4).astype(x.dtype)

    x = X.astype(dtype)
    program = widen(f, x)
    out = program(x)
    assert seen == [(jnp.dtype(dtype), jnp.dtype(jnp.float32))]
    assert out.dtype in WIDE and program.args[0].dtype == out.dtype
    np.testing.assert_array_equal(out, np.asarray(x, out.dtype) * np.arange(4))


def test_integers_keys_statics_and_keywords_are_left_alone():
    def f(params, mode, *, key, n=2):
        assert mode == "mean" and n == 3
        return {"y": params["w"] * n, "ids": params["ids"] + 1, "key": jax.random.split(key, n), "p": params["ids"] > 1}

    params = {"w": X, "ids": jnp.arange(3)}
    program = widen(f, params, "mean", key=jax.random.key(0), n=3)
    out = program(*program.args, **program.kwargs)
    want = f(params, "mean", key=jax.random.key(0), n=3)
    assert out["y"].dtype == jnp.float64
    for leaf in ("ids", "key", "p"):
        assert out[leaf].dtype == want[leaf].dtype
    np.testing.assert_array_equal(out["ids"], want["ids"])
    with pytest.raises(ValueError, match="called with"):
        program(X)


def test_a_custom_jvp_is_widened_with_its_rule():
    @jax.custom_jvp
    def op(x, n):
        return jnp.sin(x.astype(jnp.bfloat16)).astype(x.dtype) * n

    @op.defjvp
    def op_jvp(primals, tangents):
        x, n = primals
        slope = jnp.cos(x.astype(jnp.bfloat16)).astype(x.dtype) * jnp.ones(4)  # float32 in the user's setting
        return op(x, n), tangents[0] * slope * n

    program = widen(lambda x: op(x, jnp.float32(3)).sum(), X)
    with jax.enable_x64(True):
        (x,) = program.args
        np.testing.assert_allclose(jax.grad(program)(x), 3 * jnp.cos(x), rtol=1e-15)


def test_a_rule_in_an_applied_gradient_is_widened_too():
    """A program with a gradient in it is a program: its backward runs in float64 as well."""
    program = widen(jax.grad(total(half(jnp.bfloat16))), X)
    np.testing.assert_allclose(program(X), np.cos(np.float64(X)), rtol=1e-15)


def test_explicit_sharding_survives():
    explicit = mesh(AxisType.Explicit)
    with jax.set_mesh(explicit):
        x = jax.device_put(X, NamedSharding(explicit, P("a")))
        out = widen(jax.jit(half(jnp.bfloat16)), x)(x)
        assert jax.typeof(out).sharding == jax.typeof(x).sharding


def kernel(dtype):
    def body(x, y):
        y[...] = (x[...].astype(dtype) * 2).astype(x.dtype)

    return lambda x: pl.pallas_call(body, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)


LIMITED = {
    "pallas_call": kernel(jnp.float32),
    "pure_callback": lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
    "io_callback": lambda x: jax.experimental.io_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
    "bitcast_convert_type": lambda x: lax.bitcast_convert_type(x, jnp.int32),
    "random_gamma": lambda x: jax.random.gamma(jax.random.key(0), x),
    "nextafter": lambda x: jnp.nextafter(x, x * 2),
}


def looped(f):
    return lambda x: lax.scan(lambda c, _: (c, f(x)), 0, None, length=1)[1][0]


AROUND = [(p, lambda f: f) for p in LIMITED] + [
    (p, a) for p in ("pallas_call", "pure_callback") for a in (jax.jit, looped)
]


@pytest.mark.parametrize(("primitive", "around"), AROUND)
def test_what_cannot_be_widened_is_named_and_runs_as_it_is(primitive, around):
    f = around(LIMITED[primitive])
    program = widen(f, X)
    (limit,) = program.limits
    assert limit.startswith(f"truth limited to float32: {primitive} at ") and "test_widen.py:" in limit
    np.testing.assert_array_equal(program(X), f(X))


def test_a_float64_program_is_limited_only_by_what_is_narrow_inside():
    with jax.enable_x64(True):
        x = jnp.linspace(0.1, 1, 4)
        assert widen(kernel(jnp.float64), x).limits == []
        assert len(widen(kernel(jnp.float32), x).limits) == 1


def test_debugging_and_bits_are_no_limits():
    def f(x):
        jax.debug.callback(lambda x: None, x)
        return x * lax.bitcast_convert_type(jnp.int32(0x40490FDB), jnp.float32)

    program = widen(f, X)
    assert program.limits == []
    np.testing.assert_array_equal(program(X), np.float64(X) * np.float64(np.float32(np.pi)))


def test_composes_with_without_rules():
    op = jax.custom_jvp(jnp.sin)
    op.defjvp(lambda p, t: (op(*p), t[0] * 7))
    for jvp, slope in ((True, np.cos(np.float64(X))), (False, np.full(4, 7.0))):
        program = widen(without_rules(lambda x: op(x).sum(), jvp=jvp), X)
        with jax.enable_x64(True):
            np.testing.assert_allclose(jax.grad(program)(*program.args), slope, rtol=1e-15)
