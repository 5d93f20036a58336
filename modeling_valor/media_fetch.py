# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Downloads within a time that holds for all of it, and on request from public addresses only."""

import contextlib
import ipaddress
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from .media_limits import MediaError, printable, reason


try:
    from huggingface_hub.utils import httpx
except ImportError:  # huggingface_hub before 2.0
    import httpx  # type: ignore[no-redef]  # the same library


MAX_REDIRECTS = 10


def fetch(
    url: str,
    name: str,
    *,
    timeout: float,
    max_seconds: float = math.inf,
    public_only: bool = False,
    private_hosts: frozenset[str] = frozenset(),
) -> Generator[bytes, None, None]:
    """The bytes behind an http(s) URL, piece by piece.

    Args:
        name (`str`): what to call the URL in messages, since it may hold what is secret.
        timeout (`float`): seconds to wait for a connection and for each piece.
        max_seconds (`float`): seconds for all of it: connections, redirects, headers and content.
        public_only (`bool`): connect to no private, local or otherwise special address, also when redirected; then the
            environment's proxies are not used, since they connect on their own.
        private_hosts (`frozenset[str]`): hosts, `name` or `name:port`, that are accepted nevertheless.

    Raises:
        MediaError: the URL cannot be fetched, leads to another scheme or to an address that is not accepted, or takes
            too long.
    """
    with _Deadline(max_seconds) as deadline:
        try:
            with httpx.Client(timeout=min(timeout, max(max_seconds, 1e-3)), trust_env=not public_only) as client:
                yield from _contents(client, url, name, _trace(deadline, name, public_only, private_hosts))
        except MediaError:
            raise
        # Neither of these is chained to the error: what they say may repeat the URL
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
            raise MediaError(f"{name} could not be fetched: it is not a valid address.") from None
        except (httpx.HTTPError, OSError) as error:
            if not deadline.passed:
                raise MediaError(f"{name} could not be fetched: {reason(error)}.") from None
        if deadline.passed:  # some connections then just seem to be at their end
            raise MediaError(f"{name} took longer than the limit of {max_seconds:g} seconds.")


def _contents(client: httpx.Client, url: str, name: str, trace: Callable) -> Iterator[bytes]:
    """The bytes that the last of a chain of redirects answers with."""
    # What a server compresses could be larger than what was counted against the limit
    request = client.build_request("GET", url, headers={"Accept-Encoding": "identity"})
    if not request.url.host:
        raise httpx.InvalidURL("no host")
    for _ in range(MAX_REDIRECTS + 1):
        request.extensions["trace"] = trace
        with _unlogged(httpx.__name__):
            response = client.send(request, stream=True)
        with contextlib.closing(response):
            if response.next_request is None:
                if not response.is_success:
                    answer = printable(f"{response.status_code} {response.reason_phrase}".strip())
                    raise MediaError(f"{name} could not be fetched: the server answers {answer}.")
                yield from response.iter_bytes()
                return
            request = response.next_request
            if request.url.scheme not in ("http", "https"):
                raise MediaError(f"{name} could not be fetched: it is redirected to another kind of address.")
    raise MediaError(f"{name} could not be fetched: it is redirected more than {MAX_REDIRECTS} times.")


def _trace(
    deadline: "_Deadline", name: str, public_only: bool, private_hosts: frozenset[str]
) -> Callable[[str, dict[str, Any]], None]:
    """What the HTTP library calls at each of its steps: checks addresses, and has connections end with the deadline."""
    is_checked = public_only

    def watch(event: str, info: dict[str, Any]) -> None:
        nonlocal is_checked
        if event == "connection.connect_tcp.started" and public_only:
            host, port = info["host"], info["port"]
            is_checked = private_hosts.isdisjoint((host, f"{host}:{port}"))
            if is_checked:
                _require_public(host, port, name)
        elif event == "connection.connect_tcp.complete":
            connection = info["return_value"].get_extra_info("socket")
            if is_checked:  # the name may have another address by now
                host, port, *_ = connection.getpeername()
                _require_public(host, port, name)
            deadline.ends(connection)

    return watch


class _Deadline:
    """Ends connections when a time is up, wherever they are read: in handshakes, headers or content."""

    def __init__(self, seconds: float):
        self.timer = None if math.isinf(seconds) else threading.Timer(max(seconds, 0), self._end)
        self.lock = threading.Lock()
        self.passed = False
        self.connections: list[socket.socket] = []

    def __enter__(self) -> "_Deadline":
        if self.timer is not None:
            self.timer.daemon = True
            self.timer.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
        with self.lock:
            for connection in self.connections:
                connection.close()
            self.connections = []

    def ends(self, connection: socket.socket) -> None:
        """Has a connection ended with the others; a copy of it, because TLS takes the original over."""
        with self.lock:
            self.connections.append(socket.socket(fileno=os.dup(connection.fileno())))
        if self.passed:
            self._end()

    def _end(self) -> None:
        self.passed = True
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _require_public(host: str, port: int, name: str) -> None:
    """Refuses a host that has any address which is not of the public internet.

    Raises:
        MediaError: it has one, or it has none.
    """
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise MediaError(f"{name} could not be fetched: {reason(error)}.") from None
    if not all(map(is_public, addresses)):
        raise MediaError(f"{name} is not accepted: it leads to an address that is not public.")


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; so must be an IPv4 address that is inside an IPv6 address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inside: list[ipaddress.IPv4Address | None] = []
    if isinstance(parsed, ipaddress.IPv6Address):
        inside = [parsed.ipv4_mapped, parsed.sixtofour, *(parsed.teredo or ())]
        if parsed in _NAT64:
            inside.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
    if present := [part for part in inside if part is not None]:
        return all(part.is_global and not part.is_multicast for part in present)
    return parsed.is_global and not parsed.is_multicast


@contextlib.contextmanager
def _unlogged(library: str) -> Iterator[None]:
    """Keeps httpx from logging in this thread: it would write URLs and redirects with what is secret in them."""
    here = threading.get_ident()

    def is_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    loggers = [logging.getLogger(name) for name in (library, f"{library.replace('httpx', 'httpcore')}.http11")]
    for logger in loggers:
        logger.addFilter(is_elsewhere)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_elsewhere)
