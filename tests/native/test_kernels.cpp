// Every entry of every tier's table against float64, the dequantizers and the scalar table: what
// tests/kernels does in Python, smaller, so that it runs where there is no Python (tests/system
// runs it for ARM under qemu). Error bounds as in tests/kernels/kernel_oracle.py: n roundings in a
// chain change a sum of terms t by at most gamma(n) * sum|t|.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "base/buffer.h"
#include "base/half.h"
#include "check.h"
#include "cpu/isa.h"
#include "quant/dequantize.h"

using namespace pyllamacpp;
using namespace pyllamacpp::cpu;

namespace {

using Floats = std::vector<float>;
using Bytes = std::vector<uint8_t>;

constexpr double kUnit = 0x1p-24;
constexpr double kSmallestNormal = std::numeric_limits<float>::min();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

double gamma(double n) { return n * kUnit / (1 - n * kUnit); }

std::mt19937 rng(1);

Floats normals(int64_t n, float scale = 1) {
  std::normal_distribution<float> normal;
  Floats x(size_t(n), 0);
  for (float& v : x) v = scale * normal(rng);
  return x;
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// --- Weights ---

// Where the halves of a block lie: its scale, then its minimum's.
std::vector<size_t> halves_of(DType type) {
  switch (type) {
    case DType::q4_1:
    case DType::q5_1:
    case DType::q4_k:
    case DType::q5_k:
      return {0, 2};
    case DType::q2_k:
      return {offsetof(BlockQ2_K, d), offsetof(BlockQ2_K, dmin)};
    case DType::q3_k:
      return {offsetof(BlockQ3_K, d)};
    case DType::q6_k:
      return {offsetof(BlockQ6_K, d)};
    default:
      return {0};
  }
}

// Rows of a type: bytes all `fill`, or random where it is negative, with halves of usual size.
Bytes make_weights(DType type, int64_t n, int fill) {
  const DTypeTraits& t = traits(type);
  Bytes raw(bytes_of(type, uint64_t(n)));
  if (t.block_size == 1) {
    const Floats x = normals(n);
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t word =
          type == DType::f16 ? float_to_half(x[size_t(i)]) : float_to_bfloat(x[size_t(i)]);
      if (type == DType::f32)
        std::memcpy(&raw[4 * size_t(i)], &x[size_t(i)], sizeof(float));
      else
        std::memcpy(&raw[2 * size_t(i)], &word, sizeof word);
    }
    return raw;
  }
  for (uint8_t& byte : raw) byte = uint8_t(fill < 0 ? int(rng() & 255) : fill);
  std::uniform_real_distribution<float> size(0x1p-10f, 0x1p-3f);
  for (size_t at = 0; at < raw.size(); at += t.block_bytes)
    for (size_t half : halves_of(type)) {
      const uint16_t d = float_to_half((rng() & 1 ? 1.0f : -1.0f) * size(rng));
      std::memcpy(&raw[at + half], &d, sizeof d);
    }
  return raw;
}

Floats decoded(DType type, const Bytes& raw, int64_t n) {
  Floats w(size_t(n), 0);
  dequantize(type, raw.data(), w.data(), n);
  return w;
}

// The weights without their minimums: the two parts of a sum are rounded apart.
Floats decoded_without_minimums(DType type, Bytes raw, int64_t n) {
  const std::vector<size_t> halves = halves_of(type);
  if (traits(type).block_size > 1 && halves.size() == 2)
    for (size_t at = halves[1]; at < raw.size(); at += traits(type).block_bytes)
      std::memset(&raw[at], 0, sizeof(half_t));
  return decoded(type, raw, n);
}

// --- Matrix products ---

// Activations of a type's kind, [n_cols] columns, and the numbers they stand for.
struct Activations {
  Buffer stored;
  std::vector<double> numbers;
};

Activations quantized(const KernelTable& t, ActKind kind, const Floats& x, int64_t k) {
  const int64_t n_cols = int64_t(x.size()) / k;
  Activations a{Buffer(act_bytes(kind, k) * size_t(n_cols), "activations"), {}};
  for (int64_t c = 0; c < n_cols; ++c) {
    const float* column = x.data() + c * k;
    std::byte* out = a.stored.data() + act_bytes(kind, k) * size_t(c);
    if (kind == ActKind::f32) {
      std::memcpy(out, column, size_t(k) * sizeof(float));
      a.numbers.insert(a.numbers.end(), column, column + k);
    } else if (kind == ActKind::q8_32) {
      ActBlock32* blocks = reinterpret_cast<ActBlock32*>(out);
      t.quantize_q8_32(blocks, column, k);
      for (int64_t i = 0; i < k; ++i)
        a.numbers.push_back(double(blocks[i / kBlock].d) * blocks[i / kBlock].q[i % kBlock]);
    } else {
      ActBlock256* blocks = reinterpret_cast<ActBlock256*>(out);
      t.quantize_q8_256(blocks, column, k);
      for (int64_t i = 0; i < k; ++i)
        a.numbers.push_back(double(blocks[i / kSuperBlock].d) *
                            blocks[i / kSuperBlock].q[i % kSuperBlock]);
    }
  }
  return a;
}

struct Shape {
  int64_t n_rows, n_cols, k;
};

Floats product(const TypeKernels& type, const Bytes& raw, const Activations& x, Shape s,
               bool packed, const Floats* add_to = nullptr) {
  const Buffer scratch(type.scratch_bytes(s.k), "panels");
  Buffer panels;
  const uint8_t* weights = raw.data();
  if (packed) {
    panels = Buffer(type.packed_bytes(s.n_rows, s.k), "packed weights");
    type.pack(weights, s.n_rows, s.k, 0, s.n_rows, panels.as<uint8_t>());
    weights = panels.as<uint8_t>();
  }
  Floats y = add_to ? *add_to : Floats(size_t(s.n_rows * s.n_cols), kNan);
  (packed ? type.matmul_packed
          : type.matmul_rows)({weights, s.n_rows, s.k, 0, s.n_rows, x.stored.data(), s.n_cols,
                               y.data(), s.n_rows, add_to != nullptr, scratch.as<uint8_t>()});
  return y;
}

void check_product(const TypeKernels& type, const Bytes& raw, const Activations& x, Shape s,
                   const Floats& y) {
  const Floats w = decoded(type.type, raw, s.n_rows * s.k);
  const Floats first = decoded_without_minimums(type.type, raw, s.n_rows * s.k);
  const int64_t block = traits(type.type).block_size;
  // Two terms a block and a few roundings of its scales, and those of a decoded weight; float
  // types have at least eight partial sums of two roundings a step.
  const double roundings = block > 1 ? 2.0 * double(s.k / block) + 9 : double(s.k) / 4 + 8;
  for (int64_t c = 0; c < s.n_cols; ++c)
    for (int64_t r = 0; r < s.n_rows; ++r) {
      double expected = 0, size = 0;
      for (int64_t i = 0; i < s.k; ++i) {
        const double a = x.numbers[size_t(c * s.k + i)], b = w[size_t(r * s.k + i)];
        const double part = first[size_t(r * s.k + i)];
        expected += a * b;
        size += std::abs(a) * (std::abs(part) + std::abs(b - part));
      }
      const double off = std::abs(double(y[size_t(c * s.n_rows + r)]) - expected);
      CHECK(off <= gamma(roundings) * size + kSmallestNormal);
    }
}

void test_matmul(const KernelTable& t, const TypeKernels& type) {
  const int64_t block = traits(type.type).block_size;
  const bool packs = type.pack != nullptr;
  CHECK(packs == (block > 1));
  const int64_t k = block > 1 ? 2 * block : 71;

  // Every number of columns up to beyond a tile, few and many; rows that end anywhere in a panel.
  const Shape all{37, 27, k};
  const Bytes raw = make_weights(type.type, all.n_rows * k, -1);
  const Floats x = normals(all.n_cols * k, 3);
  const Activations acts = quantized(t, type.act, x, k);
  const Floats whole = product(type, raw, acts, all, false);
  check_product(type, raw, acts, all, whole);
  for (int64_t n_cols = 1; n_cols <= all.n_cols; ++n_cols) {
    const int64_t n_rows = 1 + n_cols * 5 % all.n_rows;
    Floats expected;
    for (int64_t c = 0; c < n_cols; ++c)
      for (int64_t r = 0; r < n_rows; ++r) expected.push_back(whole[size_t(c * all.n_rows + r)]);
    for (const bool packed : {false, true}) {
      if (packed && !packs) continue;
      CHECK(same_bits(product(type, raw, acts, {n_rows, n_cols, k}, packed), expected));
    }
  }
  if (packs) {  // so many that the codes of a packed panel are taken apart once for all of them
    const Shape many{5, 97, k};
    const Activations columns = quantized(t, type.act, normals(many.n_cols * k, 3), k);
    CHECK(same_bits(product(type, raw, columns, many, true),
                    product(type, raw, columns, many, false)));
  }
  // Added to what is there.
  const Floats before = normals(int64_t(whole.size()));
  Floats sums = before;
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += whole[i];
  for (const bool packed : {false, true})
    if (!packed || packs) CHECK(same_bits(product(type, raw, acts, all, packed, &before), sums));

  // Blocks at their limits against activations of +-127: a product that saturates is far off.
  Floats ends(size_t(5 * k), 1);
  for (size_t i = 0; i < ends.size(); ++i) ends[i] = i < size_t(k) || (rng() & 1) ? 1.0f : -1.0f;
  const Activations extremes = quantized(t, type.act, ends, k);
  for (const int fill : {0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0}) {
    const Shape s{9, 5, k};
    const Bytes limits = make_weights(type.type, s.n_rows * k, fill);
    for (const bool packed : {false, true})
      if (!packed || packs)
        check_product(type, limits, extremes, s, product(type, limits, extremes, s, packed));
  }
  if (block == 1)  // every tail of a row
    for (int64_t n = 1; n <= 40; ++n) {
      const Bytes row = make_weights(type.type, 3 * n, -1);
      const Activations column = quantized(t, type.act, normals(2 * n), n);
      check_product(type, row, column, {3, 2, n}, product(type, row, column, {3, 2, n}, false));
    }
}

// Tiers of as many lanes differ in their products of bytes, which are exact: the bits are the same.
void test_same_bits(const KernelTable& t, const KernelTable& other) {
  for (int i = 0; i < t.n_types; ++i) {
    const TypeKernels& type = t.types[i];
    const int64_t block = traits(type.type).block_size;
    const Shape s{37, 13, block > 1 ? 3 * block : 71};
    const Bytes raw = make_weights(type.type, s.n_rows * s.k, -1);
    const Activations x = quantized(t, type.act, normals(s.n_cols * s.k, 3), s.k);
    for (const bool packed : {false, true})
      if (!packed || type.pack)
        CHECK(same_bits(product(type, raw, x, s, packed),
                        product(*other.find(type.type), raw, x, s, packed)));
  }
}

// --- The quantizers: the same on every tier ---

void test_quantizers(const KernelTable& t, const KernelTable& scalar) {
  for (int kind = 0; kind < 4; ++kind) {
    Floats x = normals(4 * kSuperBlock, kind == 1 ? 1e-20f : 5);
    if (kind == 2) std::fill(x.begin(), x.begin() + 300, 0.0f);
    if (kind == 3)  // ties go to even
      for (int i = 0; i < 1024; ++i) x[size_t(i)] = i % 32 ? float(i % 254 - 127) + 0.5f : 127.0f;
    const int64_t n = int64_t(x.size());
    std::vector<ActBlock32> a(size_t(n / kBlock)), b(a.size());
    t.quantize_q8_32(a.data(), x.data(), n);
    scalar.quantize_q8_32(b.data(), x.data(), n);
    CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof a[0]) == 0);
    std::vector<ActBlock256> c(size_t(n / kSuperBlock)), d(c.size());
    t.quantize_q8_256(c.data(), x.data(), n);
    scalar.quantize_q8_256(d.data(), x.data(), n);
    CHECK(std::memcmp(c.data(), d.data(), c.size() * sizeof c[0]) == 0);
  }
  for (const float bad : {kNan, kInf, -kInf})
    for (const int at : {0, 3, 31}) {
      Floats x = normals(kSuperBlock);
      x[size_t(at)] = bad;
      ActBlock32 small[kSuperBlock / kBlock];
      ActBlock256 large;
      t.quantize_q8_32(small, x.data(), kSuperBlock);
      t.quantize_q8_256(&large, x.data(), kSuperBlock);
      CHECK(std::isnan(small[0].d));
      CHECK(std::isfinite(small[1].d));
      CHECK(std::isnan(large.d));
    }
  CHECK(t.n_quantizers == scalar.n_quantizers);
  for (int i = 0; i < t.n_quantizers; ++i) {
    const QuantizeKernels& q = t.quantizers[i];
    const QuantizeKernels* reference = scalar.find_quantizer(q.type);
    CHECK(reference != nullptr);
    if (!reference) continue;
    const int64_t k = 3 * int64_t(traits(q.type).block_size) + (traits(q.type).block_size == 1);
    Floats x = normals(3 * k, 0.02f);
    x[1] = 70000;  // beyond the range of halves
    Floats importance = normals(k);
    for (float& v : importance) v *= v;
    for (const bool weighed : {false, true}) {
      const float* weights = weighed ? importance.data() : nullptr;
      Bytes ours(bytes_of(q.type, uint64_t(3 * k))), theirs(ours.size());
      q.quantize(x.data(), weights, 3 * k, k, ours.data());
      reference->quantize(x.data(), weights, 3 * k, k, theirs.data());
      CHECK(ours == theirs);
    }
    if (k % kBlock == 0) continue;
    // Every rounding of the 16-bit types: ties, and halves below the smallest normal one.
    for (const uint32_t from : {0x3f800000u, 0xbf800000u, 0x33000000u}) {
      Floats steps(4096);
      for (size_t j = 0; j < steps.size(); ++j)
        steps[j] = std::bit_cast<float>(from + uint32_t(j << 12));
      Bytes ours(bytes_of(q.type, steps.size())), theirs(ours.size());
      q.quantize(steps.data(), nullptr, 4096, 4096, ours.data());
      reference->quantize(steps.data(), nullptr, 4096, 4096, theirs.data());
      CHECK(ours == theirs);
    }
  }
}

// --- Elementwise ---

void test_elementwise(const KernelTable& t, int64_t n) {
  const Floats x = normals(n, 4), w = normals(n);
  Floats y(size_t(n), kNan);
  double squares = 0;
  for (float v : x) squares += double(v) * v;
  t.rms_norm(y.data(), x.data(), w.data(), n, 1e-5f);
  for (size_t i = 0; i < y.size(); ++i) {
    const double expected = double(x[i]) * w[i] / std::sqrt(squares / double(n) + double(1e-5f));
    const double relative = gamma(double(n) / 8 + 8) / 2 + gamma(6);
    CHECK(std::abs(y[i] - expected) <= relative * std::abs(expected) + kSmallestNormal);
  }

  t.swiglu(y.data(), x.data(), w.data(), n);
  for (size_t i = 0; i < y.size(); ++i) {
    const double expected = double(x[i]) / (1 + std::exp(-double(x[i]))) * w[i];
    CHECK(std::abs(y[i] - expected) <= gamma(10) * std::abs(expected) + kSmallestNormal);
  }

  Floats soft = x;
  t.softmax(soft.data(), n);
  const double top = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (float v : x) total += std::exp(v - top);
  for (size_t i = 0; i < soft.size(); ++i) {
    const double expected = std::exp(x[i] - top) / total;
    const double relative = gamma(double(n) / 4 + 15) + 2 * kUnit * 40;  // |x - top| below 40
    CHECK(std::abs(soft[i] - expected) <= relative * expected + kSmallestNormal);
  }

  Floats sums = x, scaled = x;
  t.add(sums.data(), w.data(), n);
  t.scale(scaled.data(), 0.3f, n);
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(sums[i] == x[i] + w[i]);
    CHECK(scaled[i] == x[i] * 0.3f);
  }

  Floats some = x;
  for (int64_t at : {int64_t(0), n / 2, n - 1}) {
    some[size_t(at)] = 1000;
    CHECK(t.argmax(some.data(), n) == at);
    if (at + 1 < n) {  // the first of equals
      some[size_t(n - 1)] = 1000;
      CHECK(t.argmax(some.data(), n) == at);
    }
    some = x;
    for (size_t i = 0; i < some.size(); ++i)  // NaN never wins
      if (int64_t(i) != at) some[i] = kNan;
    CHECK(t.argmax(some.data(), n) == at);
    some = x;
  }
}

void test_exceptional(const KernelTable& t) {
  for (size_t n : {size_t(2), size_t(3), size_t(4), size_t(9), size_t(33)})
    for (const float bad : {kNan, kInf}) {
      Floats x(n, 0);
      x[n - 1] = bad;
      t.softmax(x.data(), int64_t(n));
      for (float v : x) CHECK(std::isnan(v));
    }
  Floats x(5, 0);
  x[2] = -kInf;
  t.softmax(x.data(), 5);
  CHECK(x[2] == 0 && std::abs(x[0] - 0.25) < 1e-6);
  // exp over its range: the share of the second of two.
  for (float v = -100; v < 0; v += 0.0625f) {
    Floats two = {0, v};
    t.softmax(two.data(), 2);
    const double expected = std::exp(double(v)) / (1 + std::exp(double(v)));
    CHECK(std::abs(two[1] - expected) <= gamma(20) * expected + kSmallestNormal);
  }
  for (const float gate : {-200.0f, -88.5f, 88.5f, 200.0f}) {
    const float up = 1;
    float y = kNan;
    t.swiglu(&y, &gate, &up, 1);
    CHECK(gate > 0 ? y == gate : std::abs(y) < 1e-36f);
  }
}

void test_rope(const KernelTable& t, int64_t n) {
  const Floats x = normals(n);
  Floats turns = normals(n);
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = 300 * turns[size_t(i)];
    turns[size_t(i)] = float(std::cos(angle));
    turns[size_t(half + i)] = float(std::sin(angle));
  }
  Floats halves = x, pairs(x.size());
  t.rope_halves(halves.data(), turns.data(), n);
  for (int64_t i = 0; i < half; ++i) {
    const double a = x[size_t(i)], b = x[size_t(half + i)];
    const double c = turns[size_t(i)], s = turns[size_t(half + i)];
    CHECK(std::abs(halves[size_t(i)] - (a * c - b * s)) <=
          gamma(2) * (std::abs(a * c) + std::abs(b * s)) + kSmallestNormal);
    CHECK(std::abs(halves[size_t(half + i)] - (a * s + b * c)) <=
          gamma(2) * (std::abs(a * s) + std::abs(b * c)) + kSmallestNormal);
    pairs[size_t(2 * i)] = x[size_t(i)];
    pairs[size_t(2 * i + 1)] = x[size_t(half + i)];
  }
  t.rope_interleaved(pairs.data(), turns.data(), n);
  for (int64_t i = 0; i < half; ++i) {
    CHECK(pairs[size_t(2 * i)] == halves[size_t(i)]);
    CHECK(pairs[size_t(2 * i + 1)] == halves[size_t(half + i)]);
  }
}

// --- Attention ---

// One head's keys or values: pages of a tier, and the numbers the scalar table's pages hold.
struct Cached {
  Bytes pages;
  Floats numbers;
};

Cached cached(const KernelTable& t, const KernelTable& scalar, DType type, bool keys,
              const Floats& x, int32_t head_dim) {
  const KvKernels& ours = *t.find_kv(type);
  const KvKernels& theirs = *scalar.find_kv(type);
  const size_t page = ours.page_bytes(head_dim), n_tokens = x.size() / size_t(head_dim);
  CHECK(page == theirs.page_bytes(head_dim));
  const size_t n_pages = (n_tokens + kPageTokens - 1) / kPageTokens;
  Cached c{Bytes(n_pages * page), Floats(x.size())};
  Bytes expected(n_pages * page), plain(n_pages * page);
  for (size_t i = 0; i < n_tokens; ++i) {
    const float* token = x.data() + i * size_t(head_dim);
    const size_t at = i / kPageTokens * page;
    const int offset = int(i % kPageTokens);
    (keys ? ours.store_key : ours.store_value)(&c.pages[at], offset, token, head_dim);
    (keys ? theirs.store_key : theirs.store_value)(&expected[at], offset, token, head_dim);
    theirs.store_value(&plain[at], offset, token, head_dim);
  }
  CHECK(c.pages == expected);
  const size_t row = bytes_of(type, uint64_t(head_dim));  // values lie token by token, as in a file
  for (size_t i = 0; i < n_tokens; ++i)
    dequantize(type, &plain[i / kPageTokens * page + i % kPageTokens * row],
               &c.numbers[i * size_t(head_dim)], head_dim);
  return c;
}

// What is not finite, or beyond the range of the type, is stored as the scalar table stores it.
void test_exceptional_values(const KvKernels& ours, const KvKernels& theirs) {
  const float x[] = {kNan, kInf, -kInf, 1e30f, -1e30f, 3.4e38f, 65520, -0.0f, 1e-8f};
  Bytes a(ours.page_bytes(9)), b(a.size());
  ours.store_value(a.data(), 0, x, 9);
  theirs.store_value(b.data(), 0, x, 9);
  CHECK(a == b);
}

void test_attention(const KernelTable& t, const KernelTable& scalar, DType type, int32_t head_dim,
                    int32_t n_tokens) {
  const Floats x = normals(int64_t(n_tokens) * head_dim);
  const Cached k = cached(t, scalar, type, true, x, head_dim);
  const Cached v = cached(t, scalar, type, false, normals(int64_t(x.size()), 2), head_dim);
  constexpr int32_t kQueries = 5;
  const Floats q = normals(kQueries * head_dim, 2 / std::sqrt(float(head_dim)));
  const int32_t first[kQueries] = {0, 0, n_tokens / 3, n_tokens - 1, 0};
  const int32_t last[kQueries] = {n_tokens, 1, n_tokens - n_tokens / 4, n_tokens, n_tokens / 2 + 1};
  const float* queries[kQueries];
  float* outs[kQueries];
  Floats together(q.size(), kNan), alone(q.size(), kNan);
  std::vector<int32_t> pages;
  for (int32_t i = 0; i * kPageTokens < n_tokens; ++i) pages.push_back(i);
  const KvKernels* kv = t.find_kv(type);
  const int64_t stride = int64_t(kv->page_bytes(head_dim));
  for (int32_t i = 0; i < kQueries; ++i) {
    queries[i] = q.data() + i * head_dim;
    outs[i] = together.data() + i * head_dim;
    float* out = alone.data() + i * head_dim;
    t.attention({kv, kv, queries + i, &out, first + i, last + i, 1, head_dim, pages.data(),
                 k.pages.data(), v.pages.data(), stride, stride});
  }
  t.attention({kv, kv, queries, outs, first, last, kQueries, head_dim, pages.data(), k.pages.data(),
               v.pages.data(), stride, stride});
  CHECK(same_bits(together, alone));

  for (int32_t i = 0; i < kQueries; ++i) {
    std::vector<double> scores;
    double top = -INFINITY, low = INFINITY, of_scores = 0, total = 0;
    for (int32_t key = first[i]; key < last[i]; ++key) {
      double score = 0, size = 0;
      for (int32_t d = 0; d < head_dim; ++d) {
        const double term = double(queries[i][d]) * k.numbers[size_t(key * head_dim + d)];
        score += term;
        size += std::abs(term);
      }
      scores.push_back(score);
      top = std::max(top, score);
      low = std::min(low, score);
      of_scores = std::max(of_scores, gamma(2.0 * head_dim + 4) * size);
    }
    for (double& s : scores) total += s = std::exp(s - top);
    const double n = double(last[i]);
    const double relative =
        2 * of_scores + 2 * kUnit * (top - low) + gamma(2 * n + 8 * (n / kPageTokens + 1) + 18);
    for (int32_t d = 0; d < head_dim; ++d) {
      double expected = 0, size = 0;
      for (int32_t key = first[i]; key < last[i]; ++key) {
        const double part =
            scores[size_t(key - first[i])] / total * v.numbers[size_t(key * head_dim + d)];
        expected += part;
        size += std::abs(part);
      }
      const double off = std::abs(double(outs[i][d]) - expected);
      CHECK(off <= 2 * relative * size + kSmallestNormal);
    }
  }
}

// --- The probes of the machine's limits do what they say they measure ---

void test_probes(const KernelTable& t) {
  const Buffer operands(kPeakBytes, "operands");
  for (int i = 0; i < kPeakBytes; ++i) operands.as<uint8_t>()[i] = 1;
  float sink = 0;
  // Bytes of one: every product is one, and a multiply and an add are counted as two.
  const double done = t.int_peak(operands.as<uint8_t>(), 4, &sink);
  CHECK(done > 0 && double(sink) * 2 == done);
  for (int i = 0; i < kPeakBytes / 4; ++i) operands.as<float>()[i] = 1;
  const double of_floats = t.float_peak(operands.as<uint8_t>(), 4, &sink);
  CHECK(of_floats > 0 && double(sink) * 2 == of_floats);
  Bytes memory(4096, 0x55);
  t.read_memory(memory.data(), int64_t(memory.size()), &sink);
  CHECK(sink == 0x55);
}

// A kernel that a tier shares with the scalar table is one that is missing.
void test_own_entries(const KernelTable& t, const KernelTable& scalar) {
  CHECK(t.n_types == scalar.n_types && t.n_kv_types == scalar.n_kv_types);
  CHECK(t.attention != scalar.attention && t.rms_norm != scalar.rms_norm);
  CHECK(t.rope_halves != scalar.rope_halves && t.rope_interleaved != scalar.rope_interleaved);
  CHECK(t.swiglu != scalar.swiglu && t.softmax != scalar.softmax && t.argmax != scalar.argmax);
  CHECK(t.add != scalar.add && t.scale != scalar.scale);
  CHECK(t.quantize_q8_32 != scalar.quantize_q8_32 && t.quantize_q8_256 != scalar.quantize_q8_256);
  for (int i = 0; i < t.n_types; ++i)
    CHECK(scalar.find(t.types[i].type) &&
          t.types[i].matmul_rows != scalar.find(t.types[i].type)->matmul_rows);
}

void test_tier(const KernelTable& t, const KernelTable& scalar) {
  if (&t != &scalar) test_own_entries(t, scalar);
  for (int i = 0; i < t.n_types; ++i) {
    const int before = check_failures;
    test_matmul(t, t.types[i]);
    if (check_failures > before)
      std::fprintf(stderr, "in %s of %s\n", traits(t.types[i].type).name, t.name);
  }
  test_quantizers(t, scalar);
  for (int64_t n = 1; n <= 40; ++n) test_elementwise(t, n);
  test_elementwise(t, 255);
  test_exceptional(t);
  for (int64_t n = 2; n <= 40; n += 2) test_rope(t, n);
  test_rope(t, 256);
  for (int i = 0; i < t.n_kv_types; ++i) {
    const DType type = t.kv_types[i].type;
    const bool blocks = t.kv_types[i].head_multiple > 1;
    for (const int32_t head_dim : {32, 64, 96, 256}) test_attention(t, scalar, type, head_dim, 70);
    test_attention(t, scalar, type, 64, 1030);  // beyond two segments
    if (!blocks) test_exceptional_values(t.kv_types[i], *scalar.find_kv(type));
    for (int32_t head_dim = 1; !blocks && head_dim <= 24; ++head_dim)
      test_attention(t, scalar, type, head_dim, 33);
  }
  test_probes(t);
}

}  // namespace

// Prints the tiers of this CPU, best first.
int main() {
  const auto& tiers = available_tiers();
  for (const KernelTable* t : tiers) std::printf("%s\n", t->name);
  for (const KernelTable* t : tiers) {
    const int before = check_failures;
    test_tier(*t, *tiers.back());
    for (const KernelTable* other : tiers)  // the scalar table's multiply-adds are not fused
      if (other->lanes == t->lanes && other != tiers.back() && t != tiers.back())
        test_same_bits(*t, *other);
    if (check_failures > before) std::fprintf(stderr, "%s failed\n", t->name);
  }
  return check_result();
}
