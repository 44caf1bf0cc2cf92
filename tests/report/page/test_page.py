"""What the page shows in a real browser, against numbers made from the prediction files by other means."""

from __future__ import annotations

import json
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.data.catalogue import ATTRIBUTES
from uqabench.questions.generate import generate
from uqabench.questions.kinds import KINDS
from uqabench.questions.messages import PromptText
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import render
from uqabench.questions.scoring import read_predictions
from uqabench.questions.templates import Templates
from uqabench.report.page import write_page
from uqabench.settings import PromptConfig, QuestionConfig
from uqabench.vocabulary import LETTERS, SUBTASKS, TASKS, display_name

LETTER_METHODS = ("text20", "hstu", "trm++@q-former", "uniform", "oracle")


class Expected:
    """The same numbers from the prediction files: correct by method (Q,), and the questions' columns."""

    def __init__(self, run: Path, questions: QuestionSet) -> None:
        self.questions = questions
        self.rows = {
            method: read_predictions(run / "evaluate" / method.replace("@", "-") / "predictions.jsonl")
            for method in LETTER_METHODS
        }
        self.correct = {
            method: np.array([row["prediction"] == row["answer"] for row in rows]) for method, rows in self.rows.items()
        }

    def mask(self, **filters: Any) -> np.ndarray:
        q = self.questions
        length = np.minimum(q.cut, q.n_history)
        subtasks = TASKS.get(filters.get("subtask", ""), (filters.get("subtask"),))
        tests = {
            "subtask": np.isin(np.array(SUBTASKS)[q.subtask], subtasks),
            "kind": np.array([KINDS[kind].name for kind in q.kind]) == filters.get("kind"),
            "attribute": np.array([*ATTRIBUTES, "none"])[q.attribute] == filters.get("attribute"),
            "level": np.array([KINDS[kind].level for kind in q.kind]) == filters.get("level"),
            "from": length >= int(filters.get("from", 0)),
            "to": length <= int(filters.get("to", 10**6)),
            "user": q.user == filters.get("user"),
        }
        return np.logical_and.reduce([np.ones(len(q), bool), *(tests[name] for name in filters)])

    def interval(self, method: str, mask: np.ndarray) -> tuple[float, float]:
        """Cluster-robust, by statsmodels; only where answers vary and users are several."""
        right = self.correct[method][mask].astype(float)
        fit = sm.OLS(right, np.ones(len(right))).fit(cov_type="cluster", cov_kwds={"groups": self.questions.user[mask]})
        low, high = fit.conf_int()[0]
        return max(0, 100 * low), min(100, 100 * high)


def read_table(page: Any) -> dict[str, dict[str, tuple[str, str]]]:
    """Text and title of the cells, by method and scope."""
    return page.eval_on_selector_all(
        "#table tbody tr",
        "rows => Object.fromEntries(rows.map(row => [row.dataset.row, Object.fromEntries([...row.querySelectorAll"
        "('td[data-scope]')].map(cell => [cell.dataset.scope, [cell.textContent, cell.title]]))]))",
    )


def choose(page: Any, **filters: Any) -> None:
    """Reset the filters, then set these; selects by the text of their choice."""
    page.click("#filters button[type=reset]")
    page.wait_for_timeout(20)
    for name, value in filters.items():
        control = page.locator(f"#filters [name={name}]")
        if name in ("from", "to", "user"):
            control.fill(str(value))
        elif name == "subtask":
            control.select_option(value=value)
        else:
            control.select_option(label=value)


def check_table(page: Any, expected: Expected, **filters: Any) -> int:
    """Every number of the table under the filters; returns how many questions there are."""
    choose(page, **filters)
    mask, table = expected.mask(**filters), read_table(page)
    users = len(np.unique(expected.questions.user[mask]))
    said = page.inner_text("#count").replace(",", "")
    assert said == f"{mask.sum()} of {len(mask)} questions {users} users"
    names = np.array(SUBTASKS)[expected.questions.subtask]
    for method in LETTER_METHODS:
        cells = table[display_name(method)]
        for scope in ("overall", *TASKS, *SUBTASKS):
            asked = mask & (np.isin(names, TASKS.get(scope, (scope,))) if scope != "overall" else True)
            if not asked.any():
                assert cells.get(scope, ("–", ""))[0] == "–"
                continue
            right = expected.correct[method][asked]
            assert cells[scope][0] == f"{100 * right.mean():.2f}", (method, scope, filters)
            low, high = (float(part) for part in cells[scope][1].split(",")[0].split(" to "))
            if len(np.unique(expected.questions.user[asked])) == 1:
                assert (low, high) == (0, 100)
            elif 0 < right.mean() < 1:
                np.testing.assert_allclose((low, high), expected.interval(method, asked), atol=0.006)
    return int(mask.sum())


@pytest.fixture(scope="module")
def page_file(made_run, tmp_path_factory) -> Path:
    return write_page([made_run], tmp_path_factory.mktemp("page") / "report.html")


def test_numbers_follow_the_filters(opened, page_file, made_run, small_evaluation):
    expected, page = Expected(made_run, small_evaluation), opened(page_file)
    user = int(np.bincount(small_evaluation.user).argmax())
    for filters in (
        {},
        {"subtask": "ip"},
        {"subtask": "interest_perception", "from": 12, "to": 20},
        {"attribute": "category"},
        {"kind": KINDS[small_evaluation.kind[0]].name},
        {"user": user},
    ):
        assert check_table(page, expected, **filters)
    choose(page, user=10**6)
    assert page.inner_text("#count").startswith("0 of") and "No question" in page.inner_text("#question")


def test_a_question_is_shown_as_it_is(opened, page_file, made_run, small_store, small_evaluation):
    page, templates, questions = opened(page_file), Templates.load(), small_evaluation
    prompts = PromptText(small_store, templates, PromptConfig())
    for i in (0, 37):
        page.fill("#place", str(i + 1))
        page.press("#place", "Enter")
        rendered = render(questions, i, small_store.catalogue, "en", templates)
        assert page.inner_text("#question .text") == f"{rendered.question} {rendered.instruction}".strip()
        options = page.locator("#question .options li")
        assert [each.split("\n")[1] for each in options.all_inner_texts()] == rendered.options
        truth = page.locator("#question .options .truth b").inner_text()
        assert truth == LETTERS[questions.answer[i]]
        cut, user = int(questions.cut[i]), int(questions.user[i])
        items = small_store.sequence(user)[max(0, cut - questions.n_history) : cut]
        lines = page.locator("#question .history li").all_inner_texts()
        assert lines == [prompts.item_line(int(item)) for item in items]
        assert f"user {user}" in page.inner_text("#about-question")
        answers = page.locator("#question .answers tbody tr")
        row = read_predictions(made_run / "evaluate" / "hstu" / "predictions.jsonl")[i]
        shown = answers.nth(1).inner_text().split()
        shares = np.exp(row["logits"]) / np.exp(row["logits"]).sum()
        sign = "✓" if row["prediction"] == row["answer"] else "✗"
        assert shown[:2] == ["HSTU", f"{row['prediction']}{sign}"]
        np.testing.assert_allclose([float(x) for x in shown[2:]], 100 * shares, atol=0.51)


def test_keys_sorting_themes_and_the_address(opened, page_file):
    page = opened(page_file, dark=True)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.focus("#browser")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#place") == "2"
    page.keyboard.press("End")
    assert page.input_value("#place") == page.get_attribute("#place", "max")
    page.focus("#table button[data-key=overall]")
    page.keyboard.press("Enter")
    column = [float(cells["overall"][0]) for cells in read_table(page).values()]
    assert column == sorted(column, reverse=True)
    assert page.get_attribute("#table th:has(button[data-key=overall])", "aria-sort") == "descending"
    page.keyboard.press("Enter")  # the focus stays on the heading
    column = [float(cells["overall"][0]) for cells in read_table(page).values()]
    assert column == sorted(column)
    choose(page, subtask="df")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    count = page.inner_text("#count")
    page.reload()
    page.wait_for_function("document.documentElement.dataset.ready")
    assert page.inner_text("#count") == count and page.input_value("[name=subtask]") == "df"


@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_hangs_over_the_edge(opened, page_file, width):
    page = opened(page_file, width=width)
    page.evaluate("document.querySelectorAll('.chart').forEach(chart => chart.scrollIntoView())")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#table tbody tr").count() == len(LETTER_METHODS)


def test_charts_show_differences_letters_and_curves(opened, page_file, made_run, small_evaluation):
    page, expected = opened(page_file), Expected(made_run, small_evaluation)
    page.select_option("#base", label="Trm++@q-former")
    found = {}
    for name in ("differences", "subtasks", "letters", "calibration", "training"):
        page.locator(f"#chart-{name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#chart-{name} svg")
        found[name] = page.eval_on_selector_all(
            f"#chart-{name} [aria-label]", "marks => marks.map(mark => mark.getAttribute('aria-label'))"
        )
    gap = 100 * (expected.correct["hstu"].mean() - expected.correct["trm++@q-former"].mean())
    texts = [text.replace("−", "-") for text in found["differences"] if "Method: HSTU" in text]
    assert any(f"Difference: {gap:+.2f}" in text for text in texts)
    assert any("given" in text for text in found["letters"]) and found["training"] and found["subtasks"]
    assert "expected calibration error" in page.inner_text("#calibration-caption")
    # A filter without questions empties a chart that is in sight, and the next one fills it again.
    choose(page, user=10**6)
    page.locator("#differences-title").scroll_into_view_if_needed()
    page.locator("#chart-differences").wait_for(state="hidden")
    choose(page)
    page.locator("#differences-title").scroll_into_view_if_needed()
    page.locator("#chart-differences svg.marks").wait_for(state="visible")


def test_a_page_knows_no_ids(page_file, small_store, opened):
    page = opened(page_file)
    data = page.evaluate(
        "async () => { const text = document.querySelector('script.results').textContent;"
        "const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));"
        "const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));"
        "return new TextDecoder('latin1').decode(await new Response(stream).arrayBuffer()); }"
    )
    assert small_store.catalogue.values["title"][0] in data
    assert not [user for user in small_store.user_ids if user in data or user[:12] in data]


def test_statistics_against_statsmodels_and_scipy(chromium):
    source = (resources.files("uqabench.report.page") / "assets" / "statistics.js").read_text()
    page = chromium.new_page()
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    values = rng.integers(-1, 2, len(users)).astype(float)
    net, asked = np.bincount(users, weights=values).tolist(), np.bincount(users).tolist()
    p_values = rng.random(9).tolist()
    found = page.evaluate(
        f"([net, asked, p]) => {{ {source}; return [clustered(net, asked), holm(p), accuracyOf([4, 3], [4, 3])]; }}",
        [net, asked, p_values],
    )
    page.close()
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": users})
    assert found[0]["mean"] == pytest.approx(fit.params[0]) and found[0]["error"] == pytest.approx(fit.bse[0])
    assert (found[0]["n"], found[0]["users"]) == (len(values), 40)
    np.testing.assert_allclose(found[1], multipletests(p_values, method="holm")[1])
    assert found[2]["low"] == pytest.approx(100 * 0.025 ** (1 / 2)) and found[2]["high"] == 100
    assert norm.ppf(0.8) == pytest.approx(0.8416212335729143)


class _Processor:
    """Processor time of a page's main thread, which other work on the machine does not lengthen."""

    def __init__(self, page: Any) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._before = 0.0

    def milliseconds(self) -> float:
        """Since the last call."""
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        now = 1e3 * next(each["value"] for each in metrics if each["name"] == "TaskDuration")
        spent, self._before = now - self._before, now
        return spent


@pytest.mark.slow
def test_fifty_thousand_questions(opened, made, tmp_path, capsys):
    """Opening within 2 s and filtering within 0.1 s are the goal; the times are printed, the numbers checked."""
    source = open_source("synthetic", users=3000, items=4000, mean_length=50.0, seed=3)
    config = PrepareConfig(min_item_interactions=2, min_user_length=8, max_sequence=64, evaluation_fraction=0.6)
    store: InteractionStore = prepare(source, tmp_path / "store", config, progress=False)
    mix = {name: 1.0 for name in SUBTASKS}
    asked = QuestionConfig(n_questions=10_000, mix=mix, history=48, min_history=10, cuts_per_user=4, seed=1)
    questions = generate(store, "evaluation", asked)[0]
    many = questions.select(np.arange(50_000) % len(questions))
    run = made(tmp_path / "many", store, many)
    started = time.monotonic()
    file = write_page([run], tmp_path / "report.html")
    written = time.monotonic() - started
    page = opened(file)
    clock = _Processor(page)
    page.reload()
    page.wait_for_function("document.documentElement.dataset.ready")
    ready, opening = int(page.evaluate("Number(document.documentElement.dataset.ready)")), clock.milliseconds()
    expected, times = Expected(run, many), []
    level = next(KINDS[kind].level for kind in many.kind if KINDS[kind].level) if asked.version == "v2" else None
    for filters in (
        *({"subtask": each} for each in (*SUBTASKS, *TASKS)),
        {"attribute": "category", "from": 20},
        {"kind": KINDS[many.kind[5]].name, "to": 30},
        {"user": int(many.user[7])},
        *([{"level": level}] if level else []),
        {},
    ):
        check_table(page, expected, **filters)
    for subtask in (*SUBTASKS, ""):
        script = (
            "async value => { const form = document.getElementById('filters'); form.elements.subtask.value = value;"
            "const start = performance.now(); form.dispatchEvent(new Event('input', { bubbles: true }));"
            "const counted = performance.now() - start; await new Promise(done => requestAnimationFrame(() =>"
            "setTimeout(done))); return [counted, performance.now() - start]; }"
        )
        clock.milliseconds()
        times.append([*page.evaluate(script, subtask), clock.milliseconds()])
    counted, painted, busy = np.median(times, axis=0)
    with capsys.disabled():
        print(
            f"\n50,000 questions, {len(LETTER_METHODS)} methods, {len(np.unique(many.user)):,} users: page of "
            f"{file.stat().st_size / 1e6:.2f} MB, written in {written:.1f} s; ready after {ready} ms ({opening:.0f} ms "
            f"of processor time); a filter is counted in {counted:.0f} ms and painted in {painted:.0f} ms ({busy:.0f} "
            "ms of processor time)"
        )
    for width in (400, 1600):
        narrow = opened(file, width=width, dark=width == 400)
        narrow.evaluate("document.querySelectorAll('.chart').forEach(chart => chart.scrollIntoView())")
        narrow.wait_for_timeout(1500)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= width


def test_pages_are_the_same_each_time(made_run, tmp_path):
    first, second = (write_page([made_run], tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second and b"</html>" in first


def test_what_is_missing_is_one_sentence(made_run, tmp_path, made, small_store, small_evaluation):
    from uqabench.errors import InputError

    with pytest.raises(InputError, match="holds no results"):
        write_page([tmp_path], tmp_path / "report.html")
    run = made(tmp_path / "run", small_store, small_evaluation)
    (run / "questions" / "methods-0" / "manifest.json").unlink()
    with pytest.raises(InputError, match="no longer holds the questions"):
        write_page([run], tmp_path / "report.html")
    (run / "evaluate" / "hstu" / "predictions.jsonl").unlink()
    with pytest.raises(InputError, match="answers of hstu are not in"):
        write_page([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_two_sets_of_results_share_a_page(opened, made, made_run, small_store, small_evaluation, tmp_path):
    other = made(tmp_path / "other", small_store, small_evaluation.select(np.arange(40)), seed=1)
    page = opened(write_page([made_run, other], tmp_path / "report.html"))
    before = page.inner_text("#count")
    page.select_option("#results", label="Run other")
    page.wait_for_function("document.getElementById('title').textContent === 'Run other'")
    assert page.inner_text("#count") != before and page.inner_text("#count").startswith("40 of 40")
    assert json.loads((other / "results.json").read_text())["seed"] == 1
