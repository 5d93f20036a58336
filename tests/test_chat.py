# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Chats: the processor's template, `pipeline("any-to-any")` and `transformers serve`."""

import json
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
import torch
from transformers import pipeline
from transformers.utils.import_utils import is_serve_available

from modeling_valor import ValorForCaptioning, ValorForQuestionAnswering, ValorProcessor


REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = str(REPOSITORY / "hub_configs" / "valor-tiny")
CLIP, OTHER = (str(REPOSITORY / "examples" / "media" / f"clip-0000{number}.mp4") for number in (0, 1))
QUESTION = "what is heard?"


@pytest.fixture(scope="module")
def processor():
    return ValorProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def caption():
    return pipeline("audiovisual-captioning", model=CHECKPOINT, device="cpu")(CLIP)[0]["generated_text"]


@pytest.fixture(scope="module")
def answer():
    answerer = pipeline("audiovisual-question-answering", model=CHECKPOINT, device="cpu")
    return answerer(CLIP, question=QUESTION)[0]["answer"]


def chat(*parts, before=()):
    """A chat whose newest message has a text, or media given as `(type, source)`."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part[0], "url": part[1]}
        for part in parts
    ]
    return [*before, {"role": "user", "content": content}]


def prepare(processor, conversation, **kwargs):
    return processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, **kwargs
    )


def test_the_template_is_saved_and_loaded(processor, tmp_path):
    assert ValorProcessor.from_pretrained(CHECKPOINT).chat_template == processor.chat_template
    own = "{{ messages[0].content }} indeed?"
    ValorProcessor(
        processor.tokenizer, processor.video_processor, processor.feature_extractor, chat_template=own
    ).save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == own
    loaded = ValorProcessor.from_pretrained(tmp_path)
    assert loaded.apply_chat_template([{"role": "user", "content": "rain"}]) == "rain indeed?"


def test_a_chat_is_the_question_of_its_newest_message(processor):
    past = [*chat(("video", OTHER), "what moves?"), {"role": "assistant", "content": "a dog"}]
    assert processor.apply_chat_template(chat(("video", CLIP), QUESTION, before=past)) == QUESTION
    assert processor.apply_chat_template(chat("what is", ("video", CLIP), "heard?")) == QUESTION
    assert processor.apply_chat_template([{"role": "user", "content": QUESTION}]) == QUESTION
    assert processor.apply_chat_template(chat(("video", CLIP))) == ""
    assert processor.apply_chat_template([chat(QUESTION), chat("why?")]) == [QUESTION, "why?"]


def test_inputs_of_a_chat_are_those_of_the_question(processor):
    expected = processor(videos=CLIP, question=QUESTION, return_tensors="pt")
    # The second question is about the video of the first one
    past = [*chat(("video", CLIP), "what moves?"), {"role": "assistant", "content": "a dog"}]
    for conversation in (chat(("video", CLIP), QUESTION), chat(QUESTION, before=past)):
        inputs = prepare(processor, conversation)
        assert inputs.pop("input_ids").tolist() == [[processor.tokenizer.cls_token_id]]
        assert inputs.keys() == expected.keys()
        assert all(torch.equal(inputs[name], value) for name, value in expected.items())
    silent = prepare(processor, chat(("video", CLIP)), load_audio_from_video=False)
    assert set(silent) == {"pixel_values_videos", "input_ids"}
    assert set(prepare(processor, chat(("audio", CLIP)))) == {"input_features", "input_ids"}


def test_a_number_of_frames_that_a_server_sets_is_an_upper_limit(processor):
    assert prepare(processor, chat(("video", CLIP)), num_frames=32)["pixel_values_videos"].shape[1] == 8
    assert prepare(processor, chat(("video", CLIP)), num_frames=2)["pixel_values_videos"].shape[1] == 2
    asked = prepare(processor, chat(("video", CLIP)), num_frames=2, processor_kwargs={"num_frames": 10})
    assert asked["pixel_values_videos"].shape[1] == 10


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        (chat(QUESTION), "nothing to describe"),
        (chat(("video", CLIP), ("video", OTHER)), "one video, but there are several"),
        ([chat(("video", CLIP)), chat(("video", CLIP), QUESTION)], "give them apart"),
        (chat(("smell", CLIP)), "got 'smell'"),
    ],
)
def test_chats_that_cannot_be_answered_are_refused(processor, conversation, message):
    with pytest.raises(ValueError, match=message):
        prepare(processor, conversation)


def test_the_captioning_model_answers_as_the_one_for_questions(processor):
    models = [cls.from_pretrained(CHECKPOINT).eval() for cls in (ValorForCaptioning, ValorForQuestionAnswering)]
    inputs = processor(videos=[CLIP, OTHER], question=[QUESTION, "what color?"], return_tensors="pt")
    words = torch.tensor([[101, 5, 6, 103]] * 2)
    with torch.no_grad():
        logits = [model(input_ids=words, **inputs).logits for model in models]
    torch.testing.assert_close(*logits)
    assert torch.equal(*(model.generate(**inputs, num_beams=2) for model in models))
    with pytest.raises(ValueError, match="not both"):
        models[0](input_ids=words, prompt_input_ids=words, **inputs)


def test_any_to_any_pipeline_describes_and_answers(caption, answer, caplog):
    chatter = pipeline("any-to-any", model=CHECKPOINT, device="cpu")
    assert isinstance(chatter.model, ValorForCaptioning)
    described, answered = chatter(
        text=[chat(("video", CLIP)), chat(("video", CLIP), QUESTION)], return_full_text=False
    )
    assert (described[0]["generated_text"], answered[0]["generated_text"]) == (caption, answer)
    whole = chatter(text=chat(("video", CLIP), QUESTION))[0]["generated_text"]
    assert whole[-1] == {"role": "assistant", "content": answer}
    assert "is not supported" not in caplog.text


@pytest.fixture
def server():
    """Address of `transformers serve`, on a port that the system chooses."""
    if not is_serve_available():
        pytest.skip("needs fastapi, uvicorn and openai: pip install 'transformers[serving]'")
    import uvicorn
    from transformers.cli.serve import Serve

    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listening:
        patch.setattr(uvicorn.Server, "run", lambda self: None)
        application = Serve(CHECKPOINT, device="cpu").server.config.app
        patch.undo()
        running = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        running.should_exit = True
        thread.join()


def request(server, messages, **options):
    body = json.dumps({"model": CHECKPOINT, "messages": messages, **options}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{server}/v1/chat/completions", body, headers)) as response:
        return response.read().decode()


def test_transformers_serve_answers_requests_with_a_video_url(server, caption, answer):
    video = {"type": "video_url", "video_url": {"url": Path(CLIP).as_uri()}}
    described = json.loads(request(server, [{"role": "user", "content": [video]}]))
    assert described["choices"][0]["message"]["content"] == caption
    question = [{"role": "user", "content": [video, {"type": "text", "text": QUESTION}]}]
    assert json.loads(request(server, question))["choices"][0]["message"]["content"] == answer
    streamed = [line.removeprefix("data: ") for line in request(server, question, stream=True).splitlines() if line]
    words = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in streamed if line != "[DONE]"]
    assert "".join(words).strip() == answer
