"""The integration of one's own that docs/methods.md shows, through a whole run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from uqabench.experiments.run import run
from uqabench.integrations import check_integration, find_integration
from uqabench.report.results import load_results
from uqabench.settings import run_config

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.fixture
def own(tmp_path, monkeypatch):
    text = re.search(r"<!-- file: my_integration.py -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    (tmp_path / "my_integration.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield re.search(r"`align\.integration: (\S+)`", PAGE)[1]
    sys.modules.pop("my_integration", None)


def test_its_pooling_is_what_it_says(own):
    check_integration(own, 8, run_config("tiny").align)
    states, offsets = torch.randn(9, 3), torch.tensor([0, 4, 4, 9])
    pooled = find_integration(own).pooling(states, offsets)
    weights = 0.9 ** torch.tensor([3.0, 2.0, 1.0, 0.0])
    torch.testing.assert_close(pooled[0, 0], (weights[:, None] * states[:4]).sum(0) / weights.sum())
    assert not pooled[1].any()


def test_it_goes_through_all_stages(own, small_store, small_run, tmp_path):
    data = ("data.source=store", f"data.path={small_store.path}", "methods=[sasrec, sasrec@segments, oracle]")
    config = run_config("tiny", overrides=(*small_run, *data, f"align.integration={own}"))
    folder = tmp_path / "run"
    run(folder, config, progress=False)
    results = load_results(folder)["methods"]
    assert results["sasrec@segments"]["avg_tokens"] == pytest.approx(results["sasrec"]["avg_tokens"] + 7, abs=0.02)
    kept = {path.name.rpartition("-")[0] for path in (folder / "states").iterdir()}
    assert kept == {"sasrec-fading-0.9", f"sasrec-{find_integration('segments').kept}"[:60].strip("-.")}
    aligned = [json.loads(path.read_text()) for path in (folder / "align").glob("sasrec-*/metrics.json")]
    metrics, segments = sorted(aligned, key=len)
    assert {"ridge_l2", "ridge_r_squared", "ridge_held_out_r_squared"} <= metrics.keys()
    assert len(segments) == 1 + 3 * 8
