"""`uqabench verify`: what opening a store leaves unchecked."""

from __future__ import annotations

import shutil

from uqabench.cli import main
from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare


def test_verify_finds_the_bit_that_changed_in_a_large_store(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("uqabench.artifact.SMALL_FOLDER", 0)
    store = prepare(open_source("synthetic", users=60), tmp_path / "store", PrepareConfig(), progress=False)
    assert main(["verify", str(tmp_path / "store")]) == 0
    assert f"is whole: {len(store)} users" in capsys.readouterr().out
    shutil.copytree(tmp_path / "store", tmp_path / "other")
    content = bytearray((tmp_path / "other" / "interactions.arrow").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "other" / "interactions.arrow").write_bytes(content)
    assert len(InteractionStore.open(tmp_path / "other")) == len(store)  # its size is what it was
    assert main(["verify", str(tmp_path / "other")]) != 0
    assert "interactions.arrow is missing or changed since it was written" in capsys.readouterr().err
