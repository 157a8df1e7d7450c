"""Files that people edit, read (TOML), and files that programs leave, written whole or not at all."""

import csv
import errno
import io
import json
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The file's tables and keys.

    Raises ValueError where it is not TOML, OSError where it cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML that can be read: {error}") from error


def toml_value(text: str) -> Any:
    """The right side of a `--set key=value`, as TOML reads it.

    Raises ValueError where TOML has no such value, as for text without quotes.
    """
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--set …={text}: {text!r} is not a TOML value ({error})") from error


def writable(path: str) -> str:
    """Return `path` if a file can be written there, found out by trying and without a trace: before any work is done.

    Raises ValueError, with the reason, where it cannot.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir() or not path:
            raise ValueError("it is a folder" if path else "the name is empty")
        if not target.parent.is_dir():
            raise ValueError(f"{target.parent} is not a folder")
        if target.exists() and not os.access(target, os.W_OK):
            raise ValueError("it is read-only")
        if target.is_file() or not target.exists():
            part = _part(target)
            part.touch()
            part.unlink()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path!r} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data`, whole or not at all: to a file beside it first, then renamed; a device or pipe is written to."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    part = _part(target)
    try:
        part.write_bytes(data)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.{os.getpid()}.part")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, data: Any) -> None:
    """Write `data` as JSON, whole or not at all."""
    write_text(path, json.dumps(data, ensure_ascii=False, indent=1))


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a header and rows as CSV, whole or not at all.

    Raises ValueError where a row has another length than the header.
    """
    rows = [list(row) for row in rows]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}: the row {row} has {len(row)} cells, but the header {list(header)} {len(header)}")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(header), *rows])
    write_text(path, text.getvalue())
