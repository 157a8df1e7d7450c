"""How far a right rule may be from the truth: c·ε·√n, with one c for every rule, dtype and shape.

ε is the leaf's machine epsilon. n is the longest reduction that feeds the leaf in the traced backward
program: the error of a sum of n rounded terms grows like √n. A reduction carried out in another precision ε′
counts as the length that does the same harm in the leaf's own, n·(ε′/ε)²: float32 accumulation earns a
bfloat16 leaf no slack, and a bfloat16 step upstream of a float32 leaf earns it what it costs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad._jax import programs_in, scan_operands

C = 4.0  # the one constant of the project


def allowance(dtype, n: int, c: float = C) -> float:
    """c·ε(dtype)·√n, relative to the largest entry of the leaf; `n` as from `longest_reduction`."""
    return c * float(jnp.finfo(dtype).eps) * math.sqrt(n)


def is_float(x) -> bool:
    """Whether `x` is an array (concrete or abstract) or Python number that can be differentiated."""
    if isinstance(x, bool | int | str | bytes):
        return False
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return isinstance(x, float | complex)
    return jnp.issubdtype(dtype, jnp.inexact)


def is_array(x) -> bool:
    """Whether `x` is an array, concrete or abstract: what a traced program can take as an argument."""
    return hasattr(x, "dtype") and hasattr(x, "shape")


def longest_reduction(f, *args) -> tuple[int, ...]:
    """The longest reduction that feeds each cotangent of `f`: one integer per leaf of `args`, in leaf order.

    Arguments may be abstract. Leaves without a cotangent (integers, keys, static values, `nondiff_argnums`)
    get 1. Raises what JAX raises where `f` has no reverse mode.
    """
    skipped = set(getattr(f, "nondiff_argnums", ()))
    leaves, tree = jax.tree.flatten(args)
    position = [i for i, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
    floats = [i for i, x in enumerate(leaves) if is_float(x) and position[i] not in skipped]
    others = [i for i, x in enumerate(leaves) if is_array(x) and i not in floats and position[i] not in skipped]

    def backward(diff, rest):
        def call(diff):
            full = list(leaves)
            for i, x in (*zip(floats, diff, strict=True), *zip(others, rest, strict=True)):
                full[i] = x
            out = jax.tree.leaves(f(*jax.tree.unflatten(tree, full)))
            return [x for x in out if is_float(x)], [x for x in out if not is_float(x)]

        out, pull, _ = jax.vjp(call, diff, has_aux=True)
        return pull([jnp.full_like(x, 0.5) for x in out])[0]

    abstract = [leaves[i] for i in floats], [leaves[i] for i in others]
    lengths = dict(zip(floats, reductions(jax.make_jaxpr(backward)(*abstract)), strict=True))
    return tuple(lengths.get(i, 1) for i in range(len(leaves)))


def reductions(program: ClosedJaxpr) -> tuple[int, ...]:
    """The longest reduction that feeds each output of a traced program, in its own precision (≥ 1)."""
    harms = _flow(program.jaxpr, [0.0] * len(program.jaxpr.invars), {})
    return tuple(
        max(1, math.ceil(harm / own)) if (own := _eps(v.aval) ** 2) else 1
        for v, harm in zip(program.jaxpr.outvars, harms, strict=True)
    )


# A variable's "harm" is the largest ε²·n of the operations upstream of it.


def _flow(jaxpr: Jaxpr, entering: Sequence[float], mesh: Mapping[str, int]) -> list[float]:
    """The harm of each output of `jaxpr`, from the harm of each input."""
    harm = dict(zip(jaxpr.invars, entering, strict=True))

    def read(v) -> float:
        return 0.0 if isinstance(v, Literal) else harm.get(v, 0.0)

    for eqn in jaxpr.eqns:
        incoming = [read(v) for v in eqn.invars]
        harm.update(zip(eqn.outvars, _through(eqn, incoming, mesh), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _through(eqn: JaxprEqn, incoming: list[float], mesh: Mapping[str, int]) -> list[float]:
    """The harm of each output of one equation."""
    name = eqn.primitive.name
    if name == "scan":
        return _scan(eqn, incoming, mesh)
    if name == "while":
        return _while(eqn, incoming, mesh)
    if name == "cond":
        branches = [_flow(b.jaxpr, incoming[1:], mesh) for b in eqn.params["branches"]]
        return [max(outs) for outs in zip(*branches, strict=True)]
    if name == "shard_map":
        mesh = {**mesh, **eqn.params["mesh"].shape}
    if name != "pallas_call" and (body := _body(eqn)) is not None:
        return _flow(body, incoming, mesh)
    own = _length(eqn, mesh)
    worst = max(incoming, default=0.0)
    return [max(worst, _eps(v.aval) ** 2 * own) if _eps(v.aval) else 0.0 for v in eqn.outvars]


def _body(eqn: JaxprEqn) -> Jaxpr | None:
    """The program that a call (jit, remat, a custom rule, shard_map) runs on its operands, if it is one."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        if isinstance(inner, Jaxpr) and len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars):
            return inner
    return None


def _scan(eqn: JaxprEqn, incoming: list[float], mesh: Mapping[str, int]) -> list[float]:
    """What the body adds to a carry counts once per trip, as the same sum does outside a loop."""
    body, trips = eqn.params["jaxpr"].jaxpr, eqn.params["length"]
    constants, carried = scan_operands(eqn.params)
    carries = range(constants, constants + carried)
    own = _settle(body, [0.0] * len(incoming), carries, mesh)
    entering = [max(a, trips * b) for a, b in zip(incoming, own, strict=True)]
    return _flow(body, _settle(body, entering, carries, mesh), mesh)


def _while(eqn: JaxprEqn, incoming: list[float], mesh: Mapping[str, int]) -> list[float]:
    """The trips of a `while` are unknown: its body counts once (a fixed point forgets its earlier errors)."""
    body, first = eqn.params["body_jaxpr"].jaxpr, eqn.params["body_nconsts"]
    carries = range(first, len(body.invars))
    return _settle(body, incoming[eqn.params["cond_nconsts"] :], carries, mesh)[first:]


def _settle(body: Jaxpr, entering: list[float], carries: range, mesh: Mapping[str, int]) -> list[float]:
    """The harm of each input of a loop's body once its carries have stopped changing (harms only grow).

    A carry that the body hands on unchanged keeps the harm that it came with.
    """
    settled = list(entering)
    while True:
        outs = _flow(body, settled, mesh)
        after = [max(settled[i], outs[k]) for k, i in enumerate(carries)]
        if after == settled[carries.start : carries.stop]:
            return settled
        settled[carries.start : carries.stop] = after


def _length(eqn: JaxprEqn, mesh: Mapping[str, int]) -> int:
    """How many terms one entry of the equation's output adds up (1 where it adds nothing up)."""
    name, params = eqn.primitive.name, eqn.params
    ins: list[Any] = [v.aval for v in eqn.invars]
    outs: list[Any] = [v.aval for v in eqn.outvars]
    if name == "dot_general":
        (axes, _), _ = params["dimension_numbers"]
        return max(1, math.prod(ins[0].shape[a] for a in axes))
    if name in ("reduce_sum", "reduce_prod", "reduce"):
        return max(1, ins[0].size // max(1, outs[0].size))
    if name in ("cumsum", "cumprod", "cumlogsumexp"):
        return max(1, ins[0].shape[params["axis"]])
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        return max(1, ins[1].size // max(1, ins[1].shape[numbers.rhs_spec[0]]))
    if name in ("scatter-add", "scatter_add", "scatter-mul", "scatter_mul"):
        return max(1, math.prod(ins[1].shape[:-1]))
    if name in ("reduce_window_sum", "select_and_scatter_add"):
        return max(1, math.prod(params["window_dimensions"]))
    if name in ("psum", "psum2", "psum_invariant", "psum_scatter", "reduce_scatter"):
        return math.prod(mesh.get(a, 1) for a in _axes(params))
    if name in _FACTORISATIONS:
        return max(1, *(max(a.shape[-2:], default=1) for a in ins))
    if name == "fft":
        return max(1, math.prod(params["fft_lengths"]))
    if name in ("pure_callback", "io_callback", "ffi_call", "custom_call"):
        return max(1, *(a.size for a in ins), 1)  # unseen: at most, all of an operand is added up
    return _opaque(eqn, mesh)


_FACTORISATIONS = frozenset(
    ("cholesky", "eig", "eigh", "householder_product", "lu", "qr", "schur", "svd", "triangular_solve")
)


def _axes(params) -> tuple:
    axes = params.get("axes", params.get("axis_name", ()))
    return axes if isinstance(axes, tuple) else (axes,)


def _opaque(eqn: JaxprEqn, mesh: Mapping[str, int]) -> int:
    """Data flow not followed (a Pallas kernel, a solver): its longest inner reduction × its grid."""
    inner = [e for program in _programs(eqn) for e in program.eqns]
    grid = [g for g in getattr(eqn.params.get("grid_mapping"), "grid", ()) if isinstance(g, int)]
    return math.prod(grid) * max((_length(e, mesh) * e.params.get("length", 1) for e in inner), default=1)


def _programs(eqn: JaxprEqn) -> list[Jaxpr]:
    return [j.jaxpr if isinstance(j, ClosedJaxpr) else j for j in programs_in(eqn)]


def _eps(aval) -> float:
    """Machine epsilon of an abstract value; 0 where it has none (integers, booleans, keys, references)."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return 0.0
    return float(jnp.finfo(dtype).eps)
