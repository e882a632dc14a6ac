from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.system.cache import cache_errors, one_at_a_time, unfinished, unfinished_path


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "made"

    def break_off() -> None:
        with unfinished(target) as temporary:
            (temporary / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert list(target.parent.iterdir()) == []
    left = unfinished_path(target)  # by a process that was killed
    left.mkdir()
    (left / "stale").write_text("stale")
    with unfinished(target) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "whole").write_text("whole")
        temporary.rename(target)
    assert [path.name for path in target.parent.iterdir()] == ["made"]


def test_the_second_waits_and_is_told(tmp_path: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with one_at_a_time(tmp_path / "x", order.append, "making") as waited:
            order.append(f"second, waited: {waited}")

    worker = threading.Thread(target=second)
    worker.start()
    with one_at_a_time(tmp_path / "x", order.append, "making") as waited:
        inside.set()
        while not order:  # until it says that it waits
            time.sleep(0.001)
        order.append(f"first, waited: {waited}")
    worker.join()
    assert order == ["another process is making x; waiting for it", "first, waited: False", "second, waited: True"]


@pytest.mark.parametrize(
    ("number", "words", "hint"),
    [
        (errno.ENOSPC, "disk full", "free some space"),
        (errno.EROFS, "permission denied", "NANOSAM_HOME"),
        (errno.EIO, "Input/output error", "NANOSAM_HOME"),
    ],
)
def test_what_the_disk_refuses(tmp_path: Path, number: int, words: str, hint: str) -> None:
    with pytest.raises(OutputError, match=words) as caught, cache_errors(tmp_path / "x"):
        raise OSError(number, "Input/output error")
    assert hint in (caught.value.hint or "")
