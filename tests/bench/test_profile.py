"""Where a row's time goes."""

from __future__ import annotations

import pytest

from bench.profile import main, measure


def test_every_second_is_someone_s():
    shares = measure("trm++", is_small=True)
    assert 0 < shares.products < shares.seconds
    assert shares.products + shares.unseen <= shares.seconds
    assert any(name.startswith("aten::") for name in shares.operations)


def test_the_command(capsys: pytest.CaptureFixture[str]):
    assert main(["--rows", "hstu", "--scale", "small"]) == 0
    assert "matrix products" in capsys.readouterr().out
    assert main(["--rows", "nothing"]) == 2
