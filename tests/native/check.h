// The whole framework of the native tests: a failed check prints its place and is counted;
// main() returns check_result().
#pragma once

#include <cstdio>

inline int check_failures = 0;

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      ++check_failures;                                                                  \
    }                                                                                    \
  } while (false)

inline int check_result() {
  if (check_failures) std::fprintf(stderr, "%d checks failed\n", check_failures);
  return check_failures ? 1 : 0;
}
