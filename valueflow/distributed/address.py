"""Where a job's Ray is: its address, who set it, and one sentence about a cluster that cannot be joined or started."""

import contextlib
import os
import socket
import time
from typing import NamedTuple

from ray._private.utils import get_ray_address_file, read_ray_address
from ray.exceptions import AuthenticationError

from valueflow import retry
from valueflow.errors import InputError

ENVIRONMENT = "RAY_ADDRESS"
LOCAL, AUTO = "local", "auto"
CLIENT, CLIENT_PORT = "ray://", "10001"
# Seconds for a connection, and how often one is tried: without this check Ray waits minutes for a cluster that is gone.
CONNECT, ATTEMPTS = 5.0, 3
# Seconds for the first byte: Ray's servers speak gRPC and greet who greets them; from one that does not, Ray waits for minutes.
GREETING = 15.0
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # HTTP/2: preface and empty settings
TOKENS = (
    "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the token of the cluster (or RAY_AUTH_TOKEN_PATH to the file that holds it)"
)


class Address(NamedTuple):
    """The address of a cluster (LOCAL: Ray is started on this machine), who set it, and how to change that."""

    address: str
    source: str
    change: str

    @property
    def joins(self) -> bool:
        """Whether a running cluster is joined."""
        return self.address != LOCAL

    def check(self) -> None:
        """Check that the address is well-formed and that something answers there.

        Raises:
            InputError: no; the message names the address, its source and what to do.
        """
        place = _place(self)
        if not self.joins or self.address == AUTO or "://" in place:
            return
        host, port = _host_and_port(self, place)
        for attempt in range(ATTEMPTS):
            try:
                connection = socket.create_connection((host, port), CONNECT)
                break
            except OSError as error:
                if attempt == ATTEMPTS - 1 or isinstance(error, socket.gaierror):
                    reason = f"nothing answers there ({error})"
                    raise self.error(reason, f"Start the cluster, or {self.change}") from error
            time.sleep(retry.backoff(attempt))
        with connection, contextlib.suppress(ConnectionError):  # a server with TLS may hang up: it is there
            connection.settimeout(GREETING)
            try:
                connection.sendall(HELLO)
                connection.recv(1)
            except TimeoutError as error:
                reason = f"what listens there says nothing for {GREETING:.0f} s, so it is no Ray cluster, or one that hangs"
                raise self.error(reason, f"See whether the cluster is up, or {self.change}") from error

    def failure(self, error: BaseException) -> InputError:
        """Return the exception with which Ray refused to start or to join as one sentence."""
        while error.__cause__ is not None:  # Ray's last word is only that it failed
            error = error.__cause__
        text = str(error).strip()
        if "Traceback (most recent call last)" in text:
            text = text.splitlines()[-1]
        reason = " ".join(text.split()).rstrip(".")[:500] or type(error).__name__
        if isinstance(error, AuthenticationError) or "authentication token" in reason.lower():
            return self.error(reason.partition(". ")[0], TOKENS)
        if reason.startswith("Version mismatch"):
            return self.error(reason, f"Use the cluster's versions of Ray and Python here, or {self.change}")
        return self.error(reason, f"See whether the cluster is up, or {self.change}")

    def error(self, reason: str, remedy: str) -> InputError:
        """Return the error of this address."""
        if self.joins:
            return InputError(f"cannot join the Ray cluster at {self.address} ({self.source}): {reason}. {remedy}")
        load, cpus = os.getloadavg()[0], os.cpu_count()
        return InputError(
            f"Ray did not start on this machine: {reason}. The load is {load:.1f} on {cpus} CPUs: rerun when there is room, or "
            f"set cluster.address or {ENVIRONMENT} to a running cluster; Ray's logs are in /tmp/ray/session_latest/logs"
        )


def cluster_address(configured: str | None) -> Address:
    """Return the address at which a job runs: of its config, else of the environment, else Ray is started on this machine."""
    address = (configured or "").strip()
    if address and address != AUTO:
        return Address(address, "cluster.address", "change cluster.address, or set it to null to start Ray on this machine")
    if from_environment := os.environ.get(ENVIRONMENT, "").strip():
        change = f"change {ENVIRONMENT}, or unset it to start Ray on this machine"
        return Address(from_environment, f"environment variable {ENVIRONMENT}", change)
    if address == AUTO and (last := read_ray_address()):
        file = get_ray_address_file(None)
        change = f"remove {file}, or set cluster.address to null to start Ray on this machine"
        return Address(last, f"cluster.address is auto, Ray wrote this into {file}", change)
    change = "set cluster.address to null to start Ray on this machine"
    return Address(address or LOCAL, "cluster.address", change)


def _place(address: Address) -> str:
    text = address.address
    if text.startswith(CLIENT):
        text = text.removeprefix(CLIENT)
        return text if ":" in text else f"{text}:{CLIENT_PORT}"
    if text.startswith(("http://", "https://")):
        raise address.error(
            "that is the address of a dashboard, for ray job submit --address", f"A job needs host:port; {address.change}"
        )
    return text


def _host_and_port(address: Address, place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise address.error("that is no address", f"It must be host:port, for example 10.0.0.1:6379, or auto; {address.change}")
    return host, int(port)
