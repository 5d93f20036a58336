# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Parts of a new model from BERT, CLIP, Video Swin and AST, against those models themselves."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    ASTModel,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    VideoMAEConfig,
    ViTMAEConfig,
    VJEPA2Config,
)
from transformers.utils import logging

from helpers.tiny import tiny_config
from helpers.training_world import WORDS, small_processor, write_checkpoint
from modeling_valor import (
    ValorConfig,
    ValorForPreTraining,
    ValorForRetrieval,
    ValorProcessor,
)
from modeling_valor.tokenization_valor import (
    BERT_BASE_UNCASED_PROMPTS,
    TASK_PROMPTS,
    load_tokenizer,
    translate_prompts,
)
from modeling_valor.training.pretrained_parts import (
    load_audio_model,
    load_processor,
    load_text_model,
    load_vision_model,
)
from modeling_valor.training.run import ModelArguments, build_model


SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(model):
    """Weights of which each one matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def bert(tmp_path):
    config = BertConfig(vocab_size=200, hidden_size=32, max_position_embeddings=48, **SIZES)
    model = randomised(BertForMaskedLM(config))
    model.save_pretrained(tmp_path)
    return model, str(tmp_path)


def test_text_encoder_and_word_head_are_berts(bert):
    pretrained, folder = bert
    model = ValorForPreTraining(tiny_config()).eval()
    before = model.valor.text_model.layers[0].cross_attention["audiovisual"].q_proj.weight.clone()
    load_text_model(model, folder)
    input_ids = torch.randint(104, 200, (2, 7))
    attention_mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    expected = pretrained(input_ids, attention_mask, output_hidden_states=True)
    hidden = model.valor.text_model(input_ids, attention_mask=attention_mask).last_hidden_state
    valid = attention_mask.bool()
    torch.testing.assert_close(hidden[valid], expected.hidden_states[-1][valid], atol=2e-5, rtol=0)
    torch.testing.assert_close(model.lm_head(hidden)[valid], expected.logits[valid], atol=2e-5, rtol=0)
    torch.testing.assert_close(model.valor.text_model.layers[0].cross_attention["audiovisual"].q_proj.weight, before)


def test_a_model_without_a_word_head_takes_the_encoder(bert):
    pretrained, folder = bert
    model = ValorForRetrieval(tiny_config())
    load_text_model(model, folder)
    words = model.valor.text_model.embeddings.word_embeddings.weight
    torch.testing.assert_close(words, pretrained.bert.embeddings.word_embeddings.weight)


def test_a_text_encoder_of_its_own_starts_as_the_same_bert(bert):
    pretrained, folder = bert
    model = ValorForRetrieval(tiny_config(text_encoder_config=pretrained.config.to_dict())).eval()
    load_text_model(model, folder)
    input_ids = torch.randint(104, 200, (2, 7))
    expected = pretrained.bert(input_ids).last_hidden_state
    torch.testing.assert_close(model.valor.text_encoder(input_ids).last_hidden_state, expected)
    torch.testing.assert_close(model.valor.text_model(input_ids).last_hidden_state, expected, atol=2e-5, rtol=0)


def test_vision_encoder_may_be_another_valors(tmp_path):
    pretrained = randomised(ValorForRetrieval(tiny_config()))
    pretrained.save_pretrained(tmp_path)
    model = ValorForRetrieval(tiny_config())
    load_vision_model(model, str(tmp_path))
    for name, expected in pretrained.valor.vision_model.state_dict().items():
        assert torch.equal(model.valor.vision_model.state_dict()[name], expected), name


def test_a_checkpoint_without_the_vision_encoder_is_refused_before_anything_is_new(tmp_path):
    save_file({"unrelated": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    CLIPVisionConfig(hidden_size=48, patch_size=8, image_size=16, **SIZES).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no clip_vision_model"):
        load_vision_model(ValorForRetrieval(tiny_config()), str(tmp_path))


@pytest.mark.parametrize("image_size", [16, 24])
def test_vision_encoder_is_clips_at_the_models_resolution(tmp_path, image_size):
    config = CLIPVisionConfig(hidden_size=48, patch_size=8, image_size=image_size, **SIZES)
    pretrained = randomised(CLIPVisionModel(config))
    pretrained.save_pretrained(tmp_path)
    model = ValorForRetrieval(tiny_config())
    load_vision_model(model, str(tmp_path))
    pixels = torch.randn(2, 3, 16, 16)
    expected = pretrained.embeddings.position_embedding.weight
    if image_size != 16:
        # Bilinear, corners not aligned: the centres of 2 x 2 patches are at 0.25 and 1.75 of the 3 x 3
        grid = expected[1:].unflatten(0, (3, 3))
        blend = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.25, 0.75]])
        expected = torch.cat([expected[:1], torch.einsum("ai,bj,ijc->abc", blend, blend, grid).flatten(0, 1)])
    own = model.valor.vision_model
    torch.testing.assert_close(own.embeddings.position_embedding.weight, expected)
    if image_size == 16:
        hidden = pretrained.post_layernorm(pretrained(pixels).last_hidden_state)
        torch.testing.assert_close(own(pixels).last_hidden_state, hidden, atol=2e-5, rtol=0)


def test_audio_encoder_is_an_ast_without_its_distillation_token(tmp_path):
    config = ASTConfig(
        hidden_size=32,
        patch_size=8,
        num_mel_bins=32,
        max_length=60,
        frequency_stride=6,
        time_stride=6,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **SIZES,
    )
    pretrained = randomised(ASTModel(config))
    pretrained.save_pretrained(tmp_path)
    model = ValorForRetrieval(tiny_config()).eval()
    load_audio_model(model, str(tmp_path))
    own = model.valor.audio_model

    positions = pretrained.embeddings.position_embeddings[0]
    grid = positions[2:].reshape(5, 9, 32).permute(2, 0, 1)[None]  # mel x time
    resized = torch.nn.functional.interpolate(grid, size=(2, 4), mode="bilinear")[0].flatten(1).T
    torch.testing.assert_close(own.embeddings.position_embedding.weight, torch.cat([positions[:1], resized]))

    spectrograms = torch.randn(2, 16, 32)
    patches = torch.nn.functional.conv2d(
        spectrograms[:, None],
        pretrained.embeddings.patch_embeddings.projection.weight,
        pretrained.embeddings.patch_embeddings.projection.bias,
        stride=8,
    )
    hidden = torch.cat([pretrained.embeddings.cls_token.expand(2, 1, 32), patches.flatten(2).mT], dim=1)
    hidden = hidden + torch.cat([positions[:1], resized])
    for layer in pretrained.layers:
        hidden = layer(hidden)
    torch.testing.assert_close(own(spectrograms).last_hidden_state, pretrained.layernorm(hidden), atol=2e-5, rtol=0)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_video_swin_is_taken_from_its_authors_file(tmp_path, parity, converted, prefix):
    recorded = parity("videoswin-bert-shared")
    names = {key.removeprefix("video_encoder.") for key in recorded.checkpoint if key.startswith("video_encoder.")}
    tensors = {prefix + name: recorded.checkpoint[f"video_encoder.{name}"] for name in names}
    content = {"meta": {"epoch": 30}, "state_dict": {**tensors, "cls_head.fc_cls.weight": torch.ones(2)}}
    torch.save(content if prefix else tensors, tmp_path / "swin.pth")
    model = ValorForPreTraining(ValorConfig.from_pretrained(converted("videoswin-bert-shared")))
    load_vision_model(model, str(tmp_path / "swin.pth"))
    expected = ValorForPreTraining.from_pretrained(converted("videoswin-bert-shared")).valor.vision_model.state_dict()
    for name, tensor in model.valor.vision_model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_a_checkpoint_of_another_kind_or_size_is_refused(tmp_path, bert):
    _, folder = bert
    with pytest.raises(ValueError, match=r"is of the type .bert.; .audio-spectrogram-transformer. is accepted"):
        load_audio_model(ValorForRetrieval(tiny_config()), folder)
    text = {**tiny_config().text_config.to_dict(), "vocab_size": 300}
    with pytest.raises(ValueError, match=r"1 of its tensors have no place .*word_embeddings"):
        load_text_model(ValorForRetrieval(tiny_config(text_config=text)), folder)
    CLIPVisionModel(
        CLIPVisionConfig(hidden_size=48, patch_size=8, image_size=16, **{**SIZES, "num_hidden_layers": 1})
    ).save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"are missing, such as .*encoder.layers.1"):
        load_vision_model(ValorForRetrieval(tiny_config()), str(tmp_path / "clip"))


@pytest.fixture
def warnings(caplog):
    """What transformers and this package warn of."""
    logging.enable_propagation()
    yield caplog
    logging.disable_propagation()


AUDIO = {
    "hidden_size": 32,
    "patch_size": 8,
    "num_mel_bins": 32,
    "max_length": 60,
    "frequency_stride": 6,
    "time_stride": 6,
}


@pytest.fixture
def parts(tmp_path):
    """Checkpoints of a BERT with a vocabulary of its own, a whole CLIP with its image processor, and an AST classifier."""
    words = ["[PAD]", "[UNK]", "[MASK]", "[SEP]", "[CLS]", *sorted({*WORDS, *" ".join(TASK_PROMPTS.values()).split()})]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "bert")
    bert = BertConfig(vocab_size=len(words), hidden_size=40, max_position_embeddings=24, **SIZES)
    BertForPreTraining(bert).save_pretrained(tmp_path / "bert")
    vision = {"hidden_size": 48, "patch_size": 8, "image_size": 24, **SIZES}
    clip = CLIPConfig(
        text_config={"hidden_size": 16, "vocab_size": 30, **SIZES}, vision_config=vision, projection_dim=8
    )
    CLIPModel(clip).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path / "clip")
    ASTForAudioClassification(ASTConfig(**AUDIO, **SIZES)).save_pretrained(tmp_path / "ast")
    return {
        f"{kind}_model": str(tmp_path / name)
        for kind, name in (("text", "bert"), ("vision", "clip"), ("audio", "ast"))
    }


def test_a_configuration_takes_sizes_and_ids_from_the_checkpoints_of_its_parts(parts):
    config = ValorConfig.from_parts(*parts.values(), task_prompts=True, projection_dim=16)
    tokenizer = load_tokenizer(parts["text_model"])
    text = config.text_config
    assert (text.vocab_size, text.hidden_size, text.num_attention_heads) == (len(tokenizer), 40, 4)
    assert (text.pad_token_id, text.mask_token_id, text.eos_token_id, text.bos_token_id) == (0, 2, 3, 4)
    assert text.hidden_dropout_prob == 0.1
    words = tokenizer.convert_ids_to_tokens(config.caption_prompt_ids)
    assert words == ["[CLS]", *["describe", "the", "video", "with", "natural", "language"], "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(config.question_prompt_ids) == ["answer", "the", "question"]
    assert (config.vision_config.model_type, config.vision_config.image_size) == ("clip_vision_model", 24)
    audio = config.audio_config
    assert (audio.hidden_size, audio.patch_size, audio.num_mel_bins, audio.max_length) == (32, 8, 64, 512)
    assert config.projection_dim == 16
    assert ValorConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    smaller = ValorConfig.from_parts(vision=parts["vision_model"], vision_config={"image_size": 16})
    assert smaller.vision_config.image_size == 16  # CLIP's positions are resized


@pytest.mark.parametrize("configured", [False, True])
def test_the_scripts_need_no_typed_sizes(tmp_path, parts, configured, warnings):
    """From checkpoints alone, or into a configuration of other sizes, words and prompts; not a word about what is left out."""
    if configured:
        source = tmp_path / "source"
        write_checkpoint(
            source, caption_prompt_ids=BERT_BASE_UNCASED_PROMPTS["caption_prompt_ids"], mask_probability=0.5
        )
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (source / name).unlink()
    arguments = ModelArguments(config_name=str(source) if configured else None, **parts)
    model, processor = build_model(arguments, "captioning")
    assert not warnings.messages
    assert processor.video_processor.image_mean == [0.1, 0.2, 0.3]
    assert processor.video_processor.image_std == [0.4, 0.5, 0.6]
    side = 16 if configured else 24
    inputs = processor(videos=[torch.zeros(8, 3, 20, 20, dtype=torch.uint8)], text="a red star", return_tensors="pt")
    assert inputs["pixel_values_videos"].shape[2:] == (3, side, side)
    torch.testing.assert_close(inputs["pixel_values_videos"][0, 0, :, 0, 0], torch.tensor([-0.25, -0.4, -0.5]))
    assert model(**inputs).logits.shape[-1] == len(processor.tokenizer)
    clip = CLIPModel.from_pretrained(parts["vision_model"]).vision_model
    patches = model.valor.vision_model.embeddings.patch_embedding.weight
    torch.testing.assert_close(patches, clip.embeddings.patch_embedding.weight)
    if configured:
        words = processor.tokenizer.decode(model.config.caption_prompt_ids, skip_special_tokens=True)
        assert words == TASK_PROMPTS["caption_prompt_ids"] and model.config.mask_probability == 0.5
        assert model.config.audio_config.num_mel_bins == 64


def test_prompts_are_translated_from_the_tokenizer_that_made_them(tmp_path, parts):
    tokenizer = load_tokenizer(parts["text_model"])
    (tmp_path / "other.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "star", "red", "a"]))
    other = BertTokenizer(str(tmp_path / "other.txt"))
    prompts = {"caption_prompt_ids": [2, 7, 6, 5, 3], "question_prompt_ids": [6, 5], "retrieval_prompt_ids": None}
    translated = translate_prompts(prompts, tokenizer, other)
    assert translated["caption_prompt_ids"] == tokenizer.encode("a red star")
    assert translated["question_prompt_ids"] == tokenizer.convert_tokens_to_ids(["red", "star"])
    assert translate_prompts(prompts, other, other) == prompts and translated["retrieval_prompt_ids"] is None
    with pytest.raises(ValueError, match=r"`caption_prompt_ids` has the id 900, but the tokenizer has 8 words"):
        translate_prompts({"caption_prompt_ids": [2, 900, 3]}, other)


def test_parts_of_another_kind_are_refused_in_one_sentence(parts, bert):
    with pytest.raises(
        ValueError, match=r"ast is of the type 'audio-spectrogram-transformer'; 'bert' is accepted here"
    ):
        ValorConfig.from_parts(text=parts["audio_model"])
    with pytest.raises(ValueError, match=r"tokenizer has \d+ words, but the text model embeds 20"):
        ValorConfig.from_parts(text=BertConfig(vocab_size=20), tokenizer=load_tokenizer(parts["text_model"]))
    for config, field in ((VideoMAEConfig(), "num_frames"), (VJEPA2Config(), "frames_per_clip")):
        with pytest.raises(StrictDataclassError, match=rf"takes videos of a fixed length \(`{field}`\)") as error:
            ValorConfig.from_parts(vision=config)
        assert "'valor_video_swin' is accepted" in str(error.value)
    with pytest.raises(StrictDataclassError, match="would hide 75% of each frame"):
        ValorConfig(vision_config={"model_type": "vit_mae"})
    assert ValorConfig.from_parts(vision=ViTMAEConfig()).vision_config.mask_ratio == 0
    siglip2 = {
        "model_type": "siglip2_vision_model",
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    with pytest.raises(ValueError, match="besides pixels it needs pixel_attention_mask"):
        ValorForRetrieval(tiny_config(vision_config=siglip2))


def test_a_bert_without_a_word_head_says_so(tmp_path, parts, warnings):
    BertModel(BertConfig(vocab_size=200, hidden_size=32, max_position_embeddings=48, **SIZES)).save_pretrained(
        tmp_path
    )
    model = ValorForPreTraining(tiny_config())
    before = model.lm_head.dense.weight.clone()
    load_text_model(model, str(tmp_path))
    load_text_model(ValorForRetrieval(tiny_config()), str(tmp_path))
    assert warnings.messages == [f"{tmp_path} has no head that predicts words: the model's starts from random values."]
    assert torch.equal(model.lm_head.dense.weight, before)


def test_a_bert_without_a_tokenizer_is_refused_as_its_source(tmp_path, bert):
    write_checkpoint(tmp_path / "source")
    with pytest.raises(OSError, match="has no tokenizer"):
        load_processor(str(tmp_path / "source"), bert[1])


def test_a_new_model_takes_the_tokenizer_of_its_bert(tmp_path, bert):
    pretrained, folder = bert
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(WORDS))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    processor = small_processor()
    write_checkpoint(tmp_path / "source")
    text = {"vocab_size": 200, "hidden_size": 32, "max_position_embeddings": 48, **SIZES}
    arguments = ModelArguments(
        config_name=str(tmp_path / "source"), text_model=folder, config_overrides={"text_config": text}
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "source" / name).unlink(missing_ok=True)
    model, built = build_model(arguments, "captioning")
    assert isinstance(built, ValorProcessor) and len(built.tokenizer) == len(words)
    assert built.video_processor.to_dict() == processor.video_processor.to_dict()
    words = model.valor.text_model.embeddings.word_embeddings.weight
    torch.testing.assert_close(words, pretrained.bert.embeddings.word_embeddings.weight)
