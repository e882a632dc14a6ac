"""A window that shows frames as they come: double-click starts an object, `r` forgets all, `q` ends."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from nanosam_cli.core.errors import BackendError, NanosamError
from nanosam_cli.core.tracking.outputs import draw
from nanosam_cli.core.tracking.run import TrackedFrame, TrackingRun

SCREEN = 0.9  # of the screen that a frame may fill


class TrackWindow:
    """A window on the display, closed at the end of a `with` block. BackendError where there is none.

    What the user does is done to the run when the next frame is shown.
    """

    def __init__(self, title: str, run: TrackingRun) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise BackendError(
                f"--show needs tkinter, which this Python has not: {error}", "sudo apt install python3-tk, or no --show"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise BackendError(
                f"--show needs a display: {error}", "run it on a desktop, or leave --show out and look at the video"
            ) from error
        self._photo = tkinter.PhotoImage
        self._run = run
        self._step = 1
        self._open = True
        self._title = title
        self.fault: NanosamError | None = None  # why the last double-click started nothing; the title says it, too
        self._root.title(title)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._label.bind("<Double-Button-1>", self._start)
        self._root.bind("r", lambda _: run.reset())
        self._root.bind("q", lambda _: self._quit())
        self._root.protocol("WM_DELETE_WINDOW", self._quit)

    def show(self, tracked: TrackedFrame) -> bool:
        """Show a frame, every second or third pixel of one that is larger than the screen.

        False once the user wants no more.
        """
        image = draw(tracked)
        screen = self._root.winfo_screenheight() * SCREEN, self._root.winfo_screenwidth() * SCREEN
        self._step = max(1, *(-int(-side // limit) for side, limit in zip(image.shape, screen)))
        small = image[:: self._step, :: self._step]
        head = f"P6 {small.shape[1]} {small.shape[0]} 255 ".encode()
        picture = self._photo(master=self._root, data=head + small.tobytes(), format="PPM")
        self._label.configure(image=picture)
        self._shown = picture  # Tk keeps no reference
        self._root.update()
        return self._open

    def close(self) -> None:
        self._root.destroy()

    def __enter__(self) -> TrackWindow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, event: Any) -> None:
        try:
            self._run.start_at(event.x * self._step, event.y * self._step)
            self.fault = None
        except NanosamError as error:  # a click that hits nothing must not end the show
            self.fault = error
        self._root.title(self._title if self.fault is None else f"{self._title}: {self.fault}")

    def _quit(self) -> None:
        self._open = False
