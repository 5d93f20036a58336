# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A WordPiece vocabulary of one's own, for small models and other languages."""

from collections.abc import Iterable

from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer


SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first ids of the vocabulary, in this order: padding is id 0, as everywhere in VALOR."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int = 512) -> BertTokenizer:
    """A lower-casing BERT tokenizer whose word pieces are learned from `texts`.

    Ids, and among equally frequent pieces the choice, differ from call to call, as the `tokenizers` library trains: save
    the tokenizer beside the model, and do not train it again for the same model.

    Args:
        vocab_size: the most that the vocabulary may hold, special tokens and single characters included; it holds less
            where the texts have fewer words.

    Raises:
        ValueError: the vocabulary cannot hold even the special tokens.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(f"`vocab_size` must be above {len(SPECIAL_TOKENS)}, the special tokens, got {vocab_size}.")
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(
        texts, vocab_size=vocab_size, min_frequency=1, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    return BertTokenizer(trained.get_vocab(), do_lower_case=True, model_max_length=model_max_length)
