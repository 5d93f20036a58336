# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import pytest
import torch

from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor.captioning import IGNORE_INDEX
from modeling_valor.data.collation import ValorCollator
from modeling_valor.data.loading import LoadingOptions, load_sample
from modeling_valor.data.samples import Question, Sample
from modeling_valor.media import MediaError
from modeling_valor.training.vocabulary import train_tokenizer
from modeling_valor.world import describe, sample_scene


CLS, SEP, MASK = 2, 3, 4


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture(scope="module")
def collate(processor):
    return ValorCollator(processor, small_config(processor))


def load(processor, options, count=4, seed=0):
    return [load_sample(sample, processor, options, seed + index) for index, sample in enumerate(small_samples(count))]


def test_pretraining_has_the_text_and_the_same_text_masked(processor, collate):
    options = LoadingOptions("pretraining")
    batch = collate(load(processor, options), options, seed=1)
    ids, masked, labels = batch["input_ids"], batch["decoder_input_ids"], batch["labels"]
    chosen = labels != IGNORE_INDEX
    assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(masked[~chosen], ids[~chosen])
    assert chosen.any(dim=1).all() and not chosen[:, 0].any() and not chosen[~batch["attention_mask"].bool()].any()
    assert batch["pixel_values_videos"].shape == (4, 2, 3, 16, 16) and batch["input_features"].shape == (4, 1, 64, 512)
    again, other = (collate(load(processor, options), options, seed=seed) for seed in (1, 2))
    assert torch.equal(again["decoder_input_ids"], masked) and not torch.equal(other["labels"], labels)


def test_captioning_takes_several_captions_of_a_clip_in_consecutive_rows(processor, collate):
    options = LoadingOptions("captioning", captions_per_sample=2)
    loaded = load(processor, options)
    assert sorted(loaded[0].captions) == sorted(small_samples(1)[0].captions)
    batch = collate(loaded, options, seed=0)
    assert batch["input_ids"].shape == batch["labels"].shape and len(batch["labels"]) == 8
    restored = torch.where(batch["labels"] == IGNORE_INDEX, batch["input_ids"], batch["labels"])
    assert processor.post_process_generation(restored) == [text for sample in loaded for text in sample.captions]


def test_answers_are_masked_whole(processor, collate):
    options = LoadingOptions("question_answering", questions_per_sample=2)
    loaded = load(processor, options)
    batch = collate(loaded, options, seed=0)
    answers = processor(text=[answer for sample in loaded for answer in sample.answers], return_tensors="pt")
    real = answers["attention_mask"].bool()
    real[:, 0] = False
    assert torch.equal(batch["input_ids"], answers["input_ids"].masked_fill(real, MASK))
    assert torch.equal(batch["labels"], answers["input_ids"].masked_fill(~real, IGNORE_INDEX))
    assert len(batch["question_input_ids"]) == 8 and (batch["question_input_ids"][:, 0] == CLS).all()


def test_the_causal_objective_predicts_the_next_word(processor):
    collate = ValorCollator(processor, small_config(processor, captioning_objective="causal"))
    options = LoadingOptions("captioning")
    batch = collate(load(processor, options), options, seed=0)
    length = batch["attention_mask"].sum(dim=1)
    for ids, labels, end in zip(batch["input_ids"], batch["labels"], length.tolist(), strict=True):
        assert torch.equal(labels[: end - 1], ids[1:end]) and (labels[end - 1 :] == IGNORE_INDEX).all()


def test_missing_modalities_are_masked_in_the_batch(processor, collate):
    full, silent, blind = small_samples(3)
    samples = [
        full,
        Sample("silent", silent.video, None, silent.captions),
        Sample("blind", None, blind.audio, blind.captions),
    ]
    options = LoadingOptions("retrieval")
    batch = collate([load_sample(sample, processor, options, 0) for sample in samples], options, seed=0)
    assert batch["audio_mask"].tolist() == [[True], [False], [True]]
    assert batch["frame_mask"].tolist() == [[True, True], [True, True], [False, False]]


def test_a_batch_may_be_completed_with_masked_modalities_for_the_sake_of_other_ranks(processor, collate):
    options = LoadingOptions("retrieval")
    samples = [Sample(sample.id, sample.video, None, sample.captions) for sample in small_samples(2)]
    loaded = [load_sample(sample, processor, options, 0) for sample in samples]
    assert "input_features" not in collate(loaded, options, seed=0)
    batch = collate(loaded, options, seed=0, complete=True)
    assert batch["input_features"].shape == (2, 1, 64, 512) and not batch["audio_mask"].any()
    assert "frame_mask" not in batch


def test_answers_are_drawn_as_often_as_annotators_gave_them(processor):
    sample = Sample("q", small_samples(1)[0].video, None, (), (Question("a bell ?", ("red", "red", "red", "blue")),))
    options = LoadingOptions("question_answering", modalities="v")
    drawn = [load_sample(sample, processor, options, seed).answers[0] for seed in range(400)]
    assert abs(drawn.count("red") / 400 - 0.75) < 0.08  # four standard deviations


def test_a_sample_without_what_the_task_needs_is_a_broken_one(processor):
    frames = small_samples(1)[0].video
    for sample, options, message in (
        (Sample("mute", frames), LoadingOptions("captioning"), "mute has no caption"),
        (Sample("mute", frames, None, ("a",)), LoadingOptions("question_answering"), "mute has no question"),
        (Sample("empty", None, None, ("a",)), LoadingOptions("retrieval"), "empty"),
    ):
        with pytest.raises(MediaError, match=message):
            load_sample(sample, processor, options, 0)


def test_a_vocabulary_depends_on_its_texts_alone():
    texts = [caption for index in range(60) for caption in describe(sample_scene("train", index, seed=0))]
    one, other = train_tokenizer(texts, vocab_size=200), train_tokenizer(iter(reversed(texts)), vocab_size=200)
    assert one.get_vocab() == other.get_vocab()
    assert len(one) == 200


def test_a_vocabulary_of_ones_own_starts_with_the_special_tokens():
    tokenizer = train_tokenizer(["A bell rings", "a drum beats", "bells ring"], vocab_size=60)
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = tokenizer("A bell beats")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[1:-1] == ["a", "bell", "beats"]
    with pytest.raises(ValueError, match="must be above 5"):
        train_tokenizer(["a"], 5)
