# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""VALOR in transformers' chat completions: media are read by the engine's threads, texts written in its batches."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from fastapi.responses import JSONResponse, StreamingResponse
from transformers import GenerationConfig
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.utils import BaseGenerateManager, DirectStreamer, _StreamError

from ..processing_valor import ValorProcessor
from .engine import Engine, Inputs
from .errors import INTERNAL, RequestError, logger
from .options import check_media_options, check_model, read_generation_config
from .service import Service
from .sources import Content


_ROLES = ("system", "developer", "user", "assistant")

_NO_MEDIA = 'There is nothing to describe: a message needs a part such as {"type": "video_url", "video_url": {"url": "https://..."}}.'

_NOT_FOLLOWED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "stop": ([],),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""Fields of a chat completion that VALOR cannot follow, and their values that ask for nothing."""


class ValorChatHandler(ChatCompletionHandler):
    """`/v1/chat/completions`: the answers, whole or streamed, are transformers'; reading and writing are the engine's."""

    def __init__(self, service: Service):
        super().__init__(model_manager=cast(Any, service), generation_state=cast(Any, service))
        self.service = service

    async def handle_request(self, body: dict[str, Any], request_id: str) -> StreamingResponse | JSONResponse:
        """Answers a request.

        Raises:
            RequestError: it cannot be answered, or not as it asks.
        """
        engine = self.service.engine
        self._validate_request(body)
        check_model(body.get("model"), engine.name)
        for name, harmless in _NOT_FOLLOWED.items():
            if body.get(name) is not None and body[name] not in harmless:
                advice = "give it in `chat_template_kwargs`" if name == "modalities" else "leave it out"
                raise RequestError(400, f"VALOR cannot follow `{name}`: {advice}.", name)
        config = read_generation_config(body, engine.model)
        inputs = await self._read(body, engine)
        manager = _Batched(engine, body.get("seed"))
        arguments = (request_id, engine.model, engine.processor, engine.name, cast(Any, inputs), config, manager)
        if body.get("stream"):
            return self._streaming(*arguments)
        return await self._non_streaming(*arguments)

    async def _read(self, body: Mapping[str, Any], engine: Engine) -> Inputs:
        """The inputs of `generate`: the media and the question of the messages."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RequestError(400, "`messages` must be a list of messages.", "messages")
        options = check_media_options(body.get("chat_template_kwargs"), engine.model.config, "chat_template_kwargs")
        chat = [self._read_message(message, engine) for message in messages]
        if not any(part["type"] != "text" for message in chat for part in message["content"]):
            raise RequestError(400, _NO_MEDIA, "messages")
        question = cast(str, engine.processor.apply_chat_template(chat))
        if question.strip():
            engine.check_length(question, "messages")
        kwargs: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}

        def prepare(processor: ValorProcessor, options: Mapping[str, Any]) -> Mapping[str, Any]:
            prepared = processor.apply_chat_template(chat, processor_kwargs=dict(options), **kwargs)
            return cast(Mapping[str, Any], prepared)

        return await engine.read(prepare, _newest_media(chat), options, "messages")

    @staticmethod
    def _read_message(message: Any, engine: Engine) -> dict[str, Any]:
        """A message as the processor takes it."""
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise RequestError(400, f"`messages`: a message has a `role`, one of {', '.join(_ROLES)}.", "messages")
        content = message.get("content") or []
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        parts = engine.rules.read_parts(content, "messages")
        return {
            "role": message["role"],
            "content": [{"type": kind, "text" if kind == "text" else "url": value} for kind, value in parts],
        }


def _newest_media(chat: list[dict[str, Any]]) -> Content:
    """The media that a chat is about: those of its newest message that has any."""
    for message in reversed(chat):
        media = {part["type"]: part["url"] for part in message["content"] if part["type"] != "text"}
        if media:
            return Content(
                video=media.get("video", media.get("image")), audio=media.get("audio"), is_image="image" in media
            )
    return Content()


class _Batched(BaseGenerateManager):
    """How transformers' server has a text written: here by the engine, together with others."""

    def __init__(self, engine: Engine, seed: int | None):
        self.engine, self.seed = engine, seed

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Inputs, gen_config: GenerationConfig, request_id: str
    ) -> tuple[str, int, list[int]]:
        ids = await self.engine.generate(_without_prompt(inputs), gen_config, self.seed)
        return processor.post_process_generation(ids)[0], inputs["input_ids"].shape[-1], ids.tolist()

    def generate_streaming(
        self,
        model: Any,
        processor: Any,
        inputs: Inputs,
        gen_config: GenerationConfig,
        request_id: str,
        response_parser: Any = None,
    ) -> tuple["asyncio.Queue[Any]", DirectStreamer]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        streamer = _Streamer(processor.tokenizer._tokenizer, asyncio.get_running_loop(), queue, response_parser)

        async def write() -> None:
            try:
                await self.engine.generate(_without_prompt(inputs), gen_config, self.seed, streamer)
            except Exception:
                logger.exception("A streamed text could not be written.")
                queue.put_nowait(_StreamError(INTERNAL.message))

        streamer.task = asyncio.get_running_loop().create_task(write())
        return queue, streamer

    def stop(self) -> None:
        """The engine is stopped by itself."""


class _Streamer(DirectStreamer):
    """A streamer that ends the writing of its text, even before it has begun, once its client has gone."""

    task: "asyncio.Task[None] | None" = None

    def cancel(self) -> None:
        super().cancel()
        if self.task is not None:
            self.task.cancel()


def _without_prompt(inputs: Inputs) -> Inputs:
    """The inputs without the [CLS] that a text begins with, which the engine gives to each row of a batch."""
    return {name: value for name, value in inputs.items() if name != "input_ids"}
