"""OpenLineage events and OpenTelemetry spans: off by default, complete when on, and never a reason for a run to fail."""

import importlib.util
import json
import sys
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

from intent import observe
from intent.errors import ShardsFailed
from intent.observe import lineage, traces
from intent.run.columns import Columns
from intent.run.events import Event, planned
from intent.run.progress import Summary
from intent.run.shard import Plan, Shard
from intent.storage import Blob

TYPES = pa.schema([("user", pa.int64()), ("shop", pa.string())])
INPUTS = ["s3://shop/log/00", "s3://shop/log/01"]
PLAN = Plan([Shard(Blob("00/a.parquet", 70, "e"), 0, 30), Shard(Blob("01/b.parquet", 90, "e"), 0, 60)], TYPES)
SUBJECT = observe.Subject(
    "nightly s3://shop/labels/dt={date}",
    INPUTS,
    "s3://shop/labels/dt=2026-11-23",
    Columns("user", "text", ("shop",)),
    [pa.field("action", pa.string()), pa.field("confidence", pa.float32())],
    date(2026, 11, 23),
    "delta:s3://shop/labels",
)
SUMMARY = Summary(90, 80, 6, 4, retries=2)


class Collector:
    """An HTTP server that keeps all posted bodies. With `hangs`, it never answers."""

    def __init__(self, hangs: bool = False):
        self.bodies: list[tuple[str, bytes]] = []
        self.over = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hangs:
                    collector.over.wait()
                collector.bodies.append((self.path, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()


@pytest.fixture(params=[False])
def collector(request):
    collector = Collector(request.param)
    yield collector
    collector.close()


def observed(monkeypatch, environment: dict[str, str], error: BaseException | None = None, **kwargs) -> list[str]:
    """Observe a run with these variables. Returns the operator's lines."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    lines: list[str] = []
    with observe.run(SUBJECT, lines.append, environment, **kwargs) as run:
        run.hear(planned(PLAN, "s3://shop/log", 2.0))
        run.hear(Event("engine", 3.0, {"variant": "rule", "node": "host"}))
        run.hear(Event("shard", 1.5, {"shard": "s1", "rows": 30}))
        run.hear(Event("shard", 0.0, {"shard": "s2"}, error="it hung"))
        run.hear(Event("commit", 0.5, {"parts": 2}))
        if error:
            raise error
        run.summary = SUMMARY
    return lines


def needs(package: str) -> None:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if not spec:
        pytest.skip(f"{package} is not installed")


def test_nothing_is_observed_unless_a_standard_variable_is_set(monkeypatch):
    for environment in (
        {},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OPENLINEAGE_URL": ""},
        {"OPENLINEAGE_DISABLED": "true", "OPENLINEAGE_URL": "http://x"},
        {"OTEL_SERVICE_NAME": "mine"},
    ):
        lines: list[str] = []
        with observe.run(SUBJECT, lines.append, environment) as run:
            assert run.observers == []
        assert lines == []


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
    ],
)
def test_the_exporters_are_those_of_the_standard_variables(environment, names):
    assert traces.exporters(environment) == names


def test_a_client_that_is_missing_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "openlineage.client.uuid", None)
    monkeypatch.setattr(traces, "entry_points", lambda **which: [])
    environment = {"OPENLINEAGE_URL": "http://x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}
    lines = observed(monkeypatch, environment)
    assert len(lines) == 2 and all("pip install '.[observe]'" in line for line in lines)
    [line] = observed(monkeypatch, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in line


def test_an_observer_that_fails_is_left_out_and_the_run_goes_on():
    class Bad:
        def start(self):
            pass

        def hear(self, event):
            raise RuntimeError("of its own")

    lines: list[str] = []
    run = observe.Observed([Bad()], lines.append)
    run.each("start")
    for _ in range(2):
        run.hear(Event("shard", 1.0))
    assert lines == ["goes on without Bad: RuntimeError: of its own"]


def test_lineage_has_the_data_sets_with_their_columns_and_rows(monkeypatch, collector):
    needs("openlineage.client")
    assert observed(monkeypatch, {"OPENLINEAGE_URL": collector.url, "OPENLINEAGE_NAMESPACE": "shop"}) == []
    assert {path for path, _ in collector.bodies} == {"/api/v1/lineage"}
    start, complete = (json.loads(body) for _, body in collector.bodies)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert start["job"]["namespace"] == "shop" and start["job"]["name"] == "nightly s3://shop/labels/dt={date}"
    assert complete["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2026-11-23T00:00:00+00:00"
    rows = {each["name"]: each["inputFacets"]["inputStatistics"] for each in complete["inputs"]}
    assert {name: (each["rowCount"], each["size"], each["fileCount"]) for name, each in rows.items()} == {
        "log/00": (30, 70, 1),
        "log/01": (60, 90, 1),
    }
    assert {each["namespace"] for each in complete["inputs"] + complete["outputs"]} == {"s3://shop"}
    made = {each["name"]: each for each in complete["outputs"]}
    assert {name: each["outputFacets"]["outputStatistics"]["rowCount"] for name, each in made.items()} == {
        "labels": 86,
        "labels/dt=2026-11-23/labelled": 86,
        "labels/dt=2026-11-23/rejected": 4,
    }
    fields = made["labels/dt=2026-11-23/labelled"]["facets"]["schema"]["fields"]
    assert [(field["name"], field["type"]) for field in fields] == [
        ("id", "int64"),
        ("action", "string"),
        ("confidence", "float"),
        ("shop", "string"),
    ]
    read = complete["inputs"][0]["facets"]["schema"]["fields"]
    assert [(field["name"], field["type"]) for field in read] == [("user", "int64"), ("text", "string"), ("shop", "string")]


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (ShardsFailed("2 shards failed"), "FAIL", "ShardsFailed: 2 shards failed"),
        (ValueError("'two secret milks' is no number"), "FAIL", "ValueError"),
        (KeyboardInterrupt(), "ABORT", "KeyboardInterrupt"),
    ],
)
def test_lineage_says_why_a_run_failed_and_quotes_no_message(monkeypatch, collector, error, state, why):
    needs("openlineage.client")
    with pytest.raises(type(error)):
        observed(monkeypatch, {"OPENLINEAGE_URL": collector.url}, error)
    last = json.loads(collector.bodies[-1][1])
    assert last["eventType"] == state
    assert last["run"]["facets"]["errorMessage"]["message"] == why


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("s3://shop/log/dt=1/", ("s3://shop", "log/dt=1")),
        ("s3://shop", ("s3://shop", "/")),
        ("/data/log", ("file", "/data/log")),
        ("file:///data/log", ("file", "/data/log")),
        ("delta:s3://shop/log", ("s3://shop", "log")),
        ("iceberg:prod/shop.log", ("iceberg://prod", "shop.log")),
    ],
)
def test_data_sets_are_named_as_openlineage_does(uri, named):
    assert lineage.dataset(uri) == named


def test_a_trace_has_a_span_for_each_step_below_that_of_the_run(monkeypatch, collector):
    needs("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with pytest.raises(ShardsFailed):
        observed(monkeypatch, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, ShardsFailed("no engine"))
    requests = [ExportTraceServiceRequest.FromString(body) for path, body in collector.bodies if path == "/v1/traces"]
    [resource] = {str(each.resource) for request in requests for each in request.resource_spans}
    assert '"intent"' in resource
    spans = [
        span for request in requests for each in request.resource_spans for scope in each.scope_spans for span in scope.spans
    ]
    [root] = [span for span in spans if not span.parent_span_id]
    assert root.name == SUBJECT.name and root.status.code == 2 and root.status.message == "ShardsFailed: no engine"
    below = [span for span in spans if span.parent_span_id == root.span_id]
    assert [span.name for span in below] == ["plan", "engine", "shard", "shard", "commit"]
    seconds = [round((span.end_time_unix_nano - span.start_time_unix_nano) / 1e9, 3) for span in below]
    assert seconds == [2.0, 3.0, 1.5, 0.0, 0.5]
    facts = {fact.key: fact.value.int_value for fact in below[0].attributes}
    assert facts["intent.rows"] == 90 and facts["intent.shards"] == 2 and facts["intent.objects"] == 2
    assert (below[3].status.code, below[3].status.message) == (2, "it hung")


@pytest.mark.parametrize("collector", [True], indirect=True)
@pytest.mark.parametrize("name", ["OPENLINEAGE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_collector_that_hangs_holds_no_run(monkeypatch, collector, name):
    needs("openlineage.client" if "LINEAGE" in name else "opentelemetry.exporter.otlp.proto.http")
    before = threading.active_count()
    [line] = observed(monkeypatch, {name: collector.url}, patience=0.2)
    assert "were not delivered within 0.2 s; the run is not affected" in line
    assert all(thread.daemon for thread in threading.enumerate()[before:])


def test_a_collector_that_is_not_there_fails_no_run(monkeypatch):
    needs("openlineage.client")
    environment = {"OPENLINEAGE_URL": "http://127.0.0.1:9", "OPENLINEAGE__TRANSPORT__RETRY": '{"total": 0}'}
    [line] = observed(monkeypatch, environment, patience=30)
    assert line.startswith("lineage is not delivered, and the run goes on: ")
