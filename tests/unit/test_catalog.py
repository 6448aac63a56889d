import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intent.catalog import Catalog, normalize
from intent.errors import ConfigError

NAMES = ("Whole Milk 1L", "Crème brûlée", "Äpfel, 1 kg")


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("c.parquet", parquet(pa.table({"sku": [1, 2, 3], "name": list(NAMES)}))),
        ("c.csv", '\ufeffsku,name\n1,Whole Milk 1L\n2,Crème brûlée\n3,"Äpfel, 1 kg"\n'.encode()),
        ("c.json", json.dumps([{"name": name} for name in NAMES]).encode()),
        ("c.jsonl", "\n".join(json.dumps({"name": name}, ensure_ascii=False) for name in NAMES).encode()),
    ],
)
def test_every_kind_of_file_gives_the_same_catalog(source, data):
    assert Catalog.parse(data, source).names == NAMES


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"title\nMilk\n", "column 'name'"),
        (b"name\nMilk\nMilk \n", "row 2 repeats 'Milk' of row 1"),
        (b"name\nOat Milk\noat milk\n", "row 2 repeats 'Oat Milk' of row 1"),
        (b"name\nMilk\n\xff\n", "cannot be read as csv"),
        (b'name\nMilk\n"  "\n', "row 2 has no text"),
        (b"name\n", "no products"),
    ],
)
def test_a_bad_catalog_is_refused_with_its_row_and_remedy(data, said):
    with pytest.raises(ConfigError, match=said):
        Catalog.parse(data, "c.csv")


def test_an_unknown_ending_is_refused():
    with pytest.raises(ConfigError, match="csv"):
        Catalog.parse(b"", "c.xlsx")


def test_a_message_becomes_one_line():
    assert normalize("  two\n- Eggs\r\n\tplease\x00\u2028 now ") == "two - Eggs please now"
    assert normalize("cafe\u0301") == "café"
    assert normalize("👨‍👩‍👧") == "👨‍👩‍👧"
