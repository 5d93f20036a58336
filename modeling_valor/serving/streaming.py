# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Texts that are written in one batch, each given to its own client word by word."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cli.serving.utils import _GenerationCancelled


class RowStreamer:
    """Takes the ids of a batch as `generate` writes them, and gives each row to the streamer of its request.

    Args:
        streamers: of the rows, as transformers' server has them: `put` takes the prompt first, and then id by id.
        end: the id that ends a row.
    """

    def __init__(self, streamers: Sequence[Any], end: int):
        self._open = dict(enumerate(streamers))
        self._end = end
        self._is_prompt = True

    @property
    def is_heard(self) -> bool:
        """Whether some client still waits for words."""
        return bool(self._open)

    def put(self, ids: Tensor) -> None:
        """Takes the prompt, (rows, length), or the next id of each row, (rows,)."""
        for row, streamer in list(self._open.items()):
            word = ids[row : row + 1]
            try:
                streamer.put(word)
            except _GenerationCancelled:  # its client has gone; the others have not
                del self._open[row]
                streamer.end()
                continue
            if not self._is_prompt and int(word) == self._end:
                del self._open[row]
                streamer.end()
        self._is_prompt = False

    def end(self) -> None:
        """Ends the rows that are not at their end."""
        for streamer in self._open.values():
            streamer.end()
        self._open.clear()
