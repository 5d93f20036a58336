# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`pipeline("audiovisual-captioning")` and `pipeline("audiovisual-question-answering")`."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import PreTrainedModel
from transformers.pipelines.base import build_pipeline_init_args
from transformers.utils import add_end_docstrings

from .modeling_valor_base import ValorPreTrainedModel
from .modeling_valor_decoder import ValorDecoderModel
from .modeling_valor_heads import ValorForCaptioning, ValorForQuestionAnswering, as_head
from .pipelines_base import AudiovisualPipeline, Record, is_sample, parts_of


_TOKENIZING = threading.Lock()
"""A tokenizer takes new settings, such as another length, from one thread at a time."""

SCORED_BEAMS = 3
"""Beams of `return_all=True` where `num_beams` is not given, or the model's own number if that is larger."""


class AudiovisualGenerationPipeline(AudiovisualPipeline):
    """The base of captioning and question answering: generated text out."""

    head_class: type[ValorDecoderModel]
    """The class of models that write the texts."""
    text_key = "generated_text"
    """Key of the text in the results."""

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        # Any other head of the same checkpoint, such as `ValorForPreTraining`, has all weights that are needed
        super().__init__(
            as_head(model, self.head_class) if isinstance(model, ValorPreTrainedModel) else model, *args, **kwargs
        )

    def _sanitize_parameters(
        self,
        modalities: str | None = None,
        num_frames: int | None = None,
        num_audio_clips: int | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        on_error: str | None = None,
        return_all: bool | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess = self.media_parameters(modalities, num_frames, num_audio_clips, processor_kwargs, on_error)
        if duplicates := sorted(kwargs.keys() & (generate_kwargs or {}).keys()):
            raise ValueError(
                f"`{duplicates[0]}` is given twice, by itself and in `generate_kwargs`. Keep one of them."
            )
        forward = {**(generate_kwargs or {}), **kwargs}
        if return_all is not None:
            forward["return_all"] = return_all
        return preprocess, forward, {}

    def preprocess(self, sample: Any, on_error: str = "raise", **processor_kwargs: Any) -> dict[str, Any]:
        sample = parts_of(sample)
        question = self.question_of(sample)
        # The samples of a batch are joined by the processor, in `_forward`: transformers cannot pad frames
        prepared: dict[str, Any] = {"questions": None}
        if question is not None:
            with _TOKENIZING:
                asked = self.processor(question=question, return_tensors="pt", **processor_kwargs)
            prepared["questions"] = asked.data
        is_list = isinstance(question, list)
        prepared |= {"is_list": is_list, "num_questions": len(question) if isinstance(question, list) else 1}
        return {"sample": prepared | self.read_media(sample, on_error, **processor_kwargs)}

    def question_of(self, sample: dict[str, Any]) -> str | list[str] | None:
        """The question about a sample, or a list of questions; `None` where the task has none."""
        return None

    def _forward(
        self, model_inputs: dict[str, Any], return_all: bool = False, **generate_kwargs: Any
    ) -> dict[str, Any]:
        """Results of a batch: for each sample the ids, scores and modalities of its texts, question by question."""
        samples = model_inputs["sample"]
        samples = samples if isinstance(samples, list) else [samples]
        readable = [sample for sample in samples if sample["error"] is None]
        generated = iter(self._generate(readable, return_all, generate_kwargs) if readable else ())
        results = []
        for sample in samples:
            result = {name: sample[name] for name in ("is_list", "num_questions", "coverage", "error")}
            results.append(result | {"texts": next(generated) if sample["error"] is None else None})
        return {"result": results}

    def _generate(
        self, samples: list[dict[str, Any]], return_all: bool, generate_kwargs: dict[str, Any]
    ) -> Iterator[list[Record]]:
        """The texts about each sample, one dict for each of its questions (or for its one caption)."""
        inputs = self.processor.pad([sample["media"] for sample in samples])
        if return_all:
            generate_kwargs = self._scored(generate_kwargs)
        if samples[0]["questions"] is not None:
            questions = self.processor.pad([sample["questions"] for sample in samples])
            generate_kwargs = {**questions, **generate_kwargs}
        counts = [sample["num_questions"] for sample in samples]
        rows = [row for row, count in enumerate(counts) for _ in range(count)]
        conditions = self.model.valor.encode_conditions(**inputs)  # once, whatever the number of questions
        outputs = self.model.generate(
            conditions=conditions.select(rows) if len(rows) > len(samples) else conditions,
            **generate_kwargs,
            return_dict_in_generate=True,
        )
        modalities = self.modalities_of(inputs, len(samples))
        scores = self.sequence_scores(outputs).view(len(rows), -1) if return_all else [None] * len(rows)
        sequences = outputs.sequences.view(len(rows), -1, outputs.sequences.shape[-1])
        texts = iter(
            {"sequences": ids, "scores": score, "modalities": modalities[row]}
            for row, ids, score in zip(rows, sequences, scores, strict=True)
        )
        for count in counts:
            yield [next(texts) for _ in range(count)]

    def _scored(self, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `generate` with which several texts and their scores come back."""
        defaults = generate_kwargs.get("generation_config") or self.model.generation_config
        num_beams = generate_kwargs.get("num_beams", defaults.num_beams) or 1
        if "num_beams" not in generate_kwargs and not generate_kwargs.get("do_sample", defaults.do_sample):
            num_beams = max(num_beams, SCORED_BEAMS)
        return {
            "num_return_sequences": num_beams,
            **generate_kwargs,
            "num_beams": num_beams,
            "output_scores": True,
            "output_logits": True,
        }

    def sequence_scores(self, outputs: Any) -> torch.Tensor:
        """Sum of the log-probabilities of each text's words, (batch_size * num_return_sequences,)."""
        if getattr(outputs, "sequences_scores", None) is not None:
            return outputs.sequences_scores
        words = self.model.compute_transition_scores(outputs.sequences, outputs.logits, normalize_logits=True)
        padding = outputs.sequences[:, -words.shape[1] :] == self.processor.tokenizer.pad_token_id
        return words.masked_fill(padding, 0).sum(1)

    def postprocess(self, model_outputs: dict[str, Any]) -> list[Record] | list[list[Record]]:
        result = model_outputs["result"]
        result = result[0] if isinstance(result, list) else result
        if result["error"] is None:
            answers = [self._records(**texts) for texts in result["texts"]]
            if result["coverage"] is not None:
                answers = [[{**record, "coverage": result["coverage"]} for record in records] for records in answers]
        else:
            answers = [[{self.text_key: None, "modalities": "", "error": result["error"]}]] * result["num_questions"]
        return answers if result["is_list"] else answers[0]

    def _records(self, sequences: torch.Tensor, scores: torch.Tensor | None, modalities: str) -> list[Record]:
        """Ids (num_texts, length) to dicts, best first where there are scores (num_texts,)."""
        texts = self.processor.post_process_generation(sequences)
        records = [{self.text_key: text, "modalities": modalities} for text in texts]
        if scores is not None:
            for record, score in zip(records, scores.tolist(), strict=True):
                record["score"] = score
            records.sort(key=lambda record: -record["score"])
        return records


@add_end_docstrings(build_pipeline_init_args(has_processor=True))
class AudiovisualCaptioningPipeline(AudiovisualGenerationPipeline):
    """Describes videos, sounds, or videos with their sound, with a [`ValorForCaptioning`].

    ```python
    >>> captioner = pipeline("audiovisual-captioning", model="casia/valor-l")
    >>> captioner("clip.mp4")
    [{'generated_text': 'a man plays the guitar and sings', 'modalities': 'av'}]
    ```
    """

    head_class = ValorForCaptioning

    def __call__(self, inputs: Any, **kwargs: Any) -> list[Record] | list[list[Record]] | Iterator[list[Record]]:
        """Gives captions, in the order of the inputs.

        Args:
            inputs: one sample or several, as a list, an iterator, a dataset or one of its columns. A sample is a video
                or sound file (a path, a URL, bytes, a file object), an entry of a `datasets` column, or a dict with
                `"video"`, `"audio"` or both, of which either may be `None`. The sound of a video file is used unless
                `"audio"` is given.
            modalities (`str`): `"av"`, or only `"v"` or `"a"`.
            num_frames, num_audio_clips (`int`): how much of each sample is looked at and listened to.
            processor_kwargs (`dict`): further arguments of [`ValorProcessor`].
            return_all (`bool`): several captions with their scores, the sums of the words' log-probabilities, best
                first: all beams (at least three, if `num_beams` is not given), or `num_return_sequences` samples.
            batch_size (`int`): samples that go through the model together.
            on_error (`str`): `"raise"` (the default) stops at a sample that cannot be read; `"skip"` goes on, logs one
                warning, and gives this sample a result whose text is `None`, with the reason as `error`.
            generate_kwargs (`dict`): arguments of `generate()`, which may also be given by themselves
                (`num_beams`, `max_new_tokens`, `do_sample`, ...).

        Returns:
            For one sample a list of dicts, one for each caption, with `generated_text`, `modalities` (`"av"`, `"v"` or
            `"a"`: what the caption was made from) and with `return_all` a `score`; for several samples a list of such
            lists, and for an iterator or a torch dataset an iterator over them. Of a long file, of which a frame or a
            clip of sound stands for more than 30 seconds, `coverage` says how much was used: `duration` of the file in
            seconds, number of `frames`, and `audio_clips` of 5.12 seconds.
        """
        return super().__call__(inputs, **kwargs)


@add_end_docstrings(build_pipeline_init_args(has_processor=True))
class AudiovisualQuestionAnsweringPipeline(AudiovisualGenerationPipeline):
    """Answers questions about videos and sounds in free words, with a [`ValorForQuestionAnswering`].

    ```python
    >>> answerer = pipeline("audiovisual-question-answering", model="casia/valor-l-msrvtt-qa")
    >>> answerer("clip.mp4", question="what does the man play?")
    [{'answer': 'guitar', 'modalities': 'av'}]
    ```
    """

    head_class = ValorForQuestionAnswering
    text_key = "answer"

    def __call__(
        self, inputs: Any, question: Any = None, **kwargs: Any
    ) -> list[Record] | list[list[Record]] | Iterator[list[Record]]:
        """Gives answers, in the order of the inputs.

        Args:
            inputs: as for [`AudiovisualCaptioningPipeline`]; the dict of a sample may hold its `"question"`.
            question (`str` or `list`): of one sample, a question or a list of them, for which it is read and encoded
                once; of several samples, one question for all, or one (or a list) for each.
            kwargs: as for [`AudiovisualCaptioningPipeline`].

        Returns:
            As [`AudiovisualCaptioningPipeline`] does, with `answer` in place of `generated_text`; for a sample with a
            list of questions a list of such results, in their order.
        """
        if question is None:
            return super().__call__(inputs, **kwargs)
        if is_sample(inputs):
            return super().__call__(_with_question(inputs, question), **kwargs)
        if hasattr(inputs, "__len__") and not isinstance(question, str) and len(question) != len(inputs):
            raise ValueError(
                f"There are {len(inputs)} samples, but {len(question)} questions. Ask one, or one for each."
            )
        if isinstance(inputs, Dataset) and not isinstance(inputs, IterableDataset):
            return super().__call__(_QuestionDataset(inputs, question), **kwargs)
        if isinstance(question, str):
            asked = (_with_question(sample, question) for sample in inputs)
        else:
            asked = (_with_question(*pair) for pair in zip(inputs, question, strict=True))
        return super().__call__(list(asked) if hasattr(inputs, "__len__") else asked, **kwargs)

    def question_of(self, sample: dict[str, Any]) -> str | list[str]:
        question: Any = sample.get("question")
        question = list(question) if isinstance(question, tuple) else question
        questions = question if isinstance(question, list) and question else [question]
        if not all(isinstance(text, str) and text.strip() for text in questions):
            raise ValueError(
                f"The question of a sample must be a string with words in it, or a list of such strings, got {question!r}. Pass "
                '`question=...`, or a dict with the keys "video" and "question".'
            )
        return question


class _QuestionDataset(Dataset[Any]):
    """The samples of a dataset with one question for all of them, or one for each."""

    def __init__(self, dataset: Any, question: str | Sequence[str]):
        self.dataset, self.question = dataset, question

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        question = self.question if isinstance(self.question, str) else self.question[index]
        return _with_question(self.dataset[index], question)


def _with_question(sample: Any, question: str | list[str]) -> dict[str, Any]:
    return {**parts_of(sample), "question": question}


__all__ = ["AudiovisualCaptioningPipeline", "AudiovisualQuestionAnsweringPipeline"]
