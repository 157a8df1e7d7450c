"""Files and folders → an ordered list of documents, by default the Python standard library's own source.

A folder stands for all its files, sorted by name, except hidden (`.git`) and compiled ones (`__pycache__`). The
standard library stands for its `.py` files, without tests, which some distributions leave out, and without files that a
build or a distribution writes about its own machine. So one version of Python is one corpus everywhere.
"""

import errno
import os
import stat
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

COMPILED = ("__pycache__",)
OF_THE_MACHINE = ("_sysconfigdata", "sitecustomize", "usercustomize")
NO_SOURCE = ("site-packages", "dist-packages", "test", "tests", "idle_test", *COMPILED)


class ListedFile(NamedTuple):
    """A file at the time when it was listed."""

    path: Path
    size: int
    """Bytes."""
    stamp: tuple[int, int, int]
    """Size, and the times in ns at which contents (mtime) and inode (ctime) last changed."""

    def __str__(self) -> str:
        return self.path.name


def documents(paths: Iterable[str | Path] | None = None) -> list[ListedFile]:
    """Return the files that hold text, in order, each once.

    Args:
        paths: Files, and folders to walk; None for the standard library.

    Raises:
        OSError: A path cannot be read.
        ValueError: A path is not a regular file or folder, or none holds text.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    every = standard_library() if paths is None else [file for path in paths for file in files(_named(path))]
    listed = [document(path) for path in dict.fromkeys(_resolved(path) for path in every)]
    kept = [each for each in listed if each.size]
    if not kept:
        where = "the standard library" if paths is None else ", ".join(map(str, paths)) or "the list of files"
        raise ValueError(f"{where} holds no text ({len(listed)} files, all empty): name files or folders that do")
    return kept


def _named(path: str | Path) -> Path:
    """Return the path. Raise ValueError for a text that cannot be one; "" would mean the current folder."""
    if not str(path).strip() or "\0" in str(path):
        raise ValueError(f"{str(path)!r} in the list of files is not a path: name a file or a folder, '.' for this one")
    return Path(path)


def _resolved(path: Path) -> Path:
    """Return the file that the path leads to. Raise ValueError if links lead in a circle."""
    try:
        return path.resolve(strict=True)
    except (RuntimeError, OSError) as error:  # Python 3.12 and before have a RuntimeError for a circle
        if isinstance(error, OSError) and error.errno != errno.ELOOP:
            raise
        raise ValueError(f"{path} is a symbolic link that leads back to itself: remove it, or leave it out") from error


def document(path: Path) -> ListedFile:
    """Return the file as it is now. Raise OSError if it cannot be read, ValueError if it is not a regular file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file: leave it out")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} cannot be read: allow it (chmod +r), or leave it out")
    return ListedFile(path, status.st_size, (status.st_size, status.st_mtime_ns, status.st_ctime_ns))


def files(path: Path, without: Collection[str] = COMPILED) -> Iterator[Path]:
    """Yield the file itself, or the folder's files, sorted, except hidden ones and those in folders named in `without`.

    Raises OSError if a folder cannot be read.
    """
    if not path.is_dir():
        yield path
        return

    def failed(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(path, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in without)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def standard_library() -> list[Path]:
    """Return this Python's own source files, sorted. Raise ValueError without any, as in a zipped library."""
    root = Path(sysconfig.get_path("stdlib"))
    sources = [
        path for path in files(root, NO_SOURCE) if path.suffix == ".py" and not path.name.startswith(OF_THE_MACHINE)
    ]
    if not sources:
        raise ValueError(f"this Python has no source in {root}: name text files or folders of your own")
    return sources
