"""The main job: one log through all stages for all methods, into one folder with the paper's main table."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from uqabench.artifact import Artifact, folder_digest, versions
from uqabench.config import to_dict
from uqabench.data import InteractionStore, open_source, prepare
from uqabench.encoders import build_encoder
from uqabench.encoders.item_tower import INPUTS
from uqabench.errors import InputError
from uqabench.experiments.config import RunConfig
from uqabench.experiments.methods import VARIANTS, Method, folder_name, parse_method
from uqabench.experiments.results import comparisons, method_entry
from uqabench.files import atomic_folder, sweep, write_json
from uqabench.llm.sources import find_model
from uqabench.questions.questions import QuestionSet
from uqabench.questions.templates import Templates
from uqabench.report.results import load_results
from uqabench.report.tables import write_tables
from uqabench.stages.align import Context, PromptedMethod, align
from uqabench.stages.evaluate import evaluate, evaluate_baseline
from uqabench.stages.pretrain import popularity_metrics, pretrain
from uqabench.stages.question_sets import build_questions
from uqabench.stages.states import FrozenStates, HistoryPairs, encode_histories
from uqabench.stages.train_lm import train_lm

Say = Callable[[str], None]
logger = logging.getLogger(__name__)


class Run:
    """All stages of one run folder. Every stage reuses its folder when config and inputs are unchanged."""

    def __init__(self, folder: Path, config: RunConfig, *, progress: bool = True, say: Say = logger.info) -> None:
        self.folder, self.config, self.progress, self.say = Path(folder), config, progress, say
        if config.device != "cpu" and not torch.cuda.is_available():
            raise InputError(f"device is '{config.device}', but torch sees no GPU here: use cpu (`uqabench doctor`).")
        self.methods = [parse_method(name, config) for name in dict.fromkeys(config.methods)]
        self.encoders: dict[str, Artifact] = {}  # finished pre-training by folder name

    def execute(self, until: str = "run") -> dict[str, Any] | None:
        """Run the stages up to "pretrain", "align" or the end; returns (and writes) the results at the end."""
        self._check_encoders()
        self.prepare()
        self.questions()
        if until != "pretrain" and any(method.kind != "baseline" for method in self.methods):
            self.language_model()
        for method in self.methods:
            if method.kind == "encoder":
                self.pretrain(method)
        if until == "pretrain":
            return None
        if until == "align":
            for method in self.methods:
                if method.kind in ("encoder", "text", "no-history"):
                    self.align(method)
            return None
        entries: dict[str, Artifact] = {}
        aligned: dict[str, Artifact] = {}
        for method in sorted(self.methods, key=lambda m: m.kind == "shuffled"):  # shuffled needs the others' scores
            entries[method.name], trained = self.evaluate(method, entries)
            if trained is not None:
                aligned[method.name] = trained
        return self._write_results(entries, aligned)

    def train_demo_model(self) -> Path:
        """Only what the small language model needs: the data, its questions, its training; returns its folder."""
        self.prepare()
        self.templates = Templates.load(self.config.questions.templates)
        artifact, _ = self._train_lm()
        return artifact.path / "model"

    def _check_encoders(self) -> None:
        """An encoder that cannot be built stops the run here, before hours of other stages."""
        for method in self.methods:
            if method.kind == "encoder":
                encoder = method.config.pretrain.encoder
                build_encoder(encoder.encoder, encoder.preset, **encoder.overrides)
                if encoder.inputs not in INPUTS:
                    raise InputError(f"The encoder's inputs are '{encoder.inputs}': choose one of {', '.join(INPUTS)}.")

    # The data and the questions

    def prepare(self) -> InteractionStore:
        data = self.config.data
        if data.source == "store":
            if data.path is None:
                raise InputError("data.path: name the prepared folder that data.source 'store' stands for.")
            self.store = InteractionStore.open(data.path)
        else:
            source = open_source(data.source, data.path, **data.options)
            self.store = prepare(source, self.folder / "data", data.prepare, progress=self.progress)
        sizes = self.store.manifest["counts"]["all"]
        self.say(
            f"data: {data.source}, {sizes['users']:,} users, {sizes['items']:,} items, "
            f"{sizes['interactions']:,} interactions; {len(self.store.users('evaluation')):,} users evaluate"
        )
        return self.store

    def questions(self) -> None:
        settings = self.config.questions
        self.templates = Templates.load(settings.templates)
        self.question_artifact, reused = build_questions(
            self.store,
            self.folder / "questions",
            {"train": replace_seed(settings.train, self.config.seed), "evaluation": settings.evaluation},
            progress=self.progress,
        )
        self.train = QuestionSet.open(self.question_artifact.path / "train.arrow")
        self.evaluation = QuestionSet.open(self.question_artifact.path / "evaluation.arrow")
        self.mix = self.question_artifact.json("metrics.json")
        counts = self.mix["evaluation"]["counts"]
        shown = " ".join(f"{name} {count}" for name, count in counts.items())
        self._done("questions", reused, f"{len(self.train):,} training, {len(self.evaluation):,} evaluation ({shown})")

    # The language model

    def language_model(self) -> None:
        llm = self.config.llm
        name, content = llm.name, {}
        if llm.name == "demo":
            name = str(resources.files("uqabench") / "assets" / "demo-lm")
            if not Path(name).exists():
                raise InputError("The demo's language model is not installed: set llm.name to 'train' or to a model.")
            content = {"llm-files": folder_digest(Path(name))}
        elif llm.name == "train":
            artifact, reused = self._train_lm()
            name, content = str(artifact.path / "model"), {"train-lm": artifact.content}
            self._done("train language model", reused, f"{artifact.json('metrics.json')['steps']:,} steps")
        else:
            content = {"llm-files": folder_digest(find_model(llm.name))}
        inputs = {"data": self.store.manifest["content_hash"], "questions": self.question_artifact.content, **content}
        self.context = Context(
            self.store,
            self.train,
            self.evaluation,
            self.templates,
            self.config.prompt,
            name,
            self.config.device,
            llm.dtype,
            llm.system,
            {**inputs, "llm": llm.name, "templates": self.templates.digest},
        )
        self.context.load_lm()  # a missing model or a foreign split stops here, before an hour of pre-training

    def _train_lm(self) -> tuple[Artifact, bool]:
        llm = self.config.llm
        artifact, _ = build_questions(
            self.store, self.folder / "lm-questions", {"train": llm.questions}, progress=self.progress
        )
        return train_lm(
            self.store,
            QuestionSet.open(artifact.path / "train.arrow"),
            artifact.content,
            self.templates,
            self.config.prompt,
            self.folder / "lm",
            llm.train,
            progress=self.progress,
        )

    # The methods

    def pretrain(self, method: Method) -> Artifact:
        name = pretrain_name(method)
        if name in self.encoders:
            return self.encoders[name]
        config = method.config.pretrain
        artifact, reused = pretrain(
            self.store,
            self.folder / "pretrain" / name,
            replace(config, seed=config.seed + self.config.seed),
            device=self.config.device,
            progress=self.progress,
        )
        metrics = artifact.json("metrics.json")
        self._done(
            f"pretrain {name}",
            reused,
            f"recall@10 {metrics['recall@10']:.2f} %, perplexity {metrics['perplexity']:,.0f}, "
            f"{artifact.seconds:.0f} s",
        )
        self.encoders[name] = artifact
        return artifact

    def states(self, method: Method) -> tuple[FrozenStates, str]:
        keep = method.config.align.integration == "q-former"
        artifact, _ = encode_histories(
            self.store,
            self.pretrain(method),
            HistoryPairs.of([self.train, self.evaluation]),
            self.folder / "states" / (pretrain_name(method) + ("-states" if keep else "")),
            keep_states=keep,
            token_budget=self.config.states_token_budget,
            device=self.config.device,
            progress=self.progress,
        )
        return FrozenStates.open(artifact), artifact.content

    def prompted(self, method: Method) -> PromptedMethod:
        """How a method shows the history."""
        if method.kind == "encoder":
            states, content = self.states(method)
            return PromptedMethod(method.name, 0, states, content)
        return PromptedMethod(method.name, method.n_text)

    def align(self, method: Method) -> tuple[Artifact, PromptedMethod]:
        prompted = self.prompted(method)
        config = self._align_config(method)
        artifact, reused = align(
            self.context, prompted, self.folder / "align" / folder_name(method.name), config, progress=self.progress
        )
        steps = artifact.json("metrics.json")["steps"]
        self._done(f"align {method.name}", reused, f"{steps:,} steps, {artifact.seconds:.0f} s")
        return artifact, prompted

    def evaluate(self, method: Method, entries: dict[str, Artifact]) -> tuple[Artifact, Artifact | None]:
        out = self.folder / "evaluate" / folder_name(method.name)
        config = replace(self.config.evaluate, seed=self.config.evaluate.seed + self.config.seed)
        if method.kind == "baseline":
            inputs = {"questions": self.question_artifact.content, "data": self.store.manifest["content_hash"]}
            artifact, reused = evaluate_baseline(
                self.store, method.name, self.train, self.evaluation, inputs, out, config
            )
            aligned = None
        else:
            owner = self._shuffled_owner(entries) if method.kind == "shuffled" else method
            aligned, prompted = self.align(owner)
            artifact, reused = evaluate(
                self.context,
                replace(prompted, name=method.name),
                aligned,
                out,
                self._align_config(owner),
                config,
                shuffle=method.kind == "shuffled",
                progress=self.progress,
            )
        accuracy = artifact.json("metrics.json")["overall"]["accuracy"]
        of = f" (of {owner.name})" if method.kind == "shuffled" else ""
        self._done(f"evaluate {method.name}{of}", reused, f"{accuracy:.2f} %")
        return artifact, aligned

    def _shuffled_owner(self, entries: dict[str, Artifact]) -> Method:
        """Whose soft prompts are shuffled: the best embedding method of this run, else Trm++."""
        encoders = [method for method in self.methods if method.kind == "encoder" and method.name in entries]
        if not encoders:
            return parse_method("trm++", self.config)
        return max(encoders, key=lambda m: entries[m.name].json("metrics.json")["overall"]["accuracy"])

    def _align_config(self, method: Method) -> Any:
        config = method.config.align
        return replace(config, seed=config.seed + self.config.seed)

    def _done(self, stage: str, reused: bool, facts: str) -> None:
        self.say(f"{stage}: {facts}{' (reused)' if reused else ''}")

    # The results

    def _write_results(self, entries: dict[str, Artifact], aligned: dict[str, Artifact]) -> dict[str, Any]:
        encoders = [method for method in self.methods if method.kind == "encoder"]
        table = {pretrain_name(m): self.pretrain(m).json("metrics.json") for m in encoders}
        if encoders:
            table["popularity"] = popularity_metrics(self.store)
        methods = {}
        for method in self.methods:
            name = method.name
            seconds = {
                "pretrain": self.pretrain(method).seconds if method.kind == "encoder" else 0.0,
                "align": aligned[name].seconds if name in aligned else 0.0,
                "evaluate": entries[name].seconds,
            }
            methods[name] = method_entry(entries[name].json("metrics.json"), seconds)
        results = {
            "schema": 1,
            "dataset": self.config.data.source,
            "llm": self.config.llm.name,
            "seed": self.config.seed,
            "split_seed": self.store.manifest["config"]["split_seed"],
            "versions": versions(),
            "mix": self.mix["evaluation"]["counts"],
            "methods": methods,
            "pretrain": table,
            "comparisons": comparisons(
                {name: artifact.path for name, artifact in entries.items()},
                self.methods,
                "starts-with" if self.config.evaluate.generate else "letter",
            ),
        }
        for name in ("results.json", "config.json", "tables"):
            sweep(self.folder / name)
        write_json(self.folder / "results.json", results)
        write_json(self.folder / "config.json", to_dict(self.config))
        with atomic_folder(self.folder / "tables") as folder:
            write_tables(load_results(self.folder / "results.json"), folder)
        return results


def pretrain_name(method: Method) -> str:
    """Folder of a method's encoder: variants that change pre-training only are part of it."""
    suffix = method.name.partition("@")[2].split("+") if "@" in method.name else []
    relevant = [variant for variant in suffix if "pretrain" in VARIANTS[variant]]
    return folder_name(method.base + ("@" + "+".join(relevant) if relevant else ""))


def replace_seed(config: Any, seed: int) -> Any:
    """The same settings with `seed` added to theirs."""
    return replace(config, seed=config.seed + seed)
