# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captioning metrics against recorded and live values of pycocoevalcap."""

import contextlib
import csv
import importlib.util
import io
import json
import logging
import os
import shutil
import sys
from collections import defaultdict
from types import SimpleNamespace

import pytest

from modeling_valor.evaluation import CAPTION_METRICS, caption_metrics
from modeling_valor.evaluation.metrics.captioning import _common_subsequence_length, _warn_once


needs_java = pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="pycocoevalcap or Java is not installed",
)

WITHOUT_JAVA = CAPTION_METRICS[:6]

CAPTIONS = [
    (
        "a brown dog barks at a passing car",
        [
            "A brown dog is barking at a car.",
            "A dog barks while a car passes by",
            "The dog barks; traffic can be heard",
        ],
    ),
    (
        "a woman is singing and playing the guitar on a stage",
        ["A woman sings on stage, playing guitar.", "A female singer plays the guitar"],
    ),
    (
        "rain falls",
        [
            "Heavy rain falls on a tin roof while thunder rumbles in the distance",
            "It's raining hard",
            "Rain is pouring down (and thunder can be heard)",
        ],
    ),
    ("two men talk talk talk and laugh", ["Two men are talking and laughing together", "Men talk, then they laugh"]),
    (
        "a train horn sounds as the train passes the station",
        [
            "A train passes a station and sounds its horn",
            "The train's horn sounds twice",
            "A loud train goes by",
            "A train blows its horn.",
        ],
    ),
    ("", ["A clock ticks"]),
    (
        "a baby cries in a quiet room, then a woman says 'hush'",
        ["A baby cries and a woman comforts it", "An infant is crying"],
    ),
    (
        "someone is chopping vegetables on a wooden board",
        ["Someone is chopping vegetables on a wooden board", "A person chops carrots with a knife"],
    ),
]
PREDICTIONS = [prediction for prediction, _ in CAPTIONS]
REFERENCES = [references for _, references in CAPTIONS]

# pycocoevalcap 1.2 on these captions
RECORDED = {
    "BLEU-1": 0.7068965517119501,
    "BLEU-2": 0.5646206550411864,
    "BLEU-3": 0.38700532837159046,
    "BLEU-4": 0.29551825273363036,
    "ROUGE-L": 0.49758487030014675,
    "CIDEr": 1.469984922599043,
    "METEOR": 0.3181006936261771,
}


def test_scores_equal_recorded_figures_of_pycocoevalcap():
    scores = caption_metrics(PREDICTIONS, REFERENCES, WITHOUT_JAVA)
    assert scores == pytest.approx({name: RECORDED[name] for name in WITHOUT_JAVA}, abs=1e-12)


@needs_java
def test_meteor_equals_recorded_figure_of_pycocoevalcap():
    assert caption_metrics(PREDICTIONS, REFERENCES, ["METEOR"]) == pytest.approx({"METEOR": RECORDED["METEOR"]})


@needs_java
@pytest.mark.parametrize("dataset", ["audiocaps", "clotho", "msvd"])
def test_real_captions_score_as_in_pycocoevalcap(shared, dataset):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    samples = list(captions_of(shared / "annotations", dataset).values())[:250]
    predictions, references = [captions[0] for captions in samples], [captions[1:] for captions in samples]
    given = {sample: [{"caption": text}] for sample, text in enumerate(predictions)}
    true = {sample: [{"caption": text} for text in texts] for sample, texts in enumerate(references)}
    given, true = PTBTokenizer().tokenize(given), PTBTokenizer().tokenize(true)
    with contextlib.redirect_stdout(io.StringIO()):
        bleu, _ = Bleu(4).compute_score(true, given)
    expected = [*bleu, Rouge().compute_score(true, given)[0], Cider().compute_score(true, given)[0]]
    scores = caption_metrics(predictions, references, WITHOUT_JAVA)
    assert list(scores.values()) == pytest.approx(expected, abs=1e-9)


def captions_of(annotations, dataset):
    """Captions of each video or sound of the dataset."""
    if dataset == "msvd":
        return json.loads((annotations / "msvd" / "captions_msvd.json").read_text())
    groups = defaultdict(list)
    with (annotations / dataset / "test.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = row.get("youtube_id") or row["file_name"]
            groups[key] += [text for column, text in row.items() if column.startswith("caption")]
    return {key: captions for key, captions in groups.items() if len(captions) > 1}


def test_bleu_of_two_words_by_hand():
    # one of two words is right, no pair is, and the reference is twice as long: e^(1 - 4/2) * 1/2
    scores = caption_metrics(["a cat"], [["a dog barks loudly"]], ["BLEU-1", "BLEU-2"])
    assert scores == pytest.approx({"BLEU-1": 0.18393972, "BLEU-2": 0.0}, abs=1e-6)


def test_the_shorter_of_two_equally_close_references_sets_the_length():
    # as in pycocoevalcap; the longer one would cost e^(1 - 4/3)
    scores = caption_metrics(
        ["a dog barks"], [["a dog barks at cats loudly", "a dog barks loudly", "a dog"]], ["BLEU-1"]
    )
    assert scores == pytest.approx({"BLEU-1": 1.0}, abs=1e-6)


def test_rouge_l_by_hand():
    # the longest common subsequence is "a barks": precision 2/3, recall 2/4
    score = caption_metrics(["a dog barks"], [["a big cat barks"]], ["ROUGE-L"])["ROUGE-L"]
    assert score == pytest.approx((1 + 1.44) * (2 / 3) * 0.5 / (0.5 + 1.44 * (2 / 3)))


def test_perfect_captions_have_cider_ten():
    captions = ["a dog barks at the moon", "water runs down an old pipe"]
    scores = caption_metrics(captions, [[caption] for caption in captions], ["CIDEr", "BLEU-4", "ROUGE-L"])
    assert scores == pytest.approx({"CIDEr": 10.0, "BLEU-4": 1.0, "ROUGE-L": 1.0}, abs=1e-6)


def test_it_is_said_why_cider_is_zero_for_a_single_sample(caplog):
    _warn_once.cache_clear()
    assert caption_metrics(["a dog barks"], [["a dog barks"]], ["CIDEr"])["CIDEr"] == 0
    assert [message.split(",")[0] for message in caplog.messages] == ["CIDEr is 0 for a single sample"]


def test_common_subsequence_equals_the_table_of_the_textbook():
    first, second = (
        ["a", "b", "c", "a", "d", "b", "a", "c", "d", "d", "a"],
        ["b", "a", "c", "d", "a", "a", "b", "d", "c", "a", "c"],
    )
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert _common_subsequence_length(first, second) == table[-1][-1]


@pytest.mark.parametrize("missing", ["java", "pycocoevalcap"])
def test_java_metrics_are_left_out_with_one_line_where_they_cannot_run(monkeypatch, caplog, missing):
    if missing == "java":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        scores = caption_metrics(PREDICTIONS, REFERENCES)
        caption_metrics(PREDICTIONS, REFERENCES)
    assert tuple(scores) == WITHOUT_JAVA
    assert [message.split(" is left out")[0] for message in caplog.messages] == ["METEOR", "SPICE"]
    assert all("\n" not in message for message in caplog.messages)


FAKE_SPICE = """#!{python}
import json, sys

arguments = sys.argv[sys.argv.index("spice-1.0.jar") + 1 :]
samples = json.load(open(arguments[0]))
scores = [{{"scores": {{"All": {{"f": len(s["test"].split()) / len(s["refs"][0].split())}}}}}} for s in samples]
json.dump(scores, open(arguments[arguments.index("-out") + 1], "w"))
"""


def test_spice_is_the_mean_of_what_its_program_writes(monkeypatch, tmp_path):
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    for name in ("spice-1.0", "lib/stanford-corenlp-3.6.0", "lib/stanford-corenlp-3.6.0-models"):
        (tmp_path / "spice" / f"{name}.jar").touch()
    (tmp_path / "java").write_text(FAKE_SPICE.format(python=sys.executable))
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    scores = caption_metrics(["a dog", "Rain."], [["a big brown dog"], ["rain falls"]], ["SPICE"])
    assert scores == {"SPICE": 0.5}


@pytest.mark.parametrize(
    ("predictions", "references", "metrics", "message"),
    [
        (["a"], [["a"]], ["BLEU"], "no caption metric 'BLEU'"),
        (["a"], [["a"], ["b"]], ["CIDEr"], "1 predictions and 2 lists"),
        ([], [], ["CIDEr"], "0 predictions"),
        (["a"], ["a"], ["CIDEr"], "references.0. is 'a'"),
        (["a"], [[]], ["CIDEr"], "one or more captions"),
    ],
)
def test_unfit_captions_are_named(predictions, references, metrics, message):
    with pytest.raises(ValueError, match=message):
        caption_metrics(predictions, references, metrics)
