# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from modeling_valor import ValorModel, ValorVideoSwinConfig, ValorVideoSwinModel
from modeling_valor.modeling_valor_vision import (
    ValorCLIPVisionModel,
    build_vision_model,
    encode_frames,
    encoded_frame_mask,
    vision_hidden_size,
)


VIT_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PATCHES = {"image_size": 32, "patch_size": 8}
WINDOWS = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]}

ENCODERS = {
    "clip": (CLIPVisionConfig(**VIT_SIZES, **PATCHES), ValorCLIPVisionModel, "class token", 17, 32),
    "video swin": (ValorVideoSwinConfig(**WINDOWS), ValorVideoSwinModel, "mean", 16, 32),
    "vit": (ViTConfig(**VIT_SIZES, **PATCHES), ViTModel, "class token", 17, 32),
    "dinov2": (Dinov2Config(**VIT_SIZES, **PATCHES), Dinov2Model, "class token", 17, 32),
    "siglip": (SiglipVisionConfig(**VIT_SIZES, **PATCHES), SiglipVisionModel, "mean", 16, 32),
    "swin": (SwinConfig(**WINDOWS, image_size=32, patch_size=4, window_size=4), SwinModel, "mean", 16, 32),
    "convnext": (ConvNextConfig(hidden_sizes=[8, 24], depths=[1, 1], num_stages=2), ConvNextModel, "mean", 16, 24),
    "resnet": (ResNetConfig(embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1]), ResNetModel, "mean", 16, 24),
}
"""Configuration, model, global feature, tokens of a 32 x 32 frame and width of every kind of vision encoder."""

every_encoder = pytest.mark.parametrize("name", ENCODERS)
every_image_encoder = pytest.mark.parametrize("name", [name for name in ENCODERS if name != "video swin"])


def tiny_encoder(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = build_vision_model(ENCODERS[name][0]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return model


def random_frames(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def count_calls(model: nn.Module) -> list[tuple[int, ...]]:
    """Shapes that the encoder is called with, filled as it runs."""
    shapes = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(next(iter([*args, *kwargs.values()])).shape)), with_kwargs=True
    )
    return shapes


# ---- CLIP as VALOR-large uses it


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["clip-vision-bert-shared", "clip-vision-clip-text"])
def test_clip_output_equals_the_2023_code(parity, converted, name, implementation):
    recorded = parity(name)
    model = ValorModel.from_pretrained(converted(name), attn_implementation=implementation).vision_model
    assert type(model) is ValorCLIPVisionModel and model.config._attn_implementation == implementation
    with torch.no_grad():
        tokens, pooled = encode_frames(model, recorded.inputs["video_pixels"])[:2]
    expected = recorded.expected["video_output"]
    torch.testing.assert_close(tokens, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(pooled, expected[:, :, 0], atol=2e-5, rtol=0)


@torch.no_grad()
def test_clip_is_clip_with_every_token_normalised():
    model, images = tiny_encoder("clip"), random_frames(3, 3, 32, 32)
    original = CLIPVisionModel(model.config).eval()
    original.load_state_dict(model.state_dict())
    expected, outputs = original(images), model(images)
    torch.testing.assert_close(outputs.last_hidden_state, original.post_layernorm(expected.last_hidden_state))
    torch.testing.assert_close(outputs.pooler_output, expected.pooler_output)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 40), (32, 24)])
def test_clip_positions_of_another_resolution_are_bilinear(height, width):
    model = tiny_encoder("clip")
    table = model.embeddings.position_embedding.weight
    rows, columns = height // 8, width // 8

    def at(row: int, column: int) -> torch.Tensor:
        return table[1 + 4 * min(max(row, 0), 3) + min(max(column, 0), 3)]

    expected = [table[0]]
    for y in [(row + 0.5) * 4 / rows - 0.5 for row in range(rows)]:
        for x in [(column + 0.5) * 4 / columns - 0.5 for column in range(columns)]:
            y0, x0 = int(y // 1), int(x // 1)
            above = (1 - (x - x0)) * at(y0, x0) + (x - x0) * at(y0, x0 + 1)
            below = (1 - (x - x0)) * at(y0 + 1, x0) + (x - x0) * at(y0 + 1, x0 + 1)
            expected.append((1 - (y - y0)) * above + (y - y0) * below)
    images = random_frames(2, 3, height, width)
    patches = model.embeddings.patch_embedding(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([model.embeddings.class_embedding.expand(2, 1, -1), patches], dim=1) + torch.stack(expected)
    embedded = []
    model.embeddings.register_forward_hook(lambda _, args, output: embedded.append(output))
    assert model(images).last_hidden_state.shape == (2, 1 + rows * columns, 32)
    torch.testing.assert_close(embedded[0], tokens)


@torch.no_grad()
def test_clip_loads_checkpoints_of_clip(tmp_path):
    model, images = tiny_encoder("clip"), random_frames(2, 3, 32, 32)
    original = CLIPVisionModel(model.config).eval()
    original.load_state_dict(model.state_dict())
    original.save_pretrained(tmp_path)
    loaded = ValorCLIPVisionModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(images).last_hidden_state, model(images).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_clip_half_precision_stays_close(dtype):
    model, images = tiny_encoder("clip"), random_frames(2, 3, 48, 48)
    expected = model(images).last_hidden_state
    output = model.to(dtype)(images).last_hidden_state
    assert output.dtype == dtype
    assert nn.functional.cosine_similarity(output.float(), expected, dim=-1).min() > 0.99


def test_clip_gradient_checkpointing_gives_the_same_gradients():
    model, images = tiny_encoder("clip").train(), random_frames(2, 3, 48, 48)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model(images).last_hidden_state.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 48])
def test_clip_compiled_without_graph_break_equals_eager(size):
    torch.compiler.reset()
    model, images = tiny_encoder("clip"), random_frames(2, 3, size, size)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images).last_hidden_state, model(images).last_hidden_state)


# ---- any vision encoder


@every_encoder
def test_encoder_is_built_from_its_configuration(name):
    config, model_class, _, _, width = ENCODERS[name]
    assert type(build_vision_model(config)) is model_class
    assert vision_hidden_size(config) == width


def test_encoder_takes_attention_implementation_and_dtype_of_its_configuration():
    config = CLIPVisionConfig(**VIT_SIZES, **PATCHES, dtype=torch.bfloat16, attn_implementation="eager")
    model = build_vision_model(config)
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_an_encoder_of_unknown_width_is_one_clear_error():
    with pytest.raises(ValueError, match="neither `hidden_size` nor `hidden_sizes`"):
        vision_hidden_size(PreTrainedConfig())
    assert vision_hidden_size(BertConfig(hidden_size=24, num_attention_heads=4)) == 24


@torch.no_grad()
@every_image_encoder
def test_frames_are_encoded_one_by_one(name):
    _, _, feature, num_tokens, width = ENCODERS[name]
    model, frames = tiny_encoder(name), random_frames(2, 3, 3, 32, 32)
    tokens, pooled = encode_frames(model, frames)[:2]
    assert tokens.shape == (2, 3, num_tokens, width)
    alone = model(frames[1, 2:]).last_hidden_state
    alone = alone.permute(0, 2, 3, 1).flatten(1, 2) if alone.ndim == 4 else alone
    torch.testing.assert_close(tokens[1, 2:], alone, atol=2e-5, rtol=0)
    expected = tokens[:, :, 0] if feature == "class token" else tokens.mean(dim=2)
    torch.testing.assert_close(pooled, expected)


@torch.no_grad()
def test_video_swin_encodes_frames_together():
    model, frames = tiny_encoder("video swin"), random_frames(2, 3, 3, 32, 32)
    tokens, pooled = encode_frames(model, frames)[:2]
    outputs = model(frames)
    assert torch.equal(tokens, outputs.last_hidden_state)
    assert torch.equal(pooled, outputs.pooler_output)


@torch.no_grad()
@every_encoder
def test_masked_frames_never_reach_the_encoder(name):
    model, frames = tiny_encoder(name), random_frames(4, 3, 3, 32, 32)
    mask = torch.tensor([[True, True, False], [True, False, True], [False, False, False], [True, True, True]])
    tokens, pooled = encode_frames(model, frames.masked_fill(~mask[:, :, None, None, None], torch.nan), mask)[:2]
    assert tokens.shape == (4, 3, *ENCODERS[name][3:])
    for sample, valid in enumerate(mask):
        assert not tokens[sample, ~valid].any() and not pooled[sample, ~valid].any()
        if valid.any():
            expected_tokens, expected_pooled = encode_frames(model, frames[None, sample, valid])[:2]
            torch.testing.assert_close(tokens[sample, valid], expected_tokens[0], atol=2e-5, rtol=0)
            torch.testing.assert_close(pooled[sample, valid], expected_pooled[0], atol=2e-5, rtol=0)


@torch.no_grad()
@every_encoder
def test_a_batch_without_frames_encodes_one_blank_frame_to_stay_in_step_with_other_ranks(name):
    model, frames = tiny_encoder(name).to(torch.bfloat16), random_frames(2, 3, 3, 32, 32)
    calls = count_calls(model)
    tokens, pooled = encode_frames(model, frames, torch.zeros(2, 3))[:2]
    assert calls == [(1, 1, 3, 32, 32) if name == "video swin" else (1, 3, 32, 32)]
    assert tokens.dtype == torch.bfloat16 and pooled.dtype == torch.bfloat16
    assert tokens.shape == (2, 3, *ENCODERS[name][3:]) and pooled.shape == (2, 3, ENCODERS[name][4])
    assert not tokens.any() and not pooled.any()


@torch.no_grad()
@every_encoder
@pytest.mark.parametrize("mask", [None, torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.long)])
def test_a_batch_of_whole_videos_is_one_pass(name, mask):
    model, frames = tiny_encoder(name), random_frames(2, 3, 3, 32, 32)
    calls = count_calls(model)
    encode_frames(model, frames, mask)
    assert calls == [(2, 3, 3, 32, 32) if name == "video swin" else (6, 3, 32, 32)]


@torch.no_grad()
def test_a_padded_batch_is_one_pass_for_images_and_one_per_length_for_videos():
    frames, mask = random_frames(4, 3, 3, 32, 32), torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1]])
    for name, expected in (("vit", [(5, 3, 32, 32)]), ("video swin", [(2, 1, 3, 32, 32), (1, 3, 3, 32, 32)])):
        model = tiny_encoder(name)
        calls = count_calls(model)
        encode_frames(model, frames, mask)
        assert calls == expected


@pytest.mark.parametrize("name", ["clip", "video swin"])
def test_only_valid_frames_receive_a_gradient(name):
    model, frames = tiny_encoder(name), random_frames(2, 3, 3, 32, 32).requires_grad_()
    mask = torch.tensor([[True, False, True], [True, True, True]])
    tokens, pooled = encode_frames(model, frames, mask)[:2]
    (tokens.square().sum() + pooled.square().sum()).backward()
    assert torch.equal(frames.grad.flatten(2).any(dim=2), mask)


@torch.no_grad()
@every_encoder
def test_another_resolution_needs_no_asking(name):
    model, frames = tiny_encoder(name), random_frames(1, 2, 3, 64, 64)
    tokens, _ = encode_frames(model, frames)[:2]
    class_tokens = ENCODERS[name][3] - 16
    assert tokens.shape[2] == 64 + class_tokens


@torch.no_grad()
def test_a_temporal_stride_keeps_each_result_at_its_first_frame():
    config = ValorVideoSwinConfig(**WINDOWS, temporal_stride=2)
    model = build_vision_model(config).eval()
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [0, 0, 0, 1, 0]]).bool()
    expected_mask = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]]).bool()
    assert torch.equal(encoded_frame_mask(config, mask), expected_mask)
    frames = random_frames(3, 5, 3, 32, 32)
    tokens, pooled = encode_frames(model, frames, mask)[:2]
    assert tokens.shape == (3, 3, 16, 32) and pooled.shape == (3, 3, 32)
    for sample in range(3):
        alone, _ = encode_frames(model, frames[None, sample, mask[sample]])[:2]
        torch.testing.assert_close(tokens[sample, expected_mask[sample]], alone[0], atol=2e-5, rtol=0)
        assert not tokens[sample, ~expected_mask[sample]].any()


def test_without_a_temporal_stride_the_mask_of_results_is_the_mask_of_frames():
    mask = torch.tensor([[True, False, True]])
    assert encoded_frame_mask(ValorVideoSwinConfig(**WINDOWS), mask) is mask
    assert encoded_frame_mask(ViTConfig(), mask) is mask


def test_wrong_shapes_are_one_clear_error():
    model = tiny_encoder("vit")
    with pytest.raises(ValueError, match="an image is a video of one frame"):
        encode_frames(model, torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"`frame_mask` must be .* \(2, 3\), got \(2, 4\)"):
        encode_frames(model, torch.zeros(2, 3, 3, 32, 32), torch.ones(2, 4))
