"""Reproductions of faults in public packages: pages are whole, blocks are short, what they print is compared."""

import ast

import found
import pytest

PAGES = [found.read(path) for path in sorted(found.PAGES.glob("*.md")) if path.stem != "README"]
FAULTS = [pytest.param(fault, id=f"{page.package}-{i}") for page in PAGES for i, fault in enumerate(page.faults, 1)]
PAGE = """# A package

Install: `--pre a-package[extra]>=2 jax`

## 1. `f`: wrong

**Text.** It is.

```python
print(f(0), "nan")
```

```text
0.0 nan
```
"""


def test_a_page_is_read(tmp_path):
    path = tmp_path / "a-package.md"
    path.write_text(PAGE)
    fault = found.Fault("a-package", "1. `f`: wrong", 'print(f(0), "nan")\n', "0.0 nan\n")
    assert found.read(path) == found.Page("a-package", ["--pre", "a-package[extra]>=2", "jax"], [fault])
    path.write_text(PAGE.replace("Install", "Nothing"))
    with pytest.raises(ValueError, match="what to install"):
        found.read(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.package)
def test_every_fault_of_a_page_is_found(page):
    text = (found.PAGES / f"{page.package}.md").read_text()
    assert page.faults and len(page.faults) == text.count("\n## ") == text.count("```python")
    assert text.count("**Title.**") == text.count("**Truth.**") == text.count("**Known?**") == len(page.faults)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reproduction_is_short_and_needs_no_refgrad(fault):
    assert len(fault.code.splitlines()) <= 15
    imports = [node for node in ast.walk(ast.parse(fault.code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports and "refgrad" not in "".join(map(ast.unparse, imports))
    assert fault.printed.strip()


def test_the_readme_names_every_fault_once():
    rows = [line for line in (found.PAGES / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert len(rows) == len(FAULTS)
    assert all(sum(f"]({page.package}.md)" in row for row in rows) == len(page.faults) for page in PAGES)


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("slope 1.0001\n", "slope 1.0", True),
        ("slope  1.2", "slope 1.0", False),
        ("slope -1.0", "slope 1.0", False),
        ("[nan -inf 1e-3]", "[nan -inf 0.001]", True),
        ("0.0", "nan", False),
        ("float32", "float64", False),
        ("1.0 2.0", "1.0", False),
        ("TypeError: a", "ValueError: a", False),
    ],
)
def test_words_are_equal_and_numbers_agree(got, expected, same):
    assert found.agrees(got, expected, 1e-2) is same


@pytest.mark.parametrize(
    ("code", "verdict"),
    [("print(1.0)", "reproduced"), ("print(2.0)", "no longer"), ("import nothing_of_that_name", "could not run")],
)
def test_a_reproduction_has_a_verdict(code, verdict):
    settings = found.Settings(["jax"], "", 1e-2, 60.0)
    assert found.verdict(found.environment(PAGES[0], ""), found.Fault("", "", code, "1.0\n"), settings) == verdict


def test_what_is_not_reproduced_is_a_failure():
    rows = [["a", "a 1", "f", "reproduced"], ["a", "a 1", "g", "no longer"], ["b", "", "h", "could not run"]]
    result = found.result(rows)
    assert result.answer == ["Of 3 faults: 1 reproduced, 1 no longer, 1 could not run."]
    assert len(result.failures) == 2


def test_an_unknown_page_is_refused():
    with pytest.raises(ValueError, match="no page for nothing"):
        found.Settings(["nothing"], "", 1e-2, 60.0)
