# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import pytest

from helpers.training_step import assert_step_is_that_of_hand, train
from modeling_valor.training.multitask import HEADS


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("trainer", ["Trainer", "ValorTrainer"])
def test_accumulated_steps_are_the_mean_of_their_batches(trainer, task, tmp_path):
    assert_step_is_that_of_hand(trainer, task, [train(trainer, task, tmp_path, 4)], 4)
