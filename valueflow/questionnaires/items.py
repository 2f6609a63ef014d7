"""The items of a questionnaire and their key, from a user's file: CSV, TSV, JSON lines or Parquet.

Columns: `item` (id), `text`, `scale` (what the item measures) and `key` (+ or -: agreement means more or less of it).
Several rows of one id are paraphrases of the item.
"""

from typing import NamedTuple

from valueflow.errors import InputError
from valueflow.records import clean, flaw
from valueflow.tabular import Row, cell, require, rows, urls

COLUMNS = ["item", "text", "scale", "key"]
KEYS = {"+": 1, "1": 1, "+1": 1, "positive": 1, "-": -1, "-1": -1, "−": -1, "negative": -1, "reverse": -1}


class Item(NamedTuple):
    """An item: its paraphrases, the scale that it belongs to, and whether agreement means more (1) or less (-1) of that."""

    item_id: str
    texts: tuple[str, ...]
    scale: str
    key: int


def read_items(url: str) -> list[Item]:
    """Return the items of a file, in their order.

    Raises:
        InputError: the file or a column is missing, a row is bad, or rows of one item disagree in scale or key.
    """
    files = urls(url)
    require(files, COLUMNS)
    items: dict[str, Item] = {}
    for file in files:
        for row in rows(file, COLUMNS):
            item = _item(row)
            known = items.get(item.item_id, item._replace(texts=()))
            if (known.scale, known.key) != (item.scale, item.key):
                raise InputError(
                    f"{row.location}: item {item.item_id!r} is of scale {item.scale!r} with key {item.key:+d} here, and of "
                    f"{known.scale!r} with {known.key:+d} before; rows of one item are its paraphrases"
                )
            items[item.item_id] = known._replace(texts=tuple(dict.fromkeys((*known.texts, *item.texts))))
    if not items:
        raise InputError(f"items: {url} has no row; give a file with the columns {', '.join(COLUMNS)}")
    return list(items.values())


def _item(row: Row) -> Item:
    if row.error:
        raise InputError(f"{row.location}: {row.error}")
    item_id, text, scale, key = (clean(cell(row.fields, name)) for name in COLUMNS)
    for name, content in zip(COLUMNS, (item_id, text, scale, key), strict=True):
        if not content:
            raise InputError(f"{row.location}: {name} is empty")
        if problem := flaw(content):
            raise InputError(f"{row.location}: {name} has {problem}")
    if key.lower() not in KEYS:
        raise InputError(f"{row.location}: key is {key!r}; + and - are allowed (agreement means more or less of the scale)")
    return Item(item_id, (text,), scale, KEYS[key.lower()])
