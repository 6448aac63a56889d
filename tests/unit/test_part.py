"""A changed part is detected."""

import random

import pyarrow as pa
import pytest

from intent.errors import CorruptData
from intent.run.part import build_part, open_part

COUNTS = {"shard": "s", "fingerprint": "f", "rows": 300, "labelled": 290, "abstained": 0, "rejected": 10}


def made():
    labelled = pa.table({"id": list(range(290)), "action": ["add"] * 290})
    return build_part(COUNTS, labelled, pa.table({"id": list(range(290, 300)), "reason": ["null message"] * 10}))


def test_a_part_holds_its_receipt_and_its_rejected_rows():
    part = made()
    assert open_part(part.data, "here") == part
    assert part.receipt.rejected == 10 and part.rejected


def test_the_same_rows_give_the_same_bytes():
    assert made().data == made().data


def test_counts_that_do_not_add_up_are_refused():
    with pytest.raises(CorruptData, match="301 rows in"):
        build_part({**COUNTS, "rows": 301}, pa.table({"id": [1]}), pa.table({"id": []}))


def test_no_flipped_bit_goes_unseen():
    part, drawn = made(), random.Random(7)
    for _ in range(300):
        data = bytearray(part.data)
        data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
        try:
            assert open_part(bytes(data), "here") == part, "a flip that changes what is read must be seen"
        except CorruptData as error:
            assert str(error).startswith("here: ")
        except AssertionError:
            # Nothing reads some bytes of the footer, such as the writer's name. The manifest's SHA-256 covers them.
            opened = open_part(bytes(data), "here")
            assert (opened.receipt, opened.rejected) == (part.receipt, part.rejected)


@pytest.mark.parametrize("length", [0, 3, 8, 100, -1])
def test_a_short_part_is_refused(length):
    with pytest.raises(CorruptData):
        open_part(made().data[:length], "here")
