# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""ValorTrainer: epochs, accumulated gradients, logged losses, non-finite steps, resuming, signals and adapters."""

import json
import logging
import math
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor import ValorForRetrieval
from modeling_valor.data.failures import TooManyFailures
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, RequestSampler, Source
from modeling_valor.data.samples import Sample
from modeling_valor.training import HEADS, TrainingDiverged, ValorForMultitask, ValorTrainer, ValorTrainingArguments
from modeling_valor.training.interruption import StopRequest
from modeling_valor.training.resume import global_step, last_checkpoint


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture
def messages(monkeypatch):
    """What is logged as a warning."""
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    loggers = [
        logging.getLogger(name)
        for name in ("transformers.trainer", "transformers.trainer_utils", "modeling_valor.training.trainer")
    ]
    for logger in loggers:
        logger.addHandler(handler)
    yield texts
    for logger in loggers:
        logger.removeHandler(handler)


def make_trainer(folder, processor, tasks=("retrieval",), samples=8, model=None, callbacks=None, **kwargs):
    """Four batches of two samples for each task."""
    config = small_config(processor)
    torch.manual_seed(0)
    if model is None:
        model = (ValorForMultitask if len(tasks) > 1 else HEADS[tasks[0]])(config)
    pool = small_samples(samples) if isinstance(samples, int) else samples
    sources = [Source(task, pool, LoadingOptions(task), batch_size=2) for task in tasks]
    options = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    return ValorTrainer(
        model,
        ValorTrainingArguments(str(folder), **{**options, **kwargs}),
        Mixture(sources, processor, config),
        processing_class=processor,
        callbacks=callbacks,
    )


def history(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def weights(trainer):
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_same_weights(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


# --- Steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_an_accumulated_step_follows_the_mean_gradient_of_its_batches(tmp_path, processor, chunk_size):
    options = {"optim": "sgd", "lr_scheduler_type": "constant", "learning_rate": 0.5, "max_grad_norm": 0.0}
    trainer = make_trainer(
        tmp_path,
        processor,
        max_steps=1,
        gradient_accumulation_steps=2,
        contrastive_chunk_size=chunk_size,
        **options,
    )
    before, mixture = weights(trainer), trainer.train_dataset
    model = trainer.model.train()
    losses = []
    for (request,) in RequestSampler(mixture.sources, 2):
        batch = mixture[request]
        inputs = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        losses.append(model(**inputs).loss)
    torch.stack(losses).mean().backward()
    expected = {
        name: before[name] - 0.5 * (0 if parameter.grad is None else parameter.grad)
        for name, parameter in model.named_parameters()
    }
    model.zero_grad()
    trainer.train()
    assert_same_weights(weights(trainer), expected, rtol=0, atol=1e-6)
    assert history(trainer, "loss") == [pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)]


def test_the_logged_loss_of_a_source_is_the_mean_over_its_batches(tmp_path, processor):
    """Of batches, whatever the accumulation: here of one model that does not learn."""
    trainer = make_trainer(
        tmp_path,
        processor,
        ("retrieval", "captioning"),
        max_steps=4,
        gradient_accumulation_steps=2,
        logging_steps=4,
        learning_rate=0.0,
    )
    mixture, model = trainer.train_dataset, trainer.model
    losses = {"retrieval": [], "captioning": []}
    for (request,) in RequestSampler(mixture.sources, 8):
        batch = mixture[request]
        inputs = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        with torch.no_grad():
            losses[batch["source"]].append(model(**inputs, task=batch["task"]).loss.item())
    trainer.train()
    for source, values in losses.items():
        assert history(trainer, f"loss/{source}") == [pytest.approx(sum(values) / len(values), abs=1e-5)]
    every = [value for values in losses.values() for value in values]
    assert history(trainer, "loss") == [pytest.approx(sum(every) / 8, abs=1e-5)]


NEW_LAYERS = [
    "valor.logit_scale",
    "valor.text_projection.weight",
    "valor.video_condition.position_embedding.weight",
    "valor.audio_token_weight.fc1.weight",
    "valor.text_model.layers.0.cross_attention.audiovisual.q_proj.weight",
]
VISION = ["valor.vision_model.embeddings.patch_embedding.weight", "valor.vision_model.encoder.layers.0.mlp.fc1.bias"]
OTHERS = [
    "valor.text_model.embeddings.word_embeddings.weight",
    "valor.text_model.layers.0.self_attention.q_proj.bias",
    "valor.audio_model.layers.0.mlp.fc1.weight",
    "lm_head.dense.weight",
]


def test_each_part_learns_at_its_own_rate(tmp_path, processor):
    """A step of SGD, with weight decay, changes a parameter in proportion to its rate."""
    options = {"tasks": ("pretraining",), "max_steps": 1, "optim": "sgd", "lr_scheduler_type": "constant"}
    options |= {"learning_rate": 0.5, "weight_decay": 0.1, "max_grad_norm": 0.0}
    changes = []
    for rates in ({}, {"vision_learning_rate": 0.25, "new_layers_learning_rate": 0.125}):
        trainer = make_trainer(tmp_path, processor, **options, **rates)
        before = weights(trainer)
        trainer.train()
        changes.append({name: value - before[name] for name, value in weights(trainer).items()})
    same, own = changes
    for factor, names in ((1.0, OTHERS), (0.5, VISION), (0.25, NEW_LAYERS)):
        for name in names:
            assert same[name].abs().max() > 1e-5, name
            torch.testing.assert_close(own[name], factor * same[name], rtol=1e-3, atol=1e-6, msg=name)


def test_samples_that_cannot_be_read_are_named_at_the_end_and_too_many_end_the_training(tmp_path, processor, messages):
    samples = [*small_samples(6), *(Sample(name, f"{name}.mp4", None, ("a bell",)) for name in ("gone", "lost"))]
    make_trainer(tmp_path, processor, samples=samples, max_steps=4, max_failures=0.25).train()
    (said,) = [text for text in messages if "could not be read" in text]
    assert said.startswith("2 of 8 samples could not be read and were replaced by others: ")
    assert "gone.mp4" in said and "lost.mp4" in said
    with pytest.raises(TooManyFailures, match="2 of 8 samples could not be read, more than the 24%"):
        make_trainer(tmp_path, processor, samples=samples, max_steps=4, max_failures=0.24).train()


# --- Epochs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accumulation", "workers"), [(1, 2), (3, 0)])
def test_every_epoch_is_logged_measured_saved_and_can_be_resumed(tmp_path, processor, accumulation, workers):
    """With accumulation 3, an epoch of four batches is a step of three and one of one."""
    strategies = {f"{what}_strategy": "epoch" for what in ("eval", "save", "logging")}
    options = {
        **strategies,
        "num_train_epochs": 3,
        "gradient_accumulation_steps": accumulation,
        "dataloader_num_workers": workers,
        "dataloader_prefetch_factor": 1 if workers else None,
    }
    seen = []
    trainer = make_trainer(tmp_path, processor, **options)
    trainer.evaluations = {"step": lambda model: {"now": len(seen)}}
    compute_loss = trainer.compute_loss

    def recording(model, inputs, **kwargs):
        seen.append(inputs["input_ids"].clone())
        return compute_loss(model, inputs, **kwargs)

    trainer.compute_loss = recording
    trainer.train()
    per_epoch = math.ceil(4 / accumulation)
    assert trainer.state.num_train_epochs == 3 and trainer.state.global_step == 3 * per_epoch
    assert history(trainer, "eval_step_now") == [4, 8, 12]
    assert [entry["epoch"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3]
    folders = {folder.name for folder in tmp_path.glob("checkpoint-*")}
    assert folders == {f"checkpoint-{epoch * per_epoch}" for epoch in (1, 2, 3)}
    expected = [
        trainer.train_dataset[request]["input_ids"] for (request,) in RequestSampler(trainer.train_dataset.sources, 12)
    ]
    assert len(seen) == 12 and all(map(torch.equal, seen, expected))

    resumed = make_trainer(tmp_path, processor, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{2 * per_epoch}"))
    assert_same_weights(weights(resumed), weights(trainer), rtol=0, atol=0)


# --- Losses and gradients that are no numbers -------------------------------------------------------------------------


class Poison(TrainerCallback):
    """Makes the gradient of given steps infinite."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        parameter = model.valor.logit_scale
        factor = math.inf if state.global_step + 1 in self.steps else 1.0
        self.handle = parameter.register_hook(lambda grad: grad * factor)

    def on_step_end(self, args, state, control, **kwargs):
        self.handle.remove()


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_reported(tmp_path, processor, messages):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "max_nonfinite_steps": 2}
    trainer = make_trainer(tmp_path, processor, callbacks=[Poison({2})], **options)
    trainer.train()
    assert history(trainer, "nonfinite_steps") == [1] and not any(map(math.isnan, history(trainer, "grad_norm")[2:]))
    (said,) = [text for text in messages if "is skipped" in text]
    ids = trainer.train_dataset[[r for (r,) in RequestSampler(trainer.train_dataset.sources, 4)][1]]["ids"]
    assert said.startswith("Step 2 is skipped, because its gradient is not finite") and ", ".join(ids) in said
    # Not saved in doubt; the step has changed nothing
    assert {folder.name for folder in tmp_path.glob("checkpoint-*")} == {
        "checkpoint-1",
        "checkpoint-3",
        "checkpoint-4",
    }
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


def test_losses_that_are_not_finite_end_the_training_and_change_no_weights(tmp_path, processor):
    samples = small_samples(8)
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1, "max_nonfinite_steps": 2}
    trainer = make_trainer(tmp_path, processor, samples=samples, **options)
    names, collate = [], trainer.train_dataset.collate

    def poisoned(loaded, *args, **kwargs):
        batch = collate(loaded, *args, **kwargs)
        names.append([sample.id for sample in loaded])
        if len(names) in (3, 4):
            batch["input_features"][:] = math.nan
        return batch

    trainer.train_dataset.collate = poisoned
    with pytest.raises(
        TrainingDiverged, match=r"loss of step 4 is not finite.* last of 2 such steps in a row"
    ) as error:
        trainer.train()
    assert ", ".join(names[3]) in str(error.value)
    assert {folder.name for folder in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    for name, value in weights(trainer).items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)
    # The loss of a step without one is no 0
    assert math.isnan(history(trainer, "loss")[2]) and not math.isnan(history(trainer, "loss")[1])


def test_a_training_without_one_finite_step_is_an_error_however_short(tmp_path, processor):
    trainer = make_trainer(tmp_path, processor, callbacks=[Poison({1})], max_steps=1)
    with pytest.raises(TrainingDiverged, match="gradient of step 1"):
        trainer.train()


@pytest.mark.parametrize(("scale", "taken"), [(None, False), (65536.0, True), (1.0, False)])
def test_a_gradient_that_overflows_in_float16_is_the_loss_scaler_s_as_long_as_it_can_scale_down(
    tmp_path, processor, scale, taken
):
    trainer = make_trainer(tmp_path, processor, max_steps=1)
    trainer.accelerator.scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
    assert trainer.scaler_takes_care() is taken


# --- Resuming ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory, processor):
    """A run of four steps that has saved its second one and its end."""
    folder = tmp_path_factory.mktemp("finished")
    trainer = make_trainer(folder, processor, max_steps=4, save_strategy="steps", save_steps=2, learning_rate=1e-3)
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    return folder, weights(trainer)


def test_a_resumed_run_says_in_one_line_from_where_and_what_differs(finished, tmp_path, processor, messages):
    folder, _ = finished
    trainer = make_trainer(tmp_path, processor, max_steps=4, learning_rate=1e-2, max_grad_norm=2.0)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    (said,) = [text for text in messages if text.startswith("Resuming")]
    assert said == (
        f"Resuming at step 2 of 4, from {folder / 'checkpoint-2'}. What differs: learning_rate stays 0.001 (0.01 was "
        "given); save_steps stays 2 (500 was given); max_grad_norm is 2.0 (was 1.0)."
    )
    assert trainer.optimizer.param_groups[0]["initial_lr"] == 1e-3
    assert len(history(trainer, "loss")) == 4


def test_the_same_run_resumes_without_differences_and_without_a_false_alarm(tmp_path, processor, messages):
    options = {"tasks": ("captioning",), "max_steps": 2, "save_strategy": "steps", "save_steps": 0.5}
    first = make_trainer(tmp_path, processor, **options)
    first.train()
    again = make_trainer(tmp_path, processor, **options)
    messages.clear()
    again.train(resume_from_checkpoint=True)
    # Not that lm_head.decoder.weight is missing, nor that 0.5 is another number of steps than 1
    assert messages == [f"Resuming at step 2 of 2, from {tmp_path / 'checkpoint-2'}. All settings are the same."]


@pytest.mark.parametrize(
    ("tasks", "samples", "config", "message"),
    [
        (("pretraining",), 8, {}, r"another task \(retrieval\) than this one \(pretraining\)"),
        (("retrieval",), 6, {}, r"another dataset \(8 samples, digest \w+\) than this one \(6 samples"),
        (("retrieval",), small_samples(8, seed=1), {}, r"another dataset \(8 samples, digest \w+\) than this one \(8"),
        (("retrieval",), 8, {"projection_dim": 8}, r"another model \(ValorForRetrieval, parameters \w+\) than"),
    ],
)
def test_another_task_model_or_dataset_is_not_resumed(finished, processor, tasks, samples, config, message):
    folder, _ = finished
    model = HEADS[tasks[0]](small_config(processor, **config))
    trainer = make_trainer(folder, processor, tasks, samples, model=model, max_steps=4)
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    with pytest.raises(ValueError, match="Choose another `output_dir`"):
        trainer.load_finished()


def test_a_finished_run_that_is_started_again_trains_nothing(finished, tmp_path, processor, messages):
    folder, expected = finished
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}
    trainer = make_trainer(folder, processor, **options)
    assert trainer.load_finished()
    end = f"{folder} has the end of this training, step 4: nothing is left to train. All settings are the same."
    assert messages[-1] == end
    assert trainer.state.global_step == 4 and trainer.state.epoch == 1  # what is measured now is of this step
    assert_same_weights(weights(trainer), expected, rtol=0, atol=0)
    # Its last checkpoint has no step left, and no zeros for results
    resumed = make_trainer(tmp_path, processor, **options)
    assert resumed.train(resume_from_checkpoint=str(folder / "checkpoint-4")).metrics == {}
    assert not history(resumed, "train_loss")[1:]
    assert not make_trainer(folder, processor, **{**options, "max_steps": 5}).load_finished()
    assert not make_trainer(tmp_path / "new", processor, **options).load_finished()


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for name, state in (
        ("checkpoint-9", '{"global_step": 9}'),
        ("checkpoint-10", '{"global_step": 10}'),
        ("checkpoint-11", '{"global_st'),
        ("checkpoint-12", None),
        ("checkpoint-13-copy", '{"global_step": 13}'),
    ):
        (tmp_path / name).mkdir()
        if state is not None:
            (tmp_path / name / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert [global_step(tmp_path / f"checkpoint-{number}") for number in (10, 11, 12)] == [10, 0, 0]


# --- Signals ----------------------------------------------------------------------------------------------------------


class Kill(TrainerCallback):
    """Sends a signal in the middle of a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_it_arrives_in_and_ends_the_training(tmp_path, processor, capfd, number, status):
    """Also with `save_total_limit=1` and a better checkpoint before, which would delete it at the end of a training."""
    options = {"max_steps": 4, "gradient_accumulation_steps": 2, "save_total_limit": 1}
    best = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best |= {"load_best_model_at_end": True, "metric_for_best_model": "a_b", "greater_is_better": True}
    trainer = make_trainer(tmp_path, processor, callbacks=[Kill(number, 2)], **options, **best)
    trainer.evaluations = {"a": lambda model: {"b": -trainer.state.global_step}}
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == status
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "SIG" in line]
    assert line.startswith(f"{number.name}: the training stops after this step and saves it in {tmp_path}, ")

    whole = make_trainer(tmp_path / "whole", processor, **options)
    whole.train()
    resumed = make_trainer(tmp_path, processor, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_weights(weights(resumed), weights(whole), rtol=0, atol=0)


@pytest.mark.parametrize("step", [1, 2])
def test_a_signal_while_a_model_is_measured_ends_the_training_with_a_checkpoint(tmp_path, processor, step):
    """Also in the last step of a training."""
    trainer = make_trainer(tmp_path, processor, max_steps=2, eval_strategy="steps", eval_steps=1)

    def evaluation(model):
        if trainer.state.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    trainer.evaluations = {"a": evaluation}
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 143
    assert {folder.name for folder in tmp_path.glob("checkpoint-*")} == {f"checkpoint-{step}"}


class KillInLog(Kill):
    """After the signals of a step have been looked at: it is obeyed in the next one."""

    def on_log(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


def test_a_signal_between_two_steps_is_obeyed_in_the_next_one(tmp_path, processor):
    trainer = make_trainer(tmp_path, processor, callbacks=[KillInLog(signal.SIGTERM, 2)], max_steps=4)
    with pytest.raises(SystemExit):
        trainer.train()
    assert {folder.name for folder in tmp_path.glob("checkpoint-*")} == {"checkpoint-3"}
    last = make_trainer(tmp_path / "last", processor, callbacks=[KillInLog(signal.SIGINT, 1)], max_steps=1)
    with pytest.raises(KeyboardInterrupt):  # the training is complete, and the program is not
        last.train()


def test_a_second_ctrl_c_stops_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


# --- Adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_adapters_are_trained_saved_resumed_and_measured(tmp_path, processor, chunk_size):
    peft = pytest.importorskip("peft")

    def adapted():
        torch.manual_seed(0)
        lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        torch.manual_seed(1)
        return peft.get_peft_model(ValorForRetrieval(small_config(processor)), lora)

    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "contrastive_chunk_size": chunk_size}
    trainer = make_trainer(tmp_path, processor, model=adapted(), **options)
    trainer.evaluations = {"a": lambda model: {"is_head": isinstance(model, ValorForRetrieval)}}
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all("lora_" in name for name in changed)
    assert trainer.evaluate()["eval_a_is_head"] == 1
    resumed = make_trainer(tmp_path, processor, model=adapted(), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert_same_weights(weights(resumed), after, rtol=0, atol=0)
    with pytest.raises(ValueError, match="ValorForRetrieval cannot be trained for captioning"):
        make_trainer(tmp_path, processor, ("captioning",), model=adapted())
    of_a_task = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="FEATURE_EXTRACTION")
    with pytest.raises(ValueError, match=r"PeftModelForFeatureExtraction .* leave `task_type` out"):
        make_trainer(
            tmp_path, processor, model=peft.get_peft_model(ValorForRetrieval(small_config(processor)), of_a_task)
        )
