"""Communication of a GPT-2 on a mesh in one forward and backward pass: derived, and read off the compiled module."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from refgrad._text import Table
from refgrad.cost import collectives as compiled
from refgrad.models import gpt2
from refgrad.train.mesh import collectives, devices, model, sharding

Key = tuple[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Moved:
    """The collectives of one device, by formula and as compiled, on a mesh {axis: size}."""

    mesh: dict[str, int]
    terms: tuple[collectives.Term, ...]
    derived: list[compiled.Collective]
    compiled: list[compiled.Collective]

    @property
    def payloads(self) -> dict[Key, tuple[int, int]]:
        """(kind, axes) → payload in bytes, derived and compiled."""
        before, after = compiled.totals(self.derived), compiled.totals(self.compiled)
        return {key: (before.get(key, 0), after.get(key, 0)) for key in dict.fromkeys((*before, *after))}

    @property
    def unexplained(self) -> int:
        """Bytes of payload by which the two differ, over all kinds and axes."""
        return sum(abs(after - before) for before, after in self.payloads.values())

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        return {
            "mesh": self.mesh,
            "unexplained": self.unexplained,
            "derived": [one._asdict() for one in self.derived],
            "compiled": [one._asdict() for one in self.compiled],
        }


def moved(config: gpt2.Config, sizes: dict[str, int], batch: int, sequence: int, rules: str = "derived") -> Moved:
    """Derive and compile, for virtual CPU devices, from shapes alone: nothing is allocated. Layers are scanned.

    Raises ValueError for a mesh of one device and as `sharding.check` and `devices.make` do, RuntimeError as
    `devices.simulate` does.
    """
    if devices.count(sizes) == 1:
        raise ValueError("a mesh of one device moves nothing: give an axis more, such as data=2")
    devices.simulate(devices.count(sizes))  # first, since shapes alone make JAX start its devices
    sharding.check(config, sizes, batch, sequence)
    mesh = devices.make(sizes, devices=jax.devices("cpu"))
    params = jax.eval_shape(gpt2.stack, gpt2.shapes(config))
    ids, split = jax.ShapeDtypeStruct((batch, sequence), jnp.int32), sharding.batch_sharding(mesh)
    step = jax.jit(
        model.value_and_grad(config, mesh, rules=rules),
        in_shardings=(sharding.shardings(params, mesh), split, split),
    )
    text = step.lower(params, ids, ids).compile().as_text() or ""
    terms = collectives.terms(config.tie_word_embeddings)
    values = collectives.dims(config, mesh.shape, batch, sequence)
    derived = collectives.derived(terms, mesh.shape, values)
    return Moved(dict(mesh.shape), terms, derived, compiled.collectives(text, mesh.shape))


def term_table(result: Moved) -> Table:
    """Each array that is moved: by which collective along which axes, its payload as a polynomial and in bytes."""
    rows = []
    present = (term for term in result.terms if set(term.axes) & set(result.mesh))
    for term, one in zip(present, result.derived, strict=True):
        each, times = ("a layer", f" × {one.times}") if term.scope == "h" else ("a step", "")
        rows.append([one.scope, one.kind, _along(one.axes), f"{term.payload}", each, f"{one.payload:,}{times}"])
    return Table(["what", "collective", "along", "payload", "", "bytes"], rows)


def total_table(result: Moved) -> Table:
    """Payload by kind and axes, derived and compiled, and what each device sends of it around a ring."""
    rows = []
    for (kind, axes), (before, after) in result.payloads.items():
        size = devices.count({axis: result.mesh[axis] for axis in axes})
        sent = float(compiled.sent(kind, size, before))
        rows.append([kind, _along(axes), f"{before:,}", f"{after:,}", f"{after - before:,}", f"{sent:,.0f}"])
    return Table(["collective", "along", "derived", "compiled", "unexplained", "sent by each device"], rows)


def _along(axes: tuple[str, ...]) -> str:
    return " × ".join(axes)
