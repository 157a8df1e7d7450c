"""Figures in one style: SVG that any page can embed, in light or dark, with its text alternative inside.

House style. Series differ by colour (Okabe–Ito without its yellow and black), marker and dash at once: `series`. Axes
are named with their units; letters are 9 points and more on figures of 7 inches, and outlines, so that they look the
same everywhere; title and description stand in the file for those who cannot see it.

Light and dark. Everything that is not a series (letters, axes, grid, legend's text) is drawn in `INK`, a black that no
series uses, and the file says `currentColor` wherever that black stood; the background is transparent. Opened by
itself a figure is black on the viewer's white; within a page (inline, as `<svg>`) it takes on the page's colour of
text. The series' colours have a contrast of 2.2 and more with white, and of 3.6 and more with near-black.

The same figure gives the same bytes: no date, no version, and ids from a fixed salt. The ids begin with the file's
stem, and no style reaches beyond the figure, so that many can stand in one page.

matplotlib is the `report` extra, imported when something is drawn.
"""

import html
import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refgrad._extras import install
from refgrad._files import write_bytes, write_text

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
HATCHES = ("", "//", "..", "xx", "\\\\", "--")
INK = "#010203"  # stands for the page's colour of text

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.formatter.use_mathtext": True,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 10,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "patch.edgecolor": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "refgrad",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 9,
    "ytick.color": INK,
    "ytick.labelsize": 9,
}


def series(n: int) -> dict[str, Any]:
    """Style of the n-th line (from 0), unlike the others': `color`, `marker` and `linestyle` for `Axes.plot`.

    Raises ValueError beyond the sixth: so many lines cannot be told apart in one figure.
    """
    if not 0 <= n < len(COLORS):
        raise ValueError(f"series {n}: a figure has series 0 to {len(COLORS) - 1}; divide it into several axes")
    return {"color": COLORS[n], "marker": MARKERS[n], "linestyle": DASHES[n]}


def legend_below(axes: Any, **options: Any) -> None:
    """A legend beneath the axes, in one line, where it covers nothing; `options` are those of `Axes.legend`."""
    _, labels = axes.get_legend_handles_labels()
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": len(options.get("handles", labels))}
    axes.legend(**{**place, "columnspacing": 1.2, "handletextpad": 0.5, **options})


def legend_at_foot(axes: Any) -> None:
    """The legend of one of several axes at the figure's foot, in one line: it takes no width from those beside it."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


@contextmanager
def draw(
    path: str | Path,
    title: str,
    alt: str,
    size: tuple[float, float] = (7, 4),
    rows: int = 1,
    columns: int = 1,
    **options: Any,
) -> Iterator[Any]:
    """Within it one draws on the axes it gives (one, or an array of rows × columns); on leaving, the file is written.

    `path` ends in .svg, or in .png to look at it, on white. `title` says what the figure shows in a few words, `alt`
    what one sees in it: a reader who cannot see it reads these. `size` is in inches, `options` are those of
    `Figure.subplots`.

    Raises ValueError where the title or the alternative is empty, an axis has no name, or letters run beyond the edge
    or over others, ModuleNotFoundError without matplotlib. Nothing is written where drawing fails.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"{path}: a figure is .svg, or .png to look at it")
    if not (title.strip() and alt.strip()):
        raise ValueError(f"{path.name}: a figure needs a title and a text alternative, which says what one sees in it")
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(rows, columns, **options)
        _check_axes(path.name, figure)
        _check_letters(path.name, figure)
        if path.suffix == ".png":
            write_bytes(path, _bytes(figure, format="png", dpi=120, facecolor="white"))
        else:
            text = _bytes(figure, format="svg", metadata={"Date": None, "Creator": None}).decode()
            write_text(path, accessible(text, path.stem, title, alt))


def require() -> Any:
    """matplotlib, imported.

    Raises ModuleNotFoundError, naming the extra, where it is missing.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"figures need matplotlib: {install('report')}", name=error.name) from error
    return matplotlib


@contextmanager
def style() -> Iterator[None]:
    """The house's settings of matplotlib while it lasts; those of the caller come back. Raises as `require`."""
    matplotlib = require()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the machine's own settings say
        matplotlib.rcParams.update(STYLE)
        yield


def accessible(svg: str, name: str, title: str, alt: str) -> str:
    """matplotlib's SVG with title and description, ids of its own, the page's colour for ink, and no metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # a rule for the whole page
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    svg = svg.replace(INK, "currentColor")
    lines = 'stroke-linejoin="round" stroke-linecap="butt"'
    label = f'role="img" aria-labelledby="{name}-title {name}-desc" {lines}'
    words = f'<title id="{name}-title">{html.escape(title)}</title>\n <desc id="{name}-desc">{html.escape(alt)}</desc>'
    head, rest = svg.split(">", 1)
    return f"{head} {label}>\n {words}{rest}"


def _bytes(figure: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, **options)
    return out.getvalue()


def _check_axes(name: str, figure: Any) -> None:
    """Raise ValueError for axes that are shown without a name on both."""
    for axes in figure.axes:
        shared = axes.get_shared_x_axes().get_siblings(axes), axes.get_shared_y_axes().get_siblings(axes)
        names = [any(get(one) for one in group) for get, group in zip(_LABELS, shared, strict=True)]
        if axes.axison and not all(names):
            raise ValueError(f"{name}: name both axes, with their units (set_xlabel, set_ylabel)")


def _check_letters(name: str, figure: Any) -> None:
    """Raise ValueError for letters that run beyond the figure's edge or over others."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in _letters(figure)]
    edge = figure.bbox.padded(1)  # a pixel for rounding
    for text, box in boxes:
        if not (edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1):
            raise ValueError(f"{name}: {text!r} runs beyond the figure's edge: shorten it or enlarge the figure")
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        if first.padded(-1).overlaps(second):
            raise ValueError(f"{name}: {one!r} and {other!r} overlap: move or shorten one, or enlarge the figure")


def _letters(figure: Any) -> Iterator[Any]:
    """Every text that one sees; of the ticks' labels, those within the axes' limits."""
    for axes in figure.axes:
        legends = [axes.get_legend().get_texts()] if axes.get_legend() else []
        ticks = []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        every = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts, *ticks, *itertools.chain(*legends)]
        yield from (text for text in every if text.get_visible() and text.get_text().strip())


_LABELS = (lambda axes: axes.get_xlabel(), lambda axes: axes.get_ylabel())
