"""An operation's Jacobians as a picture, which reads on light and on dark paper."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from exercises import sizes
from matplotlib.figure import Figure

CAPTION = """The Jacobian of each argument at the exercise's sizes: a row for each entry of the output, a column for
each entry of the argument, blue below 0, red above, blank where it is exactly 0. The rule multiplies by its transpose
without ever making it."""
INK = "#808080"
COLOURS = matplotlib.colormaps["coolwarm"].with_extremes(bad="none")


def jacobians(spec: Any, folder: Path) -> str:
    """Draw the Jacobian of every differentiable argument, and return the Markdown that shows them."""
    folder.mkdir(exist_ok=True)
    shown = []
    for name in spec.differentiable:
        file = folder / f"{spec.name}.{name}.svg"
        _draw(jacobian(spec, name), name, file)
        shown.append(f"![Jacobian of {spec.name} in {name}]({file.name})")
    return "\n".join(shown) + f"\n\n{CAPTION}"


def _draw(matrix: np.ndarray, name: str, file: Path) -> None:
    figure = Figure(figsize=(2.4, 2.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    largest = np.max(np.abs(matrix)) or 1
    shown = np.ma.masked_equal(matrix, 0)
    axes.imshow(shown, cmap=COLOURS, vmin=-largest, vmax=largest, interpolation="none", aspect="auto")
    axes.set_title(f"{name}: {matrix.shape[0]} × {matrix.shape[1]}", color=INK)
    axes.patch.set_alpha(0)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(INK)
    figure.savefig(file, metadata={"Date": None})


def jacobian(spec: Any, name: str) -> np.ndarray:
    """Return ∂output/∂argument as a matrix."""
    arrays = spec.sample(0, sizes(spec), jnp.float32)
    position = list(spec.arguments).index(name)

    def output(x: Any) -> Any:
        parts = spec.bound(sizes(spec))(*arrays[:position], x, *arrays[position + 1 :])
        return jnp.concatenate([part.ravel() for part in jax.tree.leaves(parts)])

    return np.asarray(jax.jacrev(output)(arrays[position])).reshape(-1, arrays[position].size)
