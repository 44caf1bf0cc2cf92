"""Questions a second of an evaluation: prompts that share their beginnings, against one token generated a question.

    python -m bench.evaluation runs/demo --methods text50@zero-shot,no-history@zero-shot --llm smollm2 --questions 96

The published way gives every whole prompt to transformers' `generate` for one token, with the layers that transformers
loads; once a prompt at a time and once in batches padded on the left. Both ways answer the same questions in one
process, block after block, and their letters are compared. Beside them stands the floor: the operations of the tokens
that have to be computed at least, at the measured rate of large products.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqabench.files import read_json
from uqabench.llm.batches import PromptGroup, batch_hidden, collate, letter_logits, plan_group_batches
from uqabench.llm.costs import ModelShape
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.sources import load_language_model
from uqabench.plan.executor import execute
from uqabench.plan.methods import parse_method
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened
from uqabench.settings import patched
from uqabench.settings.reader import from_dict
from uqabench.settings.run import RunConfig
from uqabench.stages.align import Context, PromptedMethod, load_aligned, prompt_groups, soft_for
from uqabench.stages.export import prompt_embeddings
from uqabench.stages.memory import keep_freed_memory


def published_letters(model: Any, embeds: list[Tensor], letters: Tensor, batch: int) -> np.ndarray:
    """The letter (Q,) with the largest logit at the one token that `generate` makes of each prompt (tokens, width)."""
    found = []
    for start in range(0, len(embeds), batch):
        part = embeds[start : start + batch]
        longest = max(map(len, part))
        padded = torch.stack([torch.nn.functional.pad(x, (0, 0, longest - len(x), 0)) for x in part])
        mask = torch.stack([(torch.arange(longest) >= longest - len(x)).long() for x in part])
        made = model.generate(
            inputs_embeds=padded, attention_mask=mask, max_new_tokens=1, do_sample=False,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        found.append(made.logits[0][:, letters].argmax(1))
    return torch.cat(found).numpy()


def shared_letters(lm: LanguageModel, soft: Any, groups: list[PromptGroup], budget: int, count: int) -> np.ndarray:
    """The same letters by the evaluation stage's batches."""
    found, n_soft = np.zeros(count, dtype=np.int64), soft.n_tokens if soft else 0
    for part in plan_group_batches(groups, budget):
        vectors, renumbered = soft_for(soft, part)
        batch = collate(renumbered, lm, n_soft, with_answers=False, packed=lm.layout.packs(renumbered))
        logits = letter_logits(lm, batch, batch_hidden(lm, batch, vectors))
        found[batch.questions.numpy()] = logits.argmax(1).numpy()
    return found


def product_rate(size: int = 1024) -> float:
    """Floating-point operations a second of large fp32 products, by the faster of torch's libraries."""
    a, b = torch.randn(2, size, size)
    calls: list[Callable[[], Tensor]] = [lambda: a @ b.T]
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        calls.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    return 2 * size**3 / min(_seconds(call)[0] for call in calls for _ in range(5))


def _seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of this process, so that what else runs on the machine does not count."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def measure(
    context: Context, method: PromptedMethod, aligned: Any, config: Any, questions: int, batches: tuple[int, ...]
) -> dict[str, Any]:
    """Both ways on the first `questions` evaluation questions of whole histories."""
    asked = context.evaluation
    order = np.lexsort((asked.cut, asked.user))[:questions]
    chosen = np.zeros(len(asked), dtype=bool)
    chosen[order] = True
    context = replace(context, evaluation=asked.select(chosen))
    lm, soft = load_aligned(context, method, aligned, config.align)
    plain, _ = load_language_model(str(aligned.path / "llm" if (aligned.path / "llm").exists() else context.llm))
    n_soft, count = soft.n_tokens if soft else 0, len(context.evaluation)
    with torch.no_grad():
        groups = prompt_groups(context, lm, context.evaluation, method, n_soft, over_users=True)
        prompts = context.builder(lm).encode(context.evaluation, np.arange(count), n_text=method.n_text, n_soft=n_soft)
        owner = {question: group.key_of(i) for group in groups for i, question in enumerate(group.questions)}
        embeds = [
            prompt_embeddings(lm, prompt, soft(np.array([owner[i]])) if soft else None)
            for i, prompt in enumerate(prompts)
        ]
        shape = ModelShape.of(lm.model)
        needed = sum(group.n_tokens() for group in groups)
        floor = (2 * shape.matrices * needed) / product_rate()
        shared_letters(lm, soft, groups[:1], config.evaluate.token_budget, count)
        published_letters(plain, embeds[:1], lm.letter_ids, 1)
        ours, letters = _seconds(lambda: shared_letters(lm, soft, groups, config.evaluate.token_budget, count))
        found = {
            "method": method.name,
            "llm": config.llm.name,
            "questions": count,
            "tokens": float(np.mean([len(prompt) for prompt in prompts])),
            "computed_tokens": needed / count,
            "floor_seconds": floor,
            "shared_questions_per_second": count / ours,
        }
        for batch in batches:
            spent, theirs = _seconds(lambda batch=batch: published_letters(plain, embeds, lm.letter_ids, batch))
            again, _ = _seconds(lambda: shared_letters(lm, soft, groups, config.evaluate.token_budget, count))
            found[f"published_questions_per_second_batch_{batch}"] = count / spent
            found[f"ratio_batch_{batch}"] = 2 * spent / (ours + again)
            found[f"equal_letters_batch_{batch}"] = float((letters == theirs).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--methods", default="text50@zero-shot,no-history@zero-shot")
    parser.add_argument("--llm", help="another language model than the run's")
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--batches", default="1,16", help="questions that `generate` is given at once")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # for both ways, as the evaluation stage does
    config = from_dict(RunConfig, read_json(args.run / "config.json"), "config.json")
    config = patched(config, {"llm": {"name": args.llm}} if args.llm else {})
    results = []
    with Opened() as opened:
        nodes = Nodes(Tools(opened, False))
        for name in args.methods.split(","):
            method = parse_method(name, config)
            node = nodes.align(method)
            outcome = execute([node], args.run, progress=False)
            made = {role: outcome.of(needed) for role, needed in node.inputs.items()}
            context, prompted = nodes.asked(method, made)
            batches = tuple(map(int, args.batches.split(",")))
            results.append(measure(context, prompted, outcome.of(node), method.config, args.questions, batches))
            print(json.dumps(results[-1], indent=1), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
