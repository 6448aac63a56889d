"""Delta and Iceberg tables for tests, and changes of other writers that the libraries here cannot make."""

import base64
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError

CATALOG, LOG = "prod", "iceberg:prod/shop.log"
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def rows(start: int, stop: int, **columns) -> pa.Table:
    numbers = range(start, stop)
    return pa.table({"id": list(numbers), "message": [f"add {n} milk" for n in numbers], **columns})


def write_delta(folder, table: pa.Table, **kwargs) -> None:
    from deltalake import write_deltalake

    write_deltalake(str(folder), table, mode="append", **kwargs)


def catalog_variables(folder: Path) -> dict[str, str]:
    """Return PyIceberg's environment variables of a SQL catalog below `folder`."""
    (folder / "warehouse").mkdir(exist_ok=True)
    uri = {"TYPE": "sql", "URI": f"sqlite:///{folder}/catalog.db", "WAREHOUSE": f"file://{folder}/warehouse"}
    return {f"PYICEBERG_CATALOG__{CATALOG.upper()}__{name}": value for name, value in uri.items()}


def use_catalog(monkeypatch, folder: Path, **variables: str) -> None:
    """Use the catalog in this process, where PyIceberg has already read the environment, and in its children."""
    from pyiceberg import catalog
    from pyiceberg.utils.config import Config

    for name, value in (catalog_variables(folder) | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())


def iceberg(name: str, schema: pa.Schema | None = None, **kwargs):
    """Return the table. Creates it if `schema` is given and it does not exist."""
    from pyiceberg.catalog import load_catalog

    catalog = load_catalog(CATALOG)
    if schema is None:
        return catalog.load_table(name)
    catalog.create_namespace_if_not_exists(name.split(".")[0])
    return catalog.create_table_if_not_exists(name, schema, **kwargs)


def write_iceberg(name: str, table: pa.Table, **kwargs):
    target = iceberg(name, table.schema)
    target.append(table, **kwargs)
    return target


def log_entries(folder, version: int, change) -> None:
    """Rewrite a commit of a Delta table: `change` gets each of its actions and may alter it."""
    path = Path(folder, "_delta_log", f"{version:020}.json")
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        change(action)
    path.write_text("\n".join(map(json.dumps, actions)) + "\n")


def require_feature(folder, *features: str, reader: int = 3) -> None:
    def change(action: dict) -> None:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": reader, "minWriterVersion": 7}
            action["protocol"] |= {"readerFeatures": list(features), "writerFeatures": list(features)}

    log_entries(folder, 0, change)


def remove_by_vector(folder, removed: list[int]) -> None:
    """Remove rows as Spark does, with a deletion vector for the first file of commit 0."""
    from pyroaring import BitMap

    bitmap = BitMap(removed).serialize()
    data = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    padded = data + b"\0" * (-len(data) % 4)
    text = base64.b85encode(padded).decode().translate(str.maketrans(B85, Z85))
    vector = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(removed)}
    done = []

    def change(action: dict) -> None:
        if "add" in action and not done:
            action["add"]["deletionVector"] = vector
            done.append(action)

    require_feature(folder, "deletionVectors")
    log_entries(folder, 0, change)


def remove_from_iceberg(name: str, removed: list[int], equality: bool = False) -> None:
    """Remove rows as other engines do, with a file of deletes by position in the first file or, with `equality`, by id."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    table = iceberg(name)
    [task, *_] = table.scan().plan_files()
    path = f"{table.location()}/data/deletes-{len(removed)}-{equality}.parquet"
    deletes = pa.table({"file_path": [task.file.file_path] * len(removed), "pos": removed})
    pq.write_table(pa.table({"id": removed}) if equality else deletes, path.removeprefix("file://"))
    content = DataFileContent.EQUALITY_DELETES if equality else DataFileContent.POSITION_DELETES
    size = Path(path.removeprefix("file://")).stat().st_size
    fields = {"content": content, "file_path": path, "file_format": FileFormat.PARQUET, "partition": Record()}
    file = DataFile.from_args(
        **fields, record_count=len(removed), file_size_in_bytes=size, equality_ids=[1] if equality else None
    )
    file.spec_id = table.metadata.default_spec_id
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file)


class RestCatalog:
    """Iceberg's REST protocol over the SQL catalog, for reading and committing to existing tables."""

    def __init__(self):
        from pyiceberg.catalog import load_catalog

        self.behind, self.tokens = load_catalog(CATALOG), []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Rest,), {"catalog": self}))
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Rest(BaseHTTPRequestHandler):
    catalog: RestCatalog

    def do_GET(self) -> None:
        self.catalog.tokens.append(self.headers.get("Authorization"))
        if self.path.startswith("/v1/config"):
            return self._reply(200, {"defaults": {}, "overrides": {}})
        try:
            return self._reply(200, self._described(self.catalog.behind.load_table(self._table())))
        except NoSuchTableError as error:
            return self._reply(404, {"error": {"message": str(error), "type": "NoSuchTableException", "code": 404}})

    def do_POST(self) -> None:
        from pyiceberg.table import CommitTableRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = CommitTableRequest.model_validate_json(body)
        table = self.catalog.behind.load_table(self._table())
        try:
            self.catalog.behind.commit_table(table, asked.requirements, asked.updates)
        except CommitFailedException as error:
            return self._reply(409, {"error": {"message": str(error), "type": "CommitFailedException", "code": 409}})
        return self._reply(200, self._described(self.catalog.behind.load_table(self._table())))

    def _table(self) -> str:
        _, _, _, namespace, _, name = self.path.split("?")[0].split("/")
        return f"{namespace}.{name}"

    def _described(self, table) -> dict:
        metadata = json.loads(table.metadata.model_dump_json())
        return {"metadata-location": table.metadata_location, "metadata": metadata, "config": {}}

    def _reply(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass
