"""The `thumbtune` command: every subcommand in one place, each in a module of its own."""

from __future__ import annotations

import logging
import sys

import typer

from bot.cli import (
    adapters,
    chat,
    console_password,
    data,
    demo,
    doctor,
    feedback,
    generate,
    keys,
    retrain,
    runs,
    serve,
    servers,
    up,
)

app = typer.Typer(
    name="thumbtune",
    help="A chat bot that learns from its own server's votes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("generate")(generate.generate)
app.command("retrain")(retrain.retrain)
app.add_typer(feedback.app, name="feedback")
app.add_typer(runs.app, name="runs")
app.add_typer(adapters.app, name="adapters")
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(servers.app, name="servers")
app.command("backup")(data.backup)
app.command("restore")(data.restore)
app.command("prepare")(up.prepare)
app.command("console-password")(console_password.console_password)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    app()


if __name__ == "__main__":
    main()
