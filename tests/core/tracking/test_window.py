"""The window's clicks and keys, without a display: tkinter is played by a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nanosam_cli import load_predictor
from nanosam_cli.core.errors import BackendError
from nanosam_cli.core.media.video import VideoFrame
from nanosam_cli.core.tracking.run import TrackingRun
from nanosam_cli.core.tracking.window import TrackWindow
from tests.video_data import picture


class Widget:
    """A root or a label that remembers what it is bound to and shows."""

    made: list[Widget]

    def __init__(self, *_: Any, **__: Any) -> None:
        self.bound: dict[str, Callable[[Any], None]] = {}
        self.shown: Any = None
        Widget.made.append(self)

    def bind(self, event: str, action: Callable[[Any], None]) -> None:
        self.bound[event] = action

    def configure(self, image: Any) -> None:
        self.shown = image

    def title(self, _: str) -> None: ...
    def pack(self) -> None: ...
    def protocol(self, _: str, action: Callable[[], None]) -> None: ...
    def update(self) -> None: ...
    def destroy(self) -> None: ...
    def winfo_screenheight(self) -> int:
        return 60

    def winfo_screenwidth(self) -> int:
        return 1000


@pytest.fixture
def tkinter(monkeypatch: pytest.MonkeyPatch) -> list[Widget]:
    module: Any = ModuleType("tkinter")
    Widget.made = []
    module.Tk = module.Label = Widget
    module.TclError = RuntimeError
    module.PhotoImage = lambda **options: options["data"]
    monkeypatch.setitem(sys.modules, "tkinter", module)
    return Widget.made


def test_clicks_and_keys(tkinter: list[Widget], own_files: tuple[Path, Path]) -> None:
    with load_predictor(encoder=own_files[0], decoder=own_files[1]) as predictor:
        run = TrackingRun(predictor, [])
        frames = (VideoFrame(index, Fraction(index, 10), picture(index), f"{index:05}") for index in range(9))
        tracked = run.frames(frames)
        with TrackWindow("a", run) as window:
            root, label = tkinter
            assert window.show(next(tracked))
            assert label.shown.startswith(b"P6 64 48 255 ")  # 96 rows do not fit a screen of 60: every second pixel
            label.bound["<Double-Button-1>"](SimpleNamespace(x=35 // 2, y=45 // 2))
            found = next(tracked)
            (one,) = found.objects
            assert one.box is not None
            assert 20 < one.box[0] < one.box[2] < 60  # about the click
            label.bound["<Double-Button-1>"](SimpleNamespace(x=500, y=20))
            assert "outside" in str(window.fault)
            assert len(next(tracked).objects) == 1
            root.bound["r"](None)
            assert next(tracked).objects == []
            assert window.show(next(tracked))
            root.bound["q"](None)
            assert not window.show(next(tracked))


def test_no_display(tkinter: list[Widget], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("no display name and no $DISPLAY environment variable")

    monkeypatch.setattr(sys.modules["tkinter"], "Tk", refuse)
    with pytest.raises(BackendError, match="needs a display: no display name"):
        TrackWindow("a", None)  # type: ignore[arg-type]


def test_without_tkinter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(BackendError, match="needs tkinter"):
        TrackWindow("a", None)  # type: ignore[arg-type]
