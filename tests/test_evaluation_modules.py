# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The metrics as modules of the `evaluate` library, loaded from the package in a process that has no network."""

import json
import os
from pathlib import Path

import pytest

from helpers.warm import run_warm
from modeling_valor.evaluation import EVALUATE_MODULES


USE = """
import json
import sys

import evaluate
from modeling_valor.evaluation import EVALUATE_MODULES


def compute(name, **inputs):
    return evaluate.load(str(EVALUATE_MODULES / name)).compute(**inputs)


captions = {"predictions": ["a dog barks", "a cat"], "references": [["a dog barks", "dogs"], ["a cat"]]}
results = {
    "valor_retrieval": compute(
        "valor_retrieval", predictions=[[0.1, 0.9], [0.2, float("-inf")]], references=[[1], [1]], dual_softmax=False
    ),
    "valor_captioning": compute("valor_captioning", **captions, metrics=["BLEU-1", "ROUGE-L"]),
    "valor_answers": compute("valor_answers", predictions=["two"], references=[["2"]], types=["Counting"]),
    "valor_audio_concepts": compute("valor_audio_concepts", data=["A dog barks!"], concepts=["dog"]),
}
print(json.dumps(results))
"""


def test_every_module_loads_offline_and_computes(tmp_path):
    root = str(Path(__file__).resolve().parents[1])
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = run_warm("-c", USE, env={**os.environ, **offline, "PYTHONPATH": root})
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout.splitlines()[-1])
    assert sorted(results) == sorted(path.name for path in EVALUATE_MODULES.iterdir() if path.name.startswith("valor"))
    assert results["valor_retrieval"] == {"R@1": 50, "R@5": 100, "R@10": 100, "MedianR": 1.5, "MeanR": 1.5}
    assert results["valor_captioning"] == pytest.approx({"BLEU-1": 1.0, "ROUGE-L": 1.0}, abs=1e-6)
    assert results["valor_answers"] == {"accuracy": 100, "accuracy_by_type": {"Counting": 100}}
    assert results["valor_audio_concepts"] == {"LenCap": 3, "ACD": pytest.approx(100 / 3)}
