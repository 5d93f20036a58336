# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""All-pairs retrieval over a set of samples (section 4.3): embeddings, scores of a modality group, recall in both directions.

Training and `valor evaluate` both use these functions. In a distributed job all processes call those that read samples and
share the work; the main process computes the metrics and sends them to the others.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..configuration_valor import ALIGNMENT_GROUPS, GROUP_OF_LETTERS, MEDIA, MODALITIES, VIDEO
from ..data.failures import Failure
from ..data.samples import Sample
from ..modeling_valor import ValorModel
from ..processing_valor import ValorProcessor
from ..text_cleaning import clean_caption
from .loader import MediaBatch, media_batches
from .merging import merge_rows, sample_keys
from .metrics.retrieval import retrieval_metrics_in_blocks
from .models import base_model, evaluating, on_device
from .options import MediaOptions, TextOptions, accepts_flat_keywords
from .results import Embeddings, Evaluation, count_rows, failures_of
from .resumable import ResultCache, broadcast_from_main, map_resumable, stable_hash


RETRIEVAL_GROUPS = tuple(group for group, (_, candidates) in ALIGNMENT_GROUPS.items() if "text" not in candidates)
"""Modality groups in which retrieval is evaluated, each in both directions."""

EmbeddingCache: TypeAlias = ResultCache[dict[str, Tensor]]

_TEXTS_PER_SAMPLE = 4  # texts are cheaper to encode: a batch has this many times more texts than samples
_SCORED_TEXTS = 512


def embed(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    media: MediaOptions | None = None,
    text: TextOptions | None = None,
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
    caches: Mapping[str, EmbeddingCache] | None = None,
    progress: bool = False,
) -> tuple[Embeddings | None, list[Failure]]:
    """Embeds all samples and all distinct captions, each once; unreadable samples and their captions are left out.

    Costs one pass of the encoders, and memory on the CPU for the result: 2 kB for each token, frame and audio clip of VALOR.

    Args:
        model: any VALOR model.
        media, batch_size: how the samples are read; `batch_size` samples are encoded together, and four times as many texts.
        text: how captions are tokenized.
        dtype: of the embeddings.
        caches: any of "samples" and "texts".

    Returns:
        The embeddings, in the main process only, and the samples that could not be read.
    """
    valor, caches = base_model(model), dict(caches or {})
    if "clips" in caches:
        warnings.warn('The cache "clips" is now called "samples".', FutureWarning, stacklevel=2)
        caches.setdefault("samples", caches.pop("clips"))
    media, options = media or MediaOptions(), text or TextOptions()
    texts, sample_of_text = _texts_of(samples, options)
    # Texts of similar length are encoded together
    distinct = sorted(set(texts), key=lambda text: (len(text), text))

    with evaluating(valor):
        results = map_resumable(
            broadcast_from_main(lambda: sample_keys(samples)),
            batch_size,
            lambda batches: (
                _embed_samples(valor, batch, dtype) for batch in media_batches(samples, processor, batches, media)
            ),
            caches.get("samples"),
            "samples" if progress else None,
            lambda _, result: _is_embedded_sample(result, valor),
        )
        text_results = map_resumable(
            [stable_hash(text) for text in distinct],
            batch_size * _TEXTS_PER_SAMPLE,
            lambda batches: (
                _embed_texts(valor, processor, distinct, batch, options.max_length, dtype) for batch in batches
            ),
            caches.get("texts"),
            "texts" if progress else None,
            lambda _, text: _is_embedding(text.get("text"), valor),
        )
    embeddings: list[Embeddings] = []

    def stack() -> list[Failure]:
        by_text = {
            text: result["text"]
            for text, result in zip(distinct, text_results, strict=True)
            if not isinstance(result, Failure)
        }
        embeddings.append(_stack(samples, results, texts, sample_of_text, by_text, valor, options.max_length))
        return failures_of(results)

    failures = broadcast_from_main(stack)
    return (embeddings[0] if embeddings else None), failures


def _texts_of(samples: Sequence[Sample], options: TextOptions) -> tuple[list[str], list[int]]:
    """All texts of the samples, and for each text the index of its sample."""
    texts: list[str] = []
    sample_of_text: list[int] = []
    for index, sample in enumerate(samples):
        captions = [clean_caption(caption) if options.clean else caption for caption in sample.captions]
        captions = [" ".join(captions)] if options.paragraph and captions else captions
        texts += captions
        sample_of_text += [index] * len(captions)
    return texts, sample_of_text


def _embed_samples(valor: ValorModel, batch: MediaBatch, dtype: torch.dtype) -> dict[int, dict[str, Tensor] | Failure]:
    """Embeddings of each sample of a batch: "video" (F, C) with "frame_mask" (F,), "audio" (A, C) with "audio_mask" (A,)."""
    results: dict[int, dict[str, Tensor]] = {index: {} for index in batch.indices}
    inputs = on_device(batch.inputs, valor)
    for _, name, values, mask in MEDIA:
        if values not in inputs:
            continue
        embeds = getattr(valor, f"get_{name}_embeds")(inputs[values], inputs.get(mask)).to("cpu", dtype)
        present = batch.inputs.get(mask, torch.ones(inputs[values].shape[:2], dtype=torch.bool))
        for index, embed, is_present in zip(batch.indices, embeds, present, strict=True):
            if is_present.any():
                results[index].update({name: embed.clone(), mask: is_present.clone()})
    return {**batch.failures, **results}


def _is_embedded_sample(result: Mapping[str, Tensor], valor: ValorModel) -> bool:
    """Whether a cached result has the form of what [`_embed_samples`] returns."""
    for _, name, _, mask in MEDIA:
        if name not in result and mask not in result:
            continue
        if not _is_embedding(result.get(name), valor) or mask not in result or result[mask].ndim != 1:
            return False
        kept = result[mask]
        encoded = valor.encoded_frame_mask(kept[None]) if name == VIDEO.name else None
        kept = kept if encoded is None else encoded[0]
        if valor.config.alignment == "fine" and len(result[name]) != len(kept):
            return False
    return True


def _is_embedding(value: Any, valor: ValorModel) -> bool:
    """(tokens, C), or (C,) with coarse alignment."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    return value.ndim == 1 + (valor.config.alignment == "fine") and value.shape[-1] == valor.config.projection_dim


def _embed_texts(
    valor: ValorModel,
    processor: ValorProcessor,
    texts: Sequence[str],
    batch: Sequence[int],
    max_length: int,
    dtype: torch.dtype,
) -> dict[int, dict[str, Tensor] | Failure]:
    """ "text" of each, (its tokens, C), or (C,) with coarse alignment."""
    inputs = processor(text=[texts[index] for index in batch], max_length=max_length, return_tensors="pt")
    embeds = valor.get_text_embeds(**on_device(inputs, valor)).to("cpu", dtype)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    fine = embeds.ndim == 3
    return {
        index: {"text": (embed[:length] if fine else embed).clone()}
        for index, embed, length in zip(batch, embeds, lengths, strict=True)
    }


def _stack(
    samples: Sequence[Sample],
    results: Sequence[dict[str, Tensor] | Failure],
    texts: Sequence[str],
    sample_of_text: Sequence[int],
    by_text: Mapping[str, Tensor],
    valor: ValorModel,
    max_length: int,
) -> Embeddings:
    """The results of all samples and texts as tensors, without those of samples that could not be read."""
    read = {index: result for index, result in enumerate(results) if not isinstance(result, Failure)}
    row_of_sample = {index: row for row, index in enumerate(read)}
    kept = [index for index, sample in enumerate(sample_of_text) if sample in row_of_sample]
    if not kept:
        first = next(iter(failures_of(results)), None)
        raise ValueError(
            f"Retrieval needs samples with captions, but of {len(samples)} samples {len(row_of_sample)} could be read and "
            f"{sum(bool(sample.captions) for sample in samples)} have captions."
            + ("" if first is None else f" The first that could not be read is {first.id}: {first.reason}")
        )
    text, text_mask = _stack_texts([by_text[texts[index]] for index in kept], valor, max_length)
    return Embeddings(
        ids=[samples[index].id for index in row_of_sample],
        sample_of_text=torch.tensor([row_of_sample[sample_of_text[index]] for index in kept]),
        texts=[texts[index] for index in kept],
        text=text,
        text_mask=text_mask,
        **_stack_media(list(read.values())),
    )


def _stack_media(results: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """ "video" with "frame_mask" and "audio" with "audio_mask" of all samples, as far as any sample has them."""
    tensors: dict[str, Tensor] = {}
    for _, name, _, mask in MEDIA:
        template = next((result for result in results if name in result), None)
        if template is None:
            continue
        blank = {key: torch.zeros_like(template[key]) for key in (name, mask)}
        parts = {key: [result[key] if name in result else blank[key] for result in results] for key in blank}
        tensors[mask] = pad_sequence(parts[mask], batch_first=True)
        fine = template[name].ndim == 2
        tensors[name] = pad_sequence(parts[name], batch_first=True) if fine else torch.stack(parts[name])
    return tensors


def _stack_texts(rows: Sequence[Tensor], valor: ValorModel, max_length: int) -> tuple[Tensor, Tensor]:
    """(T, L, C) and the mask (T, L) of texts that are (L, C); (T, C) and (T, 1) with coarse alignment."""
    if rows[0].ndim == 1:
        return torch.stack(list(rows)), torch.ones(len(rows), 1, dtype=torch.bool)
    text = pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    if valor.config.padded_similarity == "zero" and text.shape[1] < max_length:
        # The 2023 code padded texts to `max_length`, and padding took part in their maxima. One column of padding has
        # the same effect as many
        text = nn.functional.pad(text, (0, 0, 0, 1))
    return text, torch.arange(text.shape[1]) < lengths[:, None]


def check_groups(groups: Sequence[str]) -> None:
    """Checks that retrieval is evaluated in these modality groups.

    Raises:
        ValueError: retrieval is not evaluated in one of these modality groups, or the list is empty.
    """
    unknown = [group for group in groups if group not in RETRIEVAL_GROUPS]
    if unknown or not groups:
        accepted = '"' + '", "'.join(RETRIEVAL_GROUPS) + '"'
        raise ValueError(
            f"Retrieval is evaluated in the groups {accepted}, not in {(unknown[0] if unknown else groups)!r}."
        )


def score(model: nn.Module, embeddings: Embeddings, group: str = "t-av") -> Tensor:
    """Eq. 3 for every query and every candidate of a modality group, on the CPU, float32.

    Computed on the model's device for 512 queries at a time. Memory, apart from the embeddings: the matrix (25,000 texts x
    5,000 samples: 500 MB) on the CPU, and all candidates and one block of queries on the device.

    Returns:
        (T, N) for groups with the text as query; (N, N) for "v-a". -inf where a sample lacks the modalities.

    Raises:
        ValueError: no sample has the group's modalities, or the group has text among its candidates.
    """
    check_groups([group])
    valor = base_model(model)
    query, candidates = ALIGNMENT_GROUPS[group]
    weight = valor.text_projection.weight
    masks = {modality.name: modality.mask for modality in MODALITIES}

    def arguments(name: str, rows: slice) -> dict[str, Tensor]:
        embeds: Tensor | None = getattr(embeddings, name)
        if embeds is None:
            return {}
        mask: Tensor = embeddings.text_mask if name == "text" else getattr(embeddings, masks[name])
        return {
            f"{name}_embeds": embeds[rows].to(weight.device, weight.dtype),
            masks[name]: mask[rows].to(weight.device),
        }

    fixed = {}
    for name in candidates:
        fixed.update(arguments(name, slice(None)))
    if not fixed:
        raise ValueError(f"Group {group!r} compares {query} with {' and '.join(candidates)}, which no sample has.")
    count = len(embeddings.text) if query == "text" else len(embeddings.ids)
    scores = torch.empty(count, len(embeddings.ids))
    with evaluating(valor):
        for start in range(0, count, _SCORED_TEXTS):
            rows = slice(start, start + _SCORED_TEXTS)
            scores[rows] = valor.compute_similarity(**arguments(query, rows), **fixed, group=group)
    return scores


def reverse(group: str) -> str:
    """ "t-av" -> "av-t"."""
    query, candidates = group.split("-")
    return f"{candidates}-{query}"


def retrieve(
    model: nn.Module, embeddings: Embeddings, groups: Sequence[str] = ("t-av",), dual_softmax: bool = False
) -> tuple[dict[str, float], dict[str, int], dict[str, Tensor]]:
    """Recall and ranks of each group in both directions ("t-av/R@1", "av-t/R@1"), numbers of queries and candidates, and scores.

    Samples without the group's modalities are neither queries nor candidates, and neither are their texts; the counts
    are those of the others. With `dual_softmax` the metrics after that post-processing are added, as "t-av/DSL/R@1".
    """
    metrics, counts, similarity = {}, {}, {}
    for group in groups:
        scores = similarity[group] = score(model, embeddings, group)
        present, rows, right = embeddings.members(group)
        positives = right.unsqueeze(1).tolist()

        def blocks(scores: Tensor = scores, rows: Tensor = rows, present: Tensor = present) -> Iterator[Tensor]:
            if present.all():  # then so are the rows
                return iter(scores[rows[0] : rows[-1] + 1].split(_SCORED_TEXTS))
            return (scores[block][:, present] for block in rows.split(_SCORED_TEXTS))

        counts[f"{group}/queries"], counts[f"{group}/candidates"] = len(rows), int(present.sum())
        for prefix, post_process in (("", False), ("DSL/", True))[: 1 + dual_softmax]:
            both = retrieval_metrics_in_blocks(blocks, positives, post_process)
            for direction, values in zip((group, reverse(group)), both, strict=True):
                metrics.update({f"{direction}/{prefix}{name}": value for name, value in values.items()})
    return metrics, counts, similarity


@accepts_flat_keywords
def evaluate_retrieval(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    groups: Sequence[str] | None = None,
    *,
    media: MediaOptions | None = None,
    text: TextOptions | None = None,
    batch_size: int = 16,
    dual_softmax: bool = False,
    dtype: torch.dtype = torch.float32,
    caches: Mapping[str, EmbeddingCache] | None = None,
    progress: bool = False,
) -> Evaluation:
    """All-pairs retrieval: every text against every sample, in both directions (section 4.3).

    Args:
        groups: "t-av", "t-v", "t-a", "v-a"; by default the one of `media.modalities`.
        media, text, batch_size, dtype, caches: see [`embed`].
        dual_softmax: see [`retrieve`].
    """
    merged = merge_rows(samples)
    media = media or MediaOptions()
    groups = [GROUP_OF_LETTERS[media.modalities]] if groups is None else list(groups)
    check_groups(groups)
    embeddings, failures = embed(model, processor, merged, media, text, batch_size, dtype, caches, progress)
    evaluation = Evaluation({}, {}, failures, embeddings=embeddings)

    def measure() -> tuple[dict[str, float], dict[str, int]]:
        found = evaluation.retrieval_embeddings
        metrics, counts, evaluation.similarity = retrieve(model, found, groups, dual_softmax)
        return metrics, {"samples": len(found.ids), "texts": len(found.texts), **counts, **count_rows(merged)}

    evaluation.metrics, evaluation.counts = broadcast_from_main(measure)
    return evaluation
