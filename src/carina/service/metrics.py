"""What Prometheus is told: jobs, arrivals, instances and deliveries by state, parts, room on the disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Column, Connection, func, select

from carina.database import ARRIVAL, INSTANCE, JOB, read_only
from carina.deliver.ledger import counts
from carina.service.loops import PartState
from carina.service.node import RunningNode
from carina.service.pipelines import pipeline_name


class NodeCollector(Collector):
    """Counts rows whenever it is asked, so that what is told is true however often the node was started."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        """Every figure of the node."""
        with read_only(self._node.engine) as connection:
            yield _by(
                connection,
                "carina_jobs",
                "Jobs by project, state and end.",
                JOB.c.project,
                JOB.c.state,
                JOB.c.ended,
                JOB.c.pipeline,
            )
            yield _by(
                connection,
                "carina_arrivals",
                "Series by project and state.",
                ARRIVAL.c.project,
                ARRIVAL.c.state,
                ARRIVAL.c.source,
            )
            yield _by(connection, "carina_instances", "Instances that were accepted.", INSTANCE.c.sop_class_uid)
            yield _deliveries(connection)
        yield from self._of_the_machine()

    def _of_the_machine(self) -> Iterator[Metric]:
        if self._node.own.is_there():
            free = shutil.disk_usage(self._node.folder).free
            yield GaugeMetricFamily("carina_disk_free_bytes", "Room on the disk of the node's folder.", value=free)
        up = GaugeMetricFamily("carina_part_up", "Whether a part of the node runs.", labels=["part"])
        deaths = GaugeMetricFamily("carina_part_deaths", "How often a part of the node has died.", labels=["part"])
        for status in self._node.statuses:
            up.add_metric([status.name], float(status.state is PartState.RUNNING))
            deaths.add_metric([status.name], status.deaths)
        yield from (up, deaths)


def _by(connection: Connection, name: str, help_text: str, *columns: Column[str]) -> Metric:
    metric = GaugeMetricFamily(name, help_text, labels=[column.name for column in columns])
    counted: Counter[tuple[str, ...]] = Counter()
    for row in connection.execute(select(*columns, func.count().label("number")).group_by(*columns)):
        shown = zip(columns, row[:-1], strict=True)
        named = (pipeline_name(value) if column is JOB.c.pipeline else str(value) for column, value in shown)
        counted[tuple(named)] += int(row.number)
    for labels, number in counted.items():
        metric.add_metric(labels, number)
    return metric


def _deliveries(connection: Connection) -> Metric:
    metric = GaugeMetricFamily(
        "carina_deliveries", "Result objects by destination and state.", labels=["destination", "state"]
    )
    for destination, states in counts(connection).items():
        for state, number in states.items():
            metric.add_metric([destination, state.value], number)
    return metric


def metrics_text(node: RunningNode) -> bytes:
    """Everything as Prometheus reads it, memory and file handles of the process included."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
