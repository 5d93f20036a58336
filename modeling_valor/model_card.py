# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The model card (README.md) of a checkpoint, from a template."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .configuration_valor import ValorConfig


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
"""It does not travel with the code of a checkpoint, which uses huggingface_hub's own template."""

TAGS = ("valor", "video", "audio", "audiovisual-captioning", "audiovisual-question-answering", "audiovisual-retrieval")
SUMMARY = (
    "VALOR describes videos with their sound, answers questions about them, and finds them by text "
    "([arXiv 2304.08345](https://arxiv.org/abs/2304.08345))."
)


def build_model_card(
    source: str,
    config: ValorConfig | None,
    *,
    model_class: str = "ValorForCaptioning",
    num_parameters: int | None = None,
    license: str | None = None,
    language: Sequence[str] = (),
    datasets: Sequence[str] = (),
    tags: Sequence[str] = (),
    base_model: str | None = None,
    training: Mapping[str, str] | None = None,
    eval_results: Sequence[EvalResult] = (),
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    summary: str = SUMMARY,
    mark: str | None = None,
) -> ModelCard:
    """A card with full metadata, which says of everything that is not given that it is not stated.

    Args:
        source: what users give to `from_pretrained`: `owner/name`, or a folder's name.
        config: of which the table of the parts is made.
        model_class: the class of modeling_valor that loads the checkpoint.
        num_parameters: of all parts together.
        license: the Hub's name for the licence of the weights, such as "mit", "cc-by-4.0" or "other".
        language: of the texts, codes such as "en".
        datasets: names on the Hub of what it was trained on.
        tags: further ones than `TAGS`.
        base_model: name on the Hub of the checkpoint that it was trained from.
        training: heading -> line about the training.
        eval_results: entries of the metadata, on the scale of the paper.
        metrics: title -> metric -> value for the text; by default those of `eval_results`.
        mark: a line above the title.
    """
    name = source.rpartition("/")[2]
    data = ModelCardData(
        license=license,
        language=list(language) or None,
        library_name="transformers",
        pipeline_tag="video-text-to-text",
        tags=list(dict.fromkeys((*TAGS, *tags))),
        datasets=list(datasets) or None,
        base_model=base_model,
        model_name=name if eval_results else None,
        eval_results=list(eval_results) or None,
        metrics=sorted({_kind_of_metric(result) for result in eval_results}) or None,
    )
    card: ModelCard = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE) if TEMPLATE.is_file() else None,
        name=name,
        source=source,
        summary=summary,
        mark="" if mark is None else f"{mark}\n\n",
        model_class=model_class,
        writes_text=model_class not in ("ValorModel", "ValorForRetrieval"),
        parts={} if config is None else describe_parts(config, num_parameters),
        training=training,
        metrics=metrics_by_dataset(eval_results) if metrics is None else metrics,
        language=language,
    )
    return card


def describe_parts(config: ValorConfig, num_parameters: int | None = None) -> dict[str, str]:
    """Name of each part -> its kind and size."""
    vision, audio, text = config.vision_config, config.audio_config, config.text_config
    if vision.model_type == "valor_video_swin":
        size = f"Video Swin, stages of {', '.join(map(str, vision.depths))} blocks, width {vision.embed_dim} to {vision.hidden_size}"
    else:
        kind = {"clip_vision_model": "CLIP"}.get(vision.model_type, vision.model_type)
        size = f"{kind}, {vision.num_hidden_layers} layers of width {vision.hidden_size}"
    seconds = 5.12 * audio.max_length / 512
    parts = {
        "vision": f"{size}, frames of {vision.image_size} x {vision.image_size} pixels, at most {config.max_frames}",
        "audio": f"AST, {audio.num_hidden_layers} layers of width {audio.hidden_size}, audio clips of {seconds:g} s with "
        f"{audio.num_mel_bins} mel bands, at most {config.max_audio_clips}",
        "text encoder and decoder": f"BERT with cross-attention, {text.num_hidden_layers} layers of width {text.hidden_size}, "
        f"a vocabulary of {text.vocab_size:,}",
        "common space": f"width {config.projection_dim}",
    }
    return parts if num_parameters is None else parts | {"parameters": f"{num_parameters:,}"}


def _kind_of_metric(result: EvalResult) -> str:
    """ "t-av/R@5" -> "recall", "BLEU-4" -> "bleu"."""
    name = (result.metric_name or result.metric_type).rpartition("/")[2]
    return "recall" if name.startswith("R@") else name.partition("-")[0].lower()


def metrics_by_dataset(results: Sequence[EvalResult]) -> dict[str, dict[str, float]]:
    """The metrics of each task and dataset, under a title."""
    tables: dict[str, dict[str, float]] = {}
    for result in results:
        split = "" if result.dataset_split is None else f", split {result.dataset_split}"
        title = f"{result.task_name or result.task_type} ({result.dataset_name}{split})"
        tables.setdefault(title, {})[result.metric_name or result.metric_type] = result.metric_value
    return tables


__all__ = ["build_model_card", "describe_parts", "metrics_by_dataset"]
