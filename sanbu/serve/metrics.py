"""What the service does, in Prometheus' format; names as vLLM has them, so that its dashboards fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from sanbu.serve.hosted_run import Served

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters and histograms of requests, and the engines' own figures, read when asked."""

    def __init__(self, served: Sequence[Served]) -> None:
        self.registry = CollectorRegistry()
        self.served = served
        histogram = lambda name, text: Histogram(name, text, registry=self.registry, buckets=SECONDS)  # noqa: E731
        counter = lambda name, text, *labels: Counter(name, text, labels, registry=self.registry)  # noqa: E731
        self.first = histogram("sanbu:time_to_first_token_seconds", "until the first token")
        self.between = histogram("sanbu:inter_token_latency_seconds", "between tokens")
        self.whole = histogram("sanbu:e2e_request_latency_seconds", "a whole request")
        self.prompt = counter("sanbu:prompt_tokens", "tokens that were given")
        self.generated = counter("sanbu:generation_tokens", "tokens that were drawn")
        self.ended = counter("sanbu:request_success", "answers by how they ended", "finished_reason")
        self.answers = counter("sanbu:http_responses", "HTTP answers", "path", "status")
        self.used = counter("sanbu:key_tokens", "tokens given and drawn, by key", "key")
        self.registry.register(self)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        """Nothing is asked before there is something to say."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The engines' figures."""
        gauges = {name: GaugeMetricFamily(f"sanbu:{name}", text, labels=["model"]) for name, text in GAUGES.items()}
        counters = {name: CounterMetricFamily(f"sanbu:{name}", text, labels=["model"]) for name, text in COUNTS.items()}
        for one in self.served:
            running, waiting, blocks = 0, len(one.solo.jobs), 0.0
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
    "num_requests_waiting": "requests that wait, those of other strategies among them",
    "kv_cache_usage_perc": "share of the cache's blocks that are owned",
}
COUNTS = {
    "num_preemptions": "requests that gave their blocks back",
    "prefix_cache_hits": "prompt tokens that were known already",
    "model_calls": "passes through the model",
    "computed_tokens": "tokens that went through the model",
    "spec_decode_num_draft_tokens": "tokens that were guessed",
    "spec_decode_num_accepted_tokens": "guesses that were right",
}
KEYS = {
    "num_preemptions": "preemptions",
    "prefix_cache_hits": "cached_tokens",
    "model_calls": "steps",
    "computed_tokens": "tokens",
    "spec_decode_num_draft_tokens": "guesses",
    "spec_decode_num_accepted_tokens": "guesses_right",
}
