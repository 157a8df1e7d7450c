"""The activation functions of D1 and D3 by name, as a network's hidden layers apply them."""

from collections.abc import Callable, Mapping

from jax import Array

from refgrad._text import nearest
from refgrad.ops import operations

# name → its constants: leaky ReLU's slope below zero and ELU's α, which the documents leave open
ACTIVATIONS: Mapping[str, tuple[float, ...]] = {
    "relu": (),
    "leaky_relu": (0.01,),
    "sigmoid": (),
    "tanh": (),
    "elu": (1.0,),
    "silu": (),
    "gelu": (),
    "gelu_erf": (),
}


def activation(name: str, rules: str) -> Callable[[Array], Array]:
    """The activation of that name under a set of rules, element by element. Raises ValueError for any other name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}: {nearest(name, ACTIVATIONS)}")
    op = getattr(operations(rules), name)
    return lambda x: op(x, *ACTIVATIONS[name])
