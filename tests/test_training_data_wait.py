# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The share of waiting, by a clock that the test sets; and what is advised."""

import logging

import pytest
import torch

from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, Source
from modeling_valor.data.samples import Sample
from modeling_valor.training import HEADS, ValorTrainer, ValorTrainingArguments
from modeling_valor.training.data_wait import DataWait, advice


class Clock:
    """Seconds that pass when something takes them."""

    now = 0.0

    def __call__(self):
        return self.now

    def take(self, seconds):
        self.now += seconds


def test_the_share_is_that_of_counted_steps():
    clock = Clock()
    wait = DataWait(clock)
    wait.fetch(lambda: clock.take(100))  # starts the workers
    assert wait.pop_share() is None
    clock.take(3)
    assert wait.fetch(lambda: (clock.take(1), "batch")[1]) == "batch"
    assert wait.pop_share() == pytest.approx(1 / 4)
    clock.take(2)
    wait.fetch(lambda: clock.take(2))
    clock.take(500)  # an evaluation
    wait.forget()
    wait.fetch(lambda: clock.take(7))
    clock.take(6)
    wait.fetch(lambda: clock.take(0))
    assert wait.pop_share() == pytest.approx(2 / 10)


@pytest.mark.parametrize("share, said", [(0.5, [50]), (0.21, [50]), (0.19, [])])
def test_a_large_share_of_fifty_steps_is_worth_a_word(share, said):
    clock = Clock()
    wait = DataWait(clock)
    wait.fetch(lambda: None)
    found = []
    for step in range(1, 100):
        clock.take(1 - share)
        wait.fetch(lambda: clock.take(share))
        if (large := wait.pop_large_share()) is not None:
            assert large == pytest.approx(share)
            found.append(step)
    assert found == said


@pytest.fixture(scope="module")
def processor():
    return small_processor()


def make_trainer(folder, processor, clock, seconds, preprocess_on_device=False, **kwargs):
    """A training whose steps take a second, and whose batches take `seconds`."""
    config = small_config(processor)
    torch.manual_seed(0)
    model = HEADS["retrieval"](config)
    sources = [Source("all", small_samples(4), LoadingOptions("retrieval"), batch_size=2)]

    class Slow(Mixture):
        def __getitem__(self, request):
            clock.take(seconds)
            return super().__getitem__(request)

    class Timed(ValorTrainer):
        def training_step(self, *args, **kwargs):
            clock.take(1)
            return super().training_step(*args, **kwargs)

    args = ValorTrainingArguments(
        str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        preprocess_on_device=preprocess_on_device,
        **kwargs,
    )
    mixture = Slow(sources, processor, config, preprocess_on_device=preprocess_on_device)
    trainer = Timed(model, args, mixture, processing_class=processor)
    trainer.data_wait = DataWait(clock)
    return trainer


def test_a_run_logs_the_share_and_says_once_what_to_do(tmp_path, processor, monkeypatch):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("modeling_valor.training.trainer")
    logger.addHandler(handler)
    monkeypatch.setattr("modeling_valor.training.data_wait.WINDOW", 3)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    trainer = make_trainer(tmp_path, processor, Clock(), 0.25, max_steps=6, logging_steps=3)
    trainer.train()
    logger.removeHandler(handler)
    shares = [entry["data_wait"] for entry in trainer.state.log_history if "data_wait" in entry]
    assert shares == [pytest.approx(0.2), pytest.approx(0.2)]
    assert not [line for line in lines if "waited for data" in line]  # a fifth is not more than a fifth

    logger.addHandler(handler)
    make_trainer(tmp_path, processor, Clock(), 1.0, max_steps=4).train()
    logger.removeHandler(handler)
    (line,) = [line for line in lines if "waited for data" in line]
    assert line.startswith(
        "Training waited for data 50% of the time of the last 3 steps. What helps: more --dataloader"
    )
    assert "(0 of 16 cores)" in line and "valor extract" in line and "--preprocess_on_device" in line


def test_only_what_is_not_in_use_is_advised(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    args = ValorTrainingArguments(str(tmp_path), dataloader_num_workers=4, preprocess_on_device=True, use_cpu=True)
    extracted = [Source("all", [Sample("a", str(tmp_path))])]
    assert advice(0.5, args, extracted).endswith("with all that makes reading faster in use.")
    line = advice(0.5, args, [Source("all", [Sample("a", "a.mp4")])])
    assert line.endswith("What helps: `valor extract`, which decodes a dataset once.")


def test_training_on_frames_prepared_on_the_device_is_the_same(tmp_path, processor):
    """The losses of all steps, to rounding."""
    losses = []
    for on_device in (False, True):
        trainer = make_trainer(
            tmp_path / str(on_device),
            processor,
            Clock(),
            0,
            on_device,
            max_steps=4,
            logging_steps=1,
            learning_rate=0.01,
        )
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 4
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=0, atol=1e-5)
