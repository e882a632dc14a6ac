"""One run an output."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.system.journal import Journal, check_free
from nanosam_cli.core.system.lock import lock_path, only_run


def test_the_second_is_told_at_once_and_the_lock_goes_with_the_first(tmp_path: Path) -> None:
    place = tmp_path / "out.json"
    with only_run(place):
        with pytest.raises(OutputError, match=r"another run is at work on .*out\.json") as caught, only_run(place):
            pass
        assert caught.value.hint == "wait until it has ended, or give another place with `-o`"
    with only_run(place):
        assert [path.name for path in tmp_path.iterdir()] == [".out.json.lock"]
    assert not list(tmp_path.iterdir())


def test_a_lock_of_a_killed_process_is_nobodys(tmp_path: Path) -> None:
    place = tmp_path / "out.json"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from nanosam_cli.core.system.lock import only_run\n"
        "with only_run(Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(place)])
    assert killed.returncode == -signal.SIGKILL
    assert lock_path(place).exists()
    with only_run(place):
        pass
    assert not lock_path(place).exists()


def _add(path: Path, answers: multiprocessing.SimpleQueue[str]) -> None:
    try:
        with Journal(path, {"a": 1}, resume=True) as journal:
            journal.write({"pid": os.getpid()})
            answers.put("did it")
            while len(path.read_bytes().splitlines()) < 2 or not (path.parent / "told").exists():
                pass
    except OutputError as error:
        (path.parent / "told").touch()
        answers.put(str(error))


def test_of_two_processes_on_one_journal_one_works(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    both = [context.Process(target=_add, args=(tmp_path / "out.jsonl", answers)) for _ in range(2)]
    for process in both:
        process.start()
    found = {answers.get(), answers.get()}
    for process in both:
        process.join()
    assert found == {"did it", f"another run is at work on {tmp_path / 'out.jsonl'}"}


def test_a_journal_that_is_refused_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Journal(path, {"a": 1}) as journal:
        journal.write({"photo": "a"})
        with pytest.raises(OutputError, match="another run is at work"):
            check_free(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="holds a run that was not finished"):
        check_free(path)
    with pytest.raises(InputError, match="other settings: a was 1, is 2"):
        Journal(path, {"a": 2}, resume=True)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where no file can be made")
def test_a_place_where_no_file_can_be_made_is_said() -> None:
    with pytest.raises(OutputError, match=r"cannot write /proc/x\.png"), only_run(Path("/proc/x.png")):
        pass
