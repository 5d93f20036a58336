# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Model cards: the template, and the cards of this repository against the paper."""

import re
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

import modeling_valor.model_card
from helpers.tiny import tiny_config, tiny_model
from modeling_valor import ValorForRetrieval
from modeling_valor.evaluation.paper import PAPER_METRICS
from modeling_valor.model_card import build_model_card


ROOT = Path(__file__).resolve().parents[1]
CARDS = [ROOT / "MODEL_CARD.md", *sorted(ROOT.glob("hub_configs/*/README.md"))]
SECTIONS = ("## Use", "## Training", "## Licence", "## Citation")


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_the_cards_of_the_repository_are_complete(path):
    card = ModelCard.load(path)
    data = card.data
    assert (data.language, data.library_name, data.pipeline_tag) == ("en", "transformers", "video-text-to-text")
    assert data.license == ("other" if path.name == "MODEL_CARD.md" else "mit") and "valor" in data.tags
    assert all(section in card.text for section in SECTIONS) and "biases" in card.text
    assert not re.search(r"\]\(\.\./", card.text)  # on the Hub there is no folder above
    assert ModelCard(str(card)).data.to_dict() == data.to_dict()


def paper_rows(model: str) -> dict[tuple[str, str], dict[str, float]]:
    """(task, benchmark) -> metrics of a model without dual softmax."""
    return {
        place: row.metrics
        for place, rows in PAPER_METRICS.items()
        for row in rows
        if row.model.startswith(model) and "DSL" not in row.model
    }


@pytest.mark.parametrize("number", [0, 1], ids=["VALOR-B", "VALOR-L"])
def test_the_metadata_has_the_metrics_of_the_paper(number):
    entry = metadata_load(ROOT / "MODEL_CARD.md")["model-index"][number]
    model, results = model_index_to_eval_results([entry])
    found: dict[tuple[str, str], dict[str, float]] = {}
    for result in results:
        task = result.task_type.removeprefix("audiovisual-").replace("-", "_")
        found.setdefault((task, result.dataset_type), {})[result.metric_name] = result.metric_value
        assert result.source_url == "https://arxiv.org/abs/2304.08345"
    assert model == ("VALOR-B", "VALOR-L")[number] and found == paper_rows(model)


# Rows of VALOR in the paper's text, in the order of its Tables 3 to 7
PAPER_LINES = [
    ("V ALOR BOurs 6.5M VA", 18, "VALOR-B"),
    ("V ALOR LOurs 33.5M VA", 18, "VALOR-L"),
    ("V ALOR LDSLOurs 33.5M VA", 18, "VALOR-L, dual softmax"),
    ("V ALOR BOurs 6.5M VA", 16, "VALOR-B"),
    ("V ALOR LOurs 33.5M VA", 16, "VALOR-L"),
    ("V ALOR BOurs 6.5M VA", 5, "VALOR-B"),
    ("V ALOR LOurs 33.5M VA", 5, "VALOR-L"),
    ("V ALOR B ", 6, "VALOR-B"),
    ("V ALOR B ", 8, "VALOR-B"),
    ("V ALOR L 33.5M", 7, "VALOR-L"),
]


def test_every_number_of_the_tables_is_in_the_papers_text(shared):
    """Tables 3 to 7, row by row, against the text of the paper, from which the spaces of some cells are lost."""
    text = (shared / "paper.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("V ALOR ")]
    card = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8").partition("## Metrics of the paper")[2]
    rows = [
        (name, [float(number) for number in re.findall(r"\d+\.\d+", cells)])
        for name, cells in re.findall(r"^\| (VALOR-[^|]+) \|(.*)$", card, re.MULTILINE)
        if re.search(r"\d", cells)
    ]
    expected = []
    for start, count, name in PAPER_LINES:
        line = next(line for line in lines if line.startswith(start))
        lines.remove(line)
        digits = r"\d+\.\d{2}(?=\s|$)|\d+\.\d" if count == 7 else r"\d+\.\d"
        numbers = [float(number) for number in re.findall(digits, line.removeprefix(start))]
        assert len(numbers) == count
        expected.append((name, numbers))
    audio = expected.pop(8)[1]  # both parts of Table 6 are one row here
    expected[7] = ("VALOR-B", expected[7][1] + audio)
    assert rows == expected


def test_table_2_is_in_the_papers_text(shared):
    text = (shared / "paper.txt").read_text(encoding="utf-8")
    card = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name, values in {
        "B": ("6.5M", "Video Swin B", "512", "200K", "342M", "224"),
        "L": ("33.5M", "CLIP L", "1024", "500K", "593M", "224"),
    }.items():
        (line,) = re.findall(rf"^VALOR {name} VALOR-1M WebVid-2.5M.* \d+M 224$", text, re.MULTILINE)
        assert line.endswith(" ".join(values))
    for row in ("6.5 M | 33.5 M", "512 | 1,024", "200,000 | 500,000", "342 M | 593 M", "Video Swin-B | CLIP-L"):
        assert row in card


def test_a_card_says_what_is_not_stated():
    card = build_model_card("casia/mine", None)
    assert card.data.license is None and "The licence of these weights is not stated" in card.text
    assert (
        "What this checkpoint was trained on is not stated." in card.text and "No metrics were measured" in card.text
    )
    assert set(card.data.to_dict()) == {"library_name", "pipeline_tag", "tags"}
    assert "mine" in card.text and "{{" not in card.text and "{%" not in card.text


def test_a_card_has_the_parts_of_its_model_and_loads_by_its_class():
    model = tiny_model(ValorForRetrieval)
    text = model.build_model_card("casia/mine", datasets=["a/b"], base_model="c/d").text
    config = tiny_config()
    assert f"{config.audio_config.num_hidden_layers} layers of width {config.audio_config.hidden_size}" in text
    assert f"| parameters | {model.num_parameters():,} |" in text
    assert 'ValorForRetrieval.from_pretrained("casia/mine")' in text and "audiovisual-captioning" not in text
    assert 'pipeline("audiovisual-retrieval", model="casia/mine"' in text
    assert "Trained on a/b." in text and "trained further from `c/d`" in text


def test_without_its_template_a_card_is_huggingface_hubs_own(monkeypatch, tmp_path):
    """Code that came with a checkpoint has no template."""
    monkeypatch.setattr(modeling_valor.model_card, "TEMPLATE", tmp_path / "absent")
    result = EvalResult(
        task_type="audiovisual-captioning", dataset_type="x", dataset_name="x", metric_type="cider", metric_value=1.0
    )
    card = build_model_card("casia/mine", tiny_config(), license="mit", eval_results=[result])
    assert card.data.license == "mit" and card.data.eval_results == [result] and "valor" in card.data.tags
