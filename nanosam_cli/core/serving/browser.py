"""Opens the page in a browser that has a window of its own."""

from __future__ import annotations

import webbrowser
from threading import Thread


def open_page(address: str) -> bool:
    """Whether there is such a browser. It is started beside the server: some take seconds to answer."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    in_terminal = isinstance(browser, webbrowser.GenericBrowser)
    if in_terminal and not isinstance(browser, webbrowser.BackgroundBrowser):
        return False  # lynx and its like would take the terminal that the server writes to
    Thread(target=browser.open, args=[address], name="browser", daemon=True).start()
    return True
