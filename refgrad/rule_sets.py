"""Sets of backward rules, by the names that `rules=`, configs and the shell take. Nothing here imports JAX."""

import dataclasses
import warnings

from refgrad._renamed import outside

PLAIN, FUSED = "refgrad.ops", "refgrad.ops.fused"
NARROW = ("bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class RuleSet:
    """A set of backward rules and what follows from choosing it.

    Attributes:
        name: The name that `rules=` takes.
        packages: The packages of its operations; a later package's take the place of an earlier one's.
        fused: True where a layer is one operation, and the head and the loss are another.
        by_autodiff: True where JAX differentiates the plain forwards and no rule of this project runs.
        kernel: The attention kernel; None for blocks of queries, or for attention in parts.
        dtypes: The dtypes that it computes in.
    """

    name: str
    packages: tuple[str, ...]
    fused: bool = False
    by_autodiff: bool = False
    kernel: str | None = None
    dtypes: tuple[str, ...] = ("float64", "float32", *NARROW)

    @property
    def verified(self) -> bool:
        """True where `refgrad verify` has operations of this set alone to check."""
        return not self.by_autodiff and self.kernel is None


RULE_SETS = {
    one.name: one
    for one in (
        RuleSet("derived", (PLAIN,)),
        RuleSet("fused", (PLAIN, FUSED), fused=True),
        RuleSet("fused-cudnn", (PLAIN, FUSED), fused=True, kernel="cudnn", dtypes=NARROW),
        RuleSet("autodiff", (PLAIN,), by_autodiff=True),
    )
}
RENAMED = {"document": "derived"}  # until 0.3
"""Old name → new name: an error in configs and options, a warning in Python, a notice in stored runs."""


def rule_set(name: str) -> RuleSet:
    """Return the set of rules of that name; an old name warns.

    Raises:
        ValueError: The name is unknown.
    """
    if name in RENAMED:
        message = f"rules={name!r} is now rules={RENAMED[name]!r}"
        warnings.warn(message, DeprecationWarning, stacklevel=outside())
        name = RENAMED[name]
    return current(name)


def current(name: str, key: str = "rules") -> RuleSet:
    """Return the set of rules of that name.

    Args:
        name: The name as a config or an option gives it.
        key: The setting or option, for the error.

    Raises:
        ValueError: The name is unknown, or an old one.
    """
    if name in RENAMED:
        raise ValueError(f"{key} is {name!r}, which is now called {RENAMED[name]!r}: write that")
    if name not in RULE_SETS:
        raise ValueError(f"{key} is {name!r}, but must be one of {', '.join(map(repr, RULE_SETS))}")
    return RULE_SETS[name]
