"""`remat`: the gradient under `jax.checkpoint` with `jax_remat3`. Without that flag JAX uses `jvp` in its place."""

from collections.abc import Iterator

import jax

from refgrad.jaxpr.methods import flag
from refgrad.verify.method_case import MethodCase
from refgrad.verify.report import Row
from refgrad.verify.subject import pullback


def remat(case: MethodCase) -> Iterator[Row]:
    """Rows of `remat`: values and cotangents."""
    if "remat" not in case.methods or not case.sound:
        return
    cts = case.cotangents()
    with flag("jax_remat3", True):
        found, failed = case.run(("remat",), pullback(jax.checkpoint(case.ruled)), case.diff, case.rest, cts)
    yield from failed
    if failed:
        return
    outputs, cotangents = found
    yield from case.compare_values("remat", outputs, case.values(case.diff, case.rest)[: len(outputs)], "value")
    yield from case.compare_cotangents(("remat", "vjp_bwd"), cotangents, cts, "")
