"""Do the derived rules train a GPT-2 as autodiff does?

Both train the tiny model from the same weights on the same batches of the Python standard library's source, in float32
with AdamW. Prints the losses and how far the parameters part; draws the two curves and their difference.

    python experiments/same_training.py --steps 200 --out same_training

writes same_training.csv and, where matplotlib is installed (the `report` extra), same_training.svg.
"""

import argparse
import csv
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.progress import track

from refgrad.models import gpt2
from refgrad.report.text import standard_library_ids

CONFIG = gpt2.Config()
BATCH, SEQUENCE = 8, 48


def train(steps: int, rules: str, optimizer: optax.GradientTransformation) -> tuple[gpt2.Params, list[float]]:
    """Train for `steps` steps by the named rules; returns the parameters and the loss before each step."""
    params = gpt2.init(jax.random.key(0), CONFIG)
    state = optimizer.init(params)
    tokens, targets = standard_library_ids(BATCH * 16, SEQUENCE)

    @jax.jit
    def step(params: gpt2.Params, state: optax.OptState, tokens: jax.Array, targets: jax.Array):
        loss = partial(gpt2.loss, tokens=tokens, targets=targets, config=CONFIG, rules=rules)
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for n in track(range(steps), f"{rules} rules", transient=True):
        batch = slice(n % 16 * BATCH, (n % 16 + 1) * BATCH)
        params, state, value = step(params, state, jnp.asarray(tokens[batch]), jnp.asarray(targets[batch]))
        losses.append(float(value))
    return params, losses


def draw(curves: dict[str, list[float]], path: Path) -> None:
    """The two loss curves, and below them the absolute difference on a logarithmic axis."""
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), height_ratios=(2, 1), layout="constrained")
    for (name, losses), style in zip(curves.items(), ("-", "--"), strict=True):
        top.plot(losses, style, label=f"{name} rules", linewidth=2)
    top.set_ylabel("loss (nats per byte)")
    top.legend(frameon=False)
    one, other = (np.array(losses) for losses in curves.values())
    bottom.semilogy(np.maximum(np.abs(one - other), 1e-9), color="black", linewidth=1)
    bottom.set_ylabel("difference (nats)")
    bottom.set_xlabel("step")
    figure.savefig(path)


def main() -> None:
    """Train twice, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("same_training"), help="path of the files, without suffix")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}, but must be at least 1")
    optimizer = optax.adamw(1e-3)
    runs = {rules: train(options.steps, rules, optimizer) for rules in ("document", "autodiff")}
    curves = {rules: losses for rules, (_, losses) in runs.items()}
    parameters = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(p)]) for p, _ in runs.values()]
    apart = np.linalg.norm(parameters[0] - parameters[1]) / np.linalg.norm(parameters[1])
    for rules, losses in curves.items():
        print(f"{rules:>8} rules: loss {losses[0]:.6f} → {losses[-1]:.6f} after {options.steps} steps")
    print(f"largest difference of the losses: {max(abs(a - b) for a, b in zip(*curves.values(), strict=True)):.1e}")
    print(f"parameters apart, relative to their norm: {apart:.1e}")
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *curves])
        writer.writerows([n, *pair] for n, pair in enumerate(zip(*curves.values(), strict=True)))
    try:
        draw(curves, options.out.with_suffix(".svg"))
    except ImportError:
        print("no picture: pip install -e '.[report]' brings matplotlib")


if __name__ == "__main__":
    main()
