# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Index and search: find the moment in hours of video by what is seen and heard.

    from modeling_valor.search import ValorIndex
    index = ValorIndex("my-videos.lance", model="hub_configs/valor-tiny")
    index.add("videos/")
    hits = index.search("a dog barks")

[`ValorIndex`] is the door. `query` makes tokens of what is searched for, `backend` says where tokens are kept (`lance`),
`ranking` makes hits of candidates, `embedding` is the model, `segments` the rows.
"""

from .adding import AddReport
from .backend import Backend, UnusableIndexError, open_backend
from .index import ValorIndex
from .ranking import Hit, Match
from .segments import EmbeddedSegment, FileState, IndexedFile, Segment, SegmentTokens


__all__ = [
    "AddReport",
    "Backend",
    "EmbeddedSegment",
    "FileState",
    "Hit",
    "IndexedFile",
    "Match",
    "Segment",
    "SegmentTokens",
    "UnusableIndexError",
    "ValorIndex",
    "open_backend",
]
