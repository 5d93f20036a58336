# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A step of `transformers.Trainer` and of `ValorTrainer`, and the same step by hand."""

from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments

from modeling_valor.captioning import IGNORE_INDEX
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, Source
from modeling_valor.training import ValorTrainer, ValorTrainingArguments
from modeling_valor.training.multitask import HEADS

from .tiny import CLS, MASK, tiny_batch, tiny_config
from .training_world import small_config, small_processor, small_samples


STEP = {"max_steps": 1, "learning_rate": 1.0, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0}
STEP |= {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "per_device_train_batch_size": 2,
}
PADDING = {"labels": IGNORE_INDEX}


def dataset_of(task: str) -> list[dict[str, torch.Tensor]]:
    """Sixteen samples, with different numbers of words to predict."""
    batch = tiny_batch(16)
    asked = (batch["attention_mask"] == 1) & (batch["input_ids"] != CLS)
    asked[::3, 4:] = False
    masked, labels = batch["input_ids"].masked_fill(asked, MASK), batch["input_ids"].masked_fill(~asked, IGNORE_INDEX)
    if task == "question_answering":
        batch["question_input_ids"] = batch["input_ids"]
    if task == "pretraining":
        batch |= {"decoder_input_ids": masked, "decoder_attention_mask": batch["attention_mask"], "labels": labels}
    elif task != "retrieval":
        batch |= {"input_ids": masked, "labels": labels}
    return [{name: value[i] for name, value in batch.items()} for i in range(16)]


def stack(samples):
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def model_of(trainer, task):
    torch.manual_seed(0)
    return HEADS[task](tiny_config() if trainer == "Trainer" else small_config(small_processor()))


def whole(parameter: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """A parameter that may be sharded over the processes, in the shape that it had at the start."""
    return (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().reshape(start.shape)


def train(trainer: str, task: str, folder: Path, gradient_accumulation_steps: int, **options) -> dict:
    """One step; returns what the model was given, what it learned (the weights' change) and the logged loss."""
    model, batches = model_of(trainer, task), []
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.register_forward_pre_hook(lambda _, args, inputs: batches.append(dict(inputs)), with_kwargs=True)
    options = {
        "output_dir": str(folder),
        "gradient_accumulation_steps": gradient_accumulation_steps,
        **STEP,
        **options,
    }
    if trainer == "Trainer":
        run = Trainer(model, TrainingArguments(**options), train_dataset=dataset_of(task), data_collator=stack)
    else:
        processor = small_processor()
        mixture = Mixture(
            [Source(task, small_samples(8), LoadingOptions(task), batch_size=2)], processor, model.config
        )
        run = ValorTrainer(model, ValorTrainingArguments(**options), mixture, processing_class=processor)
    run.train()
    parameters = {name.replace("_checkpoint_wrapped_module.", ""): value for name, value in model.named_parameters()}
    changes = {name: start[name] - whole(parameter, start[name]) for name, parameter in parameters.items()}
    return {"batches": batches, "gradients": changes, "loss": run.state.log_history[0]["loss"]}


def join(parts: list[dict]) -> dict:
    """The batches of all ranks as one, texts padded to the same length."""
    joined = {}
    for name in parts[0]:
        if not isinstance(parts[0][name], torch.Tensor):
            joined[name] = parts[0][name]
            continue
        length = max(part[name].shape[1] for part in parts)
        joined[name] = torch.cat(
            [
                torch.nn.functional.pad(part[name], (0, length - part[name].shape[1]), value=PADDING.get(name, 0))
                if part[name].ndim == 2
                else part[name]
                for part in parts
            ]
        )
    return joined


def by_hand(trainer: str, task: str, ranks: list[dict]) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss of the accumulated batches, each of all ranks' samples, and its gradients."""
    model = model_of(trainer, task)
    batches = [join(list(parts)) for parts in zip(*(rank["batches"] for rank in ranks), strict=True)]
    loss = torch.stack([model(**batch).loss for batch in batches]).mean()
    loss.backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return loss.item(), gradients


def assert_step_is_that_of_hand(trainer, task, ranks, accumulation):
    loss, gradients = by_hand(trainer, task, ranks)
    for rank in ranks:
        assert len(rank["batches"]) == accumulation
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                rank["gradients"][name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert ranks[0]["loss"] == pytest.approx(loss, rel=1e-4)
