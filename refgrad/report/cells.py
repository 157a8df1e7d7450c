"""Cells of the page's tables: a polynomial as MathML, an operation as a link to its derivation, `code` as code."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sympy
from markupsafe import Markup, escape
from sympy.printing.mathml import mathml

import refgrad
from refgrad.ops import TABLE
from refgrad.verify.report import PAGE

CHECKOUT = Path(refgrad.__file__).parent.parent
SITE = CHECKOUT / "build" / "site"


def polynomial(expression: Any) -> Markup:
    """Return a polynomial of sympy as a `<math>` element for each term, between which a line may end."""
    first, *rest = expression.as_ordered_terms()
    terms = [mathml(first, printer="presentation")]
    for term in rest:
        size, sign = (-term, "−") if term.could_extract_minus_sign() else (term, "+")
        terms.append(f'<mrow><mo form="infix">{sign}</mo>{mathml(size, printer="presentation")}</mrow>')
    return Markup("<wbr>".join(f"<math>{term}</math>" for term in terms))


def coded(text: str) -> Markup:
    """Return text with what stands in backticks as `<code>`."""
    pieces = text.split("`")  # text and code by turns
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(pieces))


def site_from(folder: Path) -> str:
    """Return the way from a page in `folder` to the site; "" where the package is installed alone, without a site."""
    return Path(os.path.relpath(SITE, folder)).as_posix() if (CHECKOUT / "docs").is_dir() else ""


def explained(text: str, site: str) -> Markup:
    """Return a report with each verdict's page as a link to it."""
    link = rf'<a href="{site}/verdicts.html\1">\g<0></a>' if site else r"\g<0>"
    return Markup(re.sub(re.escape(PAGE) + r"(#[\w-]+)", link, str(escape(text))))


def derivations(site: str) -> Callable[[str], Markup]:
    """Return the function from an operation's name to a link to its page; without a site the name is code alone."""

    def derivation(name: str) -> Markup:
        link = '<a href="{0}/operations/{1}.html"><code>{1}</code></a>' if site else "<code>{1}</code>"
        return Markup(link).format(site, name)

    return derivation


def cell(column: str, value: object, derivation: Callable[[str], Markup]) -> object:
    """Return a cell as the page shows it."""
    if isinstance(value, sympy.Expr):
        return polynomial(value)
    return derivation(str(value)) if column == "operation" and value in TABLE else value
