# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import pytest
import torch

from helpers.tiny import PROMPT, tiny_batch, tiny_model
from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor import ValorForCaptioning
from modeling_valor.captioning import step_queries
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, RequestSampler, Source
from modeling_valor.evaluation import caption_metrics
from modeling_valor.training import CiderReward, SelfCriticalTrainer, ValorTrainingArguments


@pytest.mark.parametrize("prompt", [None, PROMPT])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_one_pass_over_a_finished_text_predicts_each_word_as_decoding_did(attention, prompt):
    model = tiny_model(ValorForCaptioning, caption_prompt_ids=prompt)
    model.set_attn_implementation(attention)
    batch = tiny_batch()
    media = {name: batch[name] for name in ("pixel_values_videos", "input_features")}
    torch.manual_seed(0)
    decoded = model.generate(
        **media, do_sample=True, max_new_tokens=6, return_dict_in_generate=True, output_logits=True, top_k=0
    )
    sequences = decoded.sequences
    input_ids, position_ids, attends = step_queries(sequences, 103)
    steps = sequences.shape[1] - 1
    with torch.no_grad():
        logits = model(
            input_ids, attends, **media, captioning_groups=["t-av"], position_ids=position_ids, logits_to_keep=steps
        ).logits
    ended = (sequences[:, 1:] == 102).cumsum(dim=1) - (sequences[:, 1:] == 102).long() > 0
    for step, expected in enumerate(decoded.logits):
        going_on = ~ended[:, step]
        torch.testing.assert_close(logits[going_on, step], expected[going_on], rtol=0, atol=2e-5)


def test_the_reward_is_cider_with_the_rarity_of_the_training_set():
    references = [
        ["a red circle rings", "a bell"],
        ["a blue star", "a star moves up"],
        ["a drum beats and a horn honks"],
    ]
    captions = ["a red bell", "a blue star moves", "a drum beats"]
    rewards = CiderReward(references)(captions, references)
    assert sum(rewards) / 3 == pytest.approx(
        caption_metrics(captions, references, metrics=["CIDEr"])["CIDEr"], abs=1e-9
    )
    # Rarity is that of the corpus, not of the batch
    assert CiderReward(references)(captions[:1], references[:1]) == rewards[:1]


def letters(captions, references):
    """A reward in which any two captions differ."""
    assert len(captions) == len(references)
    return [float(len(set(caption)) - len(caption)) / 8 for caption in captions]


def make_trainer(folder, groups=None, dropout=0.0, **kwargs):
    processor = small_processor()
    config = small_config(processor)
    config.text_config.hidden_dropout_prob = dropout
    torch.manual_seed(0)
    model = ValorForCaptioning(config)
    for parameter in model.parameters():  # weights with which the groups differ
        torch.nn.init.normal_(parameter, std=0.3)
    options = LoadingOptions("captioning", references=True)
    source = Source("a", small_samples(4), options, batch_size=2, captioning_groups=groups)
    defaults = {"max_steps": 2, "use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    return SelfCriticalTrainer(
        model,
        ValorTrainingArguments(str(folder), **{**defaults, **kwargs}),
        train_dataset=Mixture([source], processor, config),
        processing_class=processor,
        reward=letters,
        num_samples=3,
        max_new_tokens=5,
    )


def first_batch(trainer):
    mixture = trainer.train_dataset
    return mixture[next(iter(RequestSampler(mixture.sources, trainer.args.max_steps)))[0]]


def log_probability(model, sequence, media, group):
    """The mean over words of one caption, decoded step by step with the words given."""
    words = sequence[1:].tolist()
    words = words[: words.index(3) + 1] if 3 in words else words
    log_probs = []
    for step, word in enumerate(words):
        text = torch.tensor([[2, *words[:step], 4]])
        logits = model(text, torch.ones_like(text), **media, captioning_groups=[group]).logits
        log_probs.append(logits[0, -1].log_softmax(-1)[word])
    return torch.stack(log_probs).mean()


@pytest.mark.parametrize(("groups", "group"), [(None, "t-av"), (["t-v"], "t-v"), (["t-a"], "t-a")])
def test_the_loss_is_the_advantage_times_the_log_probability(tmp_path, groups, group):
    """Against one sequence at a time, sampled from and scored by the same group."""
    trainer = make_trainer(tmp_path, groups)
    model, batch = trainer.model.eval(), first_batch(trainer)
    torch.manual_seed(3)
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
    torch.manual_seed(3)
    media = {name: batch[name] for name in ("pixel_values_videos", "input_features")}
    options = {"captioning_groups": [group], "num_beams": 1, "max_new_tokens": 5}
    greedy = model.generate(**media, do_sample=False, **options)
    sampled = model.generate(**media, do_sample=True, top_k=0, num_return_sequences=3, **options)
    losses = []
    for row, sequence in enumerate(sampled):
        own = {name: value[row // 3 : row // 3 + 1] for name, value in media.items()}
        reward = trainer.score(sequence[None], [[]]) - trainer.score(greedy[row // 3 : row // 3 + 1], [[]])
        with torch.no_grad():
            losses.append(-reward * log_probability(model, sequence, own, group))
    assert loss.abs() > 0.01
    torch.testing.assert_close(loss, torch.cat(losses).mean(), rtol=1e-4, atol=1e-5)


def test_every_sample_is_compared_with_the_greedy_caption_and_the_captions_of_its_own_clip(tmp_path):
    """Of captions given by hand: the first [SEP] is a word of them, what follows it none, and one has none."""
    trainer = make_trainer(tmp_path)
    model, batch = trainer.model.eval(), first_batch(trainer)
    texts = ["blue", "a blue star moves up", "horn and bell", "drum beats", "red", "square rings while"]
    greedy, sampled = (
        trainer.processing_class.tokenizer(captions, padding=True, return_tensors="pt").input_ids
        for captions in (["a red star", "drum"], texts)
    )
    sampled[1, -1] = sampled[0, 1]
    rewarded = {**dict(zip(texts, (1, 5, 3, 2, 1, 3), strict=True)), "a blue star moves up blue": 6}
    rewarded |= {"a red star": 3, "drum": 1}
    scales = [len(own[0]) / 32 for own in batch["references"]]
    assert scales[0] != scales[1]
    trainer.write = lambda *_, do_sample=False, **__: sampled if do_sample else greedy
    trainer.reward = lambda captions, references: [
        rewarded[caption] * len(own[0]) / 32 for caption, own in zip(captions, references, strict=True)
    ]
    advantages = [1 - 3, 6 - 3, 3 - 3, 2 - 1, 1 - 1, 3 - 1]
    losses = []
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        for row, sequence in enumerate(sampled):
            own = {n: batch[n][row // 3 : row // 3 + 1] for n in ("pixel_values_videos", "input_features")}
            losses.append(-advantages[row] * scales[row // 3] * log_probability(model, sequence, own, "t-av"))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [["t-av", "t-v"], []])
def test_several_groups_are_refused(tmp_path, groups):
    with pytest.raises(ValueError, match="one modality group, but the source 'a' has"):
        make_trainer(tmp_path, groups)


def test_captions_are_written_without_dropout_and_scored_with_it(tmp_path):
    trainer = make_trainer(tmp_path, dropout=0.5)
    model, batch, written = trainer.model.train(), first_batch(trainer), []
    write = trainer.write
    trainer.write = lambda *args, **kwargs: written.append(write(*args, **kwargs)) or written[-1]
    trainer.log_probabilities = lambda model, *args, own=trainer.log_probabilities: (
        written.append(model.training) or own(model, *args)
    )
    trainer.compute_loss(model, dict(batch))
    media = {name: batch[name] for name in ("pixel_values_videos", "input_features")}
    greedy = model.eval().generate(**media, captioning_groups=["t-av"], max_new_tokens=5, num_beams=1)
    assert torch.equal(written[0], greedy) and written[2] is True


def test_training_raises_the_probability_of_what_is_rewarded(tmp_path):
    """One small step along the gradient: captions better than the greedy one gain what worse ones lose."""
    trainer = make_trainer(tmp_path, max_steps=1, optim="sgd", learning_rate=1e-2, lr_scheduler_type="constant")
    batch, written = first_batch(trainer), []
    write = trainer.write
    trainer.write = lambda *args, **kwargs: written.append(write(*args, **kwargs)) or written[-1]

    def gain():
        greedy, sampled = written
        advantages = trainer.score(sampled, [[]] * 6) - trainer.score(greedy, [[]] * 2).repeat_interleave(3)
        media = [
            {name: batch[name][row // 3 : row // 3 + 1] for name in ("pixel_values_videos", "input_features")}
            for row in range(6)
        ]
        with torch.no_grad():
            log_probs = [
                log_probability(model, sequence, own, "t-av") for sequence, own in zip(sampled, media, strict=True)
            ]
        return (advantages * torch.stack(log_probs)).sum()

    model = trainer.model
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer.train()
    after = gain()
    model.load_state_dict(before, strict=False)
    assert after > gain() + 1e-3
    assert [entry["reward"] for entry in trainer.state.log_history if "reward" in entry] or trainer.rewards
