# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Two processes train as one process with the joined batch would: the same loss, the same gradient of every parameter.

And ValorTrainer on two ranks: what one of them meets, both of them act on.
"""

import json
import math
import os
import signal
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from helpers.tiny import CLS, MASK, tiny_batch, tiny_config
from helpers.training_step import assert_step_is_that_of_hand, train
from helpers.training_world import small_config, small_processor, small_samples
from helpers.warm import start_ranks_in
from modeling_valor import ValorForCaptioning, ValorForPreTraining, ValorForQuestionAnswering, ValorForRetrieval
from modeling_valor.captioning import IGNORE_INDEX
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, Source
from modeling_valor.training import ValorTrainer, ValorTrainingArguments, gradient_cached_step
from modeling_valor.training.gradient_cache import SCORING


SIZE = 6
CASES = {
    "retrieval": ValorForRetrieval,
    "no sound on one rank": ValorForRetrieval,
    "no sound on any rank": ValorForRetrieval,
    "coarse, no sound on one rank": ValorForRetrieval,
    "coarse scores, no sound on one rank": ValorForRetrieval,
    "captions": ValorForCaptioning,
    "captions, no sound on one rank": ValorForCaptioning,
    "captions, no sound on any rank": ValorForCaptioning,
    "several answers": ValorForQuestionAnswering,
    "both tasks, no sound on one rank": ValorForPreTraining,
    "both tasks, no sound on any rank": ValorForPreTraining,
    "reentrant checkpoints of both tasks": ValorForPreTraining,
    "chunks": ValorForRetrieval,
    "chunks of frozen encoders": ValorForRetrieval,
    "unequal batches": ValorForRetrieval,
    "chunks of unequal batches, no sound on one rank": ValorForRetrieval,
    "chunks of both tasks": ValorForPreTraining,
    "chunks of both tasks, no sound on one rank": ValorForPreTraining,
}

OPTIONS = {
    "coarse, no sound on one rank": {"alignment": "coarse"},
    "coarse scores, no sound on one rank": {"alignment": "coarse", "audiovisual_fusion": "score"},
}
TRAINER_CASES = [("Trainer", "pretraining"), ("Trainer", "question_answering"), ("ValorTrainer", "captioning")]


def model_of(case):
    torch.manual_seed(0)
    model = CASES[case](tiny_config(**OPTIONS.get(case, {}))).double().train()
    if case == "chunks of frozen encoders":
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.removeprefix("valor.").startswith(SCORING)
    if case.startswith("reentrant"):
        model.activation_checkpointing_enable({"use_reentrant": True})
    return model


def joined_batch(case):
    """Rank 0 has samples 0 to 2 (of unequal batches 0 to 3), rank 1 the others. Where words are predicted, the ranks have different numbers of them."""
    inputs = {name: v.double() if v.is_floating_point() else v for name, v in tiny_batch(SIZE).items()}
    if "no sound on one rank" in case:
        inputs["audio_mask"] = torch.tensor([[True, True], [True, False], [False, False]] + 3 * [[False, False]])
    if "no sound on any rank" in case:
        inputs["audio_mask"] = torch.zeros(SIZE, 2, dtype=torch.bool)
    if CASES[case] is not ValorForRetrieval:
        asked = (inputs["attention_mask"] == 1) & (inputs["input_ids"] != CLS)
        asked[4, 2:] = asked[5, 3:] = False
        masked, labels = (
            inputs["input_ids"].masked_fill(asked, MASK),
            inputs["input_ids"].masked_fill(~asked, IGNORE_INDEX),
        )
        inputs["labels"] = labels
        if CASES[case] is ValorForPreTraining:
            inputs |= {"decoder_input_ids": masked, "decoder_attention_mask": inputs["attention_mask"]}
        else:
            inputs["input_ids"] = masked
    if case == "several answers":
        inputs["question_input_ids"] = tiny_batch(SIZE, seed=1)["input_ids"]
        inputs["answer_weights"] = torch.tensor([1.0, 0.75, 0.25, 0.5, 0.25, 0.25])
    return inputs


def loss_and_gradients(case, model, inputs):
    if case.startswith("chunks"):
        loss = gradient_cached_step(
            lambda **chunk: model(**chunk),
            getattr(model, "module", model),
            inputs,
            2,
            lambda loss, **kwargs: loss.backward(**kwargs),
            defer_sync=getattr(model, "no_sync", torch.enable_grad),
        )
    else:
        loss = model(**inputs).loss
        loss.backward()
    # Parameters that take no part have no gradient, or a zero one
    parameters = getattr(model, "module", model).named_parameters()
    return {"loss": loss.detach()} | {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters}


def own_scores(rank):
    """Retrieval in evaluation mode: rank 0 has one batch of three samples, rank 1 one of two and one of one."""
    model, inputs = model_of("retrieval").eval(), joined_batch("retrieval")
    outputs = []
    with torch.no_grad():
        for samples in ([slice(0, 3)], [slice(3, 5), slice(5, 6)])[rank]:
            output = model(**{name: value[samples] for name, value in inputs.items()})
            outputs.append({"loss": output.loss, **output.similarity})
    return outputs


def train_on_rank(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    # With the number of ranks on this machine, as torchrun gives it, accelerate shares the cores among them
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    for case in CASES:
        first = 4 if "unequal" in case else 3
        own = {name: value[first:] if rank else value[:first] for name, value in joined_batch(case).items()}
        model = DistributedDataParallel(model_of(case), find_unused_parameters=True)
        torch.save(loss_and_gradients(case, model, own), folder / f"{case} {rank}.pt")
    torch.save(own_scores(rank), folder / f"scores {rank}.pt")
    for trainer, task in TRAINER_CASES:
        torch.save(train(trainer, task, folder, 2), folder / f"{trainer} {task} {rank}.pt")
    train_with_trainer(rank, folder)
    dist.destroy_process_group()


class OneRankTrainer(ValorTrainer):
    """Whose second batch on rank 1 has no finite loss, and whose fourth one meets SIGTERM there."""

    def compute_loss(self, model, inputs, **kwargs):
        step = len(self.losses)
        if self.args.process_index == 1 and step == 1:
            inputs["input_features"] = inputs["input_features"] * math.nan
        if self.args.process_index == 1 and step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        loss = super().compute_loss(model, inputs, **kwargs)
        self.losses.append(loss.item())
        return loss


def train_with_trainer(rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    processor = small_processor()
    config = small_config(processor)
    torch.manual_seed(0)
    sources = [Source(name, small_samples(16), LoadingOptions("captioning"), batch_size=2) for name in "ab"]
    options = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_steps": 2}
    trainer = OneRankTrainer(
        ValorForCaptioning(config),
        ValorTrainingArguments(str(folder / "trainer"), max_steps=8, **options),
        Mixture(sources, processor, config),
        processing_class=processor,
    )
    trainer.losses = []
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    report = {"losses": trainer.losses, "history": trainer.state.log_history, "status": stopped.value.code}
    report["finite"] = all(parameter.isfinite().all().item() for parameter in trainer.model.parameters())
    (folder / f"trainer {rank}.json").write_text(json.dumps(report))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    start_ranks_in(folder, train_on_rank, 2)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_gradients_of_one(trained, case):
    """The mean of the ranks' losses is the loss; a contrastive loss is the same on every rank."""
    expected = loss_and_gradients(case, model_of(case), joined_batch(case))
    ranks = [torch.load(trained / f"{case} {rank}.pt") for rank in range(2)]
    torch.testing.assert_close((ranks[0]["loss"] + ranks[1]["loss"]) / 2, expected["loss"], rtol=0, atol=1e-6)
    if CASES[case] is ValorForRetrieval:
        torch.testing.assert_close(ranks[0]["loss"], expected["loss"], rtol=0, atol=1e-6)
    for rank in ranks:
        assert rank.keys() == expected.keys()
        for name in expected.keys() - {"loss"}:
            torch.testing.assert_close(
                rank[name], expected[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_scores_its_own_samples_in_evaluation(trained, rank):
    actual, expected = torch.load(trained / f"scores {rank}.pt"), own_scores(rank)
    assert [len(output["t-av"]) for output in actual] == [[3], [2, 1]][rank]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("trainer", "task"), TRAINER_CASES)
def test_trainers_on_two_processes_learn_the_mean_of_their_joined_batches(trainer, task, trained):
    ranks = [torch.load(trained / f"{trainer} {task} {rank}.pt") for rank in range(2)]
    assert_step_is_that_of_hand(trainer, task, ranks, 2)


def test_the_logged_loss_of_a_source_is_that_of_all_ranks_and_one_rank_leaves_out_or_ends_a_step_for_both(trained):
    ranks = [json.loads((trained / f"trainer {rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["history"] == ranks[1]["history"]
    assert [rank["status"] for rank in ranks] == [143, 143] and all(rank["finite"] for rank in ranks)
    history = ranks[0]["history"]
    assert [entry["step"] for entry in history] == [1, 2, 3, 4] and history[1]["nonfinite_steps"] == 1
    for step in (0, 2, 3):
        own = [rank["losses"][step] for rank in ranks]
        (logged,) = [value for name, value in history[step].items() if name.startswith("loss/")]
        assert own[0] != own[1] and logged == pytest.approx(sum(own) / 2, abs=1e-5)
        assert "nonfinite_steps" not in history[step]
    # After the second step, which was left out, nothing was saved
    assert {folder.name for folder in (trained / "trainer").glob("checkpoint-*")} == {"checkpoint-4"}
