"""The paper's numbers: they agree with each other, and each finds its row."""

import pytest

from uqabench.report.paper import paper_mix, paper_table, paper_tables
from uqabench.report.rows import ScoreRow
from uqabench.vocabulary import TASKS


def test_averages_follow_from_the_sub_tasks_and_the_question_mix():
    mix = paper_mix()
    assert sum(mix.values()) == 7192
    assert len(paper_table("table2").cells) == 7
    for cell in paper_table("table2").cells:
        for scope, subtasks in {**TASKS, "overall": tuple(mix)}.items():
            average = sum(cell.scores[subtask] * mix[subtask] for subtask in subtasks) / sum(mix[s] for s in subtasks)
            assert cell.scores[scope] == pytest.approx(average, abs=0.011), (cell.method, scope)  # two decimals each


def test_averages_of_the_other_tables_follow_from_the_tasks():
    weights = {task: sum(paper_mix()[subtask] for subtask in subtasks) for task, subtasks in TASKS.items()}
    cells = [cell for name in ("table3", "table4", "table5", "table6") for cell in paper_table(name).cells]
    assert len(cells) == 6 + 4 + 8 + 5
    for cell in cells:
        average = sum(cell.scores[task] * weight for task, weight in weights.items()) / sum(weights.values())
        assert cell.scores["overall"] == pytest.approx(average, abs=0.011), cell


def test_one_setting_is_the_same_in_every_table():
    of_25m = [
        cell.scores["overall"]
        for name in paper_tables()
        for cell in paper_table(name).cells
        if cell.method == "trm++" and cell.scores["overall"] == 53.88
    ]
    assert len(of_25m) == len(paper_tables()) == 6


def test_sizes_are_twelve_layers_times_width_squared():
    for cell in paper_table("table5").cells:
        architecture = next(name for name in cell.settings[0] if len(name.split()) == 3)
        layers, width, _ = map(int, architecture.split())
        assert cell.model_size == 12 * layers * width**2


def beside(name: str, *rows: ScoreRow) -> list[float | None]:
    cells, _ = paper_table(name).beside(rows)
    return [cell and cell.scores["overall"] for cell in cells]


def row(method: str = "trm++", model_size: int | None = None, **axes) -> ScoreRow:
    return ScoreRow(method, method, axes, sizes={} if model_size is None else {"model_size": model_size})


@pytest.mark.parametrize(
    "table, ours, printed",
    [
        ("table2", row("hstu"), 50.88),
        ("table2", row("hstu@cl"), None),
        ("table3", row(objective="SL", inputs="full"), 53.88),
        ("table3", row(inputs="w/o Text", loss="CL"), 44.99),
        ("table3", row(inputs="without-side", objective="cl"), 41.47),
        ("table3", row(objective="SL"), None),
        ("table3", row(objective="SL", inputs="full", width=64), None),
        ("table3", row("hstu", objective="SL", inputs="full"), None),
        ("table4", row(integration="Q-Former", strategy="Full FT"), 55.00),
        ("table4", row(integration="mean-pooling", strategy="adapter"), 53.88),
        ("table5", row(size="(24, 2048, 16)"), 64.86),
        ("table5", row(size="3.2M"), 45.26),
        ("table5", row(size="small", model_size=12582912), 49.86),
        ("table6", row(length=256), 52.96),
        ("table7", row("text50"), 59.32),
    ],
)
def test_a_row_finds_its_number(table, ours, printed):
    assert beside(table, ours) == [printed]


def test_scaled_settings_are_paired_in_order_only_where_none_is_the_papers():
    scaled = [row(length=length) for length in (8, 16, 24, 40, 48)]
    cells, by_rank = paper_table("table6").beside([row("hstu", length=8), *scaled])
    assert by_rank and [cell and cell.scores["overall"] for cell in cells] == [None, 33.38, 43.40, 49.49, 52.96, 53.88]
    assert beside("table6", *scaled[:4]) == [None] * 4
    assert beside("table6", *scaled[:4], row(length=64)) == [None] * 4 + [43.40]
