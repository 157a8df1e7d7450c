"""Programs in files: JSON of one format version, so that commits, versions of JAX and machines can be compared."""

import json
from pathlib import Path
from typing import Any

from refgrad._files import write_json
from refgrad.cost.causes import Cause
from refgrad.cost.comparison.items import Figures, Item
from refgrad.cost.comparison.program import PLAIN, Program

FORMAT = 1  # bump it where an older file would be read wrongly


def save(program: Program, path: str | Path) -> None:
    """Write a program, whole or not at all.

    Raises FileNotFoundError where the folder is missing.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: no folder {target.parent}: create it, or save elsewhere")
    data = {
        "format": FORMAT,
        **program.json(),
        "forward": [list(item) for item in program.forward],
        "lowering": [list(cause) for cause in program.lowering],
        "items": {stage: [list(item) for item in every] for stage, every in program.stages.items()},
    }
    write_json(target, data)


def load(path: str | Path) -> Program:
    """Read a program that was saved.

    Args:
      path: the file that `Program.save` or `Count.save` wrote.

    Returns:
      A `Program`: an argument of `compare`.

    Raises:
      FileNotFoundError: where the file does not exist.
      ValueError: for a file of another format version, and for one that is damaged or not a saved program.

    Example:
      >>> import jax.numpy as jnp
      >>> import tempfile
      >>> from refgrad import cost
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     cost.program(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5))).save(f"{folder}/matmul.json")
      ...     cost.load(f"{folder}/matmul.json").figures.flops
      60
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file: save one with cost.program(f, *args).save(path)")
    try:
        data: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
        version = data["format"]
        if version != FORMAT:
            raise ValueError(
                f"{source} is of format {version}, but this version of refgrad reads format {FORMAT}: save it again"
            )
        program = _program(data)
        figures = Figures(**data["figures"])
    except (KeyError, TypeError, AttributeError, IndexError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{source} is damaged or not a saved program ({error}): save it again") from None
    if program.figures != figures:
        raise ValueError(f"{source} is damaged: its items add up to {program.figures}, not {figures}: save it again")
    return program


def _program(data: dict[str, Any]) -> Program:
    plain = {key: data[key] for key in PLAIN}
    for key in ("inputs", "outputs", "notes"):
        plain[key] = tuple(plain[key])
    return Program(
        stages={stage: tuple(map(_item, every)) for stage, every in data["items"].items()},
        forward=tuple(map(_item, data["forward"])),
        lowering=tuple(Cause(*cause) for cause in data["lowering"]),
        **plain,
    )


def _item(values: list[Any]) -> Item:
    *rest, each = values
    return Item._make([*rest, Figures(*each)])
