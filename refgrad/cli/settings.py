"""The settings of a command: a file of TOML (`--config`), changed key by key (`--set section.key=value`)."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from refgrad._files import read_toml, toml_value
from refgrad._text import nearest
from refgrad.models.gpt2 import Config

INPUT = {"batch": 2, "sequence": 24}
CONFIGS = Path(__file__).parents[1] / "configs"
LAYERS, ENTRIES = 1_000, 2**63
T = TypeVar("T")
_WORD = re.compile(r"[A-Za-z/~][\w./~-]*")


def load(path: str | None, changes: Sequence[str], whole_sequence: bool = False) -> tuple[Config, dict[str, int]]:
    """The model's config and the input's sizes, from a TOML file and `section.key=value` changes.

    Sizes that neither gives are those of `INPUT`, or with `whole_sequence` one sequence of n_positions.

    Raises ValueError for a file that is not TOML, an unknown section or key, and values that no model can have.
    """
    return build(path, changes, ("model", "input"), partial(_config_and_sizes, whole_sequence=whole_sequence))


def _config_and_sizes(values: dict[str, dict[str, Any]], whole_sequence: bool) -> tuple[Config, dict[str, int]]:
    try:
        config = Config.from_mapping(values["model"])
    except (TypeError, ValueError) as error:
        raise type(error)(f"model.{error}") from None
    default = {"batch": 1, "sequence": config.n_positions} if whole_sequence else INPUT
    sizes = {**default, "sequence": min(default["sequence"], config.n_positions)}
    for key, value in values["input"].items():
        if key not in INPUT:
            raise ValueError(f"input.{key} = {value!r} is not a key: known are {', '.join(INPUT)}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"input.{key} is {value!r}, but must be an integer of at least 1")
        sizes[key] = value
    if sizes["sequence"] > config.n_positions:
        raise ValueError(f"input.sequence is {sizes['sequence']}, but model.n_positions = {config.n_positions}")
    _check_size(config, **sizes)
    return config, sizes


def _check_size(config: Config, batch: int, sequence: int) -> None:
    """Raise ValueError for a model whose program is too long to be traced, or holds arrays that JAX cannot count."""
    if config.n_layer > LAYERS:
        raise ValueError(f"model.n_layer is {config.n_layer:,}, but a program has a block for each: at most {LAYERS:,}")
    rows = batch * sequence
    largest = max(config.parameters, rows * max(config.vocab_size, 4 * config.n_embd), rows * config.n_head * sequence)
    if largest >= ENTRIES:
        raise ValueError(
            f"the model has an array of {largest:,} entries, but none can have 2⁶³: take less for model.n_embd, "
            "vocab_size, n_positions, input.batch or sequence"
        )


def build(
    path: str | None,
    changes: Sequence[str],
    sections: Iterable[str],
    make: Callable[[dict[str, dict[str, Any]]], T],
    words: bool = False,
) -> T:
    """Return `make` of what `read` reads. An error that the file alone makes is raised with the file's name."""
    sections = tuple(sections)
    values = read(path, changes, sections, words)
    try:
        return make(values)
    except (TypeError, ValueError) as error:
        if path is not None and _error(make, read(path, (), sections, words)) == str(error):
            raise type(error)(f"{path}: {error}") from None
        raise


def _error(make: Callable[[Any], Any], values: dict[str, dict[str, Any]]) -> str | None:
    try:
        make(values)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def read(
    path: str | None, changes: Sequence[str], sections: Iterable[str], words: bool = False
) -> dict[str, dict[str, Any]]:
    """Every one of these sections with the keys that the TOML file and then the `section.key=value` changes give it.

    With `words`, a value that is a plain word needs no quotes in a change. Raises ValueError for a file that is not
    TOML, a section that is not among them, naming the nearest, and a change of another form.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in sections}
    if path is not None:
        for section, content in read_toml(_file(path)).items():
            if not isinstance(content, dict):
                known = " or ".join(f"[{name}]" for name in values)
                raise ValueError(f"{path}: {section} = {content!r} stands outside of a section: use {known}")
            _section(values, section, f"{path}: ").update(content)
    for change in changes:
        name, equals, text = change.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {change}: write section.key=value, such as model.n_layer=3")
        plain = words and _WORD.fullmatch(text) and text not in ("true", "false", "inf", "nan")
        _section(values, section, f"--set {change}: ")[key] = text if plain else toml_value(text)
    return values


def _file(path: str) -> Path:
    """Return the file at `path`, or the config of that name within the package. Raises ValueError for neither."""
    if Path(path).exists() or Path(path).suffix:
        return Path(path)
    if not (own := CONFIGS / f"{path}.toml").is_file():
        names = [file.stem for file in CONFIGS.glob("*.toml")]
        raise ValueError(f"--config {path} is neither a file nor a config of refgrad: {nearest(path, names)}")
    return own


def _section(values: dict[str, dict[str, Any]], name: str, where: str) -> dict[str, Any]:
    if name not in values:
        raise ValueError(f"{where}{name} is not a section of a config: {nearest(name, values)}")
    return values[name]
