"""Random bits. Threefry is counted as TPU and GPU run it, its twenty rounds one after the other; on CPU
JAX rolls them into a loop of five, which XLA counts once.
"""

import math

import jax
from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work, kind
from refgrad.jaxpr.avals import bits, dtype_of, size

ROUNDS = 117  # a pair of words: 20 rounds of add, two shifts, or, xor; 17 additions of the key
HALVES = {"fry": 1, "rbg": 2}  # threefry keys in a key
BLOCKS = 40  # words that unsafe_rbg draws for a new key
KEY = 2  # the third word of a key is the exclusive or of the other two and a constant


def threefry2x32(eqn: JaxprEqn) -> Work:
    """117 operations for each pair of words and 2 for each key."""
    return Work(elementwise=_threefry(size(eqn.outvars[0]), size(eqn.invars[0])))


def _threefry(pairs: int, keys: int) -> int:
    return ROUNDS * pairs + KEY * keys if pairs else 0


def _counters(shape: tuple[int, ...]) -> int:
    """Numbering the elements in two words: a product and a sum an axis of more than one, a sum."""
    axes = sum(n > 1 for n in shape)
    return (1 + 2 * axes if axes else 2 * bool(shape)) * math.prod(shape)


def random_bits(eqn: JaxprEqn) -> Work | None:
    """Threefry on the element's number and the two words joined; rbg: one block of the generator."""
    (key,), (out,) = eqn.invars, eqn.outvars
    shape, width, n, keys = eqn.params["shape"], eqn.params["bit_width"], size(out), size(key)
    if _implementation(key) in ("rbg", "urbg"):
        return _block(n, keys > 1, 2)
    if _implementation(key) != "fry" or not _partitionable():
        return None
    join = {64: 4, 32: 1}.get(width, 2)
    return Work(elementwise=_threefry(n, keys) + _counters(shape) + join * n)


def random_split(eqn: JaxprEqn) -> Work | None:
    """Threefry on the number of each new key, whose words are the key (rbg: two of them); unsafe_rbg: ten blocks."""
    (key,), (out,) = eqn.invars, eqn.outvars
    n, keys, name = size(out), size(key), _implementation(key)
    if name == "urbg":
        return _block(BLOCKS * n, keys > 1, 2)
    if name not in HALVES or not _partitionable():
        return None
    halves = HALVES[name]
    return Work(elementwise=_threefry(halves * n, halves * keys) + _counters(eqn.params["shape"]))


def random_fold_in(eqn: JaxprEqn) -> Work | None:
    """Threefry with the key on the data as a seed, whose upper word is 0; unsafe_rbg: ten blocks, joined to the key."""
    key, data = eqn.invars
    n, name = size(eqn.outvars[0]), _implementation(key)
    if name == "urbg":
        return _block(BLOCKS * size(data), size(data) > 1, 4 * n + 2 + _seed(data))
    if name not in HALVES:
        return None
    halves = HALVES[name]
    return Work(elementwise=_threefry(halves * n, halves * size(key)) + _seed(data))


def _block(words: int, batched: bool, more: int) -> Work:
    """The hardware's generator: one a word and two of its state; a batch of states is unpacked by 7 operations."""
    return Work(elementwise=7 * batched + more, transcendental=words + 2) if words else Work()


def random_seed(eqn: JaxprEqn) -> Work:
    """The two words of the seed."""
    return Work(elementwise=_seed(eqn.invars[0]))


def _seed(seed) -> int:
    """Conversions and shifts for the two words of each seed."""
    width, signed = bits(dtype_of(seed)), kind(seed) == "int"
    if width == 64:
        each = 4
    elif signed:
        each = 5 if jax.dtypes.canonicalize_dtype("int64").itemsize == 8 else {32: 3}.get(width, 4)
    else:
        each = 1 if width == 32 else 3
    return size(seed) * each


def _partitionable() -> bool:
    """Return True if each element's bits come from its own index: JAX's default, and the only form costed here."""
    return getattr(jax.config, "jax_threefry_partitionable", True)


def _implementation(key) -> str:
    """fry, rbg or urbg: the tag of the key's dtype."""
    return str(dtype_of(key)).removeprefix("key<").removesuffix(">")


def generator(eqn: JaxprEqn) -> Work:
    """The hardware's generator: one a word of the result and of its state, as XLA counts."""
    state, *_ = eqn.invars
    words = (bits(dtype_of(state)) * size(state)) // 64
    return Work(elementwise=6, transcendental=size(eqn.outvars[1]) + words)


def uniform(eqn: JaxprEqn) -> Work:
    """One an element, as XLA counts."""
    return Work(transcendental=size(eqn.outvars[0]))


def gamma(eqn: JaxprEqn) -> Work:
    """One trip of the rejection loops of Marsaglia and Tsang's method, threefry included."""
    n, log_space = size(eqn.outvars[0]), eqn.params["log_space"]
    return Work(elementwise=(1414 + 5 * log_space) * n + 23, transcendental=(8 + 2 * log_space) * n, per_trip=True)


RULES: dict[str, Rule] = {
    "threefry2x32": threefry2x32,
    "random_bits": random_bits,
    "random_split": random_split,
    "random_fold_in": random_fold_in,
    "random_seed": random_seed,
    "random_gamma": gamma,
    "rng_bit_generator": generator,
    "rng_uniform": uniform,
}
