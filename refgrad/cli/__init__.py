"""The `refgrad` command: one thin file per sub-command."""

import argparse
import sys

from refgrad.cli import bench, claims, cost, export, report, sample, train, verify

COMMANDS = {
    "verify": verify,
    "cost": cost,
    "claims": claims,
    "bench": bench,
    "report": report,
    "train": train,
    "sample": sample,
    "export": export,
}
INTERRUPTED = 130  # 128 and the signal's number, as shells count


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command. Returns the exit code: 0 only if everything that it checks holds, 2 for bad input, 130
    where it was interrupted."""
    parser = argparse.ArgumentParser(prog="refgrad", description="Hand-derived gradients in JAX: verified and priced.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.__doc__, description=command.__doc__))
    options = parser.parse_args(argv)
    try:
        return COMMANDS[options.command].run(options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"refgrad {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"refgrad {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
