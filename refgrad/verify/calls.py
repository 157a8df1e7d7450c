"""Every call of a rule that a program makes at given values: what flows into it, and what cotangent comes back.

The program is run for real, without jit: loops trip by trip, the branch that is taken, calls and checkpoints in place.
Each call of a rule runs its plain forward, with a *tap* added to each of its outputs: a zero whose cotangent is the
cotangent of that output. One reverse pass over all the taps therefore gives the true upstream cotangent of every call,
untouched by any rule, so that a wrong one cannot poison the verdict on those before it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.avals import is_array, is_float
from refgrad.jaxpr.calls import Form, bodies_of
from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.programs import inside, line
from refgrad.jaxpr.rules import RuleCall, rule_of
from refgrad.jaxpr.unroll import Unrolled
from refgrad.verify.devices import Devices
from refgrad.verify.rules import Plain, has_shell, without_rules
from refgrad.verify.subject import Flat, Subject


@dataclasses.dataclass
class Call:
    """One call of a rule: the loop trips around it, its inputs, and the devices that it runs on.

    `within` is the index of the call whose forward makes this one. Inside `shard_map` the values are stacked: see
    `Devices`.
    """

    rule: RuleCall
    place: str
    trips: tuple[str, ...]
    within: int | None
    values: list
    devices: Devices | None
    still: frozenset[int] = frozenset()  # the inputs that do not depend on what is differentiated
    kept: bool = False  # whether the second run calls the rule itself, since its forward has no reverse mode

    @property
    def eqn(self) -> JaxprEqn:
        """The equation that calls the rule."""
        return self.rule.eqn

    def run(self, program: Callable[..., Sequence]) -> Callable[..., Sequence]:
        """`program`, a function of the call's inputs, run where the call stands."""
        return self.devices.run(program, self.eqn) if self.devices else program

    @property
    def diff(self) -> list:
        """The inputs that are differentiated."""
        return [x for i, x in enumerate(self.values) if self.moves(i)]

    @property
    def rest(self) -> list:
        """The inputs that are not."""
        return [x for i, x in enumerate(self.values) if not self.moves(i)]

    def moves(self, i: int) -> bool:
        """Return True for an input that is differentiated."""
        return is_float(self.values[i]) and i not in self.still

    @property
    def arguments(self) -> list[str]:
        """The names of the differentiated inputs."""
        return [f"argument {i}" for i in range(len(self.values)) if self.moves(i)]

    @property
    def ruled(self) -> Flat:
        """The call with its rule, in flat form."""
        return self._flat(lambda *xs: Interpreter().bind(self.eqn, xs))

    @property
    def plain(self) -> Flat:
        """The call's forward without rules, in flat form."""
        return self._flat(Plain(jvp=True, library=self.rule.of_jax).call(self.rule.forward))

    def _flat(self, program: Callable[..., Sequence]) -> Flat:
        """`program` as `(floats, others) → (float outputs, other outputs)`, at the types of the call's inputs only."""
        placed = self.run(program)

        def flat(diff, rest):
            floats, others = iter(diff), iter(rest)
            inputs = [next(floats) if self.moves(i) else next(others) for i in range(len(self.values))]
            for given, x in zip(inputs, self.values, strict=True):
                if given.dtype != x.dtype:
                    raise TypeError(f"a call traced at {x.dtype} cannot be run at {given.dtype}")
            return split(placed(*inputs))

        return flat

    def taps(self) -> list[jax.Array]:
        """A zero for each float output. It is −0.0, the one number that leaves every other, −0.0 too, as it is."""
        avals: list[Any] = [v.aval for v in self.eqn.outvars if is_float(v.aval)]
        return [jnp.full(self.devices.shape(a) if self.devices else a.shape, -0.0, a.dtype) for a in avals]


def as_array(x: Any, aval: Any) -> Any:
    """A literal of the program as the array that it stands for."""
    return x if is_array(x) else jnp.asarray(x, aval.dtype)


def split(values: Sequence) -> tuple[list, list]:
    """(floats, others)."""
    return [x for x in values if is_float(x)], [x for x in values if not is_float(x)]


@dataclasses.dataclass
class WholeCall(Call):
    """The call of a function that is itself a rule, in terms of that function's own arguments."""

    subject: Subject | None = None

    @classmethod
    def of(cls, call: Call, subject: Subject) -> "WholeCall":
        """Return `call`, which is all that the function of `subject` does."""
        return cls(**{f.name: getattr(call, f.name) for f in dataclasses.fields(Call)}, subject=subject)

    @property
    def _subject(self) -> Subject:
        assert self.subject is not None
        return self.subject

    @property
    def diff(self) -> list:
        return self._subject.diff

    @property
    def rest(self) -> list:
        return self._subject.rest

    @property
    def arguments(self) -> list[str]:
        return self._subject.arguments

    @property
    def ruled(self) -> Flat:
        return self._subject.flat()

    @property
    def plain(self) -> Flat:
        return without_rules(self._subject.flat(), jvp=True, library=self._subject.library)


class CallRecorder(Unrolled, Plain):
    """Interpreter that runs a program without its rules and notes each call of one.

    The first run notes; a second one, given the `known` calls and a list of taps for each, adds these to their outputs.
    `unseen` names the calls that cannot be run in place: those of a loop or branch inside `shard_map`, where each
    device decides for itself, and those inside a solver, a kernel or a function with a rule of JAX's own.
    """

    def __init__(self, known: Sequence[Call] = (), taps: Sequence[list] = (), library: bool = False) -> None:
        super().__init__(jvp=True, library=library)
        self.known = known
        self.taps = list(taps)
        self.calls: list[Call] = []
        self.unseen: dict[str, None] = {}
        self.devices: Devices | None = None
        self.place = ""
        self.within: int | None = None

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """A rule is noted; what holds one is run in place, as far as that can be done."""
        rule = rule_of(eqn)
        if rule is not None and self.drops(eqn):
            return self.note(rule, values)
        held = [e for e in inside(eqn) if self.drops(e)]
        if not held:
            return self.descend(eqn, values) if has_shell(eqn) else self.bind(eqn, values)
        with self.at(place=line(eqn) or self.place):
            if self.on_devices(eqn):
                return self.spread(eqn, values)
            if self.can_unroll(eqn):
                return self.unroll(eqn, values)
        self.unseen |= dict.fromkeys(f"{line(e) or 'a rule'}: inside {eqn.primitive.name}" for e in held)
        return Plain(jvp=True, library=self.library).equation(eqn, values)

    def on_devices(self, eqn: JaxprEqn) -> bool:
        """Return True for a `shard_map` that is not inside another."""
        bodies = bodies_of(eqn)
        return self.devices is None and bodies is not None and bodies.form is Form.DEVICES

    def can_unroll(self, eqn: JaxprEqn) -> bool:
        """Return True for an equation that runs in place; inside `shard_map` each device decides for itself."""
        bodies = bodies_of(eqn)
        decided = bodies is not None and bodies.form in (Form.WHILE, Form.BRANCHES)
        return super().can_unroll(eqn) and not (self.devices and decided)

    def note(self, rule: RuleCall, values: Sequence[Any]) -> list:
        """Record one call and run its plain forward, its outputs tapped."""
        index = len(self.calls)
        place = line(rule.eqn) or self.place or rule.defined
        given = [as_array(x, v.aval) for x, v in zip(values, rule.eqn.invars, strict=True)]
        self.calls.append(Call(rule, place, self.trips, self.within, given, self.devices, rule.constants))
        if self.known and self.known[index].kept:
            outputs = list(self.bind(rule.eqn, values))
            unmet = itertools.takewhile(lambda c: c.within is not None and c.within >= index, self.known[index + 1 :])
            self.calls += [dataclasses.replace(c, values=[]) for c in unmet]
        else:
            with self.at(within=index, place=place):
                outputs = self.call(rule.forward)(*values)
        if not self.known:
            return outputs
        taps = iter(self.taps[index])
        return [lax.add(y, jnp.reshape(next(taps), y.shape)) if is_float(y) else y for y in outputs]

    def spread(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Run a body on every device: what its calls are given comes out stacked, and their taps go in stacked."""
        devices, start = Devices(eqn.params), len(self.calls)
        program = self.call(eqn.params["jaxpr"])
        known = list(itertools.takewhile(lambda c: c.devices is self.known[start].devices, self.known[start:]))
        given = self.taps[start : start + len(known)]
        specs = [[devices.spec(v.aval) for v in c.eqn.outvars if is_float(v.aval)] for c in known]

        def body(taps, *xs):
            del self.calls[start:]  # should JAX trace the body twice
            self.taps[start : start + len(known)] = taps
            with self.at(devices=devices):
                outputs = program(*xs)
            met = [] if self.known else self.calls[start:]
            return outputs, [[devices.lift(v) for v in c.values] for c in met]

        outputs, lifted = devices.map(body, specs)(given, *values)
        self.taps[start : start + len(known)] = given
        for made, stacked in zip(self.calls[start:], lifted, strict=not self.known):
            made.values = [devices.thin(x, v.aval) for x, v in zip(stacked, made.eqn.invars, strict=True)]
        return outputs
