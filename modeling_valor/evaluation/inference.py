# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""How a model is measured: all-pairs retrieval, captions and answers over a set of samples (section 4.3).

The one way to do so, in training and in `valor evaluate`. Every function runs in all processes of a distributed job, which
share the work; figures are computed by the main process and the same in all of them.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..configuration_valor import ALIGNMENT_GROUPS
from ..data.failures import Failure
from ..data.samples import Question, Sample
from ..modeling_valor import ValorModel
from ..modeling_valor_heads import ValorDecoderModel, ValorForCaptioning, ValorForQuestionAnswering, as_head
from ..modeling_valor_text import ValorConditions
from ..processing_valor import ValorProcessor
from ..text_cleaning import clean_caption, clean_question
from .clips import Clips, clip_keys, merge_rows
from .loader import MediaBatch, MediaOptions, media_batches
from .metrics.answers import answer_accuracy
from .metrics.captioning import CAPTION_METRICS, caption_metrics, check_caption_metrics
from .metrics.retrieval import retrieval_metrics_in_blocks
from .work import Result, ResultCache, failed, from_main, key_of, work_through


GROUP_OF = {"av": "t-av", "v": "t-v", "a": "t-a"}
"""Modality group that is measured where only the modalities are said."""

RETRIEVAL_GROUPS = tuple(group for group, (_, candidates) in ALIGNMENT_GROUPS.items() if "text" not in candidates)
"""Modality groups that retrieval is measured for; each is measured in both directions."""

TEXT_LENGTH = 40
"""Tokens of a caption or question at the most, as in the processor."""

_TEXTS_PER_CLIP = 4  # a batch of texts costs about as much as a batch of so many times fewer clips
_SCORED_TEXTS = 512


@dataclass
class Evaluation:
    """What was measured.

    Args:
        metrics: figures by name, the same in all processes: "t-av/R@1" (texts to clips), "av-t/R@1" (clips to texts),
            "CIDEr", "accuracy", "accuracy/sight".
        counts: on how many clips, texts and questions; "rows", where several samples were one clip (`clips.merge_rows`).
        failures: samples that could not be read; they are in no figure.
        predictions: captions and answers, one for each clip or question: {"id", "prediction", ...}. Main process only.
        similarity: score matrix of each group, (texts, clips) on the CPU. Main process only.
        embeddings: what the scores were made from. Main process only.
    """

    metrics: dict[str, float]
    counts: dict[str, int]
    failures: list[Failure]
    predictions: list[dict[str, Any]] = field(default_factory=list)
    similarity: dict[str, Tensor] = field(default_factory=dict)
    embeddings: "Embeddings | None" = None


# --- The model --------------------------------------------------------------------------------------------------------


def unwrapped(model: nn.Module) -> nn.Module:
    """The VALOR model inside of DistributedDataParallel and PEFT."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def base_model(model: nn.Module) -> ValorModel:
    """The [`ValorModel`] of a head, or of anything that holds one as `valor`; itself if it is one."""
    model = unwrapped(model)
    return model if isinstance(model, ValorModel) else model.valor


def with_head(model: nn.Module, head_class: type[ValorDecoderModel]) -> ValorDecoderModel:
    """The model, or what wraps it for training, as a `head_class`; see [`as_head`]."""
    return as_head(unwrapped(model), head_class)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _on_device(inputs: Mapping[str, Tensor], valor: ValorModel) -> dict[str, Tensor]:
    """Inputs where the model is, floating-point ones in its type."""
    weight = valor.text_projection.weight
    return {
        name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


# --- Retrieval --------------------------------------------------------------------------------------------------------


@dataclass
class Embeddings:
    """Texts and clips in the common space, on the CPU. Their numbers differ: a clip may have several texts, or none.

    Args:
        ids: of the clips, N.
        clip_of_text: (T,), the clip that each text belongs to.
        texts: T strings.
        text: (T, L, C); (T, C) with coarse alignment, as the following. `text_mask`: (T, L).
        video: (N, F, C), zero where a clip has no frames; `None`: no clip has. `frame_mask`: (N, F) as the model took it.
        audio: (N, A, C), likewise. `audio_mask`: (N, A).
    """

    ids: list[str]
    clip_of_text: Tensor
    texts: list[str]
    text: Tensor
    text_mask: Tensor
    video: Tensor | None = None
    frame_mask: Tensor | None = None
    audio: Tensor | None = None
    audio_mask: Tensor | None = None

    def clips_with(self, modalities: Iterable[str]) -> Tensor:
        """Which clips have frames, sound or either, (N,) bool."""
        masks = {"video": self.frame_mask, "audio": self.audio_mask}
        present = torch.zeros(len(self.ids), dtype=torch.bool)
        for name in modalities:
            if masks[name] is not None:
                present |= masks[name].any(dim=1)
        return present

    def members(self, group: str) -> tuple[Tensor, Tensor, Tensor]:
        """What takes part in a modality group: clips that have its modalities, and queries whose clip is one of them.

        Returns:
            (N,) bool, which clips are candidates; (Q,), the queries as rows of [`score`]'s matrix; (Q,), for each query its
            own clip's place among the candidates.
        """
        query, candidates = ALIGNMENT_GROUPS[group]
        clips = self.clips_with(candidates)
        if query == "text":
            clip_of_row = self.clip_of_text
        else:
            clips &= self.clips_with([query])
            clip_of_row = torch.arange(len(self.ids))
        rows = clips[clip_of_row].nonzero().squeeze(1)
        return clips, rows, (clips.cumsum(dim=0) - 1)[clip_of_row[rows]]


def embed(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    media: MediaOptions | None = None,
    batch_size: int = 16,
    max_length: int = TEXT_LENGTH,
    paragraph: bool = False,
    clean_text: bool = True,
    dtype: torch.dtype = torch.float32,
    caches: Mapping[str, ResultCache] | None = None,
    progress: bool = False,
) -> tuple[Embeddings | None, list[Failure]]:
    """Embeds all clips, each once, and all captions, each distinct one once; broken clips and their captions are left out.

    Costs one pass of the encoders, and memory on the CPU for the result: 2 kB for each token, frame and clip of VALOR.

    Args:
        model: any VALOR model.
        media, batch_size: how the clips are read; `batch_size` clips are encoded together, and four times as many texts.
        max_length: tokens of a text, more are cut off.
        paragraph: the captions of a clip are one text (section 5.1.2: DiDeMo, ActivityNet).
        clean_text: clean captions as training does (and the 2023 code did).
        dtype: type of the result.
        caches: "clips" and "texts", where there are some.

    Returns:
        The embeddings, in the main process only, and the clips that could not be read.
    """
    valor, caches = base_model(model), caches or {}
    texts, clip_of_text = [], []
    for index, sample in enumerate(samples):
        captions = [clean_caption(caption) if clean_text else caption for caption in sample.captions]
        captions = [" ".join(captions)] if paragraph and captions else captions
        texts += captions
        clip_of_text += [index] * len(captions)
    # Texts of similar length are encoded together
    distinct = sorted(set(texts), key=lambda text: (len(text), text))

    with evaluating(valor):
        clips = work_through(
            from_main(lambda: clip_keys(samples)),
            batch_size,
            lambda batches: (
                _embed_clips(valor, batch, dtype)
                for batch in media_batches(samples, processor, batches, media or MediaOptions())
            ),
            caches.get("clips"),
            "clips" if progress else None,
            lambda _, clip: _is_embedded_clip(clip, valor),
        )
        text_results = work_through(
            [key_of(text) for text in distinct],
            batch_size * _TEXTS_PER_CLIP,
            lambda batches: (_embed_texts(valor, processor, distinct, batch, max_length, dtype) for batch in batches),
            caches.get("texts"),
            "texts" if progress else None,
            lambda _, text: _is_embedding(text.get("text"), valor),
        )
    embeddings = []

    def stack() -> list[Failure]:
        by_text = {text: result["text"] for text, result in zip(distinct, text_results, strict=True)}
        embeddings.append(_stack(samples, clips, texts, clip_of_text, by_text, valor, max_length))
        return _failures(clips)

    failures = from_main(stack)
    return (embeddings[0] if embeddings else None), failures


def _embed_clips(valor: ValorModel, batch: MediaBatch, dtype: torch.dtype) -> dict[int, Result]:
    """What each clip of a batch has: "video" (F, C) with "frame_mask" (F,), "audio" (A, C) with "audio_mask" (A,)."""
    results: dict[int, dict[str, Any]] = {index: failed(failure) for index, failure in batch.failures.items()}
    results.update((index, {}) for index in batch.indices)
    inputs = _on_device(batch.inputs, valor)
    for name, values, mask, encode in (
        ("video", "pixel_values_videos", "frame_mask", valor.get_video_embeds),
        ("audio", "input_features", "audio_mask", valor.get_audio_embeds),
    ):
        if values not in inputs:
            continue
        embeds = encode(inputs[values], inputs.get(mask)).to("cpu", dtype)
        present = batch.inputs.get(mask, torch.ones(inputs[values].shape[:2], dtype=torch.bool))
        for index, embed, there in zip(batch.indices, embeds, present, strict=True):
            if there.any():
                results[index].update({name: embed.clone(), mask: there.clone()})
    return results


def _is_embedded_clip(result: Result, valor: ValorModel) -> bool:
    """Whether a cached result has the form of what [`_embed_clips`] returns."""
    for name, mask in (("video", "frame_mask"), ("audio", "audio_mask")):
        if name not in result and mask not in result:
            continue
        if not _is_embedding(result.get(name), valor) or mask not in result or result[mask].ndim != 1:
            return False
        kept = valor.encoded_frame_mask(result[mask][None])[0] if name == "video" else result[mask]
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
) -> dict[int, Result]:
    """ "text" of each, (its tokens, C), or (C,) with coarse alignment."""
    inputs = processor(text=[texts[index] for index in batch], max_length=max_length, return_tensors="pt")
    embeds = valor.get_text_embeds(**_on_device(inputs, valor)).to("cpu", dtype)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    fine = embeds.ndim == 3
    return {
        index: {"text": (embed[:length] if fine else embed).clone()}
        for index, embed, length in zip(batch, embeds, lengths, strict=True)
    }


def _stack(
    samples: Sequence[Sample],
    clips: Sequence[Result],
    texts: Sequence[str],
    clip_of_text: Sequence[int],
    by_text: Mapping[str, Tensor],
    valor: ValorModel,
    max_length: int,
) -> Embeddings:
    """The results of all clips and texts as tensors, without those of clips that could not be read."""
    row_of_clip = {index: row for row, index in enumerate(i for i, clip in enumerate(clips) if "failure" not in clip)}
    kept = [index for index, clip in enumerate(clip_of_text) if clip in row_of_clip]
    if not kept:
        first = next((clip["failure"] for clip in clips if "failure" in clip), None)
        raise ValueError(
            f"Retrieval needs clips with captions, but of {len(samples)} samples {len(row_of_clip)} could be read and "
            f"{sum(bool(sample.captions) for sample in samples)} have captions."
            + ("" if first is None else f" The first that could not be read is {first.id}: {first.reason}")
        )
    tensors = {}
    for name, mask in (("video", "frame_mask"), ("audio", "audio_mask")):
        found = [clips[index] for index in row_of_clip]
        template = next((clip for clip in found if name in clip), None)
        if template is None:
            continue
        blank = {key: torch.zeros_like(template[key]) for key in (name, mask)}
        parts = {key: [clip[key] if name in clip else blank[key] for clip in found] for key in blank}
        tensors[mask] = pad_sequence(parts[mask], batch_first=True)
        fine = template[name].ndim == 2
        tensors[name] = pad_sequence(parts[name], batch_first=True) if fine else torch.stack(parts[name])

    rows = [by_text[texts[index]] for index in kept]
    if rows[0].ndim == 1:
        text, text_mask = torch.stack(rows), torch.ones(len(rows), 1, dtype=torch.bool)
    else:
        text = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        if valor.config.padded_similarity == "zero" and text.shape[1] < max_length:
            # As in 2023, where texts were padded to `max_length`, every shorter text has padding that takes part in
            # its maxima; how much of it makes no difference
            text = nn.functional.pad(text, (0, 0, 0, 1))
        text_mask = torch.arange(text.shape[1]) < lengths[:, None]
    return Embeddings(
        ids=[samples[index].id for index in row_of_clip],
        clip_of_text=torch.tensor([row_of_clip[clip_of_text[index]] for index in kept]),
        texts=[texts[index] for index in kept],
        text=text,
        text_mask=text_mask,
        **tensors,
    )


def check_groups(groups: Sequence[str]) -> None:
    """Checks that retrieval is measured for these modality groups.

    Raises:
        ValueError: retrieval is not measured for one of these modality groups, or there is none.
    """
    unknown = [group for group in groups if group not in RETRIEVAL_GROUPS]
    if unknown or not groups:
        accepted = '"' + '", "'.join(RETRIEVAL_GROUPS) + '"'
        raise ValueError(
            f"Retrieval is measured for the groups {accepted}, not for {(unknown[0] if unknown else groups)!r}."
        )


def score(model: nn.Module, embeddings: Embeddings, group: str = "t-av") -> Tensor:
    """Eq. 3 for every query and every candidate of a modality group, on the CPU, float32.

    Computed by the model's device for 512 queries at a time. Above the embeddings that needs the matrix (25,000 texts x
    5,000 clips: 500 MB), and on the device all candidates and one block of queries.

    Returns:
        (T, N) for groups with the text as query; (N, N) for "v-a". -inf where a clip lacks the modalities.

    Raises:
        ValueError: no clip has the group's modalities, or the group has text among its candidates.
    """
    check_groups([group])
    valor = base_model(model)
    query, candidates = ALIGNMENT_GROUPS[group]
    weight = valor.text_projection.weight
    masks = {"text": "attention_mask", "video": "frame_mask", "audio": "audio_mask"}

    def arguments(name: str, rows: slice) -> dict[str, Tensor]:
        embeds = getattr(embeddings, name)
        if embeds is None:
            return {}
        mask = embeddings.text_mask if name == "text" else getattr(embeddings, masks[name])
        return {
            f"{name}_embeds": embeds[rows].to(weight.device, weight.dtype),
            masks[name]: mask[rows].to(weight.device),
        }

    fixed = {}
    for name in candidates:
        fixed.update(arguments(name, slice(None)))
    if not fixed:
        raise ValueError(f"Group {group!r} compares {query} with {' and '.join(candidates)}, which no clip has.")
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
    """Recall and ranks of each group in both directions ("t-av/R@1", "av-t/R@1"), how many were counted, and the scores.

    Clips without the group's modalities are neither queries nor candidates, and neither are their texts; the group's N
    says so. With `dual_softmax` the figures after that post-processing are given too, as "t-av/DSL/R@1".
    """
    metrics, counts, similarity = {}, {}, {}
    for group in groups:
        scores = similarity[group] = score(model, embeddings, group)
        clips, rows, right = embeddings.members(group)
        positives = right.unsqueeze(1).tolist()

        def blocks(scores: Tensor = scores, rows: Tensor = rows, clips: Tensor = clips) -> Iterator[Tensor]:
            if clips.all():  # then so are the rows
                return iter(scores[rows[0] : rows[-1] + 1].split(_SCORED_TEXTS))
            return (scores[block][:, clips] for block in rows.split(_SCORED_TEXTS))

        counts[f"{group}/queries"], counts[f"{group}/candidates"] = len(rows), int(clips.sum())
        for prefix, post_process in (("", False), ("DSL/", True))[: 1 + dual_softmax]:
            both = retrieval_metrics_in_blocks(blocks, positives, post_process)
            for direction, figures in zip((group, reverse(group)), both, strict=True):
                metrics.update({f"{direction}/{prefix}{name}": value for name, value in figures.items()})
    return metrics, counts, similarity


def evaluate_retrieval(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    groups: Sequence[str] | None = None,
    *,
    modalities: str = "av",
    num_frames: int | None = None,
    num_audio_clips: int | None = None,
    num_workers: int = 0,
    media_cache: str | os.PathLike | None = None,
    batch_size: int = 16,
    max_length: int = TEXT_LENGTH,
    paragraph: bool = False,
    clean_text: bool = True,
    dual_softmax: bool = False,
    dtype: torch.dtype = torch.float32,
    caches: Mapping[str, ResultCache] | None = None,
    progress: bool = False,
) -> Evaluation:
    """All-pairs retrieval: every text against every clip, in both directions (section 4.3).

    Args:
        groups: "t-av", "t-v", "t-a", "v-a"; by default the one of `modalities`.
        modalities, num_frames, num_audio_clips, num_workers, media_cache: see [`MediaOptions`].
        batch_size, max_length, paragraph, clean_text, dtype, caches: see [`embed`].
        dual_softmax: see [`retrieve`].
    """
    samples = merge_rows(samples)
    media = MediaOptions(modalities, num_frames, num_audio_clips, num_workers, media_cache)
    groups = [GROUP_OF[modalities]] if groups is None else list(groups)
    check_groups(groups)
    embeddings, failures = embed(
        model, processor, samples, media, batch_size, max_length, paragraph, clean_text, dtype, caches, progress
    )
    similarity = {}

    def measure() -> tuple[dict[str, float], dict[str, int]]:
        metrics, counts, matrices = retrieve(model, embeddings, groups, dual_softmax)
        similarity.update(matrices)
        return metrics, {"clips": len(embeddings.ids), "texts": len(embeddings.texts), **counts, **_rows_of(samples)}

    metrics, counts = from_main(measure)
    return Evaluation(metrics, counts, failures, similarity=similarity, embeddings=embeddings)


# --- Text that the model writes ---------------------------------------------------------------------------------------


def caption(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    media: MediaOptions | None = None,
    batch_size: int = 16,
    cache: ResultCache | None = None,
    progress: bool = False,
    **generate_kwargs,
) -> list[Result] | None:
    """{"text": caption} of each sample, or {"failure": ...}; in the main process only."""
    head = with_head(model, ValorForCaptioning)

    def write(batch: MediaBatch) -> dict[int, Result]:
        results = {index: failed(failure) for index, failure in batch.failures.items()}
        if batch.indices:
            ids = head.generate(**_on_device(batch.inputs, head.valor), **generate_kwargs)
            texts = processor.post_process_generation(ids)
            results.update((index, {"text": text}) for index, text in zip(batch.indices, texts, strict=True))
        return results

    with evaluating(head):
        return work_through(
            from_main(lambda: clip_keys(samples)),
            batch_size,
            lambda batches: map(write, media_batches(samples, processor, batches, media or MediaOptions())),
            cache,
            "captions" if progress else None,
            lambda _, result: isinstance(result.get("text"), str),
        )


def answer(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    media: MediaOptions | None = None,
    batch_size: int = 16,
    max_question_length: int = TEXT_LENGTH,
    clean_text: bool = True,
    cache: ResultCache | None = None,
    progress: bool = False,
    **generate_kwargs,
) -> list[Result] | None:
    """{"answers": one for each question} of each sample, or {"failure": ...}; in the main process only.

    A clip is encoded once for all its questions, of which `batch_size` are answered together.
    """
    head = with_head(model, ValorForQuestionAnswering)

    def write(batch: MediaBatch) -> dict[int, Result]:
        results: dict[int, dict[str, Any]] = {index: failed(failure) for index, failure in batch.failures.items()}
        results.update((index, {"answers": []}) for index in batch.indices)
        asked = [
            (row, clean_question(question.text) if clean_text else question.text)
            for row, index in enumerate(batch.indices)
            for question in samples[index].questions
        ]
        conditions = head.valor.encode_conditions(**_on_device(batch.inputs, head.valor)) if asked else None
        for start in range(0, len(asked), batch_size):
            rows, questions = zip(*asked[start : start + batch_size], strict=True)
            encoded = processor(question=list(questions), max_length=max_question_length, return_tensors="pt")
            ids = head.generate(
                conditions=_rows(conditions, rows), **_on_device(encoded, head.valor), **generate_kwargs
            )
            for row, text in zip(rows, processor.post_process_generation(ids), strict=True):
                results[batch.indices[row]]["answers"].append(text)
        return results

    with evaluating(head):
        return work_through(
            from_main(lambda: _keys_of_questions(samples)),
            batch_size,
            lambda batches: map(write, media_batches(samples, processor, batches, media or MediaOptions())),
            cache,
            "answers" if progress else None,
            lambda index, result: _are_texts(result.get("answers"), len(samples[index].questions)),
        )


def _keys_of_questions(samples: Sequence[Sample]) -> list[str]:
    questions = ([question.text for question in sample.questions] for sample in samples)
    return list(map(key_of, clip_keys(samples), questions))


def _are_texts(value: Any, number: int) -> bool:
    return isinstance(value, list) and len(value) == number and all(isinstance(text, str) for text in value)


def _rows(conditions: ValorConditions, rows: Sequence[int]) -> ValorConditions:
    """Conditions of some samples, with repetitions."""
    return ValorConditions(**{name: value[list(rows)] for name, value in conditions.items() if value is not None})


def evaluate_captioning(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    *,
    modalities: str = "av",
    num_frames: int | None = None,
    num_audio_clips: int | None = None,
    num_workers: int = 0,
    media_cache: str | os.PathLike | None = None,
    batch_size: int = 16,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    metrics: Sequence[str] = CAPTION_METRICS,
    cache: ResultCache | None = None,
    progress: bool = False,
    **generate_kwargs,
) -> Evaluation:
    """Captions for all samples, and their scores against the samples' captions (`caption_metrics`).

    Samples without captions get one too, as test sets with hidden captions need; they are in no figure.

    Args:
        modalities, num_frames, num_audio_clips, num_workers, media_cache: see [`MediaOptions`].
        num_beams: the paper's is 3 (section 5.1.2).
        max_new_tokens: of a caption; `None`: the checkpoint's number. Other arguments of `generate` may follow.
        metrics: of `CAPTION_METRICS`.
    """
    check_caption_metrics(metrics)
    samples = merge_rows(samples)
    media = MediaOptions(modalities, num_frames, num_audio_clips, num_workers, media_cache)
    if max_new_tokens is not None:
        generate_kwargs["max_new_tokens"] = max_new_tokens
    generate_kwargs["num_beams"] = num_beams
    results = caption(model, processor, samples, media, batch_size, cache, progress, **generate_kwargs)
    predictions = []

    def measure() -> tuple[dict[str, float], dict[str, int], list[Failure]]:
        written = [(sample, result) for sample, result in zip(samples, results, strict=True) if "text" in result]
        for sample, result in written:
            references = list(sample.captions)
            predictions.append({"id": sample.id, "prediction": result["text"], "references": references})
        compared = [entry for entry in predictions if entry["references"]]
        figures = {}
        if compared:
            texts, references = zip(*((entry["prediction"], entry["references"]) for entry in compared), strict=True)
            figures = caption_metrics(list(texts), list(references), metrics)
        counts = {"clips": len(written), "references": sum(len(entry["references"]) for entry in compared)}
        return figures, counts | _rows_of(samples), _failures(results)

    figures, counts, failures = from_main(measure)
    return Evaluation(figures, counts, failures, predictions)


def evaluate_question_answering(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    *,
    modalities: str = "av",
    num_frames: int | None = None,
    num_audio_clips: int | None = None,
    num_workers: int = 0,
    media_cache: str | os.PathLike | None = None,
    batch_size: int = 16,
    num_beams: int = 1,
    max_new_tokens: int = 10,
    max_question_length: int = TEXT_LENGTH,
    clean_text: bool = True,
    cache: ResultCache | None = None,
    progress: bool = False,
    **generate_kwargs,
) -> Evaluation:
    """Answers to all questions about all samples, and "accuracy" with "accuracy/TYPE" for each type (`answer_accuracy`).

    Questions without answers get one too, as test sets with hidden answers need; they are in no figure. A type such as
    "Audio/Counting" counts for "Audio" as well.

    Args:
        modalities, num_frames, num_audio_clips, num_workers, media_cache: see [`MediaOptions`].
        num_beams: the paper answers greedily (section 5.1.2).
        max_new_tokens, max_question_length: of an answer and of a question. Other arguments of `generate` may follow.
        clean_text: clean questions as training does (and the 2023 code did).
    """
    samples = merge_rows(samples)
    media = MediaOptions(modalities, num_frames, num_audio_clips, num_workers, media_cache)
    generate_kwargs.update(num_beams=num_beams, max_new_tokens=max_new_tokens)
    results = answer(
        model,
        processor,
        samples,
        media,
        batch_size,
        max_question_length,
        clean_text,
        cache,
        progress,
        **generate_kwargs,
    )
    predictions = []

    def measure() -> tuple[dict[str, float], dict[str, int], list[Failure]]:
        read = [(sample, result) for sample, result in zip(samples, results, strict=True) if "answers" in result]
        for sample, result in read:
            for question, text in zip(sample.questions, result["answers"], strict=True):
                predictions.append(_answered(sample, question, text))
        compared = [entry for entry in predictions if entry["answers"]]
        figures = {}
        if compared:
            accuracy = answer_accuracy(
                [entry["prediction"] for entry in compared],
                [entry["answers"] for entry in compared],
                [entry["type"].split("/") if entry["type"] else () for entry in compared],
            )
            by_type = accuracy.pop("accuracy_by_type", {})
            figures = {**accuracy, **{f"accuracy/{name}": value for name, value in by_type.items()}}
        counts = {"clips": len(read), "questions": len(predictions)}
        return figures, counts | _rows_of(samples), _failures(results)

    figures, counts, failures = from_main(measure)
    return Evaluation(figures, counts, failures, predictions)


def _answered(sample: Sample, question: Question, text: str) -> dict[str, Any]:
    return {
        "id": sample.id,
        "question_id": question.id,
        "question": question.text,
        "prediction": text,
        "answers": list(question.answers),
        "type": question.type,
    }


def _rows_of(clips: Clips) -> dict[str, int]:
    """How many rows the clips were, where some were merged."""
    return {"rows": clips.num_rows} if clips.num_rows > len(clips) else {}


def _failures(results: Sequence[Result]) -> list[Failure]:
    return [result["failure"] for result in results if "failure" in result]
