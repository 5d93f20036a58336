# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.media_files import write_wav
from helpers.segments import model_scores, random_segments
from modeling_valor import ValorModel, ValorProcessor
from modeling_valor.search import EmbeddedSegment, IndexedFile, Segment, SegmentTokens, ValorIndex
from modeling_valor.search.lance import LanceBackend


TINY = "hub_configs/valor-tiny"
QUERIES = ["a red circle moves to the left", "a green square", "a low tone while a blue triangle moves up"]


@pytest.fixture(scope="module")
def valor():
    return ValorModel.from_pretrained(TINY).eval()


@pytest.fixture(scope="module")
def processor():
    return ValorProcessor.from_pretrained(TINY)


@pytest.fixture(scope="module")
def texts(valor, processor):
    """For each query what `compute_similarity` takes, computed alone."""
    with torch.no_grad():
        return [valor.embed_texts(processor(text=query, return_tensors="pt")) for query in QUERIES]


@pytest.fixture(scope="module")
def segments(valor, texts):
    """Tokens around those of the queries, so that scores differ."""
    centres = torch.cat([text["text_embeds"][0] for text in texts]).numpy()
    noise = np.random.default_rng(1).normal(size=centres.shape)
    return random_segments(
        valor, 120, centres=np.concatenate([centres, noise / np.linalg.norm(noise, axis=1)[:, None]])
    )


@pytest.fixture
def index(tmp_path, valor, processor, segments):
    index = ValorIndex(tmp_path / "index.lance", model=valor, processor=processor)
    index.add_segments(segments)
    return index


def names(hits):
    return [(hit.source, hit.start) for hit in hits]


@pytest.mark.parametrize("modalities", ["av", "v", "a"])
@pytest.mark.parametrize("nearest_rows", [None, 2, 50], ids=["in memory", "2 rows", "50 rows"])
def test_hits_are_those_of_all_pairs(index, valor, texts, segments, modalities, nearest_rows, monkeypatch):
    if nearest_rows is not None:
        monkeypatch.setattr("modeling_valor.search.lance.RESIDENT_NUMBERS", 0)
    found = index.search(QUERIES, top=7, modalities=modalities, join=False, nearest_rows=nearest_rows)
    for hits, text in zip(found, texts, strict=True):
        scores = model_scores(valor, text, segments, f"t-{modalities}")
        best = np.argsort(-scores, kind="stable")[:7]
        assert [hit.score for hit in hits] == pytest.approx(scores[best], abs=2e-4)
        assert all(hit.proven for hit in hits)
        assert names(hits)[0] == (segments[best[0]].segment.source, segments[best[0]].segment.start)


def test_one_text_and_several_agree(index):
    alone, together = index.search(QUERIES[1], top=3), index.search(QUERIES, top=3)[1]
    assert names(alone) == names(together)
    assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in together], abs=1e-5)


def test_segments_without_the_modality_are_not_found(index):
    hits = index.search(QUERIES[0], top=200, modalities="a", join=False)
    assert len(hits) == 80  # four of six kinds have sound
    assert all("a" in hit.segments[0].modalities for hit in hits)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("source = '/videos/film 3.mp4'", lambda s: s.source == "/videos/film 3.mp4"),
        ("source LIKE '%film 1%' AND start < 20", lambda s: "film 1" in s.source and s.start < 20),
        ("end > 50", lambda s: s.end > 50),
        ("json_get_string(metadata, 'camera') = 'c1'", lambda s: s.metadata["camera"] == "c1"),
    ],
)
def test_where_filters(index, segments, where, expected):
    hits = index.search(QUERIES[0], top=200, where=where, join=False)
    assert {hit.segments[0].id for hit in hits} == {s.segment.id for s in segments if expected(s.segment)}


@pytest.mark.parametrize(
    "where",
    [
        "nonsense here",
        "colour = 3",
        "start",
        "1=1) OR (1=1",
        "start < 0 /*( */ ) OR (1=1",
        "start < 0 --(\n) OR (1=1",
        "source = $$($$) OR (1=1",
        "source = E'\\'(' ) OR (1=1 --'",
        "start IN (SELECT 1)",
        "DROP TABLE tokens",
        "",
    ],
)
def test_where_that_is_no_condition(index, where):
    with pytest.raises(ValueError, match="no condition that LanceDB understands") as error:
        index.search(QUERIES[0], where=where)
    assert "\n" not in str(error.value) and ".rs" not in str(error.value)
    assert index.search(QUERIES[0])


def test_matches_say_which_second_answered_each_word(index, valor, texts, segments, processor):
    hit = index.search(QUERIES[0], top=1, join=False)[0]
    assert [match.word for match in hit.matches] == QUERIES[0].split()
    tokens = next(item.tokens for item in segments if item.segment == hit.segments[0])
    similarity = texts[0]["text_embeds"][0].numpy() @ tokens.embeds.astype(np.float32).T
    for place, match in enumerate(hit.matches, start=1):  # after [CLS]
        best = similarity[place].argmax()
        assert match.similarity == pytest.approx(similarity[place, best], abs=1e-5)
        assert (match.seconds, match.modality) == (tokens.times[best], tokens.modalities[best])


@pytest.mark.parametrize("query", ["", "   ", "?!", "the of a", "zebra", "the zebra"])
def test_a_query_that_says_nothing(index, query):
    with pytest.raises(ValueError, match="words") as error:
        index.search(query)
    assert "\n" not in str(error.value)


def test_unknown_words_are_named(index, caplog):
    from transformers.utils import logging

    logging.enable_propagation()
    try:
        hits = index.search("a red zebra", top=2)
    finally:
        logging.disable_propagation()
    assert "'zebra'" in caplog.text
    assert [match.word for match in hits[0].matches] == ["a", "red"]


def test_adding_again_changes_nothing(index, segments, valor, processor):
    before = index.search(QUERIES, top=5)
    index.add_segments(segments)
    index.add_segments(segments[:3] + segments[:3])
    assert index.info()["segments"] == len(segments)
    assert index.search(QUERIES, top=5) == before
    again = ValorIndex(index.path, model=valor, processor=processor)
    assert again.search(QUERIES, top=5) == before


def test_removal(index, segments):
    assert index.remove("/videos/film 0.mp4") == 6
    assert index.info()["segments"] == len(segments) - 6
    assert index.info()["tokens"] == sum(len(item.tokens.modalities) for item in segments[6:])
    assert all(hit.source != "/videos/film 0.mp4" for hit in index.search(QUERIES[0], top=200))
    with pytest.raises(ValueError, match="has no file '/videos/nothing"):
        index.remove("/videos/nothing.mp4", "/videos/film 1.mp4")
    assert index.info()["segments"] == len(segments) - 12


def test_names_of_all_kinds(index, valor):
    names = ["/v/it's.mp4", "/v/two\nlines.mp4", "/v/日本 ü.mp4", '/v/"quoted".mp4', "https://host/a%20b.mp4?x=1&y='"]
    rows = random_segments(valor, 1)[0]
    for name in names:
        index.add_segments([EmbeddedSegment(Segment(name, 0, 10, "va"), rows.tokens)])
    assert {segment.source for segment in index.segments()} >= set(names)
    for name in names:
        assert index.remove(name) == 1


def test_tokens_that_a_killed_writer_left_are_not_found_and_are_replaced(index, segments, valor, monkeypatch):
    new = random_segments(valor, 12, seed=5, per_file=12)
    new = [EmbeddedSegment(Segment(f"/new{i}.mp4", 0, 10, "va"), item.tokens) for i, item in enumerate(new)]
    table = index.backend._table("segments")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(table, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            index.add_segments(new)
    total = sum(len(item.tokens.modalities) for item in segments)
    assert index.info()["tokens"] > total  # they are there
    assert len(index.search(QUERIES[0], top=500, join=False)) == len(segments)
    index.add_segments(new)
    assert index.info()["tokens"] == total + sum(len(item.tokens.modalities) for item in new)
    assert len(index.search(QUERIES[0], top=500, join=False)) == len(segments) + len(new)


def test_another_model_is_refused(index, valor, processor):
    other = ValorModel.from_pretrained(TINY)
    with torch.no_grad():
        other.video_projection.weight[0, 0] += 0.5
    with pytest.raises(ValueError, match="was made with the model"):
        ValorIndex(index.path, model=other, processor=processor).search(QUERIES[0])
    assert ValorIndex(
        index.path, model=ValorModel.from_pretrained(TINY, dtype=torch.bfloat16), processor=processor
    ).model.revision


def test_an_index_that_is_made_again_in_its_place_is_read_again(index, valor, processor, texts, segments):
    index.search(QUERIES[0])  # now the first one is in memory
    shutil.rmtree(index.path)
    with pytest.raises(ValueError, match="no index at"):
        index.search(QUERIES[0])
    others = [
        replace(item, tokens=other.tokens) for item, other in zip(segments, segments[6:] + segments[:6], strict=True)
    ]
    ValorIndex(index.path, model=valor, processor=processor).add_segments(others)
    found = [hit.score for hit in index.search(QUERIES[0], top=7, join=False)]
    assert found == pytest.approx(np.sort(model_scores(valor, texts[0], others, "t-av"))[::-1][:7], abs=2e-4)
    first = index.search(QUERIES[0], top=1, join=False)[0].segments[0].id
    assert first == others[int(model_scores(valor, texts[0], others, "t-av").argmax())].segment.id


def test_an_index_that_is_made_again_with_another_model_is_refused(index, valor, processor, segments):
    other = ValorModel.from_pretrained(TINY)
    with torch.no_grad():
        other.video_projection.weight[0, 0] += 0.5
    index.search(QUERIES[0])
    shutil.rmtree(index.path)
    again = ValorIndex(index.path, model=other, processor=processor)
    again.add_segments([replace(item, segment=replace(item.segment, revision="")) for item in segments])
    with pytest.raises(ValueError, match="was made with the model"):
        index.search(QUERIES[0])
    with pytest.raises(ValueError, match="was made with the model"):
        index.add_segments(segments[:1])


def test_the_model_of_the_index_is_the_default(index):
    assert names(ValorIndex(index.path).search(QUERIES[0], top=3)) == names(index.search(QUERIES[0], top=3))


def test_a_newer_format_is_refused(index, tmp_path):
    backend = LanceBackend(tmp_path / "newer.lance")
    backend.create({**index.backend.about(), "version": 99})
    with pytest.raises(ValueError, match="newer version of modeling-valor"):
        ValorIndex(tmp_path / "newer.lance")


def test_no_index_and_an_empty_one(tmp_path, valor, processor):
    with pytest.raises(ValueError, match="There is no index at"):
        ValorIndex(tmp_path / "nothing.lance")
    index = ValorIndex(tmp_path / "nothing.lance", model=valor, processor=processor)
    with pytest.raises(ValueError, match=r"no index at .*not any more: add files first"):
        index.search(QUERIES[0])
    assert index.info()["segments"] == 0
    assert not (tmp_path / "nothing.lance").exists()


def test_an_index_is_a_folder_of_its_own(index, tmp_path):
    film = tmp_path / "films" / "film.mp4"
    film.parent.mkdir()
    film.write_bytes(b"a film")
    with pytest.raises(ValueError, match="is a file; an index is a folder"):
        ValorIndex(film)
    with pytest.raises(ValueError, match="is a folder of other files and no index"):
        ValorIndex(film.parent, model=TINY)
    assert [path.name for path in film.parent.iterdir()] == ["film.mp4"]
    (tmp_path / "empty").mkdir()
    assert LanceBackend(tmp_path / "empty").about() is None
    (tmp_path / "index.lance" / "notes.txt").write_text("mine")
    assert ValorIndex(index.path).info()["segments"] == 120


def test_captions_are_found_by_their_words(index, segments):
    ids = [item.segment.id for item in segments]
    with pytest.raises(ValueError, match="has no captions"):
        index.search_captions("dogs")
    index.caption({ids[0]: "A dog barks at the gate.", ids[1]: "Rain falls.", ids[2]: "the dogs of the town"})
    assert {segment.id for segment, _ in index.search_captions("dog")} == {ids[0], ids[2]}
    assert index.segments("/videos/film 0.mp4")[1].caption == "Rain falls."
    index.caption({ids[0]: None, ids[3]: "a dog again"})
    assert {segment.id for segment in index.backend.segments(uncaptioned=True)} == set(ids) - {ids[1], ids[2], ids[3]}
    assert {segment.id for segment, _ in index.search_captions("dog")} == {ids[2], ids[3]}
    found = index.search_captions("dog", where="json_get_int(metadata, 'number') = 3")
    assert [segment.id for segment, _ in found] == [ids[3]]
    with pytest.raises(ValueError, match="words"):
        index.search_captions("the of")
    with pytest.raises(ValueError, match=r"no condition .*\. Name source, start, end, metadata, as in"):
        index.search_captions("dog", where="modality = 'v'")
    assert index.info()["segments"] == len(segments)


def caption_similarity(model, processor, query, item, caption, group):
    """The model's score of media with one segment and its caption, which is padded as in training; None if it has nothing."""
    media = dict(query)
    wanted = {"a-tv": "v", "v-ta": "a"}[group]
    chosen = np.array(list(item.tokens.modalities)) == wanted
    if chosen.any():
        name = {"v": "video", "a": "audio"}[wanted]
        media[f"{name}_embeds"] = torch.from_numpy(item.tokens.embeds[chosen].astype(np.float32))[None]
    if caption:
        text = processor(text=caption, padding="max_length", return_tensors="pt")
        media |= {"text_embeds": model.get_text_embeds(**text), "attention_mask": text["attention_mask"]}
    return float(model.compute_similarity(**media, group=group)) if chosen.any() or caption else None


@pytest.mark.parametrize("padded", ["exclude", "zero"])
@pytest.mark.parametrize("group", ["a-tv", "v-ta"])
def test_captions_take_part_where_media_are_the_query(index, segments, processor, tmp_path, group, padded):
    plain, before = index, index.search(QUERIES, top=50)
    config = {"alignment_groups": ["t-av", "v-a", "a-tv", "v-ta"], "padded_similarity": padded}
    model = ValorModel.from_pretrained(TINY, **config).eval()
    index = ValorIndex(index.path, model=model, processor=processor)
    film = {item.segment.id: item for item in segments[:6]}  # with sound or frames only among them
    captions = dict.fromkeys(film, "a red circle") | {list(film)[2]: "a low tone while " + 40 * "a circle moves "}
    index.caption(dict.fromkeys(film, "something else entirely"))
    index.caption(captions)
    if group == "a-tv":
        write_wav(tmp_path / "tone.wav")
        media, modalities = str(tmp_path / "tone.wav"), "v"
    else:
        media, modalities = np.random.default_rng(0).integers(0, 255, (8, 3, 64, 64), dtype=np.uint8), "a"
    with torch.no_grad():
        query = model.embed_media(processor(videos=[media], return_tensors="pt"))
        expected = {
            item.segment.id: caption_similarity(model, processor, query, item, captions.get(item.segment.id), group)
            for item in segments
        }
    expected = {name: score for name, score in expected.items() if score is not None}
    for nearest_rows in (3, 50):
        hits = index.search(media=media, top=200, modalities=modalities, join=False, nearest_rows=nearest_rows)
        assert {hit.segments[0].id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-3)
        best = index.search(media=media, top=3, modalities=modalities, join=False, nearest_rows=nearest_rows)
        assert names(best) == names(hits[:3]) and all(hit.proven for hit in best)
    assert plain.search(QUERIES, top=50) == fresh(before, plain)
    # Conditions, removal
    (source,) = {item.segment.source for item in film.values()}
    index.backend.set_metadata({source: {"camera": "new"}})
    where = "json_get_string(metadata, 'camera') = 'new'"
    found = index.search(media=media, top=200, modalities=modalities, join=False, where=where)
    assert {hit.segments[0].id for hit in found} == set(film)
    count = index.info()["caption_tokens"]
    first, second, *_ = film
    index.caption({first: None, second: " "})
    assert index.info()["caption_tokens"] == count - 2 * (3 + 2)  # [CLS] a red circle [SEP]
    index.remove(source)
    assert index.info()["caption_tokens"] == 0


def fresh(results, index):
    """The same hits with what the index knows of their segments now."""
    segments = {segment.id: segment for segment in index.segments()}
    return [
        [replace(hit, segments=tuple(segments[segment.id] for segment in hit.segments)) for hit in hits]
        for hits in results
    ]


def test_captions_that_a_killed_writer_left_are_replaced(index, segments, processor, monkeypatch):
    model = ValorModel.from_pretrained(TINY, alignment_groups=["t-av", "a-tv"])
    index = ValorIndex(index.path, model=model, processor=processor)
    captions = {item.segment.id: "a red circle" for item in segments[:3]}

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("modeling_valor.search.lance._segment_table", killed)
        index.caption(captions)
    assert {segment.caption for segment in index.segments()} == {None}  # to be done
    index.caption(captions)
    assert index.info()["caption_tokens"] == 3 * (3 + 2)


def test_captions_of_a_checkpoint_that_compares_none_have_no_tokens(index, segments):
    index.caption({item.segment.id: "a red circle" for item in segments[:3]})
    assert index.info()["caption_tokens"] == 0


def test_metadata_of_files_is_replaced(index, segments):
    odd = {"camera": 'it\'s \\ "東"', "number": 1.5, "of": [True, None, {"a": 1}]}
    metadata = {f"/videos/film {n}.mp4": {"camera": "new", "film": n} for n in range(5)}
    metadata |= {"/videos/film 7.mp4": odd, "/videos/none.mp4": odd}
    expected = [name for name in metadata if name != "/videos/none.mp4"]
    assert index.backend.set_metadata(metadata) == expected
    assert index.backend.set_metadata(metadata) == []
    for segment in index.segments():
        own = next(item.segment for item in segments if item.segment.id == segment.id)
        assert segment.metadata == metadata.get(segment.source, own.metadata)
    hits = index.search(QUERIES[0], top=200, where="json_get_string(metadata, 'camera') = 'new'", join=False)
    assert {hit.source for hit in hits} == set(expected[:5]) and len(hits) == 30
    hits = index.search(QUERIES[0], top=200, where="json_get_float(metadata, 'number') = 1.5", join=False)
    assert {hit.source for hit in hits} == {"/videos/film 7.mp4"}
    assert index.info()["tokens"] == sum(len(item.tokens.modalities) for item in segments)


def test_metadata_of_many_files_is_one_update(index):
    tables = [index.backend._table(name) for name in ("tokens", "segments")]
    before = [table.version for table in tables]
    assert len(index.backend.set_metadata({f"/videos/film {n}.mp4": {"film": n} for n in range(20)})) == 20
    assert [table.version for table in tables] == [version + 1 for version in before]


def test_compaction_keeps_contents_and_frees_space(index):
    for _ in range(3):
        for segment in random_segments(index.model.valor, 6, seed=9):
            index.add_segments([EmbeddedSegment(Segment("/many.mp4", 0, 10, "va"), segment.tokens)])
            index.remove("/many.mp4")
    before, size = index.search(QUERIES, top=5), index.info()["bytes"]
    index.compact()
    assert index.search(QUERIES, top=5) == before
    assert index.info()["bytes"] < size


def test_an_approximate_index_finds_the_same_and_proves_nothing(index, monkeypatch):
    exact = index.search(QUERIES, top=3, join=False)
    monkeypatch.setattr("modeling_valor.search.lance.FLAT_ROWS", 300)
    monkeypatch.setattr("modeling_valor.search.lance.RESIDENT_NUMBERS", 0)
    index.compact()
    assert index.info()["index"] == "IvfRq"
    hits = index.search(QUERIES, top=3, join=False)
    assert [names(row) for row in hits] == [names(row) for row in exact]
    assert not any(hit.proven for row in hits for hit in row)
    again = index.search(QUERIES, top=3, join=False, exact=True)
    assert again == exact


def test_tokens_in_memory_are_those_of_the_index_as_it_is_now(index, segments):
    first = index.search(QUERIES[0], top=1)[0]
    other = ValorIndex(index.path, model=index.model.valor, processor=index.model.processor)
    other.remove(first.source)
    assert first.source not in [hit.source for hit in index.search(QUERIES[0], top=120)]
    other.add_segments([item for item in segments if item.segment.source == first.source])
    assert index.search(QUERIES[0], top=1)[0] == first


def test_embeddings_of_another_width_or_model(index):
    tokens = SegmentTokens("v", np.zeros(1), np.zeros(1), np.ones((1, 8)))
    with pytest.raises(ValueError, match="width 8"):
        index.add_segments([EmbeddedSegment(Segment("/x.mp4", 0, 1, "v"), tokens)])
    tokens = SegmentTokens("v", np.zeros(1), np.zeros(1), np.ones((1, 256)))
    with pytest.raises(ValueError, match="embedded with the weights"):
        index.add_segments([EmbeddedSegment(Segment("/x.mp4", 0, 1, "v", revision="other"), tokens)])
    with pytest.raises(ValueError, match="at least one token"):
        SegmentTokens("", np.zeros(0), np.zeros(0), np.zeros((0, 8)))


def test_files_and_info(index):
    index.add_segments([], [IndexedFile("/videos/film 0.mp4", index.segments()[0].state, "10.0 s", 1800.0, 6)])
    info = index.info()
    assert (info["files"], info["hours"], info["model"]) == (1, 0.5, os.path.abspath(TINY))
    assert json.dumps(info)


def test_threads_that_search_at_once_get_their_own_hits(index):
    expected = {query: index.search(query, top=5) for query in QUERIES}
    with ThreadPoolExecutor(len(QUERIES)) as pool:
        asked = QUERIES * 10
        found = list(pool.map(lambda query: index.search(query, top=5), asked))
    assert all(hits == expected[query] for query, hits in zip(asked, found, strict=True))
