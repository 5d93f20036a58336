# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor export`: programs of the towers and of the scores, run from their files, against the model."""

import functools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.tiny import PROMPT, tiny_model
from helpers.training_world import small_config, small_processor
from modeling_valor import ValorForCaptioning, ValorModel
from modeling_valor.cli.main import main
from modeling_valor.configuration_valor import ALIGNMENT_GROUPS
from modeling_valor.integrations import export
from modeling_valor.integrations.export import Score, build_programs, choose_exporter, export_program


ROOT = Path(__file__).resolve().parents[1]
SWIN = {
    "model_type": "valor_video_swin",
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "patch_size": [2, 4, 4],
    "window_size": [4, 2, 2],
    "temporal_stride": 2,
    "image_size": 16,
}
FRAMES = 8  # of one window, at a stride of 2


def write_model(folder, **kwargs) -> Path:
    """A checkpoint with weights large enough that words, frames and clips matter."""
    processor = small_processor()
    torch.manual_seed(0)
    config = small_config(processor, **kwargs)
    config.text_config.num_hidden_layers = config.audio_config.num_hidden_layers = (
        1  # exporting a layer takes a second
    )
    model = ValorForCaptioning(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "embedding" in name or name.endswith("bias"):
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    options = {"vision_config": SWIN, "padded_similarity": "zero", "alignment_groups": ["t-av"]}
    options |= {"max_frames": FRAMES // 2, "max_audio_clips": 2}
    return write_model(tmp_path_factory.mktemp("checkpoint"), **options)


@pytest.fixture(scope="module")
def captioner(checkpoint):
    return ValorForCaptioning.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def model(captioner):
    return captioner.valor


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """Format -> folder of what `valor export` writes; each format once."""
    folders: dict[str, Path] = {}

    def write(format):
        if format == "onnx":
            pytest.importorskip("onnxscript")
            pytest.importorskip("onnxruntime")
        if format not in folders:
            folder = tmp_path_factory.mktemp(format) / "out"
            assert main(["export", str(checkpoint), str(folder), "--captions", "--format", format]) == 0
            folders[format] = folder
        return folders[format]

    return write


@functools.cache
def load_torch(file: Path) -> torch.export.ExportedProgram:
    """It takes seconds."""
    return torch.export.load(file)


def load_program(folder, name, format):
    """A program as a function of torch tensors by name, by torch or onnxruntime alone."""
    if format == "torch":
        module = load_torch(folder / f"{name}.pt2").module()
        return lambda **inputs: {key: value.detach() for key, value in module(**inputs).items()}
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(**inputs):
        outputs = session.run(names, {key: value.numpy() for key, value in inputs.items()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return run


def batch(texts, length, media, frames, clips, num_ids, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(length) < torch.randint(1, length + 1, (texts, 1), generator=generator)).long()
    return {
        "input_ids": torch.randint(5, num_ids, (texts, length), generator=generator),
        "attention_mask": mask,
        "pixel_values_videos": torch.randn(media, frames, 3, 16, 16, generator=generator),
        "input_features": torch.randn(media, clips, 64, 512, generator=generator),
    }


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_programs_give_what_the_model_gives_at_any_size(exported, model, format):
    """Embeddings, weights and scores, from the files; none of these sizes is one that was traced."""
    folder = exported(format)
    text, video, audio, score = (
        load_program(folder, name, format) for name in ("text", "video", "audio", "score_t-av")
    )
    for texts, length, media, frames, clips in ((1, 2, 1, 1, 1), (3, 11, 2, FRAMES, 2), (5, 40, 3, 3, 5)):
        inputs = batch(texts, length, media, frames, clips, model.config.text_config.vocab_size)
        with torch.no_grad():
            embeds = model.embed_texts(inputs) | model.embed_media(inputs)
            weights = {
                f"{name}_weight_logits": getattr(model, f"{name}_token_weight")(embeds[f"{name}_embeds"])
                for name in ("text", "video", "audio")
            }
        tokens = text(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        tokens |= video(pixel_values_videos=inputs["pixel_values_videos"])
        tokens |= audio(input_features=inputs["input_features"])
        tokens = {name: values for name, values in tokens.items() if not name.endswith("_tokens")}
        for name, values in tokens.items():
            torch.testing.assert_close(values, {**embeds, **weights}[name], atol=1e-4, rtol=1e-4, msg=name)
        masks = {
            "attention_mask": inputs["attention_mask"],
            "frame_mask": torch.ones(media, math.ceil(frames / 2), dtype=torch.long),
            "audio_mask": torch.ones(media, clips, dtype=torch.long),
        }
        masks["audio_mask"][0] = 0  # the first is silent
        with torch.no_grad():
            expected = model.compute_similarity(**embeds, audio_mask=masks["audio_mask"])
        assert expected.numel() == 1 or expected.std() > 1e-3
        torch.testing.assert_close(score(**tokens, **masks)["scores"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_more_frames_than_a_window_has_are_refused(exported, format):
    video = load_program(exported(format), "video", format)
    with pytest.raises(Exception, match=r"Guard failed|invalid index found"):
        video(pixel_values_videos=torch.zeros(1, FRAMES + 1, 3, 16, 16))


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_the_description_is_that_of_the_files(exported, model, format):
    folder = exported(format)
    description = json.loads((folder / "programs.json").read_text())
    assert description["logit_scale"] == pytest.approx(model.logit_scale.item())
    assert description["alignment_groups"] == {group: f"score_{group}" for group in model.config.alignment_groups}
    video = description["programs"]["video"]
    assert video["inputs"] == {"pixel_values_videos": {"dtype": "float32", "shape": ["media", "frames", 3, 16, 16]}}
    assert video["outputs"]["video_embeds"]["shape"] == ["media", "encoded_frames", 16]
    assert video["limits"] == {"frames": FRAMES}
    for name, program in description["programs"].items():
        assert (folder / program["file"]).is_file()
        if format == "torch":
            parameters = load_torch(folder / program["file"]).state_dict
            assert not [key for key in parameters if name == "audio" and ("text" in key or "vision" in key)]


def test_transformers_loads_the_folder(exported):
    from transformers.exporters.base import ExportedModel

    loaded = ExportedModel.from_pretrained(exported("torch"), trust_remote_code=True)
    assert set(loaded.components) == {"text", "video", "audio", "score_t-av", "next_word_t-av"}


OPTIONS = {
    "learned": {},
    "text padded with zeros": {"padded_similarity": "zero"},
    "uniform weights": {"token_weighting": "uniform"},
    "fusion of scores": {"audiovisual_fusion": "score"},
}


@pytest.mark.parametrize("group", ALIGNMENT_GROUPS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_plain_score_is_the_models(group, options):
    """Before it is exported, with padding, missing modalities and items that have nothing."""
    model = tiny_model(ValorModel, alignment_groups=list(ALIGNMENT_GROUPS), **options)
    generator = torch.Generator().manual_seed(1)
    query, candidates = ALIGNMENT_GROUPS[group]
    tokens, masks = {}, {}
    for name, length in (("text", 4), ("video", 3), ("audio", 2)):
        if name in (query, *candidates):
            count = 5 if name == query else 6
            embeds = torch.randn(count, length, 16, generator=generator)
            mask = torch.rand(count, length, generator=generator) < 0.5
            mask[0] = mask[1] = name == query
            tokens[f"{name}_embeds"] = torch.nn.functional.normalize(embeds, dim=-1)
            masks[export.mask_name(name)] = mask
    if len(candidates) == 2:
        masks[export.mask_name(candidates[0])][1, 0] = True
    weights = {
        f"{name}_weight_logits": getattr(model, f"{name}_token_weight")(tokens[f"{name}_embeds"])
        for name in (query, *candidates)
    }
    with torch.no_grad():
        expected = model.compute_similarity(**tokens, **masks, group=group)
        scores = Score(model.config, group)(**tokens, **weights, **masks)["scores"]
    assert (expected == -torch.inf).any() and torch.isfinite(expected).sum() > 5
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name, encoder", [("text", None), ("text", "bert"), ("text", "clip_text_model"), ("video", None)]
)
def test_towers_of_other_encoders_and_with_a_prompt_are_exported(name, encoder):
    processor = small_processor()
    options = {"retrieval_prompt_ids": [id % len(processor.tokenizer) for id in PROMPT]}
    if encoder is not None:
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
        words = {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 48}
        options["text_encoder_config"] = {"model_type": encoder, **sizes, **words}
    torch.manual_seed(0)
    program = build_programs(ValorModel(small_config(processor, **options)).eval(), processor)[name]
    exported = export_program(program, *choose_exporter("torch"))
    assert export.largest_difference(program, exported) <= 1e-5


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_captions_are_those_of_generate(exported, captioner, format):
    """Greedily, word by word, also of a video without sound and of a sound without frames."""
    inputs = batch(1, 1, 3, FRAMES, 2, 10)
    folder = exported(format)
    tokens = load_program(folder, "video", format)(pixel_values_videos=inputs["pixel_values_videos"])
    tokens |= load_program(folder, "audio", format)(input_features=inputs["input_features"])
    kept = {name: tokens[name] for name in ("video_tokens", "audio_tokens")}
    present = {"frame_mask": torch.tensor([1, 1, 0]), "audio_mask": torch.tensor([1, 0, 1])}
    lengths = {"frame_mask": FRAMES // 2, "audio_mask": 2}
    masks = {name: present[name][:, None].repeat(1, length) for name, length in lengths.items()}
    step = load_program(folder, "next_word_t-av", format)
    words = torch.full((3, 1), 2)
    for _ in range(6):
        logits = step(input_ids=words, **kept, **masks)["logits"]
        words = torch.cat([words, logits.argmax(dim=1, keepdim=True)], dim=1)
    expected = captioner.generate(
        pixel_values_videos=inputs["pixel_values_videos"],
        frame_mask=present["frame_mask"][:, None].repeat(1, FRAMES),
        input_features=inputs["input_features"],
        audio_mask=masks["audio_mask"],
        max_new_tokens=6,
        eos_token_id=-1,
    )
    assert len(set(map(tuple, words.tolist()))) > 1
    assert words.tolist() == expected.tolist()
    with pytest.raises(Exception, match=r"out of range|broadcast an axis"):
        clips = {"audio_tokens": kept["audio_tokens"][:, [0, 1, 1]], "audio_mask": masks["audio_mask"][:, [0, 1, 1]]}
        step(input_ids=words, **{**kept, **masks, **clips})


@pytest.mark.parametrize("cross_attention_type", ["merge", "parallel"])
def test_decoders_of_other_designs_are_exported(cross_attention_type):
    processor = small_processor()
    config = small_config(processor, caption_prompt_ids=[2, 20, 21, 3], captioning_groups=["t-v", "t-av"])
    config.text_config.cross_attention_type = cross_attention_type
    torch.manual_seed(0)
    programs = build_programs(ValorForCaptioning(config).eval(), processor)
    assert [name for name in programs if name.startswith("next_word")] == ["next_word_t-av"]
    exported = export_program(programs["next_word_t-av"], *choose_exporter("torch"))
    assert export.largest_difference(programs["next_word_t-av"], exported) <= 1e-5


def test_an_axis_that_is_always_1_has_no_name():
    processor = small_processor()
    captioner = ValorForCaptioning(small_config(processor, max_audio_clips=1)).eval()
    program = build_programs(captioner, processor)["next_word_t-av"]
    assert program.inputs["audio_mask"].shape == ("media", 1) and "clips" not in program.limits
    assert program.inputs["frame_mask"].shape == ("media", "encoded_frames")


def test_what_cannot_be_exported_is_one_sentence_and_nothing_is_written(checkpoint, tmp_path, monkeypatch, capsys):
    coarse = write_model(tmp_path / "coarse", alignment="coarse")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    output = tmp_path / "out"

    def message(*arguments):
        capsys.readouterr()
        assert main(["export", *map(str, arguments)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert not output.exists()
        return line

    assert "alignment='coarse'" in message(coarse, output)
    assert "is not an empty folder" in message(checkpoint, tmp_path / "full")
    assert "MODEL" in message(tmp_path / "missing", output)
    with monkeypatch.context() as patch:
        patch.setattr(export, "find_spec", lambda name: None)
        assert message(checkpoint, output, "--format", "onnx").endswith('pip install "modeling-valor[onnx]"')
    monkeypatch.setattr(export, "largest_difference", lambda *_: math.nan)
    monkeypatch.setattr(export, "export_program", lambda *_: SimpleNamespace(components={"model": None}))
    assert "differs from the model" in message(checkpoint, output)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["kept"]


def test_the_examples_of_the_documentation_run(exported, tmp_path, monkeypatch, captioner, model):
    """On the tiny checkpoint in the place of valor-tiny; scores and captions are the model's."""
    (tmp_path / "valor-tiny-onnx").symlink_to(exported("onnx"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    found: dict = {}
    exec("\n".join(blocks), found)
    texts, media = (
        {name: torch.from_numpy(np.asarray(value)) for name, value in found[side].items()}
        for side in ("texts", "media")
    )
    with torch.no_grad():
        expected = model.score(texts, media)
    np.testing.assert_allclose(found["scores"], expected.numpy(), atol=1e-4)
    words = captioner.generate(**media, max_new_tokens=20, eos_token_id=-1)
    assert found["words"].tolist() == words.tolist()
