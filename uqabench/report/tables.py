"""The tables of a run: methods by sub-task (the paper's Table 2), pre-training, and paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from uqabench.questions.statistics import holm
from uqabench.report.flags import flag_notes, flagged
from uqabench.report.model import Cell, Column, Section, Table
from uqabench.report.rows import ScoreRow, run_rows
from uqabench.report.scores import (
    accuracy_notes,
    best_notes,
    bounds,
    check_compare,
    count_notes,
    level_notes,
    paper_order,
    pretrain_scores,
    score_table,
    users_notes,
)
from uqabench.settings.results import Comparison, RunResults
from uqabench.vocabulary import SCOPES, SUBTASKS, display_name


def main_table(results: RunResults, compare: str | None = None) -> Table:
    """Accuracy of every method by sub-task and task, overall with its 95 % interval, and prompt tokens (Table 2).

    compare: "paper" puts the paper's numbers beside.
    """
    check_compare(compare)
    rows = run_rows(results)
    rows = [rows[index] for index in paper_order([row.method for row in rows])]
    flags = results.get("flags", [])
    notes = [*users_notes(results), *accuracy_notes(), *best_notes(rows, tested="best" in results)]
    notes += [*power_notes(results.get("comparisons", [])), *level_notes(rows), *flag_notes(flags), *count_notes(rows)]
    return score_table("table2", rows, notes, paper="table2" if compare else None, marks=flagged(flags))


def pretrain_table(results: RunResults) -> Table | None:
    """Recall@k and NDCG@k in percent and perplexity by encoder, beside popularity; None without such results."""
    pretrain = results.get("pretrain", {})
    names = [list(pretrain)[index] for index in paper_order(list(pretrain))]
    return pretrain_scores("Encoder", [ScoreRow(name, display_name(name), pretrain=pretrain[name]) for name in names])


def comparison_table(comparisons: Sequence[Comparison]) -> Table | None:
    """Paired differences between methods on the same questions; None where there are none."""
    if not comparisons:
        return None
    columns = [
        Column("Questions of"),
        Column("Difference", signed=True),
        Column("p", decimals=4, fixed=True),
        Column("Holm p", decimals=4, fixed=True),
        Column("n", decimals=0, fixed=True),
        Column("Detectable"),
    ]
    pairs: dict[tuple[str, str], list[list[Cell]]] = {}
    records = []
    for c, adjusted in zip(comparisons, holm([c["p_value"] for c in comparisons]).tolist(), strict=True):
        row = [Cell(_scope_name(c["scope"])), Cell(c["difference"], (c["ci95"][0], c["ci95"][1]))]
        row += map(Cell, (c["p_value"], adjusted, c["n"], c.get("detectable")))
        pairs.setdefault((c["a"], c["b"]), []).append(row)
        record = {"a": c["a"], "b": c["b"], "scope": c["scope"], "difference": c["difference"], **bounds(c["ci95"])}
        record |= {"p_value": c["p_value"], "p_holm": adjusted, "n": c["n"]}
        records.append(record | {"users": c.get("users"), "detectable": c.get("detectable")})
    sections = [Section(f"{display_name(a)} minus {display_name(b)}", rows) for (a, b), rows in pairs.items()]
    notes = [
        "Differences in percentage points with 95 % intervals, on the same questions; users are the unit of all tests.",
        f"p is two-sided; Holm p is adjusted for the {len(comparisons)} comparisons of this table (Holm 1979).",
        *power_notes(comparisons),
    ]
    return Table("comparisons", columns, sections, records, notes)


def power_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """What the questions of each scope could show, from the pair of methods with the smallest detectable difference."""
    smallest: dict[str, Comparison] = {}
    for c in comparisons:
        least = smallest.get(c["scope"])
        if c.get("detectable") is not None and (least is None or c["detectable"] < least["detectable"]):
            smallest[c["scope"]] = c
    if not smallest:
        return []
    facts = []
    for scope in sorted(smallest, key=lambda scope: SCOPES.index(scope) if scope in SCOPES else len(SCOPES)):
        c = smallest[scope]
        users = f" of {c['users']:,} users" if "users" in c else ""
        facts.append(
            f"{_scope_name(scope)}: {c['n']:,} questions{users} cannot see less than {c['detectable']:.1f} points"
        )
    return [
        "Detectable: the true difference that such a test finds four times in five (5 %, two-sided, before Holm). "
        f"Even for the pair of methods that is easiest to compare: {'; '.join(facts)}."
    ]


def _scope_name(scope: str) -> str:
    return scope.upper() if scope in SUBTASKS else display_name(scope).lower()
