// What a model needs of the hardware that runs it. A Backend owns weights and KV memory, in
// whatever layout suits it, and is shared by the contexts of a model; a Stream owns the scratch
// memory and the threads (or command buffers) of one context and runs the ops of a forward pass.
//
// Between begin() and submit() a Stream's ops work on the batch given to begin() and on the
// residual `x` [n_rows][dim] that lives in the stream. The CPU runs an op when it is called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/dtype.h"

namespace pyllamacpp {

// A stored matrix; `data` stays valid as long as the backend lives.
struct WeightSource {
  DType type;
  int64_t rows;
  int64_t cols;  // length of a row
  std::span<const std::byte> data;
};

// A matrix of the model in a backend's own memory and layout.
struct Weight {
  virtual ~Weight() = default;
  // Whether the bytes it was loaded from are still read when it is used by that backend.
  virtual bool uses_source() const = 0;
  WeightSource source;  // what it was loaded from
};

// Keys and values of one layer: n_pages pages of kv_page_tokens() tokens.
class KvLayer {
 public:
  virtual ~KvLayer() = default;
};

struct KvShape {
  int64_t n_pages;
  int32_t n_kv_heads;
  int32_t head_dim;
  DType type_k;
  DType type_v;
};

// A change scale * b a of a matrix [out][in], of low rank.
struct LowRank {
  int64_t rank = 0;  // 0: none
  float scale = 0;
  std::vector<float> a;  // [rank][in]
  std::vector<float> b;  // [out][rank]
};

// Of the matrices of one layer.
struct LayerAdapter {
  LowRank q, k, v, attention_out, gate, up, down;
};

// An adapter in use: its changes count `scale` times.
struct AppliedAdapter {
  const LayerAdapter* layers;  // [n_layers]
  int64_t most_rank;
  float scale;
};

// Rows [row_begin, row_end) of a batch belong to one sequence, at ascending positions.
struct SequenceRows {
  int32_t row_begin;
  int32_t row_end;
  const int32_t* pages;  // of the sequence in order; those of the rows themselves included
  std::span<const AppliedAdapter> adapters = {};  // on the CPU only
};

struct BatchView {
  std::span<const int32_t> tokens;     // [n_rows]
  std::span<const int32_t> positions;  // [n_rows]
  std::span<const SequenceRows> sequences;
  std::span<const int32_t> outputs;  // rows whose result is wanted, ascending
};

enum class RopeLayout { interleaved, halves };

struct AttentionShape {
  int32_t n_heads;
  int32_t n_kv_heads;
  int32_t head_dim;
  int32_t rope_dims;  // the first rope_dims of each head are rotated
  RopeLayout rope_layout;
  std::vector<double> rope_frequencies;  // [rope_dims / 2], radians per position
  float rope_scale;                      // factor of the rotated vectors (YaRN, LongRoPE)
  int32_t window;                        // keys a token sees, itself included; 0: all
  float norm_eps;
};

struct LayerWeights {
  int32_t index = 0;                       // among the model's layers
  std::unique_ptr<Weight> attention_norm;  // [dim]
  std::unique_ptr<Weight> q, k, v;         // [heads * head_dim][dim]
  // Absent in most models:
  std::unique_ptr<Weight> q_bias, k_bias, v_bias;  // [heads * head_dim], added before the rotation
  std::unique_ptr<Weight> q_norm, k_norm;          // [head_dim], RMS norm of each head before it
  std::unique_ptr<Weight> attention_out;           // [dim][n_heads * head_dim]
  std::unique_ptr<Weight> ffn_norm;                // [dim]
  std::unique_ptr<Weight> gate, up;                // [n_ff][dim]
  std::unique_ptr<Weight> down;                    // [dim][n_ff]
};

// What matrices of a layer multiply: q, k and v; attention_out; gate and up; down.
enum class LayerInput { attention, attended, feed_forward, hidden };

// Told the inputs of a layer's matrices while a stream evaluates.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  // Rows [n_rows][n], one after another.
  virtual void see(const LayerWeights& layer, LayerInput input, const float* rows, int64_t n_rows,
                   int64_t n) = 0;
};

struct StreamShape {
  int64_t dim;
  int64_t n_ff;
  int64_t n_vocab;
  int32_t max_rows;
  int32_t n_threads;        // for batches of one row
  int32_t n_threads_batch;  // for larger ones
  int64_t max_pages;        // of all sequences of a batch together; shared ones count for each
  AttentionShape attention;
  // Whether feed_forward() is also asked for layers whose weights another backend holds. Only a GPU
  // is: it reads them from where they were loaded from, for each batch again.
  bool borrows = false;
};

class Stream {
 public:
  virtual ~Stream() = default;

  virtual void begin(const BatchView& batch) = 0;
  // x = rows of the embedding table
  virtual void embed(const Weight& table) = 0;
  // q, k, v = projections of norm(x); q and k rotated; k and v stored in the cache
  virtual void project_qkv(const LayerWeights& layer, KvLayer& kv) = 0;
  // attended = softmax(q k^T / sqrt(head_dim)) v, causal, per sequence
  virtual void attend(const KvLayer& kv) = 0;
  // x += attention_out * attended
  virtual void project_attended(const LayerWeights& layer) = 0;
  // x += down * (silu(gate * n) * (up * n)) with n = norm(x); see StreamShape::borrows
  virtual void feed_forward(const LayerWeights& layer) = 0;
  // x, [n_rows][dim], as a batch goes from one stream to another between two layers.
  virtual void read_rows(float* x) = 0;
  virtual void write_rows(const float* x) = 0;
  // logits [outputs][n_vocab] = output * norm(x), for the batch's output rows only
  virtual void head(const Weight& norm, const Weight& output, float* logits) = 0;
  // rows [outputs][dim] = norm(x), for the batch's output rows only
  virtual void hidden(const Weight& norm, float* rows) = 0;
  // Returns when everything since begin() is done.
  virtual void submit() = 0;
  // Whom to tell from the next begin() on; null, as at first: nobody.
  virtual void observe(InputObserver* observer) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual bool supports(DType type) const = 0;
  virtual std::unique_ptr<Weight> load_matrix(const WeightSource& source) = 0;
  // Bytes of memory of its own that load_matrix, make_kv and make_stream take for these shapes; a
  // matrix that is used as it lies in the file takes none.
  virtual size_t matrix_bytes(DType type, int64_t rows, int64_t cols) const = 0;
  virtual size_t vector_bytes(int64_t cols) const = 0;
  virtual size_t kv_bytes(const KvShape& shape) const = 0;
  virtual size_t stream_bytes(const StreamShape& shape) const = 0;
  // What the next loads take in all, so that it can be allocated at once.
  virtual void expect(size_t n_bytes) = 0;
  // A table whose rows are looked up (the embedding); it may refer to `source.data` for good.
  virtual std::unique_ptr<Weight> load_table(const WeightSource& source) = 0;
  virtual std::unique_ptr<Weight> load_vector(const WeightSource& source) = 0;  // float32 [cols]
  // Of a device's own memory: what this backend's weights, caches and streams hold now, and what it
  // could still give. 0 on the CPU, whose memory is the system's.
  virtual uint64_t device_bytes() const = 0;
  virtual uint64_t device_bytes_free() const = 0;
  // No more weights come: what only loading needed may go.
  virtual void finish_loading() = 0;
  virtual std::unique_ptr<KvLayer> make_kv(const KvShape& shape) = 0;
  virtual void copy_page(KvLayer& kv, int32_t from, int32_t to) = 0;
  // A page as bytes, for write_page() of a layer of the same shape on the same kind of backend.
  // What lies behind its first n_tokens reads as zeros do when they are stored. Throws
  // Error(unsupported) where pages cannot be read.
  virtual size_t page_bytes(const KvLayer& kv) const = 0;
  virtual void read_page(const KvLayer& kv, int32_t page, int32_t n_tokens, std::byte* out) = 0;
  virtual void write_page(KvLayer& kv, int32_t page, const std::byte* bytes) = 0;
  virtual int32_t kv_page_tokens() const = 0;
  virtual bool supports_kv(DType type, int32_t head_dim) const = 0;
  virtual std::unique_ptr<Stream> make_stream(const StreamShape& shape) = 0;
};

}  // namespace pyllamacpp
