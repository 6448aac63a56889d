"""A part: the Parquet bytes that hold one shard's labels, and the receipt inside them.

The labelled part is the shard's only commit marker. Rows that were rejected are committed with it, embedded in its
metadata; `rejected/part-*.parquet` is a copy that anyone can make from it, so the two can never disagree.
"""

import base64
import hashlib
import io
import json
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from intent.errors import CorruptData
from intent.night.fresh import Fresh
from intent.storage import sha256

RECEIPT, RECEIPT_SHA256, REJECTED_ROWS = b"intent.receipt", b"intent.receipt_sha256", b"intent.rejected"


@dataclass(frozen=True)
class Receipt:
    """What a part accounts for: `rows` in = labelled + abstained + rejected. `variants`: labelled and abstained rows of each.

    `lines`: the file's rows, where each item of an intent has its own; None: a row a message. `classified` counts the messages
    that the model saw for it, `refused` the rejected rows that no model was asked about. `cached` counts the rows whose answers
    are the label cache's, `found` the messages that were looked up in it for this part. `asked` of those were asked again, and
    `agreed` got the same intent. `cache`: the scope and epoch of that cache. `seconds`: of labelling,
    without reading and writing; None in a part of an older version.
    `pages_sha256` is of the file's bytes before its footer.
    """

    shard: str
    fingerprint: str
    rows: int
    labelled: int
    abstained: int
    rejected: int
    classified: int = 0
    refused: int = 0
    cached: int = 0
    found: int = 0
    asked: int = 0
    agreed: int = 0
    cache: str = ""
    variants: dict[str, int] = field(default_factory=dict)
    rejected_sha256: str = ""
    pages_sha256: str = ""
    lines: int | None = None
    seconds: float | None = None

    def __post_init__(self):
        if self.rows != self.labelled + self.abstained + self.rejected:
            raise CorruptData(f"shard {self.shard}: {self.rows} rows in, but {asdict(self)} out")

    @property
    def file_rows(self) -> int:
        """Rows of the labelled file."""
        return self.labelled + self.abstained if self.lines is None else self.lines


@dataclass(frozen=True)
class Part:
    """A part's file, and the file of its rejected rows where there are any. `fresh`: what the label cache is to learn."""

    receipt: Receipt
    data: bytes
    rejected: bytes | None = None
    fresh: Fresh | None = None


@dataclass(frozen=True)
class Committed:
    """A part that is in the store: its receipt, and the file's size in bytes and SHA-256."""

    receipt: Receipt
    bytes: int
    sha256: str


def build_part(counts: dict, labelled: pa.Table, rejected: pa.Table) -> Part:
    """`counts` has the fields of a Receipt but for the SHA-256s. Everything is in memory: nothing partial is published."""
    refused = b""
    if rejected.num_rows:
        with _Writer(rejected) as writer:
            pass
        refused = writer.data
    with _Writer(labelled) as writer:
        receipt = Receipt(**counts, rejected_sha256=sha256(refused) if refused else "", pages_sha256=sha256(writer.data))
        text = json.dumps(asdict(receipt), sort_keys=True).encode()
        writer.metadata[RECEIPT], writer.metadata[RECEIPT_SHA256] = text, sha256(text)
        if refused:
            writer.metadata[REJECTED_ROWS] = base64.b64encode(refused)
    return Part(receipt, writer.data, refused or None)


class _Writer:
    """A Parquet file in memory: `data` has its pages on entry, all of it on exit, `metadata` goes into its footer."""

    def __init__(self, table: pa.Table):
        self._sink, self.metadata = io.BytesIO(), {}
        self._writer = pq.ParquetWriter(self._sink, table.schema, write_page_checksum=True)
        self._writer.write_table(table)

    @property
    def data(self) -> bytes:
        return self._sink.getvalue()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self._writer.add_key_value_metadata(self.metadata)
            self._writer.close()


def open_part(data: bytes, source: str) -> Part:
    """The part that `data` is, with every checksum verified. Raises CorruptData, naming `source`."""
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        entries = file.metadata.metadata
        text = entries[RECEIPT]
        receipt = Receipt(**json.loads(text))
        refused = base64.b64decode(entries[REJECTED_ROWS], validate=True) if REJECTED_ROWS in entries else None
    except Exception as error:
        raise CorruptData(f"{source}: not a part of a night ({error}); delete it and run again") from error
    if sha256(text).encode() != entries.get(RECEIPT_SHA256) or receipt.pages_sha256 != _pages_sha256(data):
        raise CorruptData(f"{source}: its SHA-256 is not the one it was written with; delete it and run again")
    if file.metadata.num_rows != receipt.file_rows or receipt.rejected_sha256 != (sha256(refused) if refused else ""):
        raise CorruptData(f"{source}: its rows are not those of its receipt; delete it and run again")
    return Part(receipt, data, refused)


def _pages_sha256(data: bytes) -> str:
    footer = int.from_bytes(data[-8:-4], "little") + 8
    return hashlib.sha256(memoryview(data)[:-footer]).hexdigest()
