"""The `relugrad` command: `python -m relugrad`."""

import signal
import sys

from ._relugrad import command


def main() -> None:
    """Runs the command with the arguments of this process, and ends with its exit code."""
    # The command listens to signals itself; Python would first wait for it to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(command(["relugrad", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
