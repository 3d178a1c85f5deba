# SPDX-License-Identifier: GPL-2.0-only
"""The cache: built once, whole or not at all, cleaned up."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from hvhost import cache
from hvhost.cache import PrepareError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("SYNTHRDP_CACHE", str(tmp_path))
    return tmp_path


def make(new: Path) -> None:
    """Something to keep."""
    new.write_text("made")


def get(name: str) -> Path:
    """An entry."""
    return cache.get("kind", name, make, "a thing", 1)


def test_keys_tell_parts_apart() -> None:
    """Neither order nor borders are lost."""
    keys = {cache.key("ab", "c"), cache.key("a", "bc"), cache.key("c", "ab"), cache.key("abc"),
            cache.key(["ab", "c"]), cache.key(["a", "bc"]), cache.key(["ab"], "c")}
    assert len(keys) == 7
    assert cache.key("ab", b"c") == cache.key("ab", "c")


def test_tree_keys_follow_content_names_and_modes(tmp_path: Path) -> None:
    """And nothing else: not the time, not the place."""
    tree = tmp_path / "tree"
    tree.mkdir()
    file = tree / "a"
    file.write_text("one")
    seen = {cache.tree_key(tree)}
    file.chmod(0o755)
    seen.add(cache.tree_key(tree))
    file.write_text("two")
    seen.add(cache.tree_key(tree))
    file.rename(tree / "b")
    seen.add(cache.tree_key(tree))
    assert len(seen) == 4
    os.utime(tree / "b", (1, 1))
    assert cache.tree_key(tree) in seen


def test_built_once_by_many(capsys: pytest.CaptureFixture[str]) -> None:
    """The others wait, and get what one has built."""
    built: list[int] = []

    def slow(new: Path) -> None:
        built.append(1)
        time.sleep(0.2)
        make(new)
    threads = [threading.Thread(target=cache.get, args=("kind", "x", slow, "a thing", 1))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]
    told = capsys.readouterr().err
    assert told.count("building a thing, about 1 s") == 1
    assert told.count("waiting for another process that makes a thing") == 3


def test_a_failure_leaves_nothing(place: Path) -> None:
    """The next one starts anew."""
    def fail(new: Path) -> None:
        make(new)
        raise PrepareError("no")
    with pytest.raises(PrepareError):
        cache.get("kind", "x", fail, "a thing", 1)
    assert list((place / "kind").iterdir()) == []
    assert get("x").read_text() == "made"


def test_a_full_disk_is_said_in_a_line() -> None:
    """Whoever notices it: Python, or a program."""
    def full(new: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(new))
    with pytest.raises(PrepareError, match="no space left for a thing"):
        cache.get("kind", "x", full, "a thing", 1)
    with pytest.raises(PrepareError, match="no space left for a thing"):
        cache.run(["cp", "/etc/passwd", "/dev/full"], "a thing")


def test_a_failing_command_is_said_in_a_line(place: Path) -> None:
    """With its last words; all of them are kept."""
    with pytest.raises(PrepareError, match=r"^a thing failed \(E: second\); all of it in ") as told:
        cache.run(["sh", "-c", "echo first; echo E: second; exit 1"], "a thing")
    assert "\n" not in str(told.value)
    assert (place / "last-failure.log").read_text() == "first\nE: second\n"
    with pytest.raises(PrepareError, match="a thing: no-such-program is not installed"):
        cache.run(["no-such-program"], "a thing")


def test_what_nobody_wants_goes(place: Path) -> None:
    """Entries not used for a day, but for the newest; and leavings of killed builds."""
    old = time.time() - 2 * cache.UNUSED
    for number in range(4):
        os.utime(get(f"old{number}"), (old + number, old + number))
    (place / "kind" / ".new-killed").write_text("")
    os.utime(place / "kind" / ".new-killed", (old, old))
    get("new")
    assert {path.name for path in (place / "kind").iterdir()} == {"new", "old3"}


def test_an_entry_in_use_stays() -> None:
    """Asking for it counts."""
    old = time.time() - 2 * cache.UNUSED
    os.utime(get("wanted"), (old, old))
    assert cache.entry("kind", "wanted")
    for number in range(3):
        get(f"more{number}")
    assert cache.entry("kind", "wanted")
    assert cache.entry("kind", "missing") is None
