// A model with a KV cache: decode(batch) and the bookkeeping of its sequences.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cache/batch.h"
#include "cache/kv_cache.h"
#include "model/adapter.h"
#include "model/forward.h"
#include "model/model.h"
#include "session/input_squares.h"

namespace pyllamacpp {

struct ContextParams {
  int32_t n_ctx = 0;            // tokens that one sequence may hold; 0: the model's own
  int32_t n_batch = 512;        // rows of one forward pass
  int32_t n_threads = 0;        // for single rows; 0: default_thread_count()
  int32_t n_threads_batch = 0;  // for larger batches; 0: as n_threads
  int32_t max_sequences = 1;
  DType type_k = DType::f16;  // of the KV cache
  DType type_v = DType::f16;
  bool measure_inputs = false;  // see Context::input_squares
  // The KV cache holds n_parallel * n_ctx tokens, all sequences together. 0: n_ctx, and for each
  // further sequence a page that it may leave partly empty.
  int32_t n_parallel = 0;
  RopeOverrides rope = {};
  // Batches of at least so many rows have the feed-forward part of layers on the CPU computed by
  // the GPU of the model's other layers, the weights being copied there for each batch; 0: none.
  int32_t stream_rows = 0;
};

// Tokens of the KV cache, in pages of `page_tokens`; the parameters have no zeros left but that.
int64_t kv_tokens(const ContextParams& params, int32_t page_tokens);

// The parameters without zeros. Throws Error for values out of range, or types of keys and values
// that the backend cannot hold.
ContextParams with_defaults(const ModelConfig& config, const Backend& backend,
                            ContextParams params);

// What a context asks of a backend's stream; the parameters have no zeros left.
StreamShape stream_shape(const ModelConfig& config, const ContextParams& params,
                         int32_t page_tokens);

enum class WantLogits { none, last, all };

// Tokens appended to one sequence, and which of them have logits (or a hidden state) computed.
struct BatchPiece {
  int32_t sequence;
  std::span<const int32_t> tokens;
  WantLogits logits;
};

class Context {
 public:
  Context(std::shared_ptr<const Model> model, const ContextParams& params);

  // Appends the pieces (each of another sequence) and computes the logits they want. Either all
  // tokens are appended or, on an error or a cancel, none. Throws Error(context_full) when the
  // cache has no room, Error(invalid_argument) for a bad token or sequence, Error(cancelled).
  void decode(std::span<const BatchPiece> pieces) { evaluate(pieces, Result::logits); }
  // The same, with hidden states in place of logits: the residual after the last norm, a row of dim
  // floats per wanted token, in batch order. They are valid until the next evaluation.
  std::span<const float> embed(std::span<const BatchPiece> pieces);

  // Logits of the last evaluation, if it was a decode: one row of n_vocab floats per wanted token,
  // in batch order.
  int32_t n_outputs() const { return n_outputs_; }
  std::span<const float> logits(int32_t output) const;

  const std::vector<int32_t>& tokens(int32_t sequence) const;
  int32_t length(int32_t sequence) const { return int32_t(tokens(sequence).size()); }
  // Of prompts like `tokens`, what is there already: the sequence that begins with most of them,
  // and how many they have in common, among the sequences that use these adapters. {0, 0} where
  // none has any.
  struct Match {
    int32_t sequence;
    int32_t length;
  };
  Match best_match(std::span<const int32_t> tokens,
                   std::span<const AdapterUse> adapters = {}) const;
  // Pages of the cache that are free, and that n more tokens of a sequence take.
  int32_t n_free_pages() const { return cache_.n_free_pages(); }
  int32_t pages_to_append(int32_t sequence, int32_t n) const {
    return cache_.pages_to_append(sequence, n);
  }
  // Forgets everything from position `length` on.
  void trim(int32_t sequence, int32_t length);
  // What the sequence is evaluated with from now on, none at first. Keys and values of other
  // adapters are of no use, so a change forgets all tokens of the sequence; the same adapters in
  // the same order change nothing. Throws Error(invalid_argument) for an adapter of another model
  // or a scale that is not finite.
  void set_adapters(int32_t sequence, std::vector<AdapterUse> adapters);
  const std::vector<AdapterUse>& adapters(int32_t sequence) const;
  // Makes `to` (whatever it held) equal to `from`, adapters included, sharing its pages.
  void fork(int32_t from, int32_t to);

  // How keys and values lie in save_page(), in words: sequences of contexts that agree in this, of
  // models that are the same, hold the same bytes for the same tokens.
  std::string kv_layout() const;
  size_t page_bytes() const { return cache_.page_bytes(); }
  // Page `index` of the first `length` tokens of a sequence; the bytes depend on these tokens
  // alone. `out`: [page_bytes()]. Throws Error(unsupported) where layers run on a GPU.
  void save_page(int32_t sequence, int32_t index, int32_t length, std::byte* out) const {
    cache_.read_page(sequence, index, length, out);
  }
  // Makes a sequence hold `tokens`, with `pages` [pages of them][page_bytes()] as save_page() gave
  // them; whole pages that it holds of these tokens stay. Throws Error(invalid_argument) for a
  // token or a size that does not fit, Error(context_full) when there is no room; the sequence may
  // have lost tokens then. For a sequence without adapters.
  void load(int32_t sequence, std::span<const int32_t> tokens, std::span<const std::byte> pages);

  // Stops the decode that runs now, or else the next one, within one layer. Any thread may call it.
  void cancel() { cancel_requested_ = true; }
  // Asked between layers, on the thread that calls decode; true cancels.
  void set_poll(std::function<bool()> poll) { poll_ = std::move(poll); }

  // Of everything evaluated so far; null unless measure_inputs.
  const InputSquares* input_squares() const { return input_squares_.get(); }

  const Model& model() const { return *model_; }
  std::shared_ptr<const Model> shared_model() const { return model_; }
  // With the defaults filled in; stream_rows is 0 where nothing is streamed, be it for want of
  // memory on the device.
  const ContextParams& params() const { return params_; }

 private:
  void check(std::span<const BatchPiece> pieces) const;
  void check(std::span<const int32_t> tokens) const;
  size_t width(Result result) const;  // floats of one
  std::unique_ptr<Stream> make_stream(Backend& backend, StreamShape& shape);
  void evaluate(std::span<const BatchPiece> pieces, Result result);
  void run(std::span<const BatchPiece> pieces, const std::vector<int32_t>& before, Result result);
  bool cancelled();

  std::shared_ptr<const Model> model_;
  ContextParams params_;
  std::unique_ptr<InputSquares> input_squares_;
  KvCache cache_;
  // Where layers run there. They go before the cache does, which a device may still be at.
  std::unique_ptr<Stream> cpu_stream_, gpu_stream_;
  Steps steps_;
  Steps streamed_steps_;  // of batches of stream_rows rows or more
  Batch batch_;
  std::vector<std::vector<int32_t>> tokens_;          // per sequence, what the cache holds
  std::vector<std::vector<AdapterUse>> adapters_;     // per sequence
  std::vector<std::vector<AppliedAdapter>> applied_;  // the same, as the streams take them
  std::vector<float> results_;                        // of the last evaluation
  int32_t n_outputs_ = 0;                             // logits among them
  std::atomic<bool> cancel_requested_ = false;
  std::function<bool()> poll_;
};

}  // namespace pyllamacpp
