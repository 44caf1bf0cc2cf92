"""Names that every part of uqabench shares: answer letters, tasks and sub-tasks, methods and how they are displayed."""

from __future__ import annotations

LETTERS = ("A", "B", "C", "D")
"""Letters of a question's options, in order."""

TASKS: dict[str, tuple[str, ...]] = {
    "sequence_understanding": ("df", "mf"),
    "action_prediction": ("ip", "ap"),
    "interest_perception": ("li", "si", "it"),
}
"""The paper's three tasks and their sub-tasks (Table 1), in the order of its Table 2."""
SUBTASKS = tuple(subtask for subtasks in TASKS.values() for subtask in subtasks)
SCOPES = ("overall", *TASKS, *SUBTASKS)
"""What an accuracy can be about."""

SUBTASK_MARKERS: dict[str, tuple[str, ...]] = {
    "df": ("次浏览的商品的", "次（从1开始计数）浏览的"),
    "mf": ("长度是多少？", "的商品有多少个"),
    "ip": ("下一个可能点击的商品的标题是什么",),
    "ap": ("用户下一个可能点击的商品的",),
    "li": ("用户最感兴趣的3个",),
    "si": ("用户近期最感兴趣的",),
    "it": ("偏好的转移路径是什么",),
}
"""What tells the sub-task of a published question, tried in this order: a question may hold the marker of a later
sub-task too."""

QUESTION_VERSIONS = ("v1", "v2")
"""Rules by which questions are made (docs/questions.md); a version's questions stay the same to the byte."""
QUESTION_USERS = ("evaluation", "validation")
"""Whom the questions that decide a score may be about."""
GIVEN_QUESTIONS = "official"
"""In place of a version: the questions that came with the data, as they stand."""
DOMAINS = ("click", "purchase", "watch")
"""What an interaction of a log is, for the words of questions."""

ENCODERS = ("gru4rec", "sasrec", "mamba4rec", "hstu", "trm++")
"""The encoders of the paper's Table 2, in its order."""
JUDGES = ("no-history-model", "history-model")
"""Models of explicit features, without a language model, fitted on training questions: of options and question alone,
and of the history too."""
MODEL_FREE_BASELINES = ("uniform", "majority", "popularity", "most-often-next", "seen-option", *JUDGES, "oracle")
"""Baselines that answer without a language model."""
GIVEN_BASELINES = ("uniform", "majority")
"""Those of them that can answer questions that came with the data, whose options are words and have no values."""
BASELINES = (
    "uniform", "majority", "popularity", "most-often-next", "seen-option", *JUDGES, "no-history", "shuffled", "oracle"
)  # fmt: skip
"""All baselines, in the order of the tables."""
RIVALS = tuple(name for name in BASELINES if name not in ("uniform", "history-model", "oracle"))
"""Baselines that a method's score is compared with: neither the coin, nor the truth, nor the ceiling."""

PROBED = ("states", "pooled", "soft tokens")
"""What probes read of an embedding method, from encoder to language model."""

CONTROLS = ("bag-of-items", "history-vector")
"""Methods without a sequence encoder, through the same adapter and language model: what an encoder is to add to, and
what it can add at most."""
CONTROL_VARIANTS = ("untrained", "shuffled")
"""Variants that take from a method what it is to be credited with: its training, or whose vector is shown."""

GROUPS = ("Text-based", "Embedding-based", "Controls", "Baselines")
"""Sections of the main table."""
ASIDE = ("Controls", "Baselines")
"""Sections that stand behind the others and among which no best method is sought."""

TASK_INITIALS = {"sequence_understanding": "SU", "action_prediction": "AP", "interest_perception": "IP"}
"""How the paper's Tables 3 to 6 head the tasks' columns (as a sub-task, ip is item prediction)."""

_DISPLAY_NAMES = {
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "mamba4rec": "Mamba4Rec",
    "mamba2": "Mamba2",
    "hstu": "HSTU",
    "trm++": "Trm++",
    "bag-of-items": "Bag of items",
    "history-vector": "History vector",
    "sequence_understanding": "Sequence understanding",
    "action_prediction": "Action prediction",
    "interest_perception": "Interest perception",
    "overall": "Overall",
}


def group(method: str) -> str:
    """The entry of GROUPS that a method belongs to; a variant (`method@variant`) follows its method, unless it
    is a control."""
    base, _, variants = method.partition("@")
    if base in BASELINES:
        return "Baselines"
    if base in CONTROLS or set(CONTROL_VARIANTS) & set(variants.split("+")):
        return "Controls"
    return "Text-based" if base.startswith("text") else "Embedding-based"


def subtask_of(question: str) -> str | None:
    """Key of the sub-task of a published question, by the first marker that its text holds; None without any."""
    found = (key for key, markers in SUBTASK_MARKERS.items() if any(marker in question for marker in markers))
    return next(found, None)


def display_name(name: str) -> str:
    """How tables spell a method (with its variant, if it has one), a task, or a sub-task."""
    base, _, variant = name.partition("@")
    if base in SUBTASKS:
        return base.upper()
    shown = _DISPLAY_NAMES.get(base, base if group(base) == "Embedding-based" else base.capitalize())
    return f"{shown}@{variant}" if variant else shown
