"""Queries that are put to models: users' CSV, TSV, JSON lines and Parquet files with a column `query`."""

import logging
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from valueflow.errors import InputError
from valueflow.records import clean, digest, flaw
from valueflow.tabular import Row, cell, columns, require, rows, urls

log = logging.getLogger(__name__)
# Letters of Windows-1252 (dashes, the trademark sign) that were read as Latin-1: control characters, which say nothing.
MISREAD = re.compile("[\x80-\x84\x86-\x9f]")


class Query(NamedTuple):
    """One query and the source that it comes from."""

    query_id: str
    dataset: str
    text: str


def read_queries(files: str | Sequence[str], limit: int | None = None) -> list[Query]:
    """Return the distinct queries of files, in their order.

    Args:
        files: URLs, paths or globs of files with a column `query`; a column `dataset` names the source of a row, else the name
            of its file does.
        limit: the largest number of queries of a source, its first ones; None for all.

    Raises:
        InputError: a file or its column is missing, a row is bad, or there is no query.
    """
    named = [files] if isinstance(files, str) else list(files)
    queries: dict[str, Query] = {}
    counts: dict[str, int] = {}
    repeated = 0
    for url in (file for pattern in named for file in urls(pattern)):
        require([url], ["query"])
        before = len(queries)
        source = PurePosixPath(url.rpartition("/")[2]).stem
        for row in rows(url, ["query", *(["dataset"] if "dataset" in columns(url) else [])]):
            query = _query(row, source)
            if query.query_id in queries:
                repeated += 1
            elif query.text and (limit is None or counts.get(query.dataset, 0) < limit):
                queries[query.query_id] = query
                counts[query.dataset] = counts.get(query.dataset, 0) + 1
        if len(queries) == before and not repeated:
            raise InputError(f"{url} has no query: every row of its column 'query' is empty, or it has no rows")
    if not queries:
        raise InputError(f"queries: {', '.join(named) or 'no file is named'}: no query; give files with a column 'query'")
    if repeated:
        log.warning("queries: %d rows repeat an earlier one and are left out", repeated)
    return list(queries.values())


def _query(row: Row, source: str) -> Query:
    """The query of a row; InputError where it cannot be read."""
    if row.error:
        raise InputError(f"{row.location}: {row.error}")
    try:
        text, dataset = (clean(MISREAD.sub("", cell(row.fields, name))) for name in ("query", "dataset"))
    except InputError as error:
        raise InputError(f"{row.location}: {error}") from None
    if problem := flaw(text) or flaw(dataset):
        raise InputError(f"{row.location}: the query has {problem}")
    return Query(digest("query", dataset or source, text), dataset or source, text)
