"""What is checked in the head of a request before any key: its size, and the host it is sent to."""

import ipaddress
import re

from starlette.types import Scope

from serve.problems import Refused

MAX_HEAD_BYTES = 32 * 2**10
MAX_URL_BYTES = 8 * 2**10
ANY_HOST = "*"
HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]*)?")
# Probes of a cluster name the address of a pod; what they learn is no secret.
PROBES = {"/healthz", "/readyz"}


def check_size(scope: Scope) -> None:
    """Check the size of URL and headers.

    Raises:
        Refused: 414 or 431; the connection is closed.
    """
    close = {"Connection": "close"}
    url = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if url > MAX_URL_BYTES:
        raise Refused(414, "url-size", f"the URL has {url} bytes; at most {MAX_URL_BYTES} are allowed", close)
    head = url + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if head > MAX_HEAD_BYTES:
        raise Refused(431, "header-size", f"the headers have {head} bytes; at most {MAX_HEAD_BYTES} are allowed", close)


class Hosts:
    """The hosts that requests may be sent to.

    A page of another site can point its own name at 127.0.0.1 and so read from a server without keys (DNS rebinding); the Host
    header then still has that name.
    """

    def __init__(self, names: list[str], with_keys: bool) -> None:
        """Names of `HttpConfig.hosts`; without any, those of this machine, or all if requests need a key."""
        self._names = {name.lower().rstrip(".") for name in names}
        self._any = ANY_HOST in names or (with_keys and not names)

    def check(self, scope: Scope) -> None:
        """Check the Host header; a request without one (HTTP/1.0) comes from no browser.

        Raises:
            Refused: 403.
        """
        if self._any:
            return
        for name, value in scope["headers"]:
            if name == b"host" and not self._allowed(host := value.decode("latin-1")):
                allowed = ", ".join(["localhost", *sorted(self._names)])
                raise Refused(
                    403,
                    "host",
                    f"the request is for the host {host[:100]!r}; allowed: {allowed} (setting http.hosts of the server)",
                )

    def _allowed(self, host: str) -> bool:
        match = HOST.fullmatch(host.strip().lower())
        name = (match["ipv6"] or match["name"]).rstrip(".") if match else ""
        if name == "localhost" or name in self._names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False
