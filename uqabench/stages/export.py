"""Prompts as embeddings, ready for a server that reads them in place of token ids (vLLM's `prompt_embeds`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from uqabench.artifact import Artifact
from uqabench.errors import InputError
from uqabench.files import write_bytes, write_json
from uqabench.llm.prompts import SOFT
from uqabench.questions.render import format_question
from uqabench.settings.stages import AlignConfig
from uqabench.stages.align import Context, PromptedMethod, load_aligned, prompt_keys
from uqabench.vocabulary import LETTERS, SUBTASKS

_A_FILE = 256  # prompts in one file of tensors


def export_prompts(
    context: Context,
    method: PromptedMethod,
    aligned: Artifact,
    align_config: AlignConfig,
    rows: np.ndarray,
    out: Path,
    model: str,
) -> dict[str, Any]:
    """Write the prompts of the evaluation questions `rows` (Q,) into the folder `out`; returns what export.json holds.

    prompts-NNNN.safetensors: tensors (tokens, width) named by the question, in the language model's number format: the
    whole templated prompt, with the soft prompt's vectors where the method puts them. prompts.jsonl: a line a question
    with its text, its letters' token ids and the tensor that belongs to it. README.md: how to serve them. `model`: what
    the README calls the language model to serve.
    """
    lm, soft = load_aligned(context, method, aligned, align_config)
    questions = context.evaluation
    builder = context.builder(lm)
    keys = prompt_keys(questions, method)
    lines, files, longest = [], 0, 0
    with torch.no_grad():
        for start in range(0, len(rows), _A_FILE):
            part = rows[start : start + _A_FILE]
            prompts = builder.encode(questions, part, n_text=method.n_text, n_soft=soft.n_tokens if soft else 0)
            name, tensors = f"prompts-{files:04d}.safetensors", {}
            for row, prompt in zip(part.tolist(), prompts, strict=True):
                vectors = soft(np.array([keys[row]])) if soft else None
                tensors[f"question-{row}"] = prompt_embeddings(lm, prompt, vectors).cpu().contiguous()
                text = format_question(builder.question(questions, row))
                lines.append(_line(questions, row, text, name, len(prompt), lm.answer_ids))
                longest = max(longest, len(prompt))
            save_file(tensors, out / name)
            files += 1
    about = {
        "method": method.name,
        "model": model,
        "width": lm.width,
        "dtype": str(lm.model.get_input_embeddings().weight.dtype).removeprefix("torch."),
        "prompts": len(lines),
        "longest": longest,
        "letters": dict(zip(LETTERS, lm.letter_ids.tolist(), strict=True)),
    }
    write_bytes(out / "prompts.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    write_json(out / "export.json", about)
    write_bytes(out / "README.md", _readme(about).encode())
    return about


def prompt_embeddings(lm: Any, prompt: np.ndarray, vectors: Tensor | None) -> Tensor:
    """Input embeddings (tokens, width) of one prompt's ids, `vectors` (n_soft, width) at its soft slots."""
    ids = torch.from_numpy(prompt).to(lm.device)
    embeds = lm.embed(ids.clamp_min(0))
    slots = ids == SOFT
    if not slots.any():
        return embeds
    if vectors is None:
        raise ValueError("vectors: the prompt has soft-prompt slots but no soft prompt was given")
    return embeds.index_copy(0, slots.nonzero().squeeze(1), vectors.to(embeds.dtype))


def rows_of_users(context: Context, users: tuple[int, ...]) -> np.ndarray:
    """Evaluation questions (Q,) about these users, all without any; InputError for a user of whom nothing is asked."""
    asked = context.evaluation.user
    for user in users:
        if user not in asked:
            raise InputError(
                f"--users {user}: no evaluation question is about this user: choose among the column 'user' of "
                "predictions.jsonl."
            )
    return np.flatnonzero(np.isin(asked, users)) if users else np.arange(len(asked))


def _line(questions: Any, row: int, text: str, file: str, tokens: int, answer_ids: list[list[int]]) -> dict[str, Any]:
    return {
        "id": row,
        "user": int(questions.user[row]),
        "cut": int(questions.cut[row]),
        "subtask": SUBTASKS[int(questions.subtask[row])],
        "question": text,
        "answer": LETTERS[int(questions.answer[row])],
        "file": file,
        "tensor": f"question-{row}",
        "tokens": tokens,
        "answer_ids": {letter: list(ids) for letter, ids in zip(LETTERS, answer_ids, strict=True)},
    }


def _readme(about: Mapping[str, Any]) -> str:
    return f"""# Prompts of {about["method"]} as embeddings

{about["prompts"]:,} prompts of at most {about["longest"]:,} tokens and width {about["width"]:,} ({about["dtype"]}) for
the language model {about["model"]}. Each tensor is a whole prompt, chat template and soft prompt included: the server
must add nothing. `prompts.jsonl` has a line a prompt: question, right letter, and the tensor's file and name.

With vLLM, in one process:

    import json
    from safetensors.torch import load_file
    from vllm import LLM, SamplingParams

    llm = LLM(model="{about["model"]}", enable_prompt_embeds=True)
    lines = [json.loads(line) for line in open("prompts.jsonl", encoding="utf-8")]
    tensors = {{file: load_file(file) for file in {{line["file"] for line in lines}}}}
    prompts = [{{"prompt_embeds": tensors[line["file"]][line["tensor"]]}} for line in lines]
    letters = {sorted(about["letters"].values())}
    asked = SamplingParams(max_tokens=1, temperature=0, allowed_token_ids=letters)
    for line, output in zip(lines, llm.generate(prompts, asked)):
        print(line["id"], output.outputs[0].text, line["answer"])

With `vllm serve {about["model"]} --enable-prompt-embeds`, the completions API takes a tensor as base64 of `torch.save`
in the field `prompt_embeds`. With transformers: `model(inputs_embeds=tensor[None]).logits[0, -1]`.
"""
