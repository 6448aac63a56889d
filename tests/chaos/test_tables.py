"""T3 with a table as input: the driver is killed, the table changes, and the run finishes with its first version."""

from collections import Counter

import pytest
import ray
import runs
import tables

from intent.run.config import FleetConfig
from intent.run.driver import classify_log
from intent.run.ledger import Ledger
from intent.storage import StorageOptions, open_store

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster")]


def classify(uri: str, output: str, variables: dict[str, str]) -> None:
    engines = [runs.engine(cpus=0.1, env_vars=variables)]
    fleet = FleetConfig(rows_per_shard=10)
    options, identity = StorageOptions(), runs.IDENTITY
    classify_log(uri, output, options, identity, runs.CART, engines, fleet, frequent_messages=0)


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_t3_a_run_that_goes_on_after_its_driver_was_killed_reads_the_version_that_it_began_with(
    tmp_path, harm, monkeypatch, kind
):
    variables = tables.catalog_variables(tmp_path)
    tables.use_catalog(monkeypatch, tmp_path)
    uri, output = (str(tmp_path / "log") if kind == "delta" else tables.LOG), str(tmp_path / "out")

    def write(rows):
        tables.write_delta(uri, rows) if kind == "delta" else tables.write_iceberg("shop.log", rows)

    @ray.remote(num_cpus=0, max_retries=0, runtime_env={"env_vars": variables})
    def driver():
        runs.dying(harm, Ledger, "plan", True)
        classify(uri, output, variables)

    write(tables.rows(0, 60))
    harm.add("plan_after")
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(driver.remote())
    write(tables.rows(60, 90))
    ray.get(driver.remote())
    labelled = runs.read(open_store(output), "labelled/")["id"].to_pylist()
    assert Counter(labelled) == Counter(range(60))
    manifest = Ledger(open_store(output), runs.IDENTITY).verify()
    assert manifest["table"]["uri"] == uri and manifest["rows"] == 60
