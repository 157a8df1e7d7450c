"""How many trips a `while` takes, where its program alone tells: a counter from a literal to a literal."""

from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from refgrad.cost.primitives.rule import Body, dtype_of, shape_of

_MET = {"lt": lambda i, n: i < n, "le": lambda i, n: i <= n, "gt": lambda i, n: i > n, "ge": lambda i, n: i >= n}
_FLIPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def while_trips(eqn: JaxprEqn, body: Body) -> int | None:
    """Runs of `body`, the condition or the body of a `while`: n + 1 of the one, n of the other; None if unknown.

    Known where the condition is one comparison of an integer carry with a literal bound (or with a carry
    that never changes), the body adds a literal to that carry, and it starts at a literal.
    """
    if eqn.primitive.name != "while":
        return None
    n = _trips(eqn)
    if n is None:
        return None
    return n + 1 if body.jaxpr is eqn.params["cond_jaxpr"] else n


def _trips(eqn: JaxprEqn) -> int | None:
    p = eqn.params
    condition: ClosedJaxpr = p["cond_jaxpr"]
    if len(condition.jaxpr.eqns) != 1:
        return None
    (test,) = condition.jaxpr.eqns
    if test.primitive.name not in _MET or condition.jaxpr.outvars[0] is not test.outvars[0]:
        return None
    counter, bound = (_carried(eqn, v) for v in test.invars)
    name = test.primitive.name
    if counter is None or _step(eqn, counter) == 0:
        counter, bound, name, test_bound = bound, counter, _FLIPPED[name], test.invars[0]
    else:
        test_bound = test.invars[1]
    limit = _literal(test_bound)
    if limit is None and bound is not None and _step(eqn, bound) == 0:
        limit = _start(eqn, bound)
    if counter is None:
        return None
    start, step = _start(eqn, counter), _step(eqn, counter)
    if start is None or limit is None or not step:
        return None
    return _solve(name, start, step, limit)


def _solve(name: str, start: int, step: int, limit: int) -> int | None:
    """Trips of `while start name limit: start += step`; None if it never ends (as integers without overflow)."""
    met = _MET[name]
    if not met(start, limit):
        return 0
    upwards = name in ("lt", "le")
    if (step > 0) != upwards:
        return None
    distance = abs(limit - start) + (name in ("le", "ge"))
    return -(-distance // abs(step))


def _carried(eqn: JaxprEqn, v) -> int | None:
    """Which carry the condition's variable is, counted from the first; None for constants and literals."""
    inner = eqn.params["cond_jaxpr"].jaxpr
    if isinstance(v, Literal) or v not in inner.invars:
        return None
    k = inner.invars.index(v) - eqn.params["cond_nconsts"]
    return k if k >= 0 else None


def _start(eqn: JaxprEqn, carry: int) -> int | None:
    p = eqn.params
    return _literal(eqn.invars[p["cond_nconsts"] + p["body_nconsts"] + carry])


def _step(eqn: JaxprEqn, carry: int) -> int | None:
    """What one trip adds to the carry: 0 where it is handed on, None where it is not a literal step."""
    body = eqn.params["body_jaxpr"].jaxpr
    before, after = body.invars[eqn.params["body_nconsts"] + carry], body.outvars[carry]
    if after is before:
        return 0
    for inner in body.eqns:
        if after in inner.outvars and inner.primitive.name in ("add", "sub"):
            left, right = inner.invars
            if left is before:
                step = _literal(right)
                return -step if step is not None and inner.primitive.name == "sub" else step
            return _literal(left) if right is before and inner.primitive.name == "add" else None
    return None


def _literal(v) -> int | None:
    if isinstance(v, Literal) and shape_of(v) == () and dtype_of(v).kind in "iu":
        return int(v.val)
    return None
