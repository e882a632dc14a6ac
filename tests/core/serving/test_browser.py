"""A browser with a window is opened; one that lives in the terminal is not."""

from __future__ import annotations

import webbrowser
from threading import Event

import pytest

from nanosam_cli.core.serving.browser import open_page


def test_a_browser_with_a_window_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Event()

    class Window(webbrowser.BackgroundBrowser):
        def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
            assert url == "http://127.0.0.1:1/"
            opened.set()
            return True

    monkeypatch.setattr(webbrowser, "get", lambda: Window("window"))
    assert open_page("http://127.0.0.1:1/")
    assert opened.wait(5)


def test_a_browser_in_the_terminal_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("lynx"))
    assert not open_page("http://127.0.0.1:1/")


def test_no_browser_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "get", none)
    assert not open_page("http://127.0.0.1:1/")
