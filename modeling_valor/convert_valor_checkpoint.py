# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Released 2023 checkpoints of VALOR to a folder that `from_pretrained` loads and that can be pushed to the Hub."""

import functools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertTokenizer, GenerationConfig
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from transformers.utils import CHAT_TEMPLATE_FILE, PROCESSOR_NAME

from .configuration_valor import ValorConfig
from .conversion.archive import is_archive, unpacked_run
from .conversion.files import check_is_checkpoint, read_checkpoint, whole_folder
from .conversion.options import (
    ConversionError,
    accepts_hps,
    crops_frames,
    listing,
    read_options,
    sampled_at_test_time,
    unsupported_options,
)
from .conversion.sizes import config_from_checkpoint, size_of
from .conversion.tensors import convert_state_dict, strip_prefix
from .feature_extraction_valor import ValorFeatureExtractor
from .modeling_valor_heads import ValorForPreTraining
from .processing_valor import ValorProcessor
from .tokenization_valor import TASK_PROMPTS
from .video_processing_valor import ValorVideoProcessor


def find_checkpoint(checkpoint: Path, options: Any) -> tuple[Path, Any]:
    """The checkpoint file of the latest step and the options file, where `checkpoint` is a folder of the 2023 program."""
    if checkpoint.is_dir():
        steps = {
            int(step[1]): file
            for file in checkpoint.glob("ckpt/model_step_*")
            if (step := re.fullmatch(r"model_step_(\d+)\.(?:pt|safetensors)", file.name))
        }
        if not steps:
            raise ConversionError(
                f"The folder {checkpoint} holds no ckpt/model_step_N.pt, as the 2023 program writes it."
            )
        checkpoint = steps[max(steps)]
    check_is_checkpoint(checkpoint)
    if options is None:
        # A fine-tuned checkpoint is beside the folders of the run that it started from
        places = [folder / "log" / "hps.json" for folder in (checkpoint.parent.parent, checkpoint.parent)]
        options = next((place for place in places if place.is_file()), None)
        if options is None:
            raise ConversionError(
                f"No options were given for {checkpoint}, and {places[0]} does not exist. Give the hps.json of the checkpoint, "
                "or of the one that it was fine-tuned from (--hps): task prompts and the kind of alignment cannot be seen in "
                "its tensors."
            )
    return checkpoint, options


def read_tokenizer(vocab: str | PathLike[str] | None, model_max_length: int) -> BertTokenizer | None:
    """The lower-casing WordPiece tokenizer of a vocabulary file; a `ConversionError` if it is none."""
    if vocab is None:
        return None
    try:
        words = Path(vocab).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConversionError(f"The vocabulary {vocab} cannot be read: {error}.") from error
    missing = [word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if word not in words]
    if missing:
        raise ConversionError(f"The vocabulary {vocab} lacks {listing(missing, 5)}: it is no vocabulary of BERT.")
    return BertTokenizer(str(vocab), do_lower_case=True, model_max_length=model_max_length)


@accepts_hps
def build_processor(
    config: ValorConfig, options: Mapping[str, Any], tokenizer: BertTokenizer | None = None
) -> ValorProcessor:
    """What prepares text, frames and sound as the 2023 program does at test time; without tokenizer, with an empty one."""
    options = read_options(options)
    side = options["video_resolution"] or config.vision_config.image_size
    crop = crops_frames(options)
    is_clip = config.vision_config.model_type == "clip_vision_model"
    video_processor = ValorVideoProcessor(
        num_frames=sampled_at_test_time(options, "video_sample_num", config.max_frames),
        size={"shortest_edge": side} if crop else {"height": side, "width": side},
        do_center_crop=crop,
        crop_size={"height": side, "width": side},
        antialias=False,
        image_mean=list(OPENAI_CLIP_MEAN if is_clip else IMAGENET_DEFAULT_MEAN),
        image_std=list(OPENAI_CLIP_STD if is_clip else IMAGENET_DEFAULT_STD),
    )
    feature_extractor = ValorFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins,
        num_audio_clips=sampled_at_test_time(options, "audio_sample_num", config.max_audio_clips),
        clip_length=config.audio_config.max_length,
        frame_shift_ms=options["audio_frame_shift"],
        mean=options["audio_mean"],
        std=options["audio_std"],
    )
    return ValorProcessor(
        tokenizer=tokenizer or BertTokenizer(),
        video_processor=video_processor,
        feature_extractor=feature_extractor,
        clean_text=True,
    )


@accepts_hps
def build_generation_config(config: ValorConfig, options: Mapping[str, Any]) -> GenerationConfig:
    """Limits and special tokens. Decoding is greedy unless asked otherwise: captions and answers share this file."""
    return GenerationConfig(
        max_new_tokens=read_options(options)["max_generation_len"],
        pad_token_id=config.text_config.pad_token_id,
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
    )


@accepts_hps
def save_configs(
    output_dir: str | PathLike[str],
    config: ValorConfig,
    options: Mapping[str, Any],
    tokenizer: BertTokenizer | None = None,
) -> None:
    """Writes what a checkpoint's folder holds besides the weights; no tokenizer files without a tokenizer."""
    processor = build_processor(config, options, tokenizer)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    config.architectures = [ValorForPreTraining.__name__]
    config.save_pretrained(output_dir)
    build_generation_config(config, options).save_pretrained(output_dir)
    if tokenizer is None:
        processor.to_json_file(Path(output_dir) / PROCESSOR_NAME)
        (Path(output_dir) / CHAT_TEMPLATE_FILE).write_text(str(processor.chat_template), encoding="utf-8")
    else:
        processor.save_pretrained(output_dir)


@dataclass
class ConversionSummary:
    """What a conversion wrote and what it left out; `str()` of it is for people, `to_dict()` for scripts.

    parameters (`dict[str, int]`): parameters of each part of the model; tied ones count once.
    left_out (`dict[str, list[int]]`): number of tensors and of their elements by 2023 prefix: unused or repeated.
    ignored_options (`list[str]`): options of the 2023 program that the package has no use for.
    prompts (`dict[str, list[int]]`): task prompts.
    """

    checkpoint: str
    output_dir: str
    dtype: str
    parameters: dict[str, int]
    left_out: dict[str, list[int]]
    ignored_options: list[str]
    prompts: dict[str, list[int]]
    image_size: int
    num_frames: int
    num_audio_clips: int
    has_tokenizer: bool

    @property
    def num_parameters(self) -> int:
        return sum(self.parameters.values())

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "num_parameters": self.num_parameters}

    def __str__(self) -> str:
        lines = [
            f"Converted {self.checkpoint} to {self.output_dir}: {self.num_parameters:,} parameters in {self.dtype}"
        ]
        lines += [f"  {part:<24}{count:>14,}" for part, count in self.parameters.items()]
        lines += [f"Input: {self.num_frames} frames of {self.image_size} pixels, {self.num_audio_clips} audio clips"]
        if self.left_out:
            lines.append("Left out, because the model does not use it or holds it once already:")
            lines += [f"  {name} ({count} tensors, {size:,} numbers)" for name, (count, size) in self.left_out.items()]
        lines += [f"Prompt: {TASK_PROMPTS[name]!r} as {name} {ids}" for name, ids in self.prompts.items()]
        if self.ignored_options:
            lines.append(f"Ignored options: {', '.join(self.ignored_options)}")
        if not self.has_tokenizer:
            lines.append("No vocabulary was given: add the tokenizer's files before loading the processor")
        return "\n".join(lines)


def group_left_out(state_dict: Mapping[str, Tensor], unused: Iterable[str]) -> dict[str, list[int]]:
    """Number of tensors and of their elements under each prefix of two names."""
    tensors: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    for key in unused:
        prefix = ".".join(key.split(".")[:2])
        if key.endswith(".relative_position_index"):
            prefix = "video_encoder.*.relative_position_index"
        tensors[prefix] += 1
        elements[prefix] += state_dict[key].numel()
    return {prefix: [tensors[prefix], elements[prefix]] for prefix in sorted(tensors)}


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Parameters of each part of a model with heads, a tied one at its first place only."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[name.removeprefix("valor.").split(".")[0]] += parameter.numel()
    return dict(counts)


def check_finite(weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Raises a `ConversionError` that names the tensors with NaN or infinity, from which a model could only give NaN."""
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise ConversionError(
            f"The checkpoint has NaN or infinity as {str(dtype).removeprefix('torch.')} in {listing(broken, 4)}: it is damaged, "
            "its training diverged, or its numbers are too large for that type."
        )


@accepts_hps
def convert(
    checkpoint: str | PathLike[str],
    options: str | PathLike[str] | Mapping[str, Any] | None,
    vocab: str | PathLike[str] | None,
    output_dir: str | PathLike[str],
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
    member: str | None = None,
) -> ConversionSummary:
    """Writes a folder that every Valor class loads: config, safetensors, processor, tokenizer and generation config.

    The checkpoint is mapped into memory and written from there, so a conversion needs little more memory than its
    largest shard. Nothing is written unless every tensor has found its place.

    Args:
        checkpoint: `model_step_N.pt`, or a `.safetensors` with the same keys, or the folder that the 2023 program
            wrote (its latest step is taken), or a zip of such a folder as it was downloaded, of which only the checkpoint is
            unpacked. Keys that repeat a shared tensor may be absent.
        options: the options, as a path of `hps.json` or its content. By default `../log/hps.json`, relative to the checkpoint,
            or `log/hps.json` beside it, where a fine-tuned checkpoint lies in the folder of its base model.
        vocab: BERT vocabulary file. Without it no tokenizer is written.
        output_dir: folder to write to, created if needed.
        dtype: type of the written weights; by default the checkpoint's.
        max_shard_size: a larger model is written in shards.
        member: name of the checkpoint in a zip, where it is not that of the latest step.

    Raises:
        `ConversionError`: what was given cannot be read, or does not fit together. Nothing was written then.
    """
    checkpoint, output_dir = Path(checkpoint), Path(output_dir)
    archived = is_archive(checkpoint)
    if member is not None and not archived:
        raise ConversionError(f"{checkpoint} is no zip of several files, so that it has no member {member!r}.")
    with unpacked_run(checkpoint, member, near=output_dir.absolute()) if archived else nullcontext(checkpoint) as file:
        file, options = find_checkpoint(file, options)
        summary = _convert(file, read_options(options), vocab, output_dir, dtype, max_shard_size)
    return replace(summary, checkpoint=f"{checkpoint}/{file.name}") if archived else summary


def _convert(
    checkpoint: Path,
    options: Mapping[str, Any],
    vocab: str | PathLike[str] | None,
    output_dir: Path,
    dtype: torch.dtype | None,
    max_shard_size: str,
) -> ConversionSummary:
    """Converts a checkpoint file."""
    if output_dir.exists() and not output_dir.is_dir():
        raise ConversionError(f"The output folder {output_dir} is a file.")
    state_dict = strip_prefix(read_checkpoint(checkpoint))
    positions = "multimodal_encoder.embeddings.position_embeddings.weight"
    tokenizer = read_tokenizer(vocab, model_max_length=size_of(state_dict, positions, 0))
    config = config_from_checkpoint(state_dict, options, tokenizer)
    tensors, unused = convert_state_dict(state_dict, config, options["video_sample_num"], options["audio_sample_num"])
    processor = build_processor(config, options)
    ignored = unsupported_options(options)
    if ignored:
        warnings.warn(
            f"These options of the 2023 program have no counterpart and are ignored: {', '.join(ignored)}.",
            stacklevel=2,
        )

    if dtype is None:
        dtype = functools.reduce(torch.promote_types, {tensor.dtype for tensor in tensors.values()})
    with torch.device("meta"):
        model = ValorForPreTraining(config)
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    check_finite(weights, dtype)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.config.dtype = dtype
    with whole_folder(output_dir) as folder:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        save_configs(folder, model.config, options, tokenizer)
    return ConversionSummary(
        checkpoint=str(checkpoint),
        output_dir=str(output_dir),
        dtype=str(dtype).removeprefix("torch."),
        parameters=count_parameters(model),
        left_out=group_left_out(state_dict, unused),
        ignored_options=ignored,
        prompts={name: ids for name in TASK_PROMPTS if (ids := getattr(config, name)) is not None},
        image_size=options["video_resolution"] or config.vision_config.image_size,
        num_frames=processor.video_processor.num_frames,
        num_audio_clips=processor.feature_extractor.num_audio_clips,
        has_tokenizer=tokenizer is not None,
    )


__all__ = [
    "ConversionError",
    "ConversionSummary",
    "build_generation_config",
    "build_processor",
    "config_from_checkpoint",
    "convert",
    "convert_state_dict",
    "save_configs",
]
