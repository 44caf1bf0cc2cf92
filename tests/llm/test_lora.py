"""Low-rank matrices: what they add, what trains, what is kept and what is refused; and recomputed activations."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from uqabench.errors import InputError

pytest.importorskip("peft")

from uqabench.llm.lora import CONFIG, WEIGHTS, add_lora, load_lora, save_lora

RANK, ALPHA = 3, 6.0
IDS = torch.arange(12)[None]


def logits(lm):
    with torch.no_grad():
        return lm.model(input_ids=IDS).logits


def moved(matrices):
    """The matrices with values of their own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for matrix in matrices:
            matrix.copy_(0.1 * torch.randn(matrix.shape, generator=generator))


def test_they_start_at_nothing_and_alone_train(make_lm):
    lm = make_lm()
    before = logits(lm)
    matrices = add_lora(lm, RANK, ALPHA)
    assert torch.equal(logits(lm), before)
    assert len(matrices) == 2 * 7 * len(lm.layers)  # q, k, v, o, gate, up and down, but not the head
    assert {id(p) for p in lm.model.parameters() if p.requires_grad} == {id(matrix) for matrix in matrices}
    assert all(RANK in matrix.shape and matrix.dtype == torch.float32 for matrix in matrices)


def test_they_add_their_product_to_each_weight(make_lm):
    lm, plain = make_lm(), make_lm()
    moved(add_lora(lm, RANK, ALPHA))
    of = dict(lm.model.named_parameters())
    with torch.no_grad():
        for name, module in plain.model.named_modules():
            if isinstance(module, nn.Linear) and f"{name}.lora_A.default.weight" in of:
                a, b = of[f"{name}.lora_A.default.weight"], of[f"{name}.lora_B.default.weight"]
                module.weight += ALPHA / RANK * b @ a
    assert_close(logits(lm), logits(plain), rtol=1e-3, atol=1e-3)


def test_what_is_saved_is_loaded_and_equal_ones_give_equal_bytes(make_lm, tmp_path):
    lm, other = make_lm(), make_lm()
    moved(add_lora(lm, RANK, ALPHA))
    for name in ("a", "b"):
        save_lora(lm, tmp_path / name)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([CONFIG, WEIGHTS])
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in (CONFIG, WEIGHTS)
    )
    load_lora(other, tmp_path / "a")
    assert torch.equal(logits(other), logits(lm))


@pytest.mark.parametrize("damage", ["tensor", "rank", "bytes"])
def test_what_does_not_fit_is_refused(make_lm, tmp_path, damage):
    folder = tmp_path / "x"
    lm = make_lm()
    add_lora(lm, RANK, ALPHA)
    save_lora(lm, folder)
    if damage == "tensor":
        weights = load_file(folder / WEIGHTS)
        weights.popitem()
        save_file(weights, folder / WEIGHTS)
    elif damage == "rank":
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, "r": RANK + 1}))
    else:
        (folder / WEIGHTS).write_bytes(b"\x10")
    with pytest.raises(InputError, match="does not fit the language model") as error:
        load_lora(make_lm(), folder)
    assert "\n" not in str(error.value)


def test_recomputed_activations_change_no_gradient(make_lm):
    gradients = []
    for recomputes in (False, True):
        lm = make_lm()
        if recomputes:
            lm.recompute_activations()
        lm.model(input_ids=IDS).logits.square().mean().backward()
        gradients.append({name: p.grad for name, p in lm.model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
