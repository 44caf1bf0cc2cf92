"""Published weights in our encoders against the published models, written out over padded batches from their facts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from uqabench.data import ATTRIBUTES, Catalogue
from uqabench.encoders.published import from_published, read_published, to_published
from uqabench.encoders.published.checkpoint import MAPS
from uqabench.errors import InputError

V, WIDTH, ITEM, SIDE, LAYERS, HEADS, TOKENS, N = 23, 16, 8, 4, 2, 2, 50, 512
LENGTHS = [5, 1, 9, 3]
SIDES = ("category", "brand", "shop", "seller")
TEXTS = ("title", "category", "shop", "brand", "seller")
TABLES = {"category": "cate_id", "brand": "brand_id", "shop": "shop_id", "seller": "seller_id"}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Items called by numbers with gaps; some lack a shop, some have texts without tokens."""
    rng = np.random.default_rng(0)
    ids, values, codes, tokens = {"item": np.sort(rng.choice(60, V, replace=False))}, {}, {}, {}
    for place, name in enumerate(ATTRIBUTES):
        size = 7 + place
        values[name] = [f"{name} {i}" for i in range(size)]
        codes[name] = rng.integers(-1 if name == "shop" else 0, size, V).astype(np.int32)
        lengths = rng.integers(0, 4, size)
        tokens[name] = np.r_[0, np.cumsum(lengths)], rng.integers(0, TOKENS, lengths.sum()).astype(np.int32)
        if name != "title":
            ids[name] = np.sort(rng.choice(30, size, replace=False))
    names = np.array([str(i) for i in ids["item"]], object)
    return Catalogue(names, values, codes, np.ones(V, np.int64), tokens, TOKENS, [""] * TOKENS, ids)


GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return 0.5 * torch.randn(*shape, generator=GENERATOR)


def towers() -> dict[str, torch.Tensor]:
    state = {f"ebc.bags.{name}.weight": normal(30, SIDE) for name in TABLES.values()}
    state |= {"ebc.bags.item_id.weight": normal(60, ITEM), "ebc.bags.bpe_tokens.weight": normal(TOKENS, SIDE)}
    state["score_head_weight"] = state["ebc.bags.item_id.weight"].clone()
    wide = ITEM + 9 * SIDE
    state |= {"proj1.weight": normal(WIDTH, wide), "proj1.bias": normal(WIDTH)}
    return state | {"proj2.weight": normal(ITEM, WIDTH), "proj2.bias": normal(ITEM)}


def hstu_weights() -> dict[str, torch.Tensor]:
    state = {"backbone._attn_mask": torch.ones(2, 2)}
    for i in range(LAYERS):
        layer, inner = f"backbone._hstu._attention_layers.{i}", HEADS * 6
        state |= {f"{layer}._uvqk": normal(WIDTH, 4 * inner), f"{layer}._o.weight": normal(WIDTH, inner)}
        state |= {f"{layer}._o.bias": normal(WIDTH)}
        state |= {f"{layer}._rel_attn_bias._ts_w": normal(129), f"{layer}._rel_attn_bias._pos_w": normal(1023)}
    return state


def hstu(x, state):
    batch, length, _ = x.shape
    causal = torch.ones(length, length).tril()
    for i in range(LAYERS):
        layer = f"backbone._hstu._attention_layers.{i}"
        mixed = F.silu(F.layer_norm(x, (WIDTH,), eps=1e-6) @ state[f"{layer}._uvqk"])
        u, v, q, k = (part for part in mixed.chunk(4, dim=-1))
        q, k, v = (part.reshape(batch, length, HEADS, -1).transpose(1, 2) for part in (q, k, v))
        attended = (F.silu(q @ k.mT) / N * causal) @ v
        attended = attended.transpose(1, 2).reshape(batch, length, -1)
        gated = u * F.layer_norm(attended, (attended.shape[-1],), eps=1e-6)
        x = x + F.linear(gated, state[f"{layer}._o.weight"], state[f"{layer}._o.bias"])
    return x


def trmpp_weights() -> dict[str, torch.Tensor]:
    state = {}
    for i in range(LAYERS):
        layer = f"backbone.layers.{i}"
        state |= {f"{layer}.attn.{part}_proj.weight": normal(WIDTH, WIDTH) for part in "qkvo"}
        state |= {f"{layer}.norm{k}.weight": 1 + normal(WIDTH) for k in (1, 2)}
        state |= {f"{layer}.mlp.up_proj_{part}.weight": normal(24, WIDTH) for part in "xg"}
        state |= {f"{layer}.mlp.down_proj.weight": normal(WIDTH, 24)}
    return state


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def rotated(x):
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def trmpp(x, state):
    batch, length, _ = x.shape
    hidden = torch.full((length, length), -math.inf).triu(1)
    for i in range(LAYERS):
        layer = f"backbone.layers.{i}"
        h = rms(x, state[f"{layer}.norm1.weight"])
        q, k, v = (
            F.linear(h, state[f"{layer}.attn.{part}_proj.weight"]).reshape(batch, length, HEADS, -1).transpose(1, 2)
            for part in "qkv"
        )
        scores = rotated(q) @ rotated(k).mT / math.sqrt(WIDTH // HEADS) + hidden
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, WIDTH)
        x = x + F.linear(attended, state[f"{layer}.attn.o_proj.weight"])
        h = rms(x, state[f"{layer}.norm2.weight"])
        linear, gate = (F.linear(h, state[f"{layer}.mlp.up_proj_{part}.weight"]) for part in "xg")
        x = x + F.linear(F.silu(gate) * linear, state[f"{layer}.mlp.down_proj.weight"])
    return x


def sasrec_module() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)


def sasrec_weights() -> dict[str, torch.Tensor]:
    state = {f"backbone.transformer.{name}": normal(*p.shape) for name, p in sasrec_module().state_dict().items()}
    state |= {"backbone.position_embedding.weight": normal(32, WIDTH)}
    return state | {"backbone.norm.weight": 1 + normal(WIDTH), "backbone.norm.bias": normal(WIDTH)}


def sasrec(x, state):
    module = sasrec_module().eval()
    module.load_state_dict({name: state[f"backbone.transformer.{name}"] for name in module.state_dict()})
    length = x.shape[1]
    x = x + state["backbone.position_embedding.weight"][:length]
    x = module(x, mask=torch.ones(length, length, dtype=torch.bool).triu(1))
    return F.layer_norm(x, (WIDTH,), state["backbone.norm.weight"], state["backbone.norm.bias"])


def gru_module() -> nn.GRU:
    return nn.GRU(WIDTH, 20, LAYERS, bias=False, batch_first=True)


def gru_weights() -> dict[str, torch.Tensor]:
    state = {f"backbone.gru_layers.{name}": normal(*p.shape) for name, p in gru_module().state_dict().items()}
    state |= {"backbone.dense.weight": normal(WIDTH, 20), "backbone.dense.bias": normal(WIDTH)}
    return state | {"backbone.norm.weight": 1 + normal(WIDTH), "backbone.norm.bias": normal(WIDTH)}


def gru4rec(x, state):
    module = gru_module()
    module.load_state_dict({name: state[f"backbone.gru_layers.{name}"] for name in module.state_dict()})
    x = F.linear(module(x)[0], state["backbone.dense.weight"], state["backbone.dense.bias"])
    return F.layer_norm(x, (WIDTH,), state["backbone.norm.weight"], state["backbone.norm.bias"])


STATE, HEAD = 6, 8
INNER = 2 * WIDTH


def mamba_weights() -> dict[str, torch.Tensor]:
    state = {}
    for i in range(LAYERS):
        layer, heads, channels = f"backbone.layers.{i}", INNER // HEAD, INNER + 2 * STATE
        state |= {f"{layer}.norm.weight": 1 + normal(WIDTH), f"{layer}.mixer.norm.weight": 1 + normal(INNER)}
        state |= {f"{layer}.mixer.in_proj.weight": normal(2 * INNER + 2 * STATE + heads, WIDTH)}
        state |= {
            f"{layer}.mixer.conv1d.weight": normal(channels, 1, 4),
            f"{layer}.mixer.conv1d.bias": normal(channels),
        }
        state |= {f"{layer}.mixer.{name}": normal(heads) for name in ("dt_bias", "A_log", "D")}
        state |= {f"{layer}.mixer.out_proj.weight": normal(WIDTH, INNER)}
    return state


def mamba2(x, state):
    for i in range(LAYERS):
        own = {name.removeprefix(f"backbone.layers.{i}."): t for name, t in state.items()}
        x = x + mamba2_block(rms(x, own["norm.weight"]), own)
    return x


def mamba2_block(h, own):
    z, mixed, dt = F.linear(h, own["mixer.in_proj.weight"]).split([INNER, INNER + 2 * STATE, INNER // HEAD], -1)
    taps = F.pad(mixed.mT, (3, 0))
    mixed = F.silu(F.conv1d(taps, own["mixer.conv1d.weight"], own["mixer.conv1d.bias"], groups=mixed.shape[-1])).mT
    u, b, c = mixed.split([INNER, STATE, STATE], -1)
    u = u.unflatten(-1, (-1, HEAD))
    dt = F.softplus(dt + own["mixer.dt_bias"])
    decay = torch.exp(-own["mixer.A_log"].exp() * dt)
    memory, out = torch.zeros(h.shape[0], INNER // HEAD, HEAD, STATE), []
    for t in range(h.shape[1]):
        added = dt[:, t, :, None, None] * u[:, t, :, :, None] * b[:, t, None, None, :]
        memory = decay[:, t, :, None, None] * memory + added
        out.append((memory * c[:, t, None, None, :]).sum(-1) + own["mixer.D"][:, None] * u[:, t])
    y = torch.stack(out, 1).flatten(2)
    return F.linear(rms(y * F.silu(z), own["mixer.norm.weight"]), own["mixer.out_proj.weight"])


PUBLISHED = {
    "hstu": (hstu_weights, hstu, {"heads": HEADS, "qk_dim": 6, "v_dim": 6}),
    "trm++": (trmpp_weights, trmpp, {"heads": HEADS}),
    "sasrec": (sasrec_weights, sasrec, {"heads": HEADS}),
    "gru4rec": (gru_weights, gru4rec, {}),
    "mamba2": (mamba_weights, mamba2, {}),
}


def embedded(items: list[int], catalogue: Catalogue, state) -> torch.Tensor:
    """The projected features of items, each the mean of its ids' rows, or zeros without ids."""

    def mean(table: torch.Tensor, ids: list[int]) -> torch.Tensor:
        return table[ids].mean(0) if ids else torch.zeros(table.shape[1])

    rows = []
    for item in items:
        parts = [mean(state["ebc.bags.item_id.weight"], [int(catalogue.source_ids["item"][item])])]
        for name in SIDES:
            code = catalogue.codes[name][item]
            ids = [int(catalogue.source_ids[name][code])] if code >= 0 else []
            parts.append(mean(state[f"ebc.bags.{TABLES[name]}.weight"], ids))
        for name in TEXTS:
            code, (offsets, flat) = catalogue.codes[name][item], catalogue.tokens[name]
            ids = flat[offsets[code] : offsets[code + 1]].tolist() if code >= 0 else []
            parts.append(mean(state["ebc.bags.bpe_tokens.weight"], ids))
        rows.append(F.linear(torch.cat(parts), state["proj1.weight"], state["proj1.bias"]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", PUBLISHED)
def test_outputs_are_those_of_the_published_model(name, catalogue):
    weights, published, overrides = PUBLISHED[name]
    state = towers() | weights()
    model, config = from_published(state, catalogue, overrides)
    assert config.encoder == name
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, V, length).tolist() for length in LENGTHS]
    x = torch.zeros(len(LENGTHS), max(LENGTHS), WIDTH)
    for row, sequence in enumerate(sequences):
        x[row, : len(sequence)] = embedded(sequence, catalogue, state)
    with torch.no_grad():
        padded = published(x, state)
        expected = torch.cat([padded[row, : len(sequence)] for row, sequence in enumerate(sequences)])
        logits = F.linear(expected, state["proj2.weight"], state["proj2.bias"]) @ state["score_head_weight"].T
        model.eval()
        items = torch.tensor([item for sequence in sequences for item in sequence])
        states = model.states(items, torch.tensor(np.r_[0, np.cumsum(LENGTHS)]))
        ours = model.queries(states) @ model.item_weight.T
    assert torch.allclose(states, expected, atol=1e-4, rtol=1e-4)
    assert torch.allclose(ours, logits[:, catalogue.source_ids["item"]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_come_back_as_they_went(name, catalogue, tmp_path):
    weights, _, overrides = PUBLISHED[name]
    state = towers() | weights()
    model, _ = from_published(state, catalogue, overrides)
    torch.save(to_published(model, catalogue, name), tmp_path / "epoch_0.pt")
    back = read_published(tmp_path / "epoch_0.pt")
    unused = {key for key in state if "_rel_attn_bias" in key or key.endswith("_attn_mask")}
    assert set(back) == set(state) - unused
    tables = {key for key in back if key.startswith("ebc.bags") or key == "score_head_weight"}
    assert all(torch.equal(back[key], state[key]) for key in set(back) - tables)
    for attribute, table in {"item": "item_id", **TABLES}.items():
        used = torch.from_numpy(catalogue.source_ids[attribute])
        key = f"ebc.bags.{table}.weight"
        assert torch.equal(back[key][used], state[key][used])
        assert len(back[key]) == int(used.max()) + 1
    again, _ = from_published(back, catalogue, overrides)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_of_ours_has_a_published_name(name, catalogue):
    weights, _, overrides = PUBLISHED[name]
    model, _ = from_published(towers() | weights(), catalogue, overrides)
    assert {entry.ours for entry in MAPS[name].entries(LAYERS)} == set(model.encoder.state_dict())


def test_missing_and_unknown_names_are_listed(catalogue):
    state = towers() | trmpp_weights()
    del state["backbone.layers.1.attn.v_proj.weight"]
    state["backbone.layers.1.attn.value.weight"] = normal(WIDTH, WIDTH)
    said = r"Missing: backbone.layers.1.attn.v_proj.weight. Unknown: backbone.layers.1.attn.value.weight."
    with pytest.raises(InputError, match=said):
        from_published(state, catalogue, {"heads": HEADS})
    with pytest.raises(InputError, match="those of 0 published encoders"):
        from_published(towers(), catalogue)
    with pytest.raises(InputError, match="those of 2 published encoders"):
        from_published(towers() | gru_weights() | hstu_weights(), catalogue)


def test_what_does_not_fit_is_said(catalogue):
    state = towers() | trmpp_weights()
    with pytest.raises(InputError, match="is not the item table"):
        from_published({**state, "score_head_weight": normal(60, ITEM)}, catalogue, {"heads": HEADS})
    small = {**state, "ebc.bags.brand_id.weight": normal(3, SIDE)}
    with pytest.raises(InputError, match="'ebc.bags.brand_id.weight' has 3 rows"):
        from_published(small, catalogue, {"heads": HEADS})
    with pytest.raises(InputError, match="have shape"):
        from_published(towers() | hstu_weights(), catalogue)
    with pytest.raises(InputError, match="no published names for the encoder 'mamba4rec'"):
        to_published(from_published(state, catalogue, {"heads": HEADS})[0], catalogue, "mamba4rec")


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_but_tensors_is_unpickled(tmp_path, capsys):
    torch.save({"proj1.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "noise.pt").write_bytes(b"PK\x03\x04 no archive")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("evil.pt", "noise.pt", "list.pt", "absent.pt"):
        with pytest.raises(InputError):
            read_published(tmp_path / name)
    assert "unpickled" not in capsys.readouterr().out
