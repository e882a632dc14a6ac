"""Real signals to real processes, wherever they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

SIGNALS = [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these signals are POSIX's")

# work amid a library that swallows what Python's handlers raise, as builders of engines do
_PROGRAM = """
import sys, time
from pathlib import Path
from nanosam_cli.core.media import find_photos
from nanosam_cli.core.system.ending import disposable
from nanosam_cli.core.system.files import atomic_write
from nanosam_cli.core.system.lock import only_run
from nanosam_cli.core.system.temporary import scratch_folder
def deaf(seconds, begun=None):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if begun:
                print(begun, flush=True)  # a signal that comes now is swallowed
                begun = None
            time.sleep(end - time.monotonic())
        except KeyboardInterrupt:
            print("swallowed", file=sys.stderr, flush=True)
def work(_):
    {body}
    raise SystemExit(0)
find_photos.find_photos = work
from nanosam_cli.app import main
main()
"""
_DISPOSABLE = """
    with disposable(), only_run(Path("out.onnx")), scratch_folder() as folder, atomic_write(Path("out.onnx")) as file:
        (folder / "graph.onnx").touch()
        print(folder, flush=True)
        deaf(60)
"""
_KEPT = """
    deaf({seconds}, "at work")
"""


def started(body: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", _PROGRAM.format(body=body), "segment", "a.jpg", "--box", "1,2,3,4"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, cwd=folder, **pipes)


@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_work_of_which_nothing_is_kept_ends_at_once(tmp_path: Path, name: str, code: int) -> None:
    """Nothing is raised into its library; its lock, its temporary file and its scratch folder go too."""
    with started(_DISPOSABLE, tmp_path) as process:
        assert process.stdout is not None
        scratch = Path(process.stdout.readline().strip())
        assert len([*tmp_path.iterdir()]) == 2
        assert [path.name for path in scratch.iterdir()] == ["graph.onnx"]
        start = monotonic()
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=30)
        assert monotonic() - start < 10  # far less, where the machine is not busy
    assert process.returncode == code
    assert errors == "interrupted\n"
    assert not scratch.exists()
    assert not list(tmp_path.iterdir())


def test_work_that_is_kept_says_why_it_goes_on(tmp_path: Path) -> None:
    with started(_KEPT.format(seconds=2.5), tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0  # what it was about is done
    assert errors == "swallowed\nwaiting for what is under way to end; Ctrl-C once more leaves it as it is\n"


def test_a_second_ctrl_c_ends_it_all_the_same(tmp_path: Path) -> None:
    with started(_KEPT.format(seconds=60), tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "waiting for what is under way" in process.stderr.readline() + process.stderr.readline()
        start = monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert monotonic() - start < 10
    assert process.returncode == 130
    assert errors.endswith("interrupted\n")


def test_signals_of_a_child_are_not_its_parents(tmp_path: Path) -> None:
    """Such as those that end processes which make crops."""
    body = """
    import os, signal
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        print("child", flush=True)
        time.sleep(60)
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    time.sleep(1.5)
"""
    with started(body, tmp_path) as process:
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


_EARLY = """
import builtins, os, signal
load = builtins.__import__
def interrupted(name, *arguments):
    if name == "typer":
        os.kill(os.getpid(), signal.{name})
    return load(name, *arguments)
builtins.__import__ = interrupted
from nanosam_cli.entry import main
main()
"""


@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_a_signal_amid_the_first_imports_ends_it_in_one_word(name: str, code: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ran = subprocess.run([sys.executable, "-c", _EARLY.format(name=name)], capture_output=True, env=environment)
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, b"", b"interrupted\n")


def test_the_executable_runs_the_command_line() -> None:
    program = "import sys; sys.argv = ['nanosam', 'segment']; from nanosam_cli.entry import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment)
    assert ran.returncode == 2
    assert b"Missing argument" in ran.stderr
