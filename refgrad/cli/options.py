"""The options of every sub-command. Nothing here imports JAX, so that help and errors in options appear at once."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from refgrad._files import writable
from refgrad._text import is_integer, nearest
from refgrad.rule_sets import RENAMED, RULE_SETS

TARGET = "path/to/module.py:function"
DTYPES = ("float64", "float32", "bfloat16", "float16")
RULES = tuple(one.name for one in RULE_SETS.values() if one.verified)
DOCUMENTS = ("D0", "D1", "D2", "D3", "D4")
VERDICTS = ("holds", "when", "wrong", "undecided")
CONTENDERS = (
    *("autodiff-scan", "autodiff-checkpoint", "library", "derived", "fused", "fused-scan", "fast", "fast-scan"),
    *("small", "torch", "torch-compile", "transformers", "roofline", "autodiff-bf16", "library-bf16", "cudnn-bf16"),
    *("fused-bf16", "fused-cudnn-bf16", "fast-bf16", "torch-bf16", "torch-compile-bf16", "roofline-bf16"),
)
STAGES = ("counted", "lowered", "compiled")
SWEEPS = ("batch", "layers", "length")
OUTPUTS = ("json", "csv", "figure", "out", "save", "speedscope")
INPUTS = ("target", "against", "config", "bench", "reference", "reference_vjp")
SEEDS = 2**32
MACHINE = "2 quiet cores of an AMD EPYC"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are raised as ValueError: one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(message.removeprefix("argument "))

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the options. Raises ValueError for a bad one, naming the nearest that there is."""
        found, unknown = self.parse_known_args(words)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            given = unknown[0].partition("=")[0]
            hint = nearest(given, known) if given.startswith("-") else "it has no place; quote a value with blanks"
            raise ValueError(f"{unknown[0]} is not an option here: {hint}")
        _distinct(found)
        return found


def common(parser: Parser, config: str = "sections [model] and [input]; default: the tiny GPT-2") -> None:
    """Add `--config`, `--set` and `--json`; `config` says what the file of the first holds."""
    parser.add_argument("--config", metavar="FILE.toml", help=f"{config}; or a name, such as gpt2_124m")
    say = "change one key, such as model.n_layer=3"
    parser.add_argument("--set", metavar="section.key=value", action="append", default=[], help=say)
    _output(parser, "--json", "FILE", "write the results there as JSON too")


def verify(parser: Parser) -> None:
    """Add the options of `refgrad verify`."""
    common(parser)
    add = parser.add_argument
    add("target", nargs="?", metavar=TARGET, help="check this function of yours instead")
    add(
        "--args", metavar='"f32[4,8] …"', help='its arguments: "x:f32[b,3]>0 i32[b]<10 True"; a dimension may be a name'
    )
    add("--no-sweep", action="store_true", help="try no special values and no other sizes of them")
    add("--sweep", metavar="VARIANT", help='try this variant alone, such as "x: zeros"')
    add("--kwargs", metavar='"train=True …"', help="its keyword arguments: arrays or literals")
    add("--argnums", metavar="I,J", help="the positions to differentiate, instead of all")
    add("--tolerance", type=float, metavar="R", help="relative error up to which the rule is right")
    add("--intent", metavar="NAME", help='what the rule means: straight_through, "clip(-1, 1)", …')
    add("--reference", metavar=TARGET, help="a function with the gradient that is meant")
    add("--reference-vjp", metavar=TARGET, help="one that returns the meant cotangents")
    add("--seconds", type=float, metavar="S", help="budget: the most telling properties run first")
    add("--seed", type=_seed, default=0, metavar="S", help="of the arguments and cotangents that are drawn (default 0)")
    add("--rules", type=_renamed, choices=RULES, default="derived", help="check these rules and the model under them")
    add("--op", action="append", metavar="NAME", help="check this operation alone (may be repeated)")
    add("--dtype", action="append", choices=DTYPES, help="check in this dtype alone (may be repeated)")
    say = "a first look: float32, two cotangents, 1 × 8 tokens of the tiny model, compiled with little optimisation"
    add("--quick", action="store_true", help=say)
    add("--prove", action="store_true", help="prove the rules for all real arguments, in exact arithmetic, instead")
    add("--device", metavar="PLATFORM", help="cpu, gpu or tpu, with :INDEX for one of several")


def cost(parser: Parser) -> None:
    """Add the options of `refgrad cost`."""
    add = parser.add_argument
    add("target", nargs="?", metavar=TARGET, help="default: GPT-2's loss")
    add("--args", metavar='"f32[b,8] i32[b]"', help="the function's arguments, by dtype and shape")
    add("--sizes", metavar="b=4,s=8", help="the sizes of the dimensions that have a name there")
    add("--kwargs", metavar='"train=True …"', help="its keyword arguments: arrays or literals")
    add("--argnums", metavar="I,J", help="the positions to differentiate, instead of all")
    _output(parser, "--csv", "FILE", "write the cost of each scope there as CSV")
    add("--mesh", metavar="data=2,model=2", help="GPT-2 on so many devices: the bytes that they exchange")
    say = "predict time and memory there: A100, H100, H200, TPU v5e …, or cpu, measured"
    add("--device", metavar="H100", help=say)
    common(parser)
    _comparison(parser)


def _comparison(parser: Parser) -> None:
    """Add the options of `refgrad cost` that compare two programs, save one, or draw it as a flame graph."""
    add = parser.add_argument
    add("--against", metavar="B", help=f"compare with B: {TARGET} or a saved program")
    add("--against-set", metavar="key=value", action="append", default=[], help="compare with GPT-2 so changed")
    add("--against-args", metavar='"f32[8,8]"', help="the arguments of B, where they are others")
    add("--against-stage", choices=STAGES, help="the stage of B, where it is another")
    add("--stage", choices=STAGES, help="what is compared or saved: the traced program (default), or XLA's")
    add("--backward", action="store_true", help="compare or save the backward pass, not the forward pass")
    add("--allow", metavar="flops=1%,bytes=0", help="what may grow; anything else that grows gives exit code 1")
    _output(parser, "--save", "FILE", "write the program there, for a later --against")
    _output(parser, "--figure", "FILE", "draw the differences there", (".svg", ".png"))
    _output(parser, "--speedscope", "FILE", "write flame graphs there, for https://www.speedscope.app")


def claims(parser: Parser) -> None:
    """Add the options of `refgrad claims`."""
    add = parser.add_argument
    add("ids", nargs="*", metavar="ID", help="show this row in full; default: a table")
    add("--document", action="append", choices=DOCUMENTS, help="the rows of this document alone")
    add("--verdict", action="append", choices=VERDICTS, help="show rows of this verdict alone")
    _output(parser, "--json", "FILE", "write the rows there as JSON too")


def bench(parser: Parser) -> None:
    """Add the options of `refgrad bench`."""
    common(parser)
    add = parser.add_argument
    add("--contender", type=_renamed, action="append", choices=CONTENDERS, help="this one alone (may be repeated)")
    add("--parts", action="store_true", help="measure the model's parts, each under every set of rules")
    add("--sweep", choices=SWEEPS, help="vary this, and draw it with --figure")
    add("--points", type=int, nargs="+", metavar="N", help="the values that --sweep takes")
    add("--rounds", type=int, default=5, help="turns of each of a pair (default 5)")
    say = f"a small model and a few contenders, in under 2 minutes on {MACHINE}"
    add("--quick", action="store_true", help=say)
    _output(parser, "--figure", "FILE.svg", "draw time and temporaries there (extra `report`)", (".svg", ".png"))
    say = "leave glibc's thresholds as they are, and see in the page faults what that costs"
    add("--default-allocator", action="store_true", help=say)


def report(parser: Parser) -> None:
    """Add the options of `refgrad report`."""
    add = parser.add_argument
    say = f"float32 alone and small experiments: under 2 minutes on {MACHINE}, a busy host takes some times that"
    add("--quick", action="store_true", help=say)
    _output(parser, "--out", "FILE", "the page (default: %(default)s)", default="report.html")
    say = "show this run of `refgrad bench --json FILE` too (may be repeated)"
    add("--bench", metavar="FILE", action="append", default=[], help=say)


def train(parser: Parser) -> None:
    """Add the options of `refgrad train`."""
    common(parser, "sections [model], [data], [train], [checkpoint], [mesh]; default: a run of a few minutes")
    add = parser.add_argument
    add("--out", metavar="DIR", default="out/train", help="the run's folder (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the newest good checkpoint in --out")
    say = "several processes, one a machine, --out shared: process 0's address; or 'detect', as under Slurm"
    add("--coordinator", metavar="HOST:PORT", help=say)
    add("--processes", metavar="N", type=int, help="how many there are")
    add("--process", metavar="K", type=int, help="which of them this is, from 0")


def sample(parser: Parser) -> None:
    """Add the options of `refgrad sample`."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="a run of refgrad train (run.json) or a GPT-2 (config.json)")
    add("--prompt", default="", metavar="TEXT", help="go on from this text; default: begin a text")
    add("--tokens", type=int, default=200, metavar="N", help="tokens to write (default 200)")
    add("--temperature", type=float, default=1.0, metavar="T", help="divides the logits; 0: the likeliest")
    add("--top-k", type=int, default=0, metavar="K", help="the K likeliest alone; 0: all")
    add("--top-p", type=float, default=1.0, metavar="P", help="the likeliest that add up to P alone; 1: all")
    add("--seed", type=int, default=0, metavar="S", help="the same seed writes the same (default 0)")
    add("--samples", type=int, default=1, metavar="M", help="texts to write, side by side (default 1)")
    _output(parser, "--json", "FILE", "write the texts there as JSON too")


def export(parser: Parser) -> None:
    """Add the options of `refgrad export`."""
    parser.add_argument("run", metavar="RUN", help="the folder of a run of refgrad train")
    parser.add_argument("folder", metavar="FOLDER", help="where config.json and model.safetensors go")


def _output(
    parser: Parser, name: str, metavar: str, say: str, suffixes: tuple[str, ...] = (), default: str | None = None
) -> None:
    """Add an option for a file that is written at the end, and tried before anything else happens."""

    def path(text: str) -> str:
        if suffixes and Path(text).suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text!r} must end in {' or '.join(suffixes)}")
        return _told(writable, text)

    parser.add_argument(name, metavar=metavar, type=path, default=default, help=say)


def _renamed(text: str) -> str:
    """The name of a set of rules, or of a contender that is called after one, unless it is an old one."""
    if text in RENAMED:
        raise argparse.ArgumentTypeError(f"{text!r} is now called {RENAMED[text]!r}: give that")
    return text


def _seed(text: str) -> int:
    if not (is_integer(text) and len(text) <= len(str(SEEDS)) and int(text) < SEEDS):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to {SEEDS - 1}")
    return int(text)


def _told(check: Callable[[str], Any], text: str) -> Any:
    """The value, or the reason against it: argparse hides that of a ValueError."""
    try:
        return check(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _distinct(options: argparse.Namespace) -> None:
    """Raise ValueError where a file is written twice, or over one that is read."""
    seen: dict[str, str] = {}
    for name in (*INPUTS, *OUTPUTS):
        values = getattr(options, name, None) or ()
        for value in (values,) if isinstance(values, str) else values:
            path = os.path.realpath(value.rpartition(":")[0] if value.rpartition(":")[0].endswith(".py") else value)
            if name in OUTPUTS and path in seen and not (os.path.exists(path) and not os.path.isfile(path)):
                raise ValueError(f"--{name} {value} would overwrite {seen[path]}: name another file")
            seen[path] = "the target" if name == "target" else f"the file of --{name.replace('_', '-')}"
