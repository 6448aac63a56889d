"""Send OpenTelemetry spans: one per run, and below it one each for its plan, every engine that was loaded, every shard, and its
commit.

It is on if OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_TRACES_EXPORTER is set. The SDK reads all
other settings itself.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from intent.observe.subject import Subject, described
from intent.run.events import Event
from intent.run.progress import Summary

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTERS = "opentelemetry_traces_exporter"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
NANOSECONDS = 1_000_000_000


def exporters(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the requested exporters, as the SDK's packages register them."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    requested = environment.get("OTEL_TRACES_EXPORTER", "") or ("otlp" if any(map(environment.get, ENDPOINTS)) else "")
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "http/protobuf")
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    names = [name.strip() for name in requested.split(",")]
    return [otlp if name == "otlp" else name for name in names if name not in ("", "none")]


def observer(subject: Subject, environment: Mapping[str, str], tell: Callable[[str], None]) -> "OpenTelemetry | None":
    """Return the observer; None if it is off. Raises ImportError if the SDK is missing."""
    senders = []
    for name in exporters(environment):
        if entry := next(iter(entry_points(group=EXPORTERS, name=name)), None):
            senders.append(entry.load()())
        else:
            package = f"opentelemetry-exporter-{name.replace('_', '-')}"
            remedy = "pip install '.[observe]' in a clone of intent" if name == "otlp_proto_http" else f"pip install {package}"
            tell(f"traces go to no exporter {name!r}, which is not installed: {remedy}, or set OTEL_TRACES_EXPORTER=none")
    return OpenTelemetry(subject, senders) if senders else None


class OpenTelemetry:
    """Spans of one run. A thread of the SDK sends them and drops those that a slow collector does not accept."""

    def __init__(self, subject: Subject, exporters: list[Any]):
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "intent"}))
        # A separate provider, because Ray runs in this process and may have its own.
        self.subject, self.provider = subject, TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in exporters:
            self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("intent")

    def start(self) -> None:
        from opentelemetry.trace import set_span_in_context

        facts = {"intent.input": list(self.subject.inputs), "intent.output": self.subject.output}
        facts |= {"intent.night": self.subject.day.isoformat()} if self.subject.day else {}
        self.root = self.tracer.start_span(self.subject.name, attributes=facts)
        self.below = set_span_in_context(self.root)

    def hear(self, event: Event) -> None:
        from opentelemetry.trace import StatusCode

        ended = int(event.ended * NANOSECONDS)
        facts = {f"intent.{name}": value for name, value in event.facts.items()}
        began = ended - int(event.seconds * NANOSECONDS)
        span = self.tracer.start_span(event.name, self.below, attributes=facts, start_time=began)
        if event.error:
            span.set_status(StatusCode.ERROR, event.error)
        span.end(ended)

    def end(self, summary: Summary | None, error: BaseException | None) -> None:
        from opentelemetry.trace import StatusCode

        for name in ("rows", "labelled", "abstained", "rejected", "retries") if summary else ():
            self.root.set_attribute(f"intent.{name}", getattr(summary, name))
        if error is not None:
            self.root.set_status(StatusCode.ERROR, described(error))
        self.root.end()

    def close(self) -> None:
        self.provider.shutdown()
