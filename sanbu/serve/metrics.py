"""Metrics in the Prometheus format, named as in vLLM, so that dashboards made for vLLM work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from sanbu.serve.hosted_run import HostedRun

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters and histograms of requests, and the engines' counters, collected lazily. runs: by name."""

    def __init__(self, runs: Mapping[str, HostedRun]) -> None:
        self.registry = CollectorRegistry()
        self.runs = runs
        histogram = lambda name, text: Histogram(name, text, registry=self.registry, buckets=SECONDS)  # noqa: E731
        counter = lambda name, text, *labels: Counter(name, text, labels, registry=self.registry)  # noqa: E731
        self.first_token = histogram("sanbu:time_to_first_token_seconds", "time to the first token")
        self.between = histogram("sanbu:inter_token_latency_seconds", "time between tokens")
        self.latency = histogram("sanbu:e2e_request_latency_seconds", "end-to-end latency of a request")
        self.prompt = counter("sanbu:prompt_tokens", "prompt tokens")
        self.generated = counter("sanbu:generation_tokens", "generated tokens")
        self.ended = counter("sanbu:request_success", "finished answers by finish reason", "finished_reason")
        self.answers = counter("sanbu:http_responses", "HTTP responses by path and status", "path", "status")
        self.used = counter("sanbu:key_tokens", "prompt and generated tokens per API key", "key")
        self.registry.register(self)

    def text(self) -> bytes:
        """The text of the /metrics page."""
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        """Collected lazily, so nothing to describe up front."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Gauges and counters of the engines."""
        gauges = {name: GaugeMetricFamily(f"sanbu:{name}", text, labels=["model"]) for name, text in GAUGES.items()}
        counters = {name: CounterMetricFamily(f"sanbu:{name}", text, labels=["model"]) for name, text in COUNTS.items()}
        for one in list(self.runs.values()):
            running, waiting, blocks = 0, len(one.single_lane.jobs), 0.0
            if one.engine is not None:
                engine = one.engine
                running, waiting = len(engine.running), waiting + len(engine.waiting)
                blocks = 1 - engine.blocks.available() / engine.blocks.count
                for name, key in KEYS.items():
                    counters[name].add_metric([one.name], engine.counts[key])
            for name, value in zip(GAUGES, (running, waiting, blocks), strict=True):
                gauges[name].add_metric([one.name], value)
        yield from (*gauges.values(), *counters.values())


GAUGES = {
    "num_requests_running": "requests in the batch",
    "num_requests_waiting": "waiting requests, including jobs outside the batch",
    "kv_cache_usage_perc": "fraction of KV-cache blocks in use",
}
COUNTS = {
    "num_preemptions": "preempted requests",
    "prefix_cache_hits": "prompt tokens found in the prefix cache",
    "model_calls": "forward passes",
    "computed_tokens": "tokens computed by the model",
    "spec_decode_num_draft_tokens": "speculative tokens",
    "spec_decode_num_accepted_tokens": "accepted speculative tokens",
}
KEYS = {
    "num_preemptions": "preemptions",
    "prefix_cache_hits": "cached_tokens",
    "model_calls": "steps",
    "computed_tokens": "tokens",
    "spec_decode_num_draft_tokens": "guesses",
    "spec_decode_num_accepted_tokens": "guesses_right",
}
