"""The two formats of result files, as bytes, and the writing of a file whole or not at all.

Both hold the same envelope, JSON text with a SHA-256 of its content: `provenance`, `result` (see
`encoding`) and, in Parquet, the columns of the table. Parquet pages carry checksums of their own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from headspec.errors import InputError
from headspec.results.encoding import decode, encode
from headspec.results.provenance import Provenance

_FORMAT = "headspec results 1"
_KEY = b"headspec"
_MOST_TEXT = 2**31 - 1  # bytes that a Parquet footer may hold


@dataclass(frozen=True)
class FileFormat:
    """How a result becomes bytes and comes back.

    Attributes:
        dumps: the bytes for a result and its provenance (or None).
        loads: the result from such bytes.
        loads_provenance: only the provenance, or None.
    """

    dumps: Callable[[Any, Provenance | None], bytes]
    loads: Callable[[bytes], Any]
    loads_provenance: Callable[[bytes], Provenance | None]


def seal(content: dict[str, Any]) -> bytes:
    """The envelope: content beside its checksum and the name of the format."""
    envelope = {"format": _FORMAT, "sha256": _digest(content), "content": content}
    return json.dumps(envelope, allow_nan=False).encode()


def _unseal(text: bytes) -> dict[str, Any]:
    """The content of an envelope; ValueError where it is not what was written."""
    envelope = json.loads(text)
    if not isinstance(envelope, dict) or envelope.get("format") != _FORMAT:
        raise ValueError(f"no {_FORMAT!r} in it")
    if _digest(envelope["content"]) != envelope["sha256"]:
        raise ValueError("its content does not match its checksum")
    return envelope["content"]


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


# --- JSON ------------------------------------------------------------------------------------


def _json_dumps(result: Any, provenance: Provenance | None) -> bytes:
    return seal({"provenance": encode(provenance), "result": encode(result)}) + b"\n"


def _json_loads(text: bytes) -> Any:
    return decode(_unseal(text)["result"])


def _json_provenance(text: bytes) -> Provenance | None:
    return decode(_unseal(text)["provenance"])


# --- Parquet ---------------------------------------------------------------------------------


def _parquet_dumps(result: Any, provenance: Provenance | None) -> bytes:
    is_frame = isinstance(result, pd.DataFrame)
    frame = result if is_frame else result.to_frame() if hasattr(result, "to_frame") else None
    table = _to_table(pd.DataFrame() if frame is None else frame)
    content = {
        "provenance": encode(provenance),
        "result": None if is_frame else encode(result),
        "table": _describe(table),
    }
    metadata = {**(table.schema.metadata or {}), _KEY: seal(content)}
    if len(metadata[_KEY]) > _MOST_TEXT // 2:
        raise InputError(
            expected="a result of at most 1 GB in Parquet",
            got=f"{len(metadata[_KEY]):,} bytes beside the table",
            fix="Save it as .json, or save `result.to_frame()`.",
        )
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), out, write_page_checksum=True)
    if is_frame:
        _check_exact(result, out.getvalue())
    return out.getvalue()


def _to_table(frame: pd.DataFrame) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            expected="columns of one kind each, which a Parquet table can hold",
            got=str(error),
            fix="Convert the column with `.astype(...)`, or save as .json.",
        ) from error


def _check_exact(frame: pd.DataFrame, content: bytes) -> None:
    try:
        pd.testing.assert_frame_equal(_parquet_loads(content), frame, check_exact=True)
    except AssertionError as error:
        raise InputError(
            expected="a frame that Parquet gives back unchanged",
            got=f"a difference after reading it back: {str(error).splitlines()[0]}",
            fix="Convert the column with `.astype(...)`, or save as .json.",
        ) from error


def _describe(table: pa.Table) -> dict[str, Any]:
    columns = []
    for column in table.schema:
        kind = getattr(column.type, "value_type", column.type)  # of categories: theirs
        columns.append([column.name, str(kind).removeprefix("large_")])
    pandas = (table.schema.metadata or {}).get(b"pandas", b"").decode()
    return {"rows": table.num_rows, "columns": columns, "pandas": pandas}


def _parquet_loads(content: bytes) -> Any:
    table = pq.ParquetFile(
        io.BytesIO(content),
        page_checksum_verification=True,
        thrift_string_size_limit=_MOST_TEXT,
    ).read(use_threads=False)
    sealed = _unseal((table.schema.metadata or {})[_KEY])
    if _describe(table) != sealed["table"]:
        raise ValueError("its columns are not those that were written")
    return (
        table.to_pandas(use_threads=False) if sealed["result"] is None else decode(sealed["result"])
    )


def _parquet_provenance(content: bytes) -> Provenance | None:
    footer = pq.read_metadata(io.BytesIO(content)).metadata
    return decode(_unseal(footer[_KEY])["provenance"])


FORMATS = {
    ".json": FileFormat(_json_dumps, _json_loads, _json_provenance),
    ".parquet": FileFormat(_parquet_dumps, _parquet_loads, _parquet_provenance),
}


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader finds the old file or the new one, never a part.

    It is written under another name in the same folder, flushed to the disk, then moved. A
    process killed in between leaves `.NAME.XXXXXXXX.tmp` behind and the old file untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
