# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The text stack against a second implementation of Figure 7, and what it shares between groups and beams."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from helpers.tiny import CLS, MIXED, PROMPT, alone, tiny_batch, tiny_config, tiny_model
from modeling_valor import ValorForCaptioning, ValorTextModel
from modeling_valor.modeling_valor_text import ConditionCache, ValorConditions


CROSS_ATTENTION_TYPES = ["concat", "parallel", "audio_visual", "visual_audio", "merge"]


def reference(model, input_ids, prompt_ids, video, audio, causal):
    """One sample through the stack, written as the equations are, with explicit masks and no batching."""
    text, kind = model.valor.text_model, model.config.cross_attention_type
    embed, heads = text.embeddings, text.config.num_attention_heads

    def embedded(ids, type_vector):
        return embed.norm(embed.word_embeddings(ids) + embed.position_embeddings.weight[: len(ids)] + type_vector)

    def attend(block, queries, states, allowed=None):
        q, k, v = (
            layer(x).view(len(x), heads, -1).transpose(0, 1)
            for layer, x in ((block.q_proj, queries), (block.k_proj, states), (block.v_proj, states))
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        return block.out_proj((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))

    parts = [embedded(prompt_ids, embed.prompt_embedding)] if prompt_ids is not None else []
    if kind == "merge":
        parts += [states for states in (video, audio) if states is not None]
    parts.append(embedded(input_ids, embed.token_type_embeddings.weight[0]))
    x = torch.cat(parts)
    prefix = len(x) - len(input_ids)
    allowed = torch.ones(len(x), len(x), dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
        allowed[:prefix, :prefix] = True
    for layer in text.layers:
        x = layer.self_attention_norm(x + attend(layer.self_attention, x, x, allowed))
        blocks, both = layer.cross_attention, [states for states in (video, audio) if states is not None]
        if kind == "concat" and both:
            x = blocks["audiovisual"].norm(x + attend(blocks["audiovisual"], x, torch.cat(both)))
        elif kind == "parallel" and both:
            x = sum(
                blocks[name].norm(x + attend(blocks[name], x, states))
                for name, states in (("video", video), ("audio", audio))
                if states is not None
            )
        elif kind in ("audio_visual", "visual_audio"):
            order = [("video", video), ("audio", audio)]
            for name, states in order[::-1] if kind == "audio_visual" else order:
                if states is not None:
                    x = blocks[name].norm(x + attend(blocks[name], x, states))
        x = layer.mlp_norm(x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(x))))
    return x[prefix:]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("prompt", [None, PROMPT], ids=["no_prompt", "prompt"])
@pytest.mark.parametrize("kind", CROSS_ATTENTION_TYPES)
def test_decoder_is_figure_7(kind, prompt, attention):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind, caption_prompt_ids=prompt)
    model.set_attn_implementation(attention)
    batch = tiny_batch()
    prompt_ids = None if prompt is None else torch.tensor(prompt)
    with torch.no_grad():
        conditions = model.valor.encode_conditions(batch["pixel_values_videos"], None, batch["input_features"])
        for group, video, audio in (("t-v", True, False), ("t-a", False, True), ("t-av", True, True)):
            logits = model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                conditions=conditions,
                captioning_groups=[group],
            ).logits
            for i, ids in enumerate(batch["input_ids"]):
                ids = ids[ids != 0]
                states = reference(
                    model,
                    ids,
                    prompt_ids,
                    conditions.video[i] if video else None,
                    conditions.audio[i] if audio else None,
                    causal=True,
                )
                torch.testing.assert_close(logits[i, : len(ids)], model.lm_head(states), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [None, PROMPT], ids=["no_prompt", "prompt"])
def test_encoder_sees_text_and_prompt_both_ways_and_no_conditions(prompt):
    model = tiny_model(ValorForCaptioning, retrieval_prompt_ids=prompt)
    batch = tiny_batch()
    with torch.no_grad():
        encoded = model.valor.encode_text(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        for ids, row in zip(batch["input_ids"], encoded, strict=True):
            ids = ids[ids != 0]
            prompt_ids = None if prompt is None else torch.tensor(prompt)
            expected = reference(model, ids, prompt_ids, None, None, causal=False)
            torch.testing.assert_close(row[: len(ids)], expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [None, PROMPT], ids=["no_prompt", "prompt"])
@pytest.mark.parametrize("kind", CROSS_ATTENTION_TYPES)
def test_missing_modality_equals_running_alone(kind, prompt):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind, caption_prompt_ids=prompt)
    batch = tiny_batch()
    with torch.no_grad():
        together = model(**batch, **MIXED, captioning_groups=["t-av"]).logits
        for sample in range(3):
            single = model(**alone(batch, sample)).logits[0]
            valid = batch["attention_mask"][sample].bool()
            torch.testing.assert_close(together[sample][valid], single[valid], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", CROSS_ATTENTION_TYPES)
def test_a_sample_without_any_modality_is_plain_text(kind):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind)
    batch = tiny_batch()
    nothing = {"frame_mask": torch.zeros(3, 2).bool(), "audio_mask": torch.zeros(3, 2).bool()}
    nothing["frame_mask"][0], nothing["audio_mask"][0] = True, True
    logits = model(**batch, **nothing, captioning_groups=["t-av"]).logits
    plain = model.valor.text_model(batch["input_ids"], batch["attention_mask"], is_causal=True, use_cache=False)
    torch.testing.assert_close(logits[1:], model.lm_head(plain.last_hidden_state)[1:], atol=2e-5, rtol=1e-5)
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", CROSS_ATTENTION_TYPES)
def test_groups_side_by_side_equal_groups_one_by_one(kind):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind, caption_prompt_ids=PROMPT)
    batch = tiny_batch()
    conditions = model.valor.encode_conditions(
        batch["pixel_values_videos"], MIXED["frame_mask"], batch["input_features"], MIXED["audio_mask"]
    )
    groups = [("video",), ("audio",), ("video", "audio")]
    prompt = torch.tensor([PROMPT])
    run = lambda groups: model.valor.text_model(  # noqa: E731
        batch["input_ids"], batch["attention_mask"], prompt_input_ids=prompt, conditions=conditions, groups=groups,
        is_causal=True, use_cache=False,
    ).last_hidden_state  # fmt: skip
    separately = torch.cat([run([group]) for group in groups])
    torch.testing.assert_close(run(groups), separately, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["concat", "parallel", "audio_visual", "visual_audio"])
def test_keys_and_values_are_projected_once_per_layer_for_all_groups(kind):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind)
    batch = tiny_batch()
    calls = []
    for name, module in model.named_modules():
        if "cross_attention" in name and name.endswith(("k_proj", "v_proj")):
            module.register_forward_hook(lambda _, args, __, name=name: calls.append((name, args[0].shape)))
    model(**batch, labels=batch["input_ids"], captioning_groups=["t-v", "t-a", "t-av"])
    assert len(calls) == len({name for name, _ in calls}) > 0
    assert {shape[0] for _, shape in calls} == {3}


def test_rows_that_share_conditions_equal_rows_with_their_own():
    model = tiny_model(ValorForCaptioning).valor.text_model
    conditions = ValorConditions(video=torch.randn(2, 6, 32), video_mask=torch.rand(2, 6) > 0.4)
    repeated = ValorConditions(
        video=conditions.video.repeat_interleave(3, 0), video_mask=conditions.video_mask.repeat_interleave(3, 0)
    )
    ids = torch.randint(104, 200, (6, 5))
    torch.testing.assert_close(
        model(ids, conditions=conditions, is_causal=True, use_cache=False).last_hidden_state,
        model(ids, conditions=repeated, is_causal=True, use_cache=False).last_hidden_state,
        atol=1e-5,
        rtol=1e-5,
    )


def test_condition_cache_does_not_follow_beams():
    cache = ConditionCache()
    cache.update(torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8), 0)
    before = cache.layers[0].keys
    cache.reorder_cache(torch.tensor([1, 1, 0, 0]))
    cache.batch_repeat_interleave(2)
    assert cache.layers[0].keys is before


def test_text_longer_than_the_positions_is_refused():
    model = tiny_model(ValorForCaptioning).valor.text_model
    with pytest.raises(ValueError, match=r"60 tokens.*48\s+positions"):
        model(torch.full((1, 60), CLS))


def test_flash_attention_with_a_prompt_is_refused():
    model = tiny_model(ValorForCaptioning).valor.text_model
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="sdpa"):
        model(torch.tensor([[CLS, 110]]), prompt_input_ids=torch.tensor([PROMPT]), is_causal=True)


def test_unknown_cross_attention_type_is_refused():
    with pytest.raises(Exception, match="cross_attention_type"):
        tiny_config(cross_attention_type="mixture")


def test_a_saved_text_model_keeps_its_cross_attention_blocks(tmp_path):
    model = tiny_model(ValorForCaptioning, cross_attention_type="parallel").valor.text_model
    model.save_pretrained(tmp_path)
    loaded, info = ValorTextModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert list(loaded.layers[0].cross_attention) == ["audio", "video"]
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())


def test_configurations_that_have_the_type_of_the_whole_model_still_load(tmp_path):
    """`config.json` as it was written before `ValorTextConfig` had the field."""
    model = tiny_model(ValorForCaptioning, cross_attention_type="visual_audio")
    model.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert "cross_attention_type" not in fields
    fields["cross_attention_type"] = fields["text_config"].pop("cross_attention_type")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    loaded, info = ValorForCaptioning.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.config.cross_attention_type == loaded.config.text_config.cross_attention_type == "visual_audio"
    assert not info["missing_keys"] and not info["unexpected_keys"]
    other = ValorForCaptioning.from_pretrained(tmp_path, cross_attention_type="concat")
    assert list(other.valor.text_model.layers[0].cross_attention) == ["audiovisual"]


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (ValorForCaptioning, {"cross_attention_type": "mixture"}, "cross_attention_type"),
        (ValorForCaptioning, {"text_config": {"num_attention_heads": 5}}, "num_attention_heads"),
        (ValorTextModel, {"cross_attention_type": "mixture"}, "cross_attention_type"),
        (ValorTextModel, {"num_attention_heads": 5}, "must be a multiple of `num_attention_heads`"),
    ],
)
def test_overrides_in_from_pretrained_are_validated(cls, options, message, tmp_path):
    model = tiny_model(ValorForCaptioning)
    (model if cls is ValorForCaptioning else model.valor.text_model).save_pretrained(tmp_path)
    with pytest.raises(Exception, match=message):
        cls.from_pretrained(tmp_path, **options)
