"""The commands of docs/data.md are run as they stand, on files of the forms that the page names."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from uqabench.cli import main
from uqabench.data import InteractionStore

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- (file|run)(?:: (\S+))? -->\n)?```(\w+)\n(.*?)```", TEXT, re.DOTALL)
_spec = importlib.util.spec_from_file_location("published", ROOT / "tests" / "data" / "official" / "conftest.py")
by_hand = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(by_hand)


def write_logs(folder: Path) -> None:
    """The public logs that the page prepares."""
    pairs = [(user, (user + t) % 6, 1_500_000_000 + t) for user in range(8) for t in range(4)]
    for name in ("amazon", "ml-1m", "shop"):
        (folder / name).mkdir()
    reviews = [{"user_id": f"u{u}", "parent_asin": f"B{i}", "timestamp": 1000 * t, "rating": 5.0} for u, i, t in pairs]
    meta = [{"parent_asin": f"B{i}", "title": f"Thing {i}", "categories": ["All", f"Kind {i % 2}"]} for i in range(6)]
    (folder / "amazon" / "All_Beauty.jsonl").write_text("\n".join(map(json.dumps, reviews)))
    (folder / "amazon" / "meta_All_Beauty.jsonl").write_text("\n".join(map(json.dumps, meta)))
    (folder / "ml-1m" / "ratings.dat").write_text("".join(f"{u}::{i}::4::{t}\n" for u, i, t in pairs))
    (folder / "ml-1m" / "movies.dat").write_text("".join(f"{i}::Film {i}::Drama|War\n" for i in range(6)))
    (folder / "shop" / "clicks.txt").write_text("".join(f"u{u}::{i}::{t}\n" for u, i, t in pairs))
    goods = [{"id": i, "label": f"Ware {i}", "path": "a>b" if i else "-"} for i in range(6)]
    (folder / "shop" / "goods.jsonl").write_text("\n".join(map(json.dumps, goods)))


def write_weights(path: Path) -> None:
    """GRU4Rec under its published names, small."""
    rng = torch.Generator().manual_seed(0)
    item, side, width, hidden = 8, 4, 16, 24
    sizes = {"item_id": (64, item), "bpe_tokens": (151_936, side)}
    sizes |= {f"{name}_id": (64, side) for name in ("cate", "brand", "shop", "seller")}
    shapes = {f"ebc.bags.{name}.weight": shape for name, shape in sizes.items()}
    shapes |= {"proj1.weight": (width, item + 9 * side), "proj1.bias": (width,)}
    shapes |= {"proj2.weight": (item, width), "proj2.bias": (item,)}
    shapes |= {"backbone.dense.weight": (width, hidden), "backbone.dense.bias": (width,)}
    shapes |= {"backbone.norm.weight": (width,), "backbone.norm.bias": (width,)}
    for i, inputs in enumerate((width, hidden)):
        shapes[f"backbone.gru_layers.weight_ih_l{i}"] = (3 * hidden, inputs)
        shapes[f"backbone.gru_layers.weight_hh_l{i}"] = (3 * hidden, hidden)
    state = {name: 0.1 * torch.randn(*shape, generator=rng) for name, shape in shapes.items()}
    torch.save(state | {"score_head_weight": state["ebc.bags.item_id.weight"].clone()}, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("data-page")
    write_logs(folder)
    by_hand.PublishedFolder(folder / "published").write()
    write_weights(folder / "epoch_9.pt")
    for what, name, _, text in BLOCKS:
        if what == "file":
            (folder / name).write_text(text, encoding="utf-8")
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    torch.use_deterministic_algorithms(deterministic)


def test_every_command_of_the_page_is_run():
    assert all(what == "run" for what, _, language, _ in BLOCKS if language == "sh")
    assert sum(text.count("uqabench ") for what, _, _, text in BLOCKS if what == "run") >= 12


def test_commands_do_what_the_page_says(folder, capsys):
    printed = {}
    for what, _, _, text in BLOCKS:
        for program, *arguments in [shlex.split(line) for line in text.splitlines()] if what == "run" else ():
            assert program == "uqabench"
            assert main(arguments) == 0, arguments
            printed[" ".join(arguments)] = capsys.readouterr().out
    assert InteractionStore.open("data/shop").catalogue.values["category"] == ["b"]
    assert InteractionStore.open("data/amazon").catalogue.values["category"] == ["Kind 0", "Kind 1"]
    first, again = InteractionStore.open("data/official"), InteractionStore.open("data/again")
    assert first.content_hash == again.content_hash and first.user_ids == again.user_ids
    results = json.loads(Path("runs/official/results.json").read_text())
    score = printed["score --official answers.jsonl --compare paper"]
    ours = results["methods"]["majority"]
    cells = [ours["subtasks"], ours["tasks"]]
    for name, cell in (*cells[0].items(), *cells[1].items(), ("overall", ours["overall"])):
        assert f"{cell['accuracy']:.2f}" in score, name
    assert "53.88" in score and "Text50 (paper)" in score
    lines = [json.loads(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(set(line) == {"question", "prediction", "answer"} for line in lines)
    given = torch.load("epoch_9.pt", weights_only=True)
    back = torch.load("epoch_0.pt", weights_only=True)
    assert set(back) == set(given)
    used = torch.from_numpy(np.array(first.catalogue.source_ids["item"]))
    assert torch.equal(back["ebc.bags.item_id.weight"][used], given["ebc.bags.item_id.weight"][used])
    (trained,) = Path("runs/weights/pretrain").iterdir()
    from safetensors.torch import load_file

    begun, imported = load_file(trained / "model.safetensors"), load_file("weights/gru4rec/model.safetensors")
    assert all(torch.equal(begun[name], imported[name]) for name in imported)
