# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""VALOR under mteb: its metrics are those of our own evaluation, for everything that a task may compare."""

import math
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from datasets import Audio, Dataset, DatasetDict, Video
from torch.utils.data import DataLoader
from transformers import pipeline


mteb = pytest.importorskip("mteb", reason="the extra `mteb` is not installed", exc_type=ImportError)

from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification  # noqa: E402
from mteb.models.cache_wrappers import CachedEmbeddingWrapper  # noqa: E402
from mteb.types import PromptType  # noqa: E402

from helpers.media_files import render_clips  # noqa: E402
from modeling_valor import ValorModel  # noqa: E402
from modeling_valor.data.readers import load_samples  # noqa: E402
from modeling_valor.data.samples import Sample  # noqa: E402
from modeling_valor.evaluation import MediaOptions, evaluate_retrieval  # noqa: E402
from modeling_valor.integrations.mteb import GROUP_OF_SIDES, ValorEncoder, ranks  # noqa: E402
from modeling_valor.integrations.mteb_tasks import CATEGORIES, COLUMNS, retrieval_task  # noqa: E402


COUNTS = {"num_frames": 2, "num_audio_clips": 1}
QUIET = {"show_progress_bar": False}


pytestmark = pytest.mark.filterwarnings("ignore:The task .* beta")


@pytest.fixture(scope="module")
def folder(converted):
    return str(converted("clip-vision-bert-shared"))


@pytest.fixture(scope="module")
def encoder(folder):
    return ValorEncoder(folder, device="cpu", **COUNTS)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return render_clips(tmp_path_factory.mktemp("clips"))


def run(model, task) -> dict[str, float]:
    results = mteb.evaluate(
        model, [task], cache=None, co2_tracker=False, encode_kwargs={"batch_size": 2, **QUIET}, **QUIET
    )
    (scores,) = next(iter(results.task_results[0].scores.values()))
    return scores


def encode(encoder, columns, features=None, task_type="Any2AnyRetrieval", batch_size=2):
    """What the encoder makes of some columns, as it is called for one side of a task."""
    dataset = Dataset.from_dict(columns)
    for name, feature in (features or {}).items():
        dataset = dataset.cast_column(name, feature)
    metadata = mteb.get_task("MSRVTTT2V").metadata.model_copy(update={"type": task_type, "name": "test"})
    loader = DataLoader(dataset, batch_size=batch_size)
    return encoder.encode(loader, task_metadata=metadata, hf_split="test", hf_subset="default", **QUIET)


# ----------------------------------------------------------------------------- metrics


def metrics_of(scores, right):
    """Hit rates and ndcg@10 of (queries, items), with `right[query]` the places of what is right."""
    found = {"hit_rate_at_1": [], "hit_rate_at_3": [], "ndcg_at_10": []}
    for row, places in zip(scores, right, strict=True):
        ranking = row.argsort(descending=True).tolist()
        gains = [ranking.index(place) + 1 for place in places]
        found["hit_rate_at_1"].append(min(gains) <= 1)
        found["hit_rate_at_3"].append(min(gains) <= 3)
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(places)) + 1))
        found["ndcg_at_10"].append(sum(1 / math.log2(rank + 1) for rank in gains if rank <= 10) / best)
    return {name: sum(values) / len(values) for name, values in found.items()}


@pytest.mark.parametrize("category", ["t2v", "v2t", "t2a", "a2t", "t2va", "va2t", "v2a", "a2v"])
def test_metrics_are_those_of_our_evaluation(encoder, samples, category):
    direction = "-".join(category.replace("va", "av").split("2"))
    group = direction if direction in ("t-v", "t-a", "t-av", "v-a") else "-".join(reversed(direction.split("-")))
    options = {"media": MediaOptions("av", 2, 1), "batch_size": 3}
    evaluation = evaluate_retrieval(encoder.model, encoder.processor, samples, [group], **options)
    found = run(encoder, retrieval_task(samples, category))
    for k in (1, 5, 10):
        assert found[f"hit_rate_at_{k}"] == pytest.approx(evaluation.metrics[f"{direction}/R@{k}"] / 100, abs=1e-5)

    owners = [index for index, sample in enumerate(samples) for _ in sample.captions if "t" in category]
    queries = owners or range(len(samples))
    right = [[index] for index in queries]
    scores = evaluation.similarity[group]
    if group != direction:
        right = [[row for row, owner in enumerate(queries) if owner == index] for index in range(len(samples))]
        scores = scores.T
    for name, value in metrics_of(scores, right).items():
        assert found[name] == pytest.approx(value, abs=1e-5), name


def tokens_of(encoder, sample, side):
    """Tokens of one item and their weights, by the processor and the model alone."""
    model, processor = encoder.model, encoder.processor
    tokens, logits = [], []
    for letter in side:
        if letter == "t":
            embeds = model.get_text_embeds(**processor(text=sample.captions[0], return_tensors="pt"))[0]
        elif letter == "v":
            inputs = processor(videos=sample.video, modalities="v", num_frames=2, return_tensors="pt")
            embeds = model.get_video_embeds(**inputs)[0]
        else:
            embeds = model.get_audio_embeds(**processor(audio=sample.audio, num_audio_clips=1, return_tensors="pt"))[0]
        tokens.append(embeds)
        logits.append(getattr(model, f"{COLUMNS[letter]}_token_weight")(embeds))
    return torch.cat(tokens), torch.cat(logits).softmax(0)


def columns_of(samples, side):
    files = [{"path": sample.video, "bytes": None} for sample in samples]
    columns = {"t": ("text", [sample.captions[0] for sample in samples]), "v": ("video", files), "a": ("audio", files)}
    return dict(columns[letter] for letter in side)


@pytest.mark.parametrize(
    ("first", "second"), [("tv", "a"), ("ta", "v"), ("t", "va"), ("va", "t"), ("a", "v"), ("v", "v"), ("tv", "t")]
)
@torch.no_grad()
def test_scores_are_equation_3_for_any_two_sides(encoder, samples, first, second):
    """Padding of text counts as similarities of 0 in the maxima over a side with text, as in the 2023 checkpoints."""
    encoded = [encode(encoder, columns_of(samples, side)) for side in (first, second)]
    found = encoder.similarity(*encoded)
    for row, query in enumerate(samples):
        for column, item in enumerate(samples):
            (rows, row_weights), (columns, column_weights) = (
                tokens_of(encoder, query, first),
                tokens_of(encoder, item, second),
            )
            best_of_rows, best_of_columns = (rows @ columns.T).amax(1), (rows @ columns.T).amax(0)
            best_of_rows = best_of_rows.clamp(min=0) if "t" in second else best_of_rows
            best_of_columns = best_of_columns.clamp(min=0) if "t" in first else best_of_columns
            expected = (row_weights @ best_of_rows + column_weights @ best_of_columns) / 2
            assert found[row, column].item() == pytest.approx(expected.item(), abs=1e-5)
    pairs = encoder.similarity_pairwise(*encoded)
    torch.testing.assert_close(pairs, found.diagonal(), atol=1e-5, rtol=0)


def test_both_mixed_directions_run_under_mteb(encoder, samples):
    for category in ("vt2a", "at2v"):
        assert 0 < run(encoder, retrieval_task(samples, category))["ndcg_at_10"] <= 1


@pytest.mark.parametrize("direction", ["T2V", "V2T", "T2VA", "VA2T", "A2V", "V2A", "AT2V", "VT2A"])
def test_the_eight_tasks_of_valor_32k_as_mteb_loads_them(encoder, samples, direction, monkeypatch):
    """On our clips, as columns of a dataset with the contents of files, decoded by no one but the processor."""
    contents = [{"bytes": Path(sample.video).read_bytes(), "path": None} for sample in samples]
    texts = [sample.captions[-1] for sample in samples]
    columns = Dataset.from_dict({"video": contents, "audio": contents, "description": texts})
    columns = columns.cast_column("video", Video()).cast_column("audio", Audio())
    monkeypatch.setattr("mteb.tasks.retrieval.eng.valor_32k_retrieval.load_dataset", lambda *args, **kwargs: columns)
    found = run(encoder, mteb.get_task(f"VALOR32K{direction}Retrieval"))
    own = [Sample(sample.id, sample.video, sample.audio, sample.captions[-1:]) for sample in samples]
    expected = run(encoder, retrieval_task(own, direction.lower()))
    for name in ("ndcg_at_10", "hit_rate_at_1", "hit_rate_at_3"):
        assert found[name] == pytest.approx(expected[name])


NAMED = ("VALOR32K", "MSRVTT", "VATEX", "DiDeMo", "ActivityNetCaptions", "MSVD", "AudioCaps", "Clotho")


def test_every_task_of_the_named_benchmarks_is_a_modality_group():
    """All but one, which searches sounds by a text with a sound."""
    tasks = [task.metadata for task in mteb.get_tasks(task_types=["Any2AnyRetrieval"], exclude_beta=False)]
    tasks = [task for task in tasks if task.name.startswith(NAMED) and task.name != "ClothoMomentRetrieval"]
    assert sum(task.name.startswith("VALOR32K") for task in tasks) == 8 and len(tasks) > 40
    for task in tasks:
        sides = tuple(frozenset(task.get_modalities(kind)) for kind in (PromptType.query, PromptType.document))
        assert ranks(task.type) and (sides in GROUP_OF_SIDES or sides[::-1] in GROUP_OF_SIDES), task.name


# ----------------------------------------------------------------------------- what is encoded


def test_an_item_has_the_same_row_in_every_batch(encoder, samples):
    columns = columns_of(samples, "tva")
    together, alone = encode(encoder, columns, batch_size=5), encode(encoder, columns, batch_size=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    width = encoder.model.config.projection_dim + 1
    assert together.shape == (5, (40 + 2 + 1) * width) and together.dtype == torch.float32


def test_columns_may_hold_the_contents_of_files(encoder, samples):
    contents = [{"bytes": Path(sample.video).read_bytes(), "path": None} for sample in samples[:2]]
    expected = encode(encoder, columns_of(samples[:2], "va"))
    found = encode(encoder, {"video": contents, "audio": contents}, {"video": Video(), "audio": Audio()})
    torch.testing.assert_close(found, expected)


def test_rows_of_texts_fit_into_the_cache_of_mteb(encoder, tmp_path):
    cached = CachedEmbeddingWrapper(encoder, tmp_path)
    expected = encode(encoder, {"text": ["a dog barks", "what"]})
    for _ in range(2):
        found = encode(cached, {"text": ["a dog barks", "what"]})
        torch.testing.assert_close(torch.as_tensor(found), expected)


@torch.no_grad()
def test_other_tasks_get_the_weighted_mean_of_the_tokens(encoder, samples):
    found = encode(encoder, columns_of(samples, "va"), task_type="VideoClassification")
    assert found.shape == (5, encoder.model.config.projection_dim)
    for row, sample in zip(found, samples, strict=True):
        tokens, weights = tokens_of(encoder, sample, "va")
        torch.testing.assert_close(row, torch.nn.functional.normalize(weights @ tokens, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.similarity(found, found), found @ found.T)


def test_zero_shot_accuracy_is_that_of_the_pipeline(encoder, samples):
    texts = ["a dog", "a man sings", "the sea"]
    classifier = pipeline(
        "zero-shot-audiovisual-classification", model=encoder.model, processor=encoder.processor, device="cpu"
    )
    files = [sample.video for sample in samples]
    found = [records[0]["label"] for records in classifier(files, candidate_labels=texts, **COUNTS)]
    labels = [index % len(texts) for index in range(len(files))]
    columns = {"video": [{"path": file, "bytes": None} for file in files], "label": labels}
    columns["audio"] = columns["video"]

    class LocalZeroShot(AbsTaskZeroShotClassification):
        metadata = mteb.get_task("UCF101VideoAudioZeroShotClassification").metadata
        input_column_name = ("video", "audio")
        label_column_name = "label"

        def get_candidate_labels(self):
            return texts

        def load_data(self, **kwargs):
            split = Dataset.from_dict(columns).cast_column("video", Video(decode=False))
            self.dataset = DatasetDict(dict.fromkeys(self.metadata.eval_splits, split))
            self.dataset = self.dataset.cast_column("audio", Audio(decode=False))
            self.data_loaded = True

    expected = sum(text == texts[label] for text, label in zip(found, labels, strict=True)) / len(files)
    assert run(encoder, LocalZeroShot())["accuracy"] == pytest.approx(expected)


def test_items_without_sound_are_scored_by_their_frames_and_those_with_nothing_are_last(encoder, clips, caplog):
    files = [clips["both"], clips["silent"]]
    texts = encode(encoder, {"text": ["a dog barks", "a man"]})
    videos = [{"path": file, "bytes": None} for file in files]
    media = encode(encoder, {"video": videos, "audio": videos})
    without = encode(encoder, {"video": videos, "audio": [videos[0], None]})
    scores = encoder.similarity(texts, media)
    torch.testing.assert_close(encoder.similarity(texts, without), scores)
    assert "have no" not in caplog.text
    frames = encoder.similarity(texts, encode(encoder, {"video": videos}))
    torch.testing.assert_close(scores[:, 1], frames[:, 1])
    assert not torch.allclose(scores[:, 0], frames[:, 0])
    sounds = encoder.similarity(texts, encode(encoder, {"audio": videos}))
    assert sounds[0, 0].isfinite() and sounds[0, 1] == -math.inf
    assert "test: 1 of 2 items have no audio. They are ranked last." in caplog.text


def test_columns_and_files_that_cannot_be_used(encoder, clips, tmp_path):
    with pytest.raises(ValueError, match=r"test has the columns image, text; VALOR embeds text, video and audio"):
        encode(encoder, {"image": ["a"], "text": ["a"]})
    with pytest.raises(ValueError, match="Row 1 has no text"):
        encode(encoder, {"id": ["0", "1"], "text": ["a", None]}, batch_size=1)
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    with pytest.raises(ValueError, match=r"Row x cannot be read: .*broken\.mp4"):
        encode(encoder, {"id": ["x"], "video": [{"path": str(broken), "bytes": None}]})


def test_coarse_alignment_has_the_groups_of_text_only(tmp_path, samples, processor):
    model = ValorModel.from_pretrained(processor_folder(tmp_path, processor))
    encoder = ValorEncoder(str(tmp_path), device="cpu", **COUNTS)
    texts, media = (encode(encoder, columns_of(samples, side)) for side in ("t", "va"))
    inputs = [sample.captions[0] for sample in samples], [sample.video for sample in samples]
    with torch.no_grad():
        expected = model.score(
            processor(text=inputs[0], return_tensors="pt"), processor(videos=inputs[1], **COUNTS, return_tensors="pt")
        )
    torch.testing.assert_close(encoder.similarity(texts, media), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.similarity(media, texts), expected.T, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="With coarse alignment, video cannot be compared with audio"):
        encoder.similarity(*(encode(encoder, columns_of(samples, side)) for side in "va"))


def processor_folder(folder, processor):
    """A coarse checkpoint with this processor."""
    config = ValorModel.from_pretrained(processor.tokenizer.name_or_path).config
    config.alignment = "coarse"
    torch.manual_seed(0)
    ValorModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


# ----------------------------------------------------------------------------- what mteb knows of a checkpoint


def test_results_of_other_weights_and_options_are_kept_apart(folder, encoder):
    meta = encoder.mteb_model_meta
    assert meta.name == f"local/{folder.rsplit('/')[-1]}" and len(meta.revision) == 24
    assert meta.n_parameters == sum(parameter.numel() for parameter in encoder.model.parameters())
    assert meta.experiment_kwargs == COUNTS
    other = ValorEncoder(folder, device="cpu", dtype="bfloat16", max_length=12).mteb_model_meta
    assert other.revision == meta.revision and other.experiment_kwargs == {"dtype": "bfloat16", "max_length": 12}


def test_a_checkpoint_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        ValorEncoder(str(tmp_path))


# ----------------------------------------------------------------------------- tasks of one's own


def test_samples_that_lack_a_side_are_left_out_and_counted(caplog):
    samples = [Sample("a", "a.mp4", "a.mp4", ("one", "two")), Sample("b", "b.mp4"), Sample("c", captions=("three",))]
    data = retrieval_task(samples, "t2v").dataset["default"]["test"]
    assert data["queries"]["text"] == ["one", "two"] and len(data["corpus"]) == 1
    assert data["relevant_docs"] == {"0-0": {"0-0": 1}, "0-1": {"0-0": 1}}
    assert "2 of 3 samples have nothing of a side of t2v" in caplog.text
    data = retrieval_task(samples, "vt2a").dataset["default"]["test"]
    assert set(data["queries"].features) == {"id", "video", "text"} and len(data["queries"]) == 2
    names = {retrieval_task(samples, category).metadata.name for category in CATEGORIES}
    assert len(names) == len(CATEGORIES)
    assert retrieval_task(samples[:2], "t2v").metadata.name == retrieval_task(samples, "t2v").metadata.name


def test_categories_that_are_not_accepted():
    with pytest.raises(ValueError, match="category='t2t' was given; t2v, v2t"):
        retrieval_task([], "t2t")
    with pytest.raises(ValueError, match="None of the 0 samples has what t2v compares"):
        retrieval_task([], "t2v")


def run_example(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mteb_valor.py", *arguments])
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "mteb_valor.py"), run_name="__main__")


def test_the_example_prints_a_line_for_each_task(folder, world, encoder, monkeypatch, capsys):
    options = (
        "--model",
        folder,
        "--data",
        str(world),
        "--device",
        "cpu",
        "--num-frames",
        "2",
        "--num-audio-clips",
        "1",
    )
    run_example(monkeypatch, *options, "--categories", "t2va", "a2t")
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["task", "ndcg_at_10", "hit_rate_at_1", "hit_rate_at_5", "hit_rate_at_10"]
    for line, category in ((first, "t2va"), (second, "a2t")):
        expected = run(encoder, retrieval_task(list(load_samples(world)), category, world.name))
        assert f"{world.name}-" in line and f"-{category} (test)" in line
        assert line.split()[2:] == [f"{expected[name]:.4f}" for name in header.split()[1:]]


@pytest.mark.parametrize(
    ("model", "source", "message"),
    [("nowhere/at/all", "--data", "There is no checkpoint"), (None, "--tasks", "'NoSuchTask' not found")],
)
def test_mistakes_in_the_example_are_one_sentence(folder, world, monkeypatch, model, source, message):
    arguments = ("--model", model or folder, source, str(world) if source == "--data" else "NoSuchTask")
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run_example(monkeypatch, *arguments)


def test_the_python_of_the_page_about_mteb_runs(monkeypatch):
    """All but the block that downloads a task."""
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "mteb.md").read_text(encoding="utf-8"), re.DOTALL)
    (own_files,) = [block for block in blocks if "get_tasks" not in block]
    names = {}
    exec(own_files, names)
    assert len(names["tasks"]) == len(CATEGORIES)
