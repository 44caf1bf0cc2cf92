"""The nodes of a run, one function a stage: what each depends on, and how it is built when it is its turn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from uqabench.artifact import Artifact, Stage, folder_digest
from uqabench.errors import InputError
from uqabench.files import hash_json, read_json, write_json
from uqabench.integrations import find_integration
from uqabench.llm.sources import find_model
from uqabench.plan.methods import Method
from uqabench.plan.node import Node
from uqabench.plan.opened import Opened
from uqabench.settings import DataConfig, QuestionConfig, RunConfig
from uqabench.settings.reader import key_dict, to_dict
from uqabench.stages.align import Context, PromptedMethod, align, check_prompts
from uqabench.stages.efficiency import encoder_cost, measure_costs, measured_settings
from uqabench.stages.evaluate import evaluate, evaluate_baseline
from uqabench.stages.history_states import history_states
from uqabench.stages.prepare import GivenStore, prepare_stage
from uqabench.stages.pretrain import pretrain
from uqabench.stages.question_sets import build_questions
from uqabench.stages.states import FrozenStates, HistoryPairs, SharedPass, encode_histories
from uqabench.stages.train_lm import train_lm

Made = Mapping[str, Artifact]


@dataclass(frozen=True)
class Tools:
    """What building needs that decides no result: artefacts opened before, and whether to show progress."""

    opened: Opened
    progress: bool = True


class Nodes:
    """Makes the nodes of runs that share a folder. Methods with equal settings share their nodes, by content."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self._passes: dict[str, SharedPass] = {}

    def data(self, config: DataConfig) -> Node:
        """The interaction store: prepared in the run, or a folder prepared before (source "store")."""
        if config.source == "store" and config.path is None:
            raise InputError("data.path: name the prepared folder that data.source 'store' stands for.")
        given = config.source == "store"

        def open_(made: Made) -> Stage | GivenStore:
            return GivenStore(Path(config.path)) if given else prepare_stage(config, progress=self.tools.progress)

        def facts(artifact: Artifact) -> str:
            store = self.tools.opened.store(artifact)
            sizes = store.manifest["counts"]["all"]
            validate = f", {len(store.users('validation')):,} validate" if store.held_out == "validation" else ""
            return (
                f"{sizes['users']:,} users, {sizes['items']:,} items, {sizes['interactions']:,} interactions; "
                f"{len(store.users('evaluation')):,} users evaluate{validate}"
            )

        settings = {"path": config.path} if given else key_dict(config)
        return Node("data", config.source, settings, {}, open_, facts=facts)

    def questions(self, data: Node, label: str, splits: Mapping[str, QuestionConfig]) -> Node:
        """Question sets by split."""
        settings = {split: key_dict(config) for split, config in splits.items()}

        def open_(made: Made) -> Stage:
            return build_questions(self.tools.opened.store(made["data"]), dict(splits), progress=self.tools.progress)

        return Node("questions", label, settings, {"data": data}, open_, facts=_count_questions)

    def method_questions(self, config: RunConfig) -> Node:
        """The questions that methods of a run are aligned and evaluated on."""
        asked = config.questions
        train = replace(asked.train, seed=asked.train.seed + config.seed)
        return self.questions(self.data(config.data), "methods", {"train": train, asked.users: asked.evaluation})

    def language_model(self, config: RunConfig) -> Node:
        """The language model: one that exists, named and checked, or a small one trained in the run."""
        return self._trained_model(config) if config.llm.name == "train" else self._existing_model(config)

    def _existing_model(self, config: RunConfig) -> Node:
        llm = config.llm
        settings = {"name": llm.name, "dtype": llm.dtype, "system": llm.system, "template_args": llm.template_args}
        settings["users"] = config.questions.users  # of whom the model must know nothing

        def open_(made: Made) -> Stage:
            folder = _model_folder(llm.name)
            files = folder_digest(folder)

            def make(out: Path, work: Path) -> float:
                # A model that cannot be loaded, or knows the evaluation users, ends here and not after pre-training.
                self.context(config, made, folder).load_lm()
                # Not where it lies: the same model in another installation is the same artefact.
                write_json(out / "model.json", {"name": llm.name, "files": files})
                return 0.0

            inputs = {"data": self.tools.opened.store(made["data"]).content_hash, "files": files}
            return Stage("llm", settings, inputs, make)

        inputs = {"data": self.data(config.data)}
        return Node("llm", llm.name, settings, inputs, open_, facts=lambda artifact: "checked")

    def _trained_model(self, config: RunConfig) -> Node:
        data = self.data(config.data)
        prompt = replace(config.prompt, text_items=0)  # a hybrid method asks the model that the others ask
        asked = config.llm.questions
        mixes = config.llm.train.versions or {asked.version: asked.mix}
        questions = {
            version: self.questions(
                data, f"language-model-{version}", {"train": replace(asked, version=version, mix=mix)}
            )
            for version, mix in mixes.items()
        }
        settings = {
            "train": key_dict(config.llm.train),
            "prompt": key_dict(prompt),
            "templates": config.questions.templates,
        }

        def open_(made: Made) -> Stage:
            return train_lm(
                self.tools.opened.store(made["data"]),
                {version: self.tools.opened.questions(made[f"questions {version}"], "train") for version in mixes},
                {version: made[f"questions {version}"].content for version in mixes},
                self.tools.opened.templates(config.questions.templates),
                prompt,
                config.llm.train,
                progress=self.tools.progress,
            )

        def facts(artifact: Artifact) -> str:
            return f"{artifact.json('metrics.json')['steps']:,} steps, {artifact.seconds:.0f} s"

        inputs = {"data": data, **{f"questions {version}": node for version, node in questions.items()}}
        return Node("lm", "trained", settings, inputs, open_, facts=facts)

    def prompt_checks(self, methods: list[Method]) -> list[Node]:
        """For every language model of these methods, whether it has positions for their longest prompts."""
        by_model: dict[str, list[Method]] = {}
        for method in methods:
            if method.is_prompted:
                by_model.setdefault(self.language_model(method.config).key, []).append(method)
        return [self._prompt_check(of_model) for of_model in by_model.values()]

    def _prompt_check(self, methods: list[Method]) -> Node:
        config = methods[0].config
        inputs = {
            "data": self.data(config.data),
            "questions": self.method_questions(config),
            "llm": self.language_model(config),
        }
        asks = {hash_json(ask := self._ask(method)): (ask, method) for method in methods}

        def open_(made: Made) -> Stage:
            context = self.context(config, made)

            def make(out: Path, work: Path) -> float:
                started, lm = time.monotonic(), context.load_lm()
                for _, method in asks.values():
                    own = replace(context, prompt=method.config.prompt)
                    check_prompts(
                        own, lm, str(method), method.config.align, n_text=method.n_text, has_states=method.has_vectors
                    )
                write_json(out / "prompts.json", {"positions": lm.max_positions})
                return time.monotonic() - started

            return Stage("prompts", {"asks": sorted(asks), **context.asking()}, dict(context.inputs), make)

        def facts(artifact: Artifact) -> str:
            positions = artifact.json("prompts.json")["positions"]
            return f"at most {positions:,} tokens, which is enough" if positions else "as long as they like"

        return Node("prompts", "", {"asks": sorted(asks)}, inputs, open_, facts=facts)

    def _ask(self, method: Method) -> dict[str, Any]:
        """What decides how long a method's prompts are."""
        align = method.config.align
        soft = [align.integration, align.n_queries] if method.has_vectors else []
        return {"n_text": method.n_text, "soft": soft, "prompt": key_dict(method.config.prompt)}

    def pretrain(self, method: Method) -> Node:
        """Stage 1 of an encoder."""
        config = method.config
        seeded = replace(config.pretrain, seed=config.pretrain.seed + config.seed)
        settings = {**key_dict(seeded), "device": config.device}

        def open_(made: Made) -> Stage:
            store = self.tools.opened.store(made["data"])
            return pretrain(store, seeded, device=config.device, progress=self.tools.progress)

        inputs = {"data": self.data(config.data)}
        return Node("pretrain", method.base, settings, inputs, open_, title=str(method), facts=_pretrain_facts)

    def states(self, method: Method) -> Node:
        """The frozen encoder's output for every history that a question is about."""
        if method.kind == "history-vector":
            return self._history_vectors(method)
        config = method.config
        integration = find_integration(config.align.integration)
        inputs = {
            "data": self.data(config.data),
            "questions": self.method_questions(config),
            "pretrain": self.pretrain(method),
        }
        of_pass = {"token_budget": config.states_token_budget, "device": config.device}
        settings = {
            "kept": integration.kept,
            "vectors": integration.pooling.n_vectors if integration.pooling else 0,
            **of_pass,
        }
        beside = hash_json({**of_pass, "inputs": {role: node.key for role, node in inputs.items()}})
        shared = self._passes.setdefault(beside, SharedPass())
        shared.ask(integration)

        def open_(made: Made) -> Stage:
            for other in self._passes.values():
                if other is not shared:
                    other.pooled.clear()  # of a pass that is over, for nodes that were finished before
            sets = [self.tools.opened.questions(made["questions"], split) for split in _asked(config)]
            return encode_histories(
                self.tools.opened.store(made["data"]),
                made["pretrain"],
                HistoryPairs.of(sets),
                integration=integration,
                **of_pass,
                progress=self.tools.progress,
                shared=shared,
            )

        label, n = f"{method.base}-{integration.kept}", settings["vectors"]
        kept = {0: "all", 1: "1 vector"}.get(n, f"{n} vectors")
        return Node("states", label, settings, inputs, open_, title=f"{method}, {kept}", beside=beside)

    def _history_vectors(self, method: Method) -> Node:
        """In place of an encoder's output, what the closed form would make of a perfect one."""
        config = method.config
        integration = find_integration(config.align.integration)
        settings = {
            "kept": integration.kept,
            "prompt": key_dict(config.prompt),
            "templates": config.questions.templates,
            "device": config.device,
        }

        def open_(made: Made) -> Stage:
            return history_states(self.context(config, made), integration)

        inputs = {
            "data": self.data(config.data),
            "questions": self.method_questions(config),
            "llm": self.language_model(config),
        }
        label = f"{method.base}-{integration.kept}"
        return Node("states", label, settings, inputs, open_, title=str(method))

    def align(self, method: Method) -> Node:
        """Stage 2 of a method that prompts the language model."""
        config = method.config
        seeded = replace(config.align, seed=config.align.seed + config.seed)
        settings = {
            "align": key_dict(seeded),
            "prompt": key_dict(config.prompt),
            "templates": config.questions.templates,
            "n_text": method.n_text,
            "device": config.device,
        }

        def open_(made: Made) -> Stage:
            context = self.context(config, made)
            prompted = self.prompted(method, made)
            return align(context, prompted, seeded, progress=self.tools.progress)

        def facts(artifact: Artifact) -> str:
            return f"{artifact.json('metrics.json')['steps']:,} steps, {artifact.seconds:.0f} s"

        inputs = self._prompt_inputs(method)
        return Node("align", method.base, settings, inputs, open_, title=str(method), facts=facts)

    def evaluate(self, method: Method, encoders: list[Method]) -> Node:
        """Stage 3 of any method; `encoders`: the embedding methods among whom the shuffled one finds its owner."""
        if method.kind == "baseline":
            return self._evaluate_baseline(method)
        if method.kind == "shuffled":
            return self._evaluate_shuffled(method, encoders)
        seeded = replace(method.config.evaluate, seed=method.config.evaluate.seed + method.config.seed)

        def open_(made: Made) -> Stage:
            return evaluate(
                self.context(method.config, made),
                self.prompted(method, made),
                made["align"],
                method.config.align,
                seeded,
                progress=self.tools.progress,
            )

        inputs = {**self._prompt_inputs(method), "align": self.align(method)}
        settings = {"method": method.name, **key_dict(seeded)}
        return Node("evaluate", method.name, settings, inputs, open_, title=str(method), facts=_accuracy)

    def efficiency(self, method: Method) -> Node:
        """What a method costs that asks the language model; its timings differ between equal runs."""
        config = method.config
        settings = {"method": method.name, "token_budget": config.evaluate.token_budget}
        inputs = {**self._prompt_inputs(method), "align": self.align(method)}
        if method.kind == "encoder":
            inputs["pretrain"] = self.pretrain(method)

        def open_(made: Made) -> Stage:
            return measure_costs(
                self.context(config, made),
                self.prompted(method, made),
                made["align"],
                config.align,
                config.evaluate,
                config.efficiency,
                encoder_cost(made["pretrain"], made["states"]) if method.kind == "encoder" else None,
            )

        def facts(artifact: Artifact) -> str:
            costs = artifact.json("costs.json")
            return (
                f"{costs['tokens']['input']['mean']:,.0f} tokens, {costs['questions_per_second']['1']:,.1f} questions/s"
            )

        settings |= measured_settings(config.efficiency)
        return Node("efficiency", method.name, settings, inputs, open_, title=str(method), facts=facts)

    def _evaluate_baseline(self, method: Method) -> Node:
        config = method.config
        seeded = replace(config.evaluate, seed=config.evaluate.seed + config.seed)
        data, questions = self.data(config.data), self.method_questions(config)

        def open_(made: Made) -> Stage:
            opened = self.tools.opened
            store = opened.store(made["data"])
            return evaluate_baseline(
                store,
                method.base,
                opened.questions(made["questions"], "train"),
                opened.questions(made["questions"], config.questions.users),
                {"questions": made["questions"].content, "data": store.content_hash},
                seeded,
            )

        settings = {"baseline": method.base, "seed": seeded.seed}
        return Node(
            "evaluate",
            method.name,
            settings,
            {"data": data, "questions": questions},
            open_,
            title=str(method),
            facts=_accuracy,
        )

    def _evaluate_shuffled(self, method: Method, encoders: list[Method]) -> Node:
        """The best embedding method of the run (by its score) with another user's soft prompt."""
        own = method.config.evaluate
        seeded = replace(own, seed=own.seed + method.config.seed, shuffle=True)
        owners = {str(index): encoder for index, encoder in enumerate(encoders)}  # two may share a name
        inputs = {"data": self.data(method.config.data), "questions": self.method_questions(method.config)}
        for index, encoder in owners.items():
            inputs[f"evaluate {index}"] = self.evaluate(encoder, [])
            inputs[f"align {index}"] = self.align(encoder)
            inputs[f"states {index}"] = self.states(encoder)
            inputs[f"llm {index}"] = self.language_model(encoder.config)

        def open_(made: Made) -> Stage:
            best = max(owners, key=lambda index: made[f"evaluate {index}"].json("metrics.json")["overall"]["accuracy"])
            owner = owners[best]
            of_owner = {role: made.get(f"{role} {best}", made.get(role)) for role in _ROLES}
            return evaluate(
                self.context(owner.config, of_owner),
                replace(self.prompted(owner, of_owner), name=method.name),
                of_owner["align"],
                owner.config.align,
                seeded,
                progress=self.tools.progress,
            )

        settings = {"method": method.name, **key_dict(seeded)}
        return Node("evaluate", method.name, settings, inputs, open_, title=str(method), facts=_accuracy)

    def asked(self, method: Method, made: Made) -> tuple[Context, PromptedMethod]:
        """With what a method asks the language model, from the artefacts that its alignment read."""
        return self.context(method.config, made), self.prompted(method, made)

    def _prompt_inputs(self, method: Method) -> dict[str, Node]:
        inputs = {
            "data": self.data(method.config.data),
            "questions": self.method_questions(method.config),
            "llm": self.language_model(method.config),
        }
        if method.has_vectors:
            inputs["states"] = self.states(method)
        return inputs

    def prompted(self, method: Method, made: Made) -> PromptedMethod:
        """How a method shows the history."""
        if method.has_vectors:
            return PromptedMethod(method.name, method.n_text, FrozenStates.open(made["states"]), made["states"].content)
        return PromptedMethod(method.name, method.n_text)

    def context(self, config: RunConfig, made: Made, model: Path | None = None) -> Context:
        """What prompted methods share; `model`: the folder of a language model that is being checked."""
        opened = self.tools.opened
        templates = opened.templates(config.questions.templates)
        store = opened.store(made["data"])
        inputs = {"data": store.content_hash, "templates": templates.digest}
        train = evaluation = None
        if model is None:
            train, evaluation = (opened.questions(made["questions"], split) for split in _asked(config))
            inputs |= {"questions": made["questions"].content, "llm": made["llm"].content}
        asking = {
            "llm": str(model or _built_model(made["llm"])),
            "device": config.device,
            "dtype": config.llm.dtype,
            "system": config.llm.system,
            "inputs": inputs,
            "template_args": config.llm.template_args,
            "users": config.questions.users,
        }

        def make() -> Context:
            return Context(
                store=store, train=train, evaluation=evaluation, templates=templates, prompt=config.prompt, **asking
            )

        return opened.context({"prompt": to_dict(config.prompt), **asking}, make)


_ROLES = ("data", "questions", "llm", "states", "align")


def _asked(config: RunConfig) -> tuple[str, str]:
    """The two question sets of a run's methods, by whom they are about."""
    return "train", config.questions.users


def _model_folder(name: str) -> Path:
    """Where a language model lies that is not trained in the run."""
    if name != "demo":
        return find_model(name)
    folder = Path(str(resources.files("uqabench") / "assets" / "demo-lm"))
    if not folder.exists():
        raise InputError("The demo's language model is not installed: set llm.name to 'train' or to a model.")
    return folder


def _built_model(artifact: Artifact) -> Path:
    """The model's folder behind an artefact of the stages `llm` and `lm`."""
    trained = artifact.path / "model"
    return trained if trained.exists() else _model_folder(read_json(artifact.path / "model.json")["name"])


def _count_questions(artifact: Artifact) -> str:
    """How many questions by sub-task, then what their mix did not get and why."""
    reports: dict[str, dict[str, Any]] = artifact.json("metrics.json")
    shown = (
        f"{sum(report['counts'].values()):,} {split} ({' '.join(f'{k} {n}' for k, n in report['counts'].items())})"
        for split, report in reports.items()
    )
    notes = [f"{split}: {note}" for split, report in reports.items() for note in report["notes"]]
    return ". ".join([", ".join(shown), *(note.removesuffix(".") for note in notes)])


def _pretrain_facts(artifact: Artifact) -> str:
    metrics = artifact.json("metrics.json")
    return f"recall@10 {metrics['recall@10']:.2f} %, perplexity {metrics['perplexity']:,.0f}, {artifact.seconds:.0f} s"


def _accuracy(artifact: Artifact) -> str:
    return f"{artifact.json('metrics.json')['overall']['accuracy']:.2f} %"
