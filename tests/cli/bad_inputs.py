"""More than 300 bad inputs by kind, as command lines: each ends with exit code 2 (or 1) and one line that says why.

`python tests/cli/bad_inputs.py` tries them all; `test_bad_inputs.py` does, in the slow lane, and a few in the fast one.
A kind is a function that yields `Bad`s; `{}` in a word stands for the folder that `files` fills.
"""

import contextlib
import io
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SECONDS = 120  # after which a command hangs
LINE = 1_000  # characters of a message
OURS = re.compile(r"Traceback|(?:subject|case|check|sizes|programs|reconcile|count)\.py|diff\[\d|<class '|Errno")
FUNCTIONS = """
import functools, os, sys
import jax, jax.numpy as jnp, numpy as np

def rule(forward, backward=None, residuals=lambda *a: a):
    f = jax.custom_vjp(forward)
    if backward: f.defvjp(lambda *a: (forward(*a), residuals(*a)), backward)
    return f

@jax.custom_vjp
def undefined(x):
    return jnp.sin(x)

@jax.custom_jvp
def undefined_jvp(x):
    return jnp.sin(x)

def calls_undefined(x):
    return undefined(x) * 2

def helper(x):
    raise ValueError("not like this\\nsecond line")

def raises(x): return helper(x)
def key_error(x): return {}["a"]
def zero_division(x): return x / (1 // 0)
def attribute(x): return x.no_such_thing
def index(x): return [][3]
def name(x): return no_such_name
def assertion(x): assert x is None
def recursion(x): return recursion(x)
def stop(x): raise StopIteration
def own(x):
    class Mine(Exception): pass
    raise Mine("mine")
def long_message(x): raise ValueError("y" * 100_000)
def exits(x): sys.exit(0)
def exits_one(x): raise SystemExit("bye")
def shapes(x): return x @ jnp.ones((7, 2))
def branch(x): return x if x.sum() > 0 else -x
def loops(x):
    while x.sum() > 1: x = x / 2
    return x
def to_float(x): return jnp.asarray(float(x.sum()))
def to_int(x): return x[: int(x.sum())]
def numpy(x): return np.sin(x)
def item(x): return x.sum().item()
def mask(x): return x[x > 0]
def text(x): return "text"
def bytes_(x): return b"x"
class Model:
    def __init__(self, x): self.x = x
async def coroutine(x): return x
def generator(x): yield x
def function(x): return lambda: x
def objects(x): return {"a": x, "b": object()}
def nothing(x): return None
def empty(x): return ()
def constant(x): return jnp.ones(3)
def integers(x): return jnp.arange(3)
def unused(x): return jnp.zeros_like(x)
constant_rule = rule(lambda x: jnp.ones(3), lambda r, g: (jnp.zeros_like(r[0]),))
def random(x): return x * np.random.default_rng().normal()
random_rule = rule(lambda x: x * x, lambda r, g: (g * 2 * r[0] * (1 + np.random.default_rng().uniform(0.1, 1)),))
def undefined_here(x): return jnp.sum(jnp.arccos(x + 10))
wrong = rule(lambda x: x**3, lambda r, g: (2.9 * g * r[0] ** 2,))
negative = rule(lambda x: jnp.sin(x), lambda r, g: (-g * jnp.cos(r[0]),))
few = rule(lambda x, y: x * y, lambda r, g: (g * r[1],))
many = rule(lambda x: x * x, lambda r, g: (2 * g * r[0], g))
shape = rule(lambda x: jnp.sum(x * x), lambda r, g: (2 * g,))
none = rule(lambda x: x * x, lambda r, g: None)
throws = rule(lambda x: x * x, lambda r, g: helper(g))
def two(x, y): return x * y
def fine(x): return x * 2
NUMBER = 3
"""
LINE_OF_HELPER = next(n for n, line in enumerate(FUNCTIONS.splitlines(), 1) if "not like this" in line)
MODULES = {
    "syntax.py": "def f(:\n    pass\n",
    "indent.py": "def f(x):\nreturn x\n",
    "nul.py": "x = '\0'\n",
    "zero.py": "a = 1\nb = a / 0\n",
    "importing.py": "import no_such_module_anywhere\n",
    "relative.py": "from . import other\n",
    "exiting.py": "import sys\nsys.exit(0)\n",
    "asserting.py": "assert False, 'no'\n",
    "neighbour.py": "import zero\n",
    "blank.py": "",
    "text.txt": "def f(x): return x\n",
}


class Bad(NamedTuple):
    """A command line, the exit codes that are right, and words that its message (or its verdict) holds."""

    words: list[str]
    says: str = ""
    codes: tuple[int, ...] = (2,)


def files(folder: Path) -> None:
    """Write what the command lines name."""
    (folder / "bad.py").write_text(FUNCTIONS)
    for name, source in MODULES.items():
        (folder / name).write_text(source)
    (folder / "latin.py").write_bytes(b"x = '\xe9'\n")
    (folder / "folder.py").mkdir()
    (folder / "broken.toml").write_text("[model\n")
    (folder / "binary.toml").write_bytes(bytes(range(256)))
    (folder / "outside.toml").write_text("n_layer = 3\n")
    (folder / "section.toml").write_text("[modle]\nn_layer = 3\n")
    (folder / "deep.toml").write_text("x = " + "[" * 100_000 + "]" * 100_000)
    (folder / "key.toml").write_text("[model]\nn_lyer = 3\n")
    (folder / "type.toml").write_text("[model]\nn_layer = 'three'\n")


RAISES = {
    "raises": f"bad.py:{LINE_OF_HELPER} in helper: ValueError: not like this second line",
    "key_error": "in key_error: KeyError",
    "zero_division": "in zero_division: ZeroDivisionError",
    "attribute": "in attribute: AttributeError",
    "index": "in index: IndexError",
    "name": "in name: NameError",
    "assertion": "in assertion: AssertionError",
    "recursion": "in recursion: RecursionError",
    "stop": "in stop: StopIteration",
    "own": "in own: Mine: mine",
    "long_message": "characters left out",
    "exits": "in exits: SystemExit",
    "exits_one": "SystemExit: bye",
    "shapes": "in shapes: ",
    "branch": "write jnp.where or jax.lax.cond",
    "loops": "write jnp.where or jax.lax.cond",
    "to_float": "leave out float()",
    "to_int": "leave out float()",
    "numpy": "jnp for NumPy",
    "item": "leave out float()",
    "mask": "in mask: ",
    "undefined": "undefined is decorated, but has no rule yet: call undefined.defvjp",
    "undefined_jvp": "has no rule yet: call undefined_jvp.defjvp",
    "calls_undefined": "in calls_undefined: undefined is decorated, but has no rule yet",
    "two": "missing 1 required positional argument: 'y'",
}
RESULTS = {
    "text": "type str",
    "bytes_": "type bytes",
    "Model": "is a class",
    "coroutine": "is an async function",
    "generator": "is a generator",
    "function": "type function",
    "objects": "type object",
}
EMPTY = {
    "nothing": "it returns no floating-point or complex array",
    "empty": "it returns no floating-point or complex array",
    "integers": "it returns no floating-point or complex array",
    "constant": "no output depends on x",
    "constant_rule": "no output depends on x",
    "unused": "no output depends on x",
    "undefined_here": "its value is NaN at 1 of 1 entries",
}
WRONG = {
    "random": "it is not deterministic",
    "random_rule": "it is not deterministic",
    "wrong": "0.966667 times the gradient",
    "negative": "the negative of the gradient",
    "many": "_bwd must return one cotangent per argument",
    "shape": "_bwd returns",
    "none": "WRONG",
    "throws": "not like this",
}


def functions() -> Iterator[Bad]:
    """Functions that raise, return what is not an array, have nothing to check, or a wrong rule."""
    for name, says in RAISES.items():
        yield Bad(["verify", f"{{}}/bad.py:{name}", "--args", "f32[3]", "--no-sweep"], says)
        yield Bad(["cost", f"{{}}/bad.py:{name}", "--args", "f32[3]"], says)
    for name, says in RESULTS.items():
        yield Bad(["verify", f"{{}}/bad.py:{name}", "--args", "f32[3]"], says)
        yield Bad(["cost", f"{{}}/bad.py:{name}", "--args", "f32[3]"], says)
    for name, says in EMPTY.items():
        yield Bad(["verify", f"{{}}/bad.py:{name}", "--args", "f32[3]"], says, (1,))
    for name, says in WRONG.items():
        yield Bad(["verify", f"{{}}/bad.py:{name}", "--args", "f32[3]", "--no-sweep"], says, (1,))
    yield Bad(["verify", "{}/bad.py:few", "--args", "f32[3] f32[3]"], "one cotangent per argument", (1,))
    for shape in ("f32[0]", "f32[0,3]", "f32[3,0]"):
        yield Bad(["verify", "{}/bad.py:fine", "--args", shape], "every floating argument has size 0", (1,))


def modules() -> Iterator[Bad]:
    """Files that cannot be imported, and names that are not there."""
    for command in ("verify", "cost"):
        for name, says in {
            "syntax.py": "syntax.py:1: SyntaxError",
            "indent.py": "indent.py:2: IndentationError",
            "nul.py": "",
            "latin.py": "",
            "zero.py": "zero.py:2 in <module>: ZeroDivisionError",
            "importing.py": "importing.py:1 in <module>: ModuleNotFoundError",
            "relative.py": "relative.py:1 in <module>: ImportError",
            "exiting.py": "exiting.py:2 in <module>: SystemExit",
            "asserting.py": "AssertionError: no",
            "neighbour.py": "zero.py:2 in <module>: ZeroDivisionError",
            "blank.py": "it has no function at all",
            "text.txt": "must end in .py",
            "missing.py": "no such file",
            "folder.py": "no such file",
        }.items():
            yield Bad([command, f"{{}}/{name}:f", "--args", "f32[3]"], says)
        for target, says in {
            "{}/bad.py": "write path/to/module.py:function",
            "{}/bad.py:": "write path/to/module.py:function",
            ":f": "write path/to/module.py:function",
            "f": "write path/to/module.py:function",
            "{}/bad.py:fien": "did you mean fine",
            "{}/bad.py:NUMBER": "must be a function",
            "{}/bad.py:fine.x": "has no 'x'",
            "{}/bad.py:jax": "must be a function",
            "{}/bad.py:" + "z" * 100_000: "characters left out",
        }.items():
            yield Bad([command, target, "--args", "f32[3]"], says)


ARGUMENTS = {
    "f32[4 8]": "lengths are integers",
    "f32[-1]": "lengths are integers",
    "f32[1.5]": "lengths are integers",
    "f32[٣]": "lengths are integers",
    "f32[4²]": "lengths are integers",
    "f33[4]": "dtype 'f33'",
    "F32[4]": "dtype 'F32'",
    "f32[4": "is not closed",
    "f32 4]": "is not an argument",
    "'open": "is not closed",
    "[1, 2": "is not closed",
    "x": "is not an argument",
    "f32": "is not an argument",
    "f32[3]>x": "no f32 lies within",
    "f32[3]>nan": "no f32 lies within",
    "f32[3]>1<1": "no f32 lies within",
    "f32[3]>2<1": "no f32 lies within",
    "f32[3]>inf": "no f32 lies within",
    "c64[3]>0": "no c64 lies within",
    "bool[3]<1": "no bool lies within",
    "i32[3]<0": "positive integer",
    "i32[3]<-1": "positive integer",
    "i32[3]<1.5": "positive integer",
    "i8[3]<1000": "no i8 lies within",
    "i32[3]>5<6": "no i32 lies within",
    "f32[99999999999999999999]": "more entries than any array",
    "f32[" + "9" * 5_000 + "]": "more entries than any array",
    "f32[9999999999,9999999999]": "more entries than any array",
    "__import__('os').system('true')": "is not an argument",
    "lambda: 3": "is not an argument",
    "z" * 100_000: "characters left out",
    "f32[3] f32[3] f32[3]": "takes 1 positional argument",
    "": "",
}


def arguments() -> Iterator[Bad]:
    """`--args`, and the options that say how a function is checked."""
    for text, says in ARGUMENTS.items():
        yield Bad(["verify", "{}/bad.py:fine", "--args", text], says)
        if text:
            yield Bad(["cost", "{}/bad.py:fine", "--args", text], says)
    yield Bad(["verify", "{}/bad.py:fine", "--args", "f32[99999999999]"], "is too large to be checked here")
    yield Bad(["verify", "{}/bad.py:fine"], "needs --args")
    yield Bad(["verify", "{}/bad.py:fine", "--args", "i32[3]"], "no argument to differentiate")
    yield Bad(["verify", "--args", "f32[3]"], "name it first")
    yield Bad(["cost", "--args", "f32[3]"], "give path/to/module.py:function before it")
    for option, value, says in (
        ("--kwargs", "True", "must be name=value"),
        ("--kwargs", "y=f32[", "is not closed"),
        ("--kwargs", "y=3", "unexpected keyword argument"),
        ("--argnums", "one", "write positions such as 0 or 0,2"),
        ("--argnums", "7", "there are 1 positional arguments"),
        ("--argnums", "-2", "there are 1 positional arguments"),
        ("--argnums", "", "write positions"),
        ("--intent", "clip", "--intent clip"),
        ("--intent", "clip(2, 1)", "the first bound"),
        ("--intent", "__import__('os')", "write straight_through"),
        ("--intent", "finite(nan)", "--intent"),
        ("--tolerance", "7", "must be above 0 and below 1"),
        ("--tolerance", "-1", "must be above 0 and below 1"),
        ("--tolerance", "nan", "must be above 0 and below 1"),
        ("--tolerance", "small", "invalid float"),
        ("--seconds", "0", "must be above 0"),
        ("--seconds", "nan", "must be above 0"),
        ("--seconds", "soon", "invalid float"),
        ("--seed", "-1", "is not an integer from 0"),
        ("--seed", "4294967296", "is not an integer from 0"),
        ("--seed", "²", "is not an integer from 0"),
        ("--sweep", "x: nothing", "no variant 'x: nothing'"),
        ("--reference", "{}/missing.py:f", "no such file"),
        ("--reference", "{}/bad.py:raises", "not like this"),
        ("--reference-vjp", "{}/bad.py:nofing", "has no 'nofing'"),
        ("--device", "abacus", "no abacus here"),
        ("--device", "cpu:99", "cpu devices go from 0"),
        ("--device", "cpu:²", "cpu devices go from 0"),
        ("--device", "", "no such platform"),
        ("--set", "model.n_layer=3", "--set is for the embedded model"),
        ("--op", "gelu", "--op is for the embedded model"),
        ("--dtype", "float32", "--dtype is for the embedded model"),
    ):
        yield Bad(["verify", "{}/bad.py:wrong", "--args", "f32[3]", f"{option}={value}"], says)


SETTINGS = {
    "n_layer=3": "write section.key=value",
    "model.n_layer": "write section.key=value",
    "=": "write section.key=value",
    "model.=3": "",
    ".n_layer=3": "is not a section",
    "modle.n_layer=3": "did you mean model?",
    "model.n_lyer=3": "did you mean n_layer?",
    "input.bach=3": "input.bach",
    "model.n_layer=three": "is not a TOML value",
    "model.n_layer=": "is not a TOML value",
    "model.n_layer='3'": "n_layer",
    "model.n_layer=1.5": "n_layer",
    "model.n_layer=true": "n_layer",
    "model.n_layer=nan": "n_layer",
    "model.n_layer=0": "n_layer",
    "model.n_layer=-1": "n_layer",
    "model.n_layer=[3]": "n_layer",
    "model.n_layer=1000000000": "at most 1,000",
    "model.n_layer=1000000000000": "at most 1,000",
    "model.n_embd=0": "n_embd",
    "model.n_embd=7": "n_head",
    "model.n_embd=40000000000": "none can have 2⁶³",
    "model.n_embd=99999999999999999999": "n_embd is 99999999999999999999",
    "model.n_embd=4000000000000000000000": "none can have 2⁶³",
    "model.n_head=5": "n_head",
    "model.n_head=0": "n_head",
    "model.n_head=-4": "n_head",
    "model.vocab_size=0": "vocab_size",
    "model.vocab_size='all'": "vocab_size",
    "model.n_positions=0": "n_positions",
    "model.layer_norm_epsilon=nan": "layer_norm_epsilon",
    "model.layer_norm_epsilon=-1": "layer_norm_epsilon",
    "model.layer_norm_epsilon='small'": "layer_norm_epsilon",
    "model.tie_word_embeddings=1": "tie_word_embeddings",
    "model.tie_word_embeddings='yes'": "tie_word_embeddings",
    "input.batch=0": "at least 1",
    "input.batch=-3": "at least 1",
    "input.batch=1.5": "at least 1",
    "input.batch='two'": "at least 1",
    "input.batch=true": "at least 1",
    "input.batch=9223372036854775807": "none can have 2⁶³",
    "input.sequence=65": "model.n_positions = 64",
    "input.sequence=0": "at least 1",
}


def configs() -> Iterator[Bad]:
    """`--set` and `--config`, in the commands that take a model."""
    for command in (["verify"], ["cost"], ["bench", "--quick"]):
        for change, says in SETTINGS.items():
            if command[0] != "bench" or "sequence" not in change:
                yield Bad([*command, "--set", change], says)
        for name, says in {
            "missing.toml": "missing.toml",
            "broken.toml": "TOML",
            "binary.toml": "TOML",
            "deep.toml": "TOML",
            "outside.toml": "outside of a section",
            "section.toml": "did you mean model?",
            "key.toml": "did you mean n_layer?",
            "type.toml": "n_layer",
            "folder.py": "folder.py",
        }.items():
            yield Bad([*command, "--config", f"{{}}/{name}"], says)
    yield Bad(["verify", "--set", "model.n_embd=4000000"], "take a smaller model")
    yield Bad(["verify", "--quick", "--dtype", "float64"], "--quick is the tiny model in float32")
    yield Bad(["verify", "--prove", "--dtype", "float64"], "--dtype has no meaning with --prove")


def options() -> Iterator[Bad]:
    """Commands, options and names that do not exist, or contradict each other."""
    yield Bad([], "", (2,))
    for word in ("verfy", "Cost", "clams", "reprot", "--verbose", "x.py:f", "", "-", "trian"):
        yield Bad([word], "" if word in ("", "-") else "is not a command")
    for command in ("verify", "cost", "claims", "bench", "report"):
        yield Bad([command, "--jsonn", "x"], "is not an option here")
        yield Bad([command, "--" + "x" * 100_000], "characters left out")
    for id, says in {
        "d0.6": "did you mean D0.6?",
        "D9.1": "is not a row",
        "": "is not a row",
        "x" * 10_000: "left out",
    }.items():
        yield Bad(["claims", id], says)
    yield Bad(["claims", "--document", "D9"], "invalid choice")
    yield Bad(["claims", "--verdict", "right"], "invalid choice")
    for op, says in {"sofmax": "did you mean softmax?", "GELU": "did you mean gelu?", "": "no such operation"}.items():
        yield Bad(["verify", "--op", op], says)
        yield Bad(["verify", "--prove", "--op", op], says)
    yield Bad(["verify", "--dtype", "float8"], "invalid choice")
    yield Bad(["verify", "--rules", "fast"], "invalid choice")
    for mesh in ("data=0", "data=x", "data", "tensor=2", "data=1", "data=2,data=2", "data=²", "", "data=99999999999"):
        yield Bad(["cost", "--mesh", mesh])
    yield Bad(["cost", "--mesh", "data=2", "--csv", "{}/x.csv"], "leave --csv out")
    for words in (["--rounds", "0"], ["--rounds", "x"], ["--points", "1"], ["--sweep", "width"], ["--contender", "us"]):
        yield Bad(["bench", *words])
    for name in ("missing.json", "broken.toml", "blank.py", "folder.py", "binary.toml"):
        yield Bad(["report", "--bench", f"{{}}/{name}"], name)


PLACES = {
    "missing/x.svg": "is not a folder",
    "folder.py": "",
    "bad.py/x.svg": "is not a folder",
    "y" * 300 + ".svg": "",
    "": "",
}


def outputs() -> Iterator[Bad]:
    """Files that cannot be written: said before the work."""
    for words in (
        ["verify", "--json"],
        ["cost", "--json"],
        ["cost", "--csv"],
        ["claims", "--json"],
        ["report", "--out"],
    ):
        for place, says in PLACES.items():
            yield Bad([*words, f"{{}}/{place}" if place else place], says)
    for words in (["bench", "--figure"], ["bench", "--json"], ["sample", "{}", "--json"], ["train", "--json"]):
        for place, says in PLACES.items():
            yield Bad([*words, f"{{}}/{place}" if place else place], says)
    yield Bad(["cost", "--json", "/proc/x.json"], "cannot be written")
    yield Bad(["cost", "--json", "{}/x", "--csv", "{}/x"], "would overwrite")
    yield Bad(["verify", "{}/bad.py:fine", "--args", "f32[3]", "--json", "{}/bad.py"], "would overwrite")


KINDS: dict[str, Callable[[], Iterator[Bad]]] = {
    kind.__name__: kind for kind in (functions, modules, arguments, configs, options, outputs)
}


def cases() -> list[tuple[str, Bad]]:
    """Every bad input, with its kind."""
    return [(kind, bad) for kind, make in KINDS.items() for bad in make()]


def fault(bad: Bad, folder: Path) -> str:
    """Try one; returns what is wrong with the answer, or nothing."""
    from refgrad.cli import main

    words = [word.replace("{}", str(folder)) for word in bad.words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limit(SECONDS):
        try:
            code = main(words)
        except BaseException as error:  # whatever a command lets through
            return f"raises {type(error).__name__}: {error!s:.200}"
    return judged(bad, code, out.getvalue(), err.getvalue(), folder)


def judged(bad: Bad, code: int, out: str, err: str, folder: Path) -> str:
    """Return what is wrong with an exit code and what was printed."""
    lines = [line for line in err.splitlines() if not re.match(r"\w+: \d+ steps?$|checking ", line)]
    said = " ".join((out if code == 1 or not bad.words else " ".join(lines)).split())
    if code not in bad.codes:
        return f"exit code {code}: {said[-300:]}"
    if code == 2 and bad.words and len(lines) != 1:
        return f"{len(lines)} lines: {err[-300:]}"
    if code == 2 and len(said) > LINE + len(str(folder)) and bad.words:
        return f"{len(said)} characters"
    if found := OURS.search(said.replace(str(folder), "")):
        return f"says {found[0]!r}: {said[:300]}"
    return "" if " ".join(bad.says.split()) in said else f"does not say {bad.says!r}: {said[:300]}"


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError inside it once it has lasted so long."""

    def over(*_):
        raise TimeoutError(f"hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run() -> int:
    """Try all, print each that is answered wrongly and the count; returns how many these are."""
    wrong, every = 0, cases()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files(folder)
        start = time.monotonic()
        for kind, bad in every:
            if said := fault(bad, folder):
                wrong += 1
                print(f"{kind}: {' '.join(bad.words)!s:.120}: {said}", flush=True)
    counts = ", ".join(f"{sum(k == kind for k, _ in every)} {kind}" for kind in KINDS)
    print(f"{len(every)} bad inputs ({counts}), {wrong} answered wrongly, {time.monotonic() - start:.0f} s")
    return wrong


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(min(run(), 1))
