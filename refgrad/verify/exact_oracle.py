"""Truth in exact arithmetic for `check` and `blame`: whole gradients, or single entries, within a budget.

The budget counts scalar operations, estimated from the program before anything is evaluated. A program whose gradient
fits into it at every draw is judged by exact arithmetic alone. Of a larger one exact arithmetic judges entries.
"""

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flint import arb

from refgrad.jaxpr.avals import is_float
from refgrad.verify.exact import Balls, Entry, EntryVerdict, Limits, NoMeaning, OverBudget, Truth, exact
from refgrad.verify.numbers import errors, largest, to_wide
from refgrad.verify.oracle import Leaves, first_line
from refgrad.verify.subject import Flat

BUDGET = 10**8  # scalar operations
LONG = 5 * 10**5  # those that take longer than XLA takes to compile the same gradient
SWEEP = 3  # forward evaluations that a gradient costs
HESSIAN = 20  # those that its derivative along a direction costs
TWICE = 50  # those that a second derivative of one entry costs
EVEN = 1e-9  # relative difference of two one-sided slopes, rounded, below which they are one
DIGITS = 1e-15  # relative radius up to which a ball, rounded to float64, is a number
ROUNDED = 2.0**-53  # relative error of a midpoint rounded to float64

Place = tuple[int, tuple[int, ...]]


class ExactOracle:
    """The gradient of `plain` in exact arithmetic; `why` says why it is not available."""

    def __init__(
        self,
        plain: Flat,
        diff: Sequence,
        rest: Sequence,
        names: Sequence[str],
        *,
        sweeps: int,
        stop_gradient: bool = False,
        wide: bool = False,
    ) -> None:
        """Trace `plain` for `sweeps` gradients, at float64 if `wide`; `stop_gradient` is honoured where it is meant."""
        self.why, self.spent, self.wide = "", 0.0, wide
        self.truth: Truth | None = None
        self.given, self.diff = list(diff), [to_wide(x) for x in diff] if wide else list(diff)
        if lost := [name for name, x in zip(names, self.diff, strict=True) if np.isnan(to_wide(x)).any()]:
            self.why = f"{' and '.join(lost)} holds NaN, where no function has a derivative"
            return
        try:
            with self._types():
                held = [to_wide(x) if wide and is_float(x) else x for x in rest]
                limits = Limits(operations=BUDGET)
                self.truth = exact(plain, self.diff, held, argnums=0, limits=limits, stop_gradient=stop_gradient)
        except Exception as error:  # a dtype that the function does not take
            self.why = first_line(error)
            return
        self.afford(sweeps)

    def afford(self, sweeps: int) -> None:
        """Leave whole gradients to float64 where so many of them are over the budget."""
        if self.truth is not None and (needed := SWEEP * sweeps * self.truth.operations) > BUDGET:
            self.why = f"it would take {needed:.1e} scalar operations, over its budget of {BUDGET:.0e}"

    def takes_long(self, sweeps: int) -> bool:
        """Return True where so many gradients take longer than compiling their program."""
        return self.truth is not None and SWEEP * sweeps * self.truth.operations > LONG

    @classmethod
    def unavailable(cls, why: str) -> "ExactOracle":
        """Return one that decides nothing."""
        self = cls.__new__(cls)
        self.why, self.spent, self.wide, self.truth, self.given, self.diff = why, 0, False, None, [], []
        return self

    def at(self, diff: Sequence, rest: Sequence, operations: float) -> "ExactOracle":
        """Return the oracle at other arguments of the same types, which may spend so many scalar operations."""
        other = copy.copy(self)
        other.spent = BUDGET - operations
        other.given, other.diff = list(diff), [to_wide(x) for x in diff] if self.wide else list(diff)
        if self.truth is not None:
            other.truth = self.truth.at(other.diff, rest)
        return other

    def outputs(self) -> Leaves | None:
        """Return the float outputs at the given arguments, NaN as in `gradient`; None where they are not available."""
        if self.truth is None:
            return None
        with self._types():
            return [_numbers(y, y.mid) for y in self.truth.value]

    @property
    def whole(self) -> bool:
        """True where whole gradients are affordable."""
        return not self.why

    def affords(self, gradients: int) -> bool:
        """Return True where the budget has so many gradients left."""
        return self.truth is not None and self.spent + gradients * SWEEP * self.truth.operations <= BUDGET

    def _types(self) -> contextlib.AbstractContextManager:
        """The setting of 64-bit types under which the program is traced, and its random bits are made."""
        return jax.enable_x64(True) if self.wide else contextlib.nullcontext()

    def _at(self, diff: Sequence) -> Truth:
        """Return the truth at other arguments; at the given ones its forward is kept."""
        assert self.truth is not None
        same = all(any(x is y for y in own) for x, *own in zip(diff, self.given, self.diff, strict=True))
        return self.truth if same else self.truth.at(diff)

    def gradient(self, diff: Sequence, cts: Sequence) -> Leaves | None:
        """Return the cotangents of the leaves, NaN where a reverse sweep does not decide.

        Return None where the program cannot be evaluated; `why` then says so.
        """
        assert self.truth is not None
        try:
            with self._types():
                found = self._at(diff).gradient(cts)
        except Exception as error:  # whatever a program meets that exact arithmetic cannot evaluate
            self._give_up(error)
            return None
        self.spent += SWEEP * self.truth.operations
        return [_numbers(x, d) for x, d in zip(found, diff, strict=True)]

    def outputs_and_gradient(self, cts: Sequence) -> Leaves | None:
        """Return the outputs, then the cotangents, at the given arguments; None as above."""
        if not self.whole or (found := self.gradient(self.diff, cts)) is None:
            return None
        return [*(self.outputs() or ()), *found]

    def hessian(self, diff: Sequence, direction: Sequence, cts: Sequence) -> Leaves | None:
        """Return the derivative of every cotangent along a direction, then that of every output, NaN as above.

        Return None where float64 autodiff must serve.
        """
        assert self.truth is not None
        self.spent += HESSIAN * self.truth.operations
        if self.spent > BUDGET:
            return None
        try:
            with self._types():
                truth = self._at(diff)
                seconds, thirds = truth.hessian(direction, cts)
                found = [_numbers(x, d) for x, d in zip((*seconds, *thirds), (*direction, *cts), strict=True)]
                for i, at in unknown(found[: len(seconds)]):
                    self.spent += TWICE * self.truth.operations
                    if self.spent > BUDGET:
                        break
                    found[i][at] = smooth(list(truth.curvatures(direction, cts, [(i, at)])), found[i])
        except Exception:  # whatever a derivative meets that the function did not
            return None
        return found

    def tangents(self, direction: Sequence) -> Leaves | None:
        """Return the derivative of every output along a direction, NaN where that opposite to it is another number.

        Return None where float64 must serve.
        """
        if not self.whole or self.truth is None or self.spent + HESSIAN * self.truth.operations > BUDGET:
            return None
        self.spent += HESSIAN * self.truth.operations
        try:
            with self._types():
                sides = self.truth.along(direction, [-np.asarray(v) for v in direction])
        except Exception as error:  # as in `gradient`
            self._give_up(error)
            return None
        ahead, behind = ([_numbers(y, y.mid) for y in side] for side in sides)
        return [np.where(errors(a, -b) <= EVEN * np.abs(a), a, np.nan) for a, b in zip(ahead, behind, strict=True)]

    def settled(self, leaves: Leaves, cts: Sequence) -> Leaves:
        """Return cotangents at the given arguments with those of smooth entries that were NaN filled in."""
        filled = [x.copy() for x in leaves]
        for (i, at), entries in self.entries(cts, unknown(leaves)).items():
            filled[i][at] = smooth(entries, filled[i])
        return filled

    def entries(self, cts: Sequence, places: Sequence[Place]) -> dict[Place, list[Entry]]:
        """Return the verdicts on the places, in their order, as far as the budget goes."""
        found: dict[Place, list[Entry]] = {}
        if self.truth is None:
            return found
        for place in places:
            try:
                cost = self.truth.cost(*place, cts)
                if self.spent + cost > BUDGET:
                    break
                before = self.truth.spent
                with self._types():
                    found[place] = list(self.truth.entries(cts, [place]))
                self.spent += max(cost, self.truth.spent - before)
            except Exception as error:  # as in `gradient`
                self._give_up(error)
                break
        return found

    def _give_up(self, error: Exception) -> None:
        """Fall back on float64 for good: the program holds what exact arithmetic cannot evaluate."""
        known = isinstance(error, NoMeaning | OverBudget)
        self.why = str(error) if known else f"it fails here: {type(error).__name__}: {first_line(error)}"
        self.truth = None


def unknown(leaves: Leaves) -> list[Place]:
    """Return the entries that are NaN."""
    return [(i, tuple(map(int, at))) for i, x in enumerate(leaves) for at in np.argwhere(np.isnan(x))]


def smooth(entries: Sequence[Entry], leaf: np.ndarray) -> complex:
    """Return the slope of a smooth entry of a leaf, NaN for any other."""
    slope, _, verdict = slopes(entries)
    if verdict is not EntryVerdict.SMOOTH:
        return np.nan
    return slope if np.iscomplexobj(leaf) else slope.real


def slopes(entries: Sequence[Entry]) -> tuple[complex, complex, EntryVerdict]:
    """Return both one-sided slopes, as a cotangent has them, and the verdict; NaN where the derivative does not exist.

    A complex entry has two verdicts, along its real and its imaginary part: the worse one is returned.
    """
    below, above = 0j, 0j
    for entry in entries:
        found = [float(s.mid()) for s in (entry.below, entry.above) if s is not None]
        if entry.verdict not in DECIDED or not found:
            return complex(np.nan), complex(np.nan), entry.verdict
        below += complex(0, -found[0]) if entry.imaginary else found[0]
        above += complex(0, -found[-1]) if entry.imaginary else found[-1]
    return below, above, max((entry.verdict for entry in entries), key=DECIDED.index)


def kink(leaf: int, index: tuple[int, ...], below: complex, above: complex) -> list[Entry]:
    """Return the verdict on a kink whose sides were seen elsewhere."""
    parts = [(below.real, above.real, False)]
    if isinstance(below, complex | np.complexfloating):
        parts.append((-below.imag, -above.imag, True))
    return [Entry(leaf, index, EntryVerdict.KINK, arb(float(a)), arb(float(b)), imaginary=i) for a, b, i in parts]


DECIDED = (EntryVerdict.SMOOTH, EntryVerdict.END, EntryVerdict.KINK)


def _numbers(found: Balls, like: Any) -> np.ndarray:
    """Return midpoints as float64 (complex128), NaN for what is not decided to enough digits."""
    mid = found.mid.astype(to_wide(np.zeros((), like.dtype)).dtype)
    size = np.abs(mid)
    scale = largest(mid)
    with np.errstate(invalid="ignore"):
        vague = ~(found.width + ROUNDED * size <= DIGITS * np.maximum(size, scale)) & ~np.isinf(size)
    return np.where(vague, np.nan, mid)
