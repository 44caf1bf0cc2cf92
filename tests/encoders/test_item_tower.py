"""The item tower against a loop over items, and the user encoder around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from uqabench.data.catalogue import Catalogue
from uqabench.encoders import INPUTS, ItemTower, UserEncoder, UserEncoderConfig
from uqabench.errors import InputError

ITEMS = torch.tensor([3, 1, 3, 0, 8, 2, 6, 6, 3])
EXPECTED_PARTS = {
    "full": ("id:category", "id:brand", "id:seller", "text:title", "text:category", "text:brand", "text:seller"),
    "without-text": ("id:category", "id:brand", "id:seller"),
    "without-side": (),
}


def embed_one(tower: ItemTower, catalogue: Catalogue, item: int) -> torch.Tensor:
    parts = [tower.item_table.weight[item]]
    for part in EXPECTED_PARTS[tower.inputs]:
        kind, attribute = part.split(":")
        code = catalogue.codes[attribute][item]
        value = torch.zeros(8)
        if kind == "id" and code >= 0:
            value = tower.side_tables[attribute].weight[code]
        elif code >= 0:
            offsets, ids = catalogue.tokens[attribute]
            tokens = ids[offsets[code] : offsets[code + 1]].tolist()
            if tokens:
                value = torch.stack([tower.token_table.weight[t] for t in tokens]).mean(0)
        parts.append(value)
    return tower.project.weight @ torch.cat(parts) + tower.project.bias


@pytest.fixture(params=INPUTS)
def tower(request: pytest.FixtureRequest, catalogue: Catalogue) -> ItemTower:
    torch.manual_seed(0)
    return ItemTower(catalogue, 12, inputs=request.param, item_dim=16, side_dim=8)


def test_equals_a_loop_over_items(tower: ItemTower, catalogue: Catalogue) -> None:
    cotangent = torch.randn(len(ITEMS), 12)
    got = tower(ITEMS)
    want = torch.stack([embed_one(tower, catalogue, i) for i in ITEMS.tolist()])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    names, params = zip(*tower.named_parameters(), strict=True)
    grads = torch.autograd.grad(got, params, cotangent)
    wanted = torch.autograd.grad(want, params, cotangent)
    for name, a, b in zip(names, grads, wanted, strict=True):
        a = a.to_dense() if a.is_sparse else a
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_width_of_the_concatenation(tower: ItemTower) -> None:
    assert tower.project.in_features == 16 + 8 * len(EXPECTED_PARTS[tower.inputs])


def test_each_distinct_item_is_embedded_once(tower: ItemTower, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    embed = tower.embed
    monkeypatch.setattr(tower, "embed", lambda items, bags: seen.append(items) or embed(items, bags))
    tower(ITEMS)
    assert [items.tolist() for items in seen] == [[0, 1, 2, 3, 6, 8]]


def test_no_items(tower: ItemTower) -> None:
    assert tower(ITEMS[:0]).shape == (0, 12)


def test_equal_seeds_give_equal_bits(tower: ItemTower) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        items = torch.randint(0, 9, (500,))
        grads = []
        for _ in range(2):
            tower.zero_grad()
            tower(items).square().sum().backward()
            grads.append([p.grad.clone() for p in tower.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(*grads, strict=True))


def test_checkpoint_holds_no_catalogue(tower: ItemTower) -> None:
    assert set(tower.state_dict()) == {name for name, _ in tower.named_parameters()}


def test_published_sizes(catalogue: Catalogue) -> None:
    everything = dict(catalogue.__dict__)
    everything["values"] = {**catalogue.values, "shop": ["the shop"]}
    everything["codes"] = {**catalogue.codes, "shop": catalogue.codes["seller"]}
    everything["tokens"] = {**catalogue.tokens, "shop": catalogue.tokens["seller"]}
    tower = ItemTower(Catalogue(**everything), 512)
    assert tower.project.weight.shape == (512, 704)
    assert tower.id_features == ("category", "brand", "shop", "seller")
    assert tower.text_features == ("title", "category", "shop", "brand", "seller")


def test_catalogue_without_attributes(catalogue: Catalogue) -> None:
    bare = dict(catalogue.__dict__)
    bare["values"] = {name: [] for name in catalogue.values}
    tower = ItemTower(Catalogue(**bare), 12, item_dim=16, side_dim=8)
    assert tower(ITEMS).shape == (9, 12)
    assert tower.project.in_features == 16


def test_unknown_inputs(catalogue: Catalogue) -> None:
    with pytest.raises(InputError, match="'everything': choose one of full, without-text, without-side"):
        ItemTower(catalogue, 12, inputs="everything")


def test_user_encoder(catalogue: Catalogue) -> None:
    torch.manual_seed(0)
    user = UserEncoder.build(UserEncoderConfig("trm++", "tiny", {"dropout": 0.0}), catalogue)
    offsets = torch.tensor([0, 4, 9])
    states = user.states(ITEMS, offsets)
    torch.testing.assert_close(states, user.encoder(user.tower(ITEMS), offsets))
    assert torch.equal(user(ITEMS, offsets), states)
    assert user.item_weight is user.tower.item_table.weight and user.item_weight.shape == (9, 16)
    assert user.queries(states).shape == (9, 16)
    assert user.causal and user.width == 32


def test_popularity_start(catalogue: Catalogue) -> None:
    """Scores differ between items as log popularity does, whatever the state, up to the other dimensions' noise."""
    torch.manual_seed(0)
    catalogue = replace(catalogue, popularity=np.array([900, 0, 5, 20, 300, 7, 1, 60, 2]))
    user = UserEncoder.build(UserEncoderConfig("trm++", "tiny", item_dim=2, popularity_start=True), catalogue)
    with torch.no_grad():
        user.score_head.weight[1:] = 0.0
        scores = user.queries(torch.randn(5, user.width)) @ user.item_weight.T
    wanted = np.log1p(catalogue.popularity)
    torch.testing.assert_close(scores, torch.tensor(wanted - wanted.mean(), dtype=torch.float32).expand(5, 9))


def test_popularity_start_of_equally_popular_items(catalogue: Catalogue) -> None:
    catalogue = replace(catalogue, popularity=np.full(9, 3))
    user = UserEncoder.build(UserEncoderConfig("trm++", "tiny", popularity_start=True), catalogue)
    assert torch.isfinite(user.item_weight).all() and torch.isfinite(user.score_head.bias).all()


@pytest.mark.parametrize("item", [-1, 9])
def test_item_outside_the_table(catalogue: Catalogue, item: int) -> None:
    user = UserEncoder.build(UserEncoderConfig("trm++", "tiny"), catalogue)
    with pytest.raises(InputError, match=f"Item index {item} is outside the item table of 9 items"):
        user.states(torch.tensor([0, item]), torch.tensor([0, 2]))


def test_user_encoder_learns_a_cycle(catalogue: Catalogue) -> None:
    """Item i is followed by i + 1: a few steps at the tiny preset bring cross entropy far below chance."""
    for name in ("gru4rec", "sasrec", "mamba4rec", "mamba2", "hstu", "trm++"):
        torch.manual_seed(0)
        user = UserEncoder.build(UserEncoderConfig(name, "tiny"), catalogue)
        optimiser = torch.optim.AdamW(user.parameters(), lr=1e-2)
        starts = torch.randint(0, 9, (8, 1))
        items = (starts + torch.arange(13)) % 9
        offsets = torch.arange(0, 8 * 12 + 1, 12)
        for _ in range(60):
            logits = user.queries(user.states(items[:, :-1].reshape(-1), offsets)) @ user.item_weight.T
            loss = torch.nn.functional.cross_entropy(logits, items[:, 1:].reshape(-1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert loss < 1.0, (name, loss)
