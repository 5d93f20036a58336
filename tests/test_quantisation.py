# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Weights in int8 and int4 by torchao, where it is installed, and LoRA adapters merged into the weights: docs/quantisation.md."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import valor_cli
from helpers.tiny import tiny_model
from modeling_valor import ValorForCaptioning, ValorForPreTraining, ValorProcessor


ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "hub_configs" / "valor-tiny"


@pytest.fixture(scope="module")
def media():
    processor = ValorProcessor.from_pretrained(TINY)
    return processor(videos=str(ROOT / "examples" / "media" / "clip-00000.mp4"), return_tensors="pt")


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_are_rounded_ones(bits, media, tmp_path):
    """Each linear weight is one of 2^bits levels, at most half a level from what it was; outputs are those of these weights."""
    quantization = pytest.importorskip("torchao.quantization")
    granularity = pytest.importorskip("torchao.quantization.granularity")
    from transformers import TorchAoConfig

    config = (
        quantization.Int8WeightOnlyConfig()
        if bits == 8
        else quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=granularity.PerGroup(32))
    )
    small = ValorForPreTraining.from_pretrained(TINY, quantization_config=TorchAoConfig(config)).eval()
    by_hand = ValorForPreTraining.from_pretrained(TINY).eval()
    embeddings = by_hand.get_input_embeddings().weight
    quantised = 0
    with torch.no_grad():
        for name, layer in by_hand.named_modules():
            if isinstance(layer, nn.Linear) and layer.weight is not embeddings:
                weight = small.get_submodule(name).weight.dequantize()
                group = layer.in_features if bits == 8 else 32
                error, most = ((weight - layer.weight).abs(), layer.weight.abs())
                level = most.unflatten(-1, (-1, group)).amax(-1) / ((2**bits - 1) / 2)
                assert (error.unflatten(-1, (-1, group)).amax(-1) <= level * 0.5001).all(), name
                assert max(len(row.unique()) for row in weight.unflatten(-1, (-1, group)).flatten(0, -2)) <= 2**bits
                layer.weight.copy_(weight)
                quantised += 1
        embeds = small.valor.get_video_embeds(media["pixel_values_videos"])
        torch.testing.assert_close(
            embeds, by_hand.valor.get_video_embeds(media["pixel_values_videos"]), atol=1e-5, rtol=0
        )
        small.save_pretrained(tmp_path)
        again = ValorForPreTraining.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again.valor.get_video_embeds(media["pixel_values_videos"]), embeds)
    assert quantised == 99 and (tmp_path / "model.safetensors").stat().st_size < 13e6


def test_the_quantised_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchao")
    for name in ("hub_configs/valor-tiny", "examples/media"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8").partition("## LoRA")[0]
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    capsys.readouterr()
    assert valor_cli.main(["caption", "examples/media/clip-00000.mp4", "--model", "valor-tiny-int8"]) == 0
    assert "pink triangle" in capsys.readouterr().out


def test_merged_adapters_are_weights(tmp_path):
    """W + B A alpha / r in each layer, by hand, in a checkpoint that needs no PEFT."""
    peft = pytest.importorskip("peft")
    base = tiny_model(ValorForCaptioning)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    lora = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(base, lora)
    deltas = {
        name.removesuffix(".lora_A.default.weight").removeprefix("base_model.model."): (
            model.get_parameter(name.replace("lora_A", "lora_B")) @ weight * 6 / 2
        ).detach()
        for name, weight in model.named_parameters()
        if ".lora_A." in name
    }
    model.merge_and_unload().save_pretrained(tmp_path)
    merged = ValorForCaptioning.from_pretrained(tmp_path).state_dict()
    assert deltas and merged.keys() == before.keys()
    for name, weight in before.items():
        torch.testing.assert_close(merged[name], weight + deltas.get(name.removesuffix(".weight"), 0))
