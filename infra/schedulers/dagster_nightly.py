"""A Dagster asset with a partition a night: `dagster dev -f infra/schedulers/dagster_nightly.py`.

Set BUCKET, and in Dagster's environment RAY_API_SERVER_ADDRESS, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN. PYTHON is of an
environment in which intent is installed; it need not be Dagster's own.
"""

import os
import subprocess

import dagster as dg

PYTHON = os.environ.get("INTENT_PYTHON", "/opt/intent/.venv/bin/python")
OVERRIDES = [
    "engine=auto",
    "engine.device=cuda",
    "fleet.gptq_actors=8",
    "fleet.gguf_actors=112",
    'input="s3://BUCKET/log/dt={date}"',
    'output="s3://BUCKET/labels/dt={date}"',
    "catalog=s3://BUCKET/products.parquet",
    "workspace=s3://BUCKET/intent",
    "arrival=_SUCCESS",
]
# Another try may help: some shards failed, the input is late, the follower was interrupted, or something else went wrong.
RETRIED = (1, 3, 8, 130)
LAST_LINES = 30
# A partition is a day in UTC; the newest is the day that has just ended.
nights = dg.DailyPartitionsDefinition(start_date="2026-11-01", timezone="UTC")


@dg.asset(
    partitions_def=nights,
    retry_policy=dg.RetryPolicy(max_retries=3, delay=600, backoff=dg.Backoff.EXPONENTIAL),
    # One night at a time, also in a backfill: set a limit of 1 for this pool in the deployment.
    pool="intent_cluster",
)
def labels(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Shoppers' messages of one day as intents."""
    date = context.partition_key
    command = [PYTHON, "-m", "jobs.submit", "nightly", f"date={date}", *OVERRIDES]
    said: list[str] = []
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as job:
            try:
                for line in job.stdout:
                    print(line, end="", flush=True)
                    said = [*said[1 - LAST_LINES :], line.rstrip()]
            except BaseException:
                # Ended from Dagster: the job goes on, and whoever is sent again follows it.
                job.terminate()
                raise
        code = job.returncode
    except FileNotFoundError:
        code, said = 2, [f"{PYTHON}: not there; correct INTENT_PYTHON"]
    if code:
        retried = code in RETRIED or code < 0
        last = said[-1] if said else "no output"
        raise dg.Failure(f"run of {date}: exit code {code}: {last}", allow_retries=retried)
    return dg.MaterializeResult(metadata={"log": dg.MetadataValue.text("\n".join(said))})


nightly = dg.define_asset_job("nightly", [labels])
defs = dg.Definitions(
    assets=[labels],
    jobs=[nightly],
    schedules=[dg.build_schedule_from_partitioned_job(nightly, hour_of_day=1, minute_of_hour=30)],
)
