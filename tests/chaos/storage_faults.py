"""Kills and faults at the n-th operation on files of a root, by an audit hook of Python: every way to the disk passes it."""

import errno
import os
import signal
import sys

CHANGES = {"os.rename", "os.remove", "os.unlink", "os.mkdir", "os.rmdir", "os.link"}
READS = {"os.listdir", "os.scandir"}


class Operations:
    """Counts the operations on files below a folder; at the chosen one, the process is killed or the operation fails."""

    def __init__(self, root: str, at: int = 0, fault: str = "kill", reads: bool = True) -> None:
        self.root, self.at, self.fault, self.reads, self.count = root, at, fault, reads, 0
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if event != "open" and event not in CHANGES and not (self.reads and event in READS):
            return
        path = arguments[0]
        path = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if not path.startswith(self.root):
            return
        if (
            event == "open"
            and not self.reads
            and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        ):
            return
        self.count += 1
        if self.count == self.at:
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, "planted fault", path)
