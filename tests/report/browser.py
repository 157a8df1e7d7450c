"""A page looked at in a real browser: everything that is wrong with it, in words."""

import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1440, "height": 900}

FIGURES = """() => [...document.querySelectorAll('figure')].flatMap((figure, n) => {
  const wrong = [], svg = figure.querySelector('svg');
  if (!svg) return [`figure ${n} has no picture`];
  const box = svg.getBoundingClientRect(), drawn = svg.querySelectorAll('path, use, rect, circle');
  if (box.width < 100 || box.height < 50) wrong.push(`figure ${n} is not visible`);
  if (![...drawn].some((part) => part.getBoundingClientRect().width > 20)) wrong.push(`figure ${n} is empty`);
  const named = (svg.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id));
  if (svg.getAttribute('role') !== 'img' || !named.every((part) => part?.textContent.trim()))
    wrong.push(`figure ${n} has no text alternative`);
  return wrong;
})"""
# Figures fit the screen, and those that one taps show letters that can be read.
FITS = """() => [...document.querySelectorAll('figure svg')].flatMap((svg, n) => {
  const over = svg.getBoundingClientRect().width > document.documentElement.clientWidth;
  return over ? [`figure ${n} does not fit a phone`] : [];
})"""
# The height of the smallest letters that the house's figures have, 9 points of the picture's own units.
LETTERS = """() => [...document.querySelectorAll('figure svg')].flatMap((svg, n) => {
  svg.closest('.picture').focus();
  const height = 9 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return height < 8 ? [`the letters of figure ${n} are ${height.toFixed(1)} px high on a phone`] : [];
})"""
IDS = """() => {
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  const twice = new Set(ids.filter((id, n) => ids.indexOf(id) !== n));
  const links = [...document.querySelectorAll('a[href^="#"]')].map((a) => decodeURIComponent(a.hash.slice(1)));
  const lost = new Set(links.filter((id) => !document.getElementById(id)));
  return [...[...twice].map((id) => `the id ${id} stands twice`), ...[...lost].map((id) => `#${id} leads nowhere`)];
}"""
WIDE = """() => {
  const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  return over > 0 ? [`the page is ${over} px too wide`] : [];
}"""
WHOLE = """() => [...document.querySelectorAll('.scroll')].flatMap((box) =>
  box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1
    ? [`the table "${box.getAttribute('aria-label')}" is cut: ${box.scrollWidth} of ${box.clientWidth} px`] : [])"""
INDEX = """() => [...document.querySelectorAll('details.part')].flatMap((part) =>
  document.querySelector(`nav a[href="#${part.id}"]`)?.checkVisibility() ? [] : [`the index lacks ${part.id}`])"""
FOLDED = """() => [...document.querySelectorAll('details.part')].filter((part) => part.open).map((part) => part.id)"""
COLOURS = """() => [document.body, document.querySelector('.command code')].map((e) => {
  const style = getComputedStyle(e);
  return `${style.color} on ${style.backgroundColor}`;
})"""
# The items that a filter is about, each as [its text, whether it is shown, its value for a choice].
ITEMS = """([id, key]) => {
  const rows = [...document.getElementById(id).tBodies[0].rows];
  return rows.map((row) => [row.textContent, row.checkVisibility(), row.dataset[key] ?? '']);
}"""


@contextmanager
def browser():
    """A browser of this machine, started. Fails, and says how to get one, where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(
            "no browser here to open the page with; on Debian: apt-get install --no-install-recommends "
            f"chromium-headless-shell (looked for {', '.join(NAMES)})"
        )
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


def problems(started, path, unfolded=()):
    """Faults of the page at `path`: errors, requests, figures, ids, folds, tables, colours, width.

    The sections `unfolded` are open from the start.
    """
    page = started.new_page(viewport=DESK, color_scheme="light")
    errors, requests = [], []
    page.on("console", lambda message: errors.append((message.type, message.text)))
    page.on("pageerror", lambda error: errors.append(("error", str(error))))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    found = [f"{name} is not folded" for name in page.evaluate(FOLDED) if name not in unfolded]
    page.evaluate("() => document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    found += page.evaluate(FIGURES) + page.evaluate(IDS) + page.evaluate(WHOLE) + page.evaluate(INDEX)
    found += [*_sorting(page), *_filtering(page), *_colours(page)]
    page.set_viewport_size(PHONE)
    found += page.evaluate(WIDE) + page.evaluate(FITS) + page.evaluate(LETTERS)
    page.close()
    found += [f"error: {text}" for kind, text in errors if kind == "error"]
    return found + [f"request: {url}" for url in requests if not url.startswith(("file:", "data:"))]


def _column(table, n):
    return table.evaluate(
        "(t, n) => [...t.tBodies[0].rows].map((r) => r.cells[n].dataset.sort ?? r.cells[n].textContent.trim())", n
    )


def _number(text):
    return float(text.replace(",", "").replace("−", "-").rstrip("%"))


def _sorting(page):
    """Every sortable table by its first column of numbers, up and down; by its first column where it has none."""
    for table in page.locator("table.sortable").all():
        name = table.get_attribute("id")
        if not table.locator("thead button").count():
            yield f"{name} has no headers to sort by"
            continue
        headers = table.locator("thead th").all()
        columns = [n for n, header in enumerate(headers) if "n" in (header.get_attribute("class") or "").split()]
        for n in columns[:1] or [0]:
            for direction in ("ascending", "descending"):
                headers[n].locator("button").evaluate("button => button.click()")
                if headers[n].get_attribute("aria-sort") != direction:
                    yield f"{name} does not say that it is {direction}"
                if columns and not _in_order([cell for cell in _column(table, n) if cell], direction):
                    yield f"{name} is not {direction} by column {n}"


def _in_order(cells, direction):
    try:
        numbers = [_number(cell) for cell in cells]
    except ValueError:
        return True  # shapes such as 32×96, which sort as text
    return numbers == sorted(numbers, reverse=direction == "descending")


def _filtering(page):
    """Every text box leaves just the items that hold its words, every choice just its rows."""
    for box in page.locator("input[data-filter]").all():
        id = box.get_attribute("data-filter")
        last = page.evaluate(ITEMS, [id, ""])[-1][0].split()[0]
        for word in (last, "no such text"):
            box.fill(word)
            found = page.evaluate(ITEMS, [id, ""])
            if any(shown != (word.lower() in text.lower()) for text, shown, _ in found):
                yield f"{id} does not show just what has {word!r}"
        box.fill("")
    for select in page.locator("select[data-choose]").all():
        id, key = select.get_attribute("data-choose"), select.get_attribute("data-key")
        value = page.evaluate(ITEMS, [id, key])[-1][2]
        select.select_option(value)
        if any(shown != (one == value) for _, shown, one in page.evaluate(ITEMS, [id, key])):
            yield f"choosing {value} does not show just its rows"
        select.select_option("")


def _colours(page):
    """The machine's dark setting and the page's own switch both change ink and paper."""
    light = page.evaluate(COLOURS)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(COLOURS)
    page.emulate_media(color_scheme="light")
    if light == dark:
        yield "the page looks the same in the dark"
    page.locator("#theme").evaluate("button => button.click()")
    if page.evaluate(COLOURS) != dark:
        yield "the switch does not change the colours"
    page.locator("#theme").evaluate("button => button.click()")
