"""Delete garbage beside jobs that run."""

import time
from collections.abc import Iterator, Sequence

from valueflow.store.attempts import Collector
from valueflow.store.files import entries, remove_listed, sweep_below
from valueflow.store.garbage import DAY, FOR_PEOPLE, MARGIN, Garbage, Key, Rules, closure, found_builds, is_named, needed_names

HOLD = 30.0  # seconds after which attempts that wait get their turn
AT_ONCE = 1_000  # files between two looks at the clock


def collect(root: str, items: Sequence[Garbage], rules: Rules, since: float) -> Iterator[Garbage]:
    """Delete what is still garbage, and yield what was deleted.

    Attempts that want to use a build wait meanwhile, about `HOLD` seconds at a time. Of a build the manifest goes first, and
    builds go before those that they were made from: a crash leaves unfinished builds, and no finished one without its inputs.

    Args:
        root: folder or URL of all tables.
        items: as `garbage` returned them, in their order.
        rules: the same.
        since: when `garbage` began, seconds since 1970: what was used or written since stays.

    Raises:
        InputError: another collection has begun, or this process stood still; what is left is garbage for the next one.
    """
    waiting = list(items)
    while waiting:
        with Collector(root) as collector:
            started = time.monotonic()
            # After the collector has said that it deletes, and before the first deletion.
            names, keys = _needed(root, waiting, rules, since)
            while waiting and time.monotonic() - started < HOLD:
                item = waiting.pop(0)
                if item.name in names or item.key in keys:
                    continue
                files = _unchanged(item, since)
                for at in range(0, len(files), AT_ONCE):
                    collector.beat()
                    if item.kind == "temporary":
                        sweep_below(item.url)  # only of writers that are dead
                    else:
                        remove_listed(item.url, files[at : at + AT_ONCE])
                if files:
                    yield item


def _needed(root: str, items: Sequence[Garbage], rules: Rules, since: float) -> tuple[set[str], set[Key]]:
    """The names that are needed now; where one is among the items, also their builds and what those were made from."""
    names = needed_names(root, rules, since - rules.days * DAY - MARGIN)
    urls = {item.name for item in items if item.key} | {f"files/{item.name}" for item in items if item.key}
    if not names & urls:
        return names, set()
    builds = found_builds(root)
    return names, closure({key for key, of in builds.items() if is_named(key, of.build, root, names)}, builds)


def _unchanged(item: Garbage, since: float) -> list[str]:
    """The files of an item that are there as they were listed; none of files that belong together if one was written since."""
    files = entries(item.url)
    written = {path for path, entry in files.items() if entry.modified >= since - MARGIN and not path.startswith(FOR_PEOPLE)}
    if item.is_whole and written:
        return []
    return [path for path in item.files if path in files and path not in written]
