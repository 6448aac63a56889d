"""Send OpenLineage events: a run's start and end, with its data sets, their columns and their row counts.

It is on if OPENLINEAGE_URL or OPENLINEAGE_CONFIG is set. The client reads all its settings itself.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from intent import __version__
from intent.observe.subject import Subject, described
from intent.run.events import Event
from intent.run.ledger import LABELLED, REJECTED
from intent.run.progress import Summary
from intent.run.shard import Plan

PRODUCER = f"urn:intent:{__version__}"
SWITCHES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")


def observer(subject: Subject, environment: Mapping[str, str], tell: Callable[[str], None]) -> "OpenLineage | None":
    """Return the observer; None if it is off. Raises ImportError if the client is missing."""
    if not any(environment.get(name) for name in SWITCHES) or environment.get("OPENLINEAGE_DISABLED", "").lower() == "true":
        return None
    from openlineage.client import set_producer
    from openlineage.client.uuid import generate_new_uuid

    set_producer(PRODUCER)
    return OpenLineage(subject, environment.get("OPENLINEAGE_NAMESPACE", "default"), str(generate_new_uuid()), tell)


class OpenLineage:
    """Send the events of one run, with the id `run`, from its own thread."""

    def __init__(self, subject: Subject, namespace: str, run: str, tell: Callable[[str], None]):
        self.subject, self.namespace, self.run, self.tell = subject, namespace, run, tell
        self.plan: Plan | None = None
        self.source = ""
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._sending = threading.Thread(target=self._send, daemon=True)
        self._sending.start()

    def start(self) -> None:
        self._emit("START")

    def hear(self, event: Event) -> None:
        if event.plan is not None:
            self.plan, self.source = event.plan, str(event.facts["source"])

    def end(self, summary: Summary | None, error: BaseException | None) -> None:
        from openlineage.client.facet_v2 import error_message_run

        if error is None:
            self._emit("COMPLETE", summary)
        else:
            facets = {
                "errorMessage": error_message_run.ErrorMessageRunFacet(message=described(error), programmingLanguage="Python")
            }
            self._emit("FAIL" if isinstance(error, Exception) else "ABORT", facets=facets)

    def close(self) -> None:
        self._events.put(None)
        self._sending.join()

    def _emit(self, state: str, summary: Summary | None = None, facets: Mapping[str, Any] = {}) -> None:
        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState

        event = RunEvent(
            eventType=RunState[state],
            eventTime=datetime.now(UTC).isoformat(),
            run=Run(self.run, {**self._nominal(), **facets}),
            job=Job(self.namespace, self.subject.name),
            producer=PRODUCER,
            inputs=[self._input(uri, summary) for uri in self.subject.inputs],
            outputs=self._outputs(summary),
        )
        self._events.put(event)

    def _send(self) -> None:
        """Send events until `close`, in the sending thread, so that the client's retries do not delay the run."""
        try:
            from openlineage.client import OpenLineageClient

            client = OpenLineageClient()
            while (event := self._events.get()) is not None:
                client.emit(event)
            client.close()
        except Exception as error:
            self.tell(f"lineage is not delivered, and the run goes on: {type(error).__name__}: {error}"[:300])

    def _nominal(self) -> dict[str, Any]:
        from openlineage.client.facet_v2 import nominal_time_run

        if self.subject.day is None:
            return {}
        begins = datetime.combine(self.subject.day, datetime.min.time(), UTC)
        ends = begins + timedelta(days=1)
        return {"nominalTime": nominal_time_run.NominalTimeRunFacet(begins.isoformat(), ends.isoformat())}

    def _input(self, uri: str, summary: Summary | None) -> Any:
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

        columns, types = self.subject.columns, self.plan.types if self.plan and self.plan.types else pa.schema([])
        type_of = {field.name: str(field.type) for field in types} | {columns.message: "string"}
        facets = _schema([(name, type_of.get(name)) for name in columns.read])
        counted = {}
        if self.plan:
            shards = [shard for shard in self.plan.shards if self._lies_in(shard.blob.key, uri)]
            blobs = {shard.blob for shard in shards}
            rows, size = sum(max(0, shard.rows) for shard in shards), sum(blob.size for blob in blobs)
            counted = {"rowCount": rows, "size": size, "fileCount": len(blobs)}
        elif summary and len(self.subject.inputs) == 1:
            counted = {"rowCount": summary.rows}
        facet = {"inputStatistics": statistics.InputStatisticsInputDatasetFacet(**counted)} if counted else {}
        return InputDataset(*dataset(uri), facets=facets, inputFacets=facet)

    def _lies_in(self, key: str, uri: str) -> bool:
        whole = uri.rstrip("/") == self.source.rstrip("/") or len(self.subject.inputs) == 1
        return whole or f"{self.source.rstrip('/')}/{key}".startswith(f"{uri.rstrip('/')}/")

    def _outputs(self, summary: Summary | None) -> list[Any]:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

        columns, types = self.subject.columns, self.plan.types if self.plan and self.plan.types else pa.schema([])
        kinds = {field.name: str(field.type) for field in types}
        id_ = ("id", kinds.get(columns.id))
        labels = [(field.name, str(field.type)) for field in self.subject.fields]
        kept_fields = [(name, kinds.get(name)) for name in columns.keep]
        rows = {LABELLED: None, REJECTED: None}
        if summary:
            # With one row per item, the summary does not count the rows of the files.
            labelled = None if columns.explode else summary.labelled + summary.abstained
            rows = {LABELLED: labelled, REJECTED: summary.rejected}
        output, labelled_fields = self.subject.output.rstrip("/"), [id_, *labels, *kept_fields]
        outputs = [
            (f"{output}/{LABELLED}", labelled_fields, rows[LABELLED]),
            (f"{output}/{REJECTED}", [id_, ("reason", "string")], rows[REJECTED]),
        ]
        outputs += [(self.subject.publish, labelled_fields, rows[LABELLED])] if self.subject.publish else []
        datasets = []
        for uri, fields, count in outputs:
            counted = (
                {} if count is None else {"outputStatistics": statistics.OutputStatisticsOutputDatasetFacet(rowCount=count)}
            )
            datasets.append(OutputDataset(*dataset(uri), facets=_schema(fields), outputFacets=counted))
        return datasets


def dataset(uri: str) -> tuple[str, str]:
    """Return (namespace, name) of a data set, by OpenLineage's naming conventions."""
    uri = uri.removeprefix("delta:").removeprefix("file://")
    scheme, separator, rest = uri.partition("://")
    if separator:
        bucket, _, key = rest.partition("/")
        return f"{scheme}://{bucket}", key.strip("/") or "/"
    if uri.startswith("iceberg:"):
        catalog, _, table = uri.removeprefix("iceberg:").partition("/")
        return f"iceberg://{catalog}", table
    return "file", uri.rstrip("/") or "/"


def _schema(fields: Sequence[tuple[str, str | None]]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import schema_dataset

    return {
        "schema": schema_dataset.SchemaDatasetFacet(
            fields=[schema_dataset.SchemaDatasetFacetFields(name=name, type=kind) for name, kind in fields]
        )
    }
