"""Bytes by shape against the tensors that real passes of a small model hold at their peak, and sums done by hand."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from uqabench.llm.footprint import ModelSize
from uqabench.llm.shapes import empty_model
from uqabench.stages.memory import peak_bytes

transformers = pytest.importorskip("transformers")

ROWS, LENGTH, VOCABULARY, ANSWERS, RANK = 4, 48, 601, 8, 4
TOKENS = ROWS * LENGTH


def small_model(strategy, dtype):
    """Four layers whose widths are in the proportions of Qwen2.5's."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config)
    size = ModelSize.of(model)
    model = model if strategy == "full" else model.to(getattr(torch, dtype))
    model.requires_grad_(strategy == "full")
    if strategy == "lora":
        peft = pytest.importorskip("peft")
        settings = peft.LoraConfig(r=RANK, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        peft.inject_adapter_in_model(settings, model)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
    return model, size


def hidden(model):
    """Last hidden states, with a soft token first that has a gradient, as an adapter's has."""
    ids = torch.arange(TOKENS).reshape(ROWS, LENGTH) % VOCABULARY
    embeds = model.get_input_embeddings()(ids)
    soft = torch.randn(ROWS, 1, embeds.shape[-1], generator=torch.Generator().manual_seed(0)).requires_grad_()
    embeds = torch.cat([soft.to(embeds.dtype), embeds[:, 1:]], dim=1)
    mask = torch.full((LENGTH, LENGTH), torch.finfo(torch.float32).min).triu(1).to(embeds.dtype)
    return model.model(
        inputs_embeds=embeds,
        attention_mask=mask.expand(ROWS, 1, -1, -1),
        position_ids=torch.arange(LENGTH).expand(ROWS, -1),
        use_cache=False,
    ).last_hidden_state


def train(model, autocast):
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        logits = model.lm_head(hidden(model).flatten(0, 1)[:: TOKENS // ANSWERS]).float()
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(ANSWERS, dtype=torch.long))
    loss.backward()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("strategy", ["adapter", "lora", "full"])
def test_a_training_pass_holds_what_is_counted(strategy, dtype, recompute):
    model, size = small_model(strategy, dtype)
    if recompute:
        for layer in model.model.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    autocast = strategy == "full" and dtype == "bfloat16"
    train(model, autocast)  # leaves gradients, to which a step's later passes add
    held = peak_bytes(lambda: train(model, autocast), torch.device("cpu"))
    counted = size.aligned(strategy, dtype, TOKENS, ANSWERS, rank=RANK, recompute=recompute)
    assert counted.activations + counted.copies + counted.logits == pytest.approx(held, rel=0.2 if recompute else 0.07)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (counted.gradients, counted.moments) == (4 * trained, 8 * trained)
    assert counted.weights == sum(p.numel() * p.element_size() for p in model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("strategy", ["adapter", "lora"])
def test_a_pass_without_gradients_holds_what_is_counted(strategy, dtype):
    model, size = small_model(strategy, dtype)
    with torch.no_grad():
        held = peak_bytes(lambda: hidden(model), torch.device("cpu"))
    counted = size.asked(dtype, TOKENS, 0, rank=RANK if strategy == "lora" else 0)
    assert counted.activations == pytest.approx(held, rel=0.1)


def test_the_size_of_qwen_2_5_3b():
    """Its card says 3.09 billion parameters, 2.77 without embeddings; the products leave out biases and norms."""
    size = ModelSize.of(empty_model("Qwen/Qwen2.5-3B-Instruct"))
    layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11_008
    assert size.shape.matrices == 36 * layer
    biases_and_norms = 36 * (2048 + 2 * 256 + 2 * 2048) + 2048
    assert size.parameters == 151_936 * 2048 + 36 * layer + biases_and_norms == 3_085_938_688
    frozen = size.aligned("adapter", "bfloat16", 16_384, 123)
    assert frozen.weights == 6_171_877_376 and frozen.gradients == frozen.copies == 0
    # A layer keeps of a token: 8 x 2048 of norms, 8 x 2048 of attention, 6 x 11,008 of the MLP, and 72 of sums.
    assert frozen.activations == 16_384 * (36 * 98_888 + 2 * (3 * 11_008 + 2 * 2048) + 4 * 2048)
    trained = size.aligned("full", "bfloat16", 16_384, 123)
    assert trained.weights + trained.gradients + trained.moments == 16 * size.parameters
