# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Contrastive learning over ranks: two and three gloo processes against one process with the joined batch."""

import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from helpers.warm import start_ranks
from modeling_valor import alignment_blocks, alignment_ranks
from modeling_valor.alignment import (
    GROUPS,
    TokenSet,
    contrastive_losses,
    grouped_similarity,
    mean_of_groups,
    similarity_over_ranks,
)
from modeling_valor.alignment_ranks import RankSamples, gather_tokens


MODALITIES = ("text", "video", "audio")
LENGTHS = {"text": 5, "video": 3, "audio": 2}
SPLITS = {2: (5, 2), 3: (1, 4, 2)}  # number of ranks -> samples of each
SPLITS_WITH_AN_EMPTY_RANK = {2: (7, 0), 3: (3, 0, 4)}
# Sample 2 is silent, 3 and 5 have no frames, 5 has no sound either, 6 has no text
MASKS = {
    "text": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1] * 5, [0] * 5],
    "video": [[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]],
    "audio": [[1, 1], [0, 1], [0, 0], [1, 0], [1, 1], [0, 0], [1, 0]],
}
CASES = {
    "all groups": {},
    "one group": {"groups": ["t-a"]},
    "groups without text": {"groups": ["v-a"]},
    "score fusion": {"fusion": "score"},
    "uniform weights": {"uniform_audiovisual": True},
    "nothing masked": {"masked": ()},
    "no sound anywhere": {"masked": ("text", "audio"), "silent": range(7)},
    "no sound on the last rank": {"silent": range(5, 7)},
    "no samples on a rank": {},
}


class Embedder(torch.nn.Module):
    """Parameters before the comparison (projections, token weights) and after it (temperature), like the model's."""

    def __init__(self, groups=tuple(GROUPS), masked=MODALITIES, silent=(), **options):
        super().__init__()
        torch.manual_seed(0)
        self.projections = torch.nn.ModuleDict({name: torch.nn.Linear(6, 8) for name in MODALITIES})
        self.weights = torch.nn.ModuleDict({name: torch.nn.Linear(8, 1) for name in MODALITIES})
        self.logit_scale = torch.nn.Parameter(torch.tensor(1.0))
        self.groups, self.options = groups, options
        self.double()

    def tokens(self, inputs, masks):
        sets = {}
        for name in MODALITIES:
            embeds = F.normalize(self.projections[name](inputs[name]), dim=-1)
            logits = self.weights[name](embeds).squeeze(-1)
            sets[name] = TokenSet(embeds, masks[name], logits, zero_padding=name == "text")
        return sets

    def forward(self, inputs, masks):
        similarity, samples = similarity_over_ranks(**self.tokens(inputs, masks), groups=self.groups, **self.options)
        losses, present = contrastive_losses(similarity, self.logit_scale, samples)
        return mean_of_groups(list(losses.values()), present)

    def reference(self, inputs, masks):
        """The mean of the cross-entropies of each group's complete pairs, from the whole score matrix."""
        losses = []
        for scores in grouped_similarity(**self.tokens(inputs, masks), groups=self.groups, **self.options).values():
            kept = scores.diagonal() != -torch.inf
            logits = scores[kept][:, kept] * self.logit_scale.exp()
            if kept.any():
                targets = torch.arange(len(logits))
                losses.append((F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2)
        return torch.stack(losses).mean()


def joined_batch(masked=MODALITIES, silent=(), **options):
    generator = torch.Generator().manual_seed(7)
    inputs = {
        name: torch.randn(7, length, 6, generator=generator, dtype=torch.float64) for name, length in LENGTHS.items()
    }
    masks = {name: torch.tensor(MASKS[name]).bool() if name in masked else None for name in MODALITIES}
    for sample in silent:
        masks["audio"][sample] = False
    return inputs, masks


def own_batch(inputs, masks, samples):
    """A rank's samples, cut to their own lengths, without a mask where nothing is padded."""
    own_inputs, own_masks = {}, {}
    for name, mask in masks.items():
        own_inputs[name], own_masks[name] = inputs[name][samples], None if mask is None else mask[samples]
        if mask is not None:
            length = max([1, *(row.nonzero().max().item() + 1 for row in mask[samples] if row.any())])
            own_inputs[name], mask = own_inputs[name][:, :length], mask[samples, :length]
            own_masks[name] = None if mask.all() else mask
    return own_inputs, own_masks


def loss_and_gradients(model, loss):
    loss.backward()
    return {"loss": loss.detach()} | {
        name.removeprefix("module."): torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }


def own_samples(rank, world_size, splits=SPLITS):
    counts = splits[world_size]
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


def train_on_rank(rank, world_size, port, folder):
    """One process group for all cases."""
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
    )
    try:
        torch.save(results_of_rank(rank, world_size), folder / f"{world_size} {rank}.pt")
    finally:
        dist.destroy_process_group()


def results_of_rank(rank, world_size):
    results = {}
    for case, options in CASES.items():
        model = DistributedDataParallel(Embedder(**options), find_unused_parameters=True)
        splits = SPLITS_WITH_AN_EMPTY_RANK if case == "no samples on a rank" else SPLITS
        own = own_batch(*joined_batch(**options), own_samples(rank, world_size, splits))
        results[case] = loss_and_gradients(model, model(*own))
    with pytest.raises(ValueError, match=r"different modalities: \[\[True, False\], \[True, True\]"):
        gather_tokens({"text": set_of_zeros(), "video": set_of_zeros() if rank else None}, ["text"])
    return results | {"exchanged": exchanged(rank, world_size)}


def set_of_zeros():
    return TokenSet(torch.zeros(1, 1, 2))


def exchanged(rank, world_size):
    """The number of token similarities that a rank computes, and the tensors that it sends, without masks."""
    products, sent = [], []
    similarities, all_gather = alignment_blocks._Block.similarities, alignment_ranks._all_gather

    def counted(block):
        products.append(similarities(block).numel())
        return similarities(block)

    def recorded(tensor):
        sent.append(tuple(tensor.shape))
        return all_gather(tensor)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment_blocks._Block, "similarities", counted)
        patch.setattr(alignment_ranks, "_all_gather", recorded)
        Embedder(groups=["t-v", "t-a", "t-av"])(*own_batch(*joined_batch(masked=()), own_samples(rank, world_size)))
    return sum(products), sent


def run_on_rank(rank, ports, folder):
    """One process is a rank of three, and then of two."""
    torch.set_num_threads(1)
    train_on_rank(rank, 3, ports[0], folder)
    if rank < 2:
        train_on_rank(rank, 2, ports[1], folder)


def run_on_next_rank(index, ports, folder):
    run_on_rank(index + 1, ports, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What each rank computed; this process is rank 0."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    others = start_ranks(run_on_next_rank, (ports, folder), 2, join=False)
    try:
        run_on_rank(0, ports, folder)
        while not others.join():
            pass
    finally:
        for process in others.processes:
            process.kill()
    return {
        world_size: [torch.load(folder / f"{world_size} {rank}.pt") for rank in range(world_size)]
        for world_size in SPLITS
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("world_size", SPLITS)
def test_ranks_have_the_loss_and_gradients_of_one_process(trained, world_size, case):
    """Also where they have different numbers of samples and tokens, and samples lack modalities."""
    model = Embedder(**CASES[case])
    expected = loss_and_gradients(model, model.reference(*joined_batch(**CASES[case])))
    for rank in trained[world_size]:
        assert rank[case].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(rank[case][name], value, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("world_size", SPLITS)
def test_a_rank_compares_its_own_texts_only_and_sends_no_text(trained, world_size):
    largest = max(SPLITS[world_size])
    for rank, own in zip(trained[world_size], SPLITS[world_size], strict=True):
        products, sent = rank["exchanged"]
        assert products == own * 5 * 7 * (3 + 2)
        sizes, pairs, sums = (3, 3), (largest, 3), (3, 1 + 7)
        media = {(largest, 3, 8), (largest, 3), (largest, 2, 8), (largest, 2)}
        assert sent[0] == sizes and set(sent[1:-2]) == media and sent[-2:] == [pairs, sums]


@pytest.mark.parametrize("case", CASES)
def test_one_process_has_the_loss_and_gradients_of_the_cross_entropies(case):
    batch = joined_batch(**CASES[case])
    actual, expected = Embedder(**CASES[case]), Embedder(**CASES[case])
    torch.testing.assert_close(
        loss_and_gradients(actual, actual(*batch)), loss_and_gradients(expected, expected.reference(*batch))
    )


def test_gathering_without_distributed_training_returns_its_arguments():
    text = set_of_zeros()
    gathered, samples = gather_tokens({"text": text, "video": None}, ["text"])
    assert gathered == {"text": text} and samples == RankSamples((1,))
    tensor = torch.zeros(1, 3)
    assert samples.join(tensor).data_ptr() == tensor.data_ptr()
