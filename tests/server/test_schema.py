"""schemathesis on the published OpenAPI page: no request of its making is a server error."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings


def test_no_request_is_a_server_error(start_server, default_model) -> None:
    limits = ("-m", str(default_model), "-c", "128", "--max-tokens", "2")
    with start_server(*limits) as (address, process):
        page = schemathesis.openapi.from_url(f"{address}/openapi.json")
        n_checked = 0
        for found in page.get_all_operations():
            case = found.ok().as_strategy()

            @settings(
                max_examples=10,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=case)
            def check(case) -> None:
                assert case.call(timeout=60).status_code < 500

            check()
            n_checked += 1
        assert n_checked == len(page.raw_schema["paths"])
        assert process.poll() is None
