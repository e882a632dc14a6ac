"""The executable: exit codes, where errors go, and how light `--help` is."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nanosam_cli import __version__
from nanosam_cli.commands import segment
from nanosam_cli.core.errors import BackendError, InputError, NanosamError, UsageError
from nanosam_cli.core.paths import resource
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


LONG = "n" * 300


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b"),
            "error: /a/b: Permission denied give a place that",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "nn"), "error: nn: File name too long give a shorter name"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "error: a/b: Not a directory a part of the path"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device free some space"),
        (RuntimeError("Symlink loop from 'a'"), "error: Symlink loop from 'a' links go round in a circle"),
        (MemoryError(), "error: there is not enough memory give smaller photos"),
        (RecursionError("maximum recursion depth exceeded"), "error: a file is nested too deeply"),
    ],
)
def test_what_the_machine_refuses_is_a_message(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("nanosam_cli.core.media.find_photos.find_photos", fail)
    ran = run_nanosam("segment", "a.jpg", "--box", "1,2,3,4")
    assert ran.code == 1
    assert ran.words.startswith(words)


def test_an_error_of_the_system_without_a_path_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError("a bug")

    monkeypatch.setattr("nanosam_cli.core.media.find_photos.find_photos", fail)
    with pytest.raises(OSError, match="a bug"):
        run_nanosam("segment", "a.jpg", "--box", "1,2,3,4")


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "@", "--box", "1,2,3,4"),
        ("segment", "cat.jpg", "--box", "1,2,30,40", "-o", "@"),
        ("segment", "cat.jpg", "--box", "1,2,30,40", "--format", "coco", "-o", "@/x.json"),
        ("segment", "cat.jpg", "--mask", "@"),
        ("segment", "cat.jpg", "--prompts", "@"),
        ("segment", "cat.jpg", "--detections", "@"),
        ("segment", "cat.jpg", "--pose", "@"),
        ("segment", "cat.jpg", "--box", "1,2,30,40", "--encoder", "@", "--decoder", "@"),
        ("track", "@", "--box", "1,2,3,4"),
        ("eval", "coco", "--images", "@"),
        ("eval", "coco", "--images", ".", "--annotations", "@"),
        ("eval", "davis", "@"),
        ("metrics", "@"),
        ("distill", "@"),
        ("distill", "nanosam-lite2", "--set", "data.root=@"),
        ("export", "all", "@"),
        ("build-engine", "@"),
        ("build-engine", "--fp32", "-o", "@"),
        ("download", "mobile-sam", "--mirror", "@"),
        ("benchmark", "--image", "@"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("place", [LONG, "cat.jpg/under", "loop"], ids=["too long", "below a file", "loop"])
def test_bad_places_are_one_message(
    arguments: tuple[str, ...], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(resource("examples", "cat.jpg"), "cat.jpg")
    Path("loop").symlink_to("loop")
    ran = run_nanosam(*(argument.replace("@", place) for argument in arguments))
    assert ran.code in (1, 2)
    assert "error" in ran.words.lower()
    assert not [path for path in Path().iterdir() if path.name not in ("cat.jpg", "loop")]  # nothing half-written


@pytest.mark.parametrize("home", [LONG, "cat.jpg", "loop"])
def test_a_cache_out_of_reach_counts_as_empty(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(resource("examples", "cat.jpg"), "cat.jpg")
    Path("loop").symlink_to("loop")
    monkeypatch.setenv("NANOSAM_HOME", home)
    ran = run_nanosam("segment", "cat.jpg", "--box", "10,20,300,280")
    assert ran.code == 0
    assert ran.words.count("cannot be entered") == (home == LONG)
    assert run_nanosam("doctor").code in (0, 1)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no endless file")
@pytest.mark.parametrize("option", ["--prompts", "--detections", "--class-names", "--pose", "--parts"])
def test_endless_files_are_refused(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(resource("examples"), "photos")
    more = {"--class-names": ["--detections", "photos/instances.json"], "--parts": ["--pose", "photos/instances.json"]}
    ran = run_nanosam("segment", "photos", option, "/dev/zero", *more.get(option, []))
    assert ran.code == 1
    assert "cannot read /dev/zero: it is a device, not a file" in ran.words


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no terminals that close")
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGHUP", 143), ("SIGINT", 130)])
@pytest.mark.parametrize(
    "error", ["KeyboardInterrupt", "ImportError"], ids=["as it comes", "made another by a library"]
)
def test_a_signal_ends_it_in_one_word(number: str, code: int, error: str) -> None:
    """Libraries that are interrupted while they are imported raise ImportError."""
    program = (
        "import os, signal\n"
        "from nanosam_cli.core.media import find_photos\n"
        "def stop(_):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), signal.{number})\n"
        "        signal.sigtimedwait([], 10)\n"
        "    except KeyboardInterrupt:\n"
        f"        raise {error}\n"
        "find_photos.find_photos = stop\n"
        "from nanosam_cli.app import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, "segment", "a.jpg", "--box", "1,2,3,4"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (code, "interrupted\n")


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir {gone} && "$@" segment {resource("examples", "cat.jpg")} --box 10,20,300,280'
    ran = subprocess.run(["sh", "-c", script, "sh", *RUN], cwd=gone, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


def test_a_locale_of_ascii_alone_stops_no_name(tmp_path: Path) -> None:
    photo = tmp_path / "ü.jpg"
    shutil.copy(resource("examples", "cat.jpg"), photo)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [*RUN, "segment", str(photo), "--box", "10,20,300,280", "-o", str(tmp_path / "ü.png")]
    ran = subprocess.run(command, env=environment, capture_output=True)
    assert (ran.returncode, b"\\xfc.png" in ran.stdout) == (0, True)


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


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nanosam seg", {"segment"}),
        ("nanosam segment a.jpg --model mob", {"mobile-sam"}),
        ("nanosam distill qu", {"quick"}),
        ("nanosam download coco-v", {"coco-val2017"}),
        ("nanosam build-engine nanosam-res", {"nanosam-resnet18"}),
        ("nanosam export dec", {"decoder"}),
        ("nanosam track 0 --part left-h", {"left-hand"}),
    ],
)
def test_completion_is_offered(line: str, offered: set[str]) -> None:
    words = line.split()
    script = subprocess.run(
        RUN,
        env={
            **os.environ,
            "_NANOSAM_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(script.stdout.split()) == offered


@pytest.mark.parametrize(
    "command", ["", "segment", "track", "eval coco", "eval davis", "metrics", "distill", "export", "doctor"]
)
def test_help_names_no_type_of_flags_and_keeps_the_indent_of_examples(command: str) -> None:
    ran = run_nanosam(*command.split(), "--help")
    assert ran.code == 0
    assert "--help" in ran.out
    assert "bool" not in ran.out
    examples = [line for line in ran.out.splitlines() if line.lstrip().startswith("nanosam ")]
    assert all(line.startswith("     nanosam") for line in examples)
    assert examples or not command


def test_errors_have_codes_of_their_own() -> None:
    assert {kind.exit_code for kind in (NanosamError, *NanosamError.__subclasses__())} == {1, 2}
