"""Kills and faults at the n-th operation on files of a root, counted by an audit hook: every way to the disk passes it.

An operation fails before it is done, or after: it is done, and its caller is told that it failed. A read that fails after is a
read that fails before, so only changes fail after.
"""

import builtins
import errno
import functools
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Literal

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}
READS = {"os.listdir", "os.scandir"}
FUNCTIONS = ("open", "rename", "replace", "remove", "unlink", "mkdir", "rmdir", "link")
Fault = Literal["kill", "before", "after"]


class Operations:
    """Counts the operations on files below a folder; at the chosen one, the process is killed or the operation fails.

    Attributes:
        count: operations so far.
        due: whether the operation that runs fails once it is done.
    """

    def __init__(self, root: str, at: int = 0, fault: Fault = "kill", reads: bool = True) -> None:
        self.root, self.at, self.fault, self.reads, self.count, self.due = f"{root}/", at, fault, reads, 0, False
        if fault == "after":
            for module, name in ((builtins, "open"), (io, "open"), *((os, function) for function in FUNCTIONS)):
                setattr(module, name, self._failing_after(getattr(module, name)))
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        reads = (event == "open" and not writes) or event in READS
        if not (writes or event in CHANGES or (reads and self.reads)):
            return
        path = arguments[0]
        path = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if not path.startswith(self.root):
            return
        self.count += 1
        if self.count == self.at:
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.fault == "before":
                raise OSError(errno.EIO, "planted fault", path)
            self.due = True

    def _failing_after(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            if self.due:
                self.due = False
                if hasattr(result, "close"):
                    result.close()
                raise OSError(errno.EIO, "planted fault after the operation", arguments[0])
            return result

        return call
