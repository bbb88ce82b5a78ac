"""Fuzzes chat templates with atheris: python tests/fuzz/fuzz_template.py -max_total_time=60 CORPUS.

Options are libFuzzer's. Only the documented errors may come out; -timeout and -rss_limit_mb bound
one execution. Each slowest one so far is reported.
"""

import resource
import sys
from pathlib import Path

import atheris

sys.path[:] = [str(Path(__file__).parent), *(p for p in sys.path if p)]
with atheris.instrument_imports(include=["jinja2", "pyllamacpp.chat"]):
    import template_grammar as grammar

grammar.sandbox.MOST_STEPS, grammar.sandbox.DATA_BASE = grammar.MOST_STEPS, grammar.DATA_BASE
slowest = 0.1


def execute(data: bytes) -> None:
    global slowest  # noqa: PLW0603
    seconds = grammar.run(data)
    if seconds > slowest:
        slowest = 1.1 * seconds
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"slowest: {seconds:.2f} CPU seconds; so far {memory} MiB of memory", flush=True)


atheris.Setup(sys.argv, execute)
atheris.Fuzz()
