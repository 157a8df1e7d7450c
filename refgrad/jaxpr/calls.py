"""The table of structured primitives: the programs that an equation runs, and the equation built again.

A row of `TABLE` says for one primitive which programs it runs, with which of its operands, how often, what becomes of
their results, and how the equation is rebuilt around an `Interpreter`. Every instrument descends through this table, so
that a primitive that JAX adds is one more row.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr import hiprim, rebuild
from refgrad.jaxpr.authors import author, is_jax
from refgrad.jaxpr.avals import shape_of
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.versions import called, opened, scan_operands

if TYPE_CHECKING:
    from refgrad.jaxpr.interpret import Interpreter


class Form(enum.Enum):
    """The control flow of an equation."""

    CALL = "its one program, once"
    BRANCHES = "one of its programs"
    SCAN = "its program, a known number of times"
    WHILE = "its second program, until its first yields False"
    DEVICES = "its program on each device of some mesh axes"
    SOLVE = "its solver, of four programs"
    OPAQUE = "programs whose arguments are not its operands one by one"


@dataclasses.dataclass(frozen=True)
class Body:
    """A program that an equation runs.

    `inputs[i]` is the position of the operand that feeds the program's argument i (None where no operand does);
    `outputs[i]` is the position of the equation's result that the program's result i becomes (None where it is always
    needed).
    """

    jaxpr: Jaxpr | ClosedJaxpr
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    trips: int | None = 1
    """Number of runs; None where the equation alone does not tell."""
    devices: int = 1
    carry: int = 0
    """The first `carry` results feed the next trip's arguments from `carry_start` on."""
    carry_start: int = 0
    """First argument that differs from trip to trip: those before it are the same at each."""
    repeats: int = 1
    """Number of times that one trip applies it, as a reduction does its combiner: not a loop for XLA."""
    moves: bool = True
    """False where the whole is one fused kernel, inside which no bytes move."""

    def fixed_inputs(self) -> list[int | None]:
        """Return the operand that feeds each argument, None also where another trip gets another value."""
        once = self.trips == 1 and not self.carry
        return [i if once or k < self.carry_start else None for k, i in enumerate(self.inputs)]


@dataclasses.dataclass(frozen=True)
class Bodies:
    """The programs that one equation runs: all of them, or one of them where the form is `BRANCHES`."""

    all: tuple[Body, ...]
    form: Form
    also_needed: tuple[int, ...] = ()
    """Operands that the equation itself reads, such as a branch's index."""
    mesh: Mapping[str, int] | None = None
    """Sizes of the mesh axes that exist inside, where the form is `DEVICES`."""


@dataclasses.dataclass(frozen=True)
class Structured:
    """A row of the table."""

    runs: Callable[[JaxprEqn], Bodies]
    rebuild: "Callable[[Interpreter, JaxprEqn, Sequence[Any]], Sequence[Any]]" = rebuild.retrace
    own_derivative: bool = False
    """True where the derivative is not that of the programs that it runs, but a rule beside them."""
    is_shell: bool = False
    """True where JAX has no derivative for the equation, though it only calls its program."""
    retypes: bool = True
    """False where its programs run only at the types at which they were traced."""


def row_of(eqn: JaxprEqn) -> Structured | None:
    """Return the row of an equation; None where its primitive has none in the table."""
    prim = hiprim.prim_of(eqn)
    return TABLE.get(eqn.primitive.name) if prim is None else HIPRIMS[hiprim.stands_for(prim)]


def bodies_of(eqn: JaxprEqn) -> Bodies | None:
    """Return the programs that an equation runs; None where its primitive has no row in the table."""
    row = row_of(eqn)
    return None if row is None else row.runs(eqn)


def implementation(eqn: JaxprEqn) -> Bodies | None:
    """Return the program that another library's primitive is implemented by; None where none can be traced.

    Such a primitive is a Python function of arrays with rules of its own. JAX's implementations only dispatch.
    """
    implement: Any = getattr(eqn.primitive, "impl", None)
    code = author(implement)
    if code is None or is_jax(code.co_filename):
        return None
    avals: list[Any] = [v.aval for v in eqn.invars]
    params = eqn.primitive.get_bind_params(eqn.params)
    try:
        program = jax.make_jaxpr(lambda *arrays: implement(*arrays, **params))(*avals)
    except Exception:  # written for values, such as a callback
        return None
    if list(map(shape_of, opened(program).outvars)) != list(map(shape_of, eqn.outvars)):
        return None
    return call(lambda _: program)(eqn)


def callee(eqn: JaxprEqn) -> Jaxpr | ClosedJaxpr | None:
    """Return the program that the equation merely calls; None where it does something of its own."""
    bodies = bodies_of(eqn)
    return bodies.all[0].jaxpr if bodies is not None and bodies.form is Form.CALL else None


def retypes(eqn: JaxprEqn) -> bool:
    """Return False for an equation whose programs run only at the types at which they were traced."""
    row = row_of(eqn)
    return row is None or row.retypes


def is_kernel(eqn: JaxprEqn) -> bool:
    """Return True for an equation that runs a kernel: its equations are not those of the lowered program."""
    return eqn.primitive.name == "pallas_call"


def is_device_bound(program: ClosedJaxpr | Jaxpr) -> bool:
    """Return True for a program with code or a mesh for devices of its own somewhere inside."""
    bound = {"ffi_call", "pallas_call", "shard_map"}
    return any(eqn.primitive.name in bound for eqn in equations(program))


def has_unknown_trips(program: ClosedJaxpr | Jaxpr) -> bool:
    """Return True for a program with a `while` somewhere inside."""
    found = map(bodies_of, equations(program))
    return any(bodies is not None and bodies.form is Form.WHILE for bodies in found)


def has_own_derivative(eqn: JaxprEqn) -> bool:
    """Return True for an equation whose derivative is a rule beside the programs that it runs."""
    row = row_of(eqn)
    return row is not None and row.own_derivative


def is_shell(eqn: JaxprEqn) -> bool:
    """Return True for a call that JAX cannot differentiate, though it can differentiate the callee."""
    row = row_of(eqn)
    return row is not None and row.is_shell


def rebuilt(interpreter: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Evaluate an equation that holds programs so that `interpreter` runs them."""
    row = row_of(eqn)
    return (rebuild.retrace if row is None else row.rebuild)(interpreter, eqn, values)


def call(program: Callable[[JaxprEqn], Jaxpr | ClosedJaxpr]) -> Callable[[JaxprEqn], Bodies]:
    """One run of the program that `program` finds in the equation, operands and results in order."""

    def runs(eqn: JaxprEqn) -> Bodies:
        body = Body(program(eqn), tuple(range(len(eqn.invars))), tuple(range(len(eqn.outvars))))
        return Bodies((body,), Form.CALL)

    return runs


def scan(eqn: JaxprEqn) -> Bodies:
    """`length` runs; a carry is needed where any later trip or the caller needs it."""
    constants, carried = scan_operands(eqn.params)
    body = Body(
        eqn.params["jaxpr"],
        tuple(range(len(eqn.invars))),
        tuple(range(len(eqn.outvars))),
        trips=eqn.params["length"],
        carry=carried,
        carry_start=constants,
    )
    return Bodies((body,), Form.SCAN)


def while_(eqn: JaxprEqn) -> Bodies:
    """Condition and body, in this order; the equation alone does not tell how often they run."""
    p = eqn.params
    n_cond, n_body = p["cond_nconsts"], p["body_nconsts"]
    carry = tuple(range(n_cond + n_body, len(eqn.invars)))
    every = tuple(None for _ in eqn.outvars)  # XLA and JAX keep the whole carry of a while
    condition = Body(p["cond_jaxpr"], (*range(n_cond), *carry), (None,), trips=None, carry_start=n_cond)
    body = Body(p["body_jaxpr"], (*range(n_cond, n_cond + n_body), *carry), every, trips=None, carry_start=n_body)
    return Bodies((condition, body), Form.WHILE)


def cond(eqn: JaxprEqn) -> Bodies:
    """One of the branches; of `lax.platform_dependent`, the default backend's."""
    inputs, outputs = tuple(range(1, len(eqn.invars))), tuple(range(len(eqn.outvars)))
    branches, platforms = eqn.params["branches"], eqn.params.get("branches_platforms")
    if platforms is not None:
        branches = (branches[_chosen(platforms)],)
    return Bodies(tuple(Body(branch, inputs, outputs) for branch in branches), Form.BRANCHES, also_needed=(0,))


def _chosen(platforms: tuple[tuple[str, ...] | None, ...]) -> int:
    """Return the first branch for the default backend, or for every other (None); JAX has made sure of one."""
    backend = jax.default_backend()
    ours = {"cuda", "rocm"} if backend == "gpu" else {backend}
    return next(i for i, names in enumerate(platforms) if names is None or ours & set(names))


def shard_map(eqn: JaxprEqn) -> Bodies:
    """One run on each device of the manual axes."""
    p = eqn.params
    devices = math.prod(p["mesh"].shape[axis] for axis in p["newly_manual_axes"])
    inputs, outputs = tuple(range(len(eqn.invars))), tuple(range(len(eqn.outvars)))
    return Bodies((Body(p["jaxpr"], inputs, outputs, devices=devices),), Form.DEVICES, mesh=dict(p["mesh"].shape))


def linear_solve(eqn: JaxprEqn) -> Bodies:
    """The solver alone runs; the matrix's own products are for its derivative."""
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    right_sides = range(sum(lengths), len(eqn.invars))
    inputs = (*range(start, start + lengths.solve), *right_sides)
    outputs = tuple(range(len(opened(jaxprs.solve).outvars)))
    return Bodies((Body(jaxprs.solve, inputs, outputs),), Form.SOLVE)


def linear_system(
    eqn: JaxprEqn, values: Sequence[Any]
) -> tuple[Jaxpr | ClosedJaxpr, Sequence[Any], Sequence[Any]] | None:
    """Return the product with a matrix, its constants and the right-hand sides; None unless a system is solved."""
    if (bodies := bodies_of(eqn)) is None or bodies.form is not Form.SOLVE:
        return None
    lengths = eqn.params["const_lengths"]
    return eqn.params["jaxprs"].matvec, values[: lengths.matvec], values[sum(lengths) :]


def kernel(eqn: JaxprEqn) -> Bodies:
    """A Pallas kernel: its body at every point of its grid."""
    grid = eqn.params["grid_mapping"].grid
    trips = math.prod(grid) if all(isinstance(n, int) for n in grid) else None
    return opaque(eqn, eqn.params["jaxpr"], trips=trips, moves=False)


def on_references(eqn: JaxprEqn) -> Bodies:
    """One run of a program on references."""
    return opaque(eqn, eqn.params["jaxpr"])


def opaque(eqn: JaxprEqn, program: Jaxpr | ClosedJaxpr, **options: Any) -> Bodies:
    """A program whose arguments are not the operands one by one: all of them are needed."""
    inner = opened(program)
    body = Body(program, (None,) * len(inner.invars), (None,) * len(inner.outvars), **options)
    return Bodies((body,), Form.OPAQUE, also_needed=tuple(range(len(eqn.invars))))


_CALLED = call(lambda eqn: called(eqn.params))
_CALL = call(lambda eqn: eqn.params["call"])

TABLE: dict[str, Structured] = {
    "jit": Structured(_CALLED, rebuild.jit),
    "call": Structured(_CALLED, rebuild.inline),
    "closed_call": Structured(_CALLED, rebuild.inline),
    "eval_jaxpr": Structured(_CALLED, rebuild.inline),
    "cudnn_fusion": Structured(_CALLED, retypes=False),
    "composite": Structured(_CALLED, rebuild.shell, is_shell=True),
    "custom_jvp_call": Structured(_CALLED, rebuild.custom_jvp, own_derivative=True),
    "custom_vjp_call": Structured(_CALLED, rebuild.inline, own_derivative=True),
    "remat2": Structured(_CALLED, rebuild.checkpoint),
    "custom_vmap_call": Structured(_CALL, rebuild.shell, is_shell=True),
    "custom_partitioning": Structured(_CALL, rebuild.shell, is_shell=True),
    "linear_call": Structured(call(lambda eqn: eqn.params["callee"]), own_derivative=True, retypes=False),
    "remat_opt": Structured(call(lambda eqn: eqn.params["fwd_jaxpr"]), own_derivative=True),
    "custom_linear_solve": Structured(linear_solve, rebuild.linear_solve, own_derivative=True),
    "pallas_call": Structured(kernel, retypes=False),
    "run_scoped": Structured(on_references),
    "run_state": Structured(on_references),
    "scan": Structured(scan, rebuild.scan),
    "while": Structured(while_, rebuild.while_loop),
    "cond": Structured(cond, rebuild.cond),
    "shard_map": Structured(shard_map, rebuild.shard_map),
}

_EXPANDED = call(hiprim.expansion)

# the rows of `call_hi_primitive`, by what its object stands for
HIPRIMS: dict[str, Structured] = {
    hiprim.VJP: Structured(_EXPANDED, rebuild.expand, own_derivative=True),
    hiprim.JVP: Structured(_EXPANDED, rebuild.with_own_jvp, own_derivative=True),
    hiprim.CHECKPOINT: Structured(_EXPANDED, rebuild.checkpoint_object),
    hiprim.HI: Structured(_EXPANDED, rebuild.hi_primitive, own_derivative=True),
}
