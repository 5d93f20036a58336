# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a server allows and how it works, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSettings:
    """Limits and options of a server.

    Args:
        max_batch: requests that go through the model together, at most.
        max_wait_ms: how long a request waits for others to join it, in milliseconds.
        max_queue: requests that are in the server at once, waiting or at work; further ones are answered 503.
        max_request_mb: largest body of a request, in MB (10^6 bytes), media in `data:` URLs included.
        max_download_mb: largest file that is fetched for a request, in MB.
        max_inputs: texts or media of one request, at most.
        timeout: seconds for all of a request, from its first byte to the last of its answer.
        drain_seconds: seconds in which requests at work may finish when the server stops.
        readers: threads that fetch and decode media; more than cores, as some wait for the network.
        api_key: what clients give as `Authorization: Bearer ...`; None: nothing is asked for.
        media_root: folder whose files may be named by requests; None: no file of this machine is read.
        allow_hosts: hosts, `name` or `name:port`, that media are fetched from although their addresses are not public.
        enable_cors: let pages of other sites send requests from a browser.
    """

    max_batch: int = 16
    max_wait_ms: float = 5.0
    max_queue: int = 128
    max_request_mb: float = 64.0
    max_download_mb: float = 256.0
    max_inputs: int = 64
    timeout: float = 60.0
    drain_seconds: float = 30.0
    readers: int = 8
    api_key: str | None = None
    media_root: str | None = None
    allow_hosts: tuple[str, ...] = ()
    enable_cors: bool = False
