# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.

import textwrap
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from helpers.parity import PARITY_GROUPS, PARITY_SETS
from modeling_valor import alignment_blocks
from modeling_valor.alignment import (
    GROUPS,
    TokenSet,
    coarse_similarity,
    contrastive_loss,
    fine_similarity,
    grouped_similarity,
)


MODALITIES = ("text", "video", "audio")
INFINITY = float("inf")


def token_set(samples, tokens, width=8, mask=None, zero_padding=False, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeds = F.normalize(torch.randn(samples, tokens, width, generator=generator, dtype=dtype), dim=-1)
    logits = torch.randn(samples, tokens, generator=generator, dtype=dtype)
    return TokenSet(embeds, None if mask is None else torch.tensor(mask).bool(), logits, zero_padding)


def batch(zero_padding=False, dtype=torch.float64):
    """Four samples: a whole one, one with padding everywhere, one without audio, one without video; text 1 unpadded."""
    text_mask = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [1, 1, 1, 1, 0]]
    return {
        "text": token_set(4, 5, mask=text_mask, zero_padding=zero_padding, dtype=dtype, seed=1),
        "video": token_set(4, 3, mask=[[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=dtype, seed=2),
        "audio": token_set(4, 2, mask=[[1, 1], [0, 1], [0, 0], [1, 0]], dtype=dtype, seed=3),
    }


def select(tokens, samples):
    parts = (tokens.embeds, tokens.mask, tokens.weight_logits)
    return TokenSet(*(None if part is None else part[samples] for part in parts), tokens.zero_padding)


def reference_similarity(queries, candidates):
    """Eq. 3 for one pair of samples after the other."""

    def side(sets, sample):
        masks = [
            torch.ones_like(part.embeds[sample, :, 0]).bool() if part.mask is None else part.mask[sample]
            for part in sets
        ]
        valid = torch.cat([part.embeds[sample][mask] for part, mask in zip(sets, masks, strict=True)])
        weights = torch.cat(
            [part.weight_logits[sample][mask] for part, mask in zip(sets, masks, strict=True)]
        ).softmax(0)
        zeros = [
            valid.new_zeros(1, valid.shape[1])
            for part, mask in zip(sets, masks, strict=True)
            if part.zero_padding and mask.any() and not mask.all()
        ]
        return valid, weights, torch.cat([valid, *zeros])

    scores = torch.full((len(queries[0].embeds), len(candidates[0].embeds)), -INFINITY, dtype=queries[0].embeds.dtype)
    for row in range(scores.shape[0]):
        for column in range(scores.shape[1]):
            (a, a_weights, a_all), (b, b_weights, b_all) = side(queries, row), side(candidates, column)
            if len(a) and len(b):
                forth, back = (a @ b_all.T).amax(1) @ a_weights, (b @ a_all.T).amax(1) @ b_weights
                scores[row, column] = (forth + back) / 2
    return scores


def reference_group(tokens, group):
    query, candidates = GROUPS[group]
    return reference_similarity([tokens[query]], [tokens[candidate] for candidate in candidates])


def leaves_of(tokens):
    """The tokens with fresh leaves, and those leaves."""
    copies = {
        name: replace(
            part,
            embeds=part.embeds.clone().requires_grad_(),
            weight_logits=part.weight_logits.clone().requires_grad_(),
        )
        for name, part in tokens.items()
    }
    return copies, [leaf for part in copies.values() for leaf in (part.embeds, part.weight_logits)]


def finite_sum(similarity):
    """A scalar that weighs every score that is not -inf differently."""
    total = 0
    for score in similarity.values():
        weights = torch.linspace(-1, 2, score.numel(), dtype=score.dtype).view_as(score).sin()
        total = total + (score.masked_fill(score == -INFINITY, 0) * weights).sum()
    return total


@pytest.mark.parametrize("zero_padding", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_fine_similarity_equals_a_loop_over_pairs(group, zero_padding):
    tokens = batch(zero_padding)
    expected = reference_group(tokens, group)
    torch.testing.assert_close(grouped_similarity(**tokens, groups=[group])[group], expected)
    query, candidates = GROUPS[group]
    torch.testing.assert_close(fine_similarity([tokens[query]], [tokens[name] for name in candidates]), expected)


@pytest.mark.parametrize("zero_padding", [False, True])
def test_all_groups_of_one_pass_and_their_gradients_equal_a_loop_over_pairs(zero_padding):
    tokens, leaves = leaves_of(batch(zero_padding))
    similarity = grouped_similarity(**tokens, groups=GROUPS)
    expected = {group: reference_group(tokens, group) for group in GROUPS}
    assert list(similarity) == list(GROUPS)
    for group in GROUPS:
        torch.testing.assert_close(similarity[group], expected[group])
    gradients = torch.autograd.grad(finite_sum(similarity), leaves)
    expected_gradients = torch.autograd.grad(finite_sum(expected), leaves)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("options", [{}, {"fusion": "score"}, {"uniform_audiovisual": True}])
def test_gradients_equal_finite_differences(options):
    tokens, leaves = leaves_of(
        {
            "text": token_set(2, 3, width=3, mask=[[1, 1, 1], [1, 0, 1]], zero_padding=True, seed=1),
            "video": token_set(2, 2, width=3, mask=[[1, 1], [1, 0]], seed=2),
            "audio": token_set(2, 1, width=3, mask=[[1], [0]], seed=3),
        }
    )

    def scores(*leaves):
        given = {
            name: replace(part, embeds=leaves[2 * index], weight_logits=leaves[2 * index + 1])
            for index, (name, part) in enumerate(tokens.items())
        }
        similarity = grouped_similarity(**given, groups=GROUPS, **options)
        return tuple(score.masked_fill(score == -INFINITY, 0) for score in similarity.values())

    assert torch.autograd.gradcheck(scores, leaves, fast_mode=True)


@pytest.mark.parametrize("zero_padding", [False, True])
def test_the_plain_form_in_the_docstring_is_what_is_computed(zero_padding):
    names = {"torch": torch}
    code = "\n".join(line for line in alignment_blocks.__doc__.splitlines() if line.startswith("    "))
    exec(textwrap.dedent(code), names)
    tokens = batch(zero_padding=zero_padding)
    rows, columns = (
        replace(part, mask=torch.ones(part.embeds.shape[:2], dtype=torch.bool) if part.mask is None else part.mask)
        for part in (tokens["text"], tokens["video"])
    )
    expected = names["plain_scores"](rows, columns)
    torch.testing.assert_close(fine_similarity([rows], [columns]), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("block", [(1, 1), (7, 4), (12, 9), (11, 1000)])
def test_blocks_of_any_size_give_the_same_scores_and_gradients(block, monkeypatch):
    tokens, leaves = leaves_of(batch(zero_padding=True))
    expected = grouped_similarity(**tokens, groups=GROUPS)
    expected_gradients = torch.autograd.grad(finite_sum(expected), leaves)
    monkeypatch.setattr(alignment_blocks, "_CPU_BLOCK", block)
    similarity = grouped_similarity(**tokens, groups=GROUPS)
    torch.testing.assert_close(similarity, expected)
    torch.testing.assert_close(torch.autograd.grad(finite_sum(similarity), leaves), expected_gradients)


GIB = 2**30


@pytest.mark.parametrize(
    ("free", "row_tokens", "column_tokens", "itemsize", "block"),
    [
        (
            80 * GIB,
            43_008,
            10_240,
            2,
            (13_107, 10_240),
        ),  # 1,024 samples on an empty card: 2**27 similarities, all columns
        (80 * GIB, 688_128, 163_840, 2, (11_585, 11_585)),
        (80 * GIB, 688_128, 163_840, 4, (11_585, 11_585)),
        (80 * GIB, 2_688, 163_840, 2, (2_688, 49_932)),  # a rank's own 64 texts
        (2 * GIB, 688_128, 163_840, 4, (5_793, 5_792)),  # a quarter of 2 GiB holds 3 blocks of 2**25 * 4 bytes
        (2 * GIB, 688_128, 163_840, 2, (8_192, 8_192)),
        (0, 688_128, 163_840, 2, (2_896, 2_896)),  # 2**23 similarities at least
        (None, 688_128, 163_840, 2, (2_896, 2_896)),
        (80 * GIB, 0, 10, 2, (13_421_772, 10)),
    ],
)
def test_blocks_of_accelerators_fill_a_quarter_of_the_free_memory_at_most(
    free, row_tokens, column_tokens, itemsize, block
):
    rows, columns = alignment_blocks.accelerator_block(free, row_tokens, column_tokens, itemsize)
    assert (rows, columns) == pytest.approx(block, abs=1)
    if free:
        assert rows * columns * itemsize * 3 <= free / 4


@pytest.mark.parametrize("free", [None, 80 * GIB])
def test_blocks_of_accelerators_give_the_same_scores_and_gradients(free, monkeypatch):
    tokens, leaves = leaves_of(batch(zero_padding=True))
    expected = grouped_similarity(**tokens, groups=GROUPS)
    expected_gradients = torch.autograd.grad(finite_sum(expected), leaves)

    def block_size(rows, columns, dtype):
        return alignment_blocks.accelerator_block(free, rows[:, :, 0].numel(), columns[:, :, 0].numel(), 8)

    monkeypatch.setattr(alignment_blocks, "_ACCELERATOR_BLOCKS", (2**5, 2**8))
    monkeypatch.setattr(alignment_blocks, "_block_size", block_size)
    similarity = grouped_similarity(**tokens, groups=GROUPS)
    torch.testing.assert_close(similarity, expected)
    torch.testing.assert_close(torch.autograd.grad(finite_sum(similarity), leaves), expected_gradients)


def test_a_device_that_does_not_tell_its_free_memory_is_taken_for_a_full_one():
    assert alignment_blocks.free_memory(torch.device("meta")) is None


def test_groups_share_token_similarities_in_blocks_of_bounded_size(monkeypatch):
    sizes, similarities = [], alignment_blocks._Block.similarities

    def counted(block):
        sizes.append(similarities(block).numel())
        return similarities(block)

    monkeypatch.setattr(alignment_blocks._Block, "similarities", counted)
    monkeypatch.setattr(alignment_blocks, "_CPU_BLOCK", (20, 15))
    grouped_similarity(token_set(30, 5), token_set(40, 3), token_set(40, 2), ["t-v", "t-a", "t-av"])
    assert sum(sizes) == 30 * 5 * 40 * (3 + 2)
    assert max(sizes) == 20 * 15


@pytest.mark.parametrize(("zero_padding", "tokens"), [(False, 2 * 6 + 3 * 4 + 2 * 2), (True, 2 * 6 + 3 * 5 + 2 * 3)])
def test_padding_at_the_end_is_left_out_of_the_products(monkeypatch, zero_padding, tokens):
    lengths = [2, 6, 4, 4, 6, 2, 3]
    mask = [[position < length for position in range(6)] for length in lengths]
    text, video = token_set(7, 6, mask=mask, zero_padding=zero_padding, seed=1), token_set(4, 3, seed=2)
    sizes, similarities = [], alignment_blocks._Block.similarities
    monkeypatch.setattr(
        alignment_blocks._Block,
        "similarities",
        lambda block: sizes.append(block.left.shape[:2].numel()) or similarities(block),
    )
    # Blocks of two samples of 6 tokens, of three of 4 (or 5) and of the rest
    monkeypatch.setattr(alignment_blocks, "_CPU_BLOCK", (15, 100))
    score = grouped_similarity(text, video, None, ["t-v"])["t-v"]
    assert sum(sizes) == tokens
    torch.testing.assert_close(score, reference_similarity([text], [video]))


def test_numbers_of_queries_and_candidates_may_differ():
    tokens = batch()
    tokens["text"] = token_set(7, 6, seed=5)
    for group, score in grouped_similarity(**tokens, groups=["t-v", "t-a", "t-av"]).items():
        torch.testing.assert_close(score, reference_group(tokens, group))
    tokens = batch() | {"video": token_set(2, 4, seed=6)}
    torch.testing.assert_close(grouped_similarity(**tokens, groups=["v-ta"])["v-ta"], reference_group(tokens, "v-ta"))


def test_missing_modality_equals_scoring_the_other_alone():
    tokens = batch(zero_padding=True)
    joint = grouped_similarity(**tokens, groups=["t-av"])["t-av"]
    alone = grouped_similarity(tokens["text"], tokens["video"], None, ["t-v", "t-av"])
    torch.testing.assert_close(joint[:, 2], alone["t-v"][:, 2], rtol=0, atol=1e-15)
    assert torch.equal(alone["t-av"], alone["t-v"])
    mute = grouped_similarity(tokens["text"], tokens["video"], None, ["t-av"], fusion="score")["t-av"]
    summed = grouped_similarity(**tokens, groups=["t-av"], fusion="score")["t-av"]
    torch.testing.assert_close(mute[:, 2], summed[:, 2])


def test_missing_text_takes_no_part_even_where_padding_counts_as_zero():
    tokens = batch(zero_padding=True)
    tokens["text"].mask[0] = False
    joint = grouped_similarity(**tokens, groups=["v-ta", "a-tv", "t-av"])
    torch.testing.assert_close(joint["v-ta"][:, 0], grouped_similarity(**tokens, groups=["v-a"])["v-a"][:, 0])
    torch.testing.assert_close(joint["a-tv"], reference_group(tokens, "a-tv"))
    assert (joint["t-av"][0] == -INFINITY).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"fusion": "score"}, {"uniform_audiovisual": True}])
def test_nothing_left_scores_minus_infinity_with_finite_gradients(options, dtype):
    tokens = batch(dtype=torch.float32)
    tokens = {
        name: replace(part, embeds=part.embeds.to(dtype), weight_logits=part.weight_logits.to(dtype))
        for name, part in tokens.items()
    }
    tokens["video"].mask[2] = False
    tokens, leaves = leaves_of(tokens)
    similarity = grouped_similarity(**tokens, groups=GROUPS, **options)
    absent = torch.zeros(4, 4, dtype=torch.bool)
    absent[:, 2] = True
    assert torch.equal(similarity["t-av"] == -INFINITY, absent)
    assert (similarity["v-ta"][2:] == -INFINITY).all() and similarity["v-ta"][:2].isfinite().all()
    loss = sum(contrastive_loss(score, torch.tensor(4.6)) for score in similarity.values())
    for gradient in torch.autograd.grad(loss, leaves):
        assert gradient.isfinite().all() and gradient.any()


def test_padding_has_no_influence_whatever_it_holds():
    tokens = batch()
    expected, expected_leaves = leaves_of(tokens)
    garbage = {
        name: replace(part, embeds=part.embeds.masked_fill(~part.mask[..., None], float("nan")))
        for name, part in tokens.items()
    }
    spoiled, spoiled_leaves = leaves_of(garbage)
    expected = grouped_similarity(**expected, groups=GROUPS)
    similarity = grouped_similarity(**spoiled, groups=GROUPS)
    assert all(torch.equal(similarity[group], expected[group]) for group in GROUPS)
    expected_gradients = torch.autograd.grad(finite_sum(expected), expected_leaves)
    for gradient, expected_gradient in zip(
        torch.autograd.grad(finite_sum(similarity), spoiled_leaves), expected_gradients, strict=True
    ):
        assert torch.equal(gradient, expected_gradient)


def test_padded_text_counts_as_zero_in_maxima_over_the_text_only():
    """One word opposite to the frame, one padded: by hand 1/2 [-1 + max(-1, 0)], where exclusion gives 1/2 [-1 - 1]."""
    text = TokenSet(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]), torch.tensor([[True, False]]))
    video = TokenSet(torch.tensor([[[-1.0, 0.0]]]))
    assert grouped_similarity(replace(text, zero_padding=True), video, None, ["t-v"])["t-v"].item() == -0.5
    assert grouped_similarity(text, video, None, ["t-v"])["t-v"].item() == -1.0
    audio = TokenSet(torch.tensor([[[-1.0, 0.0]]]), torch.tensor([[False]]))
    joint = grouped_similarity(replace(text, zero_padding=True), video, audio, ["t-av", "v-ta"])
    assert joint["t-av"].item() == -0.5 and joint["v-ta"].item() == -0.5


def test_score_fusion_adds_uniform_scores_and_leaves_other_groups():
    tokens = batch()
    plain, fused = (grouped_similarity(**tokens, groups=GROUPS, fusion=fusion) for fusion in ("feature", "score"))
    assert all(torch.equal(plain[group], fused[group]) for group in GROUPS if group != "t-av")
    uniform = {
        name: replace(part, weight_logits=torch.zeros_like(part.weight_logits)) for name, part in tokens.items()
    }
    parts = [reference_group(uniform, group) for group in ("t-v", "t-a")]
    torch.testing.assert_close(fused["t-av"][:, :2], (parts[0] + parts[1])[:, :2])
    torch.testing.assert_close(fused["t-av"][:, 2:], torch.stack([parts[0][:, 2], parts[1][:, 3]], dim=1))


def test_uniform_weights_change_only_the_audiovisual_group():
    tokens = batch()
    plain, even = (grouped_similarity(**tokens, groups=GROUPS, uniform_audiovisual=value) for value in (False, True))
    assert all(torch.equal(plain[group], even[group]) for group in GROUPS if group != "t-av")
    uniform = {
        name: replace(part, weight_logits=torch.zeros_like(part.weight_logits)) for name, part in tokens.items()
    }
    torch.testing.assert_close(even["t-av"], reference_group(uniform, "t-av"))
    without_logits = {name: replace(part, weight_logits=None) for name, part in tokens.items()}
    assert torch.equal(even["t-av"], grouped_similarity(**without_logits, groups=["t-av"])["t-av"])


def test_repeated_frames_share_one_gradient():
    """A frame repeated three times, as for a still image, scores as the frame alone, and their gradients add up to its."""
    text, frame = token_set(2, 4, seed=1), token_set(2, 1, seed=2)
    one = frame.embeds.clone().requires_grad_()
    repeated = frame.embeds.repeat(1, 3, 1).requires_grad_()
    scores = [grouped_similarity(text, TokenSet(embeds), None, ["t-v"])["t-v"] for embeds in (one, repeated)]
    torch.testing.assert_close(scores[0], scores[1])
    (single,), (triple,) = (
        torch.autograd.grad(score.sin().sum(), leaf) for score, leaf in zip(scores, (one, repeated), strict=True)
    )
    torch.testing.assert_close(triple.sum(1, keepdim=True), single)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_in_float32_close_to_the_full_precision_ones(dtype):
    tokens, leaves = leaves_of(batch(dtype=torch.float32))
    half, half_leaves = leaves_of(
        {name: replace(part, embeds=part.embeds.to(dtype)) for name, part in batch(dtype=torch.float32).items()}
    )
    expected, similarity = grouped_similarity(**tokens, groups=GROUPS), grouped_similarity(**half, groups=GROUPS)
    for group in GROUPS:
        assert similarity[group].dtype == torch.float32
        torch.testing.assert_close(similarity[group], expected[group], rtol=0, atol=1e-2)
    gradients = torch.autograd.grad(finite_sum(similarity), half_leaves)
    for gradient, leaf, reference in zip(
        gradients, half_leaves, torch.autograd.grad(finite_sum(expected), leaves), strict=True
    ):
        assert gradient.dtype == leaf.dtype
        assert (gradient - reference).norm() < 0.02 * reference.norm()


def test_autocast_leaves_the_scores_as_they_are():
    tokens, leaves = leaves_of(batch(dtype=torch.float32))
    expected = grouped_similarity(**tokens, groups=GROUPS)
    expected_gradients = torch.autograd.grad(finite_sum(expected), leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        similarity = grouped_similarity(**tokens, groups=GROUPS)
        gradients = torch.autograd.grad(finite_sum(similarity), leaves)
        coarse = coarse_similarity(tokens["text"].embeds[:, 0], tokens["video"].embeds[:, 0], None, "t-v")
    assert all(torch.equal(similarity[group], expected[group]) for group in GROUPS)
    assert all(torch.equal(*pair) for pair in zip(gradients, expected_gradients, strict=True))
    assert torch.equal(coarse, tokens["text"].embeds[:, 0] @ tokens["video"].embeds[:, 0].T)


@pytest.mark.parametrize("name", PARITY_SETS)
def test_scores_and_losses_equal_the_2023_code(name, parity):
    recorded = parity(name)
    words = recorded.inputs["clip_tokens" if name == "clip-vision-clip-text" else "txt_tokens"]

    def tokens(modality, **options):
        embeds = recorded.expected[f"feat_{modality[0]}"]
        first, second = (
            {kind: recorded.checkpoint[f"{modality}_fine_weight.{layer}.{kind}"] for kind in ("weight", "bias")}
            for layer in (0, 2)
        )
        return TokenSet(
            embeds, weight_logits=F.linear(F.linear(embeds, **first).relu(), **second).squeeze(-1), **options
        )

    similarity = grouped_similarity(
        tokens("text", mask=words != 0, zero_padding=True), tokens("video"), tokens("audio"), GROUPS
    )
    if "videoswin" in name:
        logit_scale = -recorded.checkpoint["contra_temp"].log()
    else:
        logit_scale = recorded.checkpoint["clip_model.logit_scale"]
    for recorded_group, group in PARITY_GROUPS.items():
        torch.testing.assert_close(similarity[group], recorded.expected[f"score_{recorded_group}"], rtol=0, atol=2e-5)
        loss = contrastive_loss(similarity[group], logit_scale)
        torch.testing.assert_close(loss, recorded.expected[f"contra_loss_{recorded_group}"], rtol=0, atol=2e-5)


def test_coarse_similarity_is_a_dot_product_and_score_fusion_the_sum_of_what_is_there():
    text, video, audio, fused = (token_set(4, 1, seed=seed).embeds[:, 0] for seed in range(4))
    video_present, audio_present = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]]).bool()
    present = {"video_present": video_present, "audio_present": audio_present}
    text_video, text_audio = text @ video.T, text @ audio.T
    torch.testing.assert_close(coarse_similarity(text, video, audio, "t-v"), text_video)
    torch.testing.assert_close(coarse_similarity(text, video, audio, "t-a"), text_audio)
    torch.testing.assert_close(coarse_similarity(text, video, audio, "t-av"), text_video + text_audio)
    torch.testing.assert_close(coarse_similarity(text, video, None, "t-av"), text_video)
    torch.testing.assert_close(coarse_similarity(text, video, audio, "t-av", audiovisual=fused), text @ fused.T)

    nothing = torch.full((4,), -INFINITY, dtype=text.dtype)
    missing = coarse_similarity(text, video, audio, "t-v", **present)
    torch.testing.assert_close(missing, torch.stack([*text_video.T[:2], nothing, nothing], dim=1))
    summed = coarse_similarity(text, video, audio, "t-av", **present)
    expected = torch.stack([(text_video + text_audio)[:, 0], text_video[:, 1], text_audio[:, 2], nothing], dim=1)
    torch.testing.assert_close(summed, expected)
    joint = coarse_similarity(text, video, audio, "t-av", audiovisual=fused, **present)
    torch.testing.assert_close(joint, torch.cat([(text @ fused.T)[:, :3], nothing[:, None]], dim=1))


def test_contrastive_loss_is_the_mean_of_row_and_column_cross_entropies():
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = similarity * torch.tensor(1.3, dtype=torch.float64).exp()
    expected = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits.T, torch.arange(5))) / 2
    torch.testing.assert_close(contrastive_loss(similarity, 1.3), expected)
    torch.testing.assert_close(contrastive_loss(similarity, torch.tensor(1.3, dtype=torch.float64)), expected)


def test_dropped_pairs_equal_a_batch_without_them():
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logit_scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    few = similarity[1:4, 1:4].clone().requires_grad_()
    expected = contrastive_loss(few, logit_scale)
    expected_gradients = torch.autograd.grad(expected, (few, logit_scale))
    similarity[:, 4] = -INFINITY
    similarity.requires_grad_()
    loss = contrastive_loss(similarity, logit_scale, keep=torch.tensor([False, True, True, True, True]))
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, (similarity, logit_scale))
    torch.testing.assert_close(gradients[0], F.pad(expected_gradients[0], (1, 1, 1, 1)))
    torch.testing.assert_close(gradients[1], expected_gradients[1])


def test_loss_of_broken_scores_is_not_hidden():
    assert contrastive_loss(torch.full((2, 2), float("nan")), 1.0).isnan()


def test_no_sample_gives_an_empty_matrix_and_no_loss():
    tokens = {name: select(part, slice(0)) for name, part in batch().items()}
    similarity = grouped_similarity(**tokens, groups=["t-av"])["t-av"]
    assert similarity.shape == (0, 0) and contrastive_loss(similarity, 1.0) == 0


def test_loss_of_no_pair_is_zero_with_zero_gradients():
    similarity = torch.full((3, 3), -INFINITY, requires_grad=True)
    logit_scale = torch.tensor(2.0, requires_grad=True)
    loss = contrastive_loss(similarity, logit_scale)
    assert loss.item() == 0
    gradients = torch.autograd.grad(loss, (similarity, logit_scale))
    assert not gradients[0].any() and gradients[1] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tokens: grouped_similarity(**tokens, groups=["t-b"]), 'Group "t-b" was given; t-v, t-a'),
        (lambda tokens: grouped_similarity(**tokens, groups=["t-v"], fusion="late"), 'fusion="late" was given'),
        (lambda tokens: grouped_similarity(tokens["text"], None, None, ["t-v"]), "tokens given are of text"),
        (lambda tokens: grouped_similarity(None, tokens["video"], None, ["v-ta"]), "compares video with text and audio"),
        (lambda tokens: grouped_similarity(tokens["text"], tokens["video"], token_set(2, 2), ["t-av"]), "numbers of samples"),
        (lambda tokens: grouped_similarity(tokens["text"], token_set(4, 2, width=6), None, ["t-v"]), r"widths \[6, 8\]"),
        (lambda tokens: TokenSet(torch.zeros(2, 8)), r"shape \(2, 8\)"),
        (lambda tokens: TokenSet(torch.zeros(2, 0, 8)), "at least one token"),
        (lambda tokens: TokenSet(torch.zeros(2, 3, 8), torch.ones(2, 4).bool()), r"mask of shape \(2, 4\)"),
        (lambda tokens: TokenSet(torch.zeros(2, 3, 8), torch.ones(2, 3)), "pass a bool mask"),
        (lambda tokens: TokenSet(torch.zeros(2, 3, 8), weight_logits=torch.ones(2)), r"weight_logits of shape \(2,\)"),
        (lambda tokens: coarse_similarity(*torch.zeros(3, 2, 8), "v-a"), "coarse alignment has t-v, t-a, t-av only"),
        (lambda tokens: coarse_similarity(torch.zeros(2, 8), None, None, "t-av"), "without the embeddings"),
        (lambda tokens: contrastive_loss(torch.zeros(2, 3), 1.0), "takes a square matrix"),
    ],
)  # fmt: skip
def test_bad_input_raises_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(batch())
