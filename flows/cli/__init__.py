"""The command `longreward`: `main.py` has the entry point, every other module one subcommand.

A subcommand's module defines `add_parser(subparsers)`, which sets the handler as the default of `options.run`. Heavy
libraries (torch, Prefect, MLflow) are imported inside the handlers: `longreward --help` takes 0.1 s instead of seconds.
"""
