"""Whether a file was written again, without reading it."""

import time

from valueflow.store.files import ABSENT, MODIFIED, attempts, filesystem, modified_at

SETTLED_SECONDS = 2.0  # after which a write is told from the one before by its time


def stamp(url: str) -> str:
    """Return what changes when a file is written again, such as its ETag; "" where there is no file, or nothing can tell yet.

    On a disk that is the time of the last change: a file that was written a moment ago may be written again in the same tick.
    """
    fs, path = filesystem(url)
    try:
        info = attempts(f"look for {url}", lambda: fs.info(path))
    except ABSENT:
        return ""
    if etag := info.get("ETag") or info.get("etag"):
        return str(etag)
    if not any(name in info for name in MODIFIED) or time.time() < (modified := modified_at(url, info)) + SETTLED_SECONDS:
        return ""
    return f"{modified} {info['size']} {info.get('ino', '')}"
