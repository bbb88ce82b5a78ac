// Every op of the Vulkan backend, on every weight type and odd shapes, against plain loops in
// double over the scalar dequantizers, on the tier of shaders that PYLLAMACPP_VK_TIER names. Needs
// a device:
//   vulkan_ops [repeats]      0 repeats: each op once; more: results bitwise the same every time
//   vulkan_ops bandwidth      bytes per second of mat-vec products, beside copies
// Any message of the validation layers (PYLLAMACPP_VK_VALIDATE=1) is a failure.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/vulkan/ops.h"
#include "base/formats.h"
#include "base/half.h"
#include "quant/dequantize.h"

namespace pyllamacpp::vk {
namespace {

int failures = 0;
int repeats = 1;
std::mt19937 rng(1);

float uniform(float low, float high) { return low + (high - low) * float(rng() >> 8) * 0x1p-24f; }

std::vector<float> random_floats(size_t n) {
  std::vector<float> v(n);
  for (float& x : v) x = uniform(-1, 1);
  return v;
}

// Calls f with the block, a struct, of a quantized type.
template <class F>
void with_block(DType type, std::byte* data, F&& f) {
  const auto with = [&]<class Block>(Block block) {
    std::memcpy(&block, data, sizeof(Block));
    f(block);
    std::memcpy(data, &block, sizeof(Block));
  };
  switch (type) {
    case DType::q4_0:
      return with(BlockQ4_0{});
    case DType::q4_1:
      return with(BlockQ4_1{});
    case DType::q5_0:
      return with(BlockQ5_0{});
    case DType::q5_1:
      return with(BlockQ5_1{});
    case DType::q8_0:
      return with(BlockQ8_0{});
    case DType::q2_k:
      return with(BlockQ2_K{});
    case DType::q3_k:
      return with(BlockQ3_K{});
    case DType::q4_k:
      return with(BlockQ4_K{});
    case DType::q5_k:
      return with(BlockQ5_K{});
    case DType::q6_k:
      return with(BlockQ6_K{});
    case DType::iq4_nl:
      return with(BlockIQ4_NL{});
    default:
      return with(BlockIQ4_XS{});
  }
}

bool is_quantized(DType type) { return find_layout(type)->low_bits <= 8; }

struct HostMatrix {
  WeightSource source;
  std::vector<std::byte> data;
  std::vector<float> values;  // [rows][cols], as the scalar dequantizer has them
  std::vector<float> sizes;   // |scale * code| + |offset| of each is at most this
};

HostMatrix random_matrix(DType type, int64_t rows, int64_t cols) {
  HostMatrix m;
  m.data.resize(bytes_of(type, uint64_t(rows * cols)));
  m.source = {type, rows, cols, m.data};
  std::vector<std::byte> offsets = m.data;  // the same blocks, all codes of those with offsets 0
  const size_t block_bytes = traits(type).block_bytes;
  for (size_t at = 0; at < m.data.size(); at += block_bytes) {
    std::byte* b = m.data.data() + at;
    for (size_t i = 0; i < block_bytes; ++i) b[i] = std::byte(rng() >> 24);
    const float value = uniform(-1, 1);
    const uint16_t half = float_to_half(value), bfloat = float_to_bfloat(value);
    if (!is_quantized(type)) {
      if (type == DType::f32)
        std::memcpy(b, &value, 4);
      else
        std::memcpy(b, type == DType::f16 ? &half : &bfloat, 2);
      continue;
    }
    with_block(type, b, [](auto& block) {  // its scales are finite
      block.d = float_to_half(uniform(-0.1f, 0.1f));
      if constexpr (requires { block.m; }) block.m = float_to_half(uniform(-0.1f, 0.1f));
      if constexpr (requires { block.dmin; }) block.dmin = float_to_half(uniform(-0.1f, 0.1f));
    });
    std::copy_n(b, block_bytes, offsets.data() + at);
    with_block(type, offsets.data() + at, [](auto& block) {
      if constexpr (requires { block.m; } || requires { block.dmin; }) {
        std::memset(block.q, 0, sizeof(block.q));
        if constexpr (requires { block.high; }) std::memset(block.high, 0, sizeof(block.high));
      } else {
        block.d = 0;
      }
    });
  }
  m.values.resize(size_t(rows * cols));
  dequantize(type, m.data.data(), m.values.data(), rows * cols);
  m.sizes.resize(m.values.size());
  if (is_quantized(type)) dequantize(type, offsets.data(), m.sizes.data(), rows * cols);
  for (size_t i = 0; i < m.sizes.size(); ++i)
    m.sizes[i] = std::abs(m.values[i]) + 2 * std::abs(m.sizes[i]);
  return m;
}

class Bench {
 public:
  explicit Bench(const PhysicalDevice& physical)
      : device(physical), arena(device, "test"), ops(device) {}

  Slice put(const void* data, size_t n_bytes) {
    const Slice slice = arena.take(n_bytes);
    ops.encoder.begin(n_bytes + 16, 0);
    std::memcpy(ops.encoder.upload(slice), data, n_bytes);
    ops.encoder.finish();
    return slice;
  }
  template <class T>
  Slice put(const std::vector<T>& v) {
    return put(v.data(), v.size() * sizeof(T));
  }
  // Rows of n values, zeros behind them.
  Rows put_rows(const std::vector<float>& values, int64_t n) {
    const int64_t stride = padded(n), n_rows = int64_t(values.size()) / n;
    std::vector<float> wide(size_t(n_rows * stride));
    for (int64_t r = 0; r < n_rows; ++r)
      std::copy_n(&values[size_t(r * n)], n, &wide[size_t(r * stride)]);
    return {put(wide), uint32_t(stride)};
  }
  // The same with codes, where the tier has any.
  Rows put_x(const std::vector<float>& values, int64_t n) {
    Rows rows = put_rows(values, n);
    if (!device.uses_integer_dot()) return rows;
    rows.codes = arena.take(rows.data.size / 32 * kCodeWords);
    ops.encoder.begin(0, 0);
    ops.quantize(rows, uint32_t(int64_t(values.size()) / n));
    ops.encoder.finish();
    return rows;
  }
  std::vector<float> get_rows(const Rows& rows, int64_t n_rows, int64_t n) {
    ops.encoder.begin(0, rows.data.size);
    const float* wide = static_cast<const float*>(ops.encoder.read(rows.data));
    ops.encoder.finish();
    std::vector<float> values;
    for (int64_t r = 0; r < n_rows; ++r)
      values.insert(values.end(), wide + r * rows.stride, wide + r * rows.stride + n);
    return values;
  }
  // `panels_per_part`: as small limits of a device would have it.
  DeviceMatrix put_matrix(const HostMatrix& m, int64_t panels_per_part = 1 << 20) {
    DeviceMatrix out;
    out.layout = find_layout(m.source.type);
    out.rows = m.source.rows;
    out.cols = m.source.cols;
    const size_t bytes = panel_bytes(*out.layout, out.cols);
    const int64_t step = panels_per_part * kPanelRows;
    for (int64_t row = 0; row < out.rows; row += step) {
      const int64_t n = std::min(step, out.rows - row);
      std::vector<uint32_t> panels(size_t((n + kPanelRows - 1) / kPanelRows) * bytes / 4);
      for (int64_t i = 0; i * kPanelRows < n; ++i)
        pack_panel(*out.layout, m.source, row + i * kPanelRows, &panels[size_t(i) * bytes / 4]);
      out.parts.push_back({put(panels), row, n});
    }
    return out;
  }

  Device device;
  DeviceArena arena;
  Ops ops;
};

void expect(bool ok, const std::string& what, double found, double wanted) {
  if (ok) return;
  if (++failures % 50 == 1)
    std::printf("FAILED %s: %.9g, expected %.9g\n", what.c_str(), found, wanted);
}

// What the codes of x stand for, after a look at each block: bytes within half a step of x, and
// their sums. A block with a value that is not finite has a scale that is no number.
std::vector<double> coded_values(Bench& bench, const Rows& rows, const std::vector<float>& x,
                                 int64_t n) {
  bench.ops.encoder.begin(0, rows.codes.size);
  const uint32_t* words = static_cast<const uint32_t*>(bench.ops.encoder.read(rows.codes));
  bench.ops.encoder.finish();
  std::vector<double> values;
  for (size_t row = 0; row < x.size() / size_t(n); ++row)
    for (int64_t first = 0; first < int64_t(rows.stride); first += 32, words += kCodeWords) {
      float values_in[32] = {}, peak = 0;
      bool finite = true;
      for (int64_t i = 0; i < std::min<int64_t>(32, n - first); ++i) {
        values_in[i] = x[row * size_t(n) + size_t(first + i)];
        finite = finite && std::isfinite(values_in[i]);
        peak = std::max(peak, std::abs(values_in[i]));
      }
      float scale;
      std::memcpy(&scale, words + 8, 4);
      int sums[2] = {};
      for (int64_t i = 0; i < 32; ++i) {
        const int q = int8_t(words[i / 4] >> (8 * (i % 4)));
        sums[i / 16] += q;
        if (first + i < n) values.push_back(double(scale) * q);
        if (!finite) continue;
        // Half a step, and the roundings of two divisions (2.5 units each) and a product.
        const double most = double(scale) * (0.5 + 127 * 6 * 0x1p-23) + 1e-36;
        expect(std::abs(double(scale) * q - double(values_in[i])) <= most, "code",
               double(scale) * q, double(values_in[i]));
        expect(std::abs(q) <= 127, "code", q, 127);
      }
      for (int i = 0; i < 2; ++i)
        expect(int16_t(words[9] >> (16 * i)) == sums[i], "sum of codes",
               int16_t(words[9] >> (16 * i)), sums[i]);
      if (!finite)
        expect(std::isnan(scale), "scale", double(scale), NAN);
      else
        expect(std::abs(double(scale) * 127 - double(peak)) <= double(peak) * 0x1p-21 + 1e-36,
               "scale", double(scale), double(peak) / 127);
    }
  return values;
}

void test_quantize(Bench& bench) {
  if (!bench.device.uses_integer_dot()) return;
  for (const int64_t n : {1, 31, 64, 333, 2080})
    for (const int64_t n_rows : {1, 5}) {
      std::vector<float> x = random_floats(size_t(n * n_rows));
      // Blocks of one row: zeros, what is nearly so, large ones, ties, and what is not finite.
      if (n == 2080) {
        std::fill_n(x.begin(), 32, 0.0f);
        for (int i = 0; i < 32; ++i) {
          x[size_t(32 + i)] *= 1e-38f;
          x[size_t(64 + i)] *= 3e38f;
          x[size_t(96 + i)] = float(i) - 0.5f;
        }
        x[96] = 127;
        x[130] = INFINITY;
        x[165] = -INFINITY;
        x[200] = NAN;
      }
      coded_values(bench, bench.put_x(x, n), x, n);
    }
  std::printf("quantize\n");
}

// The same dot products as the device's: each within the rounding of a sum of n products. By
// integer dot products it is that of at most six roundings of a block, two of the weights here, and
// of the sum over blocks.
std::vector<float> product(Bench& bench, const HostMatrix& m, const DeviceMatrix& w,
                           const std::vector<float>& x, int64_t n_cols, bool accumulate) {
  const std::string what = std::string(traits(m.source.type).name) + " " + std::to_string(w.rows) +
                           " x " + std::to_string(w.cols) + " x " + std::to_string(n_cols);
  const Rows in = bench.put_x(x, w.cols);
  const bool by_codes = in.codes.size > 0 && is_quantized(m.source.type);
  const std::vector<double> taken =
      by_codes ? coded_values(bench, in, x, w.cols) : std::vector<double>(x.begin(), x.end());
  const std::vector<float> before = random_floats(size_t(n_cols * w.rows));
  std::vector<float> found;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const Rows out = bench.put_rows(before, w.rows);
    bench.ops.encoder.begin(0, 0);
    bench.ops.matmul(w, in, out, uint32_t(n_cols), accumulate);
    bench.ops.encoder.finish();
    const std::vector<float> again = bench.get_rows(out, n_cols, w.rows);
    if (repeat > 0) expect(again == found, what + " again", 0, 0);
    found = again;
  }
  for (int64_t c = 0; c < n_cols; ++c)
    for (int64_t r = 0; r < w.rows; ++r) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < w.cols; ++k) {
        const size_t i = size_t(r * w.cols + k);
        const double value = taken[size_t(c * w.cols + k)];
        sum += double(m.values[i]) * value;
        size += double(by_codes ? m.sizes[i] : std::abs(m.values[i])) * std::abs(value);
      }
      const size_t at = size_t(c * w.rows + r);
      if (accumulate) {
        sum += double(before[at]);
        size += std::abs(double(before[at]));
      }
      const int64_t in_segment = by_codes ? 8 + 8 : std::min<int64_t>(w.cols, 256);
      const double most = size * 0x1p-24 * double(in_segment + w.cols / 256 + 3);
      expect(std::abs(double(found[at]) - sum) <= most, what, double(found[at]), sum);
    }
  return found;
}

constexpr DType kTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0,   DType::q4_1,
                            DType::q5_0, DType::q5_1, DType::q8_0, DType::q2_k,   DType::q3_k,
                            DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_nl, DType::iq4_xs};

void test_products(Bench& bench) {
  for (const DType type : kTypes) {
    const int64_t block = traits(type).block_size;
    const int before = failures;
    // Columns: one block, an odd number of them (several in each segment of 256), more segments
    // than workers.
    const int64_t odd = block == 1 ? 333 : block == 32 ? 11 * 32 : 9 * block;
    for (const int64_t cols : {block, odd, 4608 / block * block})
      for (const int64_t rows : {1, 33, 150}) {
        const HostMatrix m = random_matrix(type, rows, cols);
        const DeviceMatrix w = bench.put_matrix(m, rows == 150 ? 2 : 1 << 20);
        for (const int64_t n_cols : {1, 2, 3, 7, 9, 70}) {
          if (cols > 4000 && (n_cols == 70 || rows == 150)) continue;  // slow in software
          const std::vector<float> x = random_floats(size_t(n_cols * cols));
          const std::vector<float> y = product(bench, m, w, x, n_cols, n_cols == 3);
          if (n_cols != 70) continue;
          // The same bits, alone and in a batch.
          const std::vector<float> last(x.end() - cols, x.end());
          const std::vector<float> alone = product(bench, m, w, last, 1, false);
          expect(std::equal(alone.begin(), alone.end(), y.end() - rows), "alone", 0, 0);
        }
        // A column that is 1 at one place gives the weights there: exactly, unless 1 is 127 steps.
        std::vector<float> units(size_t(8 * cols));
        for (int64_t c = 0; c < 8; ++c) units[size_t(c * cols + c * cols / 8)] = 1;
        const std::vector<float> y = product(bench, m, w, units, 8, false);
        if (bench.device.uses_integer_dot() && is_quantized(type)) continue;
        for (int64_t c = 0; c < 8; ++c)
          for (int64_t r = 0; r < rows; ++r) {
            const float wanted = m.values[size_t(r * cols + c * cols / 8)];
            const float found = y[size_t(c * rows + r)];
            expect(found == wanted, std::string("weight of ") + traits(type).name, double(found),
                   double(wanted));
          }
      }
    std::printf("%s: %s\n", traits(type).name, failures == before ? "ok" : "FAILED");
    std::fflush(stdout);
  }
}

// Products by cooperative matrices have the bits of those by integer dot products, also where a
// shape's k is a whole block, as on devices that this test may not have.
void test_cooperative(const PhysicalDevice& physical) {
  if (!physical.uses_cooperative) return;
  PhysicalDevice by_dot = physical, whole_blocks = physical;
  by_dot.uses_cooperative = false;
  whole_blocks.cooperative.span = 32;
  Bench benches[] = {Bench(by_dot), Bench(physical), Bench(whole_blocks)};
  for (const DType type : kTypes) {
    if (!is_quantized(type)) continue;
    const int64_t block = traits(type).block_size;
    for (const int64_t cols : {block, block == 32 ? 11 * 32 : 3 * block})
      for (const int64_t rows : {1, 65, 150}) {
        const HostMatrix m = random_matrix(type, rows, cols);
        for (const int64_t n_cols : {9, 64, 131}) {
          const std::vector<float> x = random_floats(size_t(n_cols * cols));
          const std::vector<float> before = random_floats(size_t(n_cols * rows));
          std::vector<float> expected;
          for (Bench& bench : benches) {
            const DeviceMatrix w = bench.put_matrix(m, 3);
            const Rows in = bench.put_x(x, cols), out = bench.put_rows(before, rows);
            bench.ops.encoder.begin(0, 0);
            bench.ops.matmul(w, in, out, uint32_t(n_cols), n_cols == 64);
            bench.ops.encoder.finish();
            const std::vector<float> found = bench.get_rows(out, n_cols, rows);
            if (expected.empty()) expected = found;
            for (size_t i = 0; i < found.size(); ++i)
              expect(found[i] == expected[i], std::string("cooperative ") + traits(type).name,
                     double(found[i]), double(expected[i]));
          }
        }
      }
  }
  const CooperativeShape& shape = physical.cooperative;
  std::printf("bits of integer_dot by matrices of %u x %u x %u\n", shape.m, shape.n, shape.k);
}

void test_elementwise(Bench& bench) {
  for (const int64_t n : {1, 64, 333, 4096})
    for (const int64_t n_rows : {1, 5}) {
      const std::vector<float> x = random_floats(size_t(n * n_rows));
      const std::vector<float> weight = random_floats(size_t(n));
      const Rows in = bench.put_rows(x, n), out = bench.put_rows(x, n);
      std::vector<uint32_t> source(size_t(n_rows) + 1);
      for (int64_t r = 0; r < n_rows; ++r) source[size_t(r) + 1] = uint32_t(n_rows - 1 - r);
      const Slice list = bench.put(source), w = bench.put(weight);
      bench.ops.encoder.begin(0, 0);
      bench.ops.rms_norm(in, w, out, uint32_t(n_rows), uint32_t(n), 1e-5f, list, 1);
      bench.ops.encoder.finish();
      const std::vector<float> normed = bench.get_rows(out, n_rows, n);
      for (int64_t r = 0; r < n_rows; ++r) {
        const float* from = &x[size_t((n_rows - 1 - r) * n)];
        double sum = 0;
        for (int64_t k = 0; k < n; ++k) sum += double(from[k]) * double(from[k]);
        const double scale = 1 / std::sqrt(sum / double(n) + 1e-5);
        for (int64_t k = 0; k < n; ++k) {
          const double wanted = double(from[k]) * scale * double(weight[size_t(k)]);
          const double found = double(normed[size_t(r * n + k)]);
          expect(std::abs(found - wanted) <= 2e-6 * std::abs(wanted) + 1e-30, "rms_norm", found,
                 wanted);
        }
      }
      const std::vector<float> up = random_floats(x.size());
      const Rows gate = bench.put_rows(x, n), other = bench.put_rows(up, n);
      bench.ops.encoder.begin(0, 0);
      bench.ops.swiglu(gate, other, uint32_t(n_rows), uint32_t(n));
      bench.ops.add_bias(other, w, uint32_t(n_rows), uint32_t(n));
      bench.ops.encoder.finish();
      const std::vector<float> hidden = bench.get_rows(gate, n_rows, n);
      const std::vector<float> biased = bench.get_rows(other, n_rows, n);
      for (size_t i = 0; i < x.size(); ++i) {
        const double g = double(x[i]), wanted = g / (1 + std::exp(-g)) * double(up[i]);
        expect(std::abs(double(hidden[i]) - wanted) <= 2e-6 * std::abs(wanted) + 1e-30, "swiglu",
               double(hidden[i]), wanted);
        const float sum = up[i] + weight[i % size_t(n)];
        expect(biased[i] == sum, "add_bias", double(biased[i]), double(sum));
      }
    }
  std::printf("rms_norm, swiglu, add_bias\n");
}

// What a side of the cache holds for a token of a head, by the words of shaders/kv.glsl.
std::vector<float> stored(const std::vector<uint32_t>& words, bool keys, DType type, int64_t page,
                          int32_t offset, int32_t n_heads, int32_t head, int32_t head_dim) {
  const size_t n = kv_token_words(type, head_dim);
  const uint32_t* of_head = &words[size_t(page * n_heads + head) * 32 * n];
  const auto word = [&](size_t j) {
    return keys ? of_head[j * 32 + size_t(offset)] : of_head[size_t(offset) * n + j];
  };
  std::vector<float> values;
  for (size_t d = 0; d < size_t(head_dim); ++d) {
    if (type == DType::f16) {
      values.push_back(half_to_float(uint16_t(word(d / 2) >> (16 * (d % 2)))));
      continue;
    }
    const size_t bits = type == DType::q8_0 ? 8 : 4, per_word = 32 / bits;
    const uint32_t code = word(d / per_word) >> (bits * (d % per_word));
    const uint32_t scales = word(size_t(head_dim) / per_word + d / 64);
    const float scale = half_to_float(uint16_t(scales >> (16 * (d / 32 % 2))));
    values.push_back(scale * float(bits == 8 ? int8_t(code) : int(code & 15) - 8));
  }
  return values;
}

// Whether it is what the type makes of x: within the rounding of halves, or half a step of a block.
void expect_stored(const std::vector<float>& found, const float* x, DType type) {
  const std::string what = std::string("stored as ") + traits(type).name;
  for (size_t d = 0; d < found.size(); ++d) {
    const double wanted = double(x[d]);
    if (type == DType::f16) {
      const double most = std::abs(wanted) * 0x1p-10 + 0x1p-24;
      expect(std::abs(double(found[d]) - wanted) <= most, what, double(found[d]), wanted);
      continue;
    }
    double peak = 0;
    for (size_t i = d / 32 * 32; i < d / 32 * 32 + 32; ++i)
      if (std::abs(double(x[i])) > std::abs(peak)) peak = double(x[i]);
    const double step = type == DType::q8_0 ? std::abs(peak) / 127 : peak / -8;
    if (step == 0) {
      expect(found[d] == 0, what, double(found[d]), 0);
      continue;
    }
    // In steps, which are themselves rounded to halves. Codes of 4 bits end at 7.
    const double steps = std::min(wanted / step, type == DType::q8_0 ? 127.0 : 7.0);
    const double most = 0.501 + std::abs(steps) * 0x1p-10 + 0x1p-24 / std::abs(step) * 127;
    expect(std::abs(double(found[d]) / step - steps) <= most, what, double(found[d]), wanted);
  }
}

// Heads of a batch of two sequences, the second of one row, behind keys that are there already.
void test_attention(Bench& bench, RopeLayout layout, int32_t head_dim, int32_t rope_dims,
                    int32_t n_heads, int32_t n_kv_heads, int32_t window, int32_t heads_per_part,
                    DType type_k = DType::f16, DType type_v = DType::f16) {
  AttentionShape shape{n_heads, n_kv_heads, head_dim, rope_dims, layout, {}, 1, window, 1e-5f};
  const int32_t lengths[] = {300, 161};  // tokens of each sequence in the end
  const int32_t n_pages = 16, q_dim = n_heads * head_dim, kv_dim = n_kv_heads * head_dim;
  std::vector<int32_t> page_order(n_pages);
  for (int32_t i = 0; i < n_pages; ++i) page_order[size_t(i)] = (i * 7 + 3) % n_pages;
  DeviceKv kv;
  kv.type_k = type_k;
  kv.type_v = type_v;
  for (int32_t h = 0; h < n_kv_heads; h += heads_per_part) {
    const int32_t n = std::min(heads_per_part, n_kv_heads - h);
    const auto memory = [&](DType type) {
      const uint64_t words = uint64_t(n_pages) * uint64_t(n) * 32 * kv_token_words(type, head_dim);
      return Memory(bench.device, words * sizeof(uint32_t), Memory::Kind::device, "test");
    };
    kv.parts.push_back({memory(type_k), memory(type_v), h, n});
  }
  std::vector<float> all_k[2], all_v[2];  // as they are to be stored: keys rotated
  std::vector<float> attended;
  std::vector<float> q_rotated;  // of the last batch
  struct Row {
    int32_t sequence, position;
  };
  std::vector<Row> batch;
  const int32_t first_page[] = {0, (lengths[0] + 31) / 32};
  for (int round = 0; round < 2; ++round) {
    batch.clear();
    for (int32_t s = 0; s < 2; ++s) {
      const int32_t last = lengths[s] - (s == 0 ? 3 : 1);
      for (int32_t p = round == 0 ? 0 : last; p < (round == 0 ? last : lengths[s]); ++p)
        batch.push_back({s, p});
    }
    const size_t n_rows = batch.size();
    std::vector<float> q = random_floats(n_rows * size_t(q_dim));
    for (float& x : q) x *= 8;  // so that a few keys matter
    const std::vector<float> k = random_floats(n_rows * size_t(kv_dim));
    std::vector<float> v = random_floats(n_rows * size_t(kv_dim));
    std::fill_n(v.begin(), std::min<size_t>(32, size_t(head_dim)), 0.0f);  // a block of zeros
    std::vector<float> rope(n_rows * size_t(rope_dims));
    std::vector<uint32_t> slots, rows;
    for (size_t r = 0; r < n_rows; ++r) {
      const auto [s, p] = batch[r];
      for (int32_t i = 0; i < rope_dims / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / rope_dims);
        rope[r * size_t(rope_dims) + size_t(i)] = float(std::cos(angle));
        rope[r * size_t(rope_dims) + size_t(rope_dims / 2 + i)] = float(std::sin(angle));
      }
      slots.push_back(uint32_t(page_order[size_t(first_page[s] + p / 32)] * 32 + p % 32));
      const int32_t first = window > 0 && p + 1 > window ? p + 1 - window : 0;
      rows.insert(rows.end(), {uint32_t(first_page[s]), uint32_t(first), uint32_t(p + 1), 0});
    }
    const auto rotate = [&](const std::vector<float>& x, int32_t heads) {
      std::vector<float> out = x;
      for (size_t r = 0; r < n_rows; ++r)
        for (int32_t h = 0; h < heads; ++h)
          for (int32_t i = 0; i < rope_dims / 2; ++i) {
            const bool halves = layout == RopeLayout::halves;
            const size_t base = (r * size_t(heads) + size_t(h)) * size_t(head_dim);
            const size_t a = base + size_t(halves ? i : 2 * i);
            const size_t b = base + size_t(halves ? i + rope_dims / 2 : 2 * i + 1);
            const double c = double(rope[r * size_t(rope_dims) + size_t(i)]);
            const double n = double(rope[r * size_t(rope_dims) + size_t(rope_dims / 2 + i)]);
            out[a] = float(double(x[a]) * c - double(x[b]) * n);
            out[b] = float(double(x[a]) * n + double(x[b]) * c);
          }
      return out;
    };
    q_rotated = rotate(q, n_heads);
    const std::vector<float> k_rotated = rotate(k, n_kv_heads);
    for (size_t r = 0; r < n_rows; ++r) {
      auto& to_k = all_k[batch[r].sequence];
      auto& to_v = all_v[batch[r].sequence];
      to_k.insert(to_k.end(), &k_rotated[r * size_t(kv_dim)],
                  &k_rotated[r * size_t(kv_dim)] + kv_dim);
      to_v.insert(to_v.end(), &v[r * size_t(kv_dim)], &v[r * size_t(kv_dim)] + kv_dim);
    }
    const Rows rq = bench.put_rows(q, q_dim), rotated = bench.put_rows(q, q_dim);
    const Rows out = bench.put_rows(q, q_dim);
    const Rows rk = bench.put_rows(k, kv_dim), rv = bench.put_rows(v, kv_dim);
    std::vector<uint32_t> pages(page_order.begin(), page_order.end());
    const Ops::Positions positions{bench.put(rope), bench.put(slots), bench.put(rows),
                                   bench.put(pages), uint32_t(n_rows)};
    for (int repeat = 0; repeat < repeats; ++repeat) {
      bench.ops.encoder.begin(0, 0);
      bench.ops.rope_store(shape, positions, rq, rk, rv, rotated, kv);
      bench.ops.attention(shape, positions, rotated, kv, out);
      bench.ops.encoder.finish();
      const std::vector<float> again = bench.get_rows(out, int64_t(n_rows), q_dim);
      if (repeat > 0) expect(again == attended, "attention again", 0, 0);
      attended = again;
    }
  }
  // From here on what is really in the cache.
  for (const DeviceKv::Part& part : kv.parts) {
    const auto words_of = [&](const Memory& side) {
      std::vector<uint32_t> words(side.size() / sizeof(uint32_t));
      bench.ops.encoder.begin(0, side.size());
      const void* from = bench.ops.encoder.read(side.all());
      bench.ops.encoder.finish();
      std::memcpy(words.data(), from, side.size());
      return words;
    };
    const std::vector<uint32_t> k_words = words_of(part.k), v_words = words_of(part.v);
    for (int32_t s = 0; s < 2; ++s)
      for (int32_t p = 0; p < lengths[s]; ++p)
        for (int32_t h = 0; h < part.n_heads; ++h) {
          const int64_t page = page_order[size_t(first_page[s] + p / 32)];
          const auto take = [&](std::vector<float>& all, bool keys, DType type) {
            float* x = &all[size_t(p) * size_t(kv_dim) + size_t((part.first_head + h) * head_dim)];
            const std::vector<float> found = stored(keys ? k_words : v_words, keys, type, page,
                                                    p % 32, part.n_heads, h, head_dim);
            expect_stored(found, x, type);
            std::copy(found.begin(), found.end(), x);
          };
          take(all_k[s], true, type_k);
          take(all_v[s], false, type_v);
        }
  }
  for (size_t r = 0; r < batch.size(); ++r)
    for (int32_t h = 0; h < n_heads; ++h) {
      const auto [s, p] = batch[r];
      const size_t kv_at = size_t(h / (n_heads / n_kv_heads) * head_dim);
      const size_t q_at = r * size_t(q_dim) + size_t(h * head_dim);
      const int32_t first = window > 0 && p + 1 > window ? p + 1 - window : 0;
      std::vector<double> sum(size_t(head_dim), 0.0);
      double total = 0, largest = 0;
      for (int32_t key = first; key <= p; ++key) {
        double dot = 0, size = 0;
        for (int32_t d = 0; d < head_dim; ++d) {
          const double product = double(q_rotated[q_at + size_t(d)]) *
                                 double(all_k[s][size_t(key) * size_t(kv_dim) + kv_at + size_t(d)]);
          dot += product;
          size += std::abs(product);
        }
        largest = std::max(largest, size / std::sqrt(double(head_dim)));
        const double weight = std::exp(dot / std::sqrt(double(head_dim)));
        total += weight;
        for (int32_t d = 0; d < head_dim; ++d)
          sum[size_t(d)] +=
              weight * double(all_v[s][size_t(key) * size_t(kv_dim) + kv_at + size_t(d)]);
      }
      // A score is off by the rounding of a sum of head_dim products, and of the query's rotation:
      // weights by twice that, and values are below 1.
      const double most = 2 * largest * 0x1p-24 * (head_dim + 8) + 1e-5;
      for (int32_t d = 0; d < head_dim; ++d) {
        const double wanted = sum[size_t(d)] / total, found = double(attended[q_at + size_t(d)]);
        expect(std::abs(found - wanted) <= most,
               std::string("attention over ") + traits(type_k).name + ", " + traits(type_v).name +
                   ", heads of " + std::to_string(head_dim) + ", window " + std::to_string(window),
               found, wanted);
      }
    }
}

void test_attention(Bench& bench) {
  test_attention(bench, RopeLayout::interleaved, 64, 64, 9, 3, 0, 3);
  test_attention(bench, RopeLayout::halves, 128, 128, 4, 4, 0, 1);
  test_attention(bench, RopeLayout::halves, 80, 32, 4, 1, 100, 1);
  test_attention(bench, RopeLayout::interleaved, 256, 128, 2, 2, 1, 2);
  test_attention(bench, RopeLayout::interleaved, 256, 128, 2, 2, 0, 2);
  test_attention(bench, RopeLayout::interleaved, 256, 256, 2, 2, 200, 2);
  test_attention(bench, RopeLayout::interleaved, 64, 64, 2, 2, 1, 2);
  test_attention(bench, RopeLayout::interleaved, 256, 128, 2, 2, 1, 2);
  for (const DType k : {DType::f16, DType::q8_0, DType::q4_0})
    for (const DType v : {DType::f16, DType::q8_0, DType::q4_0}) {
      if (k == DType::f16 && v == DType::f16) continue;
      test_attention(bench, RopeLayout::halves, 128, 128, 4, 2, 0, 1, k, v);
      // An odd number of blocks, and half of the dimensions rotated.
      test_attention(bench, RopeLayout::interleaved, 96, 48, 6, 3, 100, 2, k, v);
      test_attention(bench, RopeLayout::halves, 32, 32, 3, 1, 0, 1, k, v);
      test_attention(bench, RopeLayout::interleaved, 256, 256, 2, 1, 0, 1, k, v);
    }
  std::printf("rope_store, store_blocks, attention\n");
}

// Bytes of weights per second of decoding, beside a copy's bytes (read and written).
void measure_bandwidth(Bench& bench) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [&](auto&& record) {
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
      bench.ops.encoder.begin(0, 0);
      const auto start = Clock::now();
      record();
      bench.ops.encoder.finish();
      best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
    return best;
  };
  constexpr int kTimes = 20;
  const uint64_t size = std::min<uint64_t>(bench.device.max_slice(), uint64_t{1} << 30);
  const Memory a(bench.device, size, Memory::Kind::device, "copy");
  const Memory b(bench.device, size, Memory::Kind::device, "copy");
  const double copy = seconds([&] {
    for (int i = 0; i < kTimes; ++i) bench.ops.encoder.copy(a.all(), b.all());
  });
  const double copy_rate = 2.0 * double(size) * kTimes / copy;
  std::printf("copy: %.0f GB/s read and written\n", copy_rate * 1e-9);
  const double nothing = seconds([&] {
    for (int i = 0; i < 1000; ++i) bench.ops.encoder.copy(a.slice(0, 256), b.slice(0, 256));
  });
  std::printf("barrier and smallest copy: %.1f us\n", nothing * 1e3);
  constexpr int64_t kCols = 4096, kMatrices = 4;
  for (const DType type : kTypes) {
    const WeightLayout& layout = *find_layout(type);
    for (const int64_t rows : {int64_t{4096}, int64_t{11008}, int64_t{128256}}) {
      // Beyond the caches: several matrices in turn.
      std::vector<DeviceMatrix> matrices;
      const uint64_t bytes = uint64_t(rows / kPanelRows) * panel_bytes(layout, kCols);
      const int64_t n = rows > 100000 ? 1 : kMatrices * 4;
      if (bytes > bench.device.max_slice()) continue;
      std::vector<Memory> memory;
      for (int64_t i = 0; i < n; ++i) {
        memory.emplace_back(bench.device, bytes, Memory::Kind::device, "weights");
        bench.ops.encoder.begin(0, 0);
        bench.ops.encoder.zero(memory.back().all());
        bench.ops.encoder.finish();
        matrices.push_back({&layout, rows, kCols, {{memory.back().all(), 0, rows}}});
      }
      for (const uint32_t n_cols : {1u, 4u, 512u}) {
        if (n_cols == 512 && rows != 11008) continue;
        const Rows x = bench.put_x(std::vector<float>(n_cols * kCols, 1.0f), kCols);
        const Rows y = bench.put_rows(std::vector<float>(size_t(n_cols) * size_t(rows)), rows);
        const int times = n_cols == 512 ? 1 : kTimes;
        const double time = seconds([&] {
          for (int i = 0; i < times; ++i)
            for (const DeviceMatrix& m : matrices) bench.ops.matmul(m, x, y, n_cols);
        });
        const double products = double(times) * double(matrices.size());
        if (n_cols == 512)
          std::printf("%-7s %6lld rows, 512 columns: %.2f TFLOP/s\n", traits(type).name,
                      (long long)rows, 2e-12 * double(rows * kCols) * n_cols * products / time);
        else
          std::printf("%-7s %6lld rows, %u columns: %6.1f us, %5.0f GB/s, %3.0f%% of copy\n",
                      traits(type).name, (long long)rows, n_cols, time / products * 1e6,
                      double(bytes) * products / time * 1e-9,
                      100 * double(bytes) * products / time / copy_rate);
      }
      std::fflush(stdout);
    }
  }
}

int run(int argc, char** argv) {
  const std::vector<PhysicalDevice> devices = physical_devices();
  if (devices.empty()) {
    std::printf("no GPU\n");
    return 77;
  }
  Bench bench(devices[0]);
  std::printf("%s, %s, tier %s\n", bench.device.info().name.c_str(),
              bench.device.info().driver.c_str(), bench.device.info().tier.c_str());
  if (argc > 1 && std::strcmp(argv[1], "bandwidth") == 0) {
    measure_bandwidth(bench);
    return 0;
  }
  if (argc > 1) repeats = std::max(1, std::atoi(argv[1]));
  test_elementwise(bench);
  test_attention(bench);
  test_quantize(bench);
  test_products(bench);
  test_cooperative(devices[0]);
  for (const std::string& message : take_gpu_messages()) {
    std::printf("VALIDATION %s\n", message.c_str());
    ++failures;
  }
  std::printf("%d failures\n", failures);
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace pyllamacpp::vk

int main(int argc, char** argv) { return pyllamacpp::vk::run(argc, argv); }
