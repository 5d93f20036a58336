# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What stands before the application: keys, sizes, numbers and times of requests."""

import asyncio
import json

import httpx
import pytest


pytest.importorskip("fastapi")

from modeling_valor.serving.guard import Guard
from modeling_valor.serving.settings import ServerSettings


class App:
    """Answers with the body that it got; on the path /wait not before `go` is set, on /stream a piece before that."""

    def __init__(self):
        self.go, self.begun, self.cancelled = asyncio.Event(), asyncio.Event(), 0

    async def __call__(self, scope, receive, send):
        body = (await receive())["body"]
        kind = b"text/event-stream" if scope["path"] == "/stream" else b"text/plain"
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
        try:
            if scope["path"] == "/stream":
                await send(start)
                await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            if scope["path"] in ("/wait", "/stream"):
                self.begun.set()
                await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await send(start)
        await send({"type": "http.response.body", "body": body})


def client(guard):
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://server")


def error(response):
    return response.json()["error"]


def test_a_body_passes_as_it_is_up_to_the_limit():
    async def run():
        async with client(Guard(App(), ServerSettings(max_request_mb=0.001))) as http:
            assert (await http.post("/", content=b"x" * 1000)).content == b"x" * 1000

            async def pieces():
                for _ in range(3):
                    yield b"y" * 400

            for content in (b"x" * 1001, pieces()):  # announced, and not
                answer = await http.post("/", content=content)
                assert answer.status_code == 413
                assert "larger than the limit of 0.001 MB" in error(answer)["message"]

    asyncio.run(run())


def test_a_key_is_asked_for_everywhere_but_for_the_health():
    async def run():
        async with client(Guard(App(), ServerSettings(api_key="sesame"))) as http:
            for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "sesame"}):
                answer = await http.post("/v1/models", headers=headers)
                assert answer.status_code == 401 and error(answer)["code"] == "invalid_api_key"
            assert (await http.post("/v1/models", headers={"Authorization": "Bearer sesame"})).status_code == 200
            assert (await http.get("/health")).status_code == 200

    asyncio.run(run())


def test_a_full_server_answers_503_and_its_health_and_goes_on():
    async def run():
        guard = Guard(app := App(), ServerSettings(max_queue=2))
        async with client(guard) as http:
            first = [asyncio.ensure_future(http.post("/wait", content=text)) for text in "ab"]
            await app.begun.wait()
            while guard.active < 2:
                await asyncio.sleep(0)
            answer = await http.post("/", content="c")
            assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
            assert error(answer)["code"] == "queue_full"
            assert (await http.get("/health")).status_code == 200
            app.go.set()
            assert [(await one).text for one in first] == ["a", "b"]
            assert guard.active == 0
            assert (await http.post("/", content="c")).text == "c"

    asyncio.run(run())


def test_a_request_that_takes_too_long_is_cancelled_and_answered_504():
    async def run():
        guard = Guard(app := App(), ServerSettings(timeout=0.05))
        async with client(guard) as http:
            answer = await http.post("/wait", content="a")
            assert answer.status_code == 504 and "limit of 0.05 seconds" in error(answer)["message"]
            stream = await http.post("/stream", content="a")
            first, last = stream.text.strip().split("\n\n")
            assert first == "data: 1" and json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        assert app.cancelled == 2 and guard.active == 0

    asyncio.run(run())


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_request_whose_client_has_gone_is_cancelled(is_whole):
    async def run():
        guard = Guard(app := App(), ServerSettings())
        messages = [{"type": "http.request", "body": b"a", "more_body": not is_whole}]

        async def receive():
            if messages:
                return messages.pop()
            if is_whole:
                await app.begun.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError("nobody is there")

        await guard({"type": "http", "path": "/wait", "headers": []}, receive, send)
        assert app.cancelled == int(is_whole) and guard.active == 0

    asyncio.run(run())


def test_a_body_that_does_not_come_is_not_waited_for():
    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            await asyncio.Event().wait()

        guard = Guard(App(), ServerSettings(timeout=0.05))
        await guard({"type": "http", "path": "/", "headers": []}, receive, send)
        assert sent[0]["status"] == 504

    asyncio.run(run())


def test_a_preflight_of_a_browser_needs_no_key():
    async def run():
        for enabled, status in ((True, 200), (False, 401)):
            guard = Guard(App(), ServerSettings(api_key="sesame", enable_cors=enabled))
            async with client(guard) as http:
                assert (await http.options("/v1/embeddings")).status_code == status

    asyncio.run(run())


def test_a_request_that_a_stopping_server_gives_up_is_answered_503():
    async def run():
        guard, sent = Guard(app := App(), ServerSettings()), []
        messages = [{"type": "http.request", "body": b"a"}]

        async def receive():
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        answering = asyncio.ensure_future(guard({"type": "http", "path": "/wait", "headers": []}, receive, send))
        await app.begun.wait()
        answering.cancel()
        await answering
        assert sent[0]["status"] == 503 and json.loads(sent[1]["body"])["error"]["code"] == "stopping"
        assert app.cancelled == 1 and guard.active == 0

    asyncio.run(run())
