# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The kernel of fine-grained similarity against the plain form in float64.

On the CPU, by Triton's interpreter; on a GPU with `TRITON_INTERPRET=0 python -m pytest tests/test_alignment_triton.py`.
"""

import importlib
import os
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from modeling_valor import alignment_blocks
from modeling_valor.alignment import GROUPS, TokenSet, contrastive_loss, fine_similarity, grouped_similarity


pytest.importorskip("triton")
alignment_fused = importlib.import_module("modeling_valor.alignment_fused")

DEVICE = "cuda" if os.environ["TRITON_INTERPRET"] == "0" else "cpu"


@pytest.fixture
def kernel(monkeypatch):
    """All comparisons that the kernel takes go through it; `passes` has the arguments of each of its passes."""
    passes, errors, score_pass = [], [], alignment_fused._score_pass
    monkeypatch.setattr(alignment_blocks, "_kernel_errors", errors)
    monkeypatch.setattr(alignment_blocks, "has_kernel", lambda device: True)
    monkeypatch.setattr(alignment_fused, "_score_pass", lambda *args: passes.append(args) or score_pass(*args))
    monkeypatch.setattr(alignment_fused, "passes", passes, raising=False)
    yield alignment_fused
    assert not errors  # the same scores would be computed without the kernel


def token_set(samples, tokens, mask=None, zero_padding=False, seed=0, width=20):
    generator = torch.Generator().manual_seed(seed)
    embeds = F.normalize(torch.randn(samples, tokens, width, generator=generator, dtype=torch.float64), dim=-1)
    logits = torch.randn(samples, tokens, generator=generator, dtype=torch.float64)
    mask = None if mask is None else torch.tensor(mask, device=DEVICE).bool()
    return TokenSet(embeds.to(DEVICE), mask, logits.to(DEVICE), zero_padding)


def batch(zero_padding=False):
    """Five samples: whole, padded everywhere, without audio, without video, without text."""
    text = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [1, 1, 1, 1, 0], [0] * 5]
    return {
        "text": token_set(5, 5, text, zero_padding, seed=1),
        "video": token_set(5, 3, [[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]], seed=2),
        "audio": token_set(5, 2, [[1, 1], [0, 1], [0, 0], [1, 0], [1, 1]], seed=3),
    }


def cast(tokens, dtype):
    """The tokens with leaves of a type, and those leaves."""
    copies = {
        name: replace(
            part,
            embeds=part.embeds.to(dtype).requires_grad_(),
            weight_logits=part.weight_logits.to(dtype).requires_grad_(),
        )
        for name, part in tokens.items()
    }
    return copies, [leaf for part in copies.values() for leaf in (part.embeds, part.weight_logits)]


def scores_and_gradients(tokens, dtype, groups=tuple(GROUPS), **options):
    """All that is finite of them weighs differently."""
    tokens, leaves = cast(tokens, dtype)
    similarity = grouped_similarity(**{"audio": None, **tokens}, groups=groups, **options)
    total = 0
    for score in similarity.values():
        weights = torch.linspace(-1, 2, score.numel(), dtype=score.dtype, device=DEVICE).view_as(score).sin()
        total = total + (score.masked_fill(score == -torch.inf, 0) * weights).sum()
    return similarity, torch.autograd.grad(total, leaves)


def assert_equals_plain_form(kernel, tokens, atol=1e-5, **options):
    """The kernel in float32 against blocks in float64, for which other tests have a loop over pairs."""
    actual = scores_and_gradients(tokens, torch.float32, **options)
    assert kernel.passes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment_blocks, "has_kernel", lambda device: False)
        expected = scores_and_gradients(tokens, torch.float64, **options)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol, check_dtype=False)
    return actual


@pytest.mark.parametrize(
    ("zero_padding", "options"),
    [(False, {}), (True, {}), (True, {"fusion": "score"}), (True, {"uniform_audiovisual": True})],
)
def test_scores_and_gradients_equal_the_plain_form(kernel, zero_padding, options):
    similarity, _ = assert_equals_plain_form(kernel, batch(zero_padding), **options)
    assert (similarity["t-av"][4] == -torch.inf).all() and similarity["t-av"][:4].isfinite().all()


@pytest.mark.parametrize("block", [2**25, 560])
def test_several_programs_turns_and_blocks_equal_one(kernel, monkeypatch, block):
    """Texts are longer than what a program compares at a time, in both passes; blocks of 560 have one text and two videos."""
    monkeypatch.setattr(kernel, "_TILE", (64, 16))
    monkeypatch.setattr(kernel, "_GRADIENT_BLOCK", block)
    monkeypatch.setattr(kernel, "_LONGEST_ROW", 8)
    text = token_set(2, 70, [[1] * 65 + [0] * 5, [1] * 3 + [0] * 67], zero_padding=True, seed=1)
    tokens = {"text": text, "video": token_set(5, 3, seed=2), "audio": token_set(5, 1, seed=3)}
    # A word that is in both turns, and that a frame chooses
    text.embeds[0, 64] = tokens["video"].embeds[0, 0] = text.embeds[0, 0]
    assert_equals_plain_form(kernel, tokens, groups=["t-v", "t-a", "t-av"])


def test_equal_maxima_share_a_gradient_as_in_the_plain_form(kernel):
    """Repeated words and frames, and a sound that equals a frame; small integers, so that they are equal in any precision."""
    words = torch.tensor([[1.0, 0], [1, 0], [0, 1], [-1, 0]]).repeat(2, 1, 1)
    frames = torch.tensor([[1.0, 0], [1, 0], [0, 1]]).repeat(2, 1, 1)
    sounds = torch.tensor([[[1.0, 0]], [[0, 1]]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], device=DEVICE).bool()
    tokens = {
        name: TokenSet(embeds.to(DEVICE), part_mask, torch.zeros(embeds.shape[:2], device=DEVICE), name == "text")
        for name, embeds, part_mask in (("text", words, mask), ("video", frames, None), ("audio", sounds, None))
    }
    _, gradients = assert_equals_plain_form(kernel, tokens)
    frame_gradient = gradients[2]
    torch.testing.assert_close(frame_gradient[:, 0], frame_gradient[:, 1], rtol=0, atol=0)


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(
            torch.bfloat16,
            marks=pytest.mark.skipif(
                DEVICE == "cpu", reason="Triton's interpreter multiplies bfloat16 as if it were integers"
            ),
        ),
        torch.float16,
    ],
)
def test_half_precision_is_close_to_the_plain_form(kernel, dtype):
    similarity, gradients = scores_and_gradients(batch(), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment_blocks, "has_kernel", lambda device: False)
        expected, expected_gradients = scores_and_gradients(batch(), torch.float64)
    for group, score in similarity.items():
        assert score.dtype == torch.float32
        torch.testing.assert_close(score, expected[group], rtol=0, atol=1e-2, check_dtype=False)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == dtype
        assert (gradient - reference).norm() < 0.02 * reference.norm()


def test_padding_has_no_influence_whatever_it_holds(kernel):
    expected = scores_and_gradients(batch(), torch.float32)
    garbage = {
        name: replace(part, embeds=part.embeds.masked_fill(~part.mask[..., None], float("nan")))
        for name, part in batch().items()
    }
    torch.testing.assert_close(scores_and_gradients(garbage, torch.float32), expected, rtol=0, atol=0)


def test_nothing_left_has_finite_gradients(kernel):
    tokens = batch(zero_padding=True)
    tokens["video"].mask[2] = False
    tokens, leaves = cast(tokens, torch.float32)
    similarity = grouped_similarity(**tokens, groups=GROUPS)
    loss = sum(contrastive_loss(score, 4.6) for score in similarity.values())
    assert all(gradient.isfinite().all() and gradient.any() for gradient in torch.autograd.grad(loss, leaves))


def test_no_sample_gives_an_empty_matrix(kernel):
    tokens = {"text": token_set(0, 5), "video": token_set(3, 3)}
    similarity, gradients = scores_and_gradients(tokens, torch.float32, groups=["t-v"])
    assert similarity["t-v"].shape == (0, 3) and not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("dtype", "score"),
    [
        (torch.float64, lambda text, video, audio: grouped_similarity(text, video, audio, ["t-av"])["t-av"]),
        (torch.float32, lambda text, video, audio: fine_similarity([text], [video, audio, text])),
        (torch.float32, lambda text, video, audio: fine_similarity([text, video], [text, audio])),
        (torch.float32, lambda text, video, audio: fine_similarity([video], [replace(text, embeds=text.embeds.repeat(1, 13, 1), mask=None, weight_logits=None)])),
    ],
    ids=["float64", "three sets", "several sets on both sides", "a long set"],
)  # fmt: skip
def test_what_the_kernel_does_not_take_is_computed_in_blocks(kernel, monkeypatch, dtype, score):
    tokens, _ = cast(batch(), dtype)
    actual = score(**tokens)
    assert not kernel.passes
    monkeypatch.setattr(alignment_blocks, "has_kernel", lambda device: False)
    torch.testing.assert_close(actual, score(**tokens), rtol=0, atol=0)


def test_a_kernel_that_cannot_be_built_is_replaced_and_said_once(kernel, monkeypatch, caplog):
    """Triton needs a C compiler, for example."""
    calls = []

    def fail(*args):
        calls.append(args)
        raise RuntimeError("Failed to find C compiler.")

    tokens, _ = cast(batch(), torch.float32)
    expected = grouped_similarity(**tokens, groups=["t-av"])["t-av"]
    monkeypatch.setattr(alignment_blocks, "_kernel_errors", [])
    monkeypatch.setattr(alignment_blocks, "has_kernel", lambda device: not alignment_blocks._kernel_errors)
    monkeypatch.setattr(kernel, "compare_fused", fail)
    monkeypatch.setattr(alignment_blocks.logger, "propagate", True)
    for _ in range(2):
        torch.testing.assert_close(grouped_similarity(**tokens, groups=["t-av"])["t-av"], expected)
    assert len(calls) == len(caplog.messages) == 1
    assert "does not run here (RuntimeError: Failed to find C compiler.)" in caplog.text


def test_memory_that_is_full_is_an_error(kernel, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(kernel, "compare_fused", fail)
    with pytest.raises(torch.OutOfMemoryError):
        grouped_similarity(**cast(batch(), torch.float32)[0], groups=["t-av"])


def test_float32_is_multiplied_as_torch_is_told_to(kernel):
    assert kernel._precision() == "ieee"
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert kernel._precision() == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"


def test_cpus_and_compiled_code_take_the_plain_form(monkeypatch):
    assert not alignment_blocks.has_kernel(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    assert alignment_blocks.has_kernel(torch.device("cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(alignment_blocks, "_kernel_errors", [RuntimeError()])
        assert not alignment_blocks.has_kernel(torch.device("cuda"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not alignment_blocks.has_kernel(torch.device("cuda"))
