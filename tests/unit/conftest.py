"""Fixtures of several unit test modules."""

import pytest
import tables
from publishing import Shop


@pytest.fixture(params=["delta", "iceberg", "folder"])
def shop(request, tmp_path, monkeypatch) -> Shop:
    tables.use_catalog(monkeypatch, tmp_path)
    return Shop(tmp_path, request.param)
