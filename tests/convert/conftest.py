"""The tests share vocab_cases.py and tests/text/text_cases.py, which importlib mode does not put on
the path.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "text")]
