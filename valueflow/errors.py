"""The exceptions for errors of the user, and suggestions of near spellings."""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator

from valueflow.console import USERINFO, without_secrets

LONGEST = 2_000  # characters of a message


class InputError(ValueError):
    """An error in the user's input; jobs print the message without a traceback and exit with `exit_code`."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the message on one line, without secrets and, if it is long, without its middle."""
        text = super().__str__().strip()
        if len(text) > 4 * LONGEST:  # it may quote a file of any size: the search for secrets must not take minutes
            begin, end = (without_secrets(part) for part in (text[: 2 * LONGEST], text[-2 * LONGEST :]))
            if len(end) <= LONGEST // 2:  # all of it will be shown, and its first word may be the second half of a secret
                end = end.partition(" ")[2]
            text = f"{begin} … {end}"
        text = " ".join(line for line in map(str.strip, without_secrets(text).split("\n")) if line)
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 + 10 :]}"


def check_no_password(url: str, what: str = "") -> None:
    """Refuse a URL with a user name and password, which would be saved and logged with it.

    Raises:
        InputError: it has them; the message begins with `what`.
    """
    if USERINFO.search(url):
        raise InputError(
            f"{what}{': ' if what else ''}{url!r} holds a user name or a password; leave them out of the URL and give them in "
            "the environment (a judge's key in the variable that key_env names)"
        )


def allowed(word: object, choices: Iterable[str]) -> str:
    """Return "did you mean 'x'?" if a choice has a near spelling, else the list of choices."""
    choices = list(choices)
    near = difflib.get_close_matches(str(word).lower(), [c.lower() for c in choices], n=1, cutoff=0.6)
    if near:
        return f"did you mean {next(c for c in choices if c.lower() == near[0])!r}?"
    return "allowed: " + ", ".join(map(str, choices))


class BudgetSpent(InputError):
    """An LLM has spent its budget; all answers are stored, and a rerun with a larger budget resumes."""

    exit_code = 6


class TooManyErrors(InputError):
    """More questions than allowed have no valid answer; all answers are stored."""


class NoProgress(InputError):
    """A stage finished nothing for too long; all answers are stored, and a rerun resumes."""

    exit_code = 3


class NoCapacity(InputError):
    """The cluster did not get the resources of a stage in time; all answers are stored, and a rerun resumes."""

    exit_code = 4


class DeadlinePassed(InputError):
    """The time that a job may take is over; all answers are stored, and a rerun resumes."""

    exit_code = 5


class OperatorError(InputError):
    """An error that only the operator of a service can mend: its judge, its encoder or a file under its root fails."""


@contextlib.contextmanager
def of_the_operator() -> Iterator[None]:
    """Raise an InputError of the block, such as a wrong key of an endpoint or a folder that is gone, as an OperatorError."""
    try:
        yield
    except (OperatorError, BudgetSpent):
        raise
    except InputError as error:
        raise OperatorError(str(error)) from error


class StorageError(OperatorError, OSError):
    """A file system or object store refused or failed, also when tried again; nothing was removed."""


class DamageError(StorageError):
    """A file under a root is missing, or was read whole and is not what was written."""


# What lasts until somebody acts, by number, and what to do.
_LASTING = {
    errno.ENOSPC: "no space is left there. Free some, or choose another root, and rerun",
    errno.EDQUOT: "its disk quota is used up. Raise it or free space, and rerun",
    errno.EROFS: "it is read-only. Make it writable, or choose another root, and rerun",
    errno.EACCES: "permission is denied. Change the permissions, or choose another root, and rerun",
    errno.EPERM: "it is not permitted. Change the permissions, or choose another root, and rerun",
}
_OF_DEVICES = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.ENOTCONN}


def lasts(error: BaseException) -> bool:
    """Return whether an error of storage stays when the operation is tried again."""
    return isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in _LASTING)


def storage_error(error: BaseException, doing: str = "") -> StorageError:
    """Return an error of a file system or object store as one sentence; `doing` is the operation and its URL."""
    number = error.errno if isinstance(error, OSError) else None
    what = doing or f"use {getattr(error, 'filename', None) or 'a file'}"
    remedy = _LASTING.get(number or (errno.EACCES if isinstance(error, PermissionError) else 0))
    reason = " ".join(str(error).split()) or type(error).__name__
    return StorageError(
        f"cannot {what}: {remedy} ({reason})" if remedy else f"cannot {what}: {reason}. Nothing was lost; rerun"
    )


def of_storage(error: BaseException) -> bool:
    """Return whether an exception is one of disks: full, read-only, forbidden, broken or gone."""
    return isinstance(error, OSError) and (error.errno in _OF_DEVICES or error.errno in _LASTING)
