# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`hub_configs/` against the released sizes. `python tests/test_hub_configs.py` writes that folder anew."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    GenerationConfig,
)

from helpers.parity import fixture_json
from modeling_valor import ValorForCaptioning, ValorForPreTraining, ValorProcessor
from modeling_valor.convert_valor_checkpoint import config_from_checkpoint, convert_state_dict, save_configs


HUB_CONFIGS = Path(__file__).resolve().parents[1] / "hub_configs"
SIZES = ("valor-base", "valor-large")

# The parts of the 2023 models, as patterns of 2023 names, and where their parameters are here
PARTS = {
    "text_model": r"multimodal_encoder\.(?!pooler)",
    "vision_model": r"video_encoder\.|clip_model\.visual\.(?!proj$)",
    "audio_model": r"audio_embeddings\.|audio_encoder\.",
    "video_condition": r"video_frame_embedding|video_type_embeddings|hidden_trans_video",
    "audio_condition": r"audio_frame_embedding|audio_type_embeddings|hidden_trans_audio",
    "text_projection": r"contra_head_t\.",
    "video_projection": r"contra_head_v\.",
    "audio_projection": r"contra_head_a\.",
    "text_token_weight": r"text_fine_weight\.",
    "video_token_weight": r"video_fine_weight\.",
    "audio_token_weight": r"audio_fine_weight\.",
    "lm_head": r"cls\.",
}
UNUSED = {
    "valor-base": r"multimodal_encoder\.pooler\.|.*relative_position_index$",
    "valor-large": r"multimodal_encoder\.pooler\.|contra_temp$|clip_model\.(visual\.proj$|(?!visual|logit_scale))",
}


def stored_tensors(size: str) -> dict[str, torch.Tensor]:
    """The tensors of a released checkpoint, without those that repeat another, on the meta device."""
    recorded = fixture_json(f"{size}.keys")
    return {
        key: torch.empty(shape, device="meta")
        for key, shape in recorded["keys"].items()
        if key not in recorded["aliases"]
    }


def write_hub_configs(folder: Path):
    """Writes the configuration of every released size to a folder of its name in `folder`."""
    for size in SIZES:
        options = fixture_json(f"{size}.keys")["hps"]
        save_configs(folder / size, config_from_checkpoint(stored_tensors(size), options), options)


@pytest.fixture(scope="module", params=SIZES)
def size(request):
    return request.param


@pytest.fixture(scope="module")
def model(size):
    with torch.device("meta"):
        return ValorForPreTraining(AutoConfig.from_pretrained(HUB_CONFIGS / size))


def test_hub_configs_are_what_the_converter_writes(size, tmp_path):
    write_hub_configs(tmp_path)
    written = {file.name: json.loads(file.read_text()) for file in (tmp_path / size).glob("*.json")}
    shipped = {file.name: json.loads(file.read_text()) for file in (HUB_CONFIGS / size).glob("*.json")}
    for content in (*written.values(), *shipped.values()):
        content.pop("transformers_version", None)
    assert written == shipped
    template = (tmp_path / size / "chat_template.jinja").read_text()
    for folder in (size, "valor-tiny"):
        assert (HUB_CONFIGS / folder / "chat_template.jinja").read_text() == template


def test_model_has_exactly_the_released_tensors(size, model):
    tensors, unused = convert_state_dict(stored_tensors(size), model.config)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert set(unused) == {key for key in stored_tensors(size) if re.match(UNUSED[size], key)}


def test_parameters_of_every_part_are_those_of_the_released_model(size, model, capsys):
    stored = {key: tensor.numel() for key, tensor in stored_tensors(size).items() if not re.match(UNUSED[size], key)}
    rows = []
    for part, pattern in PARTS.items():
        module = getattr(model, part, None) or getattr(model.valor, part)
        count = sum(
            parameter.numel()
            for name, parameter in module.named_parameters()
            if parameter is not model.get_input_embeddings().weight or part == "text_model"
        )
        rows.append((part, count))
        assert count == sum(numbers for key, numbers in stored.items() if re.match(pattern, key)), part
    rows.append(("logit_scale", 1))
    total = sum(count for _, count in rows)
    assert total == sum(parameter.numel() for parameter in model.parameters()) == sum(stored.values())
    counts = fixture_json(f"{size}.keys")["parameter_counts"]
    unused = counts["bert_pooler_unused"]
    if size == "valor-large":
        # CLIP's text tower, its vision projection, and the temperature that CLIP's own replaces
        unused += counts["clip_model_text_tower_unused"] + 1024 * 768 + 1
    assert total == counts["total_unique_parameters"] - unused
    with capsys.disabled():
        print(f"\n{size}")
        print("\n".join(f"  {part:<20}{count:>14,}" for part, count in [*rows, ("total", total)]))


def test_files_load_through_auto_classes(size):
    folder = HUB_CONFIGS / size
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        assert type(AutoModel.from_config(config)).__name__ == "ValorModel"
    assert AutoVideoProcessor.from_pretrained(folder).size["height"] == 224
    assert AutoFeatureExtractor.from_pretrained(folder).clip_length == 512
    assert GenerationConfig.from_pretrained(folder).max_new_tokens == 30


@pytest.mark.parametrize("auto", [AutoProcessor, ValorProcessor, AutoTokenizer])
def test_a_processor_without_its_tokenizer_is_refused(size, auto):
    with pytest.raises(OSError, match=rf"{size} has no tokenizer: add the `tokenizer.json`.*`vocab.txt`"):
        auto.from_pretrained(HUB_CONFIGS / size)


def test_paper_facts_of_the_two_sizes():
    base, large = (AutoConfig.from_pretrained(HUB_CONFIGS / size) for size in SIZES)
    assert base.vision_config.model_type == "valor_video_swin" and base.vision_config.window_size == [8, 7, 7]
    assert base.vision_config.depths == [2, 2, 18, 2] and base.vision_config.num_heads == [4, 8, 16, 32]
    assert large.vision_config.model_type == "clip_vision_model" and large.vision_config.num_hidden_layers == 24
    assert large.vision_config.num_attention_heads == 16 and large.vision_config.patch_size == 14
    assert base.caption_prompt_ids is None and len(large.caption_prompt_ids) == 8
    for config in (base, large):
        assert (config.projection_dim, config.alignment_loss_weight, config.mask_probability) == (512, 1.5, 0.6)
        assert (config.audio_config.num_mel_bins, config.audio_config.max_length) == (64, 512)
        assert config.text_config.num_attention_heads == config.audio_config.num_attention_heads == 12


@pytest.mark.parametrize(("options", "expected"), [({}, torch.float32), ({"dtype": torch.float16}, torch.float16)])
def test_valor_tiny_is_stored_in_float16_and_computes_in_float32_by_default(options, expected):
    folder = HUB_CONFIGS / "valor-tiny"
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    model = AutoModel.from_pretrained(folder, **options)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    weight = stored["valor.text_projection.weight"]
    torch.testing.assert_close(model.text_projection.weight.data, weight.to(expected), rtol=0, atol=0)


def test_valor_tiny_is_small_and_tells_what_it_sees_and_hears():
    """Its weights load without gaps, and on two clips that it has never seen the world's grammar and sounds come through."""
    folder = HUB_CONFIGS / "valor-tiny"
    assert (folder / "model.safetensors").stat().st_size < 20e6
    model, info = ValorForCaptioning.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.dtype == torch.float32
    assert 8e6 < model.num_parameters() < 20e6
    clips = sorted((HUB_CONFIGS.parent / "examples" / "media").glob("*.mp4"))
    processor = ValorProcessor.from_pretrained(folder)
    inputs = processor(videos=[str(clip) for clip in clips], return_tensors="pt")
    captions = processor.post_process_generation(model.eval().generate(**inputs))
    # What both clips show; their metadata says so too
    assert all({"pink", "purple", "cross", "collides", "bell"} <= set(caption.split()) for caption in captions)
    assert all("water" in caption or "waves" in caption for caption in captions)


if __name__ == "__main__":
    write_hub_configs(HUB_CONFIGS)
