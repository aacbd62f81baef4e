"""No request that the OpenAPI document allows leads to a 5xx status."""

import schemathesis
import torch
from hypothesis import HealthCheck, given, settings


def test_no_request_made_from_the_document_breaks_the_server(served):
    torch.set_flush_denormal(False)  # training flushes denormals, and hypothesis generates them
    wrong, seen = [], set()
    for result in schemathesis.openapi.from_url(served.url + "/openapi.json").get_all_operations():
        operation = result.ok()

        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case):
            answer = case.call(base_url=served.url, timeout=30)
            seen.add((case.path, answer.status_code))
            if answer.status_code >= 500:
                wrong.append((case.method, case.path, case.body, answer.text))

        ask()
    assert not wrong, wrong[:3]
    assert len({path for path, _ in seen}) >= 10
    served.quiet()
