"""The only printer: results go to stdout, everything else to stderr.

Rich is imported on first use. `NO_COLOR`, `TERM` and `COLUMNS` are Rich's to honour; JSON never passes through it.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from nanosam_cli.core.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed
LONGEST = 4000  # characters of a message: an error may quote its input, which may be a file of any size
PLAIN_SECONDS = 10.0  # between two progress lines where stderr is a file or a pipe


class Advance(Protocol):
    """The callback that core is given: so many more done, and what else is worth showing, such as `loss=0.25`.

    `total` sets the total where it was not known before.
    """

    def __call__(self, amount: int = 1, /, *, total: int | None = None, **fields: object) -> None: ...


class _Level:
    """What `-q` and `-v` ask for."""

    quiet = False
    verbose = False


def configure(quiet: bool = False, verbose: bool = False) -> None:
    """Start anew. `-q` drops notes and progress, `-v` adds details; results, warnings and errors are always shown."""
    _Level.quiet, _Level.verbose = quiet, verbose
    if sys.stdout is None:  # closed by what started this process, as some services do
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale of ASCII alone must not stop a name with an accent
            stream.reconfigure(errors="backslashreplace")
    _console.cache_clear()


def be_quiet() -> None:
    _Level.quiet = True


def be_verbose() -> None:
    _Level.verbose = True


@cache
def _console(stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def info(message: str) -> None:
    """A note on how things go."""
    if not _Level.quiet:
        _say(message)


def detail(message: str) -> None:
    """A note that only `-v` shows."""
    if _Level.verbose:
        _say(message, style="dim")


def warn(message: str, hint: str | None = None) -> None:
    _say(message, hint, label="warning", style="yellow")


def error(message: str, hint: str | None = None) -> None:
    """What went wrong, where, and what to type next."""
    _say(message, hint, label="error", style="bold red")


def example(command: str) -> None:
    """After a usage error: a command that works."""
    _say(f"Example: {command}", style="dim")


def _say(message: str, hint: str | None = None, label: str | None = None, style: str = "") -> None:
    from rich.text import Text

    text = Text(f"{label}: ", style=style) if label else Text(style=style)
    text.append(_printable(_cut(message)), style="" if label else style)
    if hint:
        text.append(f"\n  {_printable(_cut(hint))}", style="cyan")
    _console(stderr=True).print(text, soft_wrap=True)  # a path that is cut in two cannot be copied


def _cut(message: str) -> str:
    more = len(message) - LONGEST
    return f"{message[:LONGEST]} ... and {more} characters more" if more > 0 else message


def text(line: str) -> None:
    """One line of the result, as it is."""
    with _above_bar():
        sys.stdout.write(_printable(line) + "\n")


def text_now(line: str) -> None:
    """One line of the result, out at once: what waits for it reads a pipe, and more may not come for hours."""
    text(line)
    with _above_bar():
        sys.stdout.flush()


def json_line(record: Mapping[str, object]) -> None:
    """One JSON object on one line of stdout, out at once so that a reader of the pipe sees it."""
    with _above_bar():
        sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
        sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A result for people. A column whose cells are all numbers is flushed right; floats show two decimals."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=None if title is None else Text(_printable(title), style="bold"), title_justify="left")
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    with _above_bar():
        _console(stderr=False).print(drawn)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
    return f"{value:.2f}" if isinstance(value, float) else _printable(str(value))


def _printable(message: str) -> str:
    """File names may hold bytes that are no text; they must not stop a message.

    Control characters, which names and servers may bring, would command the terminal: they are shown as escapes.
    """
    if any("\ud800" <= c <= "\udfff" for c in message):
        message = os.fsencode(message).decode("utf-8", "replace")
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], message)


class _Live:
    """The bar that is on the screen."""

    bar: Progress | None = None


@contextmanager
def _above_bar() -> Iterator[None]:
    """Where stdout is the same screen as the bar, the bar makes way for a line of the result.

    OutputError where stdout takes no more, but for a pipe that its reader has closed.
    """
    bar = _Live.bar if sys.stdout.isatty() else None
    if bar:
        bar.stop()
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror or error}") from error
    finally:
        if bar:
            bar.start()


@contextmanager
def progress(description: str, total: int | None, unit: str = "", done: int = 0) -> Iterator[Advance]:
    """Show how far a long job is, on stderr. Yields the callback for core.

    A bar with the remaining time on a terminal; elsewhere a plain line every PLAIN_SECONDS, so that a log of a night's
    work says where it is. `unit` is shown after the counts; "B" shows bytes as MB. `done` is what an earlier run has
    done, which says nothing of the speed of this one.
    """
    if _Level.quiet:
        yield _silent
    elif _console(stderr=True).is_terminal and not _console(stderr=True).is_dumb_terminal:
        with _bar(description, total, unit, done) as advance:
            yield advance
    else:
        yield _PlainProgress(description, total, unit, done)


def _silent(amount: int = 1, /, *, total: int | None = None, **fields: object) -> None:
    pass


@contextmanager
def _bar(description: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[extra]}", markup=False),
    )
    known = total
    # Rich would redirect stdout to the bar's stream, where a pipe's reader never sees it
    console = _console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(description, total=total, completed=done, counts=_counts(done, total, unit), extra="")

        def advance(amount: int = 1, /, *, total: int | None = None, **fields: object) -> None:
            nonlocal done, known
            done, known = done + amount, total if total is not None else known
            extra = _fields(fields) if fields else bar.tasks[0].fields["extra"]
            bar.update(task, completed=done, total=known, counts=_counts(done, known, unit), extra=extra)

        _Live.bar = bar
        try:
            yield advance
        finally:
            _Live.bar = None


class _PlainProgress:
    """Progress as occasional lines."""

    def __init__(self, description: str, total: int | None, unit: str, done: int) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._done = self._before = done
        self._extra = ""
        self._start = self._last = monotonic()

    def __call__(self, amount: int = 1, /, *, total: int | None = None, **fields: object) -> None:
        self._done += amount
        self._total = total if total is not None else self._total
        self._extra = _fields(fields) or self._extra
        now = monotonic()
        if now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        parts = [_counts(self._done, self._total, self._unit), f"elapsed {_clock(now - self._start)}"]
        if self._total is not None and self._before < self._done <= self._total:
            pace = (now - self._start) / (self._done - self._before)
            parts.append(f"ETA {_clock(pace * (self._total - self._done))}")
        _say(f"{self._description}: {', '.join([*parts, self._extra] if self._extra else parts)}")


def _counts(done: int, total: int | None, unit: str) -> str:
    if unit == "B":
        shown, of = f"{done / 1e6:.1f}", "" if total is None else f"/{total / 1e6:.1f}"
        return f"{shown}{of} MB"
    return f"{done}{'' if total is None else f'/{total}'}{unit and f' {unit}'}"


def _fields(fields: Mapping[str, object]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in fields.items()
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
