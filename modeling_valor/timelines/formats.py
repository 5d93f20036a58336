# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions along a film's time as WebVTT, SRT or JSON Lines."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path
from types import TracebackType

from ..data.files import writing_to
from .captions import TimedCaption


def _vtt(number: int, caption: TimedCaption, file: str) -> str:
    escaped = (caption.text or "").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{timestamp(caption.start)} --> {timestamp(caption.end)}\n{escaped}\n\n"


def _srt(number: int, caption: TimedCaption, file: str) -> str:
    text = (caption.text or "").replace("-->", "->")  # SRT has no way to write it
    return f"{number}\n{timestamp(caption.start, ',')} --> {timestamp(caption.end, ',')}\n{text}\n\n"


def _jsonl(number: int, caption: TimedCaption, file: str) -> str:
    row = {"file": file, "start": round(caption.start, 3), "end": round(caption.end, 3), "text": caption.text}
    row |= {"modalities": caption.modalities} if caption.error is None else {"error": caption.error}
    return json.dumps(row) + "\n"


FORMATS: dict[str, tuple[str, Callable[[int, TimedCaption, str], str]]] = {
    "vtt": ("WEBVTT\n\n", _vtt),
    "srt": ("", _srt),
    "jsonl": ("", _jsonl),
}
"""What a file of each format begins with, and a caption of it."""


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file's suffix names.

    Raises:
        ValueError: it names none.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"{os.fspath(path)} has the suffix of no format: use .vtt, .srt or .jsonl.")
    return suffix


def timestamp(seconds: float, point: str = ".") -> str:
    """Seconds as `01:02:03.456`."""
    milliseconds = round(seconds * 1000)
    hours, minutes = milliseconds // 3_600_000, milliseconds // 60_000 % 60
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000 % 60:02}{point}{milliseconds % 1000:03}"


class TimelineWriter:
    """Writes captions to a file as they come, so that what was written is whole whenever the program ends.

    JSON Lines have a row for each segment, and say of which file and why one has no caption; the others have the captions.
    """

    def __init__(self, path: str | os.PathLike[str], format: str | None = None):
        self.path, self.number = Path(path), 0
        self.header, self.write_caption = FORMATS[format_of(path) if format is None else format]
        self.keeps_errors = self.write_caption is _jsonl
        self.file: FileIO | None = None

    def __enter__(self) -> "TimelineWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, caption: TimedCaption, file: str = "") -> None:
        """Writes a caption of a file. The first one replaces what was in the output before.

        Raises:
            WriteError: the disk is full, or the output may not be written. The captions before are kept.
        """
        text = "" if self.file is not None else self.header
        if caption.text is not None or self.keeps_errors:
            self.number += 1
            words = None if caption.text is None else " ".join(caption.text.split())
            text += self.write_caption(self.number, replace(caption, text=words), file)
        with writing_to(self.path.parent):
            if self.file is None:
                self.file = FileIO(self.path, "w")
            self._append(self.file, text.encode())

    @staticmethod
    def _append(file: FileIO, content: bytes) -> None:
        end = file.tell()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(end)  # a part of a caption is none
            raise
