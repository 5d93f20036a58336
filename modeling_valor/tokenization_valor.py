# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The tokenizer of a checkpoint, and the task prompts as its ids."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase


TASK_PROMPTS = {
    "retrieval_prompt_ids": "project language in common space",
    "caption_prompt_ids": "describe the video with natural language",
    "question_prompt_ids": "answer the question",
}
"""Prompts of the released VALOR-large by the fields of the configuration that hold their ids."""

BERT_BASE_UNCASED_PROMPTS = {
    "retrieval_prompt_ids": [101, 2622, 2653, 1999, 2691, 2686, 102],
    "caption_prompt_ids": [101, 6235, 1996, 2678, 2007, 3019, 2653, 102],
    "question_prompt_ids": [3437, 1996, 3160],
}


def load_tokenizer(name: str | os.PathLike[str], **kwargs: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub name, never the empty one that transformers makes where its files are missing.

    Raises:
        OSError: there is no tokenizer, or one without any words.
    """
    try:
        tokenizer, cause = AutoTokenizer.from_pretrained(name, **kwargs), None
    except ValueError as error:
        tokenizer, cause = None, error
    return require_words(tokenizer, name, cause)


def require_words(
    tokenizer: PreTrainedTokenizerBase | None, name: str | os.PathLike[str], cause: Exception | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of `name` again; an `OSError` where there is none, or one without any words."""
    if tokenizer is None or set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise OSError(
            f"{name} has no tokenizer: add the `tokenizer.json` and `tokenizer_config.json`, or the `vocab.txt`, that the "
            "model was trained with (for the released checkpoints those of bert-base-uncased; `valor convert --vocab` "
            "writes them)."
        ) from cause
    return tokenizer


class ValorTokenizer(BertTokenizer):
    """What AutoTokenizer loads of a folder that does not name its tokenizer: BERT's, which must have words."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> PreTrainedTokenizerBase:
        tokenizer = BertTokenizer.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return require_words(tokenizer, pretrained_model_name_or_path)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The fields of `ValorTextConfig` that say which ids stand for [PAD], [CLS], [SEP] and [MASK].

    Raises:
        ValueError: the tokenizer lacks one of them.
    """
    tokens = {"pad": "pad", "bos": "cls", "eos": "sep", "mask": "mask"}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{token}_token_id") for name, token in tokens.items()}
    if missing := [tokens[name.removesuffix("_token_id")] for name, token_id in ids.items() if token_id is None]:
        raise ValueError(
            f"The tokenizer has no {' and no '.join(missing)} token; one of the kind of BERT's is needed."
        )
    return ids


def encode_prompts(prompts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Ids of task prompts, with [CLS] and [SEP] except for the question's, which is put into a question."""
    return {
        name: tokenizer.encode(prompt, add_special_tokens=name != "question_prompt_ids")
        for name, prompt in prompts.items()
    }


def translate_prompts(
    prompt_ids: Mapping[str, Sequence[int] | None],
    tokenizer: PreTrainedTokenizerBase,
    previous: PreTrainedTokenizerBase | None = None,
) -> dict[str, list[int] | None]:
    """The same prompts in the ids of another tokenizer.

    Args:
        prompt_ids: ids, or `None`, by the fields of the configuration.
        previous: the tokenizer that the ids are of. Without it the released prompts are recognised in the ids of
            bert-base-uncased, and others are taken for ids of `tokenizer`.

    Raises:
        ValueError: `tokenizer` has no such ids.
    """
    translated: dict[str, Any] = {}
    for name, ids in prompt_ids.items():
        if ids is None or (previous is not None and previous.get_vocab() == tokenizer.get_vocab()):
            translated[name] = ids
        elif previous is not None:
            translated |= encode_prompts({name: str(previous.decode(list(ids), skip_special_tokens=True))}, tokenizer)
        elif list(ids) == BERT_BASE_UNCASED_PROMPTS.get(name):
            translated |= encode_prompts({name: TASK_PROMPTS[name]}, tokenizer)
        elif max(ids) < len(tokenizer):
            translated[name] = ids
        else:
            raise ValueError(
                f"`{name}` has the id {max(ids)}, but the tokenizer has {len(tokenizer)} words: give the prompt's ids anew."
            )
    return translated


__all__ = [
    "BERT_BASE_UNCASED_PROMPTS",
    "TASK_PROMPTS",
    "ValorTokenizer",
    "encode_prompts",
    "load_tokenizer",
    "require_words",
    "special_token_ids",
    "translate_prompts",
]
