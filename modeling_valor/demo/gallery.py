# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Search of an index from the page, and the files of its hits: served by a number, and no others."""

import os
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..media_sources import LocalFile, source_name
from ..search import Hit, ValorIndex
from ..search.page import Card, captions_of, clock, file_of, make_marks, make_thumbnail, player_of, render_cards


MEDIA_ROUTE = "valor/media"
"""Below it, relative to the page, are the files of hits."""

TOP = 10
"""Hits of a search."""


class Gallery:
    """An index, and the files of the hits that were found in it, by a number each.

    A file is served once it is that of a hit: so no name of a file is ever taken from a request.
    """

    def __init__(self, index: ValorIndex):
        self.index = index
        self._files: list[str] = []
        self._numbers: dict[str, int] = {}

    def search(self, query: str | LocalFile, modalities: str = "av", top: int = TOP) -> list[Hit]:
        """The best hits of a text or a clip.

        Raises:
            ValueError: the text says nothing, or the checkpoint does not compare such a clip with these modalities.
            MediaError: the clip cannot be read.
        """
        asked: dict[str, Any] = {"media": query} if isinstance(query, LocalFile) else {"texts": query}
        hits: list[Hit] = self.index.search(top=top, modalities=modalities, **asked)
        return hits

    def cards(self, hits: list[Hit]) -> str:
        """The hits as articles, which play from their second and show what answered each word."""
        return render_cards([self._card(hit) for hit in hits])

    def _card(self, hit: Hit) -> Card:
        """A hit without folders and without what may be secret in an address, which is then not played."""
        name = file_of(hit.source)
        is_here = "://" not in name
        shown = os.path.basename((name if is_here else source_name(name)).rstrip("/"))
        kind = player_of(name, hit) if is_here or source_name(name) == name else ""
        part = f"#t={hit.start:g},{hit.end:g}"
        has_picture = any("v" in segment.modalities for segment in hit.segments)
        return Card(
            hit,
            shown,
            folder="",
            clock=f"{clock(hit.start)}-{clock(hit.end)}",
            kind=kind,
            address=f"{self._served(name) if is_here else name}{part}" if kind else "",
            # A frame of a file that is elsewhere would need a download for each hit
            thumbnail=make_thumbnail(name, hit) if is_here and has_picture else "",
            marks=make_marks(hit),
            captions=captions_of(hit),
        )

    def _served(self, file: str) -> str:
        """Where a file is served, from now on."""
        file = os.path.abspath(os.path.expanduser(file))
        if file not in self._numbers:
            self._numbers[file] = len(self._files)
            self._files.append(file)
        return f"{MEDIA_ROUTE}/{self._numbers[file]}"

    @property
    def route(self) -> Route:
        """What serves the files of hits, also parts of them, as players ask for."""
        return Route(f"/{MEDIA_ROUTE}/{{number:int}}", self._serve, methods=["GET", "HEAD"])

    async def _serve(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(self._files) or not os.path.isfile(self._files[number]):
            return PlainTextResponse("There is no such file.", status_code=404)
        return FileResponse(self._files[number], headers={"X-Content-Type-Options": "nosniff"})
