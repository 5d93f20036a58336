# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The Trainer of VALOR: what `transformers.Trainer` does not do by itself."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.utils import logging

from ..data.loading import FailureLog
from ..data.mixture import Mixture
from .arguments import ValorTrainingArguments
from .gradient_cache import gradient_cached_step
from .multitask import HEADS, ValorForMultitask


logger = logging.get_logger(__name__)

Evaluation = Callable[[nn.Module], dict[str, float]]
"""Measures a model: takes it in evaluation mode, on every rank, and gives named figures, the same on every rank."""


class ValorTrainer(Trainer):
    """
    Trains any VALOR head on a [`Mixture`], and measures it by retrieval and generation.

    Beyond `Trainer`: batches come from the mixture (each step draws one of its sources, the same on every rank);
    contrastive losses see the samples of all ranks; `contrastive_chunk_size` trains contrastive batches larger than memory;
    learning rates differ by part; samples that cannot be read are skipped, counted and reported.

    Args:
        model: a head whose task is that of all sources, or [`~training.ValorForMultitask`].
        args: with `max_steps`, the number of steps; without it, `num_train_epochs` times those of the mixture. To `Trainer`
            the whole training is one epoch, so no batch comes twice.
        train_dataset: the mixture.
        evaluations: name -> what measures the model; their figures are logged as `eval_{name}_{figure}`, of which
            `metric_for_best_model` may be one.
    """

    def __init__(
        self,
        model: nn.Module,
        args: ValorTrainingArguments,
        train_dataset: Mixture | None = None,
        evaluations: dict[str, Evaluation] | None = None,
        **kwargs,
    ):
        tasks = {source.options.task for source in train_dataset.sources} if train_dataset is not None else set()
        self.is_multitask = isinstance(model, ValorForMultitask)
        if not self.is_multitask and any(not isinstance(model, HEADS[task]) for task in tasks):
            raise ValueError(
                f"{type(model).__name__} cannot be trained for {', '.join(sorted(tasks))}: use the head of that task, or "
                "`ValorForMultitask` for several."
            )
        if train_dataset is not None and args.max_steps <= 0:
            steps = sum(source.num_steps(args.world_size) for source in train_dataset.sources)
            args.max_steps = max(1, round(args.num_train_epochs * steps / args.gradient_accumulation_steps))
        super().__init__(model=model, args=args, train_dataset=train_dataset, eval_dataset={}, **kwargs)
        self.evaluations = evaluations or {}
        self.failure_log = FailureLog(args.max_failures)
        # The loss is a mean over the batch at hand
        self.loss_is_scaled_for_ga = False
        self.source_losses = defaultdict(list)

    def get_train_dataloader(self) -> DataLoader:
        if self.train_dataset is None:
            raise ValueError("`ValorTrainer` needs a `Mixture` as `train_dataset` to train.")
        num_steps = None
        if self.args.max_steps > 0:
            num_steps = self.args.max_steps * self.args.gradient_accumulation_steps
        return self.train_dataset.loader(
            num_steps,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of `Trainer`, with a parameter group for each learning rate."""
        if self.optimizer is None:
            super().create_optimizer(model)
            rates = {
                id(parameter): self.learning_rate_of(name)
                for name, parameter in (self.model if model is None else model).named_parameters()
            }
            groups = []
            for group in self.optimizer.param_groups:
                by_rate = defaultdict(list)
                for parameter in group["params"]:
                    by_rate[rates[id(parameter)]].append(parameter)
                groups += [{**group, "params": params, "lr": rate} for rate, params in by_rate.items()]
            self.optimizer.param_groups[:] = groups
        return self.optimizer

    def learning_rate_of(self, name: str) -> float:
        """The learning rate of a parameter, by its name."""
        args = self.args
        if args.vision_learning_rate is not None and ".vision_model." in name:
            return args.vision_learning_rate
        if args.new_layers_learning_rate is not None and any(re.search(pattern, name) for pattern in args.new_layers):
            return args.new_layers_learning_rate
        return args.learning_rate

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        self.failure_log.update(inputs.pop("num_read"), inputs.pop("failures"))
        source, task = inputs.pop("source"), inputs.pop("task")
        inputs["task"] = task
        if self.args.contrastive_chunk_size is None or task not in ("pretraining", "retrieval"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self.chunked_training_step(model, inputs)
        self.source_losses[source].append(loss)
        return loss

    def chunked_training_step(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """A step whose contrastive batch is larger than memory; see [`~training.gradient_cached_step`]."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "`contrastive_chunk_size` works with one process or with DistributedDataParallel, not with FSDP or DeepSpeed."
            )
        model.train()
        inputs = self._prepare_inputs(inputs)
        task, steps = inputs.pop("task"), self.current_gradient_accumulation_steps
        loss = gradient_cached_step(
            forward=lambda **chunk: self.forward(model, {**chunk, "task": task}),
            model=self.accelerator.unwrap_model(model),
            inputs=inputs,
            chunk_size=self.args.contrastive_chunk_size,
            backward=lambda loss, **kwargs: self.accelerator.backward(loss / steps, **kwargs),
            precision=self.compute_loss_context_manager,
            defer_sync=lambda: self.accelerator.no_sync(model),
        )
        return loss / steps

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        outputs = self.forward(model, inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def forward(self, model: nn.Module, inputs: dict[str, Any]) -> Any:
        """The model's output; only a multitask model is told its task."""
        return model(**{name: value for name, value in inputs.items() if name != "task" or self.is_multitask})

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Sequence[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """All figures of `evaluations` (or of those in `eval_dataset`), logged and given as `eval_{name}_{figure}`."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        was_training = model.training
        metrics = {}
        for name, evaluation in (eval_dataset or self.evaluations).items():
            model.eval()
            with torch.no_grad(), self.compute_loss_context_manager():
                figures = evaluation(model)
            metrics.update({f"{metric_key_prefix}_{name}_{figure}": float(v) for figure, v in figures.items()})
        model.train(was_training)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean loss of each source since the last log."""
        if "loss" in logs:
            for source, losses in self.source_losses.items():
                if losses and len(self.train_dataset.sources) > 1:
                    logs[f"loss/{source}"] = torch.stack(losses).mean().item()
            self.source_losses.clear()
        super().log(logs, start_time)

    def train(self, *args, **kwargs):
        """As `Trainer.train`; afterwards says which samples could not be read."""
        output = super().train(*args, **kwargs)
        if self.failure_log.failures:
            logger.warning(self.failure_log.report())
        return output


__all__ = ["Evaluation", "ValorTrainer"]
