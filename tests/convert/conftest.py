"""The tests share the modules beside them, of tests/text and of tests/oracle, which importlib mode
does not put on the path.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / folder) for folder in ("convert", "text", "oracle")]
