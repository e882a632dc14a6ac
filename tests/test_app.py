"""The executable: exit codes, where errors go, and how light `--help` is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanosam_cli import __version__
from nanosam_cli.commands import segment
from nanosam_cli.core.errors import BackendError, InputError, NanosamError, UsageError
from tests.command_line import run_nanosam

RUN = (sys.executable, "-c", "from nanosam_cli.app import main; main()")


def test_version_and_help() -> None:
    assert run_nanosam("--version").out == f"nanosam {__version__}\n"
    for arguments in (("--help",), ("-h",), ("segment", "--help")):
        ran = run_nanosam(*arguments)
        assert ran.code == 0
        assert "Usage: nanosam" in ran.out
        assert not ran.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("no such file: a.jpg", "check the path"), 1, "error: no such file: a.jpg check the path"),
        (BackendError("no runtime"), 1, "error: no runtime"),
        (UsageError("box is empty"), 2, "error: box is empty"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(segment, "_report_unmatched", fail)
    monkeypatch.setattr("nanosam_cli.core.media.find_photos.find_photos", lambda _: [Path("a.jpg")])
    ran = run_nanosam("segment", "a.jpg", "--box", "1,2,3,4")
    assert (ran.code, ran.words, ran.out) == (code, words, "")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("nanosam_cli.core.media.find_photos.find_photos", fail)
    with pytest.raises(ZeroDivisionError):
        run_nanosam("segment", "a.jpg", "--box", "1,2,3,4")


def test_unknown_command_and_no_command() -> None:
    ran = run_nanosam("segmnet")
    assert ran.code == 2
    assert "segment" in ran.words  # the nearest name
    assert run_nanosam().code == 2


@pytest.mark.parametrize("position", [("-q", "segment"), ("segment", "-q")])
def test_quiet_before_or_after_the_command(position: tuple[str, str], tmp_path: Path) -> None:
    ran = run_nanosam(*position, tmp_path / "none.jpg", "--box", "1,2,3,4")
    assert "error: no such file" in ran.err


def test_a_closed_pipe_ends_quietly() -> None:
    process = subprocess.Popen([*RUN, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert errors == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
@pytest.mark.parametrize("form", ["", "--json"])  # which is written at the end, or line by line
def test_results_that_stdout_does_not_take_are_one_message(form: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text("[]")
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([*RUN, "metrics", results, *form.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (1, "error: cannot write to stdout: No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes stdout")
def test_nobody_listens() -> None:
    """Some services start a process without a stdout."""
    ran = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *RUN, "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_completion_is_offered() -> None:
    script = subprocess.run(
        RUN,
        env={**os.environ, "_NANOSAM_COMPLETE": "complete_bash", "COMP_WORDS": "nanosam seg", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert script.stdout.split() == ["segment"]


def test_errors_have_codes_of_their_own() -> None:
    assert {kind.exit_code for kind in (NanosamError, *NanosamError.__subclasses__())} == {1, 2}
