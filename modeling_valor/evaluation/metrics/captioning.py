# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captioning metrics: BLEU, ROUGE-L, CIDEr, METEOR and SPICE as pycocoevalcap computes them."""

import importlib.util
import json
import logging
import math
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from .tokenizer import tokenize


logger = logging.getLogger(__name__)

CAPTION_METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "METEOR", "SPICE")

_LONGEST_NGRAM = 4


class _UnavailableMetricError(RuntimeError):
    """A metric needs a program that is not installed; the message says which and how to get it."""


def check_caption_metrics(metrics: Sequence[str]) -> None:
    """Checks that these are names of caption metrics.

    Raises:
        ValueError: there are no metrics, or one is not of `CAPTION_METRICS`.
    """
    unknown = [name for name in metrics if name not in CAPTION_METRICS]
    if unknown or not metrics:
        what = f"There is no caption metric {unknown[0]!r}" if unknown else "No caption metric was given"
        raise ValueError(f"{what}; choose from {', '.join(CAPTION_METRICS)}.")


def caption_metrics(
    predictions: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str] = CAPTION_METRICS
) -> dict[str, float]:
    """Scores of a corpus of captions by name, on pycocoevalcap's scale: 0 to 1, CIDEr 0 to 10.

    `predictions` holds one caption per sample and `references` one list of captions per sample; both are raw text and
    are split into Penn Treebank tokens here. The values are those of pycocoevalcap: BLEU with the closest reference length, ROUGE-L
    with beta 1.2, CIDEr-D with sigma 6 and document frequencies from these references (one sample alone scores 0).

    METEOR and SPICE are Java programs: they need `java` and the package `pycocoevalcap`, which has their files. Without
    these they are left out, and one warning says what is missing. SPICE takes minutes for 1,000 captions.

    Raises:
        ValueError: If the lists do not fit together or a metric is not one of `CAPTION_METRICS`.
    """
    check_caption_metrics(metrics)
    _check_captions(predictions, references)
    candidates = tokenize(predictions)
    flat = iter(tokenize(list(chain.from_iterable(references))))
    tokenized = [[next(flat) for _ in captions] for captions in references]

    scores: dict[str, float] = {}
    for names, score in _SCORERS.items():
        wanted = [name for name in names if name in metrics]
        if not wanted:
            continue
        try:
            values = dict(zip(names, score(candidates, tokenized), strict=True))
        except _UnavailableMetricError as error:
            _warn_once(f"{wanted[0]} is left out: {error}")
            continue
        scores.update((name, values[name]) for name in wanted)
    if "CIDEr" in scores and len(predictions) == 1:
        _warn_once("CIDEr is 0 for a single sample, as it weighs words by how few of the samples have them.")
    return scores


def _check_captions(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not predictions or len(predictions) != len(references):
        raise ValueError(
            f"Got {len(predictions)} predictions and {len(references)} lists of references; "
            "every prediction needs its list of references, and there must be at least one."
        )
    for sample, captions in enumerate(references):
        if isinstance(captions, str) or not captions:
            raise ValueError(f"references[{sample}] is {captions!r}; it must be a list of one or more captions.")


@cache
def _warn_once(message: str) -> None:
    """Warns once per process, however many evaluations follow during a training."""
    logger.warning(message)


def _ngrams(caption: str) -> Counter[tuple[str, ...]]:
    """Number of occurrences of each sequence of one to four words in a tokenized caption."""
    words = caption.split()
    return Counter(
        tuple(words[start : start + size])
        for size in range(1, _LONGEST_NGRAM + 1)
        for start in range(len(words) - size + 1)
    )


def _bleu(candidates: list[str], references: list[list[str]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the corpus (Papineni et al., 2002)."""
    correct, total = [0] * _LONGEST_NGRAM, [0] * _LONGEST_NGRAM
    candidate_length = reference_length = 0
    for candidate, captions in zip(candidates, references, strict=True):
        length = len(candidate.split())
        candidate_length += length
        reference_length += min((len(caption.split()) for caption in captions), key=lambda n: (abs(n - length), n))
        allowed: Counter[tuple[str, ...]] = Counter()
        for caption in captions:
            allowed |= _ngrams(caption)
        for ngram, count in _ngrams(candidate).items():
            total[len(ngram) - 1] += count
            correct[len(ngram) - 1] += min(count, allowed[ngram])

    # pycocoevalcap's guards against a division by zero
    ratio = (candidate_length + 1e-15) / (reference_length + 1e-9)
    brevity_penalty = math.exp(min(0.0, 1 - 1 / ratio))
    scores, product = [], 1.0
    for size in range(_LONGEST_NGRAM):
        product *= (correct[size] + 1e-15) / (total[size] + 1e-9)
        scores.append(product ** (1 / (size + 1)) * brevity_penalty)
    return scores


def _rouge_l(candidates: list[str], references: list[list[str]]) -> list[float]:
    """Mean ROUGE-L: F-measure of the best precision and the best recall over the references (Lin, 2004)."""
    beta_squared = 1.2**2
    total = 0.0
    for candidate, captions in zip(candidates, references, strict=True):
        words = candidate.split(" ")
        precision = recall = 0.0
        for caption in captions:
            reference = caption.split(" ")
            common = _common_subsequence_length(words, reference)
            precision = max(precision, common / len(words))
            recall = max(recall, common / len(reference))
        if precision and recall:
            total += (1 + beta_squared) * precision * recall / (recall + beta_squared * precision)
    return [total / len(candidates)]


def _common_subsequence_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    A row of the usual table is one integer, whose zero bits are the columns where the length grows (Hyyro, 2004).
    """
    columns: dict[str, int] = {}
    for column, word in enumerate(first):
        columns[word] = columns.get(word, 0) | 1 << column
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matches = row & columns.get(word, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()


class CiderScorer:
    """CIDEr-D (Vedantam et al., 2015): clipped tf-idf cosine over n-grams, with a penalty on the length.

    Args:
        references: tokenized captions of each sample of a corpus, from which document frequencies are computed.
    """

    sigma = 6.0

    def __init__(self, references: Sequence[Sequence[str]]):
        documents = Counter(
            chain.from_iterable(set().union(*(_ngrams(caption) for caption in captions)) for captions in references)
        )
        self.log_samples = math.log(len(references))
        self.rarity = {ngram: self.log_samples - math.log(count) for ngram, count in documents.items()}

    def score(self, candidate: str, references: Sequence[str]) -> float:
        """CIDEr-D of one tokenized caption, between 0 and 10."""
        weights, norms, pairs = self._weigh(_ngrams(candidate))
        score = 0.0
        for reference in references:
            reference_weights, reference_norms, reference_pairs = self._weigh(_ngrams(reference))
            products = [0.0] * _LONGEST_NGRAM
            for ngram, weight in weights.items():
                if other := reference_weights.get(ngram):
                    products[len(ngram) - 1] += min(weight, other) * other
            cosines = sum(
                product / (norm * other)
                for product, norm, other in zip(products, norms, reference_norms, strict=True)
                if norm and other
            )
            score += cosines * math.exp(-((pairs - reference_pairs) ** 2) / (2 * self.sigma**2))
        return 10 * score / len(references) / _LONGEST_NGRAM

    def _weigh(self, counts: Counter[tuple[str, ...]]) -> tuple[dict[tuple[str, ...], float], list[float], int]:
        """tf-idf of each n-gram, their norm for each length of n-gram, and the number of pairs of words."""
        weights = {ngram: count * self.rarity.get(ngram, self.log_samples) for ngram, count in counts.items()}
        squares = [0.0] * _LONGEST_NGRAM
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
        pairs = sum(count for ngram, count in counts.items() if len(ngram) == 2)
        return weights, [math.sqrt(square) for square in squares], pairs


def _cider(candidates: list[str], references: list[list[str]]) -> list[float]:
    """Mean CIDEr-D of the corpus."""
    scorer = CiderScorer(references)
    scores = [scorer.score(*pair) for pair in zip(candidates, references, strict=True)]
    return [sum(scores) / len(scores)]


def _java_files(*names: str) -> list[Path]:
    """Files of pycocoevalcap that a Java metric needs; an error if they or Java are missing."""
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise _UnavailableMetricError("it runs from pycocoevalcap's files; `pip install pycocoevalcap`")
    if shutil.which("java") is None:
        raise _UnavailableMetricError("it is a Java program, and there is no `java` on the PATH")
    files = [Path(package.submodule_search_locations[0], name) for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise _UnavailableMetricError(
            f"pycocoevalcap has no {missing[0]}; `python -m pycocoevalcap.spice.get_stanford_models` fetches it"
        )
    return files


def _meteor(candidates: list[str], references: list[list[str]]) -> list[float]:
    """METEOR 1.5 of the corpus (Denkowski and Lavie, 2014)."""
    jar, _ = _java_files("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz")
    command = ["java", "-Xmx2G", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=jar.parent, text=True, encoding="utf-8", **streams) as program:
        requests, answers = cast(IO[str], program.stdin), cast(IO[str], program.stdout)

        def ask(*parts: str) -> str:
            requests.write(" ||| ".join(parts) + "\n")
            requests.flush()
            return answers.readline().strip()

        try:
            statistics = [
                ask("SCORE", *captions, candidate) for candidate, captions in zip(candidates, references, strict=True)
            ]
            ask("EVAL", *statistics)
            # the program answers with each sample's score, then with the corpus score
            lines = [answers.readline() for _ in candidates]
            return [float(lines[-1])]
        except (OSError, ValueError) as error:
            raise RuntimeError("METEOR's Java program stopped before it gave a score.") from error
        finally:
            program.kill()


def _spice(candidates: list[str], references: list[list[str]]) -> list[float]:
    """Mean SPICE (Anderson et al., 2016)."""
    models = [f"spice/lib/stanford-corenlp-3.6.0{part}.jar" for part in ("", "-models")]
    jar = _java_files("spice/spice-1.0.jar", *models)[0]
    samples = [
        {"image_id": sample, "test": candidate, "refs": captions}
        for sample, (candidate, captions) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        given, scored = Path(folder, "captions.json"), Path(folder, "scores.json")
        given.write_text(json.dumps(samples), encoding="utf-8")
        command = ["java", "-Xmx8G", "-jar", jar.name, str(given), "-out", str(scored), "-subset", "-silent"]
        run = subprocess.run(command, cwd=jar.parent, capture_output=True, text=True)
        if run.returncode or not scored.is_file():
            raise RuntimeError(f"SPICE's Java program failed: {run.stderr.strip()[-500:]}")
        results = json.loads(scored.read_text(encoding="utf-8"))
    return [sum(float(result["scores"]["All"]["f"]) for result in results) / len(results)]


_SCORERS: dict[tuple[str, ...], Callable[[list[str], list[list[str]]], list[float]]] = {
    CAPTION_METRICS[:4]: _bleu,
    ("ROUGE-L",): _rouge_l,
    ("CIDEr",): _cider,
    ("METEOR",): _meteor,
    ("SPICE",): _spice,
}
