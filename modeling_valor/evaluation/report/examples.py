# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Examples for the report: good and bad cases of each task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..metrics.answers import score_answers
from ..metrics.captioning import caption_metrics
from ..outputs import direction_name
from ..rankings import Ranking, name_of, rankings
from ..runner import Report


EXAMPLES = 20  # of a section
TOP = 3

MODALITIES = {"av": "video and audio", "v": "video only", "a": "audio only"}

_TEXTS = 3  # of a sample on its card
_REFERENCES = 5
_SCORED_CAPTIONS = 2000


@dataclass(frozen=True)
class Card:
    """A sample in an example: its id, a label, its texts, and whether it is the right one."""

    id: str
    label: str = ""
    texts: tuple[str, ...] = ()
    is_right: bool = False


@dataclass(frozen=True)
class Example:
    """A query (a text or a sample) with the retrieved samples, or a sample with the text that the model wrote."""

    cards: list[Card]
    query: str | None = None
    query_card: Card | None = None
    rows: list[tuple[str, str]] = field(default_factory=list)

    def every_card(self) -> list[Card]:
        return self.cards if self.query_card is None else [self.query_card, *self.cards]


@dataclass(frozen=True)
class Section:
    """Examples of one kind, and the number of cases from which they are taken."""

    title: str
    examples: list[Example]
    total: int


def build_sections(report: Report) -> list[Section]:
    """The sections of a report, without those that have no examples."""
    sections = {
        "retrieval": _retrieval_sections,
        "captioning": _caption_sections,
        "question_answering": _answer_sections,
    }[report.recipe.task](report)
    return [section for section in sections if section.examples]


# --- Retrieval --------------------------------------------------------------------------------------------------------


def _retrieval_sections(report: Report) -> Iterator[Section]:
    texts = {sample.id: sample.captions[:_TEXTS] for sample in report.samples}
    for group in report.recipe.groups:
        # By rank, then by the difference to the best wrong item
        ordered = sorted(rankings(report.evaluation, group, top=TOP), key=lambda found: (found.rank, -_margin(found)))
        hits = [found for found in ordered if found.rank == 1]
        misses = [found for found in reversed(ordered) if found.rank > 1]
        for what, cases in (("hits", hits), ("misses", misses)):
            examples = [
                _retrieval_example(report, texts, found) for found in _one_of_each(cases, lambda found: found.item)
            ]
            yield Section(f"{direction_name(group)}: {what}", examples, len(cases))


def _margin(found: Ranking) -> float:
    wrong = [score for item, score in found.top if item != found.item]
    return found.score - wrong[0] if wrong else 0.0


def _retrieval_example(report: Report, texts: Mapping[str, Sequence[str]], found: Ranking) -> Example:
    embeddings = report.evaluation.retrieval_embeddings
    shown = [(item, score, place) for place, (item, score) in enumerate(found.top, start=1)]
    if found.item not in [item for item, _ in found.top]:
        shown.append((found.item, found.score, found.rank))
    cards = [
        Card(
            embeddings.ids[item],
            f"rank {found.rank if item == found.item else place}, score {score:.3f}",
            tuple(texts[embeddings.ids[item]]),
            item == found.item,
        )
        for item, score, place in shown
    ]
    if found.direction.startswith("t-"):
        return Example(cards, query=name_of(embeddings, found.query, is_text=True))
    name = embeddings.ids[found.query]
    return Example(cards, query_card=Card(name, "the query", tuple(texts[name])))


# --- Captions and answers ---------------------------------------------------------------------------------------------


def _caption_sections(report: Report) -> Iterator[Section]:
    entries = report.evaluation.predictions
    scored = _spread([entry for entry in entries if entry["references"]], _SCORED_CAPTIONS)
    overlap = [
        caption_metrics([entry["prediction"]], [entry["references"]], ["ROUGE-L"])["ROUGE-L"] for entry in scored
    ]
    others = _other_predictions(report)

    def example(entry: Mapping[str, Any], label: str = "") -> Example:
        references = [("reference", text) for text in entry["references"][:_REFERENCES]]
        return Example([Card(entry["id"], label)], query=entry["prediction"], rows=[*others(entry), *references])

    if not scored:
        chosen = _spread(entries, EXAMPLES)
        yield Section("Captions", [example(entry) for entry in chosen], len(entries))
        return
    order = sorted(range(len(scored)), key=lambda index: -overlap[index])
    half = (len(order) + 1) // 2
    for title, cases in (
        ("Captions closest to a reference", order[:half]),
        ("Captions farthest from the references", order[half:][::-1]),
    ):
        examples = [
            example(scored[index], f"ROUGE-L {100 * overlap[index]:.1f}")
            for index in _one_of_each(cases, lambda index: scored[index]["id"])
        ]
        yield Section(title, examples, len(cases))


def _answer_sections(report: Report) -> Iterator[Section]:
    entries = [entry for entry in report.evaluation.predictions if entry["answers"]]
    score = score_answers([entry["prediction"] for entry in entries], [entry["answers"] for entry in entries])
    captions = {sample.id: sample.captions[:_TEXTS] for sample in report.samples}
    others = _other_predictions(report)

    def example(index: int) -> Example:
        entry = entries[index]
        rows = [
            ("answered", entry["prediction"]),
            *others(entry),
            ("right", ", ".join(dict.fromkeys(entry["answers"]))),
        ]
        rows += [("about", entry["type"])] if entry["type"] else []
        label = "" if score[index] in (0, 1) else f"{100 * score[index]:.0f} % right"
        return Example([Card(entry["id"], label, tuple(captions[entry["id"]]))], query=entry["question"], rows=rows)

    order = sorted(range(len(entries)), key=lambda index: -score[index])
    for title, cases in (
        ("Answered rightly", [index for index in order if score[index] > 0]),
        ("Answered wrongly", [index for index in reversed(order) if score[index] == 0]),
    ):
        chosen = _one_of_each(cases, lambda index: entries[index]["id"])
        yield Section(title, [example(index) for index in chosen], len(cases))


def _other_predictions(report: Report) -> Callable[[Mapping[str, Any]], list[tuple[str, str]]]:
    """Predictions with the other modalities of the recipe, as rows of an example."""

    def key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        return entry["id"], entry.get("question_id"), entry.get("question")

    written = {
        MODALITIES[other.recipe.modalities]: {
            key(entry): entry["prediction"] for entry in other.evaluation.predictions
        }
        for other in report.others
    }
    return lambda entry: [(name, texts[key(entry)]) for name, texts in written.items() if key(entry) in texts]


def _one_of_each(cases: Sequence[Any], sample_of: Callable[[Any], Any]) -> list[Any]:
    """The first `EXAMPLES` cases; a sample has a second one only after every sample has one."""
    seen: dict[Any, int] = {}
    turns = []
    for case in cases:
        seen[sample_of(case)] = turn = seen.get(sample_of(case), -1) + 1
        turns.append(turn)
    order = sorted(range(len(cases)), key=lambda index: turns[index])
    return [cases[index] for index in order[:EXAMPLES]]


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spaced."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)]
