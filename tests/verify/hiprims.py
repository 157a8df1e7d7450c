"""Rules written as HiPrim, right and wrong, for the tests of the verifier. Import it only where JAX has the class."""

import jax
import jax.numpy as jnp
from jax.experimental import hijax
from jax.experimental.hijax import HiPrim, instantiate_zeros

from tests.verify.specimens import normal


def dense(tree):
    """Cotangents or tangents with arrays in the places of symbolic zeros."""
    return jax.tree.map(instantiate_zeros, tree, is_leaf=lambda x: isinstance(x, hijax.Zero))


class Rule(HiPrim):
    """A HiPrim made from the types of its arguments; `call` makes one and calls it."""

    def __init__(self, *avals):
        given = jax.tree.map(shape, avals)
        self.in_avals = jax.tree.map(jax.typeof, given)
        self.out_aval = jax.tree.map(jax.typeof, jax.eval_shape(self.expand, *given))
        self.params = {}
        super().__init__()

    @classmethod
    def call(cls, *args):
        return cls(*args)(*args)

    def again(self, *args):
        """The same rule at other arguments, batched ones for instance."""
        return type(self)(*args)(*args)


def shape(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


class Sine(Rule):
    """Elementwise, with every method by hand."""

    def expand(self, x):
        return jnp.sin(x)

    def vjp_fwd(self, nzs, x):
        return self(x), x

    def vjp_bwd_retval(self, x, g):
        return (g * jnp.cos(x),)

    def jvp(self, primals, tangents):
        (x,), (t,) = primals, dense(tangents)
        return self(x), t * jnp.cos(x)

    def lin(self, nzs, x):
        return self(x), jnp.cos(x)

    def linearized(self, slope, t):
        return slope * dense(t)

    def batch(self, axis_data, args, dims):
        return self.again(*args), dims[0]

    def remat(self, trace, x):
        return super().remat(trace, x)  # its form differs between versions


class Matmul(Rule):
    """Two arguments, `jvp` alone by hand in forward mode."""

    def expand(self, x, w):
        return x @ w

    def vjp_fwd(self, nzs, x, w):
        return self(x, w), (x, w)

    def vjp_bwd_retval(self, kept, g):
        x, w = kept
        return _sum_to(g @ jnp.swapaxes(w, -1, -2), x.shape), _sum_to(jnp.swapaxes(x, -1, -2) @ g, w.shape)

    def jvp(self, primals, tangents):
        (x, w), (dx, dw) = primals, dense(tangents)
        return self(x, w), dx @ w + x @ dw

    lin, linearized = hijax.linearize_from_jvp

    def batch(self, axis_data, args, dims):
        front = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
        return self.again(*front), 0


def _sum_to(g, shape):
    return g.sum(tuple(range(g.ndim - len(shape))))


class SinCos(Rule):
    """Two outputs, of which an unused one is not computed."""

    def expand(self, x):
        return jnp.sin(x), jnp.cos(x)

    def vjp_fwd(self, nzs, x):
        return self(x), x

    def vjp_bwd_retval(self, x, g):
        s, c = dense(g)
        return (s * jnp.cos(x) - c * jnp.sin(x),)

    def jvp(self, primals, tangents):
        (x,), (t,) = primals, dense(tangents)
        s, c = self(x)
        return (s, c), (t * c, -t * s)

    lin, linearized = hijax.linearize_from_jvp

    def batch(self, axis_data, args, dims):
        return self.again(*args), (dims[0], dims[0])

    def dce(self, used, *live):
        alone = Sine(*self.in_avals)
        return (True, (True, False), alone) if used == (True, False) else super().dce(used, *live)


class Pick(Rule):
    """Trees in and out, an integer argument, an output of another shape."""

    def expand(self, params, ids):
        rows = params["table"][ids] * params["scale"]
        return {"rows": rows, "norm": jnp.sum(rows * rows)}

    def vjp_fwd(self, nzs, params, ids):
        return self(params, ids), (params, ids)

    def vjp_bwd_retval(self, kept, g):
        params, ids = kept
        g, rows = dense(g), params["table"][ids]
        d = g["rows"] + 2 * g["norm"] * rows * params["scale"]
        table = jnp.zeros_like(params["table"]).at[ids].add(d * params["scale"])
        return {"table": table, "scale": jnp.sum(d * rows)}, None

    def jvp(self, primals, tangents):
        (params, ids), (t, _) = primals, tangents
        return jax.jvp(lambda p: self.expand(p, ids), (params,), (dense(t),))

    lin, linearized = hijax.linearize_from_jvp


class Scale(Rule):
    """Gradients accumulated in place."""

    def expand(self, x, s):
        return x * s

    def vjp_fwd(self, nzs, x, s):
        return self(x, s), (x, s)

    def vjp_bwd(self, kept, g, dx, ds):
        x, s = kept
        dx.accum(g * s)
        ds.accum(jnp.sum(g * x))


class Steps(Rule):
    """Linear, with a transpose of its own, from which the other rules are derived."""

    def expand(self, x):
        return x[1:] - x[:-1]

    def jvp(self, primals, tangents):
        return self(*primals), self(*dense(tangents))

    def transpose(self, g, x):
        g = dense(g)
        x.accum(jnp.pad(g, (1, 0)) - jnp.pad(g, (0, 1)))

    vjp_fwd, vjp_bwd_retval = hijax.vjp_from_jvp
    lin, linearized = hijax.linearize_from_jvp


PARAMS = {"table": normal(5, 3), "scale": jnp.float32(1.5)}
IDS = jnp.array([1, 0, 1], jnp.int32)

RIGHT = {
    "elementwise": (Sine, (normal(4),)),
    "matmul": (Matmul, (normal(2, 3), normal(3, 4))),
    "two outputs": (SinCos, (normal(4),)),
    "trees and integers": (Pick, (PARAMS, IDS)),
    "accumulators": (Scale, (normal(4), jnp.float32(1.5))),
    "linear": (Steps, (normal(5),)),
}


def wrong(base, **methods):
    """A subclass of a right rule with some of its methods replaced; the others are inherited."""
    return type(f"Wrong{base.__name__}", (base,), methods)


def tweaked(base, method, change):
    """A subclass whose method gives the right result, changed."""

    def ours(self, *args):
        return change(getattr(base, method)(self, *args))

    ours.__name__ = ours.__qualname__ = method
    return wrong(base, **{method: ours})


def _first_term(self, kept, g, dx, ds):
    x, s = kept
    dx.accum(g * s)
    ds.accum((g * x)[0])


def _forgotten(self, kept, g, dx, ds):
    dx.accum(g * kept[1])


def _twice(self, kept, g, dx, ds):
    Scale.vjp_bwd(self, kept, g, dx, ds)
    ds.accum(jnp.sum(g * kept[0]))


def _set(self, kept, g, dx, ds):
    x, s = kept
    ds.accum(jnp.sum(g * x))
    if isinstance(dx, hijax.RefAccum) and dx.ref is not None:
        dx.ref[...] = g * s
    else:
        dx.accum(g * s)


def _last_example_first(self, axis_data, args, dims):
    (y, axis) = Sine.batch(self, axis_data, args, dims)
    return jnp.roll(y, 1, axis), axis


def _in_front(self, axis_data, args, dims):
    return self.again(*args), 0


def _unsummed(self, kept, g):
    x, w = kept
    return g @ jnp.swapaxes(w, -1, -2), jnp.swapaxes(x, -1, -2) @ g


def _other_output(self, used, *live):
    return (True, (False, True), Sine(*self.in_avals)) if used == (False, True) else HiPrim.dce(self, used, *live)


def _nothing_needed(self, used, *live):
    return (False, True, Constant(self.out_aval)) if all(used) else HiPrim.dce(self, used, *live)


class Constant(HiPrim):
    """Two outputs of ones, without an argument."""

    def __init__(self, out_aval):
        self.in_avals, self.out_aval, self.params = (), out_aval, {}
        super().__init__()

    def expand(self):
        return tuple(jnp.ones(a.shape, a.dtype) for a in self.out_aval)


def _of_another(self, trace, x):
    *forward, again = HiPrim.remat(self, trace, x)
    return *forward, lambda *given: 1.01 * again(*given)


def _table_set(self, kept, g):
    params, ids = kept
    right = Pick.vjp_bwd_retval(self, kept, g)[0]
    g, rows = dense(g), params["table"][ids]
    d = (g["rows"] + 2 * g["norm"] * rows * params["scale"]) * params["scale"]
    return right | {"table": jnp.zeros_like(params["table"]).at[ids].set(d)}, None


def _product_without_zeros(self, x, g):
    s, c = g
    return (s * jnp.cos(x) - c * jnp.sin(x),)


def _negated(self, g, x):
    x.accum(jnp.pad(dense(g), (0, 1)) - jnp.pad(dense(g), (1, 0)))


def _needs_both(self, nzs, x, w):
    return self(x, w), (x if all(nzs) else 2 * x, w)


_sine, _matmul, _scale, _pick, _steps = (
    RIGHT[k][1] for k in ("elementwise", "matmul", "accumulators", "trees and integers", "linear")
)

# what is wrong: (the property that turns red, the method that is blamed, the rule, its arguments)
WRONG = {
    "vjp_bwd: sign": ("vjp_bwd", "vjp_bwd_retval", tweaked(Sine, "vjp_bwd_retval", lambda g: (-g[0],)), _sine),
    "vjp_bwd: factor": ("vjp_bwd", "vjp_bwd_retval", tweaked(Sine, "vjp_bwd_retval", lambda g: (g[0] * 1.001,)), _sine),
    "vjp_bwd: a bfloat16 cotangent": (
        "vjp_bwd",
        "vjp_bwd_retval",
        tweaked(Sine, "vjp_bwd_retval", lambda g: (g[0].astype(jnp.bfloat16),)),
        _sine,
    ),
    "vjp_bwd: missing reduction": ("vjp_bwd", "_first_term", wrong(Scale, vjp_bwd=_first_term), _scale),
    "vjp_bwd: missing reduction under vmap": ("batch", "_unsummed", wrong(Matmul, vjp_bwd_retval=_unsummed), _matmul),
    "vjp_bwd: arguments swapped": (
        "vjp_bwd",
        "vjp_bwd_retval",
        tweaked(Matmul, "vjp_bwd_retval", lambda g: g[::-1]),
        (normal(3, 3), normal(3, 3, seed=1)),
    ),
    "vjp_bwd: set in place of add": ("vjp_bwd", "_table_set", wrong(Pick, vjp_bwd_retval=_table_set), _pick),
    "vjp_bwd: no symbolic zeros": (
        "vjp_bwd",
        "_product_without_zeros",
        wrong(SinCos, vjp_bwd_retval=_product_without_zeros),
        _sine,
    ),
    "vjp_fwd: value": ("vjp_fwd", "vjp_fwd", tweaked(Sine, "vjp_fwd", lambda r: (1.001 * r[0], r[1])), _sine),
    "vjp_fwd: an argument alone": ("vjp_bwd", "_needs_both", wrong(Matmul, vjp_fwd=_needs_both), _matmul),
    "jvp: sign": ("jvp", "jvp", tweaked(Sine, "jvp", lambda r: (r[0], -r[1])), _sine),
    "jvp: value": ("jvp", "jvp", tweaked(Sine, "jvp", lambda r: (1.001 * r[0], r[1])), _sine),
    "lin: value": ("lin", "lin", tweaked(Sine, "lin", lambda r: (1.001 * r[0], r[1])), _sine),
    "lin: a tangent lost": ("linearized", "linearized", tweaked(Sine, "lin", lambda r: (*r, False)), _sine),
    "linearized: factor": ("linearized", "linearized", tweaked(Sine, "linearized", lambda t: 1.001 * t), _sine),
    "lin: derived from a wrong jvp": ("linearized", "jvp", tweaked(Matmul, "jvp", lambda r: (r[0], 2 * r[1])), _matmul),
    "batch: axis": ("batch", "_in_front", wrong(Sine, batch=_in_front), _sine),
    "batch: examples": ("batch", "_last_example_first", wrong(Sine, batch=_last_example_first), _sine),
    "dce: another output": ("dce", "_other_output", wrong(SinCos, dce=_other_output), _sine),
    "dce: drops what is needed": ("dce", "_nothing_needed", wrong(SinCos, dce=_nothing_needed), _sine),
    "remat: another function": ("remat", "_of_another", wrong(Sine, remat=_of_another), _sine),
    "transpose: sign": (
        "transpose",
        "_negated",
        wrong(Steps, transpose=_negated),
        _steps,
    ),
    "accumulator: forgotten": ("vjp_bwd", "_forgotten", wrong(Scale, vjp_bwd=_forgotten), _scale),
    "accumulator: used twice": ("vjp_bwd", "_twice", wrong(Scale, vjp_bwd=_twice), _scale),
    "accumulator: set": ("accumulators", "_set", wrong(Scale, vjp_bwd=_set), _scale),
}
