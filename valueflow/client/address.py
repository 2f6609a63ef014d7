"""The server's address and the API key, from arguments and the environment."""

import ipaddress
import re

import httpx

from valueflow.errors import InputError

SERVER_ENV, KEY_ENV, SERVER = "VALUEFLOW_SERVER", "VALUEFLOW_API_KEY", "http://127.0.0.1:8000"


def address(url: str) -> str:
    """Return the server's address without a trailing slash; error messages do not show it if it may contain a password."""
    if "@" in url:
        raise InputError(f"the server's address contains a user or a password; set the key with key= or {KEY_ENV} instead")
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise InputError(f"the server's address is not a URL ({error}); change url= or {SERVER_ENV}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise InputError(f"the server's address {url!r} is not of the form {SERVER}; change url= or {SERVER_ENV}")
    return str(parsed).rstrip("/")


def on_this_machine(url: str) -> bool:
    """Return whether the host of an address is the loopback interface."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def stripped(key: str) -> str:
    """Return the key without surrounding white space; no error message shows it."""
    if not re.fullmatch(r"[!-~]*", key.strip()):
        raise InputError(f"the API key (key= or {KEY_ENV}) contains spaces or non-ASCII characters; check how it was copied")
    return key.strip()
