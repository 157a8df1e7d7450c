"""Docstrings as Markdown: indented lines become blocks of text, sections such as "Args:" become lists."""

import re
import textwrap
from collections.abc import Iterator

SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:")
EXAMPLES = ("Example:", "Examples:")
_ITEM = re.compile(r"^(\S[^:]*): ")


def escaped(text: str) -> str:
    """Return `text` with Markdown's own letters made plain, those within backticks left as they are."""
    parts = re.split(r"(``?[^`]+``?)", text)
    return "".join(part if n % 2 else re.sub(r"([\\*_<\[\]|#])", r"\\\1", part) for n, part in enumerate(parts))


def markdown(docstring: str | None) -> str:
    """Return a docstring, as `inspect.getdoc` gives it, or a part of one, as Markdown."""
    return "\n\n".join(map(_block, _blocks(docstring or "")))


def _blocks(text: str) -> Iterator[str]:
    """Yield paragraphs; a section or an indented block is one, blank lines within it included."""
    held: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        if held and not block.startswith("    "):
            yield "\n\n".join(held)
            held = []
        if block.startswith((*SECTIONS, *EXAMPLES, "    ")) or held:
            held.append(block)
        elif block:
            yield from _paragraphs(block)
    if held:
        yield "\n\n".join(held)


def _paragraphs(block: str) -> Iterator[str]:
    """Yield the parts of a block that change between text and indented lines or a list."""
    lines = block.split("\n")
    start = 0
    for n in range(1, len(lines)):
        first_item = lines[n].startswith("- ") and not lines[n - 1].startswith(("- ", " "))
        if first_item or lines[n] in (*SECTIONS, *EXAMPLES):
            yield "\n".join(lines[start:n])
            start = n
    yield "\n".join(lines[start:])


def _block(block: str) -> str:
    first, _, rest = block.partition("\n")
    if first in SECTIONS:
        return f"**{first[:-1]}**\n\n{_items(textwrap.dedent(rest))}"
    if first in EXAMPLES:
        return f"**{first[:-1]}**\n\n```pycon\n{textwrap.dedent(rest)}\n```"
    if block.startswith("    "):
        return f"```text\n{textwrap.dedent(block)}\n```"
    return escaped(block)


def _items(text: str) -> str:
    """Return a section's entries as a list; a line that is indented goes on with the entry before it."""
    entries: list[str] = []
    for line in text.split("\n"):
        if entries and line.startswith(" "):
            entries[-1] += " " + line.strip()
        elif line:
            entries.append(line)
    return "\n".join(f"- {_entry(entry)}" for entry in entries)


def _entry(entry: str) -> str:
    named = _ITEM.match(entry)
    return f"`{named[1].strip('`')}`: {escaped(entry[named.end() :])}" if named else escaped(entry)
