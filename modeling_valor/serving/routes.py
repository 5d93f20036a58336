# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The endpoints that transformers' server has not: embeddings, search and reranking."""

import asyncio
import base64
from typing import Any, Literal, cast

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..search.postgres_condition import condition_sql
from .engine import Engine, Inputs, TokenVectors
from .errors import RequestError, client_errors
from .options import check_media_options, check_model
from .service import Service
from .sources import Content


Modalities = Literal["av", "v", "a"]


class _Request(BaseModel):
    """What requests have in common; a field that is not known is refused, as it would have no effect."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    user: str | None = None
    modalities: Modalities = "av"
    num_frames: int | None = None
    num_audio_clips: int | None = None
    truncate: bool = False

    def media_options(self, engine: Engine) -> dict[str, Any]:
        """The options of the processor."""
        check_model(self.model, engine.name)
        names = ("modalities", "num_frames", "num_audio_clips")
        return check_media_options({name: getattr(self, name) for name in names}, engine.model.config, "body")


class EmbeddingsRequest(_Request):
    """`/v1/embeddings`.

    Args:
        input: a text, a content part with media, or a list of these; a list inside the list is the parts of one sample.
        encoding_format: numbers, or base64 of their float32 (little-endian).
        dimensions: that of the model, if it is given.
        return_multivector: every token with its weight, and not their mean.
    """

    input: Any
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    return_multivector: bool = False


class SearchRequest(_Request):
    """`/v1/search`.

    Args:
        query: a text, a content part with media, or a list of these, each of which is searched for.
        top_k: hits of each query.
        where: a condition on source, start, end and metadata, as of `valor search --where`.
        exact: compare all rows of a large index.
    """

    query: Any
    top_k: int = Field(default=10, ge=1, le=1000)
    where: str | None = Field(default=None, max_length=2000)
    exact: bool = False


class RerankRequest(_Request):
    """`/v1/rerank`.

    Args:
        query: a text, or a content part with media.
        documents: media, or texts if the query is media.
        top_n: number of results, by default all.
        return_documents: repeat the texts of documents.
    """

    query: Any
    documents: list[Any] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


def make_router(service: Service) -> APIRouter:
    """The endpoints, for the engine of a service."""
    router = APIRouter(prefix="/v1")

    @router.post("/embeddings")
    async def embeddings(request: EmbeddingsRequest) -> dict[str, Any]:
        return await embed(service.engine, request)

    @router.post("/search")
    async def search_index(request: SearchRequest) -> dict[str, Any]:
        return await search(service.engine, request)

    @router.post("/rerank")
    async def rerank_documents(request: RerankRequest) -> dict[str, Any]:
        return await rerank(service.engine, request)

    return router


# --- Embeddings -------------------------------------------------------------------------------------------------------


async def embed(engine: Engine, request: EmbeddingsRequest) -> dict[str, Any]:
    """The vectors of texts and media."""
    options = request.media_options(engine)
    size = engine.model.config.projection_dim
    if request.dimensions not in (None, size):
        raise RequestError(400, f"`dimensions` is {request.dimensions}; this model has {size}.", "dimensions")
    contents = _read_contents(engine, request.input, "input")
    counts = [engine.check_length(one.text, "input", request.truncate) for one in contents if one.text is not None]

    async def vectors(content: Content) -> TokenVectors:
        if content.text is not None:
            return await engine.embed_text(content.text)
        return await engine.embed_media(await engine.read_media(content, options, "input"))

    found = await _gather(*(vectors(content) for content in contents))
    encode = _as_base64 if request.encoding_format == "base64" else _as_list
    data = [
        {"object": "embedding", "index": index, **_entry(tokens, request, encode)}
        for index, tokens in enumerate(found)
    ]
    usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    return {"object": "list", "data": data, "model": engine.name, "usage": usage}


def _entry(tokens: TokenVectors, request: EmbeddingsRequest, encode: Any) -> dict[str, Any]:
    if not request.return_multivector:
        return {"embedding": encode(tokens.pooled)}
    return {
        "embeddings": [encode(row) for row in tokens.embeds],
        "weights": tokens.weights.tolist(),
        "modalities": tokens.modalities,
    }


def _as_list(vector: Tensor) -> list[float]:
    return cast(list[float], vector.tolist())


def _as_base64(vector: Tensor) -> str:
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()


# --- Search -----------------------------------------------------------------------------------------------------------


async def search(engine: Engine, request: SearchRequest) -> dict[str, Any]:
    """The hits of queries in the index, each as `valor search --json` prints it."""
    check_model(request.model, engine.name)
    if engine.index is None:
        raise RequestError(404, "This server has no index to search: start it with --index PATH.", code="no_index")
    if request.where is not None:
        with client_errors("where"):  # stricter than LanceDB, whose functions could cost a stranger's server much
            try:
                condition_sql(request.where)
            except ValueError as error:
                raise ValueError(f"`where` is no condition that is accepted here: {error}.") from error
    options = {
        "top": request.top_k,
        "modalities": request.modalities,
        "where": request.where,
        "exact": request.exact,
    }
    media_options = request.media_options(engine) | {"modalities": "av"}  # those of what is found
    contents = _read_contents(engine, request.query, "query")
    for content in contents:
        if content.text is not None:
            engine.check_length(content.text, "query", request.truncate)

    async def hits(content: Content) -> list[dict[str, Any]]:
        query = content.text
        if query is None:
            return [
                hit.as_dict()
                for hit in await engine.search(await engine.read_media(content, media_options, "query"), **options)
            ]
        return [hit.as_dict() for hit in await engine.search(query, **options)]

    found = await _gather(*(hits(content) for content in contents))
    data = [
        {"object": "search.result", "index": index, "query": content.text, "hits": one}
        for index, (content, one) in enumerate(zip(contents, found, strict=True))
    ]
    return {"object": "list", "data": data, "model": engine.name}


# --- Reranking --------------------------------------------------------------------------------------------------------


async def rerank(engine: Engine, request: RerankRequest) -> dict[str, Any]:
    """The documents, most relevant first: S of eq. 3 of a text and media."""
    options = request.media_options(engine)
    query = engine.rules.read_content(request.query, "query")
    documents = [engine.rules.read_content(document, "documents") for document in request.documents]
    _check_count(engine, documents, "documents")
    if any(document.is_media == query.is_media for document in documents):
        raise RequestError(
            400, "A text is compared with media: give a text and media, or media and texts.", "documents"
        )
    texts = [one.text for one in (query, *documents) if one.text is not None]
    for text in texts:
        engine.check_length(text, "documents" if query.is_media else "query", request.truncate)
    media = [one for one in (query, *documents) if one.is_media]
    inputs: list[Inputs] = await _gather(*(engine.read_media(one, options, "documents") for one in media))
    scores = (await engine.score(texts, inputs, request.modalities)).flatten().tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n]
    results = [{"index": index, "relevance_score": scores[index]} for index in order]
    if request.return_documents:
        for result in results:
            result["document"] = {"text": documents[int(result["index"])].text}
    return {"object": "list", "results": results, "model": engine.name}


def _read_contents(engine: Engine, given: Any, param: str) -> list[Content]:
    """A text, a content part, or a list of these."""
    entries = given if isinstance(given, list) else [given]
    contents = [engine.rules.read_content(entry, param) for entry in entries]
    _check_count(engine, contents, param)
    return contents


def _check_count(engine: Engine, contents: list[Content], param: str) -> None:
    most = engine.settings.max_inputs
    if not 1 <= len(contents) <= most:
        raise RequestError(
            400, f"`{param}` has {len(contents)} entries; 1 to {most} are accepted in a request.", param
        )


async def _gather(*work: Any) -> list[Any]:
    """The results of all; where one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
