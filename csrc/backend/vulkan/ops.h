// The ops of the shaders, one function each: they check nothing and record into an encoder.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/vulkan/encoder.h"
#include "backend/vulkan/weight_layout.h"

namespace pyllamacpp::vk {

// A matrix in device memory: whole panels of rows, in as many parts as the device's limits need.
struct DeviceMatrix {
  struct Part {
    Slice data;
    int64_t first_row, n_rows;
  };
  const WeightLayout* layout = nullptr;
  int64_t rows = 0, cols = 0;
  std::vector<Part> parts;
};

// Rows of floats in device memory. The stride is a multiple of 32, and what lies behind a row's
// values is zero: products read whole blocks of 32.
struct Rows {
  Slice data;
  uint32_t stride = 0;
  Slice codes{};  // where quantize() puts their bytes, if it is to
};

inline int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }

// Words of the codes of 32 values, see shaders/integer_dot.glsl.
inline constexpr uint32_t kCodeWords = 12;

// Keys or values of one layer, in parts of whole KV heads; shaders/attention.comp has the layout.
struct DeviceKv {
  struct Part {
    Memory k, v;
    int32_t first_head, n_heads;
  };
  DType type_k = DType::f16, type_v = DType::f16;  // f16, q8_0 or q4_0
  std::vector<Part> parts;
};

// Words of a token of one head, of keys or of values; shaders/kv.glsl has their layout.
constexpr uint32_t kv_token_words(DType type, int32_t head_dim) {
  const uint32_t n = uint32_t(head_dim);
  return type == DType::f16 ? n / 2 : n / (type == DType::q8_0 ? 4 : 8) + (n / 32 + 1) / 2;
}

class Ops {
 public:
  explicit Ops(Device& device) : device_(device), encoder(device) {}

  // Makes bytes of the first n_rows rows, if they have a place for them.
  void quantize(const Rows& x, uint32_t n_rows);
  // y = W x, or y += W x, for n_cols rows of x. Quantized weights take the codes of x if it has
  // any.
  void matmul(const DeviceMatrix& weight, const Rows& x, const Rows& y, uint32_t n_cols,
              bool accumulate = false, Order order = Order::after_last);
  // y = norm(x) row by row: row i of y from row source[first + i] of x.
  void rms_norm(const Rows& x, Slice weight, const Rows& y, uint32_t n_rows, uint32_t n, float eps,
                Slice source, uint32_t first);
  // The same of row i, and in place of each of n_heads heads of a row.
  void rms_norm(const Rows& x, Slice weight, const Rows& y, uint32_t n_rows, uint32_t n, float eps);
  void rms_norm_heads(const Rows& x, Slice weight, uint32_t n_rows, uint32_t n_heads,
                      uint32_t head_dim, float eps);
  void add_bias(const Rows& y, Slice bias, uint32_t n_rows, uint32_t n);
  void swiglu(const Rows& gate, const Rows& up, uint32_t n_rows, uint32_t n);

  // What rotation and attention need of a batch.
  struct Positions {
    Slice rope;   // float [rows][rope_dims]: cosines, then sines
    Slice slots;  // uint32 [rows]: page * 32 + offset of the row's own key
    Slice rows;   // uint32 [rows][4]: its first page's place in `pages`, first key, end of keys
    Slice pages;  // uint32
    uint32_t n_rows;
  };
  void rope_store(const AttentionShape& shape, const Positions& positions, const Rows& q,
                  const Rows& k, const Rows& v, const Rows& q_rotated, const DeviceKv& kv);
  void attention(const AttentionShape& shape, const Positions& positions, const Rows& q,
                 const DeviceKv& kv, const Rows& out);

 private:
  void norm(const Rows& x, Slice weight, const Rows& y, Slice source, Encoder::Groups groups,
            uint32_t n, uint32_t gather, float eps);

  Device& device_;

 public:
  Encoder encoder;
};

}  // namespace pyllamacpp::vk
