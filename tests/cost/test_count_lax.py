"""Every public function of `jax.lax` and `jax.lax.linalg`: it counts, and as XLA does where XLA is right."""

import inspect

import jax
import pytest
from jax import lax

from refgrad.cost import count
from tests.cost.lax_samples import FAMILIES

CASES = {f"{family}-{name}": row for family, rows in FAMILIES.items() for name, row in rows.items()}

# Not programs on arrays, or no program of their own: shapes, types and layouts; a pair of point-to-point
# messages that JAX lowers for GPU alone, until 0.12; values that exist only while tracing.
NOT_COUNTED = {
    "broadcast_shapes": "shapes to a shape",
    "conv_dimension_numbers": "a layout",
    "conv_general_permutations": "a layout",
    "conv_general_shape_tuple": "shapes to a shape",
    "conv_shape_tuple": "shapes to a shape",
    "conv_transpose_shape_tuple": "shapes to a shape",
    "padtype_to_pads": "shapes to a padding",
    "reduce_window_shape_tuple": "shapes to a shape",
    "dtype": "a dtype",
    "shape_as_value": "a shape, abstract only in exported programs",
    "stage": "the identity on values outside a trace",
    "psend": "point-to-point, GPU only",
    "precv": "point-to-point, GPU only",
}

LOOPS = "XLA counts a loop's body once, and the loop's own counter"
CUSTOM_CALL = "XLA counts −1 for a custom call"
SHARDS = "XLA counts one device, and nothing for a reduce-scatter"
FOLDED = "XLA folds a constant while lowering"
MOVING = (
    "all_gather",
    "all_to_all",
    "ppermute",
    "pshuffle",
    "pswapaxes",
    "ragged_all_to_all",
    "with_sharding_constraint",
)
DIFFERENT = {
    "elementwise-random_gamma_grad": FOLDED,
    "dots-ragged_dot": "XLA's CPU lowering multiplies with every group's matrix",
    "dots-ragged_dot_general": "XLA's CPU lowering multiplies with every group's matrix",
    "dots-conv_general_dilated_patches": FOLDED,
    "dots-conv_general_dilated_local": FOLDED,
    "control-scan": LOOPS,
    "control-map": LOOPS,
    "control-fori_loop": LOOPS,
    **{f"collectives-{name}": SHARDS for name in FAMILIES["collectives"] if name not in MOVING},
    **{f"linalg-{name}": CUSTOM_CALL for name in FAMILIES["linalg"] if name != "symmetric_product"},
}


def public_functions():
    """Names of the public functions of jax.lax and of jax.lax.linalg, without types and primitives."""
    return {
        name
        for module in (lax, lax.linalg)
        for name, value in vars(module).items()
        if inspect.isroutine(value) or isinstance(value, type(jax.jit(abs)))
        if not name.startswith("_") and not name.endswith("_p")
    }


def test_at_least_95_percent_of_lax_counts():
    sampled = {name for rows in FAMILIES.values() for name in rows}
    assert public_functions() <= sampled | NOT_COUNTED.keys(), "new in jax.lax: add a sample call"
    counted = {name for rows in FAMILIES.values() for name, (f, *args) in rows.items() if count(f, *args)}
    on_arrays = public_functions() - {name for name, why in NOT_COUNTED.items() if "GPU" not in why}
    assert len(counted & on_arrays) / len(on_arrays) >= 0.95


@pytest.mark.parametrize("case", [case for case in CASES if case not in DIFFERENT])
def test_equals_xla(case, lowered):
    f, *args = CASES[case]
    cost = count(f, *args)
    assert (cost.flops, cost.transcendental) == lowered(f, *args)


@pytest.mark.parametrize("case", DIFFERENT)
def test_difference_from_xla_is_real(case, lowered):
    """An entry of the list of differences that is none would hide the next difference."""
    if case == "collectives-pbroadcast":  # JAX lowers it for GPU alone
        return
    f, *args = CASES[case]
    cost = count(f, *args)
    assert (cost.flops, cost.transcendental) != lowered(f, *args), DIFFERENT[case]


@pytest.mark.parametrize("name", [name for name in FAMILIES["collectives"] if name != "pbroadcast"])
def test_one_device_of_a_collective_equals_xla(name, lowered):
    """But for a reduce-scatter, which XLA leaves at 0, and at −1 for each of the two custom calls of one apart."""
    f, *args = FAMILIES["collectives"][name]
    flops, transcendental = lowered(f, *args)
    uncounted = {"psum_scatter": 18, "psum_scatter_start": 18 + 2}.get(name, 0)  # 8·12/4 elements in, 6 out
    assert (count(f, *args).once.flops, 0) == (flops + uncounted, transcendental)
