# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Rows of a batch, each given to its own client."""

import pytest
import torch


pytest.importorskip("fastapi")
pytest.importorskip("openai")

from transformers.cli.serving.utils import _GenerationCancelled

from modeling_valor.serving.streaming import RowStreamer


END = 3


class Listener:
    def __init__(self, patience=100):
        self.ids, self.ends, self.patience = [], 0, patience

    def put(self, ids):
        if self.patience == 0:
            raise _GenerationCancelled
        self.patience -= 1
        self.ids.append(ids.flatten().tolist())

    def end(self):
        self.ends += 1


def test_each_row_has_its_own_ids_up_to_its_end():
    listeners = [Listener(), Listener(), Listener()]
    streamer = RowStreamer(listeners, END)
    streamer.put(torch.tensor([[2], [2], [2]]))
    for step in ([5, 7, 8], [END, 6, 9], [0, END, 9]):
        streamer.put(torch.tensor(step))
    assert [listener.ids for listener in listeners] == [[[2], [5], [3]], [[2], [7], [6], [3]], [[2], [8], [9], [9]]]
    assert [listener.ends for listener in listeners] == [1, 1, 0] and streamer.is_heard
    streamer.end()
    assert [listener.ends for listener in listeners] == [1, 1, 1] and not streamer.is_heard


def test_a_prompt_may_have_the_id_that_ends_a_text():
    listener = Listener()
    RowStreamer([listener], END).put(torch.tensor([[END]]))
    assert listener.ends == 0


def test_a_client_that_has_gone_takes_nothing_from_the_others():
    gone, here = Listener(patience=1), Listener()
    streamer = RowStreamer([gone, here], END)
    for ids in (torch.tensor([[2], [2]]), torch.tensor([5, 6]), torch.tensor([7, 8])):
        streamer.put(ids)
    assert here.ids == [[2], [6], [8]] and gone.ids == [[2]] and gone.ends == 1
    assert streamer.is_heard
