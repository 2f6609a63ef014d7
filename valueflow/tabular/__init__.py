"""The one reader of users' CSV, TSV, JSON lines and Parquet files, and the one writer of CSV."""

from valueflow.tabular.csv_writer import CsvWriter, csv_text
from valueflow.tabular.reader import (
    EXTENSIONS,
    KINDS,
    Row,
    cell,
    columns,
    is_table,
    number,
    require,
    row_error,
    row_names,
    rows,
    strict_rows,
    urls,
)

__all__ = [
    "EXTENSIONS",
    "KINDS",
    "CsvWriter",
    "Row",
    "cell",
    "columns",
    "csv_text",
    "is_table",
    "number",
    "require",
    "row_error",
    "row_names",
    "rows",
    "strict_rows",
    "urls",
]
