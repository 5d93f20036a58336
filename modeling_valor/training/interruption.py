# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""SIGTERM and Ctrl-C in training: the step is finished and saved before the process ends."""

import os
import signal
import threading
from types import FrameType


class StopRequest:
    """Notes SIGTERM and SIGINT while it is entered, in place of what they usually do. A second SIGINT raises
    `KeyboardInterrupt` at once. Outside of the main thread, which alone receives signals, it does nothing.

    Args:
        notice: one line for the user, written to stderr after the signal's name; None: nothing is written.
    """

    def __init__(self, notice: str | None = None):
        self.notice = notice
        self.signal = 0

    def __enter__(self) -> "StopRequest":
        is_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self.previous = {number: signal.signal(number, self.receive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """Handles a signal, or one that another process received."""
        if self.signal:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = number
        if self.notice is not None:
            # Not by logging or print, which the signal may have interrupted
            os.write(2, f"\n{signal.Signals(number).name}: {self.notice}\n".encode())


__all__ = ["StopRequest"]
