"""Label the log of the previous day on the Ray cluster, every day at 01:30 UTC.

Set BUCKET. Set RAY_API_SERVER_ADDRESS, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN in the environment of the workers and of
the triggerer.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable, Param
from intent_night import NightOperator

# A nightly run labels a day in UTC. The timetable is explicit: with a bare cron expression Airflow 3 has no data interval, and
# the date would be the day that has just begun.
with DAG(
    "intent_nightly",
    schedule=CronDataIntervalTimetable("30 1 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 11, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={"date": Param(None, type=["null", "string"], format="date", description="the date to label, when started by hand")},
) as dag:
    NightOperator(
        task_id="label",
        date="{{ params.date or (data_interval_start | ds if data_interval_start else 'yesterday') }}",
        overrides=[
            "engine=auto",
            "engine.device=cuda",
            "fleet.gptq_actors=8",
            "fleet.gguf_actors=112",
            'input="s3://BUCKET/log/dt={date}"',
            'output="s3://BUCKET/labels/dt={date}"',
            "catalog=s3://BUCKET/products.parquet",
            "workspace=s3://BUCKET/intent",
            "arrival=_SUCCESS",
        ],
        python="/opt/intent/.venv/bin/python",
        retries=3,
        retry_delay=timedelta(minutes=10),
        retry_exponential_backoff=True,
    )
