"""Bytes of the parquet files that are written here: with checksums, so that a changed bit is damage and no other number."""

import io

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """Return the bytes of a table."""
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    return content.getvalue()


def parquet_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Return some columns of a table, or all; raises what pyarrow raises where a page differs from its checksum."""
    return pq.read_table(pa.BufferReader(data), columns=columns, partitioning=None, page_checksum_verification=True)


def check_layout(data: bytes) -> None:
    """Raise ValueError unless the columns follow each other up to the footer, as they are written.

    For files whose hash nobody has. A checksum is of one page: where bytes are missing or too many, a whole page may stand
    where another one was.
    """
    footer, end = pq.read_metadata(pa.BufferReader(data)), len(b"PAR1")
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if end != (column.dictionary_page_offset or column.data_page_offset):
                raise ValueError(f"column {column.path_in_schema} does not begin where the one before it ends")
            end += column.total_compressed_size
    if end + int.from_bytes(data[-8:-4], "little") + 8 != len(data):
        raise ValueError("its columns do not end where its footer begins")
