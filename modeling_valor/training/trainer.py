# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The Trainer of VALOR: what `transformers.Trainer` does not do by itself."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from ..data.failures import FailureLog
from ..data.mixture import Mixture
from ..evaluation.inference import evaluating
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
        self.model_class = type(model)
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
        self.scalars: list[str] = []
        self._prepare_for_fsdp()
        self.failure_log = FailureLog(args.max_failures, None if train_dataset is None else train_dataset.num_samples)
        # The loss is a mean over the batch at hand
        self.loss_is_scaled_for_ga = False
        self.source_losses = defaultdict(list)

    def _prepare_for_fsdp(self) -> None:
        """Chooses what FSDP gathers at a time, and gives scalars, which it cannot divide, a dimension until they are saved."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is None:
            return
        if plugin.transformer_cls_names_to_wrap is None:
            # Not `_no_split_modules`, which name the word embeddings: Accelerate divides those by itself
            layers = (module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer))
            plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in layers})
        for prefix, module in self.model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 0:
                    setattr(module, name, nn.Parameter(parameter.detach()[None], parameter.requires_grad))
                    self.scalars.append(f"{prefix}.{name}" if prefix else name)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if state_dict is not None:
            # Gathered one by one, shared tensors are no longer known to be the same
            tied = getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", {})
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
            state_dict |= {name: state_dict[name].squeeze(0) for name in self.scalars if name in state_dict}
        super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:
            complete_state(self.optimizer)
        super()._save_optimizer_and_scheduler(output_dir)

    def get_train_dataloader(self) -> DataLoader:
        if self.train_dataset is None:
            raise ValueError("`ValorTrainer` needs a `Mixture` as `train_dataset` to train.")
        return self.train_dataset.loader(
            self.args.max_steps * self.args.gradient_accumulation_steps,
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
        source = inputs.pop("source")
        if self.args.contrastive_chunk_size is None or inputs["task"] not in ("pretraining", "retrieval"):
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

    def whole_model(self) -> nn.Module:
        """
        The model to measure. Under FSDP it is a copy with all parameters on every rank: ranks call it as often as each has
        samples and words, while a divided model must be called by all of them together.
        """
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if not isinstance(model, FSDPModule):
            return model
        tensors = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        whole = self.model_class._from_config(model.config)
        whole.load_state_dict({name: tensors[name].reshape(own.shape) for name, own in whole.state_dict().items()})
        if model.can_generate():
            whole.generation_config = model.generation_config
        return whole.to(self.args.device)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Sequence[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """All figures of `evaluations` (or of those in `eval_dataset`), logged and given as `eval_{name}_{figure}`."""
        model = self.whole_model()
        metrics = {}
        for name, evaluation in (eval_dataset or self.evaluations).items():
            with evaluating(model), self.compute_loss_context_manager():
                figures = evaluation(model)
            metrics.update({f"{metric_key_prefix}_{name}_{figure}": float(v) for figure, v in figures.items()})
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


def complete_state(optimizer: torch.optim.Optimizer) -> None:
    """
    Gives parameters that had no gradient so far the state of their first step, which a divided optimizer is resumed with.

    They, and all others, keep their values.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate's wrapper skips steps
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    new = [parameter for parameter in parameters if parameter.requires_grad and parameter not in optimizer.state]
    if not new:
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    for parameter in new:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], torch.Tensor) else 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    for parameter in new:
        if "step" in optimizer.state[parameter]:
            optimizer.state[parameter]["step"].zero_()


__all__ = ["Evaluation", "ValorTrainer"]
