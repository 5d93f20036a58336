# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`pipeline("audiovisual-captioning")` and `pipeline("audiovisual-question-answering")`."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import Pipeline
from transformers.pipelines.base import build_pipeline_init_args
from transformers.utils import ModelOutput, add_end_docstrings

from .processing_valor import MASKS


SCORED_BEAMS = 3
"""Beams of `return_all=True` where `num_beams` is not given, or the model's own number if that is larger."""


class AudiovisualPipeline(Pipeline):
    """What captioning and question answering share: any form of video and sound in, generated text out."""

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    model_names: list[str] = []
    """Classes of models that the pipeline is made for."""
    text_key = "generated_text"
    """Key of the text in the results."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.check_model_type(self.model_names)

    def _sanitize_parameters(
        self,
        modalities: str | None = None,
        num_frames: int | None = None,
        num_audio_clips: int | None = None,
        processor_kwargs: dict | None = None,
        return_all: bool | None = None,
        generate_kwargs: dict | None = None,
        **kwargs,
    ) -> tuple[dict, dict, dict]:
        given = {"modalities": modalities, "num_frames": num_frames, "num_audio_clips": num_audio_clips}
        preprocess = {name: value for name, value in given.items() if value is not None} | (processor_kwargs or {})
        if twice := sorted(kwargs.keys() & (generate_kwargs or {}).keys()):
            raise ValueError(f"`{twice[0]}` is given twice, by itself and in `generate_kwargs`. Keep one of them.")
        forward = {**(generate_kwargs or {}), **kwargs}
        if return_all is not None:
            forward["return_all"] = return_all
        return preprocess, forward, {}

    def __call__(self, inputs: Any, **kwargs) -> list[dict] | list[list[dict]] | Iterator[list[dict]]:
        known = isinstance(inputs, torch.utils.data.Dataset) or (isinstance(inputs, list) and inputs)
        if known or _is_sample(inputs):
            return super().__call__(inputs, **kwargs)
        # transformers takes tuples, iterators and columns of `datasets` for single samples
        results = super().__call__((sample for sample in inputs), **kwargs)
        return list(results) if hasattr(inputs, "__len__") else results

    def preprocess(self, sample: Any, **processor_kwargs) -> dict:
        sample = sample if _is_dict_of_parts(sample) else {"video": sample}
        inputs = self.processor(
            videos=_batch_of_one(sample.get("video")),
            audio=_batch_of_one(sample.get("audio")),
            question=self.question_of(sample),
            return_tensors="pt",
            **processor_kwargs,
        )
        # The samples of a batch are joined by the processor, in `_forward`: transformers cannot pad frames
        return {"sample": inputs.to(self.dtype).data}

    def question_of(self, sample: dict) -> str | None:
        return None

    def _forward(self, model_inputs: dict, return_all: bool = False, **generate_kwargs) -> dict:
        samples = model_inputs["sample"]
        inputs = self.processor.pad(samples if isinstance(samples, list) else [samples])
        if return_all:
            defaults = generate_kwargs.get("generation_config") or self.model.generation_config
            num_beams = generate_kwargs.get("num_beams", defaults.num_beams)
            if "num_beams" not in generate_kwargs and not generate_kwargs.get("do_sample", defaults.do_sample):
                num_beams = generate_kwargs["num_beams"] = max(num_beams or 1, SCORED_BEAMS)
            generate_kwargs.setdefault("num_return_sequences", num_beams or 1)
            generate_kwargs.update(output_scores=True, output_logits=True)
        outputs = self.model.generate(**inputs, **generate_kwargs, return_dict_in_generate=True)
        batch_size = next(len(inputs[name]) for name in MASKS if name in inputs)
        scores = self.sequence_scores(outputs).view(batch_size, -1) if return_all else None
        return {
            "sequences": outputs.sequences.view(batch_size, -1, outputs.sequences.shape[-1]),
            "scores": scores,
            "modalities": self.modalities_of(inputs, batch_size),
        }

    def sequence_scores(self, outputs: ModelOutput) -> torch.Tensor:
        """Sum of the log-probabilities of each text's words, (batch_size * num_return_sequences,)."""
        if getattr(outputs, "sequences_scores", None) is not None:
            return outputs.sequences_scores
        words = self.model.compute_transition_scores(outputs.sequences, outputs.logits, normalize_logits=True)
        padding = outputs.sequences[:, -words.shape[1] :] == self.processor.tokenizer.pad_token_id
        return words.masked_fill(padding, 0).sum(1)

    @staticmethod
    def modalities_of(inputs: dict, batch_size: int) -> list[str]:
        """ "av", "v" or "a" for each sample: what its text was made from."""
        names = [""] * batch_size
        for letter, (name, mask) in zip("va", MASKS.items(), strict=True):
            if name in inputs:
                present = inputs[mask].any(1).tolist() if mask in inputs else [True] * batch_size
                names = [letter * there + other for there, other in zip(present, names, strict=True)]
        return names

    def postprocess(self, model_outputs: dict) -> list[dict]:
        scores, modalities = model_outputs["scores"], model_outputs["modalities"]
        texts = self.processor.post_process_generation(model_outputs["sequences"][0])
        modalities = modalities[0] if isinstance(modalities, list) else modalities
        results = [{self.text_key: text, "modalities": modalities} for text in texts]
        if scores is not None:
            for result, score in zip(results, scores[0].tolist(), strict=True):
                result["score"] = score
            results.sort(key=lambda result: -result["score"])
        return results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Saves the model and the processor, so that `pipeline(task, model=save_directory)` loads them again."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


@add_end_docstrings(build_pipeline_init_args(has_processor=True))
class AudiovisualCaptioningPipeline(AudiovisualPipeline):
    """
    Describes videos, sounds, or videos with their sound, with a [`ValorForCaptioning`].

    ```python
    >>> captioner = pipeline("audiovisual-captioning", model="casia/valor-l")
    >>> captioner("clip.mp4")
    [{'generated_text': 'a man plays the guitar and sings', 'modalities': 'av'}]
    ```
    """

    model_names = ["ValorForCaptioning", "ValorForPreTraining"]

    def __call__(self, inputs: Any, **kwargs) -> list[dict] | list[list[dict]] | Iterator[list[dict]]:
        """
        Gives captions, in the order of the inputs.

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
            generate_kwargs (`dict`): arguments of `generate()`, which may also be given by themselves
                (`num_beams`, `max_new_tokens`, `do_sample`, ...).

        Returns:
            For one sample a list of dicts, one for each caption, with `generated_text`, `modalities` (`"av"`, `"v"` or
            `"a"`: what the caption was made from) and with `return_all` a `score`; for several samples a list of such
            lists, and for an iterator or a torch dataset an iterator over them.
        """
        return super().__call__(inputs, **kwargs)


@add_end_docstrings(build_pipeline_init_args(has_processor=True))
class AudiovisualQuestionAnsweringPipeline(AudiovisualPipeline):
    """
    Answers questions about videos and sounds in free words, with a [`ValorForQuestionAnswering`].

    ```python
    >>> answerer = pipeline("audiovisual-question-answering", model="casia/valor-l-msrvtt-qa")
    >>> answerer("clip.mp4", question="what does the man play?")
    [{'answer': 'guitar', 'modalities': 'av'}]
    ```
    """

    model_names = ["ValorForQuestionAnswering"]
    text_key = "answer"

    def __call__(
        self, inputs: Any, question: str | Iterable[str] | None = None, **kwargs
    ) -> list[dict] | list[list[dict]] | Iterator[list[dict]]:
        """
        Gives answers, in the order of the inputs.

        Args:
            inputs: as for [`AudiovisualCaptioningPipeline`]; the dict of a sample may hold its `"question"`.
            question (`str` or `list[str]`): one question for all samples, or one for each.
            kwargs: as for [`AudiovisualCaptioningPipeline`].

        Returns:
            As [`AudiovisualCaptioningPipeline`] does, with `answer` in place of `generated_text`.
        """
        if question is None:
            return super().__call__(inputs, **kwargs)
        if _is_sample(inputs):
            return super().__call__(_with_question(inputs, question), **kwargs)
        if hasattr(inputs, "__len__") and not isinstance(question, str) and len(question) != len(inputs):
            raise ValueError(
                f"There are {len(inputs)} samples, but {len(question)} questions. Ask one, or one for each."
            )
        if isinstance(question, str):
            asked = (_with_question(sample, question) for sample in inputs)
        else:
            asked = (_with_question(*pair) for pair in zip(inputs, question, strict=True))
        return super().__call__(list(asked) if hasattr(inputs, "__len__") else asked, **kwargs)

    def question_of(self, sample: dict) -> str:
        question = sample.get("question")
        if not isinstance(question, str):
            raise ValueError(
                f"The question of a sample must be a string, got {question!r}. Pass `question=...`, or a dict with the "
                'keys "video" and "question".'
            )
        return question


def _is_sample(inputs: Any) -> bool:
    """Whether the inputs are a single sample, as opposed to a list, an iterator or a dataset."""
    single = (str, bytes, bytearray, os.PathLike, dict, np.ndarray, torch.Tensor)
    return isinstance(inputs, single) or not isinstance(inputs, Iterable) or hasattr(inputs, "read")


def _is_dict_of_parts(sample: Any) -> bool:
    """Whether a sample names its parts; other dicts are encoded entries of `datasets`."""
    return isinstance(sample, dict) and not sample.keys().isdisjoint(("video", "audio", "question"))


def _with_question(sample: Any, question: str) -> dict:
    return {**(sample if _is_dict_of_parts(sample) else {"video": sample}), "question": question}


def _batch_of_one(part: Any) -> list | None:
    return None if part is None else [part]


__all__ = ["AudiovisualCaptioningPipeline", "AudiovisualQuestionAnsweringPipeline"]
