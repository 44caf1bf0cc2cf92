"""What docs/ states is what the code does: names, defaults and figures."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare, source_names
from uqabench.data.rejections import LISTED, REASONS
from uqabench.encoders import ENCODER_PRESETS as ENCODERS
from uqabench.plan.methods import packaged_variants
from uqabench.questions.core.context import REASONS as DISCARDED
from uqabench.questions.generate import generate
from uqabench.questions.kinds import KIND_INDEX, KINDS, kinds
from uqabench.questions.render import history_items
from uqabench.questions.tables import equal_texts
from uqabench.settings import PAPER_MIX, QuestionConfig
from uqabench.settings.run import PRESETS, run_config
from uqabench.vocabulary import BASELINES, QUESTION_VERSIONS

ROOT = Path(__file__).parents[1]
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def table(page: str, first: str) -> list[list[str]]:
    """Rows of the table of a page whose first heading is `first`, cells without backticks."""
    rows = DOCS[page].partition(f"| {first} |")[2].partition("\n\n")[0].splitlines()[2:]
    assert rows, f"{page} has no table that begins with {first}"
    return [[cell.strip().replace("`", "") for cell in row.strip("| ").split("|")] for row in rows]


@pytest.mark.parametrize("page", sorted(DOCS))
def test_links_and_paths_exist(page: str):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", DOCS[page]):
        assert (ROOT / "docs" / target).exists(), target
    for path in re.findall(r"`((?:uqabench|kernels|docs|tests)/[^`]*)`", DOCS[page]):
        assert (ROOT / path).exists(), path


def test_data_page_lists_sources_reasons_and_defaults():
    assert {row[0] for row in table("data", "source")} == set(source_names())
    assert f"({', '.join(REASONS)})" in " ".join(DOCS["data"].split())
    assert f"first {LISTED} of each reason" in DOCS["data"]
    demo = run_config("demo").data.prepare
    rows = table("data", "setting")
    assert len(rows) >= 5
    for name, default, of_demo in rows:
        assert str(getattr(PrepareConfig(), name)) == default
        assert str(getattr(demo, name)) == of_demo
    assert f"({PrepareConfig().max_tokens})" in DOCS["data"]
    for name in re.findall(r"`(m(?:in|ax)_\w+|evaluation_fraction|split_seed)`", DOCS["data"]):
        assert name in {field.name for field in fields(PrepareConfig)}


def test_questions_page_lists_kinds_mix_reasons_and_baselines():
    rows = {row[1]: row for row in table("questions", "sub-task")}
    assert list(rows) == [kind.name for kind in KINDS]
    for kind in KINDS:
        assert rows[kind.name][0] == kind.subtask
        assert rows[kind.name][3] == (", ".join(kind.attributes) or "–")
        assert rows[kind.name][4] == ", ".join(v for v in QUESTION_VERSIONS if kind in kinds(v))
    assert ", ".join(f"{name} {count}" for name, count in PAPER_MIX.items()) in " ".join(DOCS["questions"].split())
    assert f"{sum(PAPER_MIX.values()):,} questions" in DOCS["questions"]
    assert ", ".join(DISCARDED[1:]) in " ".join(DOCS["questions"].split())
    assert {row[0] for row in table("questions", "name")} == set(BASELINES)
    assert f"`recent_window` ({QuestionConfig().recent_window}) items" in DOCS["questions"]
    assert f"`extra_cuts` ({QuestionConfig().extra_cuts})" in DOCS["decisions"]


def test_methods_page_lists_encoders_variants_and_presets():
    assert {row[0] for row in table("methods", "name")} == set(ENCODERS)
    listed = [name for row in table("methods", "variant") for name in row[0].split(", ")]
    assert listed == list(packaged_variants())
    rows = {row[0]: row[1:] for row in table("methods", "setting")}
    configs = [run_config(name) for name in PRESETS if name != "demo-v1"]
    widths = [ENCODERS["trm++"][config.pretrain.encoder.preset].width for config in configs]
    assert rows == {
        "data": [config.data.source for config in configs],
        "encoder width": [str(width) for width in widths],
        "history N": [str(config.questions.evaluation.history) for config in configs],
        "pre-training windows": [config.pretrain.windows for config in configs],
        "language model": [config.llm.name for config in configs],
        "alignment strategy": [config.align.strategy for config in configs],
        "language": [config.prompt.language for config in configs],
    }
    for config in configs:
        assert config.questions.train.history == config.questions.evaluation.history == config.pretrain.length


@pytest.fixture(scope="module")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> InteractionStore:
    out = tmp_path_factory.mktemp("decisions") / "store"
    return prepare(open_source("completejourney"), out, run_config("demo").data.prepare, progress=False)


def test_figures_of_the_demo_s_data(demo_store: InteractionStore):
    store = demo_store
    size = f"{len(store.catalogue):,} items, {len(store):,} users and {len(store.items):,} interactions remain"
    assert size in DOCS["decisions"]
    starts = np.zeros(len(store.items), bool)
    starts[store.offsets[:-1]] = True
    inside = ~starts[1:] & (store.timestamps[1:] == store.timestamps[:-1])
    products = store.catalogue.item_ids[store.items].astype(np.int64)
    assert f"{100 * (np.diff(products)[inside] > 0).mean():.2f} %" == "99.99 %"
    assert "99.99 % of the steps" in DOCS["decisions"]


def test_figures_of_the_demo_s_questions(demo_store: InteractionStore):
    store = demo_store
    questions, report = generate(store, "evaluation", run_config("demo-v1").questions.evaluation)
    codes = equal_texts(store.catalogue)
    new = {}
    for name in ("ip_next", "ap_next"):
        rows = np.flatnonzero(questions.kind == KIND_INDEX[name])
        unseen = 0
        for i in rows:
            history = history_items(store, int(questions.user[i]), int(questions.cut[i]), questions.n_history)
            (right,) = questions.option(int(i), int(questions.answer[i]))
            unseen += right not in codes[questions.attribute[i]][history]
        new[name] = f"{100 * unseen / len(rows):.0f} %"
    text = " ".join(DOCS["decisions"].split())
    assert f"in {new['ip_next']} of the demo's ip questions (ap: {new['ap_next']})" in text
    tried = {name: report.candidates[name] / report.counts[name] for name in ("ip", "si", "df")}
    assert min(tried["ip"], tried["si"]) > 3 * tried["df"]
    assert "several times as many are tried for a question of ip or of si as for one of df" in text
