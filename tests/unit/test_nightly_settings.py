"""Settings of `jobs.nightly`: dates, addresses, markers and limits; its waiting, its follower, and its exit code."""

import io
import json
import re
import shlex
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.exceptions import RayTaskError
from ray.job_submission import JobStatus
from runs import BASKET, CART

from intent.config import NightlyConfig
from intent.errors import ConfigError, IntentError, NotArrived
from intent.evaluate import own_gold
from intent.nightly.addresses import DatedAddress, output_address
from intent.nightly.arrival import wait
from intent.run.actor_pool import EngineSpec
from intent.storage import open_store
from jobs import nightly, submit
from jobs.app import _placed, load_config

TODAY = date(2026, 11, 25)
ADDRESSES = ["input='/logs/{date}'", "output='/labels/dt={date}'"]


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("yesterday", [24]),
        ("2026-11-23", [23]),
        ("2026-11-25", [25]),
        ("2026-11-21..2026-11-23", [21, 22, 23]),
    ],
)
def test_dates_and_ranges(text, dates):
    assert nightly.resolve(text, TODAY) == [date(2026, 11, day) for day in dates]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("23.11.2026", "YYYY-MM-DD, or a range FIRST..LAST"),
        ("2026-11-01..2026-11-02..2026-11-03", "a range FIRST..LAST"),
        ("2026-11-23..", "a range FIRST..LAST"),
        ("2026-11-23..2026-11-21", "give 2026-11-21..2026-11-23"),
        ("2026-11-26", "is in the future: it is 2026-11-25"),
    ],
)
def test_a_date_that_cannot_be_meant_is_refused(text, expected):
    with pytest.raises(ConfigError, match=expected):
        nightly.resolve(text, TODAY)


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("s3://b/dt={date}/", ["s3://b/dt=2026-03-01/"]),
        ("s3://b/{year}/{month}/{day}", ["s3://b/2026/03/01"]),
        ("s3://b/y={year}/m={month:d}/d={day:d}", ["s3://b/y=2026/m=3/d=1"]),
        ("s3://b/{date-1d}", ["s3://b/2026-02-28"]),
        ("s3://b/{year+31d}/{month+31d}/{day+31d}", ["s3://b/2026/04/01"]),
        ("s3://b/{date}/{hour}", [f"s3://b/2026-03-01/{hour:02}" for hour in range(24)]),
        (
            "s3://b/{year-2h}/{month-2h}/{day-2h}/{hour-2h:d}",
            [f"s3://b/2026/02/28/{hour}" for hour in (22, 23)] + [f"s3://b/2026/03/01/{hour}" for hour in range(22)],
        ),
    ],
)
def test_a_daily_address_is_named_by_its_date_and_hours(address, folder):
    assert DatedAddress("input", address).of(date(2026, 3, 1)) == folder


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://b/log", "must hold {date}, or {year}, {month} and {day}"),
        ("s3://b/{year}/{month}", "must hold {date}, or {year}, {month} and {day}"),
        ("s3://b/{Date}", "{Date} is none of {date}, {year}, {month}, {day}, {hour}"),
        ("s3://b/{date}/{minute}", "{minute} is none of {date}"),
        ("s3://b/{date+1}", "{date+1} is none of {date}"),
        ("s3://b/{date:d}", "{date:d} is none of"),
        ("s3://b/{date", "{date is none of"),
        ("s3://b/{year}/{month-1d}/{day-1d}", "has placeholders with different offsets"),
        ("s3://b/{date-2h}", "has an offset in hours without {hour}"),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused(address, expected):
    for field in ("input", "output"):
        with pytest.raises(ConfigError, match=re.escape(f"{field}='{address}': {expected}")):
            DatedAddress(field, address)


def test_a_daily_run_has_one_output():
    with pytest.raises(ConfigError, match="output='/labels/{date}/{hour}': has {hour}, but a nightly run has one output"):
        output_address("/labels/{date}/{hour}")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["input_pattern=''"], "give a pattern such as"),
        (["gate.accept=true"], "name the run's date too: date=YYYY-MM-DD"),
        (["gate.language=market"], "name it in keep_columns too"),
        (["gate.distance=2"], "gate.distance=2"),
        (["gate.agreement=90"], "gate.agreement=90"),
        (["arrival_hours=-1"], "hours from 0 on"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(overrides, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config("nightly", [*ADDRESSES, *overrides], NightlyConfig)


@pytest.mark.parametrize(
    ("output", "workspace", "kept_apart"),
    [
        ("/shop/labels/dt={date}", "/shop/intent", True),
        ("/shop/labels/dt={date}", "/shop/labels/intent", False),
        ("/shop/{date}/labels", "/shop/intent", False),
        ("s3://shop/labels/dt={date}", "s3://shop/labels-intent", True),
        ("s3://shop/{date}", "s3://shop/intent", False),
        ("s3://shop/labels/{date}/x", "s3://other/intent", True),
        ("s3://shop/labels/{year}/{month}/{day}", "s3://shop/intent/", True),
        ("s3://shop/labels/{year}/{month}/{day}", "s3://shop/labels/2026/intent", False),
    ],
)
def test_staged_runs_are_never_below_the_prefix_that_readers_read(output, workspace, kept_apart):
    config = load_config("nightly", [ADDRESSES[0], f"output='{output}'", f"workspace={workspace}"], NightlyConfig)
    if kept_apart:
        staged, here = nightly.open_journal(config).staged("2026-11-23", "f"), output.partition("{")[0]
        assert not staged.uri.startswith(here.rpartition("/")[0] + "/")
        place = output.format(date="2026-11-23", year="2026", month="11", day="23")
        assert nightly.open_journal(config).output("2026-11-23").uri == place
    else:
        with pytest.raises(ConfigError, match="workspace=.*readers of .* would see them; name another"):
            nightly.open_journal(config)


def test_each_output_has_a_journal_of_its_own():
    uris = set()
    for output in ("/labels/{date}", "/other/{date}", "/labels/{date}/"):
        config = load_config("nightly", [ADDRESSES[0], f"output='{output}'", "workspace=/w"], NightlyConfig)
        uris.add(nightly.open_journal(config).store.uri)
    assert len(uris) == 2


def test_the_exit_code_of_a_range_is_that_of_its_most_urgent_day():
    assert nightly.worst([0, 0]) == 0 and nightly.worst([0, 8, 7, 0]) == 7
    assert nightly.worst([7, 3, 8]) == 3 and nightly.worst([3, 2, 7]) == 2 and nightly.worst([2, 1]) == 1


def test_an_error_of_a_ray_task_is_reported_without_its_traceback(monkeypatch, capsys):
    def daily_run(*_):
        raise RayTaskError("label", "Traceback of another process", NotArrived("no such log")).as_instanceof_cause()

    monkeypatch.setattr(nightly, "complete", daily_run)
    assert nightly.attempt(None, date(2026, 11, 23), 0) == 8
    assert capsys.readouterr().err == "error: run of 2026-11-23: no such log\n"


def test_every_variant_that_does_not_answer_the_gold_set_is_named_and_asked_no_longer(monkeypatch):
    class Task:
        def options(self, **_):
            return self

        def remote(self, variant, *_):
            return f"call of {variant}"

    cancelled = []
    monkeypatch.setattr(ray, "remote", lambda function: Task())
    monkeypatch.setattr(ray, "wait", lambda calls, **_: (calls[:1], calls[1:]))
    monkeypatch.setattr(ray, "cancel", lambda call, force: cancelled.append(call))
    with pytest.raises(IntentError, match="no answer to the gold set within an hour from gptq, svm: run again"):
        nightly.gold_shares([EngineSpec(name, name, list) for name in ("gguf", "gptq", "svm")], {"hello": {}})
    assert cancelled == ["call of gptq", "call of svm"]


class Cluster:
    """A job's statuses and logs, as Ray's client returns them. An exception is raised. The last value repeats."""

    def __init__(self, infos: list, logs: list):
        self.infos, self.logs = infos, logs

    def get_job_info(self, _):
        return self._next(self.infos)

    def get_job_logs(self, _):
        return self._next(self.logs)

    async def tail_job_logs(self, _):
        raise ConnectionError("the log broke off")
        yield

    def _next(self, answers: list):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


RUNNING = SimpleNamespace(status=JobStatus.RUNNING)
ENDED = SimpleNamespace(status=JobStatus.FAILED, driver_exit_code=7)
AWAY = ConnectionError("no route")


@pytest.mark.parametrize(
    ("infos", "logs"),
    [
        ([RUNNING, AWAY, RUNNING, AWAY, RUNNING, ENDED], ["all"]),
        ([RUNNING, RUNNING, RUNNING, RUNNING, ENDED], ["all"]),
        ([RUNNING, ENDED], [AWAY, "all"]),
        ([AWAY], ["all"]),
        ([ENDED], [AWAY]),
    ],
)
def test_a_job_is_lost_only_while_its_cluster_does_not_answer(monkeypatch, capsys, infos, logs):
    clock = Clock()
    monkeypatch.setattr(submit, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda _: clock.sleep(70)))
    if len(infos) > 1:
        assert submit.follow(Cluster(infos, logs), "job") == 7 and capsys.readouterr().out == "all"
    else:
        with pytest.raises(IntentError, match="job: its log cannot be followed; see `ray job status job`: no route"):
            submit.follow(Cluster(infos, logs), "job")
        assert clock.slept == [70, 70]


class Clock:
    def __init__(self):
        self.now, self.slept = 1e9, []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def test_a_daily_run_polls_for_its_marker(store):
    clock, lines = Clock(), []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now >= 1e9 + 600:
            store.put("day/_SUCCESS", b"")

    wait(store, "day/_SUCCESS", 1e9 + 3600, lines.append, lambda: clock.now, sleep)
    assert 600 <= clock.now - 1e9 <= 660 and len(clock.slept) < 20 and max(clock.slept) == 60
    assert lines == [f"waiting for {store.uri}/day/_SUCCESS until 2001-09-09 02:46 UTC"]
    wait(store, "day/_SUCCESS", 0, lines.append, lambda: clock.now, None)


def test_a_marker_that_never_comes_ends_the_wait_on_time(store):
    clock = Clock()
    with pytest.raises(NotArrived, match="arrival='_SUCCESS'.*run again once it is there") as late:
        wait(store, "_SUCCESS", 1e9 + 100, lambda _: None, lambda: clock.now, clock.sleep)
    assert clock.now == 1e9 + 100 and late.value.exit_code == 8


CSV = b"message,action,product,quantity\ntwo milks,add,Milk,2\nhello,none,,\n"
LINES = b'{"message": "two milks", "action": "add", "product": "Milk", "quantity": 2}\n{"message": "hello", "action": "none"}'


@pytest.mark.parametrize(("name", "data"), [("g.csv", CSV), ("g.jsonl", LINES)])
def test_a_gold_set_of_ones_own(name, data):
    meant = own_gold.read(data, name, CART, ("Milk",), "message", "gate.gold")
    assert meant["two milks"] == {"action": "add", "product": "Milk", "quantity": 2}
    assert meant["hello"] == {"action": "none", "product": None, "quantity": None}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"message,action,product,quantity\na,add,Bread,1\n", "line 2: product='Bread': not a value"),
        (b"message,action,product,quantity\na,add,Milk,two\n", "line 2: .*'two'"),
        (b"message,action,product,quantity\na,none,,\na,none,,\n", "line 3: repeats"),
        (b"message,action,product,quantity\n ,none,,\n", "line 2: no text"),
        (b"text,action\na,none\n", "columns: text, action; give a column 'message', or message_column=text"),
        (b"message,action\n", "has no rows"),
    ],
)
def test_a_gold_set_that_means_nothing_is_refused_by_its_row(data, expected):
    with pytest.raises(ConfigError, match=f"gate.gold='g.csv'.*{expected}"):
        own_gold.read(data, "g.csv", CART, ("Milk",), "message", "gate.gold")


LISTS = [
    ("two milks and no milk", [{"action": "add", "product": "Milk", "quantity": 2}, {"action": "remove", "product": "Milk"}])
]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_gold_set_of_lists_is_a_json_column_or_the_output_of_a_run(form):
    (message, items), sink = LISTS[0], io.BytesIO()
    quoted = json.dumps(items).replace('"', '""')
    if form == "parquet":
        sure = [item | {"confidence": 0.5} for item in items]
        pq.write_table(
            pa.table({"message": [message, "hi"], "intents": pa.array([sure, []], BASKET.arrow_fields()[0].type)}), sink
        )
    rows = [{"message": message, "intents": items}, {"message": "hi", "intents": []}]
    data = {"csv": f'message,intents\n{message},"{quoted}"\nhi,[]\n', "jsonl": "\n".join(map(json.dumps, rows))}
    given = sink.getvalue() or data[form].encode()
    meant = own_gold.read(given, f"g.{form}", BASKET, ("Milk",), "message", "gate.gold")
    assert meant == {message: {"intents": [items[0], items[1] | {"quantity": 1}]}, "hi": {"intents": []}}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("", "line 2: intents: empty; write"),
        ("add milk", "line 2: intents: not a JSON list"),
        ('"[{""action"": ""add"", ""product"": ""Milk"", ""qty"": 2}]"', "line 2: intents: not a JSON list of objects with"),
        ('"[{""action"": ""add"", ""product"": ""Bread""}]"', r"line 2: intents\[0\]: product='Bread': not a value"),
    ],
)
def test_a_gold_list_that_means_nothing_is_refused_by_its_row(cell, expected):
    with pytest.raises(ConfigError, match=f"gate.gold='g.csv'.*{expected}"):
        own_gold.read(f"message,intents\na,{cell}\n".encode(), "g.csv", BASKET, ("Milk",), "message", "gate.gold")


def test_a_store_is_kept_apart_by_folders_not_by_letters(tmp_path):
    from intent.storage import inside

    assert inside(open_store("/a/b"), open_store("/a")) and inside(open_store("/a"), open_store("/a"))
    assert not inside(open_store("/a-b"), open_store("/a"))


def test_the_commands_of_the_page_are_configurations():
    text = (Path(__file__).parents[2] / "docs" / "nightly.md").read_text()
    blocks = re.findall(r"(?ms)^```sh long\n(.*?)^```$", text)
    assert len(blocks) == 3
    for block in blocks:
        python, _, job, *overrides = shlex.split(block.replace("\\\n", " "))
        assert (python, job) == ("python", "jobs.nightly")
        nightly.open_journal(load_config("nightly", overrides, NightlyConfig))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["partition_by=[action]"], "partition_by=.*is of what is published; name the folder or table too, with publish="),
        (["publish=/labels"], "partition_by=.*name the columns whose values name the folders of /labels, such as"),
        (["publish=/labels", "partition_by=[dt]"], r"partition_by=\['dt'\]: labels have the columns .*add it to keep_columns"),
        (["input='iceberg:prod/shop.log/dt={date}'", "arrival=_SUCCESS"], "arrival='_SUCCESS': .*has none; use null"),
    ],
)
def test_what_cannot_be_published_or_waited_for_is_refused_before_a_cluster_is_up(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config("nightly", [*ADDRESSES, *settings], NightlyConfig)


def test_a_place_to_publish_to_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "labels").write_text("a file")
    (tmp_path / "out").mkdir()
    addresses = [ADDRESSES[0], f"output='{tmp_path}/out/{{date}}'", f"workspace={tmp_path}"]
    for publish in (f"delta:{tmp_path}/labels", f"{tmp_path}/labels"):
        with pytest.raises(ConfigError, match="publish=.*labels is a file; name a folder"):
            _placed(load_config("nightly", [*addresses, f"publish={publish}", "partition_by=[action]"], NightlyConfig))


def test_addresses_of_tables_are_not_taken_for_paths():
    settings = ["input='iceberg:prod/shop.log/dt={date}'", "publish=delta:labels", "keep_columns=[dt]", "partition_by=[dt]"]
    config = load_config("nightly", [*ADDRESSES, *settings], NightlyConfig)
    assert config.input == "iceberg:prod/shop.log/dt={date}" and config.publish == f"delta:{Path.cwd()}/labels"
    with pytest.raises(ConfigError, match="publish='labels': is relative"):
        load_config(
            "nightly", [*ADDRESSES, "cluster=attach", *settings, "catalog=s3://b/c.csv", "workspace=s3://b/w"], NightlyConfig
        )
