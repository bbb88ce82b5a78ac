#include <algorithm>
#include <bit>
#include <cmath>
#include <new>
#include <string>
#include <vector>

#include "api/pyllamacpp_kernels.h"
#include "base/buffer.h"
#include "base/error.h"
#include "cpu/isa.h"
#include "quant/dequantize.h"

namespace pyllamacpp {
namespace {

thread_local std::string last_error;

// No exception crosses the C ABI.
template <class F>
int32_t guarded(const F& f) {
  try {
    f();
    return 0;
  } catch (const Error& e) {
    last_error = e.what();
    return int32_t(e.kind());
  } catch (const std::bad_alloc&) {
    last_error = "not enough memory";
    return int32_t(ErrorKind::memory);
  } catch (const std::exception& e) {
    last_error = e.what();
    return int32_t(ErrorKind::invalid_argument);
  }
}

const cpu::KernelTable& table(const pyl_kernels* k) {
  if (!k) fail(ErrorKind::invalid_argument, "no kernel table");
  return *reinterpret_cast<const cpu::KernelTable*>(k);
}

void require(bool condition, const char* expected) {
  if (!condition) fail(ErrorKind::invalid_argument, expected);
}

void quantize(const cpu::KernelTable& t, cpu::ActKind kind, const float* x, int64_t n,
              std::byte* out) {
  switch (kind) {
    case cpu::ActKind::q8_32:
      return t.quantize_q8_32(reinterpret_cast<cpu::ActBlock32*>(out), x, n);
    case cpu::ActKind::q8_256:
      return t.quantize_q8_256(reinterpret_cast<cpu::ActBlock256*>(out), x, n);
    case cpu::ActKind::f32:
      std::copy(x, x + n, reinterpret_cast<float*>(out));
  }
}

void matmul(const cpu::KernelTable& t, uint32_t type_id, const uint8_t* weights, int64_t n_rows,
            int64_t k, int64_t row_begin, int64_t row_end, const float* x, int64_t n_cols, float* y,
            bool accumulate, bool packed) {
  const DTypeTraits* type = find_dtype(type_id);
  const cpu::TypeKernels* kernels = type ? t.find(type->type) : nullptr;
  if (!kernels) fail(ErrorKind::unsupported, "no kernels for type id ", type_id);
  require(k > 0 && k % type->block_size == 0, "k must be a positive multiple of the type's block");
  require(n_rows > 0 && n_cols > 0, "expected at least one row and one column");
  require(
      row_begin >= 0 && row_begin % cpu::kRowGroup == 0 && row_begin < row_end && row_end <= n_rows,
      "expected rows inside the matrix, beginning at a multiple of 32");
  if (packed && !kernels->pack) fail(ErrorKind::unsupported, type->name, " has no packed layout");

  const size_t column = cpu::act_bytes(kernels->act, k);
  const Buffer acts(column * size_t(n_cols), "activations");
  for (int64_t c = 0; c < n_cols; ++c)
    quantize(t, kernels->act, x + c * k, k, acts.data() + column * size_t(c));
  Buffer panels;
  if (packed) {
    panels = Buffer(kernels->packed_bytes(n_rows, k), "packed weights");
    kernels->pack(weights, n_rows, k, 0, n_rows, panels.as<uint8_t>());
    weights = panels.as<uint8_t>();
  }
  const Buffer scratch(kernels->scratch_bytes(k), "panels");
  (packed ? kernels->matmul_packed : kernels->matmul_rows)(
      {weights, n_rows, k, row_begin, row_end, acts.data(), n_cols, y - row_begin,
       row_end - row_begin, accumulate, scratch.as<uint8_t>()});
}

// The first value of n that is not finite, or -1.
int64_t first_not_finite(const float* x, int64_t n) {
  constexpr int64_t kRun = 4096;
  constexpr uint32_t kExponent = 0x7f800000u;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = std::min(n, begin + kRun);
    bool all = true;
    for (int64_t i = begin; i < end; ++i)
      all &= (std::bit_cast<uint32_t>(x[i]) & kExponent) != kExponent;
    for (int64_t i = begin; !all && i < end; ++i)
      if (!std::isfinite(x[i])) return i;
  }
  return -1;
}

void quantize_weights(const cpu::KernelTable& t, uint32_t type_id, const float* x, int64_t n_rows,
                      int64_t k, const float* importance, uint8_t* dst) {
  const DTypeTraits* type = find_dtype(type_id);
  const cpu::QuantizeKernels* kernels = type ? t.find_quantizer(type->type) : nullptr;
  if (!kernels) fail(ErrorKind::unsupported, "no quantizer for type id ", type_id);
  require(n_rows >= 0 && k > 0, "expected rows of at least one weight");
  if (k % type->block_size)
    fail(ErrorKind::invalid_argument, "rows have ", k, " weights, expected a multiple of ",
         type->block_size, " for ", type->name);
  for (int64_t i = 0; importance && i < k; ++i)
    if (!std::isfinite(importance[i]) || importance[i] < 0)
      fail(ErrorKind::invalid_argument, "the importance of column ", i, " is ", importance[i],
           ", expected a finite number that is not negative");
  if (const int64_t i = first_not_finite(x, n_rows * k); i >= 0)
    fail(ErrorKind::invalid_argument, "the weight in row ", i / k, ", column ", i % k, " is ", x[i],
         ", expected a finite number");
  kernels->quantize(x, importance, n_rows * k, k, dst);
}

void quantize_activations(const cpu::KernelTable& t, int32_t block, const float* x, int64_t n,
                          int8_t* q, float* d, int32_t* sums) {
  require(block == kBlock || block == kSuperBlock, "block must be 32 or 256");
  require(n > 0 && n % block == 0, "n must be a positive multiple of the block");
  if (block == kBlock) {
    std::vector<cpu::ActBlock32> out(size_t(n / block));
    t.quantize_q8_32(out.data(), x, n);
    for (const cpu::ActBlock32& b : out) {
      q = std::copy(b.q, b.q + kBlock, q);
      *d++ = b.d;
      *sums++ = b.sum;
    }
  } else {
    std::vector<cpu::ActBlock256> out(size_t(n / block));
    t.quantize_q8_256(out.data(), x, n);
    for (const cpu::ActBlock256& b : out) {
      q = std::copy(b.q, b.q + kSuperBlock, q);
      *d++ = b.d;
      sums = std::copy(b.sums, b.sums + 16, sums);
    }
  }
}

// One head's pages, filled token by token.
struct Pages {
  Pages(const cpu::KernelTable& t, uint32_t type_id, int32_t head_dim, size_t n_pages)
      : type(t.find_kv(DType(type_id))) {
    if (!type) fail(ErrorKind::unsupported, "no KV cache of type id ", type_id);
    require(head_dim % type->head_multiple == 0, "head_dim must be a multiple of 32 for this type");
    stride = type->page_bytes(head_dim);
    data = Buffer(n_pages * stride, "pages");
  }
  uint8_t* page(int32_t i) const { return data.as<uint8_t>() + size_t(i) * stride; }

  const cpu::KvKernels* type;
  size_t stride = 0;
  Buffer data;
};

struct AttentionOperands {
  const float* q;
  float* out;
  const int32_t* first_key;
  const int32_t* n_keys;
  int32_t n_queries;
  int32_t head_dim;
  const float* keys;
  const float* values;
  int64_t n_tokens;
};

void attention(const cpu::KernelTable& t, uint32_t type_k, uint32_t type_v,
               const AttentionOperands& o) {
  require(o.head_dim > 0 && o.head_dim <= cpu::kMaxHeadDim, "head_dim must be 1 to 256");
  require(o.n_queries > 0 && o.n_tokens > 0, "expected at least one query and one token");
  for (int32_t i = 0; i < o.n_queries; ++i)
    require(o.first_key[i] >= 0 && o.first_key[i] < o.n_keys[i] && o.n_keys[i] <= o.n_tokens,
            "expected 0 <= first_key < n_keys <= n_tokens");
  const int64_t n_pages = (o.n_tokens + cpu::kPageTokens - 1) / cpu::kPageTokens;
  const Pages k(t, type_k, o.head_dim, size_t(n_pages)), v(t, type_v, o.head_dim, size_t(n_pages));
  std::vector<int32_t> pages;
  // In descending order, so that the page table is really used.
  for (int64_t page = n_pages; page-- > 0;) pages.push_back(int32_t(page));
  for (int64_t token = 0; token < o.n_tokens; ++token) {
    const int32_t page = pages[size_t(token / cpu::kPageTokens)];
    const int offset = int(token % cpu::kPageTokens);
    k.type->store_key(k.page(page), offset, o.keys + token * o.head_dim, o.head_dim);
    v.type->store_value(v.page(page), offset, o.values + token * o.head_dim, o.head_dim);
  }
  std::vector<const float*> queries;
  std::vector<float*> outs;
  for (int32_t i = 0; i < o.n_queries; ++i) {
    queries.push_back(o.q + int64_t(i) * o.head_dim);
    outs.push_back(o.out + int64_t(i) * o.head_dim);
  }
  t.attention({k.type, v.type, queries.data(), outs.data(), o.first_key, o.n_keys, o.n_queries,
               o.head_dim, pages.data(), k.page(0), v.page(0), int64_t(k.stride),
               int64_t(v.stride)});
}

std::vector<const void*> entries(const cpu::KernelTable& t) {
  std::vector<const void*> all;
  const auto add = [&](auto function) {
    if (function) all.push_back(reinterpret_cast<const void*>(function));
  };
  add(t.rms_norm);
  add(t.rope_interleaved);
  add(t.rope_halves);
  add(t.swiglu);
  add(t.softmax);
  add(t.add);
  add(t.scale);
  add(t.quantize_q8_32);
  add(t.quantize_q8_256);
  add(t.argmax);
  add(t.attention);
  add(t.int_peak);
  add(t.float_peak);
  add(t.read_memory);
  for (int i = 0; i < t.n_types; ++i) {
    add(t.types[i].matmul_rows);
    add(t.types[i].pack);
    add(t.types[i].matmul_packed);
  }
  for (int i = 0; i < t.n_quantizers; ++i) add(t.quantizers[i].quantize);
  for (int i = 0; i < t.n_kv_types; ++i) {
    add(t.kv_types[i].store_key);
    add(t.kv_types[i].store_value);
    all.push_back(t.kv_types[i].readers);
  }
  return all;
}

}  // namespace
}  // namespace pyllamacpp

using namespace pyllamacpp;

extern "C" {

const char* pyl_last_error(void) { return last_error.c_str(); }

const char* pyl_tier_name(int32_t index) {
  const auto& tiers = cpu::available_tiers();
  return index >= 0 && size_t(index) < tiers.size() ? tiers[size_t(index)]->name : nullptr;
}

const pyl_kernels* pyl_tier(const char* name) {
  const cpu::KernelTable* found = nullptr;
  guarded([&] { found = &cpu::tier_named(name); });
  return reinterpret_cast<const pyl_kernels*>(found);
}

int32_t pyl_entries(const pyl_kernels* k, const void** out, int32_t capacity) {
  const std::vector<const void*> all = entries(table(k));
  std::copy_n(all.begin(), std::min<size_t>(all.size(), size_t(std::max(capacity, 0))), out);
  return int32_t(all.size());
}

int32_t pyl_matmul_types(const pyl_kernels* k, uint32_t* types, int32_t capacity) {
  const cpu::KernelTable& t = table(k);
  for (int i = 0; i < t.n_types && i < capacity; ++i) types[i] = uint32_t(t.types[i].type);
  return t.n_types;
}

int64_t pyl_bytes_of(uint32_t type, int64_t n) {
  const DTypeTraits* t = find_dtype(type);
  return t && n >= 0 && n % t->block_size == 0 ? int64_t(bytes_of(t->type, uint64_t(n))) : -1;
}

int32_t pyl_dequantize(uint32_t type, const void* src, float* dst, int64_t n) {
  return guarded([&] {
    require(pyl_bytes_of(type, n) >= 0, "expected a known type and whole blocks of it");
    dequantize(DType(type), src, dst, n);
  });
}

int32_t pyl_quantize_on(const pyl_kernels* k, uint32_t type, const float* src, int64_t n_rows,
                        int64_t n_k, const float* importance, void* dst) {
  return guarded([&] {
    quantize_weights(table(k), type, src, n_rows, n_k, importance, static_cast<uint8_t*>(dst));
  });
}

int32_t pyl_quantize(uint32_t type, const float* src, int64_t n_rows, int64_t n_k,
                     const float* importance, void* dst) {
  return guarded([&] {
    quantize_weights(cpu::active_tier(), type, src, n_rows, n_k, importance,
                     static_cast<uint8_t*>(dst));
  });
}

int32_t pyl_matmul(const pyl_kernels* k, uint32_t type, const void* weights, int64_t n_rows,
                   int64_t n_k, int64_t row_begin, int64_t row_end, const float* x, int64_t n_cols,
                   float* y, int32_t accumulate, int32_t packed) {
  return guarded([&] {
    matmul(table(k), type, static_cast<const uint8_t*>(weights), n_rows, n_k, row_begin, row_end, x,
           n_cols, y, accumulate != 0, packed != 0);
  });
}

int32_t pyl_quantize_activations(const pyl_kernels* k, int32_t block, const float* x, int64_t n,
                                 int8_t* q, float* d, int32_t* sums) {
  return guarded([&] { quantize_activations(table(k), block, x, n, q, d, sums); });
}

int32_t pyl_rms_norm(const pyl_kernels* k, float* y, const float* x, const float* weight, int64_t n,
                     float eps) {
  return guarded([&] { table(k).rms_norm(y, x, weight, n, eps); });
}

int32_t pyl_rope(const pyl_kernels* k, float* x, const float* cos_sin, int64_t n, int32_t halves) {
  return guarded([&] {
    require(n >= 0 && n % 2 == 0 && n <= cpu::kMaxHeadDim, "n must be even and at most 256");
    (halves ? table(k).rope_halves : table(k).rope_interleaved)(x, cos_sin, n);
  });
}

int32_t pyl_swiglu(const pyl_kernels* k, float* y, const float* gate, const float* up, int64_t n) {
  return guarded([&] { table(k).swiglu(y, gate, up, n); });
}

int32_t pyl_softmax(const pyl_kernels* k, float* x, int64_t n) {
  return guarded([&] {
    require(n >= 1, "softmax needs a value");
    table(k).softmax(x, n);
  });
}

int32_t pyl_add(const pyl_kernels* k, float* y, const float* x, int64_t n) {
  return guarded([&] { table(k).add(y, x, n); });
}

int32_t pyl_scale(const pyl_kernels* k, float* x, float factor, int64_t n) {
  return guarded([&] { table(k).scale(x, factor, n); });
}

int32_t pyl_argmax(const pyl_kernels* k, const float* x, int64_t n, int32_t* index) {
  return guarded([&] {
    require(n >= 1, "argmax needs a value");
    *index = table(k).argmax(x, n);
  });
}

int32_t pyl_kv_types(const pyl_kernels* k, uint32_t* types, int32_t capacity) {
  const cpu::KernelTable& t = table(k);
  for (int i = 0; i < t.n_kv_types && i < capacity; ++i) types[i] = uint32_t(t.kv_types[i].type);
  return t.n_kv_types;
}

int32_t pyl_attention(const pyl_kernels* k, uint32_t type_k, uint32_t type_v, const float* q,
                      float* out, const int32_t* first_key, const int32_t* n_keys,
                      int32_t n_queries, int32_t head_dim, const float* keys, const float* values,
                      int64_t n_tokens) {
  return guarded([&] {
    attention(table(k), type_k, type_v,
              {q, out, first_key, n_keys, n_queries, head_dim, keys, values, n_tokens});
  });
}

}  // extern "C"
