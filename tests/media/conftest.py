# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.

import http.server
import threading
from pathlib import Path

import pytest
from media_files import write_video


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def video(folder) -> str:
    """60 frames, 2.4 seconds, with sound."""
    return write_video(folder / "video.mp4", sound=True)


@pytest.fixture
def server(video):
    """An address that serves the video, and the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
            elif self.path == "/video.mp4":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(Path(video).read_bytes())
            else:
                self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
