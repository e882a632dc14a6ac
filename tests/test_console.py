"""The printer: what goes where, and that nothing is cut, coloured or lost."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from nanosam_cli import console


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "40")
    console.configure()
    yield
    console.configure()


Captured = pytest.CaptureFixture[str]
LONG = "/a/very/long/path/" + "x" * 60 + "/[bold]photo[/bold].jpg"


def test_messages_go_to_stderr_whole(capsys: Captured) -> None:
    console.info(LONG)
    console.warn(LONG, "a hint")
    console.error(LONG)
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == [LONG, f"warning: {LONG}", "  a hint", f"error: {LONG}"]


def test_names_command_no_terminal(capsys: Captured) -> None:
    console.warn("class \x1b[2Jcat\r\x9b", "a\x07hint")
    console.text("\x1b]0;title\x07")
    console.table(("name",), [("\x1b[31mred",)])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert err.splitlines() == ["warning: class \\x1b[2Jcat\\r\\x9b", "  a\\x07hint"]
    assert "\\x1b]0;title\\x07" in out


def test_messages_that_quote_a_whole_file_are_cut(capsys: Captured) -> None:
    console.error("x" * 10_000_000)
    err = capsys.readouterr().err
    assert len(err) < console.LONGEST + 100
    assert err.endswith(f"... and {10_000_000 - console.LONGEST} characters more\n")


@pytest.mark.parametrize(
    ("quiet", "verbose", "expected"),
    [
        (False, False, ["info", "warning: warn", "error: error"]),
        (True, False, ["warning: warn", "error: error"]),
        (False, True, ["info", "detail", "warning: warn", "error: error"]),
    ],
)
def test_levels(capsys: Captured, quiet: bool, verbose: bool, expected: list[str]) -> None:
    console.configure(quiet, verbose)
    for say in (console.info, console.detail, console.warn, console.error):
        say(say.__name__)
    console.text("result")
    out, err = capsys.readouterr()
    assert err.splitlines() == expected
    assert out == "result\n"


def test_json_is_one_line_however_long(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    record = {"image": LONG, "numbers": list(range(100))}
    console.json_line(record)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == record


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_colour(capsys: Captured, monkeypatch: pytest.MonkeyPatch, variable: str, coloured: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    console.configure()
    console.error("wrong")
    assert ("\x1b[" in capsys.readouterr().err) == coloured


def test_table_shows_every_cell(capsys: Captured) -> None:
    console.table(("name", "area", "iou", "box"), [(LONG, 7, 0.678, [1.5, 2.0]), ("b", 100, None, None)])
    out, err = capsys.readouterr()
    assert not err
    assert "".join(part.strip() for part in out.replace("│", "|").split("|")).count("x") >= 60  # folded, not cut
    for cell in ("100", "0.68", "-"):
        assert cell in out


def test_names_that_are_no_text(capsys: Captured) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    console.text(name)
    console.warn(name)
    out, err = capsys.readouterr()
    assert out == "caf\ufffd.jpg\n"
    assert "caf" in err


def test_progress_without_a_terminal(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(console, "monotonic", lambda: next(clock))
    with console.progress("segment", 4, "photos") as advance:
        advance()
        advance(2, loss=0.25)
    assert capsys.readouterr().err.splitlines() == [
        "segment: 1/4 photos, elapsed 0:20, ETA 1:00",
        "segment: 3/4 photos, elapsed 0:40, ETA 0:13, loss 0.25",
    ]


def test_progress_of_a_resumed_job(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(console, "monotonic", lambda: next(clock))
    with console.progress("train", 100, "steps", done=90) as advance:
        advance()
    assert capsys.readouterr().err == "train: 91/100 steps, elapsed 0:20, ETA 3:00\n"


def test_progress_is_only_occasional(capsys: Captured) -> None:
    with console.progress("segment", 1000) as advance:
        for _ in range(1000):
            advance()
    assert capsys.readouterr().err == ""


def test_progress_learns_its_total_and_counts_bytes(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100000, 3600))
    monkeypatch.setattr(console, "monotonic", lambda: next(clock))
    with console.progress("download", None, "B") as advance:
        advance(1_000_000)
        advance(0, total=4_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "download: 1.0 MB, elapsed 1:00:00",
        "download: 1.0/4.0 MB, elapsed 2:00:00, ETA 6:00:00",
    ]


def test_quiet_progress(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    console.configure(quiet=True)
    with console.progress("segment", 2) as advance:
        advance()
    assert capsys.readouterr().err == ""


def test_results_pass_by_the_bar(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bar on stderr's terminal, stdout stays stdout."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes it for a terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.configure()
    with console.progress("segment", 3, "photos") as advance:
        for number in range(3):
            console.json_line({"photo": number})
            advance(loss=0.5)
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [{"photo": number} for number in range(3)]
    assert "segment" in err
    assert "3/3 photos" in err
