# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A summary of a training in a few lines: logged before it starts, and part of the model card."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel

from ..data.mixture import Source
from ..data.samples import SampleStream
from .arguments import ModelArguments
from .model_card import public_name
from .trainer import ValorTrainer


_MODALITIES = {"av": "video and audio", "v": "video", "a": "audio"}


def describe_weights(args: ModelArguments, model: nn.Module, new: Collection[str]) -> str:
    """The checkpoints that a model's weights are from, and the parts with random weights.

    Args:
        new: names of the parameters that no checkpoint had.
    """
    parts = (("text", args.text_model), ("vision", args.vision_model), ("audio", args.audio_model))
    loaded = [f"{part} from {public_name(checkpoint)}" for part, checkpoint in parts if checkpoint is not None]
    if args.model_name_or_path is not None:
        loaded.insert(0, f"from {public_name(args.model_name_or_path)}")
    sizes: dict[str, int] = defaultdict(int)
    for name, parameter in model.named_parameters():
        if name in new:
            sizes[_module(name)] += parameter.numel()
    if len(new) == sum(1 for _ in model.named_parameters()):
        return "all new, from random values"
    described = ", ".join(f"{module} ({size:,})" for module, size in sizes.items())
    return f"{', '.join(loaded)}; new, from random values: {described or 'nothing'}"


def _module(name: str) -> str:
    """The part of the model that a parameter is in; new layers of the decoder are separate from BERT's."""
    parts = name.removeprefix("valor.").split(".")
    inner = next((part for part in parts[1:] if "cross" in part or "condition" in part), None)
    return parts[0] if inner is None else f"{parts[0]} {inner}"


def describe_training(
    trainer: ValorTrainer, sources: Sequence[Source], measured: Mapping[str, int], weights: str
) -> dict[str, str]:
    """A training by headings and lines.

    Args:
        trainer: before it trains.
        sources: what it trains on.
        measured: name of each evaluation -> number of its samples.
        weights: of [`describe_weights`].
    """
    return {
        "Model": _model(trainer.model),
        "Weights": weights,
        "Samples": "; ".join(map(_source, sources)),
        "Batch": "; ".join(_batches(trainer, sources)),
        "Steps": _steps(trainer),
        "Learning rate": _rates(trainer),
        "Measured": _measured(trainer, measured),
    }


def _model(model: PreTrainedModel) -> str:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained)
    total = sum(size for size, _ in sizes)
    return f"{type(model).__name__}, {total:,} parameters: {trained:,} trained, {total - trained:,} frozen"


def _source(source: Source) -> str:
    options = source.options
    count = "a stream" if isinstance(source.samples, SampleStream) else f"{len(source.samples):,} samples"
    what = [options.task.replace("_", " "), _MODALITIES[options.modalities]]
    for number, noun in ((options.num_frames, "frames"), (options.num_audio_clips, "audio clips")):
        if number is not None:
            what.append(f"{number} {noun}")
    return f"{public_name(source.name)}, {count} ({', '.join(what)})"


def _batches(trainer: ValorTrainer, sources: Sequence[Source]) -> Iterator[str]:
    processes, accumulation = trainer.accelerator.num_processes, trainer.args.gradient_accumulation_steps
    for size in sorted({source.batch_size for source in sources}):
        names = [public_name(source.name) for source in sources if source.batch_size == size]
        prefix = "" if len(names) == len(sources) else f"{', '.join(names)}: "
        factors = [str(size)]
        factors += [f"{processes} processes"] * (processes > 1) + [f"{accumulation} batches"] * (accumulation > 1)
        total = size * processes * accumulation
        yield f"{prefix}{' x '.join(factors)}{f' = {total:,}' if len(factors) > 1 else ''} samples a step"


def _steps(trainer: ValorTrainer) -> str:
    args = trainer.args
    epoch = -(-trainer.epoch_batches // args.gradient_accumulation_steps)
    return f"{args.max_steps:,}, which are {args.max_steps / epoch:.3g} epochs of {epoch:,}"


def _rates(trainer: ValorTrainer) -> str:
    sizes: dict[float, int] = defaultdict(int)
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            sizes[trainer.learning_rate_of(name)] += parameter.numel()
    if len(sizes) == 1:
        return f"{next(iter(sizes)):g}"
    return ", ".join(f"{rate:g} for {size:,} parameters" for rate, size in sorted(sizes.items(), reverse=True))


def _measured(trainer: ValorTrainer, measured: Mapping[str, int]) -> str:
    if not measured:
        return "nothing"
    args = trainer.args
    what = ", ".join(f"{name} on {count:,} samples" for name, count in measured.items())
    if args.eval_strategy == "epoch":
        when = ["after each epoch"]
    elif args.eval_strategy == "steps":
        steps = args.eval_steps if args.eval_steps >= 1 else max(1, round(args.eval_steps * args.max_steps))
        when = [f"every {steps:g} steps" if steps > 1 else "after every step"]
    else:
        when = []
    return f"{what}, {' and '.join(when + ['at the end'] * args.do_eval)}"


__all__ = ["describe_training", "describe_weights"]
