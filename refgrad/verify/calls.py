"""Every call of a rule that a program makes at given values: what flows into it, and what cotangent comes back.

The program is run for real, without jit: loops trip by trip, the branch that is taken, calls and checkpoints in place.
Each call of a rule runs its plain forward, with a *tap* added to each of its outputs: a zero whose cotangent is the
cotangent of that output. One reverse pass over all the taps therefore gives the true upstream cotangent of every call,
untouched by any rule, so that a wrong one cannot poison the verdict on those before it.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from refgrad._jax import called, scan_operands
from refgrad.verify.allowance import is_float
from refgrad.verify.devices import Devices
from refgrad.verify.interpret import inside, line
from refgrad.verify.rules import Plain


@dataclasses.dataclass
class Call:
    """One call of a rule: its equation, the loop trips around it, its inputs, and the devices that it runs on.

    `within` is the index of the call whose forward makes this one. Inside `shard_map` the values are stacked: see
    `Devices`.
    """

    eqn: JaxprEqn
    place: str
    trips: tuple[str, ...]
    within: int | None
    values: list
    devices: Devices | None
    kept: bool = False  # whether the second run calls the rule itself, since its forward has no reverse mode

    def run(self, program: Callable[..., Sequence]) -> Callable[..., Sequence]:
        """`program`, a function of the call's inputs, run where the call stands."""
        return self.devices.run(program, self.eqn) if self.devices else program

    def taps(self) -> list[jax.Array]:
        """A zero for each float output. It is −0.0, the one number that leaves every other, −0.0 too, as it is."""
        avals: list[Any] = [v.aval for v in self.eqn.outvars if is_float(v.aval)]
        return [jnp.full(self.devices.shape(a) if self.devices else a.shape, -0.0, a.dtype) for a in avals]


class Recorder(Plain):
    """Runs a program without its rules and notes each call of one.

    The first run notes; a second one, given the `known` calls and a list of taps for each, adds these to their outputs.
    `unseen` names the calls that cannot be run in place: those of a loop or branch inside `shard_map`, where each
    device decides for itself, and those inside a solver, a kernel or a function with a rule of JAX's own.
    """

    def __init__(self, known: Sequence[Call] = (), taps: Sequence[list] = ()) -> None:
        super().__init__(jvp=True)
        self.known = known
        self.taps = list(taps)
        self.calls: list[Call] = []
        self.unseen: dict[str, None] = {}
        self.devices: Devices | None = None
        self.trips: tuple[str, ...] = ()
        self.place = ""
        self.within: int | None = None

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """A rule is noted; what holds one is run in place, as far as that can be done."""
        if self.drops(eqn):
            return self.note(eqn, values)
        held = [e for e in inside(eqn) if self.drops(e)]
        if not held:
            return self.bind(eqn, values)
        name = eqn.primitive.name
        if name in IN_PLACE and not (self.devices and name in DECIDED):
            with self.at(place=line(eqn) or self.place):
                return IN_PLACE[name](self, eqn, values)
        self.unseen |= dict.fromkeys(f"{line(e) or 'a rule'}: inside {name}" for e in held)
        return Plain(jvp=True).equation(eqn, values)

    def note(self, eqn: JaxprEqn, values: Sequence[Any]) -> list:
        """Records one call and runs its plain forward, its outputs tapped."""
        index = len(self.calls)
        place = line(eqn) or self.place
        self.calls.append(Call(eqn, place, self.trips, self.within, list(values), self.devices))
        if self.known and self.known[index].kept:
            outputs = list(self.bind(eqn, values))
            unmet = itertools.takewhile(lambda c: c.within is not None and c.within >= index, self.known[index + 1 :])
            self.calls += [dataclasses.replace(c, values=[]) for c in unmet]
        else:
            with self.at(within=index, place=place):
                outputs = self.call(eqn.params["call_jaxpr"])(*values)
        if not self.known:
            return outputs
        taps = iter(self.taps[index])
        return [lax.add(y, jnp.reshape(next(taps), y.shape)) if is_float(y) else y for y in outputs]

    @contextlib.contextmanager
    def at(self, **where: Any) -> Iterator[None]:
        """Inside another call (`place`), loop trip (`trips`), rule (`within`) or shard_map (`devices`)."""
        before = {name: getattr(self, name) for name in where}
        vars(self).update(where)
        yield
        vars(self).update(before)


def call(rec: Recorder, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """jit, checkpoint and plain calls: in place."""
    return rec.call(called(eqn.params))(*values)


def scan(rec: Recorder, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """A scan, trip by trip."""
    p, body = eqn.params, rec.call(eqn.params["jaxpr"])
    n_consts, n_carry = scan_operands(p)
    consts, carry, slices = values[:n_consts], values[n_consts:][:n_carry], values[n_consts + n_carry :]
    trips = range(p["length"])
    stacked = [None] * p["length"]
    for i in reversed(trips) if p["reverse"] else trips:
        with rec.at(trips=(*rec.trips, f"scan[{i}]")):
            out = body(*consts, *carry, *(lax.index_in_dim(x, i, keepdims=False) for x in slices))
        carry, stacked[i] = out[:n_carry], out[n_carry:]
    if not stacked:
        return Plain(jvp=True).equation(eqn, values)
    return [*carry, *(jnp.stack(ys) for ys in zip(*stacked, strict=True))]


def while_loop(rec: Recorder, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """A while loop, trip by trip until its condition fails."""
    p = eqn.params
    n_cond, n_body = p["cond_nconsts"], p["body_nconsts"]
    cond_consts, body_consts, carry = values[:n_cond], values[n_cond:][:n_body], values[n_cond + n_body :]
    holds, body = Plain(jvp=True).call(p["cond_jaxpr"]), rec.call(p["body_jaxpr"])
    trip = 0
    while holds(*cond_consts, *carry)[0]:
        with rec.at(trips=(*rec.trips, f"while[{trip}]")):
            carry = body(*body_consts, *carry)
        trip += 1
    return carry


def cond(rec: Recorder, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """The one branch that is taken."""
    branches = eqn.params["branches"]
    return rec.call(branches[min(max(int(values[0]), 0), len(branches) - 1)])(*values[1:])


def shard_map(rec: Recorder, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """The body on every device: what its calls are given comes out stacked, and their taps go in stacked."""
    devices, start = Devices(eqn.params), len(rec.calls)
    program = rec.call(eqn.params["jaxpr"])
    known = list(itertools.takewhile(lambda c: c.devices is rec.known[start].devices, rec.known[start:]))
    given = rec.taps[start : start + len(known)]
    specs = [[devices.spec(v.aval) for v in c.eqn.outvars if is_float(v.aval)] for c in known]

    def body(taps, *xs):
        del rec.calls[start:]  # should JAX trace the body twice
        rec.taps[start : start + len(known)] = taps
        with rec.at(devices=devices):
            outputs = program(*xs)
        met = [] if rec.known else rec.calls[start:]
        return outputs, [[devices.lift(v) for v in c.values] for c in met]

    outputs, lifted = devices.map(body, specs)(given, *values)
    rec.taps[start : start + len(known)] = given
    for made, stacked in zip(rec.calls[start:], lifted, strict=not rec.known):
        made.values = [devices.thin(x, v.aval) for x, v in zip(stacked, made.eqn.invars, strict=True)]
    return outputs


IN_PLACE = {
    "jit": call,
    "pjit": call,
    "remat2": call,
    "checkpoint": call,
    "closed_call": call,
    "core_call": call,
    "eval_jaxpr": call,
    "scan": scan,
    "while": while_loop,
    "cond": cond,
    "shard_map": shard_map,
}
DECIDED = ("while", "cond", "shard_map")  # what each device decides for itself inside a shard_map
