"""The contract of the files that a run writes: run results, experiment results, and prediction rows.

Each type describes the JSON object as it stands in the file. Reading a file checks it against its type, strictly (true
is no number, "1" no integer), and leaves the object as it was read; fields beyond the type are kept and ignored. A file
that breaks its contract is an InputError that names the field, what is expected there, and the way out.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import SchemaValidator
from typing_extensions import NotRequired, TypedDict, get_type_hints, is_typeddict

from uqabench.errors import InputError
from uqabench.vocabulary import LETTERS, PROBED, QUESTION_USERS, SUBTASKS, TASKS

SCHEMA = 1
"""Version of both results files."""


def _ascending(bounds: list[float]) -> list[float]:
    if bounds[0] > bounds[1]:
        raise ValueError
    return bounds


def _scalar(value: Any) -> Any:
    """A YAML scalar that can be shown: text, true or false, null, or a number of ordinary size."""
    if not (
        value is None or isinstance(value, (str, bool)) or (isinstance(value, (int, float)) and abs(value) < 1e300)
    ):
        raise ValueError
    return value


def _printable(text: str) -> str:
    if not text.isprintable():  # line breaks would tear tables, and half a surrogate pair cannot be written
        raise ValueError
    return text


Text = Annotated[str, AfterValidator(_printable), Field(description="a text in one line")]
FileName = Annotated[
    str,
    AfterValidator(_printable),
    Field(pattern=r"^[^./\\][^/\\]*$", description="a text that can be the name of a file"),
]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="a number from 0 to 100")]
Points = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False, description="a number from -100 to 100")]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="a number from 0 to 1")]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a finite number, at least 0")]
Logit = Annotated[float, Field(allow_inf_nan=False, description="a finite number")]
Count = Annotated[int, Field(ge=0, lt=2**63, description="a whole number, at least 0")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63, description="a whole number")]
Scalar = Annotated[Any, AfterValidator(_scalar), Field(description="a text or a number")]
_BOUNDS = "two numbers [low, high] in ascending order"
PercentInterval = Annotated[
    list[Percent], Field(min_length=2, max_length=2, description=_BOUNDS), AfterValidator(_ascending)
]
PointsInterval = Annotated[
    list[Points], Field(min_length=2, max_length=2, description=_BOUNDS), AfterValidator(_ascending)
]
Task = Literal[tuple(TASKS)]  # type: ignore[valid-type]
Subtask = Literal[SUBTASKS]  # type: ignore[valid-type]
Probed = Literal[PROBED]  # type: ignore[valid-type]
Letter = Literal[LETTERS]  # type: ignore[valid-type]
Users = Literal[QUESTION_USERS]  # type: ignore[valid-type]


class Score(TypedDict):
    """Accuracy in percent over `n` questions, with its 95 % interval."""

    accuracy: Percent
    ci95: PercentInterval
    n: Count


class MethodScores(TypedDict):
    """Scores by scope. A data set without questions of a sub-task has no score for it; `levels` has those of sub-tasks
    that are asked at several levels, as "ip:natural"."""

    overall: Score
    tasks: NotRequired[dict[Task, Score]]
    subtasks: NotRequired[dict[Subtask, Score]]
    levels: NotRequired[dict[Text, Score]]


class MethodResult(MethodScores):
    """One method of a run."""

    avg_tokens: NotRequired[Amount | None]
    seconds: NotRequired[dict[Text, Amount | None]]


class Comparison(TypedDict):
    """Accuracy of `a` minus that of `b` on the same questions, in percentage points; p is two-sided, not adjusted.

    `detectable` is the smallest true difference that a test at the 5 % level finds with a power of 80 % (null where
    the data cannot say), and `users` how many users the `n` questions are about.
    """

    a: Text
    b: Text
    scope: Text
    difference: Points
    ci95: PointsInterval
    p_value: Probability
    n: Count
    users: NotRequired[Count]
    detectable: NotRequired[Amount | None]


class Flag(TypedDict):
    """Why the score of a sub-task, or of a level as "ip:natural", says less than it seems, by the two judges.

    `flag`: "short-cut" where the model without history is significantly above the limit, "no-headroom" where the one
    with history is not significantly above it. The accuracies are theirs; p is one-sided, over users.
    """

    scope: Text
    flag: Literal["short-cut", "no-headroom"]
    no_history: Percent
    history: Percent
    p_value: Probability
    n: Count


class AdjustedDifference(TypedDict):
    """A difference of accuracies in percentage points over `n` questions about `users` users, with its 95 % interval.

    p is two-sided, p_holm adjusted for the same difference of all twins of the file. detectable: as in `Comparison`.
    """

    difference: Points
    ci95: PointsInterval
    p_value: Probability
    p_holm: Probability
    n: Count
    users: Count
    detectable: NotRequired[Amount | None]


class TwinDifference(AdjustedDifference):
    """Accuracy of an encoder minus that of its untrained twin over all questions and `seeds`, and by task.

    cells, twin_cells: whose they are in an experiment.
    """

    method: Text
    twin: Text
    cells: NotRequired[list[Count]]
    twin_cells: NotRequired[list[Count]]
    seeds: list[Integer]
    tasks: NotRequired[dict[Task, AdjustedDifference]]


class RunResults(TypedDict):
    """`results.json` of a run.

    `users` says whom the questions are about (without it, evaluation users). `pretrain` holds the stage's metrics by
    encoder (recall and NDCG in percent), `mix` the number of questions by sub-task, and `best`, by scope, the method
    that is significantly better than every other one; where there is none the scope is absent. `flags` are there where
    both judges answered, and `probes`, by embedding method and what is read, where there are any.
    """

    schema: Literal[1]
    dataset: Text
    llm: Text
    users: NotRequired[Users]
    methods: Annotated[dict[Text, MethodResult], Field(min_length=1, description="an object with at least one method")]
    pretrain: NotRequired[dict[Text, dict[Text, Amount | None]]]
    comparisons: NotRequired[list[Comparison]]
    twins: NotRequired[list[TwinDifference]]
    best: NotRequired[dict[Text, Text]]
    flags: NotRequired[list[Flag]]
    probes: NotRequired[dict[Text, dict[Probed, MethodScores]]]
    mix: NotRequired[dict[Text, Count]]
    seed: NotRequired[Integer]
    split_seed: NotRequired[Integer]
    versions: NotRequired[dict[Text, Text]]


class ExperimentCell(TypedDict):
    """One method with one combination of the axes' values and one seed.

    `axes` may lack axes that do not concern the method. `error` says why a cell failed. `sizes` has the encoder's
    `encoder_parameters` and `model_size` (parameters of its blocks, without embeddings). `predictions` is the path of
    the prediction file, relative to the run folder. `probes`: what probes read of it, where there are any, and
    `probe_answers` the paths of their prediction files. `soft_tokens`: how many soft tokens tell who the user is.
    """

    method: Text
    label: Text
    axes: dict[Text, Scalar]
    seed: Integer
    status: Literal["done", "failed", "missing"]
    error: NotRequired[str | None]
    avg_tokens: NotRequired[Amount | None]
    sizes: NotRequired[dict[Text, Amount | None] | None]
    pretrain: NotRequired[dict[Text, Amount | None] | None]
    seconds: NotRequired[dict[Text, Amount | None] | None]
    predictions: NotRequired[Text | None]
    soft_tokens: NotRequired[Count]
    probes: NotRequired[dict[Probed, MethodScores]]
    probe_answers: NotRequired[dict[Probed, Text]]


class ExperimentRow(TypedDict):
    """The score of a finished cell (an index into `cells`) in one scope: "overall", a task, a sub-task, or a level."""

    cell: Count
    scope: Text
    n: Count
    accuracy: Percent
    ci95: PercentInterval


class ExperimentResults(TypedDict):
    """`results.json` of an experiment, in long form: a row is a finished cell's score in one scope.

    `paper` is the key of the paper's table that the experiment repeats ("table2" to "table7"), `rule` how prediction
    files are scored (by default "letter").
    """

    schema: Literal[1]
    kind: Literal["experiment"]
    name: FileName
    dataset: Text
    llm: Text
    users: NotRequired[Users]
    axes: dict[Text, list[Scalar]]
    cells: Annotated[list[ExperimentCell], Field(min_length=1, description="a list of at least one cell")]
    rows: list[ExperimentRow]
    title: NotRequired[Text | None]
    paper: NotRequired[Text | None]
    preset: NotRequired[Text | None]
    split_seed: NotRequired[Integer]
    seeds: NotRequired[list[Integer]]
    rule: NotRequired[Literal["letter", "starts-with"]]
    versions: NotRequired[dict[Text, Text]]
    mix: NotRequired[dict[Text, Count]]
    flags: NotRequired[list[Flag]]
    comparisons: NotRequired[list[Comparison]]
    twins: NotRequired[list[TwinDifference]]


class QuestionPrediction(TypedDict):
    """One line of a prediction file in uqabench's form."""

    id: Annotated[int, Field(description="a whole number")]
    user: Annotated[int | str, Field(description="a number or a text")]
    subtask: Subtask
    prediction: str
    answer: Letter
    level: NotRequired[Annotated[str, Field(pattern=r"^[a-z]+$", description="a word in small letters")]]
    cut: NotRequired[int]
    text: NotRequired[str]
    method: NotRequired[str]
    logits: NotRequired[Annotated[list[Logit], Field(min_length=4, max_length=4, description="four finite numbers")]]
    tokens: NotRequired[Annotated[Amount, Field(description="a number of tokens")]]


class PublishedPrediction(TypedDict):
    """One line of a prediction file in the published form; of a list of answers the first counts."""

    question: str
    prediction: str
    answer: Annotated[
        Annotated[str, Field(min_length=1)] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)],
        Field(description="a text that is not empty, or a list of such"),  # every text starts with an empty one
    ]


def check_run_results(value: Any, where: str) -> RunResults:
    """`value` if it is a run's results; InputError names the first field that is not as it should be."""
    _check_version(value, where, "run")
    if value.get("kind") == "experiment":
        raise InputError(f"{where} holds the results of an experiment, not of a run: read it with load_experiment.")
    check(value, RunResults, where, "run `uqabench run` again to rewrite it")
    for scope, name in value.get("best", {}).items():
        if name not in value["methods"]:
            raise InputError(
                f"{where}: 'best.{scope}' must be one of the methods, but is {_shown(name)}: "
                "run `uqabench run` again to rewrite it."
            )
    return value


def check_experiment_results(value: Any, where: str) -> ExperimentResults:
    """`value` if it is an experiment's results; InputError names the first field that is not as it should be."""
    _check_version(value, where, "experiment")
    if value.get("kind") != "experiment":
        raise InputError(
            f"{where} holds no results of an experiment ('kind' is missing): read a run with load_results."
        )
    way_out = "run `uqabench experiment` again to rewrite it"
    check(value, ExperimentResults, where, way_out)

    def wrong(field: str, expected: str, found: Any) -> NoReturn:
        raise InputError(f"{where}: '{field}' must be {expected}, but is {_shown(found)}: {way_out}.")

    for index, cell in enumerate(value["cells"]):
        for axis, setting in cell["axes"].items():
            if axis not in value["axes"]:
                wrong(f"cells[{index}].axes", f"among the axes {', '.join(value['axes']) or '(none)'}", axis)
            if setting not in value["axes"][axis]:
                wrong(f"cells[{index}].axes.{axis}", f"one of the values of 'axes.{axis}'", setting)
    seen = set()
    for index, row in enumerate(value["rows"]):
        if row["cell"] >= len(value["cells"]) or value["cells"][row["cell"]]["status"] != "done":
            wrong(f"rows[{index}].cell", "the index of a cell that is done", row["cell"])
        if (row["cell"], row["scope"]) in seen:
            wrong(f"rows[{index}].scope", "the only row of its cell and scope", row["scope"])
        seen.add((row["cell"], row["scope"]))
    return value


def check(value: Any, form: Any, where: str, way_out: str) -> None:
    """Raise InputError for the first part of `value` that `form` does not allow.

    where: what `value` is, as the sentence begins. way_out: what to do about it, as the sentence ends.
    """
    try:
        _validator(form).validate_python(value, strict=True)
    except ValidationError as caught:
        error = caught.errors(include_url=False)[0]
    else:
        return
    if error["loc"] and error["loc"][-1] == "[key]":
        *parents, key = error["loc"][:-1]
        key_form = get_args(_bare(_at(form, parents)))[0]
        known = get_args(key_form) if get_origin(key_form) is Literal else ()
        hint = f"known are {', '.join(known)}" if known else "names are texts in one line"
        raise InputError(f"{where}: '{_dotted([*parents, key])}' is unknown: {hint}.")
    steps, expected = _located(form, error["loc"])
    found = "missing" if error["type"] == "missing" else _shown(error["input"])
    subject = f"{where}: '{_dotted(steps)}'" if steps else where
    raise InputError(f"{subject} must be {expected}, but is {found}: {way_out}.")


@cache
def _validator(form: Any) -> SchemaValidator:
    return TypeAdapter(form).validator


def _check_version(value: Any, where: str, command: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where} must hold an object, but holds {_shown(value)}: run `uqabench {command}` again.")
    if type(value.get("schema")) is not int or value["schema"] != SCHEMA:
        raise InputError(
            f"{where}: 'schema' is {_shown(value.get('schema'))} and this version reads {SCHEMA}: "
            "report it with the version that wrote it, or run again."
        )


def _located(form: Any, loc: Iterable[int | str]) -> tuple[list[int | str], str]:
    """The steps of `loc` that lead to a field, and what is expected there; branches of unions are no steps."""
    steps: list[int | str] = []
    expected = _words(form)
    for step in loc:
        if get_origin(_bare(form)) in (Union, types.UnionType):
            break  # the whole union says what is expected
        form = _part(form, step)
        steps.append(step)
        expected = _words(form)
    return steps, expected


def _at(form: Any, loc: Iterable[int | str]) -> Any:
    for step in loc:
        form = _part(form, step)
    return form


def _part(form: Any, step: int | str) -> Any:
    """The type of the field, item or value that `step` leads to."""
    form = _bare(form)
    if is_typeddict(form):
        return get_type_hints(form, include_extras=True)[step]
    return get_args(form)[-1]  # of list[T] or dict[str, T]


def _bare(form: Any) -> Any:
    """`form` without Annotated, NotRequired and a lone alternative null."""
    while True:
        origin = get_origin(form)
        if origin is Annotated or origin is NotRequired:
            form = get_args(form)[0]
        elif origin in (Union, types.UnionType) and len(left := _alternatives(form)) == 1:
            form = left[0]
        else:
            return form


def _alternatives(form: Any) -> list[Any]:
    return [part for part in get_args(form) if part is not type(None)]


def _words(form: Any) -> str:
    """What a type asks for, to stand behind "must be"."""
    origin = get_origin(form)
    if origin is NotRequired:
        return _words(get_args(form)[0])
    if origin is Annotated:
        described = [data.description for data in form.__metadata__ if isinstance(data, FieldInfo) and data.description]
        return described[-1] if described else _words(get_args(form)[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, _alternatives(form))) + (" or null" if type(None) in get_args(form) else "")
    if origin is Literal:
        return ("one of " if len(get_args(form)) > 1 else "") + ", ".join(map(str, get_args(form)))
    if origin is list:
        return "a list"
    return {str: "a text", int: "a whole number"}.get(form, "an object")


def _dotted(steps: Iterable[int | str]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{ascii(step)[1:-1]}" for step in steps)
    return _cut(text.removeprefix("."))


def _shown(value: Any) -> str:
    """`value` as JSON's reader would recognise it, cut short."""
    if value is None:
        return "null"
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "an integer of thousands of digits"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
