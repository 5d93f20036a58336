# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What is said of a training: before it, in its log, and in the model card."""

import json

import pytest
import torch
from huggingface_hub import ModelCard

from helpers.hub_server import hub_server, take_for_the_hub
from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, Source
from modeling_valor.data.samples import Sample, SampleStream
from modeling_valor.publishing.code import code_files
from modeling_valor.training import ValorForMultitask, ValorTrainer, ValorTrainingArguments
from modeling_valor.training.arguments import ModelArguments
from modeling_valor.training.data import scaled
from modeling_valor.training.initialization import initialize_model
from modeling_valor.training.model_card import MeasuredTask, model_card, write_model_card
from modeling_valor.training.overview import describe_training, describe_weights
from modeling_valor.training.run import public_repo, publish


def build_trainer(folder, sources, model=None, **arguments) -> ValorTrainer:
    processor = small_processor()
    torch.manual_seed(0)
    model = ValorForMultitask(small_config(processor)) if model is None else model
    arguments = {"max_steps": 1, "logging_steps": 1, "save_strategy": "no", "use_cpu": True, **arguments}
    args = ValorTrainingArguments(output_dir=str(folder), report_to="none", **arguments)
    mixture = Mixture(sources, processor, model.config)
    return ValorTrainer(model, args, mixture, processing_class=processor)


def source(task: str, samples=None, batch_size: int = 4, **options) -> Source:
    samples = small_samples(8) if samples is None else samples
    return Source(task, samples, LoadingOptions(task, sampling="center", **options), batch_size=batch_size)


def logged(trainer: ValorTrainer) -> dict[str, float]:
    trainer.train()
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


def test_the_lines_have_the_numbers_of_the_training(tmp_path):
    sources = [source("retrieval", num_frames=3), source("question_answering", batch_size=2, modalities="v")]
    model = ValorForMultitask(small_config(small_processor()))
    frozen = model.valor.vision_model.requires_grad_(False).num_parameters()
    trainer = build_trainer(
        tmp_path, sources, model, max_steps=9, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=3
    )
    lines = describe_training(trainer, sources, {"retrieval": 1234}, "from a test")
    total = sum(parameter.numel() for parameter in model.parameters())
    assert lines == {
        "Model": f"ValorForMultitask, {total:,} parameters: {total - frozen:,} trained, {frozen:,} frozen",
        "Weights": "from a test",
        "Samples": "retrieval, 8 samples (retrieval, video and audio, 3 frames); "
        "question_answering, 8 samples (question answering, video)",
        "Batch": "question_answering: 2 x 2 batches = 4 samples a step; retrieval: 4 x 2 batches = 8 samples a step",
        "Steps": "9, which are 3 epochs of 3",  # 8 / 4 and 8 / 2 batches, two of them a step
        "Learning rate": "5e-05",
        "Measured": "retrieval on 1,234 samples, every 3 steps and at the end",
    }


def test_what_was_loaded_and_what_is_new_is_said(tmp_path):
    processor = small_processor()
    processor.save_pretrained(tmp_path / "before")
    model = ValorForMultitask(small_config(processor))
    state = {name: value for name, value in model.state_dict().items() if "lm_head" not in name}
    model.save_pretrained(tmp_path / "before", state_dict=state)
    args = ModelArguments(model_name_or_path=str(tmp_path / "before"))
    loaded, _, new = initialize_model(args, "captioning")
    head = sum(value.numel() for name, value in loaded.named_parameters() if name.startswith("lm_head"))
    assert describe_weights(args, loaded, new) == f"from before; new, from random values: lm_head ({head:,})"
    args = ModelArguments(config_name=str(tmp_path / "before"))
    loaded, _, new = initialize_model(args, "retrieval")
    assert describe_weights(args, loaded, new) == "all new, from random values"


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_losses_of_the_groups_are_those_of_the_loss(tmp_path, chunk):
    """Eq. 7: 1.5 times the mean of the alignment groups, and the mean of the captioning groups."""
    logs = logged(build_trainer(tmp_path, [source("pretraining")], contrastive_chunk_size=chunk))
    parts = {
        kind: [logs[f"{kind}_loss/{group}"] for group in ("t-v", "t-a", "t-av")]
        for kind in ("alignment", "captioning")
    }
    expected = 1.5 * sum(parts["alignment"]) / 3 + sum(parts["captioning"]) / 3
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert len(set(parts["alignment"])) == 3


@pytest.mark.parametrize(("task", "kind"), [("captioning", "captioning"), ("question_answering", "answer")])
def test_each_task_has_its_own_losses(tmp_path, task, kind):
    logs = logged(build_trainer(tmp_path, [source(task)]))
    losses = {name: value for name, value in logs.items() if "_loss/" in name}
    assert losses and all(name.startswith(f"{kind}_loss/") for name in losses)
    assert logs["loss"] == pytest.approx(sum(losses.values()) / len(losses), rel=1e-5)


def test_a_group_that_no_sample_has_is_not_in_the_log(tmp_path):
    silent = [Sample(sample.id, sample.video, None, sample.captions) for sample in small_samples(8)]
    logs = logged(build_trainer(tmp_path, [source("pretraining", silent)]))
    assert {name.split("/")[1] for name in logs if "_loss/" in name} == {"t-v"}
    # Steps without a sample of the group count 0 and are left out of its mean
    trainer = build_trainer(tmp_path, [source("pretraining", silent)])
    trainer.group_losses["alignment_loss/t-a"] = [torch.tensor(0.0), torch.tensor(4.0), torch.tensor(2.0)]
    trainer.group_losses["captioning_loss/t-a"] = [torch.tensor(0.0)]
    trainer.log(logs := {"loss": 1.0})
    assert logs["alignment_loss/t-a"] == 3.0 and "captioning_loss/t-a" not in logs


def test_a_stream_trains_for_max_steps(tmp_path):
    class Stream(SampleStream):
        def samples(self, partition, partitions, epoch, seed):
            return iter(small_samples(8)[partition::partitions])

    trainer = build_trainer(tmp_path, [source("retrieval", Stream())], max_steps=3)
    assert trainer.train().global_step == 3
    with pytest.raises(ValueError, match="`max_steps`"):
        build_trainer(tmp_path, [source("retrieval", Stream())], max_steps=-1)


def test_captioning_metrics_are_logged_as_the_paper_prints_them():
    evaluation = {"CIDEr": 0.5, "R@1": 50.0}
    assert scaled("captioning", lambda model: {"CIDEr": 0.5})(None) == {"CIDEr": 50.0}
    assert scaled("retrieval", lambda model: evaluation)(None) == evaluation


def test_the_card_of_a_model_is_valid_and_never_written_over_somebody_elses(tmp_path):
    measured = {"retrieval": MeasuredTask("retrieval", "msrvtt", "test", 1000, {"t-av/R@1": 54.4})}
    text = model_card("mine", "ValorForRetrieval", {"Batch": "64 samples a step"}, measured, "owner/valor")
    assert write_model_card(text, tmp_path) and write_model_card(text, tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_name, result.metric_value) == ("msrvtt", "t-av/R@1", 54.4)
    assert card.data.base_model == "owner/valor" and "- Batch: 64 samples a step" in card.text
    (tmp_path / "README.md").write_text("mine")
    assert not write_model_card(text, tmp_path) and (tmp_path / "README.md").read_text() == "mine"


def test_a_published_training_has_its_card_and_the_code(tmp_path, monkeypatch):
    """Also what is uploaded during the training; `Trainer` would write a card of its own, and no code."""
    with hub_server() as hub:
        take_for_the_hub(hub, monkeypatch, tmp_path / "cache")
        trainer = build_trainer(tmp_path / "out", [source("captioning")], push_to_hub=True, hub_model_id="mine")
        assert public_repo(trainer) == "owner/mine"
        publish(trainer, model_card(public_repo(trainer), "ValorForCaptioning", {"Batch": "4 samples"}, {}))
        files = hub.files("owner/mine")
    assert set(code_files()) <= set(files) and "model.safetensors" in files
    assert "auto_map" in json.loads(files["config.json"])
    card = files["README.md"].decode()
    assert "- Batch: 4 samples" in card and 'from_pretrained("owner/mine")' in card
    assert "auto_map" not in (tmp_path / "out" / "config.json").read_text()
