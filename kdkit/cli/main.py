"""The ``kdkit`` command. Command modules import typer alone; everything heavy is imported inside commands.

stdout carries a command's data, stderr everything else. With ``--json``, stdout holds exactly one JSON document: the
result, or ``{"error": {"id": ..., "what": ..., "where": ..., "why": ..., "fix": ..., "code": ...}}`` when the command
fails. The exit code and the lines on stderr are the same with and without ``--json``.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import kdkit
from kdkit.cli import (
    align,
    answers,
    bundle,
    console,
    data,
    demo,
    distill,
    evaluate,
    explain,
    export,
    features,
    install,
    new_plugin,
    plugins,
    profile,
    pull,
    push,
    recipes,
    registry,
    streams,
    suites,
    sweep,
    trust,
    versions,
)
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import as_kdkit_error
from kdkit.core.base.threads import settle_threads

ERROR_LOG = "kdkit-error.log"
WELCOME = f"""\
kdkit {kdkit.__version__}: keep one student; keep adding teachers.
Distills frozen biomedical vision-language models into one student, and later ones into the same student.

  kdkit demo                      a whole project on procedural images, in minutes, without a download
  kdkit init                      create a project in this folder
  kdkit add-teacher biomedclip    add a teacher; then 'kdkit distill'

All commands: kdkit --help"""

STORY = {
    "Choose teachers": ("init", "add-teacher", "teachers", "remove-teacher", "lock"),
    "Measure what they know": ("data", "features", "trust", "align", "pseudo-label"),
    "Teach the student": ("recipes", "import-student", "pretrain", "distill", "profile", "versions", "rollback"),
    "Use the student": (
        "evaluate",
        "report",
        "suites",
        "explain",
        "sweep",
        "answer",
        "best-of-n",
        "correct",
        "export",
        "push",
        "pull",
        "bundle",
        "unbundle",
    ),
    "kdkit itself": ("plugins", "install", "uninstall", "new-plugin", "demo"),
}
"""The order of ``kdkit --help``: that in which a project uses the commands."""


UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's, or that of the copy of click inside typer."""


class CommandGroup(TyperGroup):
    """Lists the commands by :data:`STORY`; turns typer's ways of ending into ours."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = [name for names in STORY.values() for name in names]
        known = super().list_commands(ctx)
        return sorted(known, key=lambda name: order.index(name) if name in order else len(order))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        rest = tuple(name for name in names if not any(name in part for part in STORY.values()))
        for heading, part in {**STORY, "More": rest}.items():
            commands = [(name, self.get_command(ctx, name)) for name in part if name in names]
            rows = [
                (name, command.get_short_help_str(200)) for name, command in commands if command and not command.hidden
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except UsageError as error:
            raise _usage_error(error) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _usage_error(error) from None
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise SystemExit(_end(error)) from None


app = typer.Typer(
    name="kdkit",
    cls=CommandGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for module in (
    registry,
    data,
    features,
    trust,
    align,
    recipes,
    distill,
    profile,
    versions,
    evaluate,
    suites,
    sweep,
    explain,
    answers,
    export,
    push,
    pull,
    bundle,
    plugins,
    install,
    new_plugin,
    demo,
):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kdkit {kdkit.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def frame(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001  # typer calls _version
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Load the built-in plugins only.")] = False,
) -> None:
    """Keep one student; keep adding teachers."""
    if debug:
        os.environ["KDKIT_DEBUG"] = "1"
    if no_plugins:
        os.environ["KDKIT_NO_PLUGINS"] = "1"
    if ctx.invoked_subcommand is None:
        print(WELCOME)


def run() -> None:
    """Entry point: runs the command and ends with a message and an exit code."""
    settle_threads()
    streams.open_streams()
    if "--json" in sys.argv and not {"--help", "-h"} & set(sys.argv):
        streams.reserve_stdout()
    _end_on_signals()
    console.show_warnings()
    try:
        try:
            app(prog_name="kdkit")
        finally:
            plugins.warn_of_broken()
            streams.flush_data()
    except (Exception, KeyboardInterrupt) as error:
        _leave(_end(error))
    except SystemExit as error:
        if failed := _plugin_error(error):  # a plugin called sys.exit
            _leave(_end(failed))
        raise


def _leave(code: int) -> NoReturn:
    """End the process with the exit code.

    A process group that is still connected can abort the interpreter's own end (code 134) when another process has
    died. The streams are flushed, and nothing else is left to do.
    """
    torch = sys.modules.get("torch.distributed")
    if torch is not None and torch.is_available() and torch.is_initialized():
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code) from None


def _end_on_signals() -> None:
    """Let SIGTERM, SIGHUP and SIGUSR1 (a scheduler that preempts) end a command as Ctrl-C does, which removes drafts.

    Ignored signals (nohup) stay ignored.
    """

    def on_signal(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, on_signal)


def _usage_error(error: Any) -> KdkitError:
    """A wrong argument, as an error like any other; the callbacks of the command's options have not run."""
    console.json_errors("--json" in sys.argv)
    command = error.ctx.command_path if error.ctx else "kdkit"
    return KdkitError("KD-CLI-013", error.format_message().rstrip("."), where=command, fix=f"{command} --help")


def _end(error: BaseException) -> int:
    """Report how a command ended; returns the exit code."""
    console.close()
    match error:
        case KdkitError():
            console.show_error(error)
            if console.debugging():
                traceback.print_exception(error)
            return error.code
        case KeyboardInterrupt():
            console.show_interrupt()
            return 128 + error.args[0] if error.args else ExitCode.INTERRUPTED
        case BrokenPipeError() if streams.reader_has_gone():
            streams.drop_data()
            return 128 + signal.SIGPIPE
    if found := as_kdkit_error(error) or _plugin_error(error):
        return _end(found)
    _report_bug(error)
    return ExitCode.BUG


def _plugin_error(error: BaseException) -> KdkitError | None:
    """The error that names the plugin which raised ``error``; None if no plugin did."""
    if "kdkit.core.plugin_system.discovery" not in sys.modules:
        return None
    from kdkit.core.plugin_system.failures import plugin_errors

    try:
        with plugin_errors("the command ended early"):
            raise error
    except KdkitError as found:
        return found
    except BaseException:
        return None


def _report_bug(error: BaseException) -> None:
    """Show one line; write the traceback to a file, without local variables, which may hold tokens."""
    report = f"kdkit {kdkit.__version__}, Python {sys.version.split()[0]}, {sys.platform}\n"
    report += "".join(traceback.format_exception(error))
    written = not console.debugging()
    if written:
        try:
            Path(ERROR_LOG).write_text(report, encoding="utf-8", errors="backslashreplace")
        except OSError:
            written = False
    place = f"{ERROR_LOG}, which holds" if written else ""
    console.show_error(
        KdkitError(
            "KD-CLI-014",
            f"internal error: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
            why="this is a defect of kdkit or of a plugin",
            fix=f"report it with {place} the traceback".replace("  ", " "),
            code=ExitCode.BUG,
        )
    )
    if not written:
        console.say(report)


if __name__ == "__main__":
    run()
