# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import os

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import pipeline

from helpers.media_files import write_clip
from modeling_valor import ValorModel, ValorProcessor
from modeling_valor.integrations.batches import ValorCaptioner, ValorEmbedder, ValorReader, to_rows


TINY = os.path.abspath("hub_configs/valor-tiny")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("films") / "film.mp4", seconds=12))


@pytest.fixture(scope="module")
def embedder():
    return ValorEmbedder(TINY, segment_seconds=5.0, batch_size=2)


def test_embeddings_are_those_of_processor_and_model(embedder, film):
    rows = to_rows(embedder({"path": [film], "label": ["bar"]}))
    assert [(row["start"], round(row["end"])) for row in rows] == [(0, 5), (5, 10), (10, 12)]
    assert {(row["source"], row["label"], row["error"], row["file_segments"]) for row in rows} == {
        (film, "bar", "", 3)
    }
    valor, processor = ValorModel.from_pretrained(TINY).eval(), ValorProcessor.from_pretrained(TINY)
    with torch.no_grad():
        embeds = valor.embed_media(processor(videos=[f"{film}#t=5,10"], num_audio_clips=1, return_tensors="pt"))
    reference = torch.cat([embeds["video_embeds"][0], embeds["audio_embeds"][0]]).numpy()
    assert rows[1]["modalities"] == "va"
    assert rows[1]["token_modalities"] == "v" * len(embeds["video_embeds"][0]) + "a"
    assert rows[1]["token_embeds"].dtype == np.float16
    assert np.abs(rows[1]["token_embeds"].astype(np.float32) - reference).max() < 1e-3
    assert len(rows[1]["token_times"]) == len(rows[1]["token_weights"]) == len(reference)
    assert ((rows[1]["token_times"] > 5) & (rows[1]["token_times"] < 10)).all()


def test_planned_segments_and_read_batches_give_the_same(embedder, film):
    whole = embedder({"path": [film]})
    spans = embedder.reader.spans(film)
    planned = {"path": [film] * 2, "start": [10.0, 0.0], "end": [spans[2]["end"], 5.0], "error": ["", ""]}
    read = list(ValorReader(TINY, segment_seconds=5.0, batch_size=1)({"path": [film]}))
    assert [len(batch["start"]) for batch in read] == [1, 1, 1]
    joined = {name: [value for batch in read for value in batch[name]] for name in read[0]}
    for rows, places in ((embedder(planned), [0, 2]), (embedder(joined), [0, 1, 2])):
        assert rows["start"] == [whole["start"][place] for place in places]
        for embeds, place in zip(rows["token_embeds"], places, strict=True):
            assert np.abs(embeds.astype(np.float32) - whole["token_embeds"][place].astype(np.float32)).max() < 1e-3


def test_segments_that_are_done_are_passed_over(film):
    reader = ValorReader(TINY, segment_seconds=5.0)

    def starts(done):
        return [row["start"] for row in reader.read([{"path": film, "done": done}])]

    assert starts("[[0.0, 5.0]]") == [5, 10]
    end = round(reader.spans(film)[2]["end"], 3)
    assert starts(f"[[0.0, 5.0], [5.0, 10.0], [10.0, {end}]]") == [10]


def test_an_error_is_a_column(embedder, film, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    rows = to_rows(embedder({"path": [str(broken), film, "gone.mp4", "s3x://bucket/film.mp4"]}))
    assert [bool(row["error"]) for row in rows] == [True, False, False, False, True, True]
    assert "broken.mp4" in rows[0]["error"] and "gone.mp4 does not exist" in rows[4]["error"]
    assert rows[0]["token_embeds"].shape == (0, 256) and rows[0]["modalities"] == ""
    assert embedder({"path": []}) == {}


def test_a_segment_that_fails_in_the_model_does_not_cost_the_others(film, monkeypatch):
    embedder = ValorEmbedder(TINY, segment_seconds=5.0)
    compute = embedder.compute

    def fail_on_the_second(inputs, times):
        if any(5 < moments[0] < 10 for moments in times["v"]):
            raise RuntimeError("out of memory")
        return compute(inputs, times)

    monkeypatch.setattr(embedder, "compute", fail_on_the_second)
    rows = to_rows(embedder({"path": [film]}))
    assert ["out of memory" in row["error"] for row in rows] == [False, True, False]
    assert [row["modalities"] for row in rows] == ["va", "", "va"]


def test_captions_are_those_of_the_pipeline(film):
    caption = ValorCaptioner(TINY, segment_seconds=5.0, generate_kwargs={"num_beams": 2, "max_new_tokens": 12})
    rows = to_rows(caption({"path": [film, "gone.mp4"]}))
    pipe = pipeline("audiovisual-captioning", model=TINY, device="cpu")
    expected = pipe(f"{film}#t=5,10", num_audio_clips=1, num_beams=2, max_new_tokens=12)[0]
    assert rows[1]["caption"] == expected["generated_text"]
    assert rows[1]["modalities"] == expected["modalities"] == "av"
    assert rows[3]["caption"] == "" and "does not exist" in rows[3]["error"]


def test_datasets_map(embedder, film):
    files = Dataset.from_dict({"path": [film, "gone.mp4", film], "label": ["a", "b", "c"]})
    rows = files.map(embedder, batched=True, batch_size=2, remove_columns=files.column_names)
    assert rows["label"] == ["a", "a", "a", "b", "c", "c", "c"]
    assert rows["start"] == [0, 5, 10, 0, 0, 5, 10]
    assert rows["error"][3].startswith("gone.mp4")
    direct = embedder({"path": [film]})
    assert np.abs(np.array(rows[5]["token_embeds"]) - direct["token_embeds"][1].astype(np.float32)).max() < 1e-3


def test_a_file_in_another_store(embedder, film):
    direct, opened = (embedder({"path": [path]}) for path in (film, f"local://{film}"))
    assert opened["source"] == [f"local://{film}"] * 3 and opened["error"] == [""] * 3
    assert np.array_equal(direct["token_embeds"][1], opened["token_embeds"][1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"segments": "scenes"}, '"fixed" and "shots"'),
        ({"modalities": "t"}, '"av", "v" and "a"'),
        ({"segment_seconds": 0.0}, "positive"),
    ],
)
def test_options_that_are_not_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        ValorReader(TINY, **options)
