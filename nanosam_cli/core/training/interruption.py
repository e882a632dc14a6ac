"""Ctrl-C, SIGTERM and a terminal that closes while a run trains: the step that is under way is finished, and kept."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interruption:
    """In its `with` block the first signal only sets `asked`; leaving the block then does what the signal would have
    done without it. Ctrl-C once more interrupts at once. Signals that were ignored before stay ignored, and elsewhere
    than in the main thread, which alone gets signals, or without `watch`, nothing changes.

    Processes that are forked in the block, such as those that make crops, stay for the step: only a second signal ends
    them, which is how their parent does it.
    """

    def __init__(self, watch: bool = True) -> None:
        self.asked: int | None = None  # the signal
        self._watch = watch and threading.current_thread() is threading.main_thread()
        self._process = os.getpid()
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Interruption:
        for number in _SIGNALS if self._watch else ():
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked is not None and kind is None:
            signal.raise_signal(self.asked)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.asked is not None and os.getpid() != self._process:
            os._exit(128 + number)
        if self.asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or number
