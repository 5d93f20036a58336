# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modeling_valor import ValorAudioConfig, ValorAudioModel, ValorModel
from modeling_valor.modeling_valor_audio import resize_position_embedding


ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")


def tiny_config(**changes) -> ValorAudioConfig:
    sizes = {"num_mel_bins": 32, "max_length": 48, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64}
    return ValorAudioConfig(**{**sizes, "num_hidden_layers": 2, "num_attention_heads": 4, **changes})


@pytest.fixture
def model() -> ValorAudioModel:
    torch.manual_seed(0)
    return ValorAudioModel(tiny_config(initializer_range=0.3)).eval()


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("implementation", ATTENTION_IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["videoswin-bert-shared", "clip-vision-bert-shared", "clip-vision-clip-text"])
def test_output_equals_the_2023_code(parity, converted, name, implementation):
    recorded = parity(name)
    model = ValorModel.from_pretrained(converted(name), attn_implementation=implementation).audio_model
    assert model.config._attn_implementation == implementation
    with torch.no_grad():
        outputs = model(recorded.inputs["audio_spectrograms"].flatten(0, 1))
    expected = recorded.expected["audio_output"].flatten(0, 1)
    torch.testing.assert_close(outputs.last_hidden_state, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(outputs.pooler_output, expected[:, 0], atol=2e-5, rtol=0)


@torch.no_grad()
def test_output_equals_plain_transformer(model, clips):
    state = model.state_dict()
    size, patches = model.config.patch_size, []
    for mel in range(0, 32, size):
        for time in range(0, 48, size):
            patch = clips[:, mel : mel + size, time : time + size].flatten(1)
            patches.append(patch @ state["embeddings.patch_embedding.weight"].flatten(1).T)
    tokens = torch.stack(patches, dim=1) + state["embeddings.patch_embedding.bias"]
    tokens = torch.cat([state["embeddings.class_embedding"].expand(3, 1, -1), tokens], dim=1)
    tokens = tokens + state["embeddings.position_embedding.weight"]
    for layer in model.layers:
        plain = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", 1e-12, batch_first=True, norm_first=True)
        attention, projections = (
            plain.self_attn,
            (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
        )
        attention.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
        attention.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
        attention.out_proj.load_state_dict(layer.self_attn.out_proj.state_dict())
        plain.linear1.load_state_dict(layer.mlp.fc1.state_dict())
        plain.linear2.load_state_dict(layer.mlp.fc2.state_dict())
        tokens = plain(tokens)
    tokens = nn.functional.layer_norm(tokens, (32,), eps=1e-12)
    torch.testing.assert_close(model(clips).last_hidden_state, tokens, atol=2e-5, rtol=0)


@torch.no_grad()
def test_every_attention_implementation_gives_the_same(model, clips):
    outputs = []
    for implementation in ATTENTION_IMPLEMENTATIONS:
        model.set_attn_implementation(implementation)
        outputs.append(model(clips).last_hidden_state)
    torch.testing.assert_close(outputs[0], outputs[1], atol=2e-5, rtol=0)


def test_positions_of_another_grid_are_bilinear():
    # Two columns to four: centres fall on -1/4, 1/4, 3/4, 5/4 of the old spacing, and the border is repeated
    positions = torch.tensor([[9.0], [0.0], [8.0], [100.0], [108.0]])
    resized = resize_position_embedding(positions, (2, 2), (2, 4))
    expected = [9.0, 0.0, 2.0, 6.0, 8.0, 100.0, 102.0, 106.0, 108.0]
    assert resized.flatten().tolist() == expected


@torch.no_grad()
def test_another_clip_size_resizes_the_positions(model):
    clips = torch.randn(2, 24, 80)
    resized = ValorAudioModel(tiny_config(num_mel_bins=24, max_length=80)).eval()
    state = model.state_dict()
    key = "embeddings.position_embedding.weight"
    state[key] = resize_position_embedding(state[key], (4, 6), (3, 10))
    resized.load_state_dict(state)
    torch.testing.assert_close(model(clips).last_hidden_state, resized(clips).last_hidden_state)


@torch.no_grad()
def test_an_incomplete_patch_is_left_out(model, clips):
    longer = torch.cat([clips, torch.randn(3, 32, 7)], dim=2)
    torch.testing.assert_close(model(longer).last_hidden_state, model(clips).last_hidden_state)


@pytest.mark.parametrize("shape", [(1, 2, 32, 48), (32, 48), (1, 4, 48)])
def test_a_wrong_shape_is_one_clear_error(model, shape):
    with pytest.raises(ValueError, match="hold at least one patch of 8 x 8"):
        model(torch.zeros(shape))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(model, clips, dtype):
    expected = model(clips).last_hidden_state
    output = model.to(dtype)(clips).last_hidden_state
    assert output.dtype == dtype
    assert nn.functional.cosine_similarity(output.float(), expected, dim=-1).min() > 0.99


def test_gradient_checkpointing_gives_the_same_gradients(model, clips):
    gradients = []
    model.train()
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)  # the same dropout
        model(clips).last_hidden_state.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_compiled_without_graph_break_equals_eager(model, clips):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(clips).last_hidden_state, model(clips).last_hidden_state)


@torch.no_grad()
def test_hidden_states_and_attentions_on_request(model, clips):
    model.set_attn_implementation("eager")
    outputs = model(clips, output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(3, 25, 32)] * 3
    torch.testing.assert_close(model.layer_norm(outputs.hidden_states[-1]), outputs.last_hidden_state)
    assert [tuple(attention.shape) for attention in outputs.attentions] == [(3, 4, 25, 25)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(-1), torch.ones(3, 4, 25))


@torch.no_grad()
def test_loads_its_part_of_a_whole_model(model, clips, tmp_path):
    model.config.save_pretrained(tmp_path)
    whole = {f"audio_model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file({**whole, "text_model.norm.weight": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = ValorAudioModel.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(clips).pooler_output, model(clips).pooler_output)
