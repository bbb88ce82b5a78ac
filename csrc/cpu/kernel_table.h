// The kernels of one instruction-set tier as a table of plain functions. Every kernel runs on one
// thread and touches only its operands; splitting the work is the caller's business.
//
// One result, one reduction: an output of a matrix product is the same bits whatever the number of
// columns computed together, rows per call or weight layout of the table row. Integer types take
// exact integer dot products within a block (32 weights, or 256 for the K types) and then one fused
// multiply-add per block in ascending order into one accumulator; attention takes fixed segments of
// keys, each in pages of kPageTokens, merged in ascending order.
//
// Plain structs only: the per-tier kernel files include this header.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/formats.h"

namespace pyllamacpp::cpu {

// Keys per page of the KV cache, and keys per segment of the attention reduction.
inline constexpr int kPageTokens = 32;
inline constexpr int kSegmentTokens = 512;
inline constexpr int kMaxHeadDim = 256;

// Operands of the probes of arithmetic, small enough for the first cache.
inline constexpr int kPeakBytes = 1 << 14;

// Work on rows of a matrix is split at multiples of this: a whole number of panels on every tier.
inline constexpr int kRowGroup = 32;

// What a weight type multiplies: floats, or activations quantized per block of 32 or 256.
enum class ActKind { f32, q8_32, q8_256 };

// x = d * q, q in [-127, 127], d = max|x| / 127.
struct ActBlock32 {
  float d;
  float sum_d;  // d * sum(q), for types with a minimum
  int32_t sum;  // sum(q), for types whose bytes are offset
  int8_t q[32];
};
struct ActBlock256 {
  float d;
  int16_t sums[16];  // sums of 16 consecutive q
  int8_t q[256];
};

// y[col * y_stride + row] = (or +=, with accumulate) dot(weights row, x col), float32.
struct MatmulArgs {
  const uint8_t* weights;  // row 0 of the matrix (matmul_rows) or its first panel (matmul_packed)
  int64_t n_rows;          // rows of the matrix
  int64_t k;               // length of a row, a multiple of the type's block
  int64_t row_begin;       // a multiple of kRowGroup; rows [row_begin, row_end) are computed
  int64_t row_end;
  const void* x;  // n_cols columns of activations of the row's ActKind, one after another
  int64_t n_cols;
  float* y;
  int64_t y_stride;
  bool accumulate;
  uint8_t* scratch;  // scratch_bytes(k), 64-byte aligned
};

struct TypeKernels {
  DType type;
  ActKind act;
  size_t (*scratch_bytes)(int64_t k);
  // The layout of the file.
  void (*matmul_rows)(const MatmulArgs&);
  // Panels of `lanes` rows interleaved for the dot instruction; null where rows do as well.
  size_t (*packed_bytes)(int64_t n_rows, int64_t k);
  // Packs rows [row_begin, row_end) of the matrix at `rows` into `packed`, the whole matrix's.
  void (*pack)(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row_begin, int64_t row_end,
               uint8_t* packed);
  void (*matmul_packed)(const MatmulArgs&);
};

// Floats to a stored type, by the least sum of importance * error^2. The bytes are the same on
// every tier. Weights must be finite and importances (may be null: all alike) finite and not
// negative; scales beyond the range of halves become the largest half.
struct QuantizeKernels {
  DType type;
  // n weights, a multiple of the block, of rows of k whose columns have the importances [k].
  void (*quantize)(const float* x, const float* importance, int64_t n, int64_t k, uint8_t* dst);
};

// How keys or values are stored in the cache. A page of one head holds kPageTokens of either.
struct KvKernels {
  DType type;
  int head_multiple;  // of which head_dim must be a multiple
  size_t (*page_bytes)(int32_t head_dim);
  // Stores x [head_dim] as the key (the value) of token `offset` of a page.
  void (*store_key)(uint8_t* page, int offset, const float* x, int32_t head_dim);
  void (*store_value)(uint8_t* page, int offset, const float* x, int32_t head_dim);
  const void* readers;  // what the tier's attention reads pages with
};

// Attention of `n_queries` query vectors that share one KV head.
struct AttentionArgs {
  const KvKernels* k_type;
  const KvKernels* v_type;
  const float* const* q;     // [n_queries][head_dim], already scaled by 1/sqrt(head_dim)
  float* const* out;         // [n_queries][head_dim]
  const int32_t* first_key;  // [n_queries]: keys [first_key, n_keys) are visible, at least one
  const int32_t* n_keys;     // [n_queries]
  int32_t n_queries;
  int32_t head_dim;      // <= kMaxHeadDim
  const int32_t* pages;  // the sequence's pages in order
  const uint8_t* k;      // this head in page 0
  const uint8_t* v;
  int64_t k_stride;  // bytes from a page to the next
  int64_t v_stride;
};

struct KernelTable {
  const char* name;
  int lanes;  // floats per vector
  const TypeKernels* types;
  int n_types;
  const KvKernels* kv_types;
  int n_kv_types;
  const QuantizeKernels* quantizers;
  int n_quantizers;

  // y[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps)
  void (*rms_norm)(float* y, const float* x, const float* weight, int64_t n, float eps);
  // Rotates pairs of one head vector; cos_sin holds n/2 cosines, then n/2 sines.
  void (*rope_interleaved)(float* x, const float* cos_sin, int64_t n);  // pairs (2i, 2i + 1)
  void (*rope_halves)(float* x, const float* cos_sin, int64_t n);       // pairs (i, i + n/2)
  // y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]
  void (*swiglu)(float* y, const float* gate, const float* up, int64_t n);
  void (*softmax)(float* x, int64_t n);                                // in place, n >= 1
  void (*add)(float* y, const float* x, int64_t n);                    // y += x
  void (*scale)(float* x, float factor, int64_t n);                    // x *= factor
  void (*quantize_q8_32)(ActBlock32* y, const float* x, int64_t n);    // n % 32 == 0
  void (*quantize_q8_256)(ActBlock256* y, const float* x, int64_t n);  // n % 256 == 0
  // Index of the largest value, the first of equals; NaN never wins. n >= 1.
  int32_t (*argmax)(const float* x, int64_t n);
  void (*attention)(const AttentionArgs&);

  // Probes of what a core can do at most; `operands` has kPeakBytes, `sink` takes what must not be
  // optimized away. Multiplies and adds done:
  double (*int_peak)(const uint8_t* operands, int64_t rounds, float* sink);
  double (*float_peak)(const uint8_t* operands, int64_t rounds, float* sink);
  // Reads n bytes, a multiple of 1024, in order.
  void (*read_memory)(const uint8_t* p, int64_t n, float* sink);

  const TypeKernels* find(DType type) const {
    for (int i = 0; i < n_types; ++i)
      if (types[i].type == type) return &types[i];
    return nullptr;
  }
  const QuantizeKernels* find_quantizer(DType type) const {
    for (int i = 0; i < n_quantizers; ++i)
      if (quantizers[i].type == type) return &quantizers[i];
    return nullptr;
  }
  const KvKernels* find_kv(DType type) const {
    for (int i = 0; i < n_kv_types; ++i)
      if (kv_types[i].type == type) return &kv_types[i];
    return nullptr;
  }
};

// The size of one quantized or float activation column of length k.
inline size_t act_bytes(ActKind kind, int64_t k) {
  switch (kind) {
    case ActKind::q8_32:
      return size_t(k / kBlock) * sizeof(ActBlock32);
    case ActKind::q8_256:
      return size_t(k / kSuperBlock) * sizeof(ActBlock256);
    case ActKind::f32:
      break;
  }
  return size_t(k) * sizeof(float);
}

}  // namespace pyllamacpp::cpu
