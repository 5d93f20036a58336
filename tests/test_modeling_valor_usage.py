# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What users do with any transformers model: precision, attention, loading, adapters, offloading, compilation."""

import warnings

import pytest
import torch
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from helpers.tiny import MIXED, PROMPT, SEP, SWIN, tiny_batch, tiny_config, tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorModel,
)


BERT = {"model_type": "bert", "vocab_size": 200, "hidden_size": 24, "num_hidden_layers": 1}
BERT |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 20}


NO_FRAMES, NO_SOUND = ({name: torch.zeros(3, 2, dtype=torch.bool)} for name in ("frame_mask", "audio_mask"))


MASKS = {
    "no mask": {},
    "everything is there": {name: torch.ones_like(mask) for name, mask in MIXED.items()},
    "mixed": MIXED,
    "a sample without anything": {
        name: mask & torch.tensor([[True], [False], [True]]) for name, mask in MIXED.items()
    },
    "no frames": NO_FRAMES,
    "no sound": NO_SOUND,
    "nothing at all": NO_FRAMES | NO_SOUND,
    "a sample without text": {"attention_mask": torch.tensor([[1] * 7, [0] * 7, [1] * 7])},
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize(
    "options", [{}, {"alignment": "coarse"}, {"vision_config": SWIN}], ids=["fine", "coarse", "swin"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close_to_float32_whatever_is_masked(dtype, options, masks):
    """Embeddings, losses and gradients of both tasks; what is masked has no embedding and no gradient."""
    results = []
    for precision in (torch.float32, dtype):
        model = tiny_model(ValorForPreTraining, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        model = model.to(precision)
        batch = tiny_batch() | MASKS[masks]
        batch |= {"decoder_input_ids": batch["input_ids"], "labels": batch["input_ids"]}
        batch = {name: v.to(precision) if v.is_floating_point() else v for name, v in batch.items()}
        outputs = model(**batch)
        outputs.loss.backward()
        gradients = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])
        results.append([outputs, gradients])
    (expected, expected_gradients), (actual, gradients) = results
    tolerance = {torch.float16: 0.01, torch.bfloat16: 0.06}[dtype]
    for name in ("loss", "text_embeds", "video_embeds", "audio_embeds"):
        torch.testing.assert_close(actual[name].float(), expected[name], atol=tolerance, rtol=tolerance)
    # Loosely, as similarities that are the same in half precision share the gradient of their maximum
    assert (gradients - expected_gradients).norm() <= 0.3 * expected_gradients.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["concat", "parallel", "audio_visual", "merge"])
def test_half_precision_decoder_is_finite_whatever_is_masked(kind, dtype):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind).to(dtype)
    model.set_attn_implementation("eager" if kind == "concat" else "sdpa")
    batch = {name: v.to(dtype) if v.is_floating_point() else v for name, v in tiny_batch().items()}
    for masks in MASKS.values():
        model.zero_grad()
        outputs = model(**batch | masks, labels=batch["input_ids"])
        outputs.loss.backward()
        assert outputs.logits.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tiny_model(ValorForPreTraining, caption_prompt_ids=PROMPT).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("vision", [None, SWIN], ids=["clip", "swin"])
def test_sdpa_and_eager_agree(vision):
    model = tiny_model(ValorForPreTraining, **({} if vision is None else {"vision_config": vision}))
    batch = tiny_batch(frames=3)
    losses = []
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        torch.manual_seed(0)
        losses.append(model(**batch).loss)
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("vision", "name", "instead"),
    [(SWIN, "ValorVideoSwinModel", "sdpa"), ({"model_type": "convnext", "depths": [1] * 4}, "ConvNextModel", "eager")],
    ids=["swin", "convnext"],
)
def test_parts_that_cannot_take_an_attention_implementation_say_so_once(caplog, vision, name, instead):
    logging.enable_propagation()
    logging.warning_once.cache_clear()
    config = tiny_config(vision_config=vision, text_encoder_config=BERT)
    model = ValorForCaptioning._from_config(config, attn_implementation="flex_attention")
    changed = ValorForCaptioning(tiny_config(vision_config=vision, text_encoder_config=BERT))
    changed.set_attn_implementation("flex_attention")
    logging.disable_propagation()
    for valor in (model.valor, changed.valor):
        assert valor.vision_model.config._attn_implementation == instead
        for part in (valor, valor.text_model, valor.audio_model, valor.text_encoder):
            assert part.config._attn_implementation == "flex_attention"
    message = f"{name} does not support flex_attention and uses {instead}; the other parts use it."
    assert [text for text in caplog.messages if "flex" in text] == [message]
    changed.set_attn_implementation({"vision_config": "eager", "audio_config": "sdpa"})
    assert changed.valor.vision_model.config._attn_implementation == "eager"
    assert changed.valor.audio_model.config._attn_implementation == "sdpa"
    assert changed.valor.text_model.config._attn_implementation == "flex_attention"


def test_attention_implementation_of_a_checkpoint_is_chosen_at_loading(tmp_path):
    tiny_model(ValorForPreTraining, vision_config=SWIN).save_pretrained(tmp_path)
    for load in (AutoModel, ValorForCaptioning):
        model = load.from_pretrained(tmp_path, attn_implementation="flex_attention")
        valor = getattr(model, "valor", model)
        implementations = [part.config._attn_implementation for part in (valor.vision_model, valor.text_model)]
        assert implementations == ["sdpa", "flex_attention"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_full(saved, dtype):
    batch = tiny_batch()
    full, half = (ValorForCaptioning.from_pretrained(saved, dtype=d).eval() for d in (torch.float32, dtype))
    assert half.valor.logit_scale.dtype == dtype
    with torch.no_grad():
        expected = full(**batch, captioning_groups=["t-av"]).logits
        logits = half(**batch, captioning_groups=["t-av"]).logits
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, atol=0.1 * expected.abs().max().item(), rtol=0.1)
        scores = half.valor(**batch).similarity["t-av"]
        torch.testing.assert_close(scores.float(), full.valor(**batch).similarity["t-av"], atol=0.05, rtol=0.05)
    half.generate(pixel_values_videos=batch["pixel_values_videos"].to(dtype), num_beams=2, max_new_tokens=3)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["concat", "parallel", "merge"])
def test_gradient_checkpointing_gives_the_same_gradients(kind, reentrant):
    batch, grads = tiny_batch(), []
    for checkpointing in (False, True):
        model = tiny_model(ValorForPreTraining, cross_attention_type=kind, caption_prompt_ids=PROMPT).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(3)
        model(**batch).loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cls", [ValorModel, ValorForRetrieval, ValorForCaptioning, ValorForQuestionAnswering])
def test_every_class_loads_from_a_pretraining_checkpoint_without_a_word(saved, cls):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = cls.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    base = model if cls is ValorModel else model.valor
    expected = tiny_model(ValorForPreTraining, caption_prompt_ids=PROMPT).valor.state_dict()
    for name, value in base.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_auto_classes_know_valor(saved):
    assert AutoConfig.from_pretrained(saved).model_type == "valor"
    model = AutoModel.from_pretrained(saved)
    assert type(model) is ValorModel


def test_configuration_can_be_overridden_while_loading(saved):
    model = ValorForRetrieval.from_pretrained(saved, audiovisual_fusion="score", alignment_groups=["t-av"])
    outputs = model(**tiny_batch())
    assert list(outputs.similarity) == ["t-av"]
    scores = model.valor(**tiny_batch(), alignment_groups=["t-v", "t-a"]).similarity
    assert not torch.allclose(outputs.similarity["t-av"], scores["t-v"])


def test_sharded_safetensors_load_back(saved, tmp_path):
    model = ValorForPreTraining.from_pretrained(saved)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = ValorForPreTraining.from_pretrained(tmp_path, device_map="cpu")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.lm_head.decoder.weight is again.valor.text_model.embeddings.word_embeddings.weight


def test_disk_offload_gives_the_same_captions(saved, tmp_path):
    batch = tiny_batch()
    inputs = {name: batch[name] for name in ("pixel_values_videos", "input_features")}
    whole = ValorForCaptioning.from_pretrained(saved)
    parts = {"valor.vision_model": "cpu", "valor.audio_model": "disk", "valor.text_model": "cpu", "lm_head": "cpu"}
    rest = [name for name, _ in whole.valor.named_children() if f"valor.{name}" not in parts]
    device_map = {**parts, **{f"valor.{name}": "cpu" for name in rest}, "valor.logit_scale": "cpu"}
    offloaded = ValorForCaptioning.from_pretrained(saved, device_map=device_map, offload_folder=tmp_path)
    assert torch.equal(offloaded.generate(**inputs, max_new_tokens=4), whole.generate(**inputs, max_new_tokens=4))


def outputs_of(model) -> list[torch.Tensor]:
    """What a head gives for a batch, by all of its ways: losses, scores, texts with and without beams."""
    batch = tiny_batch()
    media = {name: batch[name] for name in ("pixel_values_videos", "input_features")}
    torch.manual_seed(0)
    with torch.no_grad():
        if isinstance(model, (ValorModel, ValorForRetrieval)):
            mixed = model(**batch, **MIXED, return_loss=False).similarity["t-av"]
            return [model(**batch, return_loss=True).loss, model.score(batch, media), mixed]
        if isinstance(model, ValorForPreTraining):
            return [model(**batch).loss]
        question = {}
        if isinstance(model, ValorForQuestionAnswering):
            question["question_input_ids"] = batch["input_ids"]
        texts = [model.generate(**media, **question, max_new_tokens=3, num_beams=beams) for beams in (1, 2)]
        return [model(**batch, **question, labels=batch["input_ids"]).loss, *texts]


PROMPTS = {"caption_prompt_ids": PROMPT, "question_prompt_ids": [110, 111], "retrieval_prompt_ids": PROMPT}


@pytest.mark.parametrize("device_map", ["auto", "parts"])
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (ValorModel, {"text_encoder_config": BERT, **PROMPTS}),
        (ValorForRetrieval, {"alignment": "coarse"}),
        (ValorForPreTraining, {"vision_config": SWIN, "cross_attention_type": "parallel"}),
        (ValorForCaptioning, PROMPTS),
        (ValorForQuestionAnswering, {"cross_attention_type": "merge", **PROMPTS}),
    ],
)
def test_every_part_may_be_offloaded(tmp_path, cls, options, device_map):
    """ "parts": each of the model's parts lies on the disk, so that all weights are there only while they are used."""
    tiny_model(cls, **options).save_pretrained(tmp_path)
    whole = cls.from_pretrained(tmp_path).eval()
    base = getattr(whole, "valor", whole)
    prefix = "" if base is whole else "valor."
    placing = {"device_map": "auto", "max_memory": {"cpu": 150_000}}
    if device_map == "parts":
        parts = [f"{prefix}{name}" for name, _ in base.named_children()]
        parts += [name for name, _ in whole.named_children() if name == "lm_head"]
        placing = {"device_map": {**dict.fromkeys(parts, "disk"), f"{prefix}logit_scale": "cpu"}}
    offloaded = cls.from_pretrained(tmp_path, offload_folder=tmp_path / "offload", **placing).eval()
    assert "disk" in offloaded.hf_device_map.values()
    for output, expected in zip(outputs_of(offloaded), outputs_of(whole), strict=True):
        torch.testing.assert_close(output, expected)


def test_lora_trains_adapters_only(saved, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        ValorForPreTraining.from_pretrained(saved), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    )
    model(**tiny_batch()).loss.backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained and all("lora_" in name for name in trained)
    assert {part for part in ("vision_model", "audio_model", "text_model") for name in trained if part in name} == {
        "vision_model",
        "audio_model",
        "text_model",
    }
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(ValorForPreTraining.from_pretrained(saved), tmp_path)
    features = [m.eval().base_model.model.valor.get_text_embeds(tiny_batch()["input_ids"]) for m in (model, again)]
    torch.testing.assert_close(*features)


@pytest.mark.parametrize("part", ["text", "vision", "audio"])
def test_encoders_compile_without_graph_breaks(part):
    model, batch = tiny_model(ValorModel), tiny_batch()
    module, inputs = {
        "text": (model.text_model, (batch["input_ids"], batch["attention_mask"])),
        "vision": (model.vision_model, (batch["pixel_values_videos"].flatten(0, 1),)),
        "audio": (model.audio_model, (batch["input_features"].flatten(0, 1),)),
    }[part]
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="eager")(*inputs).last_hidden_state
        torch.testing.assert_close(compiled, module(*inputs).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_vocabulary_can_grow(saved):
    model = ValorForCaptioning.from_pretrained(saved)
    model.resize_token_embeddings(210)
    assert model.lm_head.decoder.weight.shape == (210, 32) and model.lm_head.decoder.bias.shape == (210,)
    assert model.lm_head.decoder.weight is model.get_input_embeddings().weight
    frames = tiny_batch(size=1)["pixel_values_videos"]
    outputs = model(input_ids=torch.tensor([[101, 205, SEP]]), pixel_values_videos=frames)
    assert outputs.logits.shape == (1, 3, 210)
