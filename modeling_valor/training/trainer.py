# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The Trainer of VALOR: what `transformers.Trainer` does not do by itself."""

import json
import math
import os
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import Trainer, TrainerControl, TrainerState
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput, get_last_checkpoint, unwrap_peft_model
from transformers.utils import logging

from ..compilation import compile_layers, without_compiled_layers
from ..data.failures import FailureLog
from ..data.mixture import Mixture, MixtureLoader, steps_of_sources
from ..evaluation.models import evaluating
from .arguments import ValorTrainingArguments
from .data_wait import DataWait, advice
from .gradient_cache import gradient_cached_step
from .interruption import StopRequest
from .model_card import write_model_card
from .multitask import HEADS, ValorForMultitask, trained_model
from .nonfinite import NonfiniteSteps, TrainedBatch, is_finite
from .resume import TRAINING_RUN_NAME, check_same_run, describe_run, global_step


logger = logging.get_logger(__name__)

EvaluationFunction = Callable[[nn.Module], dict[str, float]]
"""Evaluates a model in evaluation mode, on every rank, and returns metrics by name, the same on every rank."""


class ValorTrainer(Trainer):
    """Trains any VALOR head on a [`Mixture`], and evaluates it by retrieval and generation.

    Beyond `Trainer`: batches come from the mixture (each step draws one of its sources, the same on every rank);
    contrastive losses see the samples of all ranks; `contrastive_chunk_size` trains contrastive batches larger than memory;
    learning rates differ by part; samples that cannot be read are skipped, counted and reported; steps whose loss or
    gradient is not finite are skipped, and too many of them in a row end the training; SIGTERM and Ctrl-C save a checkpoint;
    `data_wait` of the logs is the share of step time in which the next batch was not there (of the slowest rank), and a
    large one is said once, with what to do.

    Args:
        model: a head whose task is that of all sources, or [`~training.ValorForMultitask`]; or a PEFT model of one, without
            a `task_type`.
        args: with `max_steps`, the number of steps; without it, `num_train_epochs` times those of the mixture.
        train_dataset: the mixture. An epoch is as many batches as its sources have `epochs` or `steps` for.
        evaluations: name -> function that evaluates the model; its metrics are logged as `eval_{name}_{metric}`, of which
            `metric_for_best_model` may be one.
    """

    control: TrainerControl
    state: TrainerState

    def __init__(
        self,
        model: nn.Module,
        args: ValorTrainingArguments,
        train_dataset: Mixture | None = None,
        evaluations: dict[str, EvaluationFunction] | None = None,
        **kwargs: Any,
    ):
        tasks = {source.options.task for source in train_dataset.sources} if train_dataset is not None else set()
        base = trained_model(model)
        if type(model).__name__.startswith("PeftModelFor"):
            raise ValueError(
                f"{type(model).__name__} gives VALOR inputs that it does not take: leave `task_type` out of the "
                "configuration of the adapters."
            )
        self.model_class = type(base)
        self.is_multitask = isinstance(base, ValorForMultitask)
        if not self.is_multitask and any(not isinstance(base, HEADS[task]) for task in tasks):
            raise ValueError(
                f"{type(base).__name__} cannot be trained for {', '.join(sorted(tasks))}: use the head of that task, or "
                "`ValorForMultitask` for several."
            )
        self.epoch_batches = 0
        self.run_record: dict[str, Any] = {}  # empty if there is no training
        if train_dataset is not None:
            self.epoch_batches = set_steps(args, train_dataset)
            self.run_record = describe_run(model, args, train_dataset.sources)
        super().__init__(model=model, args=args, train_dataset=train_dataset, eval_dataset={}, **kwargs)
        self.evaluations = evaluations or {}
        self.stop, self.ending = StopRequest(), 0
        self.nonfinite = NonfiniteSteps(args.max_nonfinite_steps)
        self.data_wait, self.wait_is_said = DataWait(), False
        self.trained_batches: list[tuple[TrainedBatch, torch.Tensor]] = []
        self.scalars: list[str] = []
        self._prepare_for_fsdp()
        if args.compile_layers:
            compile_layers(self.model)
            logger.warning(
                "Layers are compiled at the first steps, and again for the first batch of another size: each time that takes "
                "minutes, which short runs do not win back."
            )
        total = None if train_dataset is None else train_dataset.num_samples
        self.failure_log = FailureLog(args.max_failures, total, consequence="and were replaced by others")
        # The loss is a mean over the batch and does not depend on the other batches of the step
        self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = False
        self.source_losses: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
        self.group_losses: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
        self.model_card: str | None = None

    def _prepare_for_fsdp(self) -> None:
        """Chooses what FSDP gathers at a time, and gives scalars, which it cannot shard, a dimension until they are saved."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is None:
            return
        if plugin.transformer_cls_names_to_wrap is None:
            # Not `_no_split_modules`, which name the word embeddings: Accelerate shards those by itself
            layers = (module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer))
            plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in layers})
        for prefix, module in self.model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 0:
                    setattr(module, name, nn.Parameter(parameter.detach()[None], parameter.requires_grad))
                    self.scalars.append(f"{prefix}.{name}" if prefix else name)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if state_dict is not None:
            # Tensors that are gathered one by one no longer share memory, so tied ones are dropped by name
            tied = getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", {})
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
            state_dict |= {name: state_dict[name].squeeze(0) for name in self.scalars if name in state_dict}
        super()._save(output_dir, state_dict)
        if self.run_record and self.args.should_save:
            path = Path(output_dir or self.args.output_dir, TRAINING_RUN_NAME)
            path.write_text(json.dumps(self.run_record, indent=2) + "\n", encoding="utf-8")

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # A tied parameter is in the checkpoint under one of its names
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:
            complete_state(self.optimizer)
        super()._save_optimizer_and_scheduler(output_dir)

    def get_train_dataloader(self) -> MixtureLoader:
        if self.train_dataset is None:
            raise ValueError("`ValorTrainer` needs a `Mixture` as `train_dataset` to train.")
        # As in `Trainer`, the last step of an epoch may have fewer batches than the others
        accumulation = self.args.gradient_accumulation_steps
        epochs, steps = divmod(self.args.max_steps, math.ceil(self.epoch_batches / accumulation))
        return self.train_dataset.loader(
            epochs * self.epoch_batches + steps * accumulation,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            prefetch_factor=self.args.dataloader_prefetch_factor,
            epoch_steps=self.epoch_batches,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of `Trainer`, with a parameter group for each learning rate."""
        if self.optimizer is None:
            optimizer: torch.optim.Optimizer = super().create_optimizer(model)
            rates = {
                id(parameter): self.learning_rate_of(name)
                for name, parameter in (self.model if model is None else model).named_parameters()
            }
            groups = []
            for group in optimizer.param_groups:
                by_rate = defaultdict(list)
                for parameter in group["params"]:
                    by_rate[rates[id(parameter)]].append(parameter)
                groups += [{**group, "params": params, "lr": rate} for rate, params in by_rate.items()]
            optimizer.param_groups[:] = groups
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
        batch = TrainedBatch(inputs.pop("source"), inputs.pop("ids"))
        if self.args.contrastive_chunk_size is None or inputs["task"] not in ("pretraining", "retrieval"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self.chunked_training_step(model, inputs)
        self.source_losses[batch.source].append(loss * self.current_gradient_accumulation_steps)
        self.trained_batches.append((batch, loss))
        return loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], torch.Tensor | int | None]:
        batches: tuple[list[Any], torch.Tensor | int | None] = self.data_wait.fetch(
            lambda: super(ValorTrainer, self).get_batch_samples(*args, **kwargs)
        )
        share = self.data_wait.pop_large_share()
        if share is not None and not self.wait_is_said and self.is_world_process_zero():
            self.wait_is_said = True
            logger.warning(advice(share, self.args, self.train_dataset.sources))
        return batches

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Moves a batch to the device, and prepares there what the workers have only read."""
        inputs = dict(inputs)
        if (raw := inputs.pop("raw_media", None)) is not None:
            inputs |= raw.to(self.args.device).prepare(self.train_dataset.processor)
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        return prepared

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
            model=unwrap_peft_model(self.accelerator.unwrap_model(model)),
            inputs=inputs,
            chunk_size=self.args.contrastive_chunk_size,
            backward=lambda loss, **kwargs: self.accelerator.backward(loss / steps, **kwargs),
            record=lambda losses: self.record_group_losses(task, losses),
            precision=self.compute_loss_context_manager,
            defer_sync=lambda: self.accelerator.no_sync(model),
        )
        return loss / steps

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | float | None = None) -> torch.Tensor | float:
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.end_of_backward(model, grad_norm)
        return grad_norm

    def end_of_backward(self, model: nn.Module, grad_norm: torch.Tensor | float) -> None:
        """Before the optimizer's step, the ranks agree whether to skip it, and whether it is the last one."""
        for batch, loss in self.trained_batches:
            batch.is_finite = is_finite(loss)
        batches = [batch for batch, _ in self.trained_batches]
        self.trained_batches.clear()
        finite = all(batch.is_finite for batch in batches) and (is_finite(grad_norm) or self.scaler_takes_care())
        finite = self.agree(finite)
        if not finite:
            model.zero_grad()
            batches = gather_object(batches)
        warning = self.nonfinite.update(self.state.global_step + 1, finite, batches)
        if warning and self.is_world_process_zero():
            logger.warning(warning)

    def scaler_takes_care(self) -> bool:
        """Whether gradients may overflow in float16 only because the scale of the loss is too large; the scaler reduces it."""
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is None:
            return self.is_deepspeed_enabled and self.args.fp16
        return scaler.get_scale() > 1

    def agree(self, finite: bool = True) -> bool:
        """Whether a step is finite on all ranks. Also shares a signal that any of them has received."""
        number = self.stop.signal
        if self.accelerator.num_processes > 1:
            flags = torch.tensor([[int(not finite), number]], device=self.args.device)
            nonfinite, number = self.accelerator.gather(flags).amax(dim=0).tolist()
            finite = not nonfinite
        if number and not self.stop.signal:
            self.stop.receive(number)
        self.ending = number
        return finite

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: torch.Tensor | float | None,
        model: nn.Module,
        trial: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if self.ending:
            self.control.should_save, self.control.should_evaluate = True, False
        elif self.nonfinite.in_a_row and self.state.global_step < self.state.max_steps:
            self.control.should_save = False  # until a step has shown that the weights are good
        evaluates, saves = self.control.should_evaluate, self.control.should_save
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        if evaluates or saves:
            self.data_wait.forget()
        if evaluates:
            self.agree()
        if self.ending:
            if not saves:
                self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
            raise SystemExit(128 + self.ending)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        outputs = self.forward(model, inputs)
        if model.training:
            self.record_group_losses(inputs["task"], outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def record_group_losses(self, task: str, outputs: Mapping[str, Any]) -> None:
        """Keeps the losses of modality groups for the next log."""
        kinds = {"alignment_losses": "alignment_loss", "captioning_losses": "captioning_loss"}
        if task == "question_answering":
            kinds = {"captioning_losses": "answer_loss"}
        for field, kind in kinds.items():
            for group, loss in (outputs.get(field) or {}).items():
                self.group_losses[f"{kind}/{group}"].append(loss.detach())

    def forward(self, model: nn.Module, inputs: dict[str, Any]) -> Any:
        """The model's output; only a multitask model gets its task."""
        return model(**{name: value for name, value in inputs.items() if name != "task" or self.is_multitask})

    def whole_model(self) -> nn.Module:
        """The model to evaluate. Under FSDP it is a copy with all parameters on every rank, because ranks have different numbers
        of samples and words, while all of them must call a sharded model together.
        """
        wrapped = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model = trained_model(wrapped)  # adapters are in its layers
        is_sharded = isinstance(wrapped, FSDPModule)
        if not is_sharded:
            return model
        if model is not wrapped:
            raise ValueError(
                "A PEFT model cannot be measured while it is sharded by FSDP: train it with DistributedDataParallel, or "
                "without evaluations."
            )
        tensors: dict[str, Any] = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
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
        """Logs and returns the metrics of `evaluations` (or of those in `eval_dataset`) as `eval_{name}_{metric}`."""
        model = self.whole_model()
        metrics = {}
        for name, evaluation in (eval_dataset or self.evaluations).items():
            with evaluating(model), without_compiled_layers(), self.compute_loss_context_manager():
                results = evaluation(model)
            metrics.update({f"{metric_key_prefix}_{name}_{metric}": float(value) for metric, value in results.items()})
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean losses since the last log of each source and of each modality group, over all ranks."""
        if "train_runtime" in logs and self.state.global_step == self._initial_global_step:
            return  # a finished training was resumed: zeros are no results
        if "loss" in logs:
            self.nonfinite.log(logs)
            if (share := self.data_wait.pop_share()) is not None:
                shares = self.accelerator.gather(torch.tensor([share], device=self.args.device))
                logs["data_wait"] = round(shares.max().item(), 4)
            if len(self.train_dataset.sources) > 1:
                for source, losses in self.source_losses.items():
                    logs[f"loss/{source}"] = self.mean_over_ranks(losses)
            for name, losses in sorted(self.group_losses.items()):
                steps = self.accelerator.reduce(torch.stack(losses).float(), "mean")
                if (present := steps[steps != 0]).numel():  # in other steps no sample has the group's modalities
                    logs[name] = present.mean().item()
            self.source_losses.clear()
            self.group_losses.clear()
        super().log(logs, start_time)

    def mean_over_ranks(self, values: Sequence[torch.Tensor]) -> float:
        """The mean of scalars of all ranks, each of which has the same number of them."""
        return self.accelerator.reduce(torch.stack(list(values)).float().mean(), "mean").item()

    def create_model_card(self, **kwargs: Any) -> None:
        """Writes `model_card`, if it is set, instead of the draft of `Trainer`; does not replace a card written by hand."""
        if self.model_card is None:
            super().create_model_card(**kwargs)
        elif self.is_world_process_zero() and not write_model_card(self.model_card, self.args.output_dir):
            logger.warning(
                f"{self.args.output_dir}/README.md was not written by modeling-valor, so it is not replaced."
            )

    def train(self, resume_from_checkpoint: str | os.PathLike[str] | bool | None = None, **kwargs: Any) -> TrainOutput:
        """As `Trainer.train`; says what is resumed, and afterwards which samples could not be read.

        SIGTERM and Ctrl-C end the training with a checkpoint of the step that they arrive in.

        Returns:
            As `Trainer.train`; without metrics if no step was left to train.

        Raises:
            ValueError: the checkpoint is of another model, task or dataset.
            TrainingDiverged: loss or gradient were not finite for `max_nonfinite_steps` steps in a row.
            SystemExit: after a signal, with 143 (SIGTERM) or 130 (Ctrl-C).
        """
        if isinstance(resume_from_checkpoint, bool):
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint else None
        first_step = 0
        if resume_from_checkpoint:
            first_step = global_step(resume_from_checkpoint)
            what = f"Resuming at step {first_step} of {self.args.max_steps}, from {os.fspath(resume_from_checkpoint)}."
            self.say_resume(what, resume_from_checkpoint)
        # DeepSpeed has taken the step already when its gradient can be looked at
        tolerated = 1 if self.is_deepspeed_enabled else self.args.max_nonfinite_steps
        self.nonfinite = NonfiniteSteps(max(1, min(tolerated, self.args.max_steps - first_step)))
        self.ending = 0
        notice = (
            f"the training stops after this step and saves it in {self.args.output_dir}, from where the same command goes "
            "on. Ctrl-C again stops at once."
        )
        with StopRequest(notice if self.is_world_process_zero() else None) as self.stop:
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        if self.stop.signal:  # after the last step: the training is complete, what follows it is not
            signal.raise_signal(self.stop.signal)
        if self.failure_log.failures:
            logger.warning(self.failure_log.report())
        if self.state.global_step == first_step:
            return TrainOutput(output.global_step, output.training_loss, {})
        return output

    def load_finished(self) -> bool:
        """Loads the weights of `output_dir` if this run has finished there, so that there is nothing left to train.

        Raises:
            ValueError: `output_dir` has the results of another model, task or dataset.
        """
        folder = self.args.output_dir
        steps = global_step(folder)
        if steps < self.args.max_steps or not Path(folder, TRAINING_RUN_NAME).exists():
            return False
        self.say_resume(f"{folder} has the end of this training, step {steps}: nothing is left to train.", folder)
        self.state = TrainerState.load_from_json(os.path.join(folder, TRAINER_STATE_NAME))
        if unwrap_peft_model(self.model) is not self.model:
            self._load_from_checkpoint(folder)
        else:
            weights = self.model_class.from_pretrained(folder).state_dict()
            shapes = {name: own.shape for name, own in self.model.state_dict().items()}
            self.model.load_state_dict({name: weights[name].reshape(shape) for name, shape in shapes.items()})
        return True

    def say_resume(self, what: str, folder: str | os.PathLike[str]) -> None:
        """Logs one line about the run that is resumed, after a check that it is the same one."""
        differences = check_same_run(folder, self.run_record)
        if self.is_world_process_zero():
            logger.warning(f"{what} {differences}")


def set_steps(args: ValorTrainingArguments, mixture: Mixture) -> int:
    """Sets `max_steps`, and the steps that are given as a share of it; returns the number of batches of an epoch."""
    batches = args.max_steps * args.gradient_accumulation_steps if args.max_steps > 0 else None
    epoch_batches = sum(steps_of_sources(mixture.sources, args.world_size, batches))
    if args.max_steps <= 0:
        steps = math.ceil(epoch_batches / args.gradient_accumulation_steps)
        args.max_steps = max(1, round(args.num_train_epochs * steps))
    for name in ("logging_steps", "eval_steps", "save_steps"):
        if (share := getattr(args, name)) is not None and share < 1:
            setattr(args, name, math.ceil(share * args.max_steps))  # as the state of a checkpoint has it
    return epoch_batches


def complete_state(optimizer: torch.optim.Optimizer) -> None:
    """Initializes the state of parameters that have had no gradient so far, because a sharded optimizer is resumed with it.

    The values of all parameters stay as they are.
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


__all__ = ["EvaluationFunction", "ValorTrainer"]
