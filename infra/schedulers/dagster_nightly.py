"""A Dagster asset with one partition a day: `dagster dev -f infra/schedulers/dagster_nightly.py`.

Set BUCKET. Set RAY_API_SERVER_ADDRESS, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN in Dagster's environment. PYTHON names the
interpreter of an environment in which intent is installed. It need not be Dagster's own environment.
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
# A retry may help: some shards failed, the input is late, the follower was interrupted, or something else went wrong.
RETRIED = (1, 3, 8, 130)
LAST_LINES = 30
# A partition is a day in UTC. The newest one is the day that has just ended.
days = dg.DailyPartitionsDefinition(start_date="2026-11-01", timezone="UTC")


@dg.asset(
    partitions_def=days,
    retry_policy=dg.RetryPolicy(max_retries=3, delay=600, backoff=dg.Backoff.EXPONENTIAL),
    # One run at a time, also in a backfill: set a limit of 1 for this pool in the deployment.
    pool="intent_cluster",
)
def labels(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Shoppers' messages of one day as intents."""
    date = context.partition_key
    command = [PYTHON, "-m", "jobs.submit", "nightly", f"date={date}", *OVERRIDES]
    lines: list[str] = []
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as job:
            try:
                for line in job.stdout:
                    print(line, end="", flush=True)
                    lines = [*lines[1 - LAST_LINES :], line.rstrip()]
            except BaseException:
                # Dagster ended this step. The job keeps running, and the next attempt follows it.
                job.terminate()
                raise
        code = job.returncode
    except FileNotFoundError:
        code, lines = 2, [f"{PYTHON}: not there; correct INTENT_PYTHON"]
    if code:
        retried = code in RETRIED or code < 0
        last = lines[-1] if lines else "no output"
        raise dg.Failure(f"run of {date}: exit code {code}: {last}", allow_retries=retried)
    return dg.MaterializeResult(metadata={"log": dg.MetadataValue.text("\n".join(lines))})


nightly = dg.define_asset_job("nightly", [labels])
defs = dg.Definitions(
    assets=[labels],
    jobs=[nightly],
    schedules=[dg.build_schedule_from_partitioned_job(nightly, hour_of_day=1, minute_of_hour=30)],
)
