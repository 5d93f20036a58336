# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import pytest
import torch

from helpers.tiny import MIXED, tiny_batch, tiny_config
from modeling_valor import ValorForPreTraining, ValorForRetrieval
from modeling_valor.captioning import mask_tokens
from modeling_valor.training import gradient_cached_step
from modeling_valor.training.gradient_cache import SCORING


def batch(size: int, mixed: bool, captions: bool):
    inputs = tiny_batch(size)
    if mixed:
        inputs.update({name: mask.repeat(size // 3, 1) for name, mask in MIXED.items()})
    if captions:
        generator = torch.Generator().manual_seed(5)
        masked, labels = mask_tokens(inputs["input_ids"], inputs["attention_mask"], 103, 200, 0.6, generator)
        inputs.update(decoder_input_ids=masked, decoder_attention_mask=inputs["attention_mask"], labels=labels)
    return inputs


def double(inputs):
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{}, {"alignment": "coarse"}, {"audiovisual_fusion": "score"}])
@pytest.mark.parametrize(
    ("cls", "chunk_size"), [(ValorForRetrieval, 2), (ValorForRetrieval, 6), (ValorForPreTraining, 4)]
)
def test_chunks_give_the_loss_and_gradients_of_the_whole_batch(cls, chunk_size, options):
    """Also of a batch in which some samples lack frames or sound, and whose last chunk is smaller."""
    torch.manual_seed(0)
    model = cls(tiny_config(**options)).double().train()
    captions = cls is ValorForPreTraining
    for mixed in (False, True):
        inputs = double(batch(6, mixed, captions))
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        expected = gradients(model)
        model.zero_grad()
        cached = gradient_cached_step(
            lambda **chunk: model(**chunk), model, inputs, chunk_size, lambda loss, **kwargs: loss.backward(**kwargs)
        )
        torch.testing.assert_close(cached, loss.detach(), rtol=1e-6, atol=1e-6)
        actual = gradients(model)
        assert actual.keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(
                actual[name], grad, rtol=1e-6, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}"
            )


def loss_and_gradients(model, inputs, chunk_size=None):
    model.zero_grad()
    if chunk_size is None:
        loss = model(**inputs).loss
        loss.backward()
    else:
        loss = gradient_cached_step(
            lambda **chunk: model(**chunk), model, inputs, chunk_size, lambda loss, **kwargs: loss.backward(**kwargs)
        )
    return loss.detach(), gradients(model)


def only_encoders(name):
    return not name.startswith(SCORING)


@pytest.mark.parametrize(
    ("trained", "options"),
    [
        (only_encoders, {}),
        (lambda name: not only_encoders(name), {}),
        (lambda name: "video" not in name and "vision" not in name, {}),
        (lambda name: True, {"alignment_groups": ["t-v"]}),
    ],
    ids=["frozen scores", "frozen encoders", "frozen vision", "a modality in no group"],
)
@pytest.mark.parametrize("cls", [ValorForRetrieval, ValorForPreTraining])
def test_frozen_layers_change_no_other_gradient(cls, trained, options):
    torch.manual_seed(0)
    model = cls(tiny_config()).double().train()
    inputs = {**double(batch(6, True, cls is ValorForPreTraining)), **options}
    for name, parameter in model.named_parameters():
        parameter.requires_grad = trained(name.removeprefix("valor."))
    loss, expected = loss_and_gradients(model, inputs)
    cached, actual = loss_and_gradients(model, inputs, 2)
    torch.testing.assert_close(cached, loss, rtol=1e-6, atol=1e-6)
    for name, grad in expected.items():
        torch.testing.assert_close(actual.get(name, torch.zeros_like(grad)), grad, rtol=1e-6, atol=1e-8)
    assert all(not grad.any() for name, grad in actual.items() if name not in expected)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "audiovisual_projection"]])
def test_adapters_have_the_gradients_of_the_whole_batch(targets):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False, modules_to_save=["text_token_weight"])
    model = peft.get_peft_model(ValorForRetrieval(tiny_config()), lora).double().train()
    inputs = double(batch(4, False, False))
    loss, expected = loss_and_gradients(model, inputs)
    cached, actual = loss_and_gradients(model, inputs, 2)
    torch.testing.assert_close(cached, loss, rtol=1e-6, atol=1e-6)
    assert actual.keys() == expected.keys() and any("lora_" in name for name in actual)
    for name, grad in expected.items():
        torch.testing.assert_close(actual[name], grad, rtol=1e-6, atol=1e-8)


def test_dropout_is_the_same_in_both_passes():
    """Finite differences: the gradient is that of the loss that was returned, with its dropout."""
    torch.manual_seed(0)
    text = {**tiny_config().text_config.to_dict(), "hidden_dropout_prob": 0.3}
    model = ValorForRetrieval(tiny_config(text_config=text)).double().train()
    inputs = double(batch(4, False, False))

    def step():
        torch.manual_seed(1)
        model.zero_grad()
        return gradient_cached_step(
            lambda **chunk: model(**chunk), model, inputs, 2, lambda loss, **kwargs: loss.backward(**kwargs)
        )

    parameter = model.valor.text_model.layers[0].mlp.fc1.weight
    step()
    direction = parameter.grad / parameter.grad.norm()
    slope = parameter.grad.norm()
    losses = []
    for distance in (1e-4, -1e-4):
        parameter.data += distance * direction
        losses.append(step())
        parameter.data -= distance * direction
    above, below = losses
    torch.testing.assert_close((above - below) / 2e-4, slope, rtol=1e-4, atol=1e-8)


def test_only_a_chunk_of_activations_is_kept():
    """The forward passes with gradients see one chunk each."""
    model = ValorForRetrieval(tiny_config()).train()
    sizes = []

    def forward(**chunk):
        sizes.append(len(chunk["input_ids"]))
        return model(**chunk)

    gradient_cached_step(forward, model, batch(6, False, False), 4, lambda loss, **kwargs: loss.backward(**kwargs))
    assert sizes == [4, 2]
