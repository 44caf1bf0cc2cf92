"""What an encoder's own item scores answer of questions about the next basket: the measure of pre-training alone.

    python -m bench.item_scores --preset demo --methods sasrec,trm++ --set pretrain.ties=shuffled

No language model is asked. The option with the largest probability is taken, that of a value being the sum over the
items that have it; `relative` divides by the value's mean probability over all histories, so that popular options lead
no more. Questions (up to 2,000 of ip and of ap each) are about validation users, so that settings may be chosen by it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.integrations import NEXT
from uqabench.integrations.linear import WindowTokens
from uqabench.plan.executor import execute
from uqabench.plan.folder import claimed
from uqabench.plan.methods import parse_method
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.settings.run import RunConfig, run_config
from uqabench.stages.states import FrozenStates, HistoryPairs, encode_histories

QUESTIONS = 4_000
MIX = {"ip": 1.0, "ap": 1.0}


class LastState(WindowTokens):
    """The state from which an encoder predicts."""

    windows = (NEXT,)


def accuracy(config: RunConfig, name: str, folder: Path) -> dict[str, float]:
    """Accuracy in percent by kind of question and way of scoring, after pre-training in the run folder `folder`."""
    with claimed(folder), Opened() as opened:
        nodes = Nodes(Tools(opened))
        asked = replace(config.questions.evaluation, n_questions=QUESTIONS, mix=None, default_mix=MIX)
        data = nodes.data(config.data)
        questions = nodes.questions(data, "item-scores", {"validation": asked})
        pretrained = nodes.pretrain(parse_method(name, config))
        made = execute([questions, pretrained], folder)
        store, about = opened.store(made.of(data)), opened.questions(made.of(questions), "validation")
        pairs = HistoryPairs.of([about])
        encoder = made.of(pretrained)
        stage = encode_histories(
            store, encoder, pairs, integration=LastState(), token_budget=config.states_token_budget
        )
        states = FrozenStates.open(stage.build(folder / "item-scores" / encoder.path.name)[0])
        scoring, last = states.scoring, torch.from_numpy(np.array(states.pooled[:, 0]))
        queries = last @ scoring["head_weight"].T + scoring["head_bias"]
        probability = torch.softmax(queries @ scoring["item_table"].T, dim=1)
        return by_kind(about, pairs.keys(about), probability, store.catalogue)


def by_kind(questions: QuestionSet, history: np.ndarray, probability: Tensor, catalogue: Catalogue) -> dict[str, float]:
    """probability (histories, V) of each item; history (Q,): whose questions these are."""
    right = {"": np.zeros(len(questions), bool), " relative": np.zeros(len(questions), bool)}
    for attribute in np.unique(questions.attribute):
        rows = np.flatnonzero(questions.attribute == attribute)
        codes = torch.from_numpy(catalogue.codes[ATTRIBUTES[attribute]].astype(np.int64))
        known = codes >= 0
        values = probability.new_zeros(len(probability), int(codes.max()) + 1)
        values.index_add_(1, codes[known], probability[:, known])
        options = torch.from_numpy(questions.option_values[rows][:, :, 0].astype(np.int64))
        found = values[torch.from_numpy(history[rows])].gather(1, options)
        for name, score in (("", found), (" relative", found / values.mean(0)[options])):
            right[name][rows] = score.argmax(1).numpy() == questions.answer[rows]
    kinds = np.array([KINDS[kind].name for kind in questions.kind])
    return {
        kind + way: round(100 * float(hits[kinds == kind].mean()), 1)
        for kind in np.unique(kinds).tolist()
        for way, hits in right.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--methods", default="sasrec", help="comma-separated encoders")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one setting")
    parser.add_argument("--run", type=Path, default=Path("runs/item-scores"), help="run folder")
    args = parser.parse_args()
    config = run_config(args.preset, overrides=tuple(args.set))
    for name in args.methods.split(","):
        print(json.dumps({"method": name, **accuracy(config, name, args.run)}))


if __name__ == "__main__":
    main()
