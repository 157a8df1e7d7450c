"""The exercise of an operation's page: a rule that is red until its reader has filled it in."""

import re
from typing import Any

from refgrad.symbols import SYMBOLS

SIZES = {"b": 2, "s": 3, "h": 4, "n_h": 2, "d": 2, "V": 5, "i": 4, "o": 3}


def sizes(spec: Any) -> dict[str, int]:
    """Return the small sizes that an operation's arguments and constants have here."""
    words = re.findall(r"\w+", " ".join(map(str, [*spec.arguments.values(), *spec.statics.values()])))
    scales = [str(symbol) for scale in spec.scale.values() for symbol in scale.free_symbols]
    return {name: size for name, size in SIZES.items() if name in {*words, *scales} and name in SYMBOLS}


def exercise(spec: Any) -> str:
    """Return the exercise and, folded, its answer."""
    names = ", ".join(spec.arguments)
    constants = "".join(f", {value}" for value in spec.static_values(sizes(spec)))
    lines = "\n".join(f"    d{name} = jnp.zeros_like({name})  # your line" for name in spec.differentiable)
    results = ", ".join(f"d{name}" if name in spec.differentiable else "None" for name in spec.arguments)
    unpacked = f"{names}," if len(spec.arguments) == 1 else names
    return f"""## Exercise

Cover the rule above, and write it yourself. `kept` holds the arguments; keep something else where that is cheaper.

```python
import jax
import jax.numpy as jnp

from refgrad import ops, verify

sizes = {sizes(spec)}
spec = ops.TABLE["{spec.name}"]
{unpacked} = spec.sample(0, sizes, jnp.float32)


def forward({names}):
    return spec.op.fun({names}{constants})


def forward_and_kept({names}):
    return forward({names}), ({unpacked})


def backward(kept, cotangent):
    {unpacked} = kept
{lines}
    return {results}{"," if len(spec.arguments) == 1 else ""}


mine = jax.custom_vjp(forward)
mine.defvjp(forward_and_kept, backward)
print(verify.check(mine, {names}, properties=["accuracy"]).summary())
```

Red, as it should be: every gradient is 0 so far. `ok` says that you have derived it.

<details><summary>Answer</summary>

The rule above, checked in the same way:

```python
print(verify.check(spec.bound(sizes), {names}, properties=["accuracy"]).status)
```

</details>"""
