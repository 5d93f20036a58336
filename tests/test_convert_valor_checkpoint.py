# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import errno
import json
import math
import pickle
import resource
import warnings
import zipfile

import pytest
import safetensors.torch
import torch
from transformers import AutoProcessor, AutoTokenizer, GenerationConfig

from helpers.parity import PARITY_SETS
from modeling_valor import (
    ValorConfig,
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorModel,
)
from modeling_valor.cli.main import main
from modeling_valor.conversion.files import read_checkpoint, read_torch_file
from modeling_valor.convert_valor_checkpoint import (
    ConversionError,
    build_processor,
    config_from_checkpoint,
    convert,
    convert_state_dict,
)


CLIP, SWIN, CLIP_TEXT = PARITY_SETS


@pytest.fixture
def clip(parity):
    return parity(CLIP)


@pytest.fixture
def swin(parity):
    return parity(SWIN)


def without_prompts(recorded, **options):
    return {**recorded.hps, "use_task_prompt": False, **options}


def rename(checkpoint, old, *new):
    """The checkpoint with each tensor whose name holds `old` once under every one of the `new` names."""
    return {
        name: tensor
        for key, tensor in checkpoint.items()
        for name in ([key.replace(old, part) for part in new] if old in key else [key])
    }


def without(checkpoint, *parts):
    return {key: tensor for key, tensor in checkpoint.items() if not any(part in key for part in parts)}


def assert_same_tensors(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- Whole conversions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARITY_SETS)
@pytest.mark.parametrize(
    "model_class",
    [ValorModel, ValorForPreTraining, ValorForRetrieval, ValorForCaptioning, ValorForQuestionAnswering],
)
def test_every_class_loads_a_converted_checkpoint_completely(converted, name, model_class):
    _, info = model_class.from_pretrained(converted(name), output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"] and not info["error_msgs"]
    assert all(key.startswith("lm_head.") for key in info["unexpected_keys"])


@pytest.mark.parametrize("name", PARITY_SETS)
def test_no_number_is_lost(parity, name):
    recorded = parity(name)
    config = config_from_checkpoint(recorded.checkpoint, without_prompts(recorded))
    tensors, unused = convert_state_dict(recorded.checkpoint, config)
    kept = sum(tensor.numel() for key, tensor in tensors.items() if key != "lm_head.decoder.weight")
    left_out = sum(recorded.checkpoint[key].numel() for key in unused)
    assert kept + left_out == sum(tensor.numel() for tensor in recorded.checkpoint.values())


def test_summary_names_what_was_left_out(clip, tmp_path):
    safetensors.torch.save_file(clip.checkpoint, tmp_path / "model.safetensors")
    summary = convert(tmp_path / "model.safetensors", clip.hps, clip.vocab, tmp_path / "converted")
    checkpoint = clip.checkpoint
    tower = [key for key in checkpoint if key.startswith("clip_model.transformer.")]
    assert summary.left_out["clip_model.transformer"] == [len(tower), sum(checkpoint[key].numel() for key in tower)]
    assert summary.left_out["multimodal_encoder.pooler"] == [2, 128 * 128 + 128]
    assert summary.left_out["contra_temp"] == [1, 1]
    assert summary.num_parameters == sum(
        p.numel() for p in ValorForPreTraining.from_pretrained(tmp_path / "converted").parameters()
    )
    assert "clip_model.token_embedding" in str(summary) and f"{summary.num_parameters:,}" in str(summary)
    assert json.loads(json.dumps(summary.to_dict()))["num_parameters"] == summary.num_parameters


def test_pytorch_file_with_prefix_repeats_and_buffers_gives_the_same_folder(swin, converted, tmp_path):
    checkpoint = {**swin.checkpoint, **{alias: swin.checkpoint[key] for alias, key in swin.aliases.items()}}
    index = "video_encoder.layers.0.blocks.0.attn.relative_position_index"
    checkpoint[index] = torch.zeros(392, 392, dtype=torch.long)
    torch.save({f"module.{key}": tensor for key, tensor in checkpoint.items()}, tmp_path / "model_step_7.pt")
    summary = convert(tmp_path / "model_step_7.pt", swin.hps, swin.vocab, tmp_path / "converted")
    files = [folder / "model.safetensors" for folder in (tmp_path / "converted", converted(SWIN))]
    assert_same_tensors(*map(safetensors.torch.load_file, files))
    assert summary.left_out["video_encoder.*.relative_position_index"] == [1, 392 * 392]
    assert summary.left_out["cls.decoder"] == [1, 1024 * 128]


def test_old_pytorch_file_format_is_read(swin, tmp_path):
    torch.save(swin.checkpoint, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "model.pt", swin.hps, None, tmp_path / "converted").num_parameters > 2_000_000


def test_folder_of_a_2023_run_is_taken_at_its_latest_step(swin, tmp_path):
    (tmp_path / "run" / "ckpt").mkdir(parents=True)
    (tmp_path / "run" / "log").mkdir()
    (tmp_path / "run" / "log" / "hps.json").write_text(json.dumps(swin.hps))
    (tmp_path / "run" / "ckpt" / "model_step_900.pt").write_bytes(b"an older one")
    torch.save(swin.checkpoint, tmp_path / "run" / "ckpt" / "model_step_1000.pt")
    summary = convert(tmp_path / "run", None, None, tmp_path / "converted")
    assert summary.checkpoint.endswith("model_step_1000.pt")


@pytest.fixture(scope="module")
def downloads(parity, tmp_path_factory):
    """Folder of a zip as it is downloaded, of a run with two steps and a fine-tuned checkpoint of other numbers, and of that run."""
    swin, folder = parity(SWIN), tmp_path_factory.mktemp("downloads")
    run = folder / "unzipped" / "VALOR-base"
    (run / "ckpt").mkdir(parents=True)
    (run / "log").mkdir()
    (run / "log" / "hps.json").write_text(json.dumps(swin.hps))
    (run / "ckpt" / "model_step_900.pt").write_bytes(b"an older one")
    torch.save(swin.checkpoint, run / "ckpt" / "model_step_1000.pt")
    torch.save({key: tensor / 2 for key, tensor in swin.checkpoint.items()}, run / "VALOR_base_msr_ret.pt")
    with zipfile.ZipFile(folder / "VALOR-base.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(run.rglob("*.*")):
            archive.write(file, file.relative_to(run.parent))
    return folder


def test_a_zip_is_converted_as_it_was_downloaded(swin, converted, downloads, tmp_path):
    summary = convert(downloads / "VALOR-base.zip", None, swin.vocab, tmp_path / "converted")
    assert summary.checkpoint.endswith("VALOR-base.zip/model_step_1000.pt")
    files = [folder / "model.safetensors" for folder in (tmp_path / "converted", converted(SWIN))]
    assert_same_tensors(*map(safetensors.torch.load_file, files))
    assert [path.name for path in tmp_path.iterdir()] == ["converted"]


@pytest.mark.parametrize("where", ["zip", "beside the run"])
def test_a_fine_tuned_checkpoint_takes_the_options_of_its_base_model(downloads, tmp_path, where):
    name = "VALOR_base_msr_ret.pt"
    if where == "zip":
        convert(downloads / "VALOR-base.zip", None, None, tmp_path / "converted", member=name)
    else:
        convert(downloads / "unzipped" / "VALOR-base" / name, None, None, tmp_path / "converted")
    convert(downloads / "unzipped" / "VALOR-base", None, None, tmp_path / "base")
    tuned, base = (
        safetensors.torch.load_file(tmp_path / folder / "model.safetensors") for folder in ("converted", "base")
    )
    assert tuned.keys() == base.keys()
    # The scale is the inverse of the temperature, as a logarithm
    assert all(torch.equal(tuned[name], base[name] / 2) for name in tuned if not name.endswith("logit_scale"))
    assert (tmp_path / "converted" / "config.json").read_text() == (tmp_path / "base" / "config.json").read_text()


def test_weights_are_cast_and_sharded_on_request(swin, tmp_path):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    folder = tmp_path / "converted"
    summary = convert(
        tmp_path / "model.safetensors", swin.hps, None, folder, dtype=torch.bfloat16, max_shard_size="1MB"
    )
    assert summary.dtype == "bfloat16" and len(list(folder.glob("model-*.safetensors"))) > 1
    model = ValorForPreTraining.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    name = "multimodal_encoder.encoder.layer.1.intermediate.dense.weight"
    assert torch.equal(model.valor.text_model.layers[1].mlp.fc1.weight, swin.checkpoint[name].bfloat16())


def test_half_precision_checkpoint_keeps_its_type(swin, tmp_path):
    torch.save({key: tensor.half() for key, tensor in swin.checkpoint.items()}, tmp_path / "model.pt")
    assert convert(tmp_path / "model.pt", swin.hps, None, tmp_path / "converted").dtype == "float16"


def test_processor_and_generation_config_come_with_the_model(converted, clip):
    processor = AutoProcessor.from_pretrained(converted(CLIP))
    assert processor.tokenizer("A man plays").input_ids[0] == 101
    assert AutoTokenizer.from_pretrained(converted(CLIP)).mask_token_id == 103
    generation_config = GenerationConfig.from_pretrained(converted(CLIP))
    assert generation_config.max_new_tokens == 12 and generation_config.eos_token_id == 102
    assert generation_config.num_beams in (None, 1)


def test_decoded_ids_are_the_recorded_captions(converted, clip):
    tokenizer = AutoTokenizer.from_pretrained(converted(CLIP))
    for name, captions in clip.captions.items():
        ids = [row[: row.index(102)] if 102 in row else row for row in clip.expected[name].tolist()]
        words = [" ".join(tokenizer.convert_ids_to_tokens(row)).replace(" ##", "") for row in ids]
        assert words == captions


# --- Tensors ----------------------------------------------------------------------------------------------------------


def test_stacked_attention_becomes_three_projections(clip):
    config = config_from_checkpoint(clip.checkpoint, without_prompts(clip))
    tensors, _ = convert_state_dict(clip.checkpoint, config)
    stacked = clip.checkpoint["clip_model.visual.transformer.resblocks.1.attn.in_proj_weight"]
    layer = "valor.vision_model.encoder.layers.1.self_attn."
    assert torch.equal(torch.cat([tensors[f"{layer}{part}_proj.weight"] for part in "qkv"]), stacked)


def test_clip_projections_are_the_heads_of_clip_text(parity):
    recorded = parity(CLIP_TEXT)
    config = config_from_checkpoint(recorded.checkpoint, recorded.hps)
    tensors, _ = convert_state_dict(recorded.checkpoint, config)
    assert torch.equal(tensors["valor.text_projection.weight"], recorded.checkpoint["clip_model.text_projection"].T)
    assert torch.equal(tensors["valor.video_projection.weight"], recorded.checkpoint["clip_model.visual.proj"].T)
    assert config.projection_dim == 64
    assert (config.text_encoder_config.bos_token_id, config.text_encoder_config.eos_token_id) == (1022, 1023)


def test_own_heads_replace_the_projections_of_clip(parity):
    recorded = parity(CLIP_TEXT)
    heads = {"contra_head_t.linear.weight": torch.randn(64, 64), "contra_head_v.linear.weight": torch.randn(64, 128)}
    checkpoint = {**recorded.checkpoint, **heads}
    config = config_from_checkpoint(checkpoint, {**recorded.hps, "init_clip_head": False})
    tensors, unused = convert_state_dict(checkpoint, config)
    assert torch.equal(tensors["valor.video_projection.weight"], heads["contra_head_v.linear.weight"])
    assert {"clip_model.text_projection", "clip_model.visual.proj"} < set(unused)


def test_temperature_is_clips_own_only_with_clip_frames(clip, swin):
    for recorded, expected in (
        (clip, clip.checkpoint["clip_model.logit_scale"].item()),
        (swin, -math.log(swin.checkpoint["contra_temp"].item())),
    ):
        tensors, _ = convert_state_dict(
            recorded.checkpoint, config_from_checkpoint(recorded.checkpoint, without_prompts(recorded))
        )
        assert tensors["valor.logit_scale"].item() == pytest.approx(expected, abs=1e-6)


def test_untrained_positions_repeat_the_last_trained_one(swin):
    config = config_from_checkpoint(swin.checkpoint, swin.hps)
    tensors, _ = convert_state_dict(swin.checkpoint, config, num_trained_frames=3, num_trained_clips=2)
    recorded = swin.checkpoint["video_frame_embedding"][0]
    positions = tensors["valor.video_condition.position_embedding.weight"]
    assert positions.shape == (32, 128) and torch.equal(positions[:3], recorded[:3])
    assert torch.equal(positions[3:], recorded[2].expand(29, -1))
    positions = tensors["valor.audio_condition.position_embedding.weight"]
    assert torch.equal(positions[2:], swin.checkpoint["audio_frame_embedding"][0, 1].expand(30, -1))


def test_converted_folder_has_the_extended_positions(converted, swin):
    model = ValorModel.from_pretrained(converted(SWIN))
    positions = model.video_condition.position_embedding.weight
    assert torch.equal(positions[2:], positions[2].expand(30, -1))


@pytest.mark.parametrize(
    ("option", "cross_attention_type"),
    [("va_parallel", "parallel"), ("audio_video", "audio_visual"), ("video_audio", "visual_audio")],
)
def test_two_cross_attention_blocks(swin, option, cross_attention_type):
    checkpoint = rename(swin.checkpoint, ".cross_attn.", ".cross_attn_v.", ".cross_attn_a.")
    config = config_from_checkpoint(checkpoint, {**swin.hps, "cross_attn_type": option})
    assert config.cross_attention_type == cross_attention_type
    tensors, _ = convert_state_dict(checkpoint, config)
    for name in ("video", "audio"):
        assert torch.equal(
            tensors[f"valor.text_model.layers.0.cross_attention.{name}.k_proj.weight"],
            swin.checkpoint["multimodal_encoder.encoder.layer.0.cross_attn.cross.key.weight"],
        )


def test_no_cross_attention_is_merge(swin):
    checkpoint = without(swin.checkpoint, ".cross_attn.")
    config = config_from_checkpoint(checkpoint, {**swin.hps, "multimodal_use_cross_attn": False})
    assert config.cross_attention_type == "merge"
    convert_state_dict(checkpoint, config)


def test_coarse_alignment_with_feature_fusion_has_its_own_projection(swin):
    fusion = {"va_fusion.weight": torch.randn(64, 128), "va_fusion.bias": torch.randn(64)}
    checkpoint = {**without(swin.checkpoint, "_fine_weight."), **fusion}
    config = config_from_checkpoint(checkpoint, {**swin.hps, "contra_type": "coarse"})
    tensors, _ = convert_state_dict(checkpoint, config)
    assert torch.equal(tensors["valor.audiovisual_projection.weight"], fusion["va_fusion.weight"])


def test_coarse_alignment_with_score_fusion_has_none(swin):
    checkpoint = without(swin.checkpoint, "_fine_weight.")
    config = config_from_checkpoint(checkpoint, {**swin.hps, "contra_type": "coarse", "late_fusion": True})
    assert (config.alignment, config.audiovisual_fusion) == ("coarse", "score")
    convert_state_dict(checkpoint, config)


def separate_text_encoder(recorded):
    """A checkpoint whose text encoder is its own: the decoder's stack without cross-attention, with other values."""
    encoder = without(recorded.checkpoint, "cross_attn")
    return {
        **recorded.checkpoint,
        **{
            key.replace("multimodal_encoder.", "txt_encoder."): 2 * tensor
            for key, tensor in encoder.items()
            if key.startswith("multimodal_encoder.")
        },
    }


def test_separate_bert_text_encoder(swin):
    checkpoint = separate_text_encoder(swin)
    config = config_from_checkpoint(checkpoint, {**swin.hps, "share_txt_and_multimodal": False})
    assert config.text_encoder_config.model_type == "bert" and config.text_encoder_config.num_attention_heads == 2
    tensors, unused = convert_state_dict(checkpoint, config)
    query = "encoder.layer.1.attention.self.query.weight"
    assert torch.equal(tensors[f"valor.text_encoder.{query}"], checkpoint[f"txt_encoder.{query}"])
    types = tensors["valor.text_encoder.embeddings.token_type_embeddings.weight"]
    assert torch.equal(types[0], checkpoint["txt_encoder.embeddings.token_type_embeddings.weight"][0])
    assert torch.equal(types[1], checkpoint["txt_encoder.embeddings.prompt_embedding.weight"][0])
    assert "txt_encoder.pooler.dense.weight" in unused


def test_text_encoder_that_differs_is_not_dropped_as_a_repeat(swin):
    checkpoint = separate_text_encoder(swin)
    with pytest.raises(ConversionError, match="share_txt_and_multimodal"):
        convert_state_dict(checkpoint, config_from_checkpoint(checkpoint, swin.hps))


def test_clip_text_with_video_swin_frames(parity, swin):
    clip_model = {key: tensor for key, tensor in parity(CLIP_TEXT).checkpoint.items() if key.startswith("clip_model.")}
    checkpoint = {**swin.checkpoint, **clip_model, "contra_head_t.linear.weight": torch.randn(64, 64)}
    config = config_from_checkpoint(checkpoint, {**swin.hps, "txt_encoder_type": "clip_vit_base_16"})
    assert config.vision_config.model_type == "valor_video_swin"
    tensors, unused = convert_state_dict(checkpoint, config)
    assert tensors["valor.logit_scale"].item() == pytest.approx(-math.log(swin.checkpoint["contra_temp"].item()))
    assert "clip_model.visual.conv1.weight" in unused and "clip_model.logit_scale" in unused
    assert "valor.text_encoder.final_layer_norm.weight" in tensors


def test_audio_of_another_width_has_a_condition_projection(swin):
    checkpoint = {
        key: tensor[:, :64].repeat(1, 2) if key == "contra_head_a.linear.weight" else tensor
        for key, tensor in swin.checkpoint.items()
    }
    projection = {
        "hidden_trans_audio_multimodal.0.weight": torch.randn(128, 128),
        "hidden_trans_audio_multimodal.0.bias": torch.randn(128),
    }
    config = config_from_checkpoint(checkpoint, swin.hps)
    with pytest.raises(ConversionError, match="unexpected `hidden_trans_audio_multimodal"):
        convert_state_dict({**checkpoint, **projection}, config)


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "field", "expected"),
    [
        ("caption_type", "lm", "captioning_objective", "causal"),
        ("caption_type", "unimlm", "captioning_objective", "masked"),
        ("late_fusion", True, "audiovisual_fusion", "score"),
        ("fineweight_type", "none", "token_weighting", "uniform"),
        ("fineweight_type", "three", "token_weighting", "learned"),
        ("contra_loss_ratio", 2.5, "alignment_loss_weight", 2.5),
        ("label_smoothing", 0.1, "label_smoothing", 0.1),
        ("full_masker", True, "padded_similarity", "zero"),
    ],
)
def test_option_becomes_a_field(swin, option, value, field, expected):
    config = config_from_checkpoint(swin.checkpoint, {**swin.hps, option: value})
    assert getattr(config, field) == expected


def test_options_may_be_missing_or_null(swin):
    config = config_from_checkpoint(swin.checkpoint, {"audio_target_length": None, "caption_type": None})
    assert config.audio_config.max_length == 128 and config.captioning_objective == "masked"
    assert config.alignment_loss_weight == 1.0 and config.caption_prompt_ids is None


def test_sizes_come_from_shapes(swin, clip):
    config = config_from_checkpoint(swin.checkpoint, swin.hps)
    assert (config.vision_config.embed_dim, config.vision_config.hidden_size) == (32, 256)
    assert config.vision_config.num_heads == [1, 2, 4, 8]
    assert (config.text_config.vocab_size, config.text_config.intermediate_size) == (1024, 256)
    assert (config.audio_config.num_mel_bins, config.audio_config.max_length) == (64, 128)
    assert (config.max_frames, config.max_audio_clips, config.projection_dim) == (32, 32, 64)
    config = config_from_checkpoint(clip.checkpoint, without_prompts(clip, video_resolution=128))
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (64, 16)
    assert (config.vision_config.hidden_size, config.vision_config.num_attention_heads) == (128, 2)


def test_head_counts_of_the_options_count(swin):
    config = config_from_checkpoint(swin.checkpoint, {**swin.hps, "text_num_attention_heads": 4})
    assert (config.text_config.num_attention_heads, config.audio_config.num_attention_heads) == (4, 2)


def test_prompts_follow_from_the_vocabulary(converted, clip):
    config = ValorConfig.from_pretrained(converted(CLIP))
    words = clip.vocab.read_text().splitlines()
    text = "describe the video with natural language"
    assert [words[i] for i in config.caption_prompt_ids] == ["[CLS]", *text.split(), "[SEP]"]
    assert words[config.retrieval_prompt_ids[0]] == "[CLS]" and words[config.retrieval_prompt_ids[-1]] == "[SEP]"
    assert [words[i] for i in config.question_prompt_ids] == ["answer", "the", "question"]


def test_prompts_are_known_for_bert_base_uncased(clip, fixture_json):
    words = "multimodal_encoder.embeddings.word_embeddings.weight"
    checkpoint = {**clip.checkpoint, words: torch.empty(30522, 128, device="meta")}
    config = config_from_checkpoint(checkpoint, clip.hps)
    recorded = fixture_json("valor-large.keys")["prompt_ids"]
    assert config.retrieval_prompt_ids == recorded["project language in common space"]
    assert config.caption_prompt_ids == recorded["describe the video with natural language"]
    assert config.question_prompt_ids == recorded["answer the question"][1:-1]


def test_clip_text_takes_no_prompt(parity):
    recorded = parity(CLIP_TEXT)
    words = "multimodal_encoder.embeddings.word_embeddings.weight"
    checkpoint = {**recorded.checkpoint, words: torch.empty(30522, 128, device="meta")}
    config = config_from_checkpoint(checkpoint, {**recorded.hps, "use_task_prompt": True})
    assert config.retrieval_prompt_ids is None and config.caption_prompt_ids is not None


def test_options_without_counterpart_are_named_in_one_warning(swin, tmp_path):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    options = {**swin.hps, "full_masker": True, "scst_finetuning": True}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        summary = convert(tmp_path / "model.safetensors", options, None, tmp_path / "converted")
    messages = [str(warning.message) for warning in caught if "full_masker" in str(warning.message)]
    assert len(messages) == 1 and "scst_finetuning" in messages[0]
    assert summary.ignored_options == ["full_masker", "scst_finetuning"]


@pytest.mark.parametrize(
    ("options", "size", "crop"),
    [
        ({}, {"height": 64, "width": 64}, False),
        ({"video_resolution": 96}, {"height": 96, "width": 96}, False),
        ({"video_transforms": "crop_flip"}, {"shortest_edge": 64}, True),
        ({"data_cfg": {"val": [{"video_transforms": "crop_flip"}]}}, {"shortest_edge": 64}, True),
    ],
)
def test_frames_are_prepared_as_at_test_time(clip, options, size, crop):
    options = without_prompts(clip, **options)
    video_processor = build_processor(config_from_checkpoint(clip.checkpoint, options), options).video_processor
    assert dict(video_processor.size) == size and video_processor.do_center_crop == crop
    assert video_processor.antialias is False


def test_pixels_are_normalised_as_the_vision_encoder_expects(clip, swin):
    means = []
    for recorded in (clip, swin):
        config = config_from_checkpoint(recorded.checkpoint, without_prompts(recorded))
        means.append(list(build_processor(config, recorded.hps).video_processor.image_mean))
    assert means == [[0.48145466, 0.4578275, 0.40821073], [0.485, 0.456, 0.406]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (3, 2)),
        ({"data_cfg": {"val": [{"video_sample_num": 8, "audio_sample_num": 4}]}}, (8, 4)),
        ({"data_cfg": {"val": [{"video_sample_num": 64}]}}, (32, 2)),
        ({"video_sample_num": 0, "audio_sample_num": 0}, (1, 1)),
    ],
)
def test_frame_and_clip_numbers_are_those_of_the_test_sets(swin, options, expected):
    options = {**swin.hps, **options}
    processor = build_processor(config_from_checkpoint(swin.checkpoint, options), options)
    assert (processor.video_processor.num_frames, processor.feature_extractor.num_audio_clips) == expected


# --- Bad input --------------------------------------------------------------------------------------------------------


class Exploit:
    def __reduce__(self):
        return (open, ("exploited", "w"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.pt", b"", "is empty"),
        ("model.safetensors", b"", "is empty"),
        ("model.pt", b"this is no checkpoint\n" * 100, "is no checkpoint: it is neither"),
        ("model.safetensors", b"this is no checkpoint\n" * 100, "cannot be read as safetensors"),
        ("model.pt", pickle.dumps(Exploit(), protocol=2), "never run"),
        ("model.pt", pickle.dumps([1, 2, 3], protocol=2), "cut off|no dictionary"),
    ],
)
def test_file_of_another_kind_gives_one_clear_error(swin, tmp_path, monkeypatch, name, content, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=reason) as caught:
        convert(tmp_path / name, swin.hps, None, tmp_path / "converted")
    assert name in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_that_is_no_checkpoint_is_refused_before_its_options_are_asked_for(tmp_path):
    (tmp_path / "README.md").write_text("# VALOR\n")
    with pytest.raises(ConversionError, match=r"README\.md is no checkpoint"):
        convert(tmp_path / "README.md", None, None, tmp_path / "converted")


@pytest.mark.parametrize(
    ("files", "member", "reason"),
    [
        ({"README.md": b"VALOR"}, None, "has no .pt or .safetensors file"),
        ({"a.pt": b"1", "b.pt": b"2"}, None, "has `a.pt`, `b.pt`: name one"),
        ({"a/ckpt/model_step_1.pt": b"1", "b/ckpt/model_step_2.pt": b"2"}, None, "name one"),
        ({"a.pt": b"1"}, "c.pt", "not one 'c.pt': name one"),
        ({"a.pt": bytes(10**6)}, None, "would unpack to"),
        ({"a.pt": b"this is no checkpoint"}, None, "a.pt is no checkpoint"),
    ],
)
def test_a_zip_without_one_checkpoint_gives_one_clear_error(swin, tmp_path, files, member, reason):
    with zipfile.ZipFile(tmp_path / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(ConversionError, match=reason):
        convert(tmp_path / "some.zip", swin.hps, None, tmp_path / "converted", member=member)
    assert [file.name for file in tmp_path.iterdir()] == ["some.zip"]


def test_a_damaged_zip_gives_one_clear_error(downloads, tmp_path):
    with zipfile.ZipFile(downloads / "VALOR-base.zip") as archive:
        place = archive.getinfo("VALOR-base/ckpt/model_step_1000.pt").header_offset
    content = bytearray((downloads / "VALOR-base.zip").read_bytes())
    content[place + 10_000] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(ConversionError, match="cannot be unpacked"):
        convert(tmp_path / "damaged.zip", None, None, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("save", [torch.save, safetensors.torch.save_file])
def test_file_that_was_cut_off_gives_one_clear_error(swin, tmp_path, save):
    file = tmp_path / ("model.pt" if save is torch.save else "model.safetensors")
    save(swin.checkpoint, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ConversionError, match="cut off"):
        convert(file, swin.hps, None, tmp_path / "converted")


def test_checkpoint_with_code_in_a_tensor_dictionary_is_refused(swin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**swin.checkpoint, "extra": Exploit()}, tmp_path / "model.pt")
    with pytest.raises(ConversionError, match="never run"):
        convert(tmp_path / "model.pt", swin.hps, None, tmp_path / "converted")
    assert not (tmp_path / "exploited").exists()


def test_packed_checkpoint_is_refused_by_its_directory(swin, tmp_path, capsys):
    """Deflated zeros, and the same bytes named twice: both would fill more memory than the file has bytes."""
    torch.save({"multimodal_encoder.x": torch.zeros(2_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pt").stat().st_size < 20_000
    for read in (read_checkpoint, read_torch_file):
        with pytest.raises(ConversionError, match=r"has 0\.0 MB and would unpack to 8\.0 MB"):
            read(tmp_path / "bomb.pt")
    (tmp_path / "hps.json").write_text(json.dumps(swin.hps))
    options = ["--hps", str(tmp_path / "hps.json"), "--output", str(tmp_path / "output")]
    assert main(["convert", str(tmp_path / "bomb.pt"), *options]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "output").exists()
    assert read_checkpoint(tmp_path / "plain.pt")["multimodal_encoder.x"].shape == (2_000_000,)


@pytest.mark.parametrize(("value", "dtype"), [(math.nan, None), (math.inf, None), (1e5, torch.float16)])
def test_weights_that_are_not_finite_are_named(swin, tmp_path, value, dtype):
    checkpoint = dict(swin.checkpoint)
    checkpoint["contra_head_t.linear.weight"] = checkpoint["contra_head_t.linear.weight"].clone()
    checkpoint["contra_head_t.linear.weight"][1, 2] = value
    safetensors.torch.save_file(checkpoint, tmp_path / "model.safetensors")
    with pytest.raises(
        ConversionError, match=r"NaN or infinity as float\d\d in `valor.text_projection.weight`: it is damaged"
    ):
        convert(tmp_path / "model.safetensors", swin.hps, swin.vocab, tmp_path / "output", dtype=dtype)
    assert not (tmp_path / "output").exists()


@pytest.fixture
def small_disk():
    """Files of more than 100 kB cannot be written, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("before", [None, "config.json"])
def test_a_full_disk_leaves_no_half_of_a_folder(swin, tmp_path, request, before):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    output = tmp_path / "deep" / "output"
    if before is not None:
        output.mkdir(parents=True)
        (output / before).write_text("of an earlier conversion")
    request.getfixturevalue("small_disk")
    with pytest.raises(ConversionError, match=r"output cannot be written: .*nothing was written\.$") as error:
        convert(tmp_path / "model.safetensors", swin.hps, swin.vocab, output)
    assert "\n" not in str(error.value)
    assert [file.name for file in (tmp_path / "deep").rglob("*")] == (["output", before] if before else [])
    assert before is None or (output / before).read_text() == "of an earlier conversion"


def test_a_place_that_cannot_be_written_is_one_sentence(swin, tmp_path, monkeypatch):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConversionError, match=r"file/output cannot be written: Not a directory"):
        convert(tmp_path / "model.safetensors", swin.hps, swin.vocab, tmp_path / "file" / "output")

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    with pytest.raises(ConversionError, match="cannot be written: Read-only file system"):
        convert(tmp_path / "model.safetensors", swin.hps, swin.vocab, tmp_path / "output")


def test_a_second_conversion_replaces_the_first_and_its_shards(swin, converted, tmp_path):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", swin.hps, swin.vocab, tmp_path / "output", max_shard_size="100KB")
    (tmp_path / "output" / "notes.txt").write_text("mine")
    convert(tmp_path / "model.safetensors", swin.hps, swin.vocab, tmp_path / "output")
    names = {file.name for file in (tmp_path / "output").iterdir()}
    assert names == {file.name for file in converted(SWIN).iterdir()} | {"notes.txt"}
    assert (tmp_path / "output").stat().st_mode == converted(SWIN).stat().st_mode


def test_checkpoint_of_another_model_is_refused(swin, tmp_path):
    safetensors.torch.save_file({"encoder.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ConversionError, match=r"no complete|not a complete VALOR checkpoint.*encoder\.weight"):
        convert(tmp_path / "model.safetensors", swin.hps, None, tmp_path / "converted")


def test_checkpoint_that_is_no_dictionary_of_tensors_is_refused(swin, tmp_path):
    torch.save({"state_dict": swin.checkpoint, "step": 3}, tmp_path / "model.pt")
    with pytest.raises(ConversionError, match="no dictionary of tensors"):
        convert(tmp_path / "model.pt", swin.hps, None, tmp_path / "converted")


def test_absurd_layer_number_is_an_unexpected_tensor(swin):
    name = "multimodal_encoder.encoder.layer.999999999999.output.dense.bias"
    checkpoint = {**swin.checkpoint, name: torch.zeros(128)}
    with pytest.raises(ConversionError, match=f"unexpected `{name}`"):
        convert_state_dict(checkpoint, config_from_checkpoint(checkpoint, swin.hps))


def test_error_names_missing_unexpected_and_misshapen_tensors(swin):
    checkpoint = without(swin.checkpoint, "layer.1.ff_layer.linear2.bias")
    checkpoint["something_else.weight"] = torch.zeros(3)
    checkpoint["cls.dense.bias"] = torch.zeros(5)
    with pytest.raises(ConversionError) as caught:
        convert_state_dict(checkpoint, config_from_checkpoint(checkpoint, swin.hps))
    message = str(caught.value)
    assert "missing `valor.audio_model.layers.1.mlp.fc2.bias`" in message
    assert "unexpected `something_else.weight`" in message
    assert "`cls.dense.bias` has the shape (5,)" in message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cross_attn_type": "both"}, "cross_attn_type.*'both'.*va_concate"),
        ({"cross_attn_type": "va_parallel"}, "unexpected `multimodal_encoder.encoder.layer.0.cross_attn"),
        ({"contra_type": "medium"}, "contra_type"),
        ({"contra_type": "coarse"}, "unexpected `text_fine_weight"),
        ({"caption_type": "words"}, "caption_type"),
        ({"video_encoder_type": "clip_vit_base_16"}, "video_encoder_type.*videoswin"),
        ({"audio_encoder_type": "pann"}, "audio_encoder_type"),
        ({"multimodal_encoder_type": "clip_vit_base_16"}, "multimodal_encoder_type"),
        ({"txt_encoder_type": "clip_vit_base_16"}, "clip_model.token_embedding.weight"),
        ({"share_txt_and_multimodal": False}, "txt_encoder.embeddings"),
        ({"audio_target_length": 512}, "audio_target_length"),
        ({"audio_melbins": 128}, "audio_melbins"),
        ({"video_transforms": "rotate"}, "video_transforms"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"label_smoothing": "much"}, "label_smoothing.*float"),
        ({"data_cfg": []}, "data_cfg"),
        ({"use_task_prompt": True}, "vocabulary"),
    ],
)
def test_options_of_another_checkpoint_give_one_clear_error(swin, tmp_path, options, reason):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    with pytest.raises(ConversionError, match=reason):
        convert(tmp_path / "model.safetensors", {**swin.hps, **options}, None, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [("one\ntwo\n", "lacks"), ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n", "6 entries"), (None, "cannot be read")],
)
def test_wrong_vocabulary_gives_one_clear_error(swin, tmp_path, words, reason):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    if words is not None:
        (tmp_path / "vocab.txt").write_text(words)
    with pytest.raises(ConversionError, match=reason):
        convert(tmp_path / "model.safetensors", swin.hps, tmp_path / "vocab.txt", tmp_path / "converted")


@pytest.mark.parametrize("content", ["", "[1, 2]", "{"])
def test_wrong_options_file_gives_one_clear_error(swin, tmp_path, content):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    (tmp_path / "hps.json").write_text(content)
    with pytest.raises(ConversionError, match=r"options"):
        convert(tmp_path / "model.safetensors", tmp_path / "hps.json", None, tmp_path / "converted")


def test_missing_options_say_where_they_should_be(swin, tmp_path):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    with pytest.raises(ConversionError, match=r"hps\.json"):
        convert(tmp_path / "model.safetensors", None, None, tmp_path / "converted")


# --- Command ----------------------------------------------------------------------------------------------------------


def test_command_converts_and_prints_its_summary(swin, tmp_path, capsys):
    safetensors.torch.save_file(swin.checkpoint, tmp_path / "model.safetensors")
    (tmp_path / "hps.json").write_text(json.dumps(swin.hps))
    arguments = [str(tmp_path / "model.safetensors"), "--hps", str(tmp_path / "hps.json"), "--vocab", str(swin.vocab)]
    assert main(["convert", *arguments, "--output", str(tmp_path / "converted"), "--json", "--dtype", "float16"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["dtype"] == "float16" and summary["has_tokenizer"]
    assert (tmp_path / "converted" / "config.json").is_file()


def test_command_explains_what_is_wrong_in_one_line(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "absent.pt"), "--hps", "x", "--output", str(tmp_path / "converted")]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("valor convert: ") and captured.err.count("\n") == 1


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    assert "convert" in capsys.readouterr().out


def test_the_former_name_of_the_options_is_accepted_with_a_warning(swin):
    with pytest.warns(FutureWarning, match="`hps` is now called `options`"):
        config = config_from_checkpoint(swin.checkpoint, hps=swin.hps)
    assert config.to_dict() == config_from_checkpoint(swin.checkpoint, options=swin.hps).to_dict()
