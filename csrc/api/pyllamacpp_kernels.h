/* The kernel table, quantizers and dequantizers as plain C functions, exported by the extension
 * module and opened with cffi in ABI mode by pyllamacpp/kernels.py, which hands the declarations
 * below to cffi as they stand (lines that begin with '#' and the word PYL_API are dropped).
 *
 * Functions that return int32_t return 0, or one of the ErrorKind codes of csrc/base/error.h with a
 * sentence in pyl_last_error(). Types are the type ids of GGUF. Matrices are rows one after
 * another in GGUF's layout; activations and results are float32 in C order. Nothing is allocated
 * for the caller and no pointer is kept. */
#ifndef PYLLAMACPP_KERNELS_H_
#define PYLLAMACPP_KERNELS_H_

#include <stdint.h>

#if defined(_WIN32)
#define PYL_API __declspec(dllexport)
#else
#define PYL_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* One tier's table; functions that do not return an error code need one that is not NULL. */
typedef struct pyl_kernels pyl_kernels;

/* The sentence of this thread's last error. */
PYL_API const char* pyl_last_error(void);

/* Tiers this CPU can run, best first; NULL past the last. */
PYL_API const char* pyl_tier_name(int32_t index);
/* NULL for a tier that this CPU lacks. */
PYL_API const pyl_kernels* pyl_tier(const char* name);
/* The addresses of a tier's entries in a fixed order, up to `capacity`; returns how many it has. */
PYL_API int32_t pyl_entries(const pyl_kernels* k, const void** entries, int32_t capacity);
/* Weight types a tier multiplies, up to `capacity`; returns how many. */
PYL_API int32_t pyl_matmul_types(const pyl_kernels* k, uint32_t* types, int32_t capacity);

/* Bytes of n weights (a multiple of the type's block); -1 for an unknown type or a wrong n. */
PYL_API int64_t pyl_bytes_of(uint32_t type, int64_t n);
PYL_API int32_t pyl_dequantize(uint32_t type, const void* src, float* dst, int64_t n);

/* Rows of n_k floats, a multiple of the type's block, to rows of the type in dst. importance [n_k]
 * (NULL: all alike) says how much the squared error of a column counts; finite and >= 0. A weight
 * that is not finite is an error which names its row and column. The same bytes on every tier. */
PYL_API int32_t pyl_quantize(uint32_t type, const float* src, int64_t n_rows, int64_t n_k,
                             const float* importance, void* dst);
PYL_API int32_t pyl_quantize_on(const pyl_kernels* k, uint32_t type, const float* src,
                                int64_t n_rows, int64_t n_k, const float* importance, void* dst);

/* y[col][row - row_begin] = dot(weights[row], x[col]) for row_begin <= row < row_end, or += with
 * accumulate. x [n_cols][k] is quantized as the type requires. packed: through the packed layout,
 * where the type has one. row_begin is a multiple of 32. */
PYL_API int32_t pyl_matmul(const pyl_kernels* k, uint32_t type, const void* weights, int64_t n_rows,
                           int64_t n_k, int64_t row_begin, int64_t row_end, const float* x,
                           int64_t n_cols, float* y, int32_t accumulate, int32_t packed);

/* Quantizes n activations in blocks of 32 or 256: q [n], d [n / block], and the sums the kernels
 * use: sums [n / 32] of 32 q, or [n / 16] of 16 q. */
PYL_API int32_t pyl_quantize_activations(const pyl_kernels* k, int32_t block, const float* x,
                                         int64_t n, int8_t* q, float* d, int32_t* sums);

PYL_API int32_t pyl_rms_norm(const pyl_kernels* k, float* y, const float* x, const float* weight,
                             int64_t n, float eps);
/* In place; cos_sin holds n/2 cosines, then n/2 sines; n is even and at most 256. halves: pairs
 * (i, i + n/2), else (2i, 2i + 1). */
PYL_API int32_t pyl_rope(const pyl_kernels* k, float* x, const float* cos_sin, int64_t n,
                         int32_t halves);
PYL_API int32_t pyl_swiglu(const pyl_kernels* k, float* y, const float* gate, const float* up,
                           int64_t n);
PYL_API int32_t pyl_softmax(const pyl_kernels* k, float* x, int64_t n);
PYL_API int32_t pyl_add(const pyl_kernels* k, float* y, const float* x, int64_t n);
PYL_API int32_t pyl_scale(const pyl_kernels* k, float* x, float factor, int64_t n);
PYL_API int32_t pyl_argmax(const pyl_kernels* k, const float* x, int64_t n, int32_t* index);

/* Types of the KV cache, up to `capacity`; returns how many. */
PYL_API int32_t pyl_kv_types(const pyl_kernels* k, uint32_t* types, int32_t capacity);

/* out[i] = softmax(q[i] . keys[first_key[i] .. n_keys[i])) of values. q, out [n_queries][head_dim],
 * q already scaled; keys and values [n_tokens][head_dim] are stored as type_k and type_v in pages
 * by this function. head_dim <= 256, and a multiple of 32 for quantized types;
 * 0 <= first_key[i] < n_keys[i] <= n_tokens. */
PYL_API int32_t pyl_attention(const pyl_kernels* k, uint32_t type_k, uint32_t type_v,
                              const float* q, float* out, const int32_t* first_key,
                              const int32_t* n_keys, int32_t n_queries, int32_t head_dim,
                              const float* keys, const float* values, int64_t n_tokens);

#ifdef __cplusplus
}
#endif

#endif
