# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What is searched for: the tokens of a text, of frames or of sound, and the words that they are of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from ..alignment import TokenSet
from ..modeling_valor import ValorModel
from ..processing_valor import ValorProcessor, ValorProcessorKwargs
from ..text_cleaning import clean_caption


logger = logging.get_logger(__name__)

MAX_LENGTH: int = cast(Any, ValorProcessorKwargs)._defaults["text_kwargs"]["max_length"]
"""Tokens that a query is cut to, as all text is."""

# Of an approximate index, which takes some milliseconds for each vector; benchmarks/search.py has the curve
HEAVY_WORDS = 4  # tokens of a query that look for rows
HEAVY_ROWS = 1000  # rows that each of them looks for

STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "i",
        "me",
        "my",
        "we",
        "us",
        "our",
        "you",
        "your",
        "he",
        "him",
        "his",
        "she",
        "her",
        "it",
        "its",
        "they",
        "them",
        "their",
        "what",
        "which",
        "who",
        "whom",
        "whose",
        "is",
        "am",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "have",
        "has",
        "had",
        "having",
        "do",
        "does",
        "did",
        "doing",
        "will",
        "would",
        "shall",
        "should",
        "can",
        "could",
        "may",
        "might",
        "must",
        "and",
        "or",
        "nor",
        "but",
        "if",
        "then",
        "than",
        "so",
        "as",
        "of",
        "at",
        "by",
        "for",
        "with",
        "about",
        "from",
        "to",
        "in",
        "on",
        "there",
        "here",
        "not",
        "no",
        "yes",
    ]
)
"""English words of grammar; a query of nothing else says nothing that is seen or heard."""


@dataclass(frozen=True)
class Query:
    """One query of L tokens.

    Args:
        modality: "text", "video" or "audio".
        tokens: (1, L, C) with weights, float32, on the CPU. Only padding that takes part in maxima is masked.
        words: the words of a text, each with the places of its tokens.
    """

    modality: str
    tokens: TokenSet
    words: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def mask(self) -> Tensor:
        """(L,) bool."""
        embeds = self.tokens.embeds[0]
        return torch.ones(len(embeds), dtype=torch.bool) if self.tokens.mask is None else self.tokens.mask[0]

    @property
    def vectors(self) -> np.ndarray:
        """The valid tokens, (<= L, C)."""
        return self.tokens.embeds[0][self.mask].numpy()

    def weights(self, uniform: bool) -> np.ndarray:
        """Weights of the valid tokens (eq. 3), which sum to 1."""
        logits = self.tokens.weight_logits
        if uniform or logits is None:
            return np.full(len(self.vectors), 1 / len(self.vectors))
        return logits[0][self.mask].double().softmax(0).numpy()

    def heaviest(self, uniform: bool) -> np.ndarray:
        """The valid tokens of the greatest weights, (<= HEAVY_WORDS, C): those that look for rows in an approximate index."""
        return self.vectors[np.argsort(-self.weights(uniform), kind="stable")[:HEAVY_WORDS]]


def text_queries(valor: ValorModel, processor: ValorProcessor, texts: Sequence[str]) -> list[Query]:
    """Queries of texts. They are embedded together, but each as if it were alone.

    Raises:
        ValueError: a text has no word that says something, or none that the checkpoint knows.
    """
    words = [find_words(processor, text) for text in texts]
    inputs = {name: value.to(valor.device) for name, value in processor(text=list(texts), return_tensors="pt").items()}
    with torch.no_grad():
        embedded = valor.embed_texts(inputs)
        logits = valor.text_token_weight(embedded["text_embeds"])
    lengths = embedded["attention_mask"].sum(dim=1).tolist()
    zero_padding = valor.config.padded_similarity == "zero"
    queries = []
    for text_words, embeds, weights, length in zip(words, embedded["text_embeds"], logits, lengths, strict=True):
        tokens = token_set(embeds[:length], weights[:length], zero_padding and length < MAX_LENGTH)
        queries.append(Query("text", tokens, text_words))
    return queries


def media_query(modality: str, embeds: Tensor, weight_logits: Tensor) -> Query:
    """A query of frames ("video") or of sound ("audio"), (L, C), with their weight logits, (L,)."""
    return Query(modality, token_set(embeds, weight_logits))


def token_set(embeds: Tensor, weight_logits: Tensor, zero_padding: bool = False) -> TokenSet:
    """Tokens of one query. With `zero_padding` a masked token follows, as in 2023, when texts were padded to one length."""
    embeds, weight_logits = embeds.float().cpu(), weight_logits.float().cpu()
    mask = torch.ones(len(embeds), dtype=torch.bool)
    if zero_padding:
        embeds = torch.nn.functional.pad(embeds, (0, 0, 0, 1))
        weight_logits, mask = (torch.nn.functional.pad(values, (0, 1)) for values in (weight_logits, mask))
    return TokenSet(embeds[None], mask[None], weight_logits[None], zero_padding)


def find_words(processor: ValorProcessor, text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The words of a text as the checkpoint reads it, each with the places of its tokens among those of the text.

    Raises:
        ValueError: there is no word that says something, or none that the checkpoint knows.
    """
    tokenizer = processor.tokenizer
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"The query {text!r} has no words: write what is seen or heard.")
    read = clean_caption(text) if processor.clean_text else text
    encoded = tokenizer([read], return_offsets_mapping=True, truncation=True, max_length=MAX_LENGTH)
    places: dict[int, list[int]] = {}
    for place, word in enumerate(encoded.word_ids(0)):
        if word is not None:
            places.setdefault(word, []).append(place)
    offsets, ids = encoded["offset_mapping"][0], encoded["input_ids"][0]
    words: list[tuple[str, tuple[int, ...]]] = []
    unknown: list[tuple[str, tuple[int, ...]]] = []
    for own in places.values():
        word = read[offsets[own[0]][0] : offsets[own[-1]][1]]
        if not any(letter.isalnum() for letter in word):
            continue
        is_unknown = all(ids[place] == tokenizer.unk_token_id for place in own)
        (unknown if is_unknown else words).append((word, tuple(own)))
    _check_words(text, [word for word, _ in words], [word for word, _ in unknown])
    return tuple(words)


def _check_words(text: str, known: Sequence[str], unknown: Sequence[str]) -> None:
    listed = ", ".join(map(repr, unknown))
    if not known and not unknown:
        raise ValueError(f"The query {text!r} has no words: write what is seen or heard.")
    if all(word.lower() in STOP_WORDS for word in known):
        if unknown:
            raise ValueError(
                f"The checkpoint does not know {listed} of the query {text!r}, and the other words say nothing that is seen or "
                "heard: use other words."
                if known
                else f"The checkpoint knows no word of the query {text!r}: use other words."
            )
        raise ValueError(
            f"The query {text!r} has only words which say nothing that is seen or heard: name a thing, an action or a sound."
        )
    if unknown:
        logger.warning(
            f"The checkpoint does not know {listed} of the query {text!r}; the other words are searched for."
        )
