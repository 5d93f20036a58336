# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A server: transformers' chat completions for VALOR, with embeddings, search and reranking beside them.

[`build_app`] makes the application, [`run_server`] serves it; `valor serve` is the command. `batching` joins what concurrent
requests ask of the model, `engine` is the model at work, `sources` says which media are accepted, `guard` which requests,
`chat` plugs VALOR into transformers' server, and `routes` has the endpoints that transformers has not.
"""

from .app import build_app
from .engine import Engine, TokenVectors
from .errors import RequestError
from .server import run_server
from .service import Service
from .settings import ServerSettings
from .sources import MediaRules


__all__ = [
    "Engine",
    "MediaRules",
    "RequestError",
    "ServerSettings",
    "Service",
    "TokenVectors",
    "build_app",
    "run_server",
]
