"""A function and its arguments from text: what is found, what is drawn, and what bad input says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad import cost, verify
from refgrad.cli import main
from refgrad.cli.target import arguments, bind, dimensions, load, sized_arguments
from refgrad.verify.arguments import DTYPES, needs_x64
from refgrad.verify.draws import values

SOURCE = """
import dataclasses
import sibling

@dataclasses.dataclass
class Layers:
    n: int

    @staticmethod
    def double(x):
        return x + x

def scaled(x, factor):
    return sibling.FACTOR * factor * x

CONSTANT = 3
"""


@pytest.fixture
def module(tmp_path):
    """A module with a neighbour that it imports."""
    (tmp_path / "sibling.py").write_text("FACTOR = 2.0\n")
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_loads_a_function_and_an_attribute_of_a_class(module):
    assert load(f"{module}:scaled")(3.0, 2.0) == 12.0
    assert load(f"{module}:Layers.double")(3) == 6


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("{}", ValueError, "write path/to/module.py:function"),
        ("{}:", ValueError, "write path/to/module.py:function"),
        ("{}:scald", ValueError, r"mine\.py has no 'scald': did you mean scaled\?"),
        ("{}:Layers.twice", ValueError, r"mine\.py\.Layers has no 'twice': it has double"),
        ("{}:CONSTANT", ValueError, "is int 3, but must be a function"),
        ("missing.py:f", FileNotFoundError, r"missing\.py: no such file"),
    ],
)
def test_bad_targets_are_named(module, name, error, message):
    with pytest.raises(error, match=message):
        load(name.format(module))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ny = 1 / 0\n", r"broken\.py:2 in <module>: ZeroDivisionError: division by zero"),
        ("def f(:\n", r"broken\.py:1: SyntaxError"),
        ("raise SystemExit(3)\n", r"broken\.py:1 in <module>: SystemExit: 3"),
        ("import no_such_module_at_all\n", r"broken\.py:1 in <module>: ModuleNotFoundError"),
    ],
)
def test_the_modules_own_exception_in_one_line(tmp_path, source, message):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=message):
        load(f"{path}:f")


def test_arguments():
    a, x, ids, scalar, three, flag, text, pair = arguments("f32[4,8] x:bf16[8] i32[3]<100 f32[] 3 True 'a b' (1, 2)")
    assert [(v.shape, str(v.dtype), v.name, v.below) for v in (a, x, ids, scalar)] == [
        ((4, 8), "float32", "", None),
        ((8,), "bfloat16", "x", None),
        ((3,), "int32", "", 100),
        ((), "float32", "", None),
    ]
    assert (three, flag, text, pair) == (3, True, "a b", (1, 2))
    assert arguments("  ") == ()
    assert [str(v.dtype) for v in arguments(" ".join(f"{short}[2]" for short in DTYPES))] == list(DTYPES.values())


def test_trees():
    """Any tree of literals that Python can read, with arrays in it."""
    given = """{"w": f32[3,b], 'b[2]': [i8[b]<n, "f32[9]", None]} (f8e4m3fn[2], 3) [] x:i4[b]"""
    assert dimensions(given) == ("b", "n")
    tree, pair, empty, ids = sized_arguments(given, "b=4 n=7")
    assert tree["w"].shape == (3, 4) and tree["b[2]"][0].below == 7 and tree["b[2]"][1:] == ["f32[9]", None]
    assert (str(pair[0].dtype), pair[1], empty, str(ids.dtype), ids.name) == ("float8_e4m3fn", 3, [], "int4", "x")
    drawn = values((tree, pair, empty, ids), 0)
    assert drawn[0]["w"].shape == (3, 4) and drawn[1][0].dtype == pair[0].dtype and drawn[2] == []


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("b=0", "--sizes: 'b=0' must be name=size, a positive integer"),
        ("b", "--sizes: 'b' must be name=size"),
        ("b=2,z=3", "--args have no dimension 'z', only b"),
        (None, "the size of b is not given: add --sizes b=2"),
    ],
)
def test_bad_sizes_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        sized_arguments("f32[b]", sizes)


def test_absurd_sizes_are_refused_before_anything_is_drawn():
    with pytest.raises(ValueError, match="too large to be checked here: all arrays have 99,999,999,999 entries"):
        values(arguments("f32[99999999999]"), 0)
    assert cost.count(jnp.sin, *arguments("f32[99999999999]")).transcendental == 99_999_999_999


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f32[4 8]", r"shape \[4 8\], but lengths are integers"),
        ("f32[-1]", r"shape \[-1\]"),
        ("f33[4]", "dtype 'f33', but known are f16"),
        ("f32[4", "'f32\\[4' is not closed"),
        ("'open", "is not closed"),
        ("x", "'x' is not an argument: write arrays such as"),
        ("f32", "'f32' is not an argument"),
        ("f32[4]<three", "no f32 lies within these bounds"),
        ("f32[4]>1<1", "no f32 lies within these bounds"),
        ("f32[4]>nan", "no f32 lies within these bounds"),
        ("c64[4]>0", "no c64 lies within these bounds"),
        ("bool[4]<1", "no bool lies within these bounds"),
        ("i32[4]<0", "the bound of an integer array is a positive integer"),
        ("i8[4]<129", "no i8 lies within these bounds"),
        ("i32[4]>3<4", "no i32 lies within these bounds"),
        ("f32[9999999999,9999999999]", "has more entries than any array can have"),
        ("f32[4²]", r"shape \[4²\]"),
        ("f32[b,4] i32[b]<v", "names dimensions without a size: b, v"),
        ('{"w": f32[b,4], "i": i32[v]}', "names dimensions without a size: b, v"),
        ('{"w": f33[4]}', "dtype 'f33', but known are f16"),
        ('{"w": f32[4], b: 3}', "is not an argument"),
        ("[f32[4]>1<1]", "'f32\\[4\\]>1<1': no f32 lies within these bounds"),
        ("(i32[4]<0, 1)", "the bound of an integer array is a positive integer"),
    ],
)
def test_bad_arguments_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        arguments(text)


def test_values_are_of_their_type_and_repeat(x64):
    specs = arguments("f64[50] bf16[3] c64[2] i32[200]<5 u8[200] bool[200] 0.5")
    drawn = values(specs, 1)
    for spec, value in zip(specs[:-1], drawn[:-1], strict=True):
        assert (value.shape, value.dtype) == (spec.shape, spec.dtype)
    assert set(np.unique(drawn[3])) == set(range(5))
    assert set(np.unique(drawn[4])) == {0, 1} and set(np.unique(drawn[5])) == {False, True}
    assert np.std(drawn[0]) > 0.5 and drawn[-1] == 0.5
    for first, again in zip(drawn, values(specs, 1), strict=True):
        assert np.array_equal(first, again)
    assert not np.array_equal(drawn[0], values(specs, 2)[0])


def test_the_instruments_take_them():
    f, specs, _ = bind(lambda x, n, y: x * float(n) + y, arguments("f32[4] 3 f32[4]"))
    assert cost.count(f, *specs).flops == 8
    assert jax.eval_shape(f, *specs).shape == (4,)
    g, drawn, chosen = bind(jnp.dot, values(arguments("f32[3,4] f32[4]"), 0), (-1,))
    assert g is jnp.dot and chosen == (1,) and verify.check(g, *drawn).ok


def test_64_bits_are_seen():
    assert needs_x64(arguments("f32[2] i64[3]")) and not needs_x64(arguments("f32[2] 3 c64[1]"))


MEANT = """
import jax, jax.numpy as jnp

def rule(forward, backward):
    f = jax.custom_vjp(forward)
    f.defvjp(lambda *args: (forward(*args), args), backward)
    return f

quantized = rule(lambda x, w, scale=1.0: jnp.round(x * scale) @ w,
                 lambda r, g: (g @ r[1].T * r[2], jnp.round(r[0] * r[2]).T @ g, jnp.zeros_like(r[2])))
rounded = rule(lambda x: jnp.round(x), lambda r, g: (g,))
identity = lambda x: x
passed = lambda g, x: (g,)
"""


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("rounded", [], 1),
        ("rounded", ["--intent", "straight_through"], 0),
        ("rounded", ["--intent=reversal(1)"], 1),
        ("rounded", ["--reference", "{}:identity"], 0),
        ("rounded", ["--reference-vjp", "{}:passed"], 0),
        ("rounded", ["--intent", "straight_through", "--seconds", "1e-9"], 1),
        ("quantized", ["--args", "f32[3,4] f32[4,2]", "--kwargs", "scale=2.0", "--argnums", "1"], 0),
    ],
)
def test_what_a_rule_means_can_be_said_in_the_shell(tmp_path, capsys, name, options, code):
    file = tmp_path / "meant.py"
    file.write_text(MEANT)
    options = [option.format(file) for option in options]
    assert main(["verify", f"{file}:{name}", "--args", "f32[3,4]", "--no-sweep", *options]) == code
    out = capsys.readouterr().out
    assert ("partial" in out) == ("--seconds" in options) and max(map(len, out.splitlines())) <= 100 + len(str(file))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kwargs", "True"], "--kwargs: 'True' must be name=value"),
        (["--argnums", "one"], "--argnums one: write positions such as 0 or 0,2"),
        (["--argnums", "7"], "argnums holds 7, but there are 1 positional arguments"),
        (["--intent", "clip"], "--intent clip"),
        (["--intent", "clip(2, 1)"], "the first bound must not be above the second"),
        (["--intent", "__import__('os')"], "write straight_through, stop"),
        (["--tolerance", "7"], "tolerance is 7.0, but must be above 0 and below 1"),
        (["--seconds", "0"], "seconds is 0.0, but must be above 0"),
        (["--prove", "--tolerance", "1e-3"], "--tolerance has no meaning with --prove"),
    ],
)
def test_bad_options_of_a_check_are_named(tmp_path, capsys, options, said):
    file = tmp_path / "meant.py"
    file.write_text(MEANT)
    assert main(["verify", f"{file}:rounded", "--args", "f32[3,4]", *options]) == 2
    assert said in capsys.readouterr().err


def test_values_lie_within_their_bounds():
    text = "f32[500]>0 bf16[500]>1000 f32[500]<-2 bf16[500]>0<1 i32[500]>4<7"
    positive, large, below, unit, whole = (np.asarray(x, np.float64) for x in values(arguments(text), 0))
    assert (positive > 0).all() and (large > 1000).all() and (below < -2).all()
    assert ((unit > 0) & (unit < 1)).all() and set(whole) == {5, 6}
