"""The device that a command runs on."""

from typing import Any

import jax

from refgrad._text import is_integer


def device(name: str | None) -> Any:
    """The device called `platform` or `platform:index`; JAX's own choice for None.

    Raises ValueError for a device that is not present, naming those that are.
    """
    if name is None:
        return jax.devices()[0]
    platform, _, index = name.partition(":")
    if not platform:
        raise ValueError(f"--device {name}: no such platform; JAX sees {_present()}")
    try:
        found = jax.devices(platform)
    except RuntimeError:
        raise ValueError(f"--device {name}: no {platform} here; JAX sees {_present()}") from None
    if index and not (is_integer(index) and int(index) < len(found)):
        raise ValueError(f"--device {name}: {platform} devices go from 0 to {len(found) - 1}")
    return found[int(index or 0)]


def _present() -> str:
    return ", ".join(sorted({device.platform for device in jax.devices()} | {"cpu"}))
