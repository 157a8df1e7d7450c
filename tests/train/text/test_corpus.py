"""Documents: in one order, each once, hidden ones left out; bad paths named; the default is the same everywhere."""

import os
import sysconfig

import pytest

from refgrad.train.text.corpus import document, documents


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_folder_in_order(tmp_path):
    fill(tmp_path, ["b.txt", "a/z", "a/b/c", "B", ".git/x", "__pycache__/m.pyc", "a/.hidden"])
    (tmp_path / "empty").touch()
    found = [str(each.path.relative_to(tmp_path)) for each in documents([tmp_path])]
    assert found == ["B", "b.txt", "a/z", "a/b/c"]
    assert [each.size for each in documents([tmp_path])] == [1, 5, 3, 5]


def test_paths_in_their_order_and_each_once(tmp_path):
    fill(tmp_path, ["a", "b", "c"])
    found = documents([tmp_path / "c", tmp_path, tmp_path / "a"])
    assert [each.path.name for each in found] == ["c", "a", "b"]
    assert documents(tmp_path / "a") == documents([str(tmp_path / "a")])
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert len(documents([tmp_path])) == 3


def test_the_standard_library():
    found = documents()
    names = [each.path.name for each in found]
    assert {"argparse.py", "tokenize.py"} <= set(names)
    assert all(name.endswith(".py") and not name.startswith("_sysconfigdata") for name in names)
    parts = {part for each in found for part in each.path.parts[-3:-1]}
    assert not parts & {"test", "tests", "idle_test", "site-packages"}
    assert sum(each.size for each in found) > 5_000_000
    assert found == documents(None)


def test_a_distribution_adds_nothing_to_the_standard_library(tmp_path, monkeypatch):
    fill(tmp_path, ["ast.py", "json/decoder.py", "_sysconfigdata__linux.py", "test/test_ast.py"])
    (tmp_path / "sitecustomize.py").symlink_to(tmp_path / "gone")  # Debian's points into /etc
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert [each.path.name for each in documents()] == ["ast.py", "decoder.py"]


def test_bad_paths_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        documents([tmp_path / "nowhere"])
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match=r"holds no text \(1 files, all empty\)"):
        documents([tmp_path])
    with pytest.raises(ValueError, match="the list of files holds no text"):
        documents([])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is not a regular file"):
        documents([tmp_path])
    os.remove(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="gone"):
        documents([tmp_path])


@pytest.mark.parametrize("path", ["", " ", "a\0b"])
def test_texts_that_are_no_paths_are_named(path):
    with pytest.raises(ValueError, match=r"in the list of files is not a path: name a file or a folder"):
        documents([path])


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}])
def test_links_in_a_circle_are_named(links, tmp_path):
    (tmp_path / "text").write_text("text")
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    for path in (tmp_path, tmp_path / "a"):
        with pytest.raises(ValueError, match=r"a is a symbolic link that leads back to itself: remove it"):
            documents([path])
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path, target_is_directory=True)  # folders that are links are not walked
    (tmp_path / "b").unlink(missing_ok=True)
    assert [each.path.name for each in documents([tmp_path])] == ["text"]


def test_unreadable_is_named(tmp_path, monkeypatch):
    fill(tmp_path, ["secret"])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read all, and tests may run as root
    with pytest.raises(PermissionError, match=r"secret cannot be read: allow it"):
        document(tmp_path / "secret")
