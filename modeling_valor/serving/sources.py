# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Which media a request may name, and what its content parts are: text, video or image, sound."""

import os
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..media import LocalFile, MediaLimits, source_name
from ..media_fragments import parse_fragment, split_fragment
from .errors import RequestError, client_errors
from .settings import ServerSettings


_PARTS = {
    "video_url": "video",
    "image_url": "image",
    "input_image": "image",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""Types of content parts that are media, in chat completions and the API of responses, and what they are."""

_TEXTS = ("text", "input_text", "output_text")


@dataclass(frozen=True)
class Content:
    """What a content part, or several together, are: a text, or the video (or image) and the sound of one sample.

    Args:
        is_image: `video` was given as an image, which is seen and not heard.
    """

    text: str | None = None
    video: Any = None
    audio: Any = None
    is_image: bool = False

    @property
    def is_media(self) -> bool:
        return self.video is not None or self.audio is not None

    def check(self, modalities: str, has_frames: bool, has_sound: bool, param: str) -> None:
        """Refuses a part that has nothing of what its type says, which would be embedded as something else, or left out.

        Args:
            modalities: letters of what was asked for, "v", "a".
            has_frames, has_sound: what was found in the media.

        Raises:
            RequestError: 400.
        """
        if self.video is not None and "v" in modalities and not has_frames:
            kind = "an image" if self.is_image else "a video"
            raise RequestError(
                400,
                f"`{param}`: {source_name(self.video)} is given as {kind} and has no picture; give sound as `audio_url`.",
                param,
            )
        if self.audio is not None and "a" in modalities and not has_sound:
            raise RequestError(
                400,
                f"`{param}`: {source_name(self.audio)} is given as audio and has no sound; give what is only seen as "
                "`video_url` or `image_url`.",
                param,
            )


class MediaRules:
    """The sources that requests may name: `data:` URLs, addresses of the public internet, files below one folder.

    Raises:
        ValueError: the folder does not exist.
    """

    def __init__(self, settings: ServerSettings):
        self.limits = MediaLimits(
            timeout=min(10.0, settings.timeout),
            max_bytes=int(settings.max_download_mb * 1e6),
            max_seconds=settings.timeout,
            public_only=True,
            private_hosts=settings.allow_hosts,
        )
        self.root = None if settings.media_root is None else os.path.realpath(settings.media_root)
        if self.root is not None and not os.path.isdir(self.root):
            raise ValueError(f"--media-root {settings.media_root}: there is no such folder.")

    def accept(self, address: Any, param: str | None = None) -> str:
        """The source behind an address; of a file, a `LocalFile`, which is all that the processor reads of this machine.

        Raises:
            RequestError: 400, it is not accepted here.
        """
        if not isinstance(address, str) or not address:
            raise RequestError(400, "A source of media must be an address, or content as a data: URL.", param)
        if re.match(r"(https?://|data:)", address, re.IGNORECASE):
            return address
        if self.root is None:
            raise RequestError(
                400,
                f"{source_name(address)} is not accepted here: give an http or https address, or the content as a data: URL.",
                param,
            )
        return self._file(address, param)

    def _file(self, address: str, param: str | None) -> LocalFile:
        """A file below the folder. Whatever lies outside is answered alike, whether it exists or not."""
        whole, fragment = split_fragment(address)
        try:
            path = self._path_below_root(whole)
        except (ValueError, OSError):  # no URL, or no name that this system could have
            path = None
        if path is None:
            raise RequestError(400, f"{source_name(address)} is no file that this server gives access to.", param)
        with client_errors(param):
            part = parse_fragment(fragment, source_name(address)) if fragment else None
        return LocalFile(path, source_name(address), self.limits, part)

    def _path_below_root(self, address: str) -> str | None:
        """The path of a regular file, with links resolved; None if it is not below the folder."""
        assert self.root is not None
        if re.match("file:", address, re.IGNORECASE):
            url = urllib.parse.urlsplit(address)
            address = urllib.request.url2pathname(url.path) if url.netloc in ("", "localhost") else "\0"
        if "\0" in address:
            return None
        path = os.path.realpath(os.path.join(self.root, address))
        is_below = path.startswith(os.path.join(self.root, ""))
        return path if is_below and os.path.isfile(path) else None

    def read_content(self, content: Any, param: str) -> Content:
        """A text, a content part, or a list of content parts that are one text or one sample.

        Raises:
            RequestError: 400, it is none of these, has both, or two of a kind.
        """
        if isinstance(content, str):
            return Content(text=content)
        texts: list[str] = []
        media: dict[str, str] = {}
        is_image = False
        for kind, value in self.read_parts([content] if isinstance(content, Mapping) else content, param):
            name = "video" if kind == "image" else kind
            if kind == "text":
                texts.append(value)
            elif name in media:
                raise RequestError(400, f"`{param}`: two of {name} in one sample; give them as two.", param)
            else:
                media[name] = value
                is_image = is_image or kind == "image"
        if bool(texts) == bool(media):
            raise RequestError(400, f"`{param}`: a text, or parts with the media of one sample, are accepted.", param)
        return Content(" ".join(texts) if texts else None, media.get("video"), media.get("audio"), is_image)

    def read_parts(self, parts: Any, param: str) -> list[tuple[str, str]]:
        """Content parts as pairs of "text", "video", "image" or "audio" and the text, or the source.

        Raises:
            RequestError: 400, there is something else among them.
        """
        if not isinstance(parts, Sequence) or isinstance(parts, (str, bytes)):
            raise RequestError(400, f"`{param}` must be a text or a list of content parts.", param)
        return [self._read_part(part, param) for part in parts]

    def _read_part(self, part: Any, param: str) -> tuple[str, str]:
        kind = str(part.get("type")) if isinstance(part, Mapping) else None
        if kind in _TEXTS and isinstance(part.get("text"), str):
            return "text", part["text"]
        if kind not in _PARTS:
            accepted = ", ".join(["text", *_PARTS])
            raise RequestError(400, f"`{param}` has a part of type {kind!r:.40}; {accepted} are accepted.", param)
        value = part.get("image_url" if kind == "input_image" else kind)
        if kind == "input_audio" and isinstance(value, Mapping):
            data, form = value.get("data"), value.get("format") or ""
            if not isinstance(data, str) or not re.fullmatch(r"\w{0,10}", str(form)):
                raise RequestError(400, f"`{param}`: input_audio has `data` in base64 and `format`.", param)
            value = f"data:audio/{form};base64,{data}"
        return _PARTS[kind], self.accept(value.get("url") if isinstance(value, Mapping) else value, param)
