# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""From candidates to hits: exact scores, the proof that nothing better was missed, neighbours joined, words explained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from ..alignment import TokenSet, fine_similarity, grouped_similarity
from ..configuration_valor import GROUP_OF_LETTERS, ValorConfig
from .query import MAX_LENGTH, Query
from .segments import Segment, TokenRows


@dataclass(frozen=True)
class Match:
    """What answered a word of the query.

    Args:
        word: a word of the query.
        seconds: when, in seconds of the file.
        modality: "v" for a frame, "a" for sound.
        similarity: cosine of the word and that frame or sound.
    """

    word: str
    seconds: float
    modality: str
    similarity: float


@dataclass(frozen=True)
class Hit:
    """A part of a file that answers a query.

    Args:
        source: path or address of the file.
        start, end: seconds of the file.
        score: S of eq. 3, of the best of its segments where several were joined.
        proven: whether no segment of the index can have been missed that scores higher.
        matches: what answered each word, in the order of the query; empty for a query that is no text.
        segments: the segments that it consists of, by their start.
    """

    source: str
    start: float
    end: float
    score: float
    proven: bool
    matches: tuple[Match, ...] = ()
    segments: tuple[Segment, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The hit as JSON has it."""
        return {
            "file": self.source,
            "start": self.start,
            "end": self.end,
            "score": self.score,
            "proven": self.proven,
            "matches": [asdict(match) for match in self.matches],
            "captions": [segment.caption for segment in self.segments if segment.caption],
            "metadata": dict(self.segments[0].metadata) if self.segments else {},
        }


@dataclass(frozen=True)
class Scoring:
    """How a query is compared with segments.

    Args:
        group: modality group, such as "t-av".
        letters: modalities of the segments that take part, of "va", and "t" for captions.
        zero_padding: captions of segments are padded with tokens whose similarities are 0, as the 2023 checkpoints treat text.
        by_score, uniform: `audiovisual_fusion` is "score", and uniform token weights; both for t-av only (Table 10).
    """

    group: str
    letters: str
    by_score: bool = False
    uniform: bool = False
    zero_padding: bool = False


def scoring_of(config: ValorConfig, query: str, modalities: str) -> Scoring:
    """How a query of "text", "video" or "audio" is compared with the modalities "v", "a" or "av" of segments.

    Frames are compared with sound, and sound with frames; with captions, too, where the checkpoint was trained for that.

    Raises:
        ValueError: other modalities, or a comparison that the checkpoint was not trained for.
    """
    if modalities not in GROUP_OF_LETTERS:
        raise ValueError(f'modalities={modalities!r} was given; "v", "a" and "av" are accepted.')
    if query == "text":
        joint = modalities == "av"
        by_score = joint and config.audiovisual_fusion == "score"
        uniform = joint and (by_score or config.token_weighting == "uniform")
        return Scoring(GROUP_OF_LETTERS[modalities], modalities, by_score, uniform)
    # Eq. 3 is symmetric, so that v-a compares sound with frames as well
    letters, groups = {"video": ("a", ("v-ta", "v-a")), "audio": ("v", ("a-tv", "v-a"))}[query]
    group = next((group for group in groups if group in config.alignment_groups), None)
    if group is None or letters not in modalities:
        what = "sound" if letters == "a" else "frames"
        if group is not None:
            raise ValueError(
                f"A query of {query} is compared with {what}, and modalities={modalities!r} was asked for: ask for "
                f'"{letters}" or "av".'
            )
        raise ValueError(
            f"This checkpoint was not trained to compare a query of {query} with {what}, which needs the alignment group "
            f"{' or '.join(sorted(groups, key=len))}, and it has {', '.join(config.alignment_groups)}: search with a text."
        )
    if group == "v-a":
        return Scoring(group, letters)
    return Scoring(group, letters + "t", zero_padding=config.padded_similarity == "zero")


def score_segments(query: Query, rows: TokenRows, scoring: Scoring) -> tuple[list[str], np.ndarray]:
    """Ids of the segments in `rows`, and their exact scores, (segments,), float32."""
    ids, own = np.unique(rows.segments.astype(str), return_inverse=True)
    sets = {
        letter: padded_tokens(rows, own, len(ids), letter, scoring.zero_padding and letter == "t")
        for letter in scoring.letters
    }
    given = {letter: tokens for letter, tokens in sets.items() if tokens is not None}
    if not given:
        return [], np.empty(0, dtype=np.float32)
    if query.modality == "text":
        scores = grouped_similarity(
            query.tokens,
            given.get("v"),
            given.get("a"),
            [scoring.group],
            fusion="score" if scoring.by_score else "feature",
            uniform_audiovisual=scoring.uniform,
        )[scoring.group]
    else:
        scores = fine_similarity([query.tokens], list(given.values()))
    return ids.tolist(), scores[0].numpy()


def padded_tokens(
    rows: TokenRows, own: np.ndarray, count: int, letter: str, zero_padding: bool = False
) -> TokenSet | None:
    """The rows of one modality as tokens of `count` segments; None if there is none. `own`: segment of each row.

    With `zero_padding` each has a padded token, unless it is as long as a text can be.
    """
    chosen = np.flatnonzero(rows.modalities == letter)
    if not len(chosen):
        return None
    chosen = chosen[np.argsort(own[chosen], kind="stable")]
    segment = own[chosen]
    place = np.arange(len(chosen)) - np.searchsorted(segment, segment)
    longest = int(place.max()) + 1
    shape = (count, max(longest, min(longest + 1, MAX_LENGTH)) if zero_padding else longest)
    embeds = torch.zeros(*shape, rows.embeds.shape[1])
    weights, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    at = torch.from_numpy(segment), torch.from_numpy(place)
    embeds[at] = torch.from_numpy(rows.embeds[chosen].astype(np.float32))
    weights[at] = torch.from_numpy(rows.weights[chosen].astype(np.float32))
    mask[at] = True
    return TokenSet(embeds, mask, weights, zero_padding)


def score_bound(query: Query, last: np.ndarray, scoring: Scoring) -> float:
    """What a segment can score at most that has no token in any list.

    With t_i the last similarity of the list of token i, none of its tokens is more similar to token i than t_i. Weights
    of both sides sum to 1, so that S <= 1/2 [sum_i w_i t_i + max_i t_i].

    Args:
        last: (valid tokens,), t_i; -inf for a list of all rows.
    """
    best = float(last.max())
    if query.tokens.zero_padding and not query.mask.all():
        best = max(best, 0.0)  # padded text takes part in the maxima over the text
    if last.min() == -math.inf:
        return -math.inf
    if scoring.zero_padding:
        last = np.maximum(last, 0)  # padded captions take part in the maxima over the segment
    bound = 0.5 * (float(query.weights(scoring.uniform) @ last.astype(np.float64)) + best)
    return max(bound, 2 * bound) if scoring.by_score else bound  # the sum of two scores, or one of them


def join_neighbours(
    ranked: Sequence[tuple[Segment, float]], top: int, tolerance: float
) -> list[tuple[list[Segment], float]]:
    """The best `top` parts of files: segments that touch each other and score alike are one part.

    Args:
        ranked: segments and scores, best first.
        tolerance: how much lower than the best of a part a neighbour may score to belong to it.

    Returns:
        Segments of each part by their start, and the best score of it; best first.
    """
    parts: list[tuple[list[Segment], float]] = []
    for segment, score in ranked:
        near = [part for part in parts if score >= part[1] - tolerance and _touches(segment, part[0])]
        if not near and len(parts) >= top:
            if all(score < best - tolerance for _, best in parts):
                break
            continue
        joined = sorted(
            [segment, *(item for part in near for item in part[0])], key=lambda item: (item.start, item.end)
        )
        best = near[0][1] if near else score
        parts = [part for part in parts if part not in near]
        parts.append((joined, best))
        parts.sort(key=lambda part: -part[1])
    return parts


def _touches(segment: Segment, part: Sequence[Segment]) -> bool:
    return any(
        segment.source == other.source and segment.start <= other.end + 1e-3 and other.start <= segment.end + 1e-3
        for other in part
    )


def find_matches(query: Query, rows: TokenRows) -> tuple[Match, ...]:
    """For each word of a text the row that is most similar to it."""
    if not query.words or not len(rows):
        return ()
    similarities = query.tokens.embeds[0].numpy() @ rows.embeds.astype(np.float32).T
    matches = []
    for word, places in query.words:
        of_word = similarities[list(places)].max(axis=0)
        best = int(of_word.argmax())
        matches.append(Match(word, float(rows.times[best]), str(rows.modalities[best]), float(of_word[best])))
    return tuple(matches)


def make_hit(query: Query, part: Sequence[Segment], score: float, proven: bool, rows: Mapping[str, TokenRows]) -> Hit:
    """A hit of segments of one source; `rows` are their tokens, by their ids."""
    own = [rows[segment.id] for segment in part]
    fields = {name: np.concatenate([getattr(item, name) for item in own]) for name in vars(own[0])}
    start, end = part[0].start, max(segment.end for segment in part)
    return Hit(part[0].source, start, end, score, proven, find_matches(query, TokenRows(**fields)), tuple(part))


def caption_hit(segment: Segment, score: float) -> Hit:
    """A segment that was found by the words of its caption, as a hit."""
    return Hit(segment.source, segment.start, segment.end, score, proven=True, segments=(segment,))


def select_rows(rows: TokenRows, mask: np.ndarray) -> TokenRows:
    """Some of the rows."""
    return replace(rows, **{name: value[mask] for name, value in vars(rows).items()})
