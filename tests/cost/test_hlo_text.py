"""HLO text by hand: what the parser reads, and what each opcode costs. The figures are XLA's for the same text."""

import pytest

from refgrad.cost import hlo
from refgrad.cost.hlo.parse import HloSyntaxError, parse
from refgrad.cost.hlo.rules import UnknownInstruction
from refgrad.cost.hlo.walk import visit_order

FUNCTIONS = """HloModule t, num_partitions=4

sum {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT z = f32[] add(x, y)
}
exp_and_add {
  x = f32[] parameter(0)
  y = f32[] exponential(x)
  ROOT z = f32[] add(y, x)
}
both {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  u = f32[] parameter(2)
  v = f32[] parameter(3)
  z = f32[] add(x, u)
  w = f32[] multiply(y, v)
  ROOT t = (f32[], f32[]) tuple(z, w)
}
ge {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT z = pred[] compare(x, y), direction=GE
}
exp8 {
  x = f32[8] parameter(0)
  ROOT y = f32[8] exponential(x)
}
two8 {
  x = f32[8] parameter(0)
  y = f32[8] add(x, x)
  ROOT z = f32[8] multiply(y, x)
}
nothing8 {
  ROOT x = f32[8] parameter(0)
}
call8 {
  x = f32[8] parameter(0)
  ROOT y = f32[8] custom-call(x), custom_call_target="foo"
}
gathered {
  p = f32[8,3] parameter(0)
  i = s32[2,1] parameter(1)
  e = f32[8,3] add(p, p)
  ROOT g = f32[2,3] gather(e, i), offset_dims={1}, slice_sizes={1,3}
}
ENTRY main {
"""

P8 = "p = f32[8] parameter(0)\n"
WINDOWED = "p = f32[8,6] parameter(0)\n c = f32[] constant(0)\n ROOT r = f32[8,6] reduce-window(p, c), "
START = "s = ((f32[8]), f32[8], s32[])"
# name: (the entry's instructions, FLOPs, transcendentals), figures from XLA's own analysis of the same text
CASES = {
    "elementwise": (P8 + "a = f32[8] abs(p)\n ROOT r = f32[8] mulhi(a, p)", 16, 0),
    "transcendental": (P8 + "a = f32[8] acosh(p)\n ROOT r = f32[8] atan2(a, p)", 0, 16),
    "rng": (P8 + "ROOT r = f32[4,5] rng(p, p), distribution=rng_uniform", 0, 20),
    "rng bits": (
        "p = u64[2] parameter(0)\n ROOT r = (u64[2], u32[10]) rng-bit-generator(p), algorithm=rng_philox",
        0,
        12,
    ),
    "map": (P8 + "ROOT r = f32[8] map(p), dimensions={0}, to_apply=exp_and_add", 8, 8),
    "all-reduce": (P8 + "ROOT r = f32[8] all-reduce(p), replica_groups={}, to_apply=sum", 8, 0),
    "all-reduce, variadic": (
        P8 + "q = f32[9] parameter(1)\n ROOT r = (f32[8], f32[9]) all-reduce(p, q), replica_groups={}, to_apply=sum",
        17,
        0,
    ),
    "collectives that only move": (
        P8 + "a = f32[16] all-gather(p), dimensions={0}\n ROOT r = f32[4] reduce-scatter(a), to_apply=sum",
        0,
        0,
    ),
    "window, padded both sides": (WINDOWED + "window={size=3x1 pad=1_1x0_0}, to_apply=sum", 96, 0),
    "window over the whole dimension": (WINDOWED + "window={size=15x1 pad=7_7x0_0}, to_apply=sum", 13, 0),
    "select-and-scatter": (
        "p = f32[4,4] parameter(0)\n s = f32[2,2] parameter(1)\n c = f32[] constant(0)\n"
        "ROOT r = f32[4,4] select-and-scatter(p, s, c), window={size=2x2 stride=2x2}, select=ge, scatter=sum",
        16,
        0,
    ),
    "scatter of two": (
        P8 + "q = f32[8] parameter(1)\n i = s32[3,1] parameter(2)\n u = f32[3] parameter(3)\n v = f32[3] parameter(4)\n"
        "ROOT r = (f32[8], f32[8]) scatter(p, q, i, u, v), to_apply=both",
        6,
        0,
    ),
    "conditional of three": (
        P8 + "i = s32[] parameter(1)\n"
        "ROOT r = f32[8] conditional(i, p, p, p), branch_computations={exp8, two8, nothing8}",
        16,
        8,
    ),
    "a −1 in the first branch stays": (
        P8 + "i = pred[] parameter(1)\n"
        "ROOT r = f32[8] conditional(i, p, p), true_computation=call8, false_computation=nothing8",
        -1,
        0,
    ),
    "a −1 in a later branch does not": (
        P8 + "i = pred[] parameter(1)\n"
        "ROOT r = f32[8] conditional(i, p, p), true_computation=nothing8, false_computation=call8",
        0,
        0,
    ),
    "memory reserved, as XLA:TPU does": (
        P8 + 'a = f32[8] custom-call(), custom_call_target="AllocateBuffer"\n ROOT r = f32[8] add(a, p)',
        8,
        0,
    ),
    "custom fusion is its gather": (
        "p = f32[8,3] parameter(0)\n i = s32[2,1] parameter(1)\n"
        "ROOT r = f32[2,3] fusion(p, i), kind=kCustom, calls=gathered",
        0,
        0,
    ),
    "loop fusion is its instructions": (
        "p = f32[8,3] parameter(0)\n i = s32[2,1] parameter(1)\n"
        "ROOT r = f32[2,3] fusion(p, i), kind=kLoop, calls=gathered",
        24,
        0,
    ),
    "asynchronous, printed in short": (
        P8 + START + " multiply-start(p)\n ROOT r = f32[8] multiply-done(s)",
        8,
        0,
    ),
    "asynchronous call": (P8 + START + " call-start(p), to_apply=two8\n ROOT r = f32[8] call-done(s)", 16, 0),
    "dynamic dimension counts its bound": ("p = f32[<=8] parameter(0)\n ROOT r = f32[<=8] add(p, p)", 8, 0),
    "sort of one": ("p = f32[1] parameter(0)\n ROOT r = f32[1] sort(p), dimensions={0}, to_apply=ge", 0, 0),
    "fft": ("p = c64[3,12] parameter(0)\n ROOT r = c64[3,12] fft(p), fft_type=FFT, fft_length={12}", 864, 0),
    "dot of scaled operands": (
        "p = f8e4m3fn[8,32] parameter(0)\n q = f8e4m3fn[4,32] parameter(1)\n s = f8e8m0fnu[8,1] parameter(2)\n"
        "t = f8e8m0fnu[4,1] parameter(3)\n"
        "ROOT r = f32[8,4] scaled-dot(p, q, s, t), lhs_contracting_dims={1}, rhs_contracting_dims={1}",
        2048,
        0,
    ),
    "ragged dot": (
        "p = f32[8,5] parameter(0)\n q = f32[3,5,6] parameter(1)\n g = s32[3] parameter(2)\n"
        "ROOT s = f32[8,6] ragged-dot(p, q, g), lhs_contracting_dims={1}, rhs_contracting_dims={1}, "
        "lhs_ragged_dims={0}, rhs_group_dims={0}",
        60,
        0,
    ),
    "ragged dot, contracted over the groups": (
        "p = f32[8,5] parameter(0)\n q = f32[8,6] parameter(1)\n g = s32[3] parameter(2)\n"
        "ROOT s = f32[3,5,6] ragged-dot(p, q, g), lhs_contracting_dims={0}, rhs_contracting_dims={0}, "
        "lhs_ragged_dims={0}",
        1440,
        0,
    ),
    "convolution without space": (
        "p = f32[4,3] parameter(0)\n w = f32[3,6] parameter(1)\n"
        "ROOT r = f32[4,6] convolution(p, w), dim_labels=bf_io->bf",
        144,
        0,
    ),
}


def module(entry: str) -> str:
    return f"{FUNCTIONS}{entry}\n}}\n"


@pytest.mark.parametrize("name", CASES)
def test_cost_of_an_opcode(name):
    entry, flops, transcendentals = CASES[name]
    cost = hlo.cost(module(entry))
    assert (cost.flops, cost.transcendentals) == (flops, transcendentals) == cost.replayed


def test_a_dead_instruction_is_added_first_and_control_predecessors_last():
    """4 + 2²⁵ + 2 in XLA's order; another order would round differently."""
    big = "p = f32[8388609,2] parameter(0)\n y = f32[3] parameter(1)\n"
    dead = big + "z = f32[8388609,2] add(p, p)\n x = f32[3] add(y, y)\n ROOT r = f32[8388609,2] multiply(p, p)"
    assert hlo.cost(module(dead)).replayed == (33554440, 0)
    control = (
        big + "x = f32[3] add(y, y)\n r = f32[8388609,2] multiply(p, p), control-predecessors={x}\n"
        "ROOT t = (f32[3], f32[8388609,2]) tuple(x, r)"
    )
    assert hlo.cost(module(control)).replayed == (16777220, 0)
    order = visit_order(parse(module(dead)).computations["main"])
    assert order.index("z") < order.index("x") < order.index("r")


def test_what_is_unknown_is_named():
    text = module(P8 + "ROOT r = f32[8] frobnicate(p)")
    with pytest.raises(UnknownInstruction, match=r"'frobnicate' \(instruction 'r' of computation 'main'\)"):
        hlo.cost(text)
    assert hlo.cost(text, unknown="collect").unknown == ("frobnicate (r)",)


def test_a_changed_shape_changes_the_cost():
    """Planted: one more column in the text is eight FLOPs more."""
    text = module("p = f32[8,3] parameter(0)\n ROOT r = f32[8,3] add(p, p)")
    assert hlo.cost(text.replace("f32[8,3] add", "f32[8,4] add")).flops == hlo.cost(text).flops + 8


def test_the_parser_reads_what_hlo_prints():
    line = (
        "ROOT %r.1 = (f32[8]{0:T(8,128)}, (s32[], pred[2,3]{1,0})) custom-call(f32[8]{0} %a, /*index=1*/%b), "
        'custom_call_target="weird, {\\"}", '
        'metadata={op_type="x" op_name="jit(f)/a{b}, \\"c\\"/tanh" stack_frame_id=1}, '
        'window={size=3x3 pad=0_1x0_0}, backend_config={"known":{"n":"8"}}'
    )
    text = f"HloModule m\n\nENTRY %main (p: f32[8]) -> (f32[8], (s32[], pred[2,3])) {{\n  {line}\n}}\n"
    module_ = parse(text)
    (instruction,) = module_.computations[module_.entry].instructions.values()
    assert instruction.name == "r.1" and instruction.opcode == "custom-call"
    assert instruction.operands == ("a", "b")
    assert [leaf.dims for leaf in instruction.shape.leaves()] == [(8,), (), (2, 3)]
    assert instruction.attribute("custom_call_target") == 'weird, {\\"}'
    assert instruction.op_name == 'jit(f)/a{b}, "c"/tanh'
    assert instruction.attribute("window") == "size=3x3 pad=0_1x0_0"
    assert instruction.attribute("absent") is None
    assert parse(module(P8 + "ROOT r = f32[8] add(p, p)")).partitions == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("module @jit_f { func.func public @main() }", "no ENTRY"),
        (module("this is not an instruction"), "not an HLO instruction"),
        (module("r = f32[8"), "no shape"),
        (module("r = f32[8] add(p, p"), "never closed"),
    ],
)
def test_text_that_is_not_hlo(text, says):
    with pytest.raises(HloSyntaxError, match=says):
        parse(text)
