"""`repsim`: all verbs, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click

from repsim import __version__
from repsim.cli.completion import complete_values
from repsim.cli.interruption import kept_since
from repsim.cli.output import print_error
from repsim.core.errors import RepsimError, expected, unknown_name

#: Verb -> (where it lives, what it does). Nothing is imported until the verb is used.
COMMANDS = {
    "compare": ("repsim.cli.compare:compare", "Measure how alike models are; write a report."),
    "plot": ("repsim.cli.plot:plot", "Redraw the figures of a comparison."),
    "check": ("repsim.cli.check:check", "Tell from their files whether models fit each other."),
    "lineage": (
        "repsim.cli.lineage:lineage",
        "Tell from weights what models share.",
    ),
    "merge": ("repsim.cli.merge:merge", "Merge models by a recipe."),
    "methods": ("repsim.cli.methods:methods", "List the merge methods."),
    "extract-lora": (
        "repsim.cli.extract_lora:extract_lora",
        "Write what a model learned as a LoRA adapter.",
    ),
    "evaluate": ("repsim.cli.evaluate:evaluate", "Measure what merges kept: bits per byte."),
    "diagnose": ("repsim.cli.diagnose:diagnose", "Tell what a merge lost, where, and why."),
    "barrier": ("repsim.cli.barrier:barrier", "Measure loss on the path between two models."),
    "predict": ("repsim.cli.predict:predict", "Forecast what a merge would keep, before merging."),
    "predictor": ("repsim.cli.predictor:predictor", "Fit, validate and show predictors."),
    "study": ("repsim.cli.study:study", "Carry out a controlled study, from training to evidence."),
    "pretrain": ("repsim.cli.pretrain:pretrain", "Train a family of models with a known history."),
    "finetune": ("repsim.cli.finetune:finetune", "Train an existing model on some text."),
    "zoo": ("repsim.cli.zoo:zoo", "List the small models that ship with repsim."),
    "measures": ("repsim.cli.measures:measures", "List the similarity measures."),
    "models": ("repsim.cli.models:models", "List, fetch and check models."),
    "corpora": ("repsim.cli.corpora:corpora", "List the built-in corpora; check your own."),
    "doctor": ("repsim.cli.doctor:doctor", "Tell what this installation can do."),
}

EPILOG = """\b
Exit codes:
  0 done   1 unexpected error   2 wrong usage   3 bad or missing input
  4 models incompatible or unknown   5 out of memory, disk or device
  10 a gate failed   130 interrupted (it says what is kept)

\b
Environment:
  REPSIM_CACHE   folder for activations and fetched models
  REPSIM_QUIET   no progress lines      REPSIM_DEBUG   show tracebacks

\b
Completion of verbs, options, models, measures, methods, corpora and languages, in this shell:
  bash   eval "$(_REPSIM_COMPLETE=bash_source repsim)"     in every one: add it to ~/.bashrc
  zsh    eval "$(_REPSIM_COMPLETE=zsh_source repsim)"      ~/.zshrc
  fish   _REPSIM_COMPLETE=fish_source repsim | source      ~/.config/fish/config.fish
"""


class LazyGroup(click.Group):
    """A group that imports a verb's module only when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return complete_values(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in Click, with the nearest verb named when there is none."""
        known = not args or args[0].startswith("-") or args[0] in COMMANDS
        if not known and not ctx.resilient_parsing:
            raise unknown_name("command", args[0], COMMANDS, see="repsim --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="repsim")
def cli() -> None:
    """Tell whether language models will merge, before you merge them.

    \b
    First steps:
      repsim predict zoo:eng-fork zoo:deu-fork
      repsim merge zoo:eng-fork zoo:deu-fork out/merged
      repsim compare zoo:eng-fork zoo:deu-fork --corpus bible-heldout -o out/first
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with the documented exit code."""
    args = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    as_json = "--json" in args
    start = time.time()
    try:
        result = cli.main(args=args, prog_name="repsim", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except RepsimError as error:
        if os.environ.get("REPSIM_DEBUG"):
            traceback.print_exc()
        print_error(error.what, error.hint, code=error.exit_code, as_json=as_json)
        code = error.exit_code
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        hint = (
            f"see: {error.ctx.command_path} --help"
            if isinstance(error, click.UsageError) and error.ctx
            else None
        )
        print_error(error.format_message(), hint, code=error.exit_code, as_json=as_json)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        kept = ", ".join(map(str, kept_since(start, args)))
        print_error(
            f"interrupted; what was stored in {kept} is kept" if kept else "interrupted",
            "run the same command again to go on" if kept else None,
            code=130, as_json=as_json,
        )  # fmt: skip
        code = 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last resort; panics of Rust are no Exception
        code = _unexpected(error, as_json=as_json)
    sys.exit(code)


def _unexpected(error: BaseException, *, as_json: bool) -> int:
    """Report what nobody raised on purpose: a limit of the machine, a file, or a defect."""
    if os.environ.get("REPSIM_DEBUG"):
        traceback.print_exc()
    if known := expected(error):
        print_error(known.what, known.hint, code=known.exit_code, as_json=as_json)
        return known.exit_code
    log = _keep("".join(traceback.format_exception(error)))
    print_error(
        f"unexpected error: {type(error).__name__}: {error}",
        f"this is a defect of repsim; the traceback is in {log}"
        if log
        else "REPSIM_DEBUG=1 shows where it comes from",
        code=1,
        as_json=as_json,
    )
    return 1


def _keep(text: str) -> Path | None:
    """A file with the text, None where none can be written."""
    try:
        log = Path(tempfile.mkdtemp(prefix="repsim-")) / "traceback.txt"
        log.write_text(text, encoding="utf-8", errors="replace")
    except OSError:
        return None
    return log


if __name__ == "__main__":
    main()
