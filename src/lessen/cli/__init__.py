"""The command line: one file per command, errors in one line, `--json` for machines."""

from __future__ import annotations

import os
import sys

import click
import typer

from lessen.cli import bench, compress, demo, evaluate, inspect, predict
from lessen.cli.output import Stop

app = typer.Typer(
    name="lessen",
    help="Make pre-trained Transformers do less work wherever less is enough.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, compress, evaluate, bench, predict, inspect):
    app.command(name=command.__name__.rpartition(".")[2])(command.command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; exits 0 on success, 2 on bad usage or bad input, 130 when interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(_run(given, debug))


def _run(given: list[str], debug: bool) -> int:
    from lessen.errors import LessenError
    from lessen.train.fine_tuning import Interrupted

    _quiet_libraries()
    try:
        app(given, standalone_mode=False, prog_name="lessen")
    except click.exceptions.NoArgsIsHelpError:
        return 2
    except click.UsageError as error:
        where = f" (see lessen {error.ctx.info_name} --help)" if error.ctx and error.ctx.parent else ""
        print(f"lessen: {error.format_message()}{where}", file=sys.stderr)
        return 2
    except (LessenError, Stop) as error:
        if debug:
            raise
        print(f"lessen: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt, click.exceptions.Abort) as error:
        print(f"lessen: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _quiet_libraries() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
