# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import itertools
import re

import pytest
import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from modeling_valor import ValorModel, ValorVideoSwinConfig, ValorVideoSwinModel
from modeling_valor.modeling_valor_video_swin import (
    ValorVideoSwinDropPath,
    join_windows,
    partition_windows,
    relative_position_index,
    shifted_window_mask,
)


ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")
CPU = torch.device("cpu")


def tiny_config(**changes) -> ValorVideoSwinConfig:
    sizes = {"embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": (4, 3, 3)}
    return ValorVideoSwinConfig(**{**sizes, **changes})


def tiny_model(**changes) -> ValorVideoSwinModel:
    torch.manual_seed(0)
    return ValorVideoSwinModel(tiny_config(initializer_range=0.2, **changes)).eval()


def random_video(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def torchvision_twin(model: ValorVideoSwinModel) -> SwinTransformer3d:
    """torchvision's Video Swin with the same weights. It knows a temporal stride of 2 only."""
    config = model.config
    twin = SwinTransformer3d(
        config.patch_size, config.embed_dim, config.depths, config.num_heads, config.window_size, num_classes=1
    ).eval()
    state = model.state_dict()
    for key in list(state):
        name = re.sub(r"^patch_embedding", "patch_embed.proj", key)
        name = re.sub(r"^patch_norm", "patch_embed.norm", name)
        name = re.sub(r"^stages\.(\d)\.blocks", lambda match: f"features.{2 * int(match[1])}", name)
        name = re.sub(r"^stages\.(\d)\.downsample", lambda match: f"features.{2 * int(match[1]) + 1}", name)
        name = name.replace(".attention.out_proj", ".attn.proj").replace(".attention.", ".attn.")
        state[name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = state.pop(key)
    result = twin.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith("head.") or key.endswith("relative_position_index") for key in result.missing_keys)
    return twin


@torch.no_grad()
def torchvision_tokens(twin: SwinTransformer3d, video: torch.Tensor) -> torch.Tensor:
    return twin.norm(twin.features(twin.patch_embed(video.transpose(1, 2)))).flatten(2, 3)


@pytest.mark.parametrize("implementation", ATTENTION_IMPLEMENTATIONS)
def test_output_equals_the_2023_code(parity, converted, implementation):
    recorded = parity("videoswin-bert-shared")
    folder = converted("videoswin-bert-shared")
    model = ValorModel.from_pretrained(folder, attn_implementation=implementation).vision_model
    assert type(model) is ValorVideoSwinModel and model.config._attn_implementation == implementation
    with torch.no_grad():
        outputs = model(recorded.inputs["video_pixels"])
    expected = recorded.expected["video_output"]
    torch.testing.assert_close(outputs.last_hidden_state, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(outputs.pooler_output, expected.mean(dim=2), atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("frames", [*range(1, 10), 17])
def test_any_number_of_frames_equals_torchvision(frames):
    # Frames 0 1 1 2 2 3 3 and a zero frame, two by two, are what a stride of 1 makes of frames 0 1 2 3
    model = tiny_model(window_size=(8, 7, 7))
    video = random_video(1, frames, 3, 36, 36)
    pairs = torch.stack([video, torch.cat([video[:, 1:], torch.zeros_like(video[:, :1])], dim=1)], dim=2)
    expected = torchvision_tokens(torchvision_twin(model), pairs.flatten(1, 2))
    output = model(video).last_hidden_state
    assert output.shape == (1, frames, 25, 32)
    torch.testing.assert_close(output, expected, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "height", "width"), [(2, 8, 8), (20, 64, 60), (18, 30, 41), (34, 28, 28), (16, 27, 70)]
)
def test_any_size_equals_torchvision(frames, height, width):
    model = tiny_model(temporal_stride=2)
    video = random_video(1, frames, 3, height, width)
    expected = torchvision_tokens(torchvision_twin(model), video)
    torch.testing.assert_close(model(video).last_hidden_state, expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_every_attention_implementation_gives_the_same():
    model, video, outputs = tiny_model(), random_video(2, 9, 3, 36, 36), []
    for implementation in ATTENTION_IMPLEMENTATIONS:
        model.set_attn_implementation(implementation)
        outputs.append(model(video).last_hidden_state)
    torch.testing.assert_close(outputs[0], outputs[1], atol=2e-5, rtol=0)


@torch.no_grad()
def test_an_odd_frame_is_kept_at_a_temporal_stride_of_two():
    model = tiny_model(temporal_stride=2)
    video = random_video(1, 5, 3, 32, 32)
    padded = torch.cat([video, torch.zeros(1, 1, 3, 32, 32)], dim=1)
    output = model(video).last_hidden_state
    assert output.shape[1] == 3
    torch.testing.assert_close(output, model(padded).last_hidden_state)


@torch.no_grad()
def test_pooled_frame_is_the_mean_over_its_tokens():
    outputs = tiny_model()(random_video(2, 3, 3, 32, 40))
    assert outputs.pooler_output.shape == (2, 3, 32)
    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state.mean(dim=2))


def test_relative_position_index_by_hand():
    # A window of 1 frame, 2 rows, 2 columns: rows of a 3 x 3 table of (row difference + 1, column difference + 1)
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert relative_position_index((1, 2, 2), 4, CPU).tolist() == expected
    assert relative_position_index((3, 2, 2), 4, CPU).tolist() == [[18 + entry for entry in row] for row in expected]


def test_relative_position_index_of_a_shrunk_window_is_cut_from_the_full_one():
    window = (2, 3, 4)
    coordinates = list(itertools.product(*map(range, window)))
    table = list(itertools.product(*(range(-size + 1, size) for size in window)))
    full = [[table.index(tuple(a - b for a, b in zip(q, k, strict=True))) for k in coordinates] for q in coordinates]
    assert relative_position_index(window, 24, CPU).tolist() == full
    assert relative_position_index(window, 6, CPU).tolist() == [row[:6] for row in full[:6]]


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [((4, 6, 9), (2, 3, 3), (1, 1, 1)), ((3, 6, 6), (3, 3, 2), (0, 1, 1)), ((8, 2, 4), (4, 2, 2), (2, 0, 1))],
)
def test_shifted_windows_join_neighbours_only(grid, window, shift):
    # Two tokens belong together if they were less than a window apart before the shift
    coordinates = torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij"), dim=-1)
    rolled = coordinates.roll([-size for size in shift], dims=(0, 1, 2))
    windows = partition_windows(rolled[None], window)
    apart = (windows[:, :, None] - windows[:, None, :]).abs()
    expected = (apart < torch.tensor(window)).all(dim=-1)
    assert torch.equal(shifted_window_mask(grid, window, shift, CPU), expected)
    assert not expected.all()


def test_windows_hold_neighbours_and_join_again():
    grid, window = (4, 6, 8), (2, 3, 4)
    hidden_states = random_video(2, *grid, 5)
    windows = partition_windows(hidden_states, window)
    assert windows.shape == (2 * 8, 24, 5)
    assert torch.equal(windows[8 + 5], hidden_states[1, 2:4, 0:3, 4:8].flatten(0, 2))
    assert torch.equal(join_windows(windows, window, grid), hidden_states)


def test_stochastic_depth_grows_linearly_and_drops_whole_samples():
    blocks = [block for stage in tiny_model(drop_path_rate=0.3).stages for block in stage.blocks]
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])

    torch.manual_seed(0)
    drop_path = ValorVideoSwinDropPath(0.2)
    samples = drop_path(torch.ones(1000, 2, 1, 1, 3)).flatten(1)
    assert torch.equal(samples.amin(dim=1), samples.amax(dim=1))
    assert set(samples.unique().tolist()) == {0.0, 1.25}
    assert samples.mean() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop_path.eval()(samples), samples)


@torch.no_grad()
def test_nothing_is_remembered_of_a_resolution():
    model = tiny_model()
    small, large = random_video(1, 3, 3, 20, 20), random_video(1, 9, 3, 64, 40)
    first = model(small).last_hidden_state
    model(large)
    assert torch.equal(model(small).last_hidden_state, first)
    assert not list(model.buffers())


def test_a_wrong_number_of_axes_is_one_clear_error():
    with pytest.raises(ValueError, match="an image is a video of one frame"):
        tiny_model()(torch.zeros(2, 3, 32, 32))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype):
    model, video = tiny_model(), random_video(1, 9, 3, 36, 36)
    expected = model(video).last_hidden_state
    output = model.to(dtype)(video).last_hidden_state
    assert output.dtype == dtype
    assert nn.functional.cosine_similarity(output.float(), expected, dim=-1).min() > 0.99


def test_gradient_checkpointing_gives_the_same_gradients():
    model, video = tiny_model(drop_path_rate=0.5, hidden_dropout_prob=0.1).train(), random_video(2, 9, 3, 36, 36)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)  # the same samples dropped
        model(video).last_hidden_state.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_compiled_without_graph_break_equals_eager():
    torch.compiler.reset()
    model, video = tiny_model(), random_video(2, 9, 3, 36, 36)
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(video).last_hidden_state, model(video).last_hidden_state)


@torch.no_grad()
def test_hidden_states_and_attentions_on_request():
    model = tiny_model()
    model.set_attn_implementation("eager")
    outputs = model(random_video(2, 3, 3, 36, 36), output_hidden_states=True, output_attentions=True)
    shapes = [(2, 3, 9, 9, 16), (2, 3, 5, 5, 32), (2, 3, 5, 5, 32)]
    assert [tuple(state.shape) for state in outputs.hidden_states] == shapes
    windows = [(2 * 9, 1, 3 * 9, 3 * 9)] * 2 + [(2 * 4, 2, 3 * 9, 3 * 9)] * 2
    assert [tuple(attention.shape) for attention in outputs.attentions] == windows


@torch.no_grad()
def test_saved_and_loaded_gives_the_same(tmp_path):
    model, video = tiny_model(), random_video(1, 2, 3, 32, 32)
    model.save_pretrained(tmp_path)
    loaded = ValorVideoSwinModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(video).pooler_output, model(video).pooler_output)
