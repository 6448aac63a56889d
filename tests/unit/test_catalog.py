import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intent.artifacts.lineage import Lineage
from intent.config import ClassifyConfig
from intent.engine.automaton import Automaton
from intent.errors import ConfigError
from intent.task import prompt
from intent.task.catalog import Catalog, normalize
from intent.task.prompt import Prompt
from jobs.app import load_config
from jobs.classify import identity
from tests.tiny import CART, write_tokenizer

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
        ("c.json", json.dumps(NAMES).encode()),
        ("c.jsonl", "\n".join(map(json.dumps, NAMES)).encode()),
        ("c.csv", "sku;name\n1;Whole Milk 1L\n2;Crème brûlée\n3;Äpfel, 1 kg\n".encode()),
        ("c.tsv", "name\tsku\nWhole Milk 1L\t1\nCrème brûlée\t2\nÄpfel, 1 kg\t3\n".encode()),
        ("c.csv", 'sku;name\r\n1;Whole Milk 1L\r\n\r\n2;Crème brûlée\r\n3;"Äpfel, 1 kg"\r\n'.encode("utf-16")),
    ],
)
def test_every_kind_of_file_gives_the_same_catalog(source, data):
    assert Catalog.parse(data, source).names == NAMES


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"title,price\nMilk,1\n", r"columns: title, price; give a column 'name', or catalog_column=title"),
        (b"\xef\xbb\xbfPrice;Name\n1;Milk\n", r"columns: Price, Name; give a column 'name', or catalog_column=Name"),
        (b"name\nMilk\nMilk \n", "line 3 repeats 'Milk' of line 2"),
        (b"name\nOat Milk\n\noat milk\n", "line 4 repeats 'Oat Milk' of line 2"),
        ("name\nMilk 1L\nMilk １L\n".encode(), "line 3 repeats 'Milk 1L' of line 2"),
        ("name\nMilk\nCrème\n".encode("latin-1"), "line 3 is not UTF-8 .*'Crème'.*save the file as UTF-8"),
        (b'name\nMilk\n"  "\n', "line 3 has no text"),
        (b'name\n" "\nMilk\n"  "\n', "line 2, line 4 have no text"),
        (b"name\nOat  Milk\nEggs\noat milk\nEggs\n", "line 4 repeats 'Oat Milk' of line 2; keep one; line 5 repeats 'Eggs' of"),
        (b"name\n" + b"Milk\n" * 10_000, "line 3, line 4, line 5 and 9,996 more repeat 'Milk' of line 2; keep one$"),
        (b"name\nMilk\n" + b"x" * 301 + b"\n", "line 3 has more than 300 characters in the column 'name'; shorten it$"),
        (b"name\na\nb\nc\nd\nA\nB\nC\nD\n", "line 8 repeats 'c' of line 4; keep one; beyond these 1 faults"),
        (b"name\n", "no products"),
        (b"", "give a column 'name'"),
        (b"name\nMilk\nTomatoes, chopped 400g\n", "line 3 has 2 cells and the header 1; put a cell that holds ',' in quotes"),
        (b"name,price\nMilk,1\nEggs\n", "line 3 has 1 cells and the header 2"),
        (b'name,price\nMilk,1\n"Eggs,2\nBread,3\n', "line 3: .*check the quotes of the row that begins there"),
        (b'name,price\n"Nails 3" long",2\nx,3\n', "line 2: .*check the quotes"),
        (b"name,name\na,b\n", "names the column 'name' twice"),
    ],
)
def test_a_bad_catalog_is_refused_with_its_line_and_remedy(data, expected):
    with pytest.raises(ConfigError, match=expected):
        Catalog.parse(data, "c.csv")


def test_the_column_of_the_names_can_be_named():
    assert Catalog.parse(b"Name,Price\nMilk,1\n", "c.csv", "Name").names == ("Milk",)
    assert Catalog.parse(parquet(pa.table({"Name": ["Milk"]})), "c.parquet", "Name").names == ("Milk",)
    with pytest.raises(ConfigError, match="columns: Name; give a column 'name', or catalog_column=Name"):
        Catalog.parse(parquet(pa.table({"Name": ["Milk"]})), "c.parquet")


@pytest.mark.parametrize(
    ("source", "data", "expected"),
    [
        ("c.jsonl", b'{"name": "Milk"}\n{"name": "Eggs"\n', "line 2 is not JSON"),
        ("c.json", b'{"products": []}', "columns: products; give a column 'name'"),
        ("c.json", b'[{"name": "Milk"}, 7]', "row 2 is not an object"),
        ("c.json", b"[", "cannot be read as json"),
        ("c.parquet", b"PAR1", "cannot be read as parquet"),
        ("c.parquet", parquet(pa.table({"name": [1, 2]})), "row 1, row 2 have no text"),
    ],
)
def test_another_bad_file_is_refused_with_its_content(source, data, expected):
    with pytest.raises(ConfigError, match=expected):
        Catalog.parse(data, source)


def test_a_folder_as_spark_writes_it_is_one_catalog(store):
    store.put("products.csv/part-00000-a.csv", b"name\nMilk\nEggs\n")
    store.put("products.csv/part-00001-a.csv", b"name\nBread\n")
    store.put("products.csv/_SUCCESS", b"")
    store.put("products.csv/.part-00000-a.csv.crc", b"crc")
    uri = f"{store.uri}/products.csv"
    assert Catalog.read(uri).names == ("Milk", "Eggs", "Bread")
    assert Catalog.read(f"{uri}/part-00001-a.csv").names == ("Bread",)
    store.put("products.csv/part-00002-a.csv", b"name\nEggs\n")
    with pytest.raises(ConfigError, match="part-00002-a.csv line 2 repeats 'Eggs' of part-00000-a.csv line 3"):
        Catalog.read(uri)
    store.put("products.csv/more.xlsx", b"")
    with pytest.raises(ConfigError, match="more.xlsx does not end in one of"):
        Catalog.read(uri)
    with pytest.raises(ConfigError, match="no such file, and no folder"):
        Catalog.read(f"{store.uri}/absent")


def test_an_unknown_ending_is_refused():
    with pytest.raises(ConfigError, match="csv"):
        Catalog.parse(b"", "c.xlsx")


def test_a_message_becomes_one_line():
    assert normalize("  two\n- Eggs\r\n\tplease\x00\u2028 now ") == "two | - Eggs | please | now"
    assert normalize("\n eggs \n\n milk\n") == "eggs | milk"
    assert normalize("cafe\u0301") == "café"
    assert normalize("👨‍👩‍👧") == "👨‍👩‍👧"


def test_digits_of_every_script_reach_a_model_as_ascii():
    for two in ("２", "٢", "۲", "२", "২", "๒", "②", "❷", "⑵", "𝟐", "2\ufe0f\u20e3"):
        assert normalize(f"add {two} eggs") == "add 2 eggs", two
    assert normalize("⑫ eggs, １２ eggs, १२ eggs, 🔟 eggs") == "12 eggs, 12 eggs, 12 eggs, 10 eggs"
    assert normalize("5² 10 m² ½ ❤️ Ⅷ") == "5² 10 m² ½ ❤️ Ⅷ"


def test_a_name_keeps_its_digits_and_the_prompt_and_the_answers_have_them_in_ascii(tmp_path):
    (name, other), tokenizer = Catalog.of(["牛乳１Ｌ", "Eggs"]).names, write_tokenizer(tmp_path)
    assert name == "牛乳１Ｌ", "what a table is joined by"
    asking = Prompt(CART, (name, other))
    assert "- 牛乳1Ｌ" in asking.prefix
    for output_format in ("json", "compact", "entity_first"):
        written, plain = (Automaton(CART, (each, other), tokenizer, output_format) for each in (name, "牛乳1Ｌ"))
        intent = {"action": "add", "product": name, "quantity": 2}
        assert written.target(intent) == plain.target(intent | {"product": "牛乳1Ｌ"})
    asked = asking.message_ids(tokenizer, ["add ２ 牛乳１Ｌ", "add 2 牛乳1Ｌ"])
    assert asked[0] == asked[1]


def test_a_run_that_started_with_other_prompts_is_not_resumed(monkeypatch):
    lineage = Lineage(load_config("classify", ["input=in", "output=out"], ClassifyConfig))
    begun = identity(lineage, {})
    monkeypatch.setattr(prompt, "VERSION", prompt.VERSION + 1)
    assert [name.split()[0] for name in identity(lineage, {}).differences(begun)] == ["prompt"]
