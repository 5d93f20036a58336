# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The model at work for many requests: media are read by several threads, the model is used by one, in batches."""

import asyncio
import copy
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from ..configuration_valor import GROUP_OF_LETTERS, MEDIA
from ..media import NoVideoError
from ..modeling_valor_base import to_device
from ..modeling_valor_heads import ValorForCaptioning
from ..processing_valor import ValorProcessor
from .batching import BatchQueue
from .errors import RequestError, client_errors, logger
from .settings import ServerSettings
from .sources import Content, MediaRules
from .streaming import RowStreamer


if TYPE_CHECKING:
    from ..search import Hit, ValorIndex

Inputs = dict[str, Tensor]

LONGEST_TEXT = 10_000
"""Letters of a text, at most: a much longer one would keep the model waiting, as the time to split it grows with it."""


@dataclass(frozen=True)
class TokenVectors:
    """A text, or a video with its sound, in the common space.

    Args:
        embeds: (N, C) float32, L2-normalised.
        weights: (N,), of eq. 3; they sum to 1.
        modalities: N letters, "t", "v" or "a".
    """

    embeds: Tensor
    weights: Tensor
    modalities: str

    @property
    def pooled(self) -> Tensor:
        """(C,): the mean with the weights, L2-normalised."""
        return torch.nn.functional.normalize(self.weights @ self.embeds, dim=0)


@dataclass(eq=False)
class Generation:
    """A text to write.

    Args:
        inputs: what the processor returns for one sample, and its question.
        streamer: takes the ids while they are written.
        abandoned: nobody waits for it any more.
    """

    inputs: Inputs
    streamer: Any = None
    abandoned: threading.Event = field(default_factory=threading.Event)


class Engine:
    """A checkpoint, and an index, that answer requests.

    Every row of a batch is what it would be alone, so requests are free to share one.

    Args:
        name: what clients call the model.
        model: writes texts, and embeds; on its device, in evaluation mode.
        index: is searched, with the same model.
    """

    def __init__(
        self,
        name: str,
        model: ValorForCaptioning,
        processor: ValorProcessor,
        settings: ServerSettings,
        index: "ValorIndex | None" = None,
    ):
        self.name, self.model, self.settings, self.index = name, model, settings, index
        self.rules = MediaRules(settings)
        self._index_fault: str | None = None  # why the index could not be searched the last time
        processor.media_limits = {"public_only": True, "private_hosts": list(settings.allow_hosts)} | {
            limit: getattr(self.rules.limits, limit) for limit in ("timeout", "max_bytes", "max_seconds")
        }
        self._processor, self._own = copy.deepcopy(processor), threading.local()  # the one given is the index's
        self._copying = threading.Lock()
        self.readers = BatchQueue("valor-reader", threads=settings.readers)
        self.queue = BatchQueue("valor-model", max_batch=settings.max_batch, max_wait=settings.max_wait_ms / 1000)

    @property
    def processor(self) -> ValorProcessor:
        """The processor of this thread: a tokenizer is changed by each call, so no two threads may share one."""
        own: ValorProcessor | None = getattr(self._own, "processor", None)
        if own is None:
            with self._copying:
                own = self._own.processor = copy.deepcopy(self._processor)
        return own

    def stop(self) -> None:
        """Ends the threads; what waits is cancelled."""
        self.readers.stop()
        self.queue.stop()

    # --- Reading ------------------------------------------------------------------------------------------------------

    async def read(
        self,
        prepare: Callable[..., Mapping[str, Any]],
        content: Content,
        options: Mapping[str, Any],
        param: str,
    ) -> Inputs:
        """What `prepare` makes of media, in a thread of the readers.

        Args:
            prepare: called with a processor and options of it.
            content: the media that it reads.
            options: of the processor, as the request gives them.
            param: the field of the request.

        Raises:
            RequestError: 400, they cannot be read, or are not what their parts say.
        """
        modalities = options.get("modalities", "av")
        options = {**options, "load_audio_from_video": not content.is_image}

        def run(items: list[Callable[..., Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
            return [item(self.processor, options) for item in items]

        with client_errors(param):
            try:
                prepared = await self.readers.call("read", run, prepare)
            except NoVideoError:
                content.check(modalities, False, True, param)
                raise
            has_frames, has_sound = (modality.input in prepared for modality in MEDIA)
            content.check(modalities, has_frames, has_sound, param)
        return {name: value for name, value in prepared.items() if isinstance(value, Tensor)}

    async def read_media(self, content: Content, options: Mapping[str, Any], param: str) -> Inputs:
        """The inputs of one sample."""
        media = {"videos": content.video, "audio": content.audio}
        given = {name: [source] for name, source in media.items() if source is not None}

        def prepare(processor: ValorProcessor, options: Mapping[str, Any]) -> Mapping[str, Any]:
            return processor(**given, **options, return_tensors="pt")

        return await self.read(prepare, content, options, param)

    def check_length(self, text: str, param: str, truncate: bool = False) -> int:
        """The number of tokens of a text, which is cut only on request.

        Raises:
            RequestError: 400, it has no words, or too many.
        """
        if not text.strip():
            raise RequestError(400, f"`{param}` has an empty text.", param)
        if len(text) > LONGEST_TEXT:
            raise RequestError(
                400, f"`{param}` has a text of {len(text):,} letters; at most {LONGEST_TEXT:,} are accepted.", param
            )
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # which JSON can write, and no encoding
            raise RequestError(400, f"`{param}` has a text with half of a surrogate pair.", param)
        most = self.max_length
        count = self._count(text)
        if count > most and not truncate:
            raise RequestError(
                400,
                f"`{param}` has a text of {count} tokens, and the model reads {most}: shorten it"
                f"{', or give `truncate: true`' if param != 'messages' else ''}.",
                param,
            )
        return min(count, most)

    @property
    def max_length(self) -> int:
        """Tokens of a text or question, at most."""
        return cast(int, self.processor.valid_processor_kwargs._defaults["text_kwargs"]["max_length"])

    def _count(self, text: str) -> int:
        return len(self.processor(text=text, truncation=False, padding=False)["input_ids"][0])

    # --- Writing ------------------------------------------------------------------------------------------------------

    async def generate(
        self, inputs: Inputs, config: GenerationConfig, seed: int | None, streamer: Any = None
    ) -> Tensor:
        """The ids (length,) that are written about one sample, up to [SEP].

        Args:
            inputs: of the sample, and its question.
            config: what is equal in it may be written in one batch.
            seed: for what is drawn at random; with one, a text is written by itself.
            streamer: takes the ids while they are written.
        """
        job = Generation(inputs, streamer)
        alone = None if seed is None else object()
        has_question, is_streamed = "question_input_ids" in inputs, streamer is not None
        key = ("generate", config.to_json_string(use_diff=False), has_question, is_streamed, alone)
        try:
            # A text that is streamed cannot be begun again
            return await self.queue.call(key, partial(self._generate, config, seed), job, retry=not is_streamed)
        except asyncio.CancelledError:
            job.abandoned.set()
            raise

    def _generate(self, config: GenerationConfig, seed: int | None, jobs: Sequence[Generation]) -> list[Tensor]:
        if seed is not None:
            torch.manual_seed(seed)
        inputs = self._batch([job.inputs for job in jobs])
        end = self.processor.tokenizer.sep_token_id
        streamer = None
        if jobs[0].streamer is not None and (config.num_beams or 1) == 1:
            streamer = RowStreamer([job.streamer for job in jobs], end)
        begin = torch.full((len(jobs), 1), self.processor.tokenizer.cls_token_id, device=self.model.device)
        ids = self.model.generate(
            input_ids=begin,
            **cast(dict[str, Any], inputs),
            generation_config=copy.deepcopy(config),
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([_Abandoned(jobs, streamer)]),
        )
        rows = [_up_to(row[1:], end) for row in cast(Tensor, ids).cpu()]
        if streamer is None:
            for job, row in zip(jobs, rows, strict=True):
                if job.streamer is not None:  # beams are known at the end only
                    whole = RowStreamer([job.streamer], end)
                    for ids in (begin[:1].cpu(), *row[:, None]):
                        whole.put(ids)
                    whole.end()
        return rows

    # --- Embedding and comparing --------------------------------------------------------------------------------------

    async def embed_text(self, text: str) -> TokenVectors:
        """The tokens of a text."""
        return await self.queue.call("texts", self._embed_texts, text)

    async def embed_media(self, inputs: Inputs) -> TokenVectors:
        """The tokens of one sample."""
        return await self.queue.call("media", self._embed_media, inputs)

    async def score(self, texts: Sequence[str], media: Sequence[Inputs], modalities: str) -> Tensor:
        """S of eq. 3, (texts, media); `-inf` for media without these modalities."""
        run = partial(self._score, modalities)
        return await self.queue.call(object(), run, (list(texts), list(media)))

    @torch.no_grad()
    def _embed_texts(self, texts: Sequence[str]) -> list[TokenVectors]:
        valor = self.model.valor
        embedded = valor.embed_texts(self._to_device(self.processor(text=list(texts), return_tensors="pt")))
        return self._token_vectors({"text": (embedded["text_embeds"], embedded["attention_mask"].bool())})

    @torch.no_grad()
    def _embed_media(self, media: Sequence[Inputs]) -> list[TokenVectors]:
        valor, inputs = self.model.valor, self._batch(media)
        embedded = valor.embed_media(inputs)
        found = {}
        for modality in MEDIA:
            embeds = embedded.get(f"{modality.name}_embeds")
            if embeds is None:
                continue
            mask = embedded.get(modality.mask)
            if mask is None:
                mask = torch.ones(inputs[modality.input].shape[:2], dtype=torch.bool, device=embeds.device)
            mask = cast(Tensor, valor.encoded_frame_mask(mask)) if modality.letter == "v" else mask
            found[modality.name] = (embeds, mask.bool())
        return self._token_vectors(found)

    def _token_vectors(self, modalities: Mapping[str, tuple[Tensor, Tensor]]) -> list[TokenVectors]:
        """Of each row of a batch the tokens that are there, with their weights."""
        is_fine = self.model.config.alignment == "fine"
        parts = []
        for name, (embeds, mask) in modalities.items():
            if not is_fine:  # one vector for all tokens
                embeds, mask = embeds[:, None], mask.any(dim=1, keepdim=True)
            logits = getattr(self.model.valor, f"{name}_token_weight")(embeds) if is_fine else embeds[..., 0] * 0
            parts.append((name[0], embeds.float().cpu(), logits.float().cpu(), mask.cpu()))
        rows = []
        for row in range(len(parts[0][1])):
            kept = [(letter, embeds[row][mask[row]], logits[row][mask[row]]) for letter, embeds, logits, mask in parts]
            weights = torch.cat([logits for _, _, logits in kept]).softmax(dim=0)
            letters = "".join(letter * len(embeds) for letter, embeds, _ in kept)
            rows.append(TokenVectors(torch.cat([embeds for _, embeds, _ in kept]), weights, letters))
        return rows

    @torch.no_grad()
    def _score(self, modalities: str, pairs: Sequence[tuple[list[str], list[Inputs]]]) -> list[Tensor]:
        scores = []
        for texts, media in pairs:
            embedded = self.model.valor.embed_texts(self._to_device(self.processor(text=texts, return_tensors="pt")))
            parts = []
            for start in range(0, len(media), self.settings.max_batch):
                given = self.model.valor.embed_media(self._batch(media[start : start + self.settings.max_batch]))
                group = GROUP_OF_LETTERS[modalities]
                parts.append(self.model.valor.compute_similarity(**embedded, **given, group=group).float().cpu())
            scores.append(torch.cat(parts, dim=1))
        return scores

    def _batch(self, rows: Iterable[Inputs]) -> Inputs:
        return self._to_device(self.processor.pad([{**row} for row in rows]))

    def _to_device(self, inputs: Mapping[str, Any]) -> Inputs:
        return to_device(inputs, self.model.device, self.model.dtype)

    # --- Searching ----------------------------------------------------------------------------------------------------

    async def search(self, query: "str | Inputs", **options: Any) -> "list[Hit]":
        """The hits of [`ValorIndex.search`] for a text, or for media as the processor returns them.

        Raises:
            RequestError: 400, what the search refuses; 503, the index was deleted, damaged or replaced while the server runs.
        """
        from ..search import UnusableIndexError

        index = cast("ValorIndex", self.index)
        with client_errors():
            try:
                if isinstance(query, str):
                    key = ("search", *sorted(options.items()))
                    hits: list[Hit] = await self.queue.call(key, lambda texts: index.search(texts, **options), query)
                else:
                    hits = await self.queue.call(
                        object(), lambda media: [index.search(media=one, **options) for one in media], query
                    )
            except UnusableIndexError as error:
                if str(error) != self._index_fault:  # once, not for each request
                    logger.error("%s", error)
                self._index_fault = str(error)
                raise RequestError(
                    503, "The index of this server cannot be searched now; its log says why.", code="index_unusable"
                ) from error
        self._index_fault = None
        return hits


class _Abandoned(StoppingCriteria):
    """Stops writing once nobody waits for any row."""

    def __init__(self, jobs: Sequence[Generation], streamer: RowStreamer | None):
        self.jobs, self.streamer = jobs, streamer

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        gone = all(job.abandoned.is_set() for job in self.jobs)
        gone = gone or (self.streamer is not None and not self.streamer.is_heard)
        return torch.full((len(input_ids),), gone, dtype=torch.bool, device=input_ids.device)


def _up_to(ids: Tensor, end: int) -> Tensor:
    """Ids (length,) up to and with the first `end`."""
    places = (ids == end).nonzero()
    return ids[: int(places[0]) + 1] if len(places) else ids
