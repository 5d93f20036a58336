# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""VALOR's towers, its score and its decoder as programs of torch.export or ONNX, which run without this package.

    exported = export_programs(model, processor, "onnx")
    exported.save("valor-onnx")

Each tower embeds one modality: tokens of the common space, and the logits of their weights (eq. 3). A program for each modality
group of the alignment takes the tokens of both its sides and returns the scores. Of a captioner, `next_word_GROUP` is a step of
greedy decoding, without a cache. The programs are made by transformers'
exporters; `programs.json` beside them says what each one takes and returns.
"""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx.experimental import _config
from torch.nn import functional as F
from transformers.exporters.base import ExportedComponent, ExportedModel, HfExporter
from transformers.exporters.configs import DynamoConfig, OnnxConfig
from transformers.utils import logging as transformers_logging

from ..configuration_valor import ALIGNMENT_GROUPS, CAPTIONING_GROUPS, MODALITIES, ValorConfig
from ..modeling_valor import ValorModel
from ..modeling_valor_heads import ValorForCaptioning
from ..modeling_valor_text import ValorConditions
from ..processing_valor import ValorProcessor


__all__ = ["DESCRIPTION_FILE", "ExportedPrograms", "Program", "TensorSpec", "build_programs", "export_programs"]

Format = Literal["torch", "onnx"]

DESCRIPTION_FILE = "programs.json"
TOLERANCE = 1e-4
"""Largest difference from the model that is accepted, relative to values above 1."""

TOKEN_AXES = {"text": "length", "video": "encoded_frames", "audio": "clips"}
TRACED_SIZES = {"length": 7, "frames": 6, "encoded_frames": 5, "clips": 3}
CHECKED_SIZES: tuple[dict[str, int], ...] = (
    {"length": 1, "frames": 1, "encoded_frames": 1, "clips": 1, "first": 1, "second": 1},
    {"length": 12, "frames": 8, "encoded_frames": 8, "clips": 2, "first": 5, "second": 3},
)
"""Sizes of the axes in tracing and in the check of what was traced; first and second are numbers of samples."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a program: its dtype, and the name or the size of each axis."""

    dtype: torch.dtype
    shape: tuple[str | int, ...]

    def describe(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype).removeprefix("torch."), "shape": list(self.shape)}


@dataclass(frozen=True)
class Program:
    """What is exported: a module that takes the inputs by name and returns a dict of the outputs.

    Args:
        limits: most that an axis may have; others have no limit.
        num_ids: ids in `input_ids` are below it.
    """

    module: nn.Module
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    limits: Mapping[str, int] = field(default_factory=dict)
    num_ids: int = 1

    def random_inputs(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """Inputs of these sizes, or of the limit where it is smaller: masks leave out some tokens, never the first."""
        generator = torch.Generator().manual_seed(0)
        inputs = {}
        for name, spec in self.inputs.items():
            shape = [
                axis if isinstance(axis, int) else min(sizes[axis], self.limits.get(axis, sizes[axis]))
                for axis in spec.shape
            ]
            if name.endswith("mask"):
                inputs[name] = torch.randint(2, shape, generator=generator)
                inputs[name][:, 0] = 1
            elif spec.dtype == torch.int64:
                inputs[name] = torch.randint(self.num_ids, shape, generator=generator)
            else:
                inputs[name] = torch.randn(shape, generator=generator)
        return inputs

    def dynamic_shapes(self) -> dict[str, dict[int, Any]]:
        """The named axes as torch.export takes them."""
        return {
            name: {
                index: Dim.DYNAMIC(max=self.limits[axis]) if self.limits.get(axis, 0) > 2 else Dim.DYNAMIC
                for index, axis in enumerate(spec.shape)
                if isinstance(axis, str)
            }
            for name, spec in self.inputs.items()
        }

    def describe(self) -> dict[str, Any]:
        return {
            "inputs": {name: spec.describe() for name, spec in self.inputs.items()},
            "outputs": {name: spec.describe() for name, spec in self.outputs.items()},
            "limits": dict(self.limits),
        }


@dataclass(frozen=True)
class ExportedPrograms:
    """Programs in one format.

    Args:
        exported: they as transformers' exporters return them, each a component.
        description: the content of `programs.json`.
        processor: saved beside the programs, whose inputs it makes.
        differences: program -> largest difference from the model when it was checked.
    """

    exported: ExportedModel
    description: dict[str, Any]
    processor: ValorProcessor
    differences: dict[str, float]

    def save(self, folder: str | Path) -> None:
        """Writes a file for each program, `programs.json`, transformers' own `export.json`, and the processor.

        `ExportedModel.from_pretrained` loads the programs from it.
        """
        self.exported.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        text = json.dumps(self.description, indent=2) + "\n"
        (Path(folder) / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


class Tower(nn.Module):
    """One modality to its tokens in the common space and the logits of their weights; also to the decoder's, if asked for."""

    def __init__(self, model: ValorModel, modality: str, limit: int | None = None, with_tokens: bool = False):
        super().__init__()
        self.with_tokens = with_tokens
        self.model = encoder_of(model, modality)
        self.modality = modality
        self.limit: Tensor | None
        self.register_buffer("limit", None if limit is None else torch.ones(limit), persistent=False)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        features = getattr(self.model, f"get_{self.modality}_features")(**inputs, return_dict=True)
        embeds = features.pooler_output
        if self.limit is not None:
            # ONNX has no assertions: a longer input reads past the end of this table, which is an error there, too
            frames = next(iter(inputs.values())).shape[1]
            embeds = embeds * self.limit[torch.arange(frames, device=embeds.device)].amin(dim=0)
        weight_logits = getattr(self.model, f"{self.modality}_token_weight")(embeds)
        outputs = {f"{self.modality}_embeds": embeds, f"{self.modality}_weight_logits": weight_logits}
        return {**outputs, f"{self.modality}_tokens": features.last_hidden_state} if self.with_tokens else outputs


def encoder_of(model: ValorModel, modality: str) -> ValorModel:
    """The model, sharing its weights, without the parts that other modalities need: a program holds all parts of its module."""
    encoders = {"text": ("text_model", "text_encoder"), "video": ("vision_model",), "audio": ("audio_model",)}
    needed = (*encoders[modality], f"{modality}_projection", f"{modality}_token_weight")
    if modality == "text" and model.text_encoder is not None:
        needed = needed[1:]
    part = copy.copy(model)
    part._modules = {name: module for name, module in model._modules.items() if name in needed}
    part._parameters = {}
    return part


class Score(nn.Module):
    """Every query of a modality group against every candidate (eq. 3), in its plain form.

    It holds all similarities of tokens at once: queries x candidates x tokens x tokens.
    """

    def __init__(self, config: ValorConfig, group: str):
        super().__init__()
        self.query, self.candidates = ALIGNMENT_GROUPS[group]
        joint = group == "t-av"
        by_score = joint and config.audiovisual_fusion == "score"
        self.uniform = by_score or (joint and config.token_weighting == "uniform")
        self.parts = [(name,) for name in self.candidates] if by_score else [self.candidates]
        self.zero_padding = ("text",) if config.padded_similarity == "zero" else ()

    def forward(self, **tokens: Tensor) -> dict[str, Tensor]:
        scores = torch.stack([self.compare((self.query,), part, tokens) for part in self.parts])
        missing = scores == -torch.inf
        total = scores.masked_fill(missing, 0).sum(dim=0)
        return {"scores": total.masked_fill(missing.all(dim=0), -torch.inf)}

    def compare(self, rows: Sequence[str], columns: Sequence[str], tokens: Mapping[str, Tensor]) -> Tensor:
        """(queries, candidates), -inf where a sample has no token."""
        row_embeds, row_mask, row_weights, row_floor = self.join(rows, tokens)
        column_embeds, column_mask, column_weights, column_floor = self.join(columns, tokens)
        similarity = row_embeds[:, None] @ column_embeds[None].mT  # (queries, candidates, row tokens, column tokens)
        best_columns = torch.where(column_mask[None, :, None, :], similarity, column_floor[None, :, None, :]).amax(
            dim=3
        )
        best_rows = torch.where(row_mask[:, None, :, None], similarity, row_floor[:, None, :, None]).amax(dim=2)
        row_part = (best_columns * row_weights[:, None]).sum(dim=2)
        column_part = (best_rows * column_weights[None]).sum(dim=2)
        present = row_mask.any(dim=1)[:, None] & column_mask.any(dim=1)
        return (0.5 * (row_part + column_part)).masked_fill(~present, -torch.inf)

    def join(self, names: Sequence[str], tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embeddings, mask, weights, and what the similarity of a padded token counts as, of the tokens of modalities."""
        embeds = torch.cat([tokens[f"{name}_embeds"] for name in names], dim=1)
        mask = torch.cat([tokens[mask_name(name)] for name in names], dim=1).bool()
        logits = torch.cat([tokens[f"{name}_weight_logits"] for name in names], dim=1)
        logits = torch.zeros_like(logits) if self.uniform else logits
        weights = logits.masked_fill(~mask, -1e4).softmax(dim=1)
        return embeds, mask, weights, torch.cat([self.floor(name, tokens) for name in names], dim=1)

    def floor(self, name: str, tokens: Mapping[str, Tensor]) -> Tensor:
        """What the similarity with a padded token counts as, (samples, tokens): nothing, or 0 if a text is padded with zeros."""
        floor = torch.full_like(tokens[f"{name}_weight_logits"], -1e4)
        if name not in self.zero_padding:
            return floor
        return floor.masked_fill(tokens[mask_name(name)].bool().any(dim=1, keepdim=True), 0.0)


class NextWord(nn.Module):
    """Logits of the word after the words so far: one step of the decoder, without a cache."""

    def __init__(self, captioner: ValorForCaptioning, group: str):
        super().__init__()
        self.captioner = decoder_of(captioner)
        self.group = group

    def forward(self, input_ids: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        conditions = {}
        for name in CAPTIONING_GROUPS[self.group]:
            tokens = inputs[f"{name}_tokens"]
            conditions[name] = getattr(self.captioner.valor, f"{name}_condition")(tokens)
            conditions[f"{name}_mask"] = inputs[mask_name(name)].bool().repeat_interleave(tokens.shape[2], dim=1)
        if self.captioner.config.captioning_objective == "masked":
            input_ids = F.pad(input_ids, (0, 1), value=self.captioner.config.text_config.mask_token_id)
        outputs = self.captioner(
            input_ids,
            torch.ones_like(input_ids),
            conditions=ValorConditions(**conditions),
            captioning_groups=[self.group],
            logits_to_keep=1,
            use_cache=False,
        )
        return {"logits": outputs.logits[:, -1]}


def decoder_of(captioner: ValorForCaptioning) -> ValorForCaptioning:
    """The captioner, sharing its weights, without the encoders."""
    decoder, valor = copy.copy(captioner), copy.copy(captioner.valor)
    needed = ("text_model", "video_condition", "audio_condition")
    valor._modules = {name: module for name, module in valor._modules.items() if name in needed}
    valor._parameters = {}
    decoder._modules = {**captioner._modules, "valor": valor}
    return decoder


def mask_name(modality: str) -> str:
    """The mask of a modality's tokens, as `ValorModel.compute_similarity` calls it."""
    return next(part.mask for part in MODALITIES if part.name == modality)


def build_programs(model: ValorModel | ValorForCaptioning, processor: ValorProcessor) -> dict[str, Program]:
    """The towers by their modality, and `score_GROUP` for each modality group of the alignment.

    With a captioner also `next_word_GROUP` for its captioning groups, one program for those that another one includes.

    Media of a batch have the same number of frames or clips, without masks: batches are made by that number. What is missing in
    an item is left to the masks of the scores.

    Raises:
        ValueError: the model aligns by one embedding for each sample, which is not exported.
    """
    captioner, valor = (None, model) if isinstance(model, ValorModel) else (model, model.valor)
    config = model.config
    if config.alignment != "fine":
        raise ValueError(
            f"A checkpoint with alignment={config.alignment!r} was given; the programs are those of fine-grained alignment. "
            "Embed with the model itself: `get_text_embeds` and its like return a vector for each sample."
        )
    towers = {
        "text": text_tower(valor),
        "video": video_tower(valor, processor, captioner is not None),
        "audio": audio_tower(valor, processor, captioner is not None),
    }
    programs = {**towers, **{f"score_{group}": score_program(config, group) for group in config.alignment_groups}}
    if captioner is not None:
        for group in widest_groups(config.captioning_groups):
            programs[f"next_word_{group}"] = caption_program(captioner, group, towers)
    return programs


def text_tower(model: ValorModel) -> Program:
    config = model.config.text_encoder_config or model.config.text_config
    ids = TensorSpec(torch.int64, ("texts", "length"))
    return Program(
        Tower(model, "text"),
        {"input_ids": ids, "attention_mask": ids},
        tower_outputs(model, "text", "texts", "length"),
        {"length": config.max_position_embeddings},
        config.vocab_size,
    )


def video_tower(model: ValorModel, processor: ValorProcessor, with_tokens: bool) -> Program:
    """The tower of frames. Video Swin has another window for videos that are longer than one, so they are refused."""
    config, video = model.config.vision_config, processor.video_processor
    size = video.crop_size if video.do_center_crop else video.size
    stride = getattr(config, "temporal_stride", 1)
    window = getattr(config, "window_size", None)
    limit = window[0] * stride if config.model_type == "valor_video_swin" and window else None
    tower = Tower(model, "video", limit, with_tokens)
    frames = "frames" if limit != 1 else 1
    inputs = {"pixel_values_videos": TensorSpec(torch.float32, ("media", frames, 3, size["height"], size["width"]))}
    outputs = tower_outputs(model, "video", "media", frames if stride == 1 else "encoded_frames")
    program = Program(tower, inputs, outputs, {"frames": limit} if limit not in (None, 1) else {})
    return add_tokens(program, "video") if with_tokens else program


def audio_tower(model: ValorModel, processor: ValorProcessor, with_tokens: bool) -> Program:
    extractor = processor.feature_extractor
    shape = ("media", "clips", extractor.feature_size, extractor.clip_length)
    tower, inputs = Tower(model, "audio", None, with_tokens), {"input_features": TensorSpec(torch.float32, shape)}
    program = Program(tower, inputs, tower_outputs(model, "audio", "media", "clips"))
    return add_tokens(program, "audio") if with_tokens else program


def add_tokens(program: Program, modality: str) -> Program:
    """A tower's program with its third output, whose number of tokens it runs to know."""
    inputs = program.random_inputs({"media": 1, "frames": 1, "clips": 1})
    with torch.no_grad():
        shape = program.module(**inputs)[f"{modality}_tokens"].shape
    axes = program.outputs[f"{modality}_embeds"].shape[:2]
    tokens = TensorSpec(torch.float32, (*axes, *shape[2:]))
    return replace(program, outputs={**program.outputs, f"{modality}_tokens": tokens})


def tower_outputs(model: ValorModel, modality: str, samples: str, axis: str | int) -> dict[str, TensorSpec]:
    return {
        f"{modality}_embeds": TensorSpec(torch.float32, (samples, axis, model.config.projection_dim)),
        f"{modality}_weight_logits": TensorSpec(torch.float32, (samples, axis)),
    }


def score_program(config: ValorConfig, group: str) -> Program:
    query, candidates = ALIGNMENT_GROUPS[group]
    inputs = {}
    for name in (query, *candidates):
        side, axis = "queries" if name == query else "candidates", TOKEN_AXES[name]
        inputs[f"{name}_embeds"] = TensorSpec(torch.float32, (side, axis, config.projection_dim))
        inputs[f"{name}_weight_logits"] = TensorSpec(torch.float32, (side, axis))
        inputs[mask_name(name)] = TensorSpec(torch.int64, (side, axis))
    outputs = {"scores": TensorSpec(torch.float32, ("queries", "candidates"))}
    return Program(Score(config, group).eval(), inputs, outputs)


def widest_groups(groups: Sequence[str]) -> list[str]:
    """The captioning groups that no other one of them includes: what they lack is masked."""
    modalities = {group: set(CAPTIONING_GROUPS[group]) for group in groups}
    return [group for group in groups if not any(modalities[group] < others for others in modalities.values())]


def caption_program(captioner: ValorForCaptioning, group: str, towers: Mapping[str, Program]) -> Program:
    config = captioner.config
    inputs = {"input_ids": TensorSpec(torch.int64, ("media", "length"))}
    limits = {"length": config.text_config.max_position_embeddings - 1}
    for name, limit in (("video", config.max_frames), ("audio", config.max_audio_clips)):
        if name in CAPTIONING_GROUPS[group]:
            axis = TOKEN_AXES[name] if limit > 1 else 1  # tracing takes an axis of 1 for one that is always 1
            shape = towers[name].outputs[f"{name}_tokens"].shape
            inputs[f"{name}_tokens"] = TensorSpec(torch.float32, ("media", axis, *shape[2:]))
            inputs[mask_name(name)] = TensorSpec(torch.int64, ("media", axis))
            if isinstance(axis, str):
                limits[axis] = limit
    outputs = {"logits": TensorSpec(torch.float32, ("media", config.text_config.vocab_size))}
    return Program(NextWord(captioner, group), inputs, outputs, limits, config.text_config.vocab_size)


def export_programs(
    model: ValorModel | ValorForCaptioning, processor: ValorProcessor, format: Format = "torch"
) -> ExportedPrograms:
    """Exports the towers and the scores, and checks each program against the model at other sizes than were traced.

    Args:
        model: in float32 on the CPU, in evaluation mode; with a captioner the decoder is exported, too.
        format: "torch" (`torch.export`, files .pt2) or "onnx".

    Raises:
        ImportError: the libraries of ONNX are not installed.
        ValueError: coarse alignment, or a program that differs from the model.
    """
    exporter, config_class = choose_exporter(format)
    programs = build_programs(model, processor)
    components: dict[str, ExportedComponent] = {}
    differences = {}
    for name, program in programs.items():
        exported = export_program(program, exporter, config_class)
        components[name] = exported.components["model"]
        differences[name] = largest_difference(program, exported)
        if not differences[name] <= TOLERANCE:
            raise ValueError(
                f"The exported program {name!r} differs from the model by {differences[name]:.1e}, more than {TOLERANCE:.0e}; "
                "nothing was written."
            )
    description = describe_programs(model, programs, format, exporter.program_suffix)
    together = ExportedModel(components, exporter.export_format)
    return ExportedPrograms(together, description, processor, differences)


def export_program(program: Program, exporter: HfExporter, config_class: type[DynamoConfig]) -> ExportedModel:
    """One program by an exporter of `choose_exporter`, with sizes that vary."""
    inputs: dict[str, Any] = {**program.random_inputs({**TRACED_SIZES, **sample_sizes(4, 2)})}
    # Video Swin's windows compare sizes with 1, which would make a video of one frame a case of its own
    with quiet(), cast(Any, _config).patch(backed_size_oblivious="frames" in program.limits):
        return exporter.export(
            cast(Any, program.module), inputs, config_class(dynamic_shapes=program.dynamic_shapes())
        )


def choose_exporter(format: Format) -> tuple[HfExporter, type[DynamoConfig]]:
    """transformers' exporter of a format, and its configuration.

    Raises:
        ImportError: the libraries of ONNX are not installed.
    """
    if format == "torch":
        from transformers.exporters.exporter_dynamo import DynamoExporter

        with quiet():
            return DynamoExporter(), DynamoConfig  # type: ignore[no-untyped-call]
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ImportError(f'ONNX needs {", ".join(missing)}: pip install "modeling-valor[onnx]"')
    from transformers.exporters.exporter_onnx import OnnxExporter

    with quiet():
        return OnnxExporter(), OnnxConfig  # type: ignore[no-untyped-call]


def sample_sizes(first: int, second: int) -> dict[str, int]:
    """Numbers of samples by the names of their axes."""
    return {"texts": first, "media": second, "queries": first, "candidates": second}


def largest_difference(program: Program, exported: ExportedModel) -> float:
    """Between the program's outputs and the module's, at `CHECKED_SIZES`, relative to values above 1."""
    largest = 0.0
    for sizes in CHECKED_SIZES:
        inputs: dict[str, Any] = {**program.random_inputs({**sizes, **sample_sizes(sizes["first"], sizes["second"])})}
        with torch.no_grad(), quiet():
            expected, given = program.module(**inputs), exported(**inputs)
        for name, values in expected.items():
            relative = (torch.as_tensor(given[name]) - values).abs() / values.abs().clamp(min=1)
            largest = max(largest, float(relative.max()))
    return largest


def describe_programs(
    model: ValorModel | ValorForCaptioning, programs: Mapping[str, Program], format: Format, suffix: str
) -> dict[str, Any]:
    """The content of `programs.json`."""
    config = model.config
    return {
        "format": format,
        "alignment_groups": {group: f"score_{group}" for group in config.alignment_groups},
        "logit_scale": float(cast(Tensor, model.base_model.logit_scale)),
        "temporal_stride": getattr(config.vision_config, "temporal_stride", 1),
        "programs": {name: {"file": name + suffix, **program.describe()} for name, program in programs.items()},
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters print and warn of: their own versions, experiments and progress."""
    level, onnx = transformers_logging.get_verbosity(), logging.getLogger("torch.onnx")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    onnx_level = onnx.level
    onnx.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        onnx.setLevel(onnx_level)
