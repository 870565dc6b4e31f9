"""The program `nvmelab`, also as `python -m nvmelab`."""

from __future__ import annotations

import io
import logging
import sys


def main() -> None:
    """The console script. Importing takes a moment, in which Ctrl-C must not print a traceback."""
    try:
        from nvmelab.cli.main import cli

        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file's name need not be text: escape it, as standard error does by itself.
            sys.stdout.reconfigure(errors="backslashreplace")
        logging.basicConfig(format="nvmelab: %(message)s", stream=sys.stderr)
        cli()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
