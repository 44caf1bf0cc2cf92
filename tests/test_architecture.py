"""The shape of the repository: which package may import which, what lies where, and what no file may hold."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = {
    **{path: f"uqabench.{path.relative_to(ROOT / 'uqabench')}" for path in (ROOT / "uqabench").rglob("*.py")},
    **{path: f"uqabench.kernels.{path.relative_to(ROOT / 'kernels')}" for path in (ROOT / "kernels").rglob("*.py")},
}
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CMakeLists.txt",
    "LICENSE",
    "Makefile",
    "README.md",
    "bench",
    "csrc",
    "docs",
    "kernels",
    "pyproject.toml",
    "tests",
    "uqabench",
}
BASE = {"errors", "files", "locks", "vocabulary", "settings", "artifact", "objects", "registry"}
MAY_IMPORT = {
    "errors": set(),
    "vocabulary": set(),
    "files": {"errors"},
    "settings": {"errors", "files", "vocabulary"},
    "artifact": {"errors", "files"},
    "locks": {"errors", "files"},
    "objects": {"errors"},
    "registry": {"errors", "objects"},
    "kernels": {"_native"},
    "data": BASE | {"__init__"},
    "questions": BASE | {"data"},
    "encoders": BASE | {"data", "kernels"},
    "llm": BASE | {"data", "kernels", "questions"},
    "integrations": BASE | {"data", "kernels", "questions", "encoders", "llm"},
    "stages": BASE | {"data", "kernels", "questions", "encoders", "llm", "integrations"},
    "report": BASE | {"__version__", "data", "questions"},
    "plan": BASE | {"data", "kernels", "questions", "encoders", "llm", "integrations", "stages"},
    "experiments": BASE | {"data", "questions", "encoders", "llm", "integrations", "stages", "plan", "report"},
    "doctor": {"__version__", "kernels"},
    "cli": BASE | {"__version__", "data", "questions", "llm", "plan", "experiments", "report", "doctor"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""What each part of uqabench may import of the others: cli → {report, experiments} → plan → stages → {integrations,
llm, encoders, questions} → {data, kernels} → {vocabulary, settings, artifact, registry, _native}. llm builds prompts
from questions; report reads prediction files and resamples their users with questions' scoring and statistics."""


def module_name(path: Path) -> list[str]:
    return SOURCE[path].removesuffix(".py").replace("/", ".").split(".")


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere: at its head, in functions, for type checkers only."""
    package = module_name(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    return module_name(path)[1]


def kept_files() -> Iterator[Path]:
    """Files of the repository: everything below the allowed top level that .gitignore does not name."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    for top in sorted(TOP_LEVEL):
        found = ROOT / top
        for path in [found] if found.is_file() else sorted(found.rglob("*")):
            names = path.relative_to(ROOT).parts
            if path.is_file() and not any(fnmatch.fnmatch(name, rule) for name in names for rule in ignored):
                yield path


def texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    for path in kept_files():
        if not suffixes or path.suffix in suffixes:
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # weights and pictures


def test_the_table_names_every_part():
    assert {part(path) for path in SOURCE} <= set(MAY_IMPORT)


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_imports_go_one_way(name: str):
    own = [path for path in SOURCE if part(path) == name]
    for path in own:
        for imported in imports(path):
            first, *rest = imported.split(".")
            if first == "uqabench":
                target = rest[0] if rest else "__init__"
                assert target == name or target in MAY_IMPORT[name], f"{path}: imports {imported}"


def test_data_questions_and_report_know_no_torch():
    for path in SOURCE:
        if part(path) in ("data", "questions", "report", "settings", "errors", "files", "objects"):
            for imported in imports(path):
                assert imported.split(".")[0] not in ("torch", "transformers"), f"{path}: imports {imported}"


def test_encoders_and_kernels_know_no_transformers():
    for path in SOURCE:
        if part(path) in ("encoders", "kernels"):
            assert not [name for name in imports(path) if name.split(".")[0] == "transformers"], path


def test_no_function_hides_another_of_its_name():
    """Neither in a module nor in a class; ruff lets a name pass that is read before it is defined anew."""
    for path in SOURCE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef)):
                defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
                names = [each.name for each in node.body if isinstance(each, defined) and not each.decorator_list]
                assert len(names) == len(set(names)), f"{path}: {sorted(n for n in names if names.count(n) > 1)}"


def test_an_import_is_found_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.py"
    path.write_text("import a.b\ndef f():\n    from torch import nn\nfrom ..c import d\nfrom . import e\n")
    monkeypatch.setitem(SOURCE, path, "uqabench.kernels.gru.x.py")
    assert set(imports(path)) == {"a.b", "torch.nn", "uqabench.kernels.c.d", "uqabench.kernels.gru.e"}


def test_native_code_knows_no_torch():
    found = [path for path, text in texts(".cpp", ".h", ".cu", ".cuh") if path.is_relative_to(ROOT / "csrc")
             if re.search(r"#\s*include\s*[<\"](torch|ATen|c10)\b", text)]  # fmt: skip
    assert not found


def test_the_top_level_holds_what_it_should():
    rules = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    names = {path.name for path in ROOT.iterdir() if not any(fnmatch.fnmatch(path.name, rule) for rule in rules)}
    assert names - {".git"} <= TOP_LEVEL
    assert TOP_LEVEL - {"bench"} <= names


def test_every_operator_folder_is_built_alike():
    folders = [path for path in (ROOT / "kernels").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(folders) >= 13
    for folder in folders:
        for name in ("__init__.py", "operator.py", "reference.py", "eager.py"):
            assert (folder / name).is_file(), f"{folder.name} has no {name}"


def test_operators_and_their_folders_share_names():
    from uqabench import kernels

    folders = {path.parent.name for path in (ROOT / "kernels").glob("*/operator.py")}
    steps = {f"{name}_step" for name in folders}
    assert set(kernels.__all__) - steps - {"use_backend"} == folders


def test_one_declaration_registers_an_operator():
    """torch.library and autograd are named where operators are declared; a backend has `forward` and `backward`."""
    for path in (ROOT / "kernels").glob("*/*.py"):
        if path.stem in ("native", "triton", "cuda"):
            source = path.read_text()
            assert "torch.library" not in source and "autograd" not in source, path
            assert re.search(r"^def forward\(|forward$|as forward$", source, re.MULTILINE), path


def test_the_kernels_exist_once():
    """transformers looks for a package called `kernels`, and an editable install lets it find ours: a second copy would
    define every torch operator again and free the first ones while they are in use."""
    code = (
        "import sys, uqabench.kernels\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import kernels\n"
        "print(kernels is uqabench.kernels, [name for name in sys.modules if name.startswith('kernels.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def test_files_speak_of_the_project_alone():
    # Written in pieces, so that this file does not hold them itself.
    words = ["/wo" + "rk/", "iss" + "ue #", "iss" + r"ue \d", "TO" + "DO", "FIX" + "ME", "/ro" + "ot/"]
    pattern = re.compile("|".join(words), re.IGNORECASE)
    found = {str(path.relative_to(ROOT)): match[0] for path, text in texts() if (match := pattern.search(text))}
    assert not found
