"""Which methods are compared by default where the questions came with the data."""

from __future__ import annotations

import pytest

from uqabench.cli import build_parser
from uqabench.errors import InputError
from uqabench.experiments.cli_config import settings_of
from uqabench.experiments.spec import cells, load_experiment
from uqabench.plan.methods import parse_method, parse_methods
from uqabench.plan.plan import problem_of
from uqabench.questions.baselines import check_answerable
from uqabench.settings import run_config
from uqabench.vocabulary import GIVEN_BASELINES, MODEL_FREE_BASELINES

GIVEN = ("--source", "store", "--path", "somewhere", "--questions", "official")


def methods(*arguments):
    config = settings_of(build_parser().parse_args(["run", *arguments]))
    return [method.name for method in parse_methods(config)], config


def cannot(names):
    return set(names) & (set(MODEL_FREE_BASELINES) - set(GIVEN_BASELINES))


@pytest.mark.parametrize("preset", ["tiny", "demo", "paper"])
def test_the_lists_of_presets_fit_the_questions(preset):
    fitted, config = methods("--preset", preset, *GIVEN)
    whole, _ = methods("--preset", preset)
    assert fitted == [name for name in whole if name not in cannot(whole)] and cannot(whole)
    assert all(problem_of(method) is None for method in parse_methods(config) if method.kind == "baseline")


def test_what_is_asked_for_by_name_stays_and_its_reason_is_told(tmp_path):
    chosen = tmp_path / "mine.yaml"
    chosen.write_text("methods: [oracle, uniform]\n")
    for arguments in (
        ["--methods", "oracle,uniform"],
        ["--set", "methods=[oracle,uniform]"],
        ["--config", str(chosen)],
    ):
        names, config = methods("--preset", "tiny", *GIVEN, *arguments)
        assert names == ["oracle", "uniform"]
    problem = problem_of(parse_method("oracle", config))
    assert "'oracle' compares options' values" in str(problem) and "uniform, majority" in str(problem)
    with pytest.raises(InputError, match="'oracle' compares options' values"):
        check_answerable("oracle")
    assert problem_of(parse_method("oracle", run_config("tiny"))) is None


def test_experiments_that_ship_leave_them_out(tmp_path):
    _, config = methods("--preset", "tiny", *GIVEN)
    shipped = load_experiment("encoders")
    names = [cell.method.name for cell in cells(shipped, config)]
    assert not cannot(names) and {"text20", "uniform", "majority", "no-history", "shuffled"} <= set(names)
    own = tmp_path / "own.yaml"
    own.write_text("title: mine\nsweeps: [{methods: [uniform, oracle]}]\n")
    assert [cell.method.name for cell in cells(load_experiment(str(own)), config)] == ["uniform", "oracle"]
