"""Runs a command that ends with its parent: `python _follow.py PARENT COMMAND…`.

A process that is killed by SIGKILL cannot end what it has started. On Linux the kernel does it:
`prctl(PR_SET_PDEATHSIG)` outlives `exec`. It is set here and not between `fork` and `exec` of the
parent, where a program with threads must not run Python. Elsewhere the command ends by itself.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Becomes the command of the arguments."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        # It may have died before.
        if os.getppid() != parent:
            sys.exit(128 + signal.SIGKILL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
