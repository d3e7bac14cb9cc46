"""A process that makes telemetry, line by line as it is told, and can be killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fresh import environment

if TYPE_CHECKING:
    from typing_extensions import Self

END_S = 60

LOOP = """
import logging, os, sys, time
import pbmon
from opentelemetry import metrics, trace
from pbmon import wiring
from tests.stack.process import wait_until

log = logging.getLogger("app")
log.addHandler(logging.NullHandler())
tracer = trace.get_tracer("app")
meter = metrics.get_meter("app")
done = meter.create_counter("test.work")
opened = meter.create_up_down_counter("test.open")
sizes = meter.create_histogram("test.sizes")

def work(first, count):
    for number in range(first, first + count):
        with tracer.start_as_current_span("x", attributes={"test.n": number}):
            log.warning("work %d", number)
            done.add(1)
            opened.add(1)
            sizes.record(number)

def delivery():
    return wiring._providers().delivery

def look():
    "For what dead processes left, now and not after a while."
    delivery()._adopt_at_s = 0
    delivery().look_after_orphans()

for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""

OTLP = dict.fromkeys(
    ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "otlp"
)


class Program:
    """receiver: a Sink. variables: of its environment. Its spans and log records carry numbers."""

    def __init__(self, receiver, service="shop", **variables):
        settings = {
            **OTLP,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_SERVICE_NAME": service,
            "PBMON_LOGS": "true",
        }
        self.receiver = receiver
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOP],
            env=environment(**settings | variables),
            cwd=Path(sys.prefix),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.do("pbmon.configure()")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.kill()

    def do(self, line):
        """Returns what it printed, when it is done."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        printed = []
        for answer in self.process.stdout:
            if answer == "done\n":
                return "".join(printed).strip()
            printed.append(answer)
        raise AssertionError(self.process.stderr.read())

    def work(self, first, count):
        """Make this many of everything and see it in the spool, the metrics too."""
        self.do(f"work({first}, {count}); wiring._providers().hand_over()")

    def kill(self):
        """As nobody can prepare for; what it had said."""
        self.process.kill()
        return self.process.communicate(timeout=END_S)[1]

    def end(self):
        """By itself; what it said on its way. Fails if it ends badly."""
        _, err = self.process.communicate(timeout=END_S)
        assert self.process.returncode == 0, err
        with self.receiver.lock:  # it answers before it has taken in
            return err
