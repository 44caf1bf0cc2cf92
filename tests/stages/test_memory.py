"""A GPU whose memory is full is told in one sentence that names the setting to lower."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uqabench.errors import RunError
from uqabench.experiments.run import run
from uqabench.settings import run_config
from uqabench.stages import alignment_batches, pretrain
from uqabench.stages.training import fits_in_memory


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ...")


def test_the_sentence():
    with pytest.raises(RunError) as told, fits_in_memory("align hstu", "align.token_budget", 16_384):
        full()
    assert str(told.value) == (
        "align hstu: the GPU's memory is full: lower align.token_budget, now 16,384 tokens a batch."
    )
    assert told.value.exit_code == 1
    with pytest.raises(KeyError), fits_in_memory("x", "y", 1):
        raise KeyError("another error passes")


@pytest.mark.parametrize(
    ("module", "name", "setting"),
    [
        (pretrain, "PretrainLoss.__call__", "pretrain.token_budget"),
        (alignment_batches, "answer_loss", "align.token_budget"),
    ],
)
def test_training_says_which_setting(module, name, setting, tmp_path: Path, small_run, small_log, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(f"{module.__name__}.{name}", full)
    data = tuple(f"data.options.{key}={value}" for key, value in small_log.items())
    config = run_config("tiny", overrides=("data.source=synthetic", *small_run, *data, "methods=[gru4rec]"))
    with pytest.raises(RunError, match=setting):
        run(tmp_path / "run", config)
