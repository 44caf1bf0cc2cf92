"""The tables say what results.json says, in four formats."""

import csv
import io
import re
from importlib.util import find_spec

import pytest

from uqabench.errors import InputError
from uqabench.files import write_json
from uqabench.report import comparison_table, load_results, main_table, pretrain_table, write_tables
from uqabench.report.render import comma_separated, escape_latex, latex, markdown, plain_table, terminal

BASELINES = ("uniform", "majority", "popularity", "seen-option", "no-history", "shuffled", "oracle")
SUBTASKS = ("df", "mf", "ip", "ap", "li", "si", "it")


def markdown_rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_rows_are_grouped_and_ordered_as_in_the_paper(results):
    names = [row[0] for row in markdown_rows(markdown(main_table(results)))[2:]]
    assert names == [
        *("*Text-based*", "Text20", "Text20@zero-shot", "Text50"),
        *("*Embedding-based*", "GRU4Rec", "SASRec", "Mamba4Rec", "HSTU", "Trm++", "Trm++@q-former", "my_pkg.net:Tower"),
        *("*Baselines*", "Uniform", "Majority", "Popularity", "Seen-option", "No-history", "Shuffled", "Oracle"),
    ]


def test_every_number_of_the_main_table_is_where_its_heading_says(results):
    heading, _, *rows = markdown_rows(markdown(main_table(results)))
    row = dict(zip(heading, next(row for row in rows if row[0] == "HSTU"), strict=True))
    hstu = results["methods"]["hstu"]
    for subtask in SUBTASKS:
        assert row[subtask.upper()].strip("*") == f"{hstu['subtasks'][subtask]['accuracy']:.2f}"
    for task, title in (
        ("sequence_understanding", "Sequence understanding avg"),
        ("action_prediction", "Action prediction avg"),
        ("interest_perception", "Interest perception avg"),
    ):
        assert row[title].strip("*") == f"{hstu['tasks'][task]['accuracy']:.2f}"
    low, high = hstu["overall"]["ci95"]
    assert row["Overall"].replace("*", "") == f"{hstu['overall']['accuracy']:.2f} [{low:.2f}, {high:.2f}]"
    assert row["Tokens"] == "133"


def test_only_what_the_results_call_significantly_best_is_marked(results):
    results["best"] = {"overall": "hstu", "df": "text20", "interest_perception": "hstu"}
    heading, _, *rows = markdown_rows(markdown(main_table(results)))
    bold = {(row[0], heading[index]) for row in rows for index, cell in enumerate(row) if cell.startswith("**")}
    assert bold == {("HSTU", "Overall"), ("Text20", "DF"), ("HSTU", "Interest perception avg")}
    text = terminal(main_table(results)).splitlines()
    assert sum(line.count("*") for line in text if line.startswith(("Text20", "HSTU"))) == 3
    assert latex(main_table(results)).count(r"\textbf") == 3
    assert "Bold: significantly better" in markdown(main_table(results)) and "\n* significantly" in str(
        main_table(results)
    )


def test_nothing_is_marked_without_tests_and_a_note_says_when_none_won(results):
    assert "**" not in markdown(main_table(results)) and "significant" not in markdown(main_table(results))
    text = markdown(main_table({**results, "best": {}}))
    assert "**" not in text and "Nothing is marked" in text


def test_the_terminal_table_fits_and_its_columns_align(results):
    lines = str(main_table(results)).splitlines()
    assert max(map(len, lines)) <= 110
    spans, heading = lines[:2]
    for span, first, last in (
        ("Sequence understanding", "DF", "Avg"),
        ("Action prediction", "IP", "Avg"),
        ("Interest perception", "LI", "Avg"),
    ):
        start = spans.index(span)
        assert start <= heading.index(first) <= start + len(span)
        assert heading.index(last, start) >= heading.index(first)
    ends = {
        match.end()
        for line in lines
        if line.startswith(("Text", "HSTU"))
        for match in [re.search(r"[\d,]+$", line)]
        if match
    }
    assert len(ends) == 1
    uniform = next(line for line in lines if line.startswith("Uniform"))
    overall = results["methods"]["uniform"]["overall"]
    assert f"±{overall['accuracy'] - overall['ci95'][0]:.1f}" in uniform  # the longer arm of 1.3 and 1.1
    assert "Questions: DF 1,508, MF 128" in lines[-1] and "7,192 in all" in lines[-1]


def test_the_papers_numbers_stand_beside_the_methods_that_it_has(results):
    table = main_table(results, compare="paper")
    heading, _, *rows = markdown_rows(markdown(table))
    beside = {row[0]: row[heading.index("Paper SU") :] for row in rows}
    assert heading[-5:] == ["Paper SU", "Paper AP", "Paper IP", "Paper overall", "Paper tokens"]
    assert beside["Trm++"] == ["45.72", "42.38", "68.71", "53.88", "133"]
    assert beside["HSTU"] == ["41.86", "41.31", "64.45", "50.88", "-"]
    assert beside["Trm++@q-former"] == beside["Oracle"] == ["-"] * 5
    record = next(r for r in csv.DictReader(io.StringIO(comma_separated(table))) if r["method"] == "text50")
    assert (record["paper_si"], record["paper_tokens"]) == ("89.8", "2498.19")
    assert max(map(len, terminal(table).splitlines())) <= 130
    with pytest.raises(InputError, match="'paper', not with 'theirs'"):
        main_table(results, compare="theirs")


def test_two_decimals_where_they_fit_and_names_are_cut_where_nothing_does(results):
    short = {name: m for name, m in results["methods"].items() if "@" not in name and ":" not in name}
    text = terminal(main_table({**results, "methods": short}))
    assert f"{short['hstu']['subtasks']['df']['accuracy']:.2f}" in text
    assert max(map(len, text.splitlines())) <= 110
    results["methods"]["a.rather.long.package.name.of.encoders:TheEncoderOfMine"] = results["methods"]["hstu"]
    text = terminal(main_table(results))
    assert max(map(len, text.splitlines())) <= 110 and "a.rather" in text and "…" in text


def test_what_was_not_asked_is_a_dash_and_an_empty_field(results):
    for method in results["methods"].values():
        del method["subtasks"]["mf"]
    del results["methods"]["hstu"]["avg_tokens"]
    heading, _, *rows = markdown_rows(markdown(main_table(results)))
    assert all(row[heading.index("MF")] == "-" for row in rows if row[1])
    assert "MF" not in main_table(results).notes[-1]
    record = next(csv.DictReader(io.StringIO(comma_separated(main_table(results)))))
    assert record["mf"] == ""
    assert " & -- & " in latex(main_table(results))


def test_csv_keeps_unrounded_values(results):
    records = {r["method"]: r for r in csv.DictReader(io.StringIO(comma_separated(main_table(results))))}
    assert set(records) == set(results["methods"])
    for name, method in results["methods"].items():
        record = records[name]
        assert float(record["si"]) == method["subtasks"]["si"]["accuracy"]
        assert float(record["interest_perception"]) == method["tasks"]["interest_perception"]["accuracy"]
        assert [float(record["ci95_low"]), float(record["ci95_high"])] == method["overall"]["ci95"]
        assert float(record["seconds_align"]) == method["seconds"]["align"]
    assert (records["trm++@q-former"]["group"], records["oracle"]["group"]) == ("Embedding-based", "Baselines")


def latex_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.endswith(r"\\")]


@pytest.mark.parametrize(
    "build", [main_table, pretrain_table, lambda results: comparison_table(results["comparisons"])]
)
def test_latex_is_balanced_and_every_row_fills_the_columns(results, build):
    text = latex(build(results))
    align = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1]
    for row in latex_rows(text):
        cells = re.split(r"(?<!\\)&", row)
        width = sum(int(m[1]) if (m := re.search(r"\\multicolumn\{(\d+)\}", cell)) else 1 for cell in cells)
        assert width == len(align), row
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert rule in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#_^~]", body)


def test_latex_escapes():
    assert escape_latex("a_b & 50% of {$x#^~}\\") == (
        r"a\_b \& 50\% of \{\$x\#\textasciicircum{}\textasciitilde{}\}\textbackslash{}"
    )


def test_names_are_escaped_in_every_format(results):
    odd = 'a_b|c,"d"'
    results["methods"][odd] = results["methods"]["hstu"]
    assert r"a\_b|c" in latex(main_table(results))
    assert r"a_b\|c" in markdown(main_table(results))
    assert odd in {r["method"] for r in csv.DictReader(io.StringIO(comma_separated(main_table(results))))}


def test_pretrain_table_shows_ranking_metrics_in_order_and_marks_nothing(results):
    text = markdown(pretrain_table(results))
    heading, _, *rows = markdown_rows(text)
    assert heading == [
        "Encoder",
        *(f"{kind}@{k}" for kind in ("Recall", "NDCG") for k in (1, 5, 10, 20, 50, 100)),
        "Perplexity",
    ]
    by_name = {row[0]: row for row in rows}
    assert by_name["GRU4Rec"][heading.index("Recall@10")] == f"{results['pretrain']['gru4rec']['recall@10']:.2f}"
    assert "**" not in text  # there are no intervals to tell the best by
    assert max(map(len, terminal(pretrain_table(results)).splitlines())) <= 110
    assert pretrain_table({**results, "pretrain": {}}) is None


def test_comparisons_are_grouped_by_pair_and_adjusted_across_the_table(results):
    text = terminal(comparison_table(results["comparisons"]))
    first, second = text.index("Trm++ minus Shuffled"), text.index("Text50 minus Text20")
    assert first < text.index("interest perception") < second < text.index("-1.50 [-3.50, +1.50]")
    assert text.count("Trm++ minus Shuffled") == 1
    records = list(csv.DictReader(io.StringIO(comma_separated(comparison_table(results["comparisons"])))))
    assert [(r["a"], r["scope"], float(r["p_value"]), float(r["p_holm"])) for r in records] == [
        ("trm++", "overall", 0.0001, pytest.approx(0.0003)),
        ("trm++", "interest_perception", 0.0001, pytest.approx(0.0003)),
        ("text50", "df", 0.31, 0.31),
    ]
    assert comparison_table([]) is None
    assert "Detectable:" not in text  # results of earlier versions do not have it


def test_what_cannot_be_detected_is_said_by_scope_for_the_best_pair(results):
    pairs = [(("trm++", "hstu"), 9.1), (("text50", "text20"), 7.9), (("text50", "oracle"), None)]
    comparisons = [
        {**results["comparisons"][0], "a": a, "b": b, "scope": "mf", "n": 300, "users": 190, "detectable": points}
        for (a, b), points in pairs
    ]
    note = comparison_table(comparisons).notes[-1]
    assert note in main_table({**results, "comparisons": comparisons}).notes
    assert "MF: 300 questions of 190 users cannot see less than 7.9 points." in note


def test_write_tables_leaves_whole_files_only(results, tmp_path):
    write_json(tmp_path / "results.json", results)
    paths = write_tables(load_results(tmp_path), tmp_path / "tables")
    expected = {
        f"{name}.{suffix}" for name in ("table2", "pretrain", "comparisons") for suffix in ("txt", "md", "tex", "csv")
    }
    if find_spec("matplotlib"):
        expected |= {"accuracy.png", "tokens.png"}
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "tables").iterdir()} == expected
    before = {path: path.read_bytes() for path in paths}
    write_tables(results, tmp_path / "tables")
    assert {path: path.read_bytes() for path in paths} == before


def test_plain_table_aligns_dictionaries():
    rows = [{"step": "as read", "users": 1469307}, {"step": "kept", "users": 12, "mean": 3.25}]
    assert plain_table(rows).splitlines() == [
        "step         users  mean",
        "as read  1,469,307",
        "kept            12   3.2",
    ]
    assert plain_table([]) == ""
