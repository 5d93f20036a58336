# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""One checkpoint for all heads: none of them loses what another needs."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from transformers import GenerationConfig

from helpers.tiny import tiny_batch, tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorModel,
)
from modeling_valor.modeling_valor_heads import HEADS, as_head


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model(ValorForCaptioning).save_pretrained(folder)
    GenerationConfig(max_new_tokens=7, num_beams=3).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("cls", HEADS.values())
def test_what_a_head_saves_is_the_checkpoint_that_it_was_loaded_from(checkpoint, cls, tmp_path):
    model, info = cls.from_pretrained(checkpoint, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    model.save_pretrained(tmp_path)
    saved, expected = load_file(tmp_path / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert saved.keys() == expected.keys() and all(torch.equal(saved[name], expected[name]) for name in expected)
    options = ValorForCaptioning.from_pretrained(tmp_path).generation_config
    assert (options.max_new_tokens, options.num_beams) == (7, 3)


def test_retrieval_makes_no_decoder_head_up(checkpoint, tmp_path):
    """A checkpoint that never had one is known by that, also after a retrieval model has saved it."""
    base, retrieval = tmp_path / "base", tmp_path / "retrieval"
    ValorModel.from_pretrained(checkpoint).save_pretrained(base)
    model, info = ValorForRetrieval.from_pretrained(base, output_loading_info=True)
    assert not info["missing_keys"]
    expected = ValorForRetrieval.from_pretrained(checkpoint)(**tiny_batch()).similarity["t-av"]
    torch.testing.assert_close(model(**tiny_batch()).similarity["t-av"], expected)
    model.save_pretrained(retrieval)
    _, info = ValorForCaptioning.from_pretrained(retrieval, output_loading_info=True)
    assert {name for name in info["missing_keys"] if not name.startswith("lm_head.")} == set()
    assert "lm_head.dense.weight" in info["missing_keys"]
    with pytest.raises(ValueError, match="ValorForRetrieval has no decoder head"):
        as_head(model, ValorForCaptioning)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ({"mask_probability": 3.0}, "at most 1, got 3.0"),
        ({"captioning_groups": ["t-x"]}, "`captioning_groups` holds 't-x'"),
        ({"alignment_groups": ["t-v", "x"]}, "`alignment_groups` holds 'x'"),
    ],
)
@pytest.mark.parametrize("cls", [ValorModel, ValorForCaptioning])
def test_fields_that_from_pretrained_overrides_are_validated(checkpoint, cls, override, sentence):
    with pytest.raises(StrictDataclassError, match=sentence):
        cls.from_pretrained(checkpoint, **override)


@pytest.mark.parametrize("cls", HEADS.values())
@pytest.mark.parametrize("head", [ValorForCaptioning, ValorForQuestionAnswering])
def test_any_head_becomes_one_that_writes_without_a_copy(checkpoint, cls, head):
    model = cls.from_pretrained(checkpoint)
    writer = as_head(model, head)
    assert isinstance(writer, head) and {id(p) for p in writer.parameters()} == {id(p) for p in model.parameters()}
    media = {name: tiny_batch()[name] for name in ("pixel_values_videos", "input_features")}
    if head is ValorForQuestionAnswering:
        media["question_input_ids"] = tiny_batch()["input_ids"][:, :3]
    assert torch.equal(writer.generate(**media), head.from_pretrained(checkpoint).generate(**media))
