// Half and bfloat conversions against exact references.
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "base/half.h"
#include "check.h"

namespace {

using namespace pyllamacpp;

// The definition of binary16, term by term.
double value_of_half(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  double value;
  if (exponent == 31)
    value = fraction ? std::numeric_limits<double>::quiet_NaN()
                     : std::numeric_limits<double>::infinity();
  else if (exponent == 0)
    value = std::ldexp(fraction, -24);
  else
    value = std::ldexp(1024 + fraction, exponent - 25);
  return h & 0x8000 ? -value : value;
}

// The nearest of all halves by bisection, ties to the even one. 65536 stands for infinity: what is
// at least as near to it as to 65504 overflows.
uint16_t nearest_half(float f) {
  const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
  const double x = std::fabs(double(f));
  const auto value = [](uint16_t h) { return h == 0x7c00 ? 65536.0 : value_of_half(h); };
  if (x >= 65536) return uint16_t(sign | 0x7c00);
  uint16_t low = 0, high = 0x7c00;  // value(low) <= x < value(high)
  while (high - low > 1) {
    const uint16_t middle = uint16_t((low + high) / 2);
    (value(middle) <= x ? low : high) = middle;
  }
  const double below = x - value(low), above = value(high) - x;  // both exact
  const bool up = above < below || (above == below && low % 2 == 1);
  return uint16_t(sign | (up ? high : low));
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

void test_every_half() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t h = uint16_t(bits);
    const float f = half_to_float(h);
    if ((h & 0x7fff) > 0x7c00) {
      CHECK(std::isnan(f));
      const uint16_t back = float_to_half(f);
      CHECK((back & 0x7fff) > 0x7c00 && (back & 0x8000) == (h & 0x8000));
    } else {
      CHECK(same_bits(f, float(value_of_half(h))));
      CHECK(float_to_half(f) == h);
    }
  }
}

void check_float(float f) {
  const uint16_t h = float_to_half(f);
  if (std::isnan(f))
    CHECK((h & 0x7fff) > 0x7c00);
  else
    CHECK(h == nearest_half(f));
}

void test_floats_to_half() {
  // Every exponent and sign, with fractions at and around each place where rounding changes.
  for (uint32_t top = 0; top < 512; ++top)
    for (uint32_t fraction = 0; fraction < 1u << 23; fraction += 0xfff) {
      const uint32_t bits = top << 23 | fraction;
      for (uint32_t near :
           {bits, bits + 1, bits & ~0xfffu, (bits & ~0xfffu) + 1, (bits & ~0xfffu) - 1})
        check_float(std::bit_cast<float>(near));
    }
  // Ties between subnormal halves, and their neighbours.
  for (int i = 0; i < 4096; ++i) {
    const float tie = std::ldexp(float(i) + 0.5f, -24);
    for (float f : {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, 1.0f)}) {
      check_float(f);
      check_float(-f);
    }
  }
  for (float f : {65504.0f, 65519.996f, 65520.0f, 65536.0f, 3.4e38f, 1e-45f, 2.9802322e-8f,
                  2.980233e-8f, std::numeric_limits<float>::infinity()}) {
    check_float(f);
    check_float(-f);
  }
}

void test_bfloat() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float f = bfloat_to_float(uint16_t(bits));
    CHECK(std::bit_cast<uint32_t>(f) == bits << 16);
    const uint16_t back = float_to_bfloat(f);
    if (std::isnan(f)) {
      CHECK(std::isnan(bfloat_to_float(back)));
      // NaN whose fraction lies in the low half alone stays NaN.
      CHECK(std::isnan(bfloat_to_float(float_to_bfloat(std::bit_cast<float>(bits << 16 | 1)))));
      continue;
    }
    CHECK(back == bits);
    // Between this number and the next away from zero: down, tie to even, up.
    const auto rounded = [&](uint32_t low) {
      return float_to_bfloat(std::bit_cast<float>(bits << 16 | low));
    };
    if ((bits & 0x7fff) == 0x7f80) continue;
    CHECK(rounded(0x7fff) == bits);
    CHECK(rounded(0x8000) == bits + (bits & 1));
    CHECK(rounded(0x8001) == bits + 1);
  }
}

}  // namespace

int main() {
  test_every_half();
  test_floats_to_half();
  test_bfloat();
  return check_result();
}
