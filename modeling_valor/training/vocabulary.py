# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A WordPiece vocabulary of one's own, for small models and other languages."""

from collections.abc import Iterable

from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer


SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first ids of the vocabulary, in this order: padding is id 0, as everywhere in VALOR."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int = 512) -> BertTokenizer:
    """A lower-casing BERT tokenizer whose word pieces are learned from `texts`.

    The same texts in any order give the same vocabulary.

    Args:
        vocab_size: the most that the vocabulary may hold, special tokens and single characters included; it holds less
            where the texts have fewer words.

    Raises:
        ValueError: the vocabulary cannot hold even the special tokens.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(f"`vocab_size` must be above {len(SPECIAL_TOKENS)}, the special tokens, got {vocab_size}.")
    texts = list(texts)
    trained = BertWordPieceTokenizer(lowercase=True)
    # The library numbers these pieces by a hash that changes from call to call, and decides by number between pieces that
    # are equally frequent. It keeps the numbers of what it is given beforehand.
    words = {
        word
        for text in texts
        for word, _ in trained.pre_tokenizer.pre_tokenize_str(trained.normalizer.normalize_str(text))
    }
    inner_letters = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trained.train_from_iterator(
        texts,
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=[*SPECIAL_TOKENS, *inner_letters],
        show_progress=False,
    )
    return BertTokenizer(trained.get_vocab(), do_lower_case=True, model_max_length=model_max_length)
