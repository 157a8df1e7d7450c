"""The same function without its rules, so that autodiff differentiates the plain forward."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import JaxprEqn

from refgrad.verify.interpret import Interpreter, inside, trace


def without_rules(f: Callable, jvp: bool = False) -> Callable:
    """`f` with every `custom_vjp` inside it ignored, at any depth of the traced program; with `jvp`, `custom_jvp` too.

    The result takes and returns what `f` does, works under jit, grad, vmap and shard_map, and can be nested in any of
    them. It traces `f` at each call: wrap it in `jax.jit` where it is called often.

    Out of reach are the rules that a `jax.grad` inside `f` has already applied, and those inside another rule's
    `_fwd`, `_bwd` or closure, which leaves with that rule: `remaining_rules` names what is left.
    """

    @functools.wraps(f, updated=())
    def plain(*args, **kwargs):
        program, arrays, tree = trace(f, args, kwargs)
        return jax.tree.unflatten(tree, Plain(jvp).run(program, arrays))

    return plain


class Plain(Interpreter):
    """Runs a program with its rules left out: a call of a rule becomes the forward that it decorates."""

    def __init__(self, jvp: bool) -> None:
        super().__init__()
        self.dropped = {"custom_vjp_call", "custom_jvp_call"} if jvp else {"custom_vjp_call"}

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """What holds no rule is bound as it stands, so that nothing about it can change."""
        if eqn.primitive.name in self.dropped:
            return self.call(eqn.params["call_jaxpr"])(*values)
        return self.descend(eqn, values) if self.holds_rule(eqn) else self.bind(eqn, values)

    def holds_rule(self, eqn: JaxprEqn) -> bool:
        """Whether a program inside this equation calls a rule that is to be dropped."""
        return any(inner.primitive.name in self.dropped for inner in inside(eqn))
