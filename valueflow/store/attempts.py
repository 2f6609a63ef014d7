"""Attempts: one at a time of each command under a root, with a lease that names the builds it uses.

The lease is `attempts/{job}-{settings}.json`. It is taken by compare-and-swap, rewritten every `BEAT` seconds, and ends with
the exit code. Garbage collection keeps what the lease of a running attempt names. A build is named in the lease before its
manifest is read, and then a collector that deletes is waited for; a collector says that it deletes, and then reads the leases.
So one of them always sees the other.
"""

import contextlib
import errno
import functools
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from valueflow.errors import InputError, StorageError
from valueflow.store.files import filesystem, protocols, read_bytes
from valueflow.store.layout import attempt_url, collector_url
from valueflow.store.swap import swap

log = logging.getLogger(__name__)

# Seconds between two signs of life, and without one after which an attempt counts as dead.
BEAT, EXPIRY = 15.0, 90.0
POLL = 2.0
RUNNING, ENDED = "running", "ended"
INTERRUPTED = 130


class Lease(BaseModel):
    """What the file of an attempt holds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    attempt: str
    number: int = 1
    command: str = ""
    process: str = ""
    state: str = RUNNING
    started: str = ""
    beat: str = ""
    exit_code: int | None = None
    uses: list[str] = []

    @property
    def age(self) -> float:
        """Seconds since the last sign of life, by the clocks of both machines."""
        with contextlib.suppress(ValueError, TypeError):
            return (datetime.now(UTC) - datetime.fromisoformat(self.beat)).total_seconds()
        return float("inf")


class Attempt:
    """The running attempt of this process."""

    def __init__(self, root: str, work: str, command: str) -> None:
        self.root, self.url = root, attempt_url(root, work)
        self._place = place(root)
        self._raw: bytes | None = None
        self._guard, self._over = threading.Lock(), threading.Event()
        self._lost = False
        self._safe: set[str] = set()  # names that no collector can have missed
        now = _now()
        self._lease = Lease(attempt=uuid.uuid4().hex, command=command, process=str(Process.own()), started=now, beat=now)

    def begin(self) -> bool:
        """Take the lease; wait while another attempt of the same work holds it and lives.

        Return False where nothing may be written: who only reads needs no lease, and who writes is refused by the first write.
        """
        holder, since, told = b"", time.monotonic(), False
        while True:
            seen = _read(self.url)
            other = parse(seen)
            if other and other.state == RUNNING:
                if seen != holder:
                    holder, since = seen or b"", time.monotonic()
                if not is_dead(other) and time.monotonic() - since < EXPIRY:
                    if not told:
                        log.info("another attempt of this command runs (%s, since %s); waiting for it", *_who(other))
                        told = True
                    time.sleep(POLL)
                    continue
            try:
                if self._write(seen, number=other.number + 1 if other else 1):
                    # The collector may be about to delete the old lease of this work.
                    wait_for_collector(self.root)
                    if _read(self.url) == self._raw:
                        break
            except StorageError as error:
                if not _is_forbidden(error.__cause__):
                    raise
                log.warning("%s; this run has no lease", error)
                return False
        threading.Thread(target=self._beat, daemon=True, name="lease").start()
        return True

    def end(self, exit_code: int) -> None:
        """Give the lease back."""
        self._over.set()
        with self._guard:
            if not self._lost:
                self._write(self._raw, state=ENDED, exit_code=exit_code)

    def use(self, root: str, name: str) -> None:
        """Name something under the root that must not be deleted, such as `texts/3f…`; wait while garbage is deleted.

        Raises:
            InputError: another attempt has taken this one for dead, and the lease.
        """
        inside = place(root)
        if inside != self._place and not inside.startswith(f"{self._place}/"):
            return
        name = f"{inside}/{name}".removeprefix(f"{self._place}/")
        with self._guard:
            if name in self._safe and not self._lost:
                return
            if name not in self._lease.uses:
                self._lost = self._lost or not self._write(self._raw, uses=[*self._lease.uses, name])
            if self._lost:
                raise InputError(
                    f"another attempt of this command has taken over, because this one gave no sign for {EXPIRY:.0f} seconds "
                    f"({self.url}); this one stops. Nothing was lost"
                )
        wait_for_collector(self.root)
        with self._guard:
            self._safe.add(name)

    def _write(self, expected: bytes | None, **changes: object) -> bool:
        lease = self._lease.model_copy(update={"beat": _now(), **changes})
        content = lease.model_dump_json(indent=1).encode()
        if not swap(self.url, content, expected):
            # An earlier write of this attempt may have succeeded though its answer was lost.
            now = _read(self.url)
            there = parse(now)
            if not there or there.attempt != lease.attempt or not swap(self.url, content, now):
                return False
        self._lease, self._raw = lease, content
        return True

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with self._guard:
                if self._over.is_set() or self._lost:
                    return
                try:
                    self._lost = not self._write(self._raw)
                except StorageError as error:  # the next beat may succeed; another attempt takes over if none does
                    log.warning("%s", error)


_current: Attempt | None = None


@contextlib.contextmanager
def attempt(root: str, work: str, command: str) -> Iterator[None]:
    """Hold the lease of a work under a root; the exit code is that with which Python ends by what the block raises.

    Args:
        root: folder or URL of all tables.
        work: the job and the hash of its settings.
        command: as it may be shown.
    """
    global _current
    held = Attempt(root, work, command)
    if not held.begin():
        yield
        return
    _current, code = held, 1
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    finally:
        _current = None
        with contextlib.suppress(StorageError):  # what failed before is the message
            held.end(code)


def use(root: str, name: str) -> None:
    """Name something under a root in the lease of this process, if it has one."""
    if _current:
        _current.use(root, name)


def wait_for_collector(root: str) -> None:
    """Wait while garbage is deleted under a root; a collector that gives no sign of life for `EXPIRY` seconds is dead."""
    holder, since = b"", time.monotonic()
    while raw := _read(collector_url(root)):
        other = parse(raw)
        if raw != holder:
            holder, since = raw, time.monotonic()
        if not other or other.state != RUNNING or is_dead(other) or time.monotonic() - since > EXPIRY:
            return
        time.sleep(POLL / 4)


class Collector:
    """Says under a root that garbage is deleted, so that no attempt begins to use a build meanwhile."""

    def __init__(self, root: str) -> None:
        self.root, self.url, self._raw = root, collector_url(root), b""
        self._beaten = 0.0

    def __enter__(self) -> "Collector":
        wait_for_collector(self.root)
        self._write(RUNNING, _read(self.url))
        return self

    def __exit__(self, *_: object) -> None:
        self._write(ENDED, self._raw)

    def beat(self) -> None:
        """Give a sign of life. To be called before every deletion.

        Raises:
            InputError: this process stood still for so long that others may have taken it for dead.
        """
        since = time.monotonic() - self._beaten
        if since > EXPIRY / 3:
            raise InputError(f"garbage collection stood still for {since:.0f} seconds and stops; nothing was lost, rerun it")
        if since > BEAT / 3:
            self._write(RUNNING, self._raw)

    def _write(self, state: str, expected: bytes | None) -> None:
        now, self._beaten = _now(), time.monotonic()
        lease = Lease(attempt=uuid.uuid4().hex, process=str(Process.own()), state=state, started=now, beat=now)
        content = lease.model_dump_json().encode()
        if not swap(self.url, content, expected):
            raise InputError(f"another garbage collection has begun ({self.url}); rerun this one after it")
        self._raw = content


def parse(raw: bytes | None) -> Lease | None:
    """Return the lease in a file, None where there is none or a damaged one."""
    with contextlib.suppress(ValidationError, ValueError):
        return Lease.model_validate_json(raw or b"")
    return None


def is_dead(lease: Lease) -> bool:
    """Return whether an attempt has ended without saying so, as far as one look tells: its process is gone or long silent."""
    of, here = Process.parse(lease.process), Process.own()
    if of and of.machine == here.machine:
        return _start_of(of.pid) != of.start
    # Clocks differ by less than this.
    return lease.age > 4 * EXPIRY


class Process(NamedTuple):
    """A process of some machine, so that a later one of the same number is another."""

    machine: str
    pid: int
    start: str

    def __str__(self) -> str:
        return f"{self.machine}:{self.pid}:{self.start}"

    @classmethod
    def parse(cls, text: str) -> "Process | None":
        """Return the process of a lease; None where the text is none."""
        machine, _, rest = text.partition(":")
        pid, _, start = rest.partition(":")
        return cls(machine, int(pid), start) if pid.isascii() and pid.isdigit() else None

    @classmethod
    def own(cls) -> "Process":
        """Return this process."""
        return cls(_machine(), os.getpid(), _start_of(os.getpid()))


@functools.cache
def _machine() -> str:
    """The host and its namespace of process ids, so that a pid means the same to who writes and who reads it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(parts).replace(":", "-")


def _start_of(pid: int) -> str:
    """When a process of this machine started; "" where there is none, or one that has ended and waits for its parent."""
    try:
        # The second field is the name in parentheses, which may hold spaces; the third is the state, the start is field 22.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    except (OSError, ValueError, IndexError):
        if Path("/proc/self/stat").exists():
            return ""
    try:  # no /proc: macOS
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"


@functools.lru_cache
def place(root: str) -> str:
    """Return a root in one spelling: absolute, with its protocol."""
    fs, path = filesystem(root)
    return f"{protocols(fs)[0]}://{str(fs._strip_protocol(path)).rstrip('/')}"


def _who(lease: Lease) -> tuple[str, str]:
    of = Process.parse(lease.process)
    return (f"{of.machine.partition('/')[0]}, process {of.pid}" if of else lease.attempt), lease.started[:19]


def _read(url: str) -> bytes | None:
    try:
        return read_bytes(url)
    except FileNotFoundError:
        return None


def _is_forbidden(error: BaseException | None) -> bool:
    return isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
