"""Build and open parts: the Parquet bytes of one shard's labels, with their receipt inside.

The labelled part is the shard's only commit marker. Its metadata embeds the rejected rows, so they are committed with it.
`rejected/part-*.parquet` is a copy that anyone can make from the part, so the two can never disagree.
"""

import base64
import hashlib
import io
import json
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from intent.errors import CorruptData
from intent.run.new_labels import Fresh
from intent.storage import sha256

RECEIPT, RECEIPT_SHA256, REJECTED_ROWS = b"intent.receipt", b"intent.receipt_sha256", b"intent.rejected"


@dataclass(frozen=True)
class Receipt:
    """The account of a part: `rows` in = labelled + abstained + rejected.

    variants        labelled and abstained rows of each variant
    lines           rows of the file if each item of an intent has its own row; None: one row per message
    classified      messages that the model saw for this part
    refused         rejected rows that no model was asked about
    cached          rows whose answers came from the label cache
    found           messages that the cache answered
    asked           messages that the cache had and the model saw again
    agreed          of these, the messages that got the same intent
    cache           token of the cache: its scope and epoch
    seconds         time of labelling, without reading and writing; None in a part of an older version
    pages_sha256    SHA-256 of the file's bytes before its footer
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
        """Return the number of rows of the labelled file."""
        return self.labelled + self.abstained if self.lines is None else self.lines


@dataclass(frozen=True)
class Part:
    """A part's file, and the file of its rejected rows if there are any. `fresh`: new entries for the label cache."""

    receipt: Receipt
    data: bytes
    rejected: bytes | None = None
    fresh: Fresh | None = None


@dataclass(frozen=True)
class Committed:
    """A part in the store: its receipt, and its file's size in bytes and SHA-256."""

    receipt: Receipt
    bytes: int
    sha256: str


def build_part(counts: dict, labelled: pa.Table, rejected: pa.Table) -> Part:
    """Build a part in memory, so that nothing incomplete is published. `counts`: a Receipt's fields without the SHA-256s."""
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
    """A Parquet file in memory. `data` holds its pages on entry and the whole file on exit. `metadata` goes into the footer."""

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
    """Read `data` as a part and verify every checksum. Raises CorruptData, naming `source`."""
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        entries = file.metadata.metadata
        text = entries[RECEIPT]
        receipt = Receipt(**json.loads(text))
        refused = base64.b64decode(entries[REJECTED_ROWS], validate=True) if REJECTED_ROWS in entries else None
    except Exception as error:
        raise CorruptData(f"{source}: not a part of a run ({error}); delete it and run again") from error
    if sha256(text).encode() != entries.get(RECEIPT_SHA256) or receipt.pages_sha256 != _pages_sha256(data):
        raise CorruptData(f"{source}: its SHA-256 differs from the one that it was written with; delete it and run again")
    if file.metadata.num_rows != receipt.file_rows or receipt.rejected_sha256 != (sha256(refused) if refused else ""):
        raise CorruptData(f"{source}: its rows differ from those of its receipt; delete it and run again")
    return Part(receipt, data, refused)


def _pages_sha256(data: bytes) -> str:
    footer = int.from_bytes(data[-8:-4], "little") + 8
    return hashlib.sha256(memoryview(data)[:-footer]).hexdigest()
