"""The documents' small networks in one table, each at the sizes its document gives or at small ones, none square.

`NETWORKS` maps a name to its network: what `refgrad verify` checks and prices beside the operations and GPT-2.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.models import binary_classifier, linear_classifier, linear_network, mlp, one_hidden_layer, rnn
from refgrad.ops import OpCost


@dataclasses.dataclass(frozen=True)
class Network:
    """A loss of (params, x) or (params, x, targets) that takes `rules`, and an example of it.

    `init` makes the parameters from a key; `x` is the inputs' shape; `targets` is the shape of targets drawn from a
    normal, or the number of classes whose ids they are, or None. `exact` is the cost of the loss and of its gradients
    by params and x, from the rows of its operations, in symbols whose values are `sizes`.
    """

    source: str
    loss: Callable[..., Array]
    init: Callable[[Array], dict[str, Array]]
    x: tuple[int, ...]
    targets: tuple[int, int] | int | None
    exact: Mapping[str, OpCost]
    sizes: Mapping[str, int]

    def arguments(self, dtype: Any) -> tuple[Any, ...]:
        """Parameters of `init`'s shapes (biases not zero either), inputs and targets, the same at every call."""
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        params = {name: rng.standard_normal(leaf.shape) / leaf.shape[0] ** 0.5 for name, leaf in shapes.items()}
        args = [params, rng.standard_normal(self.x)]
        if isinstance(self.targets, tuple):
            args.append(rng.standard_normal(self.targets))
        args = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), args)
        if isinstance(self.targets, int):
            args.append(jnp.asarray(rng.integers(0, self.targets, self.x[:1]), jnp.int32))
        return tuple(args)


def _mlp(source: str, batch: int, sizes: tuple[int, ...], activation: str, bias: bool) -> Network:
    return Network(
        source,
        partial(mlp.loss, activation=activation),
        partial(mlp.init, sizes=sizes, bias=bias),
        (batch, sizes[0]),
        (batch, sizes[-1]),
        mlp.exact(sizes, activation, bias),
        {"B": batch},
    )


def _absorbed(key: Array) -> dict[str, Array]:
    """A linear classifier of 4 inputs and 3 classes, its bias absorbed."""
    return linear_classifier.absorb_bias(linear_classifier.init(key, width=4, classes=3))


def _absorbed_loss(params: dict[str, Array], x: Array, targets: Array, rules: str = "derived") -> Array:
    """The loss of x (B, 4) and a constant input 1."""
    return linear_classifier.loss(params, linear_classifier.append_one(x), targets, 0.1, rules=rules)


NETWORKS: Mapping[str, Network] = {
    "linear network": Network(
        "D0.2",
        linear_network.loss,
        partial(linear_network.init, width=6, classes=3),
        (4, 6),
        None,
        linear_network.exact(True),
        {"B": 4, "D": 6, "C": 3},
    ),
    "one hidden layer": Network(
        "D1.1",
        partial(one_hidden_layer.loss, activation="relu"),
        partial(one_hidden_layer.init, inputs=3, hidden=4, outputs=1),
        (2, 3),
        (2, 1),
        one_hidden_layer.exact("relu"),
        {"B": 2, "D": 3, "h": 4, "C": 1},
    ),
    "two layers": _mlp("D3.1", 6, (5, 4, 3), "relu", False),
    "three layers, ReLU": _mlp("D3.1", 4, (5, 4, 6, 3), "relu", False),
    "three layers, sigmoid": _mlp("D3.4", 5, (3, 4, 4, 1), "sigmoid", True),
    "the 20 lines": _mlp("D3.5", 64, (1000, 100, 10), "sigmoid", False),
    "linear classifier": Network(
        "D3.16",
        partial(linear_classifier.loss, strength=0.1),
        partial(linear_classifier.init, width=5, classes=3),
        (6, 5),
        3,
        linear_classifier.exact(),
        {"B": 6, "D": 5, "C": 3},
    ),
    "absorbed bias": Network(
        "D3.15", _absorbed_loss, _absorbed, (6, 4), 3, linear_classifier.exact(bias=False), {"B": 6, "D": 5, "C": 3}
    ),
    "recurrent network": Network(
        "D1.21",
        rnn.loss,
        partial(rnn.init, inputs=3, hidden=4, outputs=2, radius=0.9),
        (2, 5, 3),
        (2, 2),
        rnn.exact(),
        {"B": 2, "s": 5, "i": 3, "h": 4, "o": 2},
    ),
    "binary classifier": Network(
        "D4.1",
        binary_classifier.loss,
        binary_classifier.init,
        (5, 2),
        2,
        binary_classifier.exact(),
        {"B": 5, "D": 2, "h": 3},
    ),
}
