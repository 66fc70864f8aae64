"""Runs a module as `python -m` does, in a process that gets SIGTERM when the process that started it ends.

python -m indexer.nightly.child PARENT MODULE ARGUMENTS
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the module that the command line names."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    del sys.argv[1:3]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before we asked for the signal
        sys.exit("error: the process that started this command is gone")
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
