# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The server's endpoints, against the package called directly; 32 clients at once; every refusal."""

import asyncio
import base64
import dataclasses
import json
import os
import shutil
import threading

import httpx
import pytest
import torch
from PIL import Image

from helpers.media_files import picture, write_video, write_wav
from helpers.server import CHECKPOINT, MEDIA, make_service
from modeling_valor import ValorForCaptioning, ValorProcessor


pytest.importorskip("fastapi")
pytest.importorskip("openai")
pytest.importorskip("lancedb")

from modeling_valor.search import ValorIndex, open_backend
from modeling_valor.serving import RequestError, build_app
from modeling_valor.serving.guard import Guard


CLIPS = [str(MEDIA / f"clip-0000{number}.mp4") for number in (0, 1)]
QUESTIONS = ["what is heard?", "what moves?", "what color is the cross?", "is there a bell?"]
CHAT, EMBEDDINGS, SEARCH, RERANK = "/v1/chat/completions", "/v1/embeddings", "/v1/search", "/v1/rerank"
PARTS = ["", "#t=0,2.5", "#t=2.5,5", "#t=1,4"]


@pytest.fixture(scope="module")
def model():
    return ValorForCaptioning.from_pretrained(CHECKPOINT).eval()


@pytest.fixture(scope="module")
def processor():
    return ValorProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def caption(model, processor):
    return write(model, processor, CLIPS[0])


@pytest.fixture(scope="module")
def index_path(tmp_path_factory, model, processor):
    path = str(tmp_path_factory.mktemp("index") / "clips.lance")
    ValorIndex(path, model, processor).add(str(MEDIA), segment_seconds=2.5, workers=0, progress=False)
    return path


@pytest.fixture(scope="module")
def service(index_path):
    service = make_service(index_path)
    yield service
    service.shutdown()


@pytest.fixture(scope="module")
def app(service):
    return build_app(service)


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://server")


def post(app, path, body):
    async def send():
        async with client(app) as http:
            headers = {"Content-Type": "application/json"}
            return await http.post(path, content=json.dumps(body), headers=headers)

    return asyncio.run(send())


def video(number=0, part=""):
    return {"type": "video_url", "video_url": {"url": f"clip-0000{number}.mp4{part}"}}


def chat(*parts, **options):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"messages": [{"role": "user", "content": content}], **options}


def text_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def streamed(answer):
    """The text of a stream, its last reason, and its number of tokens."""
    chunks = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    words = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    return "".join(words).strip(), chunks[-1]["choices"][0]["finish_reason"], chunks[-1]["usage"]["completion_tokens"]


def write(model, processor, source, question=None, **options):
    inputs = processor(videos=source, question=question, return_tensors="pt")
    ids = model.generate(**inputs, **options)
    return processor.post_process_generation(ids)[0]


def pooled(model, processor, text=None, media=None):
    """The mean of tokens with their weights of eq. 3, and these."""
    valor = model.valor
    with torch.no_grad():
        if text is not None:
            tokens = [("text", valor.get_text_embeds(**processor(text=text, return_tensors="pt"))[0])]
        else:
            tokens = [("video", valor.get_video_embeds(media["pixel_values_videos"])[0])]
            tokens += [("audio", valor.get_audio_embeds(media["input_features"])[0])]
        logits = torch.cat([getattr(valor, f"{name}_token_weight")(embeds) for name, embeds in tokens])
    rows = torch.cat([embeds for _, embeds in tokens])
    weights = logits.exp() / logits.exp().sum()
    mean = sum(weight * row for weight, row in zip(weights, rows, strict=True))
    return mean / mean.norm(), rows, weights


# --- Chat completions -------------------------------------------------------------------------------------------------


def test_chats_are_answered_as_the_model_answers(app, model, processor, caption):
    assert text_of(post(app, CHAT, chat(video(), model="valor-tiny"))) == caption
    assert text_of(post(app, CHAT, chat(video(), QUESTIONS[0]))) == "bell"
    content = base64.b64encode((MEDIA / "clip-00000.mp4").read_bytes()).decode()
    inline = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{content}"}}
    assert text_of(post(app, CHAT, chat(inline, QUESTIONS[0]))) == "bell"
    sound = {"type": "input_audio", "input_audio": {"data": content, "format": "mp4"}}
    heard = processor(audio=CLIPS[0], question=QUESTIONS[0], return_tensors="pt")
    expected = processor.post_process_generation(model.generate(**heard))[0]
    assert text_of(post(app, CHAT, chat(sound, QUESTIONS[0]))) == expected
    silent = post(app, CHAT, chat(video(), chat_template_kwargs={"modalities": "v", "num_frames": 2}))
    inputs = processor(videos=CLIPS[0], modalities="v", num_frames=2, return_tensors="pt")
    assert text_of(silent) == processor.post_process_generation(model.generate(**inputs))[0]


def test_streams_have_the_words_of_whole_answers(app, model, processor, caption):
    text, reason, tokens = streamed(post(app, CHAT, chat(video(), stream=True)))
    assert (text, reason) == (caption, "stop")
    assert tokens == len(caption.split()) + 1  # whole words, and [SEP]
    beams = chat(video(), stream=True, max_tokens=4, generation_config='{"num_beams": 2}')
    expected = write(model, processor, CLIPS[0], max_new_tokens=4, num_beams=2)
    assert streamed(post(app, CHAT, beams)) == (expected, "length", 4)


def test_options_change_how_a_text_is_written(app, model, processor):
    short = post(app, CHAT, chat(video(), max_tokens=3))
    assert text_of(short) == write(model, processor, CLIPS[0], max_new_tokens=3)
    assert short.json()["choices"][0]["finish_reason"] == "length"
    hot = [chat(video(), temperature=2, max_tokens=8, seed=seed) for seed in (1, 1, 2)]
    drawn = [text_of(post(app, CHAT, body)) for body in hot]
    torch.manual_seed(1)
    assert drawn[0] == drawn[1] == write(model, processor, CLIPS[0], do_sample=True, temperature=2.0, max_new_tokens=8)
    assert drawn[2] != drawn[0]


# --- Many clients at once ---------------------------------------------------------------------------------------------


def test_nothing_is_lost_or_mixed_up_among_32_clients_at_once(app, service, model, processor, monkeypatch):
    """Questions and streams about parts of two clips, embeddings of these and of texts, which all wait for the last."""
    sources = [(number, part) for number in (0, 1) for part in PARTS]
    read = {source: processor(videos=CLIPS[source[0]] + source[1], return_tensors="pt") for source in sources}

    def answer(source, question):
        asked = processor(question=question, return_tensors="pt")
        return processor.post_process_generation(model.generate(**read[source], **asked))[0]

    requests = []
    for source in sources:
        question, other = QUESTIONS[len(requests) % 3], QUESTIONS[(len(requests) + 1) % 3]
        requests.append((CHAT, chat(video(*source), question), answer(source, question)))
        requests.append((CHAT, chat(video(*source), other, stream=True), answer(source, other)))
        requests.append((EMBEDDINGS, {"input": video(*source)}, pooled(model, processor, media=read[source])[0]))
        text = f"a bell rings {len(requests)} times"
        requests.append((EMBEDDINGS, {"input": text}, pooled(model, processor, text=text)[0]))
    assert len(requests) == 32

    gate, queued, submit = threading.Event(), [], service.engine.queue.submit

    def count(*args, **kwargs):
        future = submit(*args, **kwargs)
        queued.append(future)
        if len(queued) == len(requests):
            gate.set()
        return future

    submit("hold", lambda items: [gate.wait(60)], None)
    monkeypatch.setattr(service.engine.queue, "submit", count)
    service.engine.queue.sizes.clear()

    async def ask():
        async with client(app) as http:
            return await asyncio.gather(*(http.post(path, json=body) for path, body, _ in requests))

    answers = asyncio.run(ask())
    assert list(service.engine.queue.sizes)[-4:] == [8, 8, 8, 8]
    for (path, body, expected), answer in zip(requests, answers, strict=True):
        if path == EMBEDDINGS:
            got = torch.tensor(answer.json()["data"][0]["embedding"])
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        else:
            assert (streamed(answer)[0] if body.get("stream") else text_of(answer)) == expected


def test_no_two_threads_share_a_tokenizer(service):
    """A call sets its truncation and padding in the tokenizer, where another thread would find them."""
    engine, meet = service.engine, threading.Barrier(2)

    def tokenizer(items):
        meet.wait(60)  # so that two threads are at work
        return [id(engine.processor.tokenizer)]

    found = {engine.readers.submit(object(), tokenizer, None) for _ in range(2)}
    ids = {future.result(60) for future in found} | {id(engine.processor.tokenizer)}
    ids.add(engine.queue.submit(object(), lambda items: [id(engine.processor.tokenizer)], None).result(60))
    assert len(ids) == 4
    assert engine.processor is engine.processor


def test_a_medium_that_cannot_be_read_disturbs_no_other(app):
    broken = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}

    async def ask():
        async with client(app) as http:
            bodies = [chat(one, QUESTIONS[0]) for one in (video(), broken, video(1))]
            return await asyncio.gather(*(http.post(CHAT, json=body) for body in bodies))

    good, bad, other = asyncio.run(ask())
    assert text_of(good) == "bell" and text_of(other)
    assert bad.status_code == 400 and "data: URL" in bad.json()["error"]["message"]


# --- Embeddings, search, reranking ------------------------------------------------------------------------------------


def test_embeddings_are_the_weighted_mean_of_the_tokens_or_the_tokens(app, model, processor):
    text = "a bell rings"
    answer = post(app, EMBEDDINGS, {"model": "valor-tiny", "input": [text, video()]}).json()
    expected = [
        pooled(model, processor, text=text),
        pooled(model, processor, media=processor(videos=CLIPS[0], return_tensors="pt")),
    ]
    for entry, (mean, _, _) in zip(answer["data"], expected, strict=True):
        torch.testing.assert_close(torch.tensor(entry["embedding"]), mean, atol=1e-5, rtol=0)
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    assert answer["usage"]["prompt_tokens"] == processor(text=text, return_tensors="pt")["input_ids"].numel()
    tokens = post(app, EMBEDDINGS, {"input": [text, video()], "return_multivector": True}).json()["data"]
    for entry, (_, rows, weights), letters in zip(tokens, expected, ("t" * 5, "vvvva"), strict=True):
        torch.testing.assert_close(torch.tensor(entry["embeddings"]), rows, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(entry["weights"]), weights, atol=1e-5, rtol=0)
        assert entry["modalities"] == letters
    packed = post(app, EMBEDDINGS, {"input": text, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    unpacked = torch.frombuffer(bytearray(base64.b64decode(packed)), dtype=torch.float32)
    torch.testing.assert_close(unpacked, expected[0][0], atol=1e-5, rtol=0)


def test_a_search_finds_what_the_index_finds(app, index_path, model, processor):
    index = ValorIndex(index_path, model, processor)
    texts = ["a bell rings", "a triangle collides with a cross"]
    for options, own in (
        ({}, {"top": 10}),
        ({"top_k": 2, "modalities": "a"}, {"top": 2, "modalities": "a"}),
        ({"where": "start >= 2.5 AND source LIKE '%00001%'"}, {"where": "start >= 2.5 AND source LIKE '%00001%'"}),
    ):
        answer = post(app, SEARCH, {"query": texts, **options}).json()
        assert [result["query"] for result in answer["data"]] == texts
        for result, hits in zip(answer["data"], index.search(texts, **own), strict=True):
            assert hits and len(result["hits"]) == len(hits)
            for got, hit in zip(result["hits"], hits, strict=True):
                expected = hit.as_dict()
                assert got["score"] == pytest.approx(expected.pop("score"), abs=1e-5)
                matches = [match | {"similarity": None} for match in expected.pop("matches")]
                assert [match | {"similarity": None} for match in got["matches"]] == matches
                assert got.items() >= expected.items()


def test_an_index_that_is_gone_is_no_fault_of_the_client(app, index_path, caplog):
    os.rename(index_path, f"{index_path}.away")
    try:
        answer = post(app, SEARCH, {"query": "a bell rings"})
    finally:
        os.rename(f"{index_path}.away", index_path)
    assert answer.status_code == 503 and index_path not in answer.text and index_path in caplog.text
    assert post(app, SEARCH, {"query": "a bell rings"}).status_code == 200


def test_an_index_of_another_model_is_no_fault_of_the_client(app, index_path, caplog):
    """The index was made again, with another checkpoint, while the server runs."""
    os.rename(index_path, f"{index_path}.away")
    try:
        for backend in (open_backend(index_path), None):
            if backend is not None:
                about = {"version": 1, "model": "another", "revision": "0" * 8, "width": 8, "segmentation": None}
                backend.create(about)
            else:  # a folder of other files
                shutil.rmtree(index_path)
                os.makedirs(f"{index_path}/notes")
            answers = [post(app, SEARCH, {"query": query}) for query in ("a bell rings", "a dog barks")]
            for answer in answers:
                assert answer.status_code == 503 and answer.json()["error"]["code"] == "index_unusable"
                assert os.path.dirname(index_path) not in answer.text and "another" not in answer.text
    finally:
        shutil.rmtree(index_path)
        os.rename(f"{index_path}.away", index_path)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("modeling_valor.serving")]
    assert len(said) == 2 and "was made with the model another" in said[0] and index_path in said[0]
    assert post(app, SEARCH, {"query": "a bell rings"}).status_code == 200


def test_a_search_by_media_finds_what_the_index_finds(app, service, index_path, model, processor, monkeypatch):
    refused = post(app, SEARCH, {"query": video(1)})
    assert refused.status_code == 400 and "alignment group v-a" in refused.json()["error"]["message"]
    for config in (model.config, service.engine.model.config):  # a checkpoint that was trained to compare them
        monkeypatch.setattr(config, "alignment_groups", [*config.alignment_groups, "v-a"])
    for modalities in "av":
        (like,) = post(app, SEARCH, {"query": video(1), "modalities": modalities}).json()["data"]
        expected = ValorIndex(index_path, model, processor).search(media=CLIPS[1], modalities=modalities)
        assert expected and [hit["file"] for hit in like["hits"]] == [hit.source for hit in expected]
        assert [hit["score"] for hit in like["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_reranking_orders_by_the_score_of_the_model(app, model, processor):
    texts = ["a bell rings with a clock in the background", "a bell rings just as a triangle collides with a cross"]
    inputs = processor(text=texts, return_tensors="pt"), processor(videos=CLIPS, return_tensors="pt")
    with torch.no_grad():
        scores = model.valor.score(*inputs)
    for query, documents, expected in (
        (texts[1], [video(0), video(1)], scores[1]),
        (video(0), texts, scores[:, 0]),
    ):
        answer = post(app, RERANK, {"query": query, "documents": documents}).json()["results"]
        order = expected.argsort(descending=True).tolist()
        assert [result["index"] for result in answer] == order
        found = [result["relevance_score"] for result in answer]
        assert found == pytest.approx(expected[order].tolist(), abs=1e-5)
    best = post(app, RERANK, {"query": video(0), "documents": texts, "top_n": 1, "return_documents": True})
    assert [result["document"]["text"] for result in best.json()["results"]] == [texts[1]]


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    """Content parts of one type and another medium: `inline(type, medium)`."""
    folder = tmp_path_factory.mktemp("inline")
    write_wav(folder / "sound.wav")
    Image.fromarray(picture(0)).save(folder / "image.png")
    write_video(folder / "silent.mp4")
    files = {file.stem: file for file in folder.iterdir()} | {"film": MEDIA / "clip-00000.mp4"}

    def part(kind, medium):
        content = base64.b64encode(files[medium].read_bytes()).decode()
        return {"type": kind, kind: {"url": f"data:application/octet-stream;base64,{content}"}}

    return part


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([("image_url", "sound")], "is given as an image and has no picture; give sound as `audio_url`"),
        ([("video_url", "sound")], "is given as a video and has no picture; give sound as `audio_url`"),
        ([("image_url", "sound"), ("audio_url", "sound")], "is given as an image and has no picture"),
        ([("audio_url", "image")], "is given as audio and has no sound"),
        ([("audio_url", "silent")], "is given as audio and has no sound"),
        ([("image_url", "image"), ("audio_url", "silent")], "given as audio and has no sound; give what is only seen as"),
        ([("image_url", "film")], "v"),
        ([("audio_url", "film")], "a"),
        ([("video_url", "film")], "va"),
        ([("video_url", "image")], "v"),
        ([("video_url", "silent")], "v"),
        ([("image_url", "image"), ("audio_url", "film")], "va"),
    ],
)  # fmt: skip
def test_a_part_has_what_its_type_says(app, inline, parts, message):
    given = [inline(*part) for part in parts]
    answer = post(app, EMBEDDINGS, {"input": [given], "return_multivector": True})
    if " " in message:
        assert answer.status_code == 400 and message in answer.json()["error"]["message"]
        answer = post(app, CHAT, chat(*given))
        assert answer.status_code == 400 and message in answer.json()["error"]["message"]
    else:
        assert "".join(dict.fromkeys(answer.json()["data"][0]["modalities"])) == message


def test_the_sound_alone_of_what_is_given_as_a_video_may_be_asked_for(app, inline):
    body = {"input": inline("video_url", "sound"), "return_multivector": True, "modalities": "a"}
    assert set(post(app, EMBEDDINGS, body).json()["data"][0]["modalities"]) == {"a"}
    image = post(app, EMBEDDINGS, {**body, "input": inline("image_url", "sound")})
    assert image.status_code == 400 and "no sound" in image.json()["error"]["message"]


# --- Refusals ---------------------------------------------------------------------------------------------------------

LONG = "word " * 60


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (CHAT, {}, 400, "must be a list of messages"),
        (CHAT, {"messages": ["hello"]}, 400, "a message has a `role`"),
        (CHAT, {"messages": [{"role": "pirate"}]}, 400, "a message has a `role`"),
        (CHAT, chat("what is heard?"), 400, 'a part such as {"type": "video_url"'),
        (CHAT, chat(video(), video(1)), 400, "one video, but there are several"),
        (CHAT, chat({"type": "smell"}), 400, "'smell'; text, video_url"),
        (CHAT, chat(video(), LONG), 400, "tokens, and the model reads 40"),
        (CHAT, chat(video(), model="gpt-4"), 404, "There is no model 'gpt-4' here"),
        (CHAT, chat(video(), n=2), 400, "cannot follow `n`"),
        (CHAT, chat(video(), stop=["bell"]), 400, "cannot follow `stop`"),
        (CHAT, chat(video(), modalities="a"), 400, "give it in `chat_template_kwargs`"),
        (CHAT, chat(video(), wishes=1), 400, "Unexpected fields"),
        (CHAT, chat(video(), max_tokens=64), 400, "`max_tokens` is 64; a whole number from 1 to 63"),
        (CHAT, chat(video(), temperature="hot"), 400, "`temperature` is 'hot'"),
        (CHAT, chat(video(), temperature=float("1e9")), 400, "from 0 to 2"),
        (CHAT, chat(video(), generation_config='{"num_beams": 1000}'), 400, "`num_beams` is 1000"),
        (CHAT, chat(video(), generation_config='{"cache_implementation": "static"}'), 400, "'cache_implementation'; max"),
        (CHAT, chat(video(), generation_config="{"), 400, "object in JSON"),
        (CHAT, chat(video(), chat_template_kwargs={"chat_template": "{{ 7 }}"}), 400, "has 'chat_template'"),
        (CHAT, chat(video(), chat_template_kwargs={"processor_kwargs": {}}), 400, "has 'processor_kwargs'"),
        (CHAT, chat(video(), chat_template_kwargs={"num_frames": 1000}), 400, "`num_frames` is 1000"),
        (CHAT, chat(video(), chat_template_kwargs={"modalities": ["v"]}), 400, "av, v and a are accepted"),
        (CHAT, chat(video(part="#t=8,9")), 400, "clip-00000.mp4#t=8,9"),
        (EMBEDDINGS, {}, 400, "`input`: Field required"),
        (EMBEDDINGS, {"input": []}, 400, "0 entries; 1 to 64"),
        (EMBEDDINGS, {"input": ["a"] * 65}, 400, "65 entries"),
        (EMBEDDINGS, {"input": [[1, 2]]}, 400, "part of type None"),
        (EMBEDDINGS, {"input": " "}, 400, "empty text"),
        (EMBEDDINGS, {"input": ["\ud800"]}, 400, "surrogate"),
        (EMBEDDINGS, {"input": LONG}, 400, "or give `truncate: true`"),
        (EMBEDDINGS, {"input": "w" * 10_001, "truncate": True}, 400, "10,001 letters; at most 10,000"),
        (EMBEDDINGS, {"input": f"{'w' * 200} " * 45}, 400, "has a text of 47 tokens"),
        (SEARCH, {"query": "w" * 10_001, "truncate": True}, 400, "10,001 letters"),
        (RERANK, {"query": "w" * 10_001, "documents": [video()], "truncate": True}, 400, "10,001 letters"),
        (EMBEDDINGS, {"input": "a", "dimensions": 5}, 400, "this model has"),
        (EMBEDDINGS, {"input": "a", "encoding_format": "int8"}, 400, "`encoding_format`"),
        (EMBEDDINGS, {"input": "a", "model": "b"}, 404, "There is no model 'b'"),
        (SEARCH, {"query": "a bell", "where": "1 = 1) OR (2 = 2"}, 400, "parenthesis"),
        (SEARCH, {"query": "a bell", "where": "repeat('x', 1000000000) = ''"}, 400, "'repeat' is no column"),
        (SEARCH, {"query": "a bell", "where": "start > (SELECT 1)"}, 400, "'select' is no column"),
        (SEARCH, {"query": "a bell", "where": "start LIKE 3"}, 400, "start LIKE 3"),
        (SEARCH, {"query": "a bell", "top_k": 0}, 400, "`top_k`"),
        (SEARCH, {"query": ["a bell", ""]}, 400, "empty text"),
        (RERANK, {"query": "a bell", "documents": ["a dog"]}, 400, "compared with media"),
        (RERANK, {"query": "a bell", "documents": []}, 400, "`documents`"),
        ("/load_model", {"model": "any/model"}, 404, "/load_model: Not Found"),
        ("/reset", {}, 404, "/reset: Not Found"),
        ("/v1/responses", {}, 404, "Not Found"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_in_one_sentence(app, path, body, status, message):
    answer = post(app, path, body)
    error = answer.json()["error"]
    assert (answer.status_code, error.keys()) == (status, {"message", "type", "param", "code"})
    assert message in error["message"] and "\n" not in error["message"] and "Traceback" not in answer.text


@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "../../README.md", "http://127.0.0.1:1/clip.mp4",
                                 "http://localhost/clip.mp4", "http://169.254.169.254/latest/meta-data", "hf://datasets/a/b/c.mp4"])  # fmt: skip
def test_no_request_reaches_files_or_private_addresses(app, url):
    part = {"type": "video_url", "video_url": {"url": url}}
    for path, body in ((CHAT, chat(part)), (EMBEDDINGS, {"input": part}), (SEARCH, {"query": part}),
                       (RERANK, {"query": "a bell", "documents": [part]})):  # fmt: skip
        answer = post(app, path, body)
        assert answer.status_code == 400
        assert any(why in answer.text for why in ("not public", "no file that this server", "not accepted"))


def test_a_private_host_is_fetched_from_where_it_is_allowed(service, server, video):
    address, asked = server
    host = address.removeprefix("http://")
    rules = service.engine.rules
    limits = dataclasses.replace(rules.limits, private_hosts=(host,))
    from modeling_valor.media import MediaError, open_source

    with open_source(f"{address}/video.mp4", limits) as path, open(path, "rb") as fetched, open(video, "rb") as file:
        assert fetched.read() == file.read()
    for url in (
        f"{address}/to?http://localhost:{host.split(':')[1]}/video.mp4",
        f"http://localhost:{host.split(':')[1]}/",
    ):
        with pytest.raises(MediaError, match="not public"), open_source(url, limits):
            pass
    assert asked[0] == "/video.mp4"


def test_text_is_cut_on_request_only(app, model, processor):
    answer = post(app, EMBEDDINGS, {"input": LONG, "truncate": True}).json()
    assert answer["usage"]["prompt_tokens"] == 40
    mean = pooled(model, processor, text=LONG)[0]
    torch.testing.assert_close(torch.tensor(answer["data"][0]["embedding"]), mean, atol=1e-5, rtol=0)


def test_an_error_of_the_server_says_nothing_of_its_code(app, service, monkeypatch, caplog):
    def fail(*args):
        raise RuntimeError("secret of the code")

    monkeypatch.setattr(service.engine, "_generate", fail)
    answer = post(app, CHAT, chat(video(), QUESTIONS[0]))
    assert answer.status_code == 500 and "its log says why" in answer.json()["error"]["message"]
    stream = post(app, CHAT, chat(video(), QUESTIONS[0], stream=True))
    assert "its log says why" in stream.text
    assert "secret" not in answer.text + stream.text and "secret" in caplog.text


def test_bodies_that_are_no_json_are_refused(app):
    async def send():
        async with client(app) as http:
            headers = {"Content-Type": "application/json"}
            return [await http.post(CHAT, content=body, headers=headers) for body in (b"{", b"[]", b'"a"', b"\xff")]

    for answer in asyncio.run(send()):
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("application/x-www-form-urlencoded", "form-urlencoded': send JSON with the header"),  # curl without -H
        ("", "no content type: send JSON with the header"),
        ("application/json", "must be an object in JSON"),
    ],
)
def test_a_body_that_is_not_read_as_json_is_refused_with_the_reason(app, path, kind, message):
    async def send():
        async with client(app) as http:
            return await http.post(path, content=b'"a"', headers={"Content-Type": kind} if kind else {})

    answer = asyncio.run(send())
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


def test_a_request_whose_time_is_up_leaves_the_queue(app, service):
    gate = threading.Event()
    service.engine.queue.submit("hold", lambda items: [gate.wait(60)], None)
    hasty = Guard(app.app, dataclasses.replace(service.settings, timeout=0.3))
    answer = post(hasty, EMBEDDINGS, {"input": "a bell rings"})
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "timeout"
    after = service.engine.queue.submit("after", lambda items: items, 1)
    gate.set()
    assert after.result(30) == 1 and service.engine.queue.waiting == 0


# --- Health -----------------------------------------------------------------------------------------------------------


def test_the_health_is_good_once_the_model_is_loaded_and_bad_when_it_stops():
    from modeling_valor.serving import ServerSettings, Service

    engine = type("Loaded", (), {"stop": lambda self: None})()
    engine.queue = engine.readers = type("Idle", (), {"waiting": 0, "running": 0})()
    service = Service("valor-tiny", lambda: engine, ServerSettings())
    app = build_app(service)

    def get(path):
        async def send():
            async with client(app) as http:
                return await http.get(path)

        return asyncio.run(send())

    assert (get("/health").status_code, get("/health").json()["status"]) == (503, "loading")
    loading = post(app, EMBEDDINGS, {"input": "a"})
    assert loading.status_code == 503 and loading.headers["retry-after"]
    with pytest.raises(RequestError):
        _ = service.engine
    service.load()
    assert get("/health").status_code == 200
    assert get("/health").json()["computing"] == {"waiting": 0, "running": 0}
    assert [model["id"] for model in get("/v1/models").json()["data"]] == ["valor-tiny"]
    service.shutdown()
    assert (get("/health").status_code, get("/health").json()["status"]) == (503, "stopping")
