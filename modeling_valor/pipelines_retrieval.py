# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`pipeline("audiovisual-retrieval")` and `pipeline("zero-shot-audiovisual-classification")`: texts against videos and sounds.

Both score queries against candidates, which are embedded once for all queries.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pipelines.base import build_pipeline_init_args
from transformers.utils import add_end_docstrings, logging

from .configuration_valor import GROUP_OF_LETTERS, MEDIA, MODALITIES
from .modeling_valor_base import to_device
from .pipelines_base import AudiovisualPipeline, Record, is_sample, parts_of


logger = logging.get_logger(__name__)

TEXTS_PER_BATCH = 64
"""Candidate texts that go through the model together, at least."""

NOTHING_TO_SCORE = "It has nothing of the modalities that are scored."

_EMBEDS = {f"{modality.name}_embeds": modality.mask for modality in MODALITIES}


@dataclass(frozen=True)
class Candidates:
    """What queries are scored against: N texts, or N videos and sounds.

    Attributes:
        records: for each candidate what results say of it, with an `error` if it could not be read.
        embeds: what `compute_similarity` takes of those that could be read, on the CPU; nothing if there are none.
    """

    records: Sequence[Record]
    embeds: Mapping[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, {sum('error' in record for record in self.records)} unreadable)"


class AudiovisualAlignmentPipeline(AudiovisualPipeline):
    """The base of retrieval and zero-shot classification: the model's own scores (eq. 3) of queries and candidates."""

    no_result: Record
    """What the only result of a query that cannot be read says, besides its error."""

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        if not hasattr(model.base_model, "compute_similarity"):
            raise ValueError(f"{type(model).__name__} does not score texts against media. Load a VALOR checkpoint.")
        super().__init__(model, *args, **kwargs)

    def _sanitize_parameters(
        self,
        modalities: str | None = None,
        num_frames: int | None = None,
        num_audio_clips: int | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        on_error: str | None = None,
        top_k: int | None = None,
        query: str | None = None,
        candidates: Candidates | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            where = " in `pipeline(...)`; give it in the call" if "media" in unknown or "texts" in unknown else ""
            raise TypeError(f"This pipeline takes no argument {next(iter(unknown))!r}{where}.")
        preprocess = self.media_parameters(modalities, num_frames, num_audio_clips, processor_kwargs, on_error)
        letters = preprocess.get("modalities")
        if letters is not None and letters not in GROUP_OF_LETTERS:
            raise ValueError(f'`modalities` must be "av", "v" or "a", got {letters!r}.')
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"`top_k` must be a whole number of at least 1, got {top_k!r}.")
        preprocess |= _given(query=query)
        group = None if letters is None else GROUP_OF_LETTERS[letters]
        after = _given(candidates=candidates, modalities=letters, top_k=top_k)
        return preprocess, _given(candidates=candidates, group=group), after

    def reads_ahead(self, preprocess_params: Mapping[str, Any]) -> bool:
        return preprocess_params.get("query") != "text" and super().reads_ahead(preprocess_params)

    def preprocess(
        self, sample: Any, query: str = "media", on_error: str = "raise", **processor_kwargs: Any
    ) -> dict[str, Any]:
        # The samples of a batch are joined by the processor, in `_forward`: transformers cannot pad frames
        if query == "media":
            name = _name_of(sample)
            return {"sample": {"media_name": name, **self.read_media(sample, on_error, **processor_kwargs)}}
        if not isinstance(sample, str) or not sample.strip():
            raise ValueError(f"A text to score must be a string with words in it, got {sample!r}.")
        if self.model.base_model.config.padded_similarity == "zero":
            # Padding takes part in these scores, so it must not depend on the other texts of a batch
            processor_kwargs = {"padding": "max_length", **processor_kwargs}
        inputs = self.processor(text=sample, return_tensors="pt", **processor_kwargs)
        return {"sample": {"text_name": sample, "text": inputs.data, "error": None}}

    def _forward(
        self, model_inputs: dict[str, Any], candidates: Candidates | None = None, group: str = "t-av"
    ) -> dict[str, Any]:
        """For each sample of a batch its `scores`, (candidates that could be read,); without candidates its `embeds`."""
        samples = model_inputs["sample"]
        samples = samples if isinstance(samples, list) else [samples]
        readable = [sample for sample in samples if sample["error"] is None]
        computed = iter(self._compute(readable, candidates, group) if readable else ())
        results = []
        for sample in samples:
            about = {name: sample.get(name) for name in ("text_name", "media_name", "coverage", "error")}
            results.append(about | (next(computed) if sample["error"] is None else {}))
        return {"result": results}

    def _compute(self, samples: list[dict[str, Any]], candidates: Candidates | None, group: str) -> list[Record]:
        valor = self.model.base_model
        is_text = "text" in samples[0]
        inputs = self.processor.pad([sample["text" if is_text else "media"] for sample in samples])
        embeds = (valor.embed_texts if is_text else valor.embed_media)(inputs)
        about: list[Record] = [{} for _ in samples]
        if not is_text:
            about = [{"modalities": letters} for letters in self.modalities_of(inputs, len(samples))]
        if candidates is None:
            for modality in () if is_text else MEDIA:
                if modality.input in inputs:
                    present = torch.ones(inputs[modality.input].shape[:2], dtype=torch.bool)
                    embeds.setdefault(modality.mask, present)
            rows = [{name: value[row : row + 1] for name, value in embeds.items()} for row in range(len(samples))]
            return [{**record, "embeds": row} for record, row in zip(about, rows, strict=True)]
        if not candidates.embeds:
            return [{**record, "scores": torch.empty(0)} for record in about]
        others = to_device(candidates.embeds, self.device, valor.dtype)
        similarity = valor.compute_similarity(**embeds, **others, group=group)
        scores = similarity if is_text else similarity.mT
        return [{**record, "scores": row} for record, row in zip(about, scores, strict=True)]

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        candidates: Candidates | None = None,
        modalities: str = "av",
        top_k: int | None = None,
    ) -> Any:
        result = model_outputs["result"]
        result = result[0] if isinstance(result, list) else result
        if candidates is None:
            return result
        if result["error"] is not None:
            return [{**self.no_result, "modalities": "", "error": result["error"]}]
        about = _given(modalities=result.get("modalities"), coverage=result["coverage"])
        records = [{**record, **about} for record in candidates.records]
        for record in records:
            made_from = record.get("modalities", "")
            record["modalities"] = "".join(letter for letter in made_from if letter in modalities)
        return self.records_of(result["scores"], records, top_k)

    def records_of(self, scores: torch.Tensor, candidates: Sequence[Record], top_k: int | None) -> list[Record]:
        """The results of a query, best first.

        Args:
            scores: (candidates that could be read,).
            candidates: what results say of each candidate, those with an `error` included.
            top_k: how many are returned; None: all.
        """
        raise NotImplementedError

    def embed_candidates(self, samples: Any, query: str, **kwargs: Any) -> Candidates:
        """Embeds media, or a list of texts, with the options of a call; `query` is "media" or "text"."""
        if query == "text":
            kwargs |= {"num_workers": 0, "batch_size": max(TEXTS_PER_BATCH, kwargs.get("batch_size") or 1)}
        kwargs.pop("top_k", None)
        results: list[Record] = list(cast(Any, super().__call__(samples, query=query, **kwargs)))
        embeds = [result.pop("embeds") for result in results if result["error"] is None]
        names = {"text_name": "text", "media_name": "media"}
        records = []
        for result in results:
            record = {names.get(name, name): value for name, value in result.items() if value is not None}
            records.append(record if query == "text" else {"media": None, **record})
        return Candidates(records, _join(embeds))


@add_end_docstrings(build_pipeline_init_args(has_processor=True))
class AudiovisualRetrievalPipeline(AudiovisualAlignmentPipeline):
    """Ranks videos and sounds for texts, and texts for videos and sounds, with a [`ValorModel`].

    ```python
    >>> retriever = pipeline("audiovisual-retrieval", model="casia/valor-l")
    >>> retriever("a dog barks", media=["cat.mp4", "dog.mp4"])
    [{'rank': 1, 'score': 0.41, 'index': 1, 'media': 'dog.mp4', 'modalities': 'av'},
     {'rank': 2, 'score': 0.18, 'index': 0, 'media': 'cat.mp4', 'modalities': 'av'}]
    >>> retriever("dog.mp4", texts=["a cat sleeps", "a dog barks"], top_k=1)
    [{'rank': 1, 'score': 0.41, 'index': 1, 'text': 'a dog barks', 'modalities': 'av'}]
    ```
    """

    no_result = {"rank": None, "score": None, "index": None}

    def __call__(
        self, inputs: Any, *, media: Any = None, texts: str | Sequence[str] | None = None, **kwargs: Any
    ) -> list[Record] | list[list[Record]] | Iterator[list[Record]]:
        """Ranks all candidates for each query, in the order of the queries.

        Args:
            inputs: the queries, one or several, as a list, an iterator or a dataset: texts where `media` are the
                candidates; videos and sounds, as for [`AudiovisualCaptioningPipeline`], where `texts` are.
            media: candidates, as for [`AudiovisualCaptioningPipeline`], or what `embed_media` made of them. They are
                embedded once, before the first query.
            texts (`str` or `list[str]`): candidates.
            modalities (`str`): `"av"`, or only `"v"` or `"a"`: the modality group t-av, t-v or t-a is scored.
            top_k (`int`): only the best candidates.
            num_frames, num_audio_clips, processor_kwargs, batch_size: as for [`AudiovisualCaptioningPipeline`].
            on_error (`str`): `"raise"` (the default) stops at a sample that cannot be read; `"skip"` goes on and logs one
                warning. A skipped candidate comes after all others, a skipped query has one result; neither has a rank
                or a score, and the reason is its `error`.

        Returns:
            For one query a list of dicts, best first, with `rank`, from 1 (equal scores keep the order of the candidates),
            `score`, S of eq. 3, `index` of the candidate, the `text` or the `media` (its path or URL, or None where it
            has none), and `modalities`, what was scored. For several queries a list of such lists, and for an iterator or
            a torch dataset an iterator over them.

        Raises:
            ValueError: neither or both of `media` and `texts` are given, or an option is not what is accepted.
            MediaError: a file cannot be read.
        """
        if (media is None) == (texts is None):
            raise ValueError(
                "Give the candidates: `media=...` where the queries are texts, or `texts=...` where they are media."
            )
        if media is None:
            texts = [texts] if isinstance(texts, str) else list(() if texts is None else texts)
            candidates = self.embed_candidates(texts, "text", **kwargs)
            return super().__call__(inputs, query="media", candidates=candidates, **kwargs)
        if isinstance(inputs, str) and os.path.isfile(inputs):
            logger.warning(
                f"There is a file {inputs!r}, but with `media=...` the query is a text, and so are these words."
            )
        if isinstance(media, Candidates):
            if late := sorted({"num_frames", "num_audio_clips", "on_error"} & kwargs.keys()):
                raise ValueError(f"The media are embedded already. Give `{late[0]}` to `embed_media`.")
            present = {letter for record in media.records for letter in record.get("modalities", "")}
            wanted = kwargs.get("modalities")
            if wanted in GROUP_OF_LETTERS and present and present.isdisjoint(wanted):
                raise ValueError(f"The media were embedded without what modalities={wanted!r} scores.")
            candidates = media
        else:
            candidates = self.embed_media(media, **kwargs)
        return super().__call__(inputs, query="text", candidates=candidates, **kwargs)

    def embed_media(self, media: Any, **kwargs: Any) -> Candidates:
        """Candidates of several calls, embedded once: `retriever("a dog barks", media=retriever.embed_media(files))`.

        They take 2 kB of memory for each frame and audio clip of VALOR; `modeling_valor.search` is for large collections.

        Args:
            media, kwargs: as for a call.
        """
        return self.embed_candidates([media] if is_sample(media) else media, "media", **kwargs)

    def records_of(self, scores: torch.Tensor, candidates: Sequence[Record], top_k: int | None) -> list[Record]:
        numbered = [{"index": index, **record} for index, record in enumerate(candidates)]
        readable = [record for record in numbered if "error" not in record]
        order = scores.argsort(descending=True, stable=True).tolist()
        scored = [place for place in order if scores[place] > -torch.inf]
        ranked = [
            {"rank": rank, "score": scores[place].item(), **readable[place]}
            for rank, place in enumerate(scored, start=1)
        ]
        absent = [{**readable[place], "error": NOTHING_TO_SCORE} for place in order[len(scored) :]]
        unranked = [*absent, *(record for record in numbered if "error" in record)]
        unranked.sort(key=lambda record: record["index"])
        return ranked[:top_k] + [{**self.no_result, **record} for record in unranked]


@add_end_docstrings(build_pipeline_init_args(has_processor=True))
class ZeroShotAudiovisualClassificationPipeline(AudiovisualAlignmentPipeline):
    """Classifies videos and sounds by labels that the model was not trained for, with a [`ValorModel`].

    ```python
    >>> classifier = pipeline("zero-shot-audiovisual-classification", model="casia/valor-l")
    >>> classifier("dog.mp4", candidate_labels=["dog", "cat"], hypothesis_template="a video of a {}")
    [{'label': 'dog', 'score': 0.98, 'similarity': 0.41, 'modalities': 'av'},
     {'label': 'cat', 'score': 0.02, 'similarity': 0.18, 'modalities': 'av'}]
    ```
    """

    no_result = {"label": None, "score": None, "similarity": None}

    def __init__(
        self,
        *args: Any,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str = "{}",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.candidate_labels, self.hypothesis_template = candidate_labels, hypothesis_template

    def __call__(
        self,
        inputs: Any,
        *,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | None = None,
        **kwargs: Any,
    ) -> list[Record] | list[list[Record]] | Iterator[list[Record]]:
        """Gives a probability to each label, in the order of the inputs.

        Args:
            inputs: one sample or several, as for [`AudiovisualCaptioningPipeline`].
            candidate_labels (`list[str]`): the labels; also an argument of `pipeline`.
            hypothesis_template (`str`): the text of a label, with `{}` in its place; by default the label itself. Write it
                like the captions that the checkpoint was trained on. Also an argument of `pipeline`.
            modalities (`str`): `"av"`, or only `"v"` or `"a"`: the modality group t-av, t-v or t-a is scored.
            top_k (`int`): only the most probable labels; the probabilities are those among all labels.
            num_frames, num_audio_clips, processor_kwargs, batch_size, on_error: as for [`AudiovisualCaptioningPipeline`].

        Returns:
            For one sample a list of dicts, most probable first, with `label`, `score` (the softmax, over the labels, of
            `similarity` times the model's logit scale), `similarity` (S of eq. 3 of the sample and the label's text) and
            `modalities` (what was scored). For several samples a list of such lists, and for an iterator or a torch
            dataset an iterator over them.

        Raises:
            ValueError: no labels, a label twice, a template without `{}`, or another option that is not accepted.
            MediaError: a file cannot be read.
        """
        labels = self.candidate_labels if candidate_labels is None else candidate_labels
        template = self.hypothesis_template if hypothesis_template is None else hypothesis_template
        hypotheses = _hypotheses(labels, template)
        candidates = self.embed_candidates(list(hypotheses.values()), "text", **kwargs)
        for record, label in zip(candidates.records, hypotheses, strict=True):
            record["label"] = label
        return super().__call__(inputs, query="media", candidates=candidates, **kwargs)

    def records_of(self, scores: torch.Tensor, candidates: Sequence[Record], top_k: int | None) -> list[Record]:
        similarity = scores.float()
        probabilities = (similarity * self.model.base_model.logit_scale.exp().to(similarity.device)).softmax(dim=0)
        records = []
        for place in similarity.argsort(descending=True, stable=True)[:top_k].tolist():
            about = {name: value for name, value in candidates[place].items() if name != "text"}
            score, raw = probabilities[place].item(), similarity[place].item()
            records.append({"label": about.pop("label"), "score": score, "similarity": raw, **about})
        return records


def _given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _name_of(sample: Any) -> str | None:
    """Path or URL of a sample, if it has one."""
    for part in parts_of(sample).values():
        part = part.get("path") if isinstance(part, dict) else part
        if isinstance(part, str | os.PathLike):
            return os.fspath(part)
    return None


def _hypotheses(labels: Sequence[str] | None, template: str) -> dict[str, str]:
    """Label -> its text."""
    names = [] if labels is None or isinstance(labels, str) else list(labels)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(
            f"`candidate_labels` must be a list of strings with words in them, at least one, got {labels!r}."
        )
    if not isinstance(template, str) or "{}" not in template:
        raise ValueError(f"`hypothesis_template` must have {{}} where the label goes, got {template!r}.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"`candidate_labels` has {name!r} twice; the labels share one softmax.")
    return {name: template.replace("{}", name) for name in names}


def _join(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Embeddings of single samples, (1, tokens, C) or (1, C) with masks (1, tokens), as those of a batch.

    Fewer tokens and missing modalities become zeros, False in the mask.
    """
    joined: dict[str, torch.Tensor] = {}
    for name, mask in _EMBEDS.items():
        template = next((row for row in rows if name in row), {})
        for key in (name, mask) if template else ():
            parts = [row[key] if name in row else torch.zeros_like(template[key]) for row in rows]
            longest = max(part.shape[1] for part in parts)
            padding = [(0, 0) * (part.ndim - 2) + (0, longest - part.shape[1]) for part in parts]
            joined[key] = torch.cat([F.pad(part, pad) for part, pad in zip(parts, padding, strict=True)])
    return joined


__all__ = ["AudiovisualRetrievalPipeline", "ZeroShotAudiovisualClassificationPipeline"]
