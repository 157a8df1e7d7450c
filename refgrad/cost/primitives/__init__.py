"""The table of costs: primitive's name → rule, a file for each family.

A rule follows what JAX lowers the primitive to and what XLA counts for that, also where one may frown at the
figure (a sort is n⌈log2 n⌉ over all rows together, a cumulative sum n − 1 an element, top-k nothing). It departs from
XLA's figure of the lowered program only here:

- loops, which XLA counts once: their trips;
- marks of shardings, −1 each, of which typed keys bring some: nothing;
- calls of libraries, −1 each: closed forms of the algorithms (`linalg`, `cudnn`); Pallas kernels: body times grid;
- branches, of which XLA takes the maximum of each figure apart: those that are known to run, else the costliest;
- threefry's rounds, which the CPU lowering rolls into a loop: all twenty (as XLA has it for TPU and GPU);
- `ragged_dot`, for which the CPU lowering multiplies with every group's matrix: with a row's own;
- dots of two different dtypes, whose operands the CPU lowering converts: the dot;
- a reduce-scatter, 0: its additions. Inside `shard_map` everything is times the devices;
- what XLA folds while lowering (constants, x · 1, x + 0) is counted, since the program says it.
"""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives import (
    collectives,
    cudnn,
    dots,
    elementwise,
    indexing,
    linalg,
    movement,
    random,
    reductions,
    special,
    windows,
)
from refgrad.cost.primitives.rule import Programs, Rule, Work
from refgrad.jaxpr.calls import bodies_of, implementation

FAMILIES = {
    module.__name__.rsplit(".", 1)[-1]: module.RULES
    for module in (
        elementwise,
        special,
        reductions,
        windows,
        dots,
        movement,
        indexing,
        random,
        linalg,
        collectives,
        cudnn,
    )
}

TABLE: dict[str, Rule] = {name: rule for rules in FAMILIES.values() for name, rule in rules.items()}


def price(eqn: JaxprEqn) -> Work | Programs | None:
    """Return what an equation costs by the table, or the programs that it runs; None where neither is known.

    A primitive of another library runs what its author has written in JAX, where that can be traced. Where nothing
    moves inside the programs, which are one fused kernel, the equation's own bytes count.
    """
    if (rule := TABLE.get(eqn.primitive.name)) is not None:
        return rule(eqn)
    bodies = bodies_of(eqn) or implementation(eqn)
    if bodies is None:
        return None
    return Programs(bodies, None if any(body.moves for body in bodies.all) else Work())
