# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Resumable maps: interruptions, damaged and full caches, several processes."""

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.evaluation_world import OPTIONS, evaluate_all
from helpers.warm import WarmProcess
from modeling_valor.evaluation import (
    evaluate_question_answering,
    evaluate_retrieval,
)
from modeling_valor.evaluation.resumable import TensorCache, TextCache, map_resumable


def squares(batches, log):
    for batch in batches:
        log.append(batch)
        yield {item: {"square": torch.tensor([item**2]), "odd": torch.tensor([item % 2])} for item in batch}


def test_interrupted_work_goes_on_in_the_same_batches(tmp_path):
    keys = [f"item {index}" for index in range(7)]

    def killed(batches):
        for number, result in enumerate(squares(batches, [])):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    with pytest.raises(KeyboardInterrupt):
        map_resumable(keys, 2, killed, TensorCache(tmp_path))
    (tmp_path / "torn.1.partial").write_bytes(b"half")
    log = []
    results = map_resumable(keys, 2, lambda batches: squares(batches, log), TensorCache(tmp_path))
    assert log == [[4, 5], [6]]
    assert [result["square"].item() for result in results] == [index**2 for index in range(7)]


def test_a_torn_line_is_done_again(tmp_path):
    cache = TextCache(tmp_path)
    cache.add({"a": {"text": "one"}, "b": {"text": "two"}})
    path = next(tmp_path.glob("*.jsonl"))
    path.write_text(path.read_text()[:-5])
    assert cache.load({"a", "b"}) == {"a": {"text": "one"}}
    cache.add({"b": {"text": "two"}})
    assert cache.load({"a", "b"}) == {"a": {"text": "one"}, "b": {"text": "two"}}


def tensors(name):
    return {name: {"square": torch.ones(2)}}


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 99, lambda whole: whole[:-5], lambda whole: whole[:20]])
def test_damaged_tensors_are_computed_again_and_named(damage, tmp_path, caplog):
    cache = TensorCache(tmp_path)
    for key in "abc":
        cache.add(tensors(key))
    path = next(iter(sorted(tmp_path.iterdir())))
    path.write_bytes(damage(path.read_bytes()) if callable(damage) else damage)
    assert len(cache.load(set("abc"))) == 2
    (record,) = caplog.records
    assert path.name in record.message and "again" in record.message
    results = map_resumable(
        list("abc"), 1, lambda batches: ({batch[0]: tensors("x")["x"]} for batch in batches), cache
    )
    assert all(torch.equal(result["square"], torch.ones(2)) for result in results)
    caplog.clear()
    assert len(cache.load(set("abc"))) == 3 and not caplog.records


def test_damaged_lines_are_computed_again_and_named(tmp_path, caplog):
    cache = TextCache(tmp_path)
    cache.add({"a": {"text": "one"}, "b": {"text": "two"}})
    path = next(tmp_path.glob("*.jsonl"))
    odd = [
        b"[]",
        b"1",
        b'{"key": 1, "result": {}}',
        b'{"key": "a"}',
        b'{"key": "a", "result": []}',
        b"[" * 99999,
        b"\xff",
    ]
    path.write_bytes(path.read_bytes() + b"\n".join(odd))
    assert cache.load({"a", "b"}) == {"a": {"text": "one"}, "b": {"text": "two"}}
    (record,) = caplog.records
    assert path.name in record.message and "and 6 more" in record.message


def test_cached_results_of_an_unexpected_form_are_computed_again(model, processor, samples, tmp_path, caplog):
    """A cache whose tensors and texts are whole, but not those of this model and these questions."""
    samples = samples[:2]
    caches = {name: TensorCache(tmp_path / name) for name in ("samples", "texts")}
    expected = evaluate_retrieval(model, processor, samples, caches=caches, **OPTIONS)
    for cache in caches.values():
        for path in cache.folder.iterdir():
            found = {
                name: value[..., :7].contiguous() for name, value in load_file(path).items() if "audio" not in name
            }
            save_file(found, path)
    caplog.clear()
    result = evaluate_retrieval(model, processor, samples, caches=caches, **OPTIONS)
    assert torch.equal(result.similarity["t-av"], expected.similarity["t-av"])
    assert [record.message.count("unexpected form") for record in caplog.records] == [1, 1]

    cache = TextCache(tmp_path / "answers")
    options = {"generate_kwargs": {"max_new_tokens": 3}, "cache": cache, **OPTIONS}
    expected = evaluate_question_answering(model, processor, samples, **options)
    (path,) = cache.folder.iterdir()
    odd = [{"text": "x"}, {"answers": ["x"] * 9}]
    keys = [json.loads(line)["key"] for line in path.read_text().split("\n") if line]
    cache.add(dict(zip(keys, odd, strict=True)))
    assert evaluate_question_answering(model, processor, samples, **options).predictions == expected.predictions


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog):
    def full(self, results):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    monkeypatch.setattr(TextCache, "add", full)
    log = []

    def compute(batches):
        for batch in batches:
            log.append(batch)
            yield {item: {"text": str(item)} for item in batch}

    results = map_resumable(list("abcd"), 1, compute, TextCache(tmp_path))
    assert [result["text"] for result in results] == list("0123") and len(log) == 4
    (record,) = caplog.records
    assert f"{tmp_path} cannot be written (No space left on device)" in record.message


def test_two_processes_give_the_metrics_of_one(checkpoint, world, samples, tmp_path):
    """Five samples in batches of two: three batches for two processes."""
    arguments = [2, tmp_path / "rendezvous", checkpoint, world, tmp_path]
    started = [WarmProcess("-m", "helpers.evaluation_world", rank, *arguments) for rank in range(2)]
    for process in started:
        ended = process.wait()
        assert ended.returncode == 0, ended.stderr
    expected = json.loads(json.dumps(evaluate_all(checkpoint, samples)))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == expected
    for task, result in second.items():
        assert result == {**expected[task], "predictions": []}
