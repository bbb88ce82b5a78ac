"""Print csrc/text/unicode_tables.cpp, or compare the committed file with what would be printed.

    python make_unicode_tables.py > unicode_tables.cpp
    python make_unicode_tables.py --check

Needs `unicodedata2` of exactly the version below, so that the classes of characters are those of
one Unicode version whatever the Python. 16.0.0 is the one that the `tokenizers` package (0.23)
uses in its patterns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import unicodedata2

UNICODE_VERSION = "16.0.0"

HEAD = """\
// Written by make_unicode_tables.py from Unicode {version}; change the script, not this file.
#include "text/unicode_tables.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace pyllamacpp {{
namespace {{

constexpr CharClass L = CharClass::letter;
constexpr CharClass N = CharClass::number;
constexpr CharClass S = CharClass::space;

// Every code point from `first` to `last` is of one class; sorted and disjoint.
struct ClassRange {{
  uint32_t first;
  uint32_t last;
  CharClass kind;
}};

// clang-format off
constexpr ClassRange kRanges[] = {{
"""

TAIL = """\
};
// clang-format on

CharClass search(char32_t code) {
  const ClassRange* range =
      std::lower_bound(std::begin(kRanges), std::end(kRanges), code,
                       [](const ClassRange& left, char32_t right) { return left.last < right; });
  return range != std::end(kRanges) && range->first <= code ? range->kind : CharClass::other;
}

// Of the first plane, where nearly all text is.
const std::array<CharClass, 0x10000> kFirstPlane = []() noexcept {
  std::array<CharClass, 0x10000> classes{};
  for (const ClassRange& range : kRanges) {
    for (uint32_t code = range.first; code <= range.last && code < classes.size(); ++code) {
      classes[code] = range.kind;
    }
  }
  return classes;
}();

}  // namespace

CharClass class_from_tables(char32_t code) {
  return code < kFirstPlane.size() ? kFirstPlane[code] : search(code);
}

}  // namespace pyllamacpp
"""


def class_of(code: int) -> str:
    category = unicodedata2.category(chr(code))
    # White_Space is the separators and these controls (PropList.txt), a stable property.
    if category[0] == "Z" or 0x9 <= code <= 0xD or code == 0x85:
        return "S"
    return category[0] if category[0] in "LN" else ""


def ranges() -> Iterator[tuple[int, int, str]]:
    first, kind = 0, class_of(0)
    for code in range(1, 0x110001):
        now = class_of(code) if code < 0x110000 else ""
        if now != kind or code == 0x110000:
            if kind:
                yield first, code - 1, kind
            first, kind = code, now


def table() -> str:
    lines, line = [], "   "
    for first, last, kind in ranges():
        entry = f" {{0x{first:X}, 0x{last:X}, {kind}}},"
        if len(line) + len(entry) > 100:
            lines.append(line)
            line = "   "
        line += entry
    lines.append(line)
    return HEAD.format(version=UNICODE_VERSION) + "\n".join(lines) + "\n" + TAIL


def main() -> int:
    if unicodedata2.unidata_version != UNICODE_VERSION:
        print(
            f"unicodedata2 is {unicodedata2.unidata_version}, needed is {UNICODE_VERSION}: "
            f"pip install unicodedata2=={UNICODE_VERSION}",
            file=sys.stderr,
        )
        return 1
    if sys.argv[1:] == ["--check"]:
        committed = Path(__file__).with_name("unicode_tables.cpp")
        if committed.read_text(encoding="utf-8") != table():
            print(f"{committed} differs from what {__file__} prints", file=sys.stderr)
            return 1
        return 0
    sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
