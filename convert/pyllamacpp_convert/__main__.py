"""python -m pyllamacpp_convert: the same as `pyllamacpp convert`."""

import sys

from pyllamacpp.cli import main

sys.argv.insert(1, "convert")
main()
