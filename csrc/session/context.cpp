#include "session/context.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"

namespace pyllamacpp {

namespace {

constexpr int32_t kMostThreads = 512;
constexpr int32_t kMostSequences = 1 << 16;

int32_t in_range(const char* name, int32_t value, int32_t least, int32_t most) {
  if (value < least || value > most)
    fail(ErrorKind::invalid_argument, name, " is ", value, ", expected ", least, " to ", most);
  return value;
}

// The parameters without zeros, possible on every backend of the model.
ContextParams checked(const Model& model, const ContextParams& params) {
  if (model.vocab_only())
    fail(ErrorKind::invalid_argument, model.file().name(),
         " was loaded with vocab_only: it has no weights to run");
  const int32_t n_layers = model.config().n_layers;
  ContextParams checked = with_defaults(model.config(), model.backend(n_layers),
                                        with_defaults(model.config(), model.backend(0), params));
  // The first layer's is the last to leave the CPU.
  if (!model.gpu() || &model.ffn_backend(0) == model.gpu()) checked.stream_rows = 0;
  return checked;
}

// Of each layer.
std::vector<Backend*> kv_backends(const Model& model) {
  std::vector<Backend*> backends;
  for (int32_t i = 0; i < model.config().n_layers; ++i) backends.push_back(&model.backend(i));
  return backends;
}

AttentionShape attention_shape(const ModelConfig& c, const ContextParams& p) {
  RopeTable rope = rope_table(with_overrides(c.rope, p.rope), p.n_ctx);
  return {c.n_heads,   c.n_kv_heads,  c.head_dim,
          c.rope.dims, c.rope_layout, std::move(rope.frequencies),
          rope.scale,  c.window,      c.norm_eps};
}

}  // namespace

ContextParams with_defaults(const ModelConfig& config, const Backend& backend, ContextParams p) {
  if (p.n_ctx == 0) p.n_ctx = config.n_ctx_train;
  in_range("n_ctx", p.n_ctx, 1, 1 << 30);
  p.n_batch = std::min(in_range("n_batch", p.n_batch, 1, 1 << 20), p.n_ctx);
  if (in_range("n_threads", p.n_threads, 0, kMostThreads) == 0)
    p.n_threads = default_thread_count();
  if (in_range("n_threads_batch", p.n_threads_batch, 0, kMostThreads) == 0)
    p.n_threads_batch = p.n_threads;
  in_range("max_sequences", p.max_sequences, 1, kMostSequences);
  in_range("n_parallel", p.n_parallel, 0, kMostSequences);
  in_range("stream_rows", p.stream_rows, 0, 1 << 20);
  with_overrides(config.rope, p.rope);  // throws for what cannot be
  for (const auto& [name, type] : {std::pair{"type_k", p.type_k}, std::pair{"type_v", p.type_v}})
    if (!backend.supports_kv(type, config.head_dim))
      fail(ErrorKind::unsupported, name, "=", traits(type).name, " is not possible with heads of ",
           config.head_dim,
           " values; f32, f16 and bf16 always are, q8_0 and q4_0 for multiples of 32; on a GPU "
           "f16, q8_0 and q4_0 are, up to 256 values");
  return p;
}

int64_t kv_tokens(const ContextParams& p, int32_t page_tokens) {
  if (p.n_parallel > 0) return int64_t(p.n_ctx) * p.n_parallel;
  return p.n_ctx + int64_t(p.max_sequences - 1) * page_tokens;
}

StreamShape stream_shape(const ModelConfig& c, const ContextParams& p, int32_t page_tokens) {
  const int64_t pages = (int64_t(p.n_ctx) + page_tokens - 1) / page_tokens;
  return {c.dim,
          c.n_ff,
          c.n_vocab,
          p.n_batch,
          p.n_threads,
          p.n_threads_batch,
          pages * std::min(p.n_batch, p.max_sequences),
          attention_shape(c, p),
          p.stream_rows > 0};
}

// A device that has no memory for other layers' weights does without them.
std::unique_ptr<Stream> Context::make_stream(Backend& backend, StreamShape& shape) {
  try {
    return backend.make_stream(shape);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::memory || !shape.borrows) throw;
  }
  shape.borrows = false;
  params_.stream_rows = 0;
  return backend.make_stream(shape);
}

Context::Context(std::shared_ptr<const Model> model, const ContextParams& params)
    : model_(std::move(model)),
      params_(checked(*model_, params)),
      cache_(kv_backends(*model_),
             {0, model_->config().n_kv_heads, model_->config().head_dim, params_.type_k,
              params_.type_v},
             params_.n_ctx, kv_tokens(params_, model_->backend(0).kv_page_tokens()),
             params_.max_sequences),
      tokens_(size_t(params_.max_sequences)),
      adapters_(tokens_.size()),
      applied_(tokens_.size()) {
  const int32_t n_layers = model_->config().n_layers;
  StreamShape shape = stream_shape(model_->config(), params_, model_->backend(0).kv_page_tokens());
  const auto add_step = [&](Backend& backend) {
    std::unique_ptr<Stream>& stream = &backend == model_->gpu() ? gpu_stream_ : cpu_stream_;
    if (!stream) stream = make_stream(backend, shape);
    steps_.streams.push_back(stream.get());
  };
  for (int32_t i = 0; i < n_layers; ++i) {
    add_step(model_->backend(i));
    add_step(model_->ffn_backend(i));
  }
  add_step(model_->backend(n_layers));
  if (params_.stream_rows > 0) {
    streamed_steps_ = steps_;
    for (size_t i = 1; i < steps_.streams.size(); i += 2)
      streamed_steps_.streams[i] = gpu_stream_.get();
  }
  if (!params_.measure_inputs) return;
  input_squares_ = std::make_unique<InputSquares>(*model_);
  for (Stream* stream : {cpu_stream_.get(), gpu_stream_.get()})
    if (stream) stream->observe(input_squares_.get());
}

const std::vector<int32_t>& Context::tokens(int32_t sequence) const {
  cache_.length(sequence);  // checks the index
  return tokens_[size_t(sequence)];
}

Context::Match Context::best_match(std::span<const int32_t> tokens,
                                   std::span<const AdapterUse> adapters) const {
  Match best = {0, 0};
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::vector<int32_t>& held = tokens_[i];
    const size_t most = std::min(held.size(), tokens.size());
    if (most <= size_t(best.length)) continue;
    if (!std::equal(adapters_[i].begin(), adapters_[i].end(), adapters.begin(), adapters.end()))
      continue;
    const auto end = held.begin() + std::ptrdiff_t(most);
    const int32_t length =
        int32_t(std::mismatch(held.begin(), end, tokens.begin()).first - held.begin());
    if (length > best.length) best = {int32_t(i), length};
  }
  return best;
}

void Context::trim(int32_t sequence, int32_t length) {
  cache_.trim(sequence, length);
  tokens_[size_t(sequence)].resize(size_t(length));
}

void Context::fork(int32_t from, int32_t to) {
  cache_.fork(from, to);
  tokens_[size_t(to)] = tokens_[size_t(from)];
  adapters_[size_t(to)] = adapters_[size_t(from)];
  applied_[size_t(to)] = applied_[size_t(from)];
}

const std::vector<AdapterUse>& Context::adapters(int32_t sequence) const {
  cache_.length(sequence);  // checks the index
  return adapters_[size_t(sequence)];
}

void Context::set_adapters(int32_t sequence, std::vector<AdapterUse> adapters) {
  for (const AdapterUse& use : adapters) {
    if (&use.adapter->model() != model_.get())
      fail(ErrorKind::invalid_argument, use.adapter->name(),
           ": this adapter was loaded for another model than the context's");
    if (!std::isfinite(use.scale))
      fail(ErrorKind::invalid_argument, use.adapter->name(), ": the adapter's scale is ", use.scale,
           ", expected a finite number");
  }
  std::erase_if(adapters, [](const AdapterUse& use) { return use.scale == 0; });
  if (this->adapters(sequence) == adapters) return;
  std::vector<AppliedAdapter> applied;
  for (const AdapterUse& use : adapters)
    applied.push_back({use.adapter->layers().data(), use.adapter->most_rank(), use.scale});
  trim(sequence, 0);
  adapters_[size_t(sequence)] = std::move(adapters);
  applied_[size_t(sequence)] = std::move(applied);
}

std::span<const float> Context::logits(int32_t output) const {
  if (output < 0 || output >= n_outputs_)
    fail(ErrorKind::invalid_argument, "logits of output ", output, " were asked for; there are ",
         n_outputs_);
  const size_t n_vocab = size_t(model_->config().n_vocab);
  return {results_.data() + size_t(output) * n_vocab, n_vocab};
}

void Context::check(std::span<const BatchPiece> pieces) const {
  for (size_t i = 0; i < pieces.size(); ++i) {
    cache_.length(pieces[i].sequence);
    for (size_t j = 0; j < i; ++j)
      if (pieces[j].sequence == pieces[i].sequence)
        fail(ErrorKind::invalid_argument, "sequence ", pieces[i].sequence,
             " is in the batch more than once");
    check(pieces[i].tokens);
  }
}

void Context::check(std::span<const int32_t> tokens) const {
  const int32_t n_vocab = model_->config().n_vocab;
  for (int32_t token : tokens)
    if (token < 0 || token >= n_vocab)
      fail(ErrorKind::invalid_argument, "token ", token, " is outside the vocabulary of ", n_vocab);
}

std::string Context::kv_layout() const {
  const ModelConfig& c = model_->config();
  const RopeScaling rope = with_overrides(c.rope, params_.rope).scaling;
  const std::string set = params_.rope.description();
  const bool is_long =
      rope.kind == RopeScaling::Kind::longrope && params_.n_ctx > rope.original_context;
  std::ostringstream words;
  words << "keys " << traits(params_.type_k).name << ", values " << traits(params_.type_v).name
        << ", pages of " << model_->backend(0).kv_page_tokens() << " tokens, " << c.n_kv_heads
        << " heads of " << c.head_dim << ", " << std::min(c.n_layers, model_->n_cpu_layers())
        << " of " << c.n_layers << " layers on the CPU" << (is_long ? ", long rotation" : "")
        << (set.empty() ? "" : ", RoPE of " + set);
  return words.str();
}

void Context::load(int32_t sequence, std::span<const int32_t> tokens,
                   std::span<const std::byte> pages) {
  check(tokens);
  if (!adapters(sequence).empty())
    fail(ErrorKind::invalid_argument, "sequence ", sequence, " uses adapters; pages have none");
  const size_t page_tokens = size_t(model_->backend(0).kv_page_tokens()), n_bytes = page_bytes();
  const size_t n_pages = (tokens.size() + page_tokens - 1) / page_tokens;
  if (pages.size() != n_pages * n_bytes)
    fail(ErrorKind::invalid_argument, tokens.size(), " tokens have ", n_pages, " pages of ",
         n_bytes, " bytes, found ", pages.size(), " bytes");
  std::vector<int32_t>& held = tokens_[size_t(sequence)];
  const auto most = std::ptrdiff_t(std::min(held.size(), tokens.size()));
  const size_t n_same =
      size_t(std::mismatch(held.begin(), held.begin() + most, tokens.begin()).first - held.begin());
  const size_t first = n_same / page_tokens;
  trim(sequence, int32_t(first * page_tokens));
  cache_.append(sequence, int32_t(tokens.size() - first * page_tokens));
  for (size_t i = first; i < n_pages; ++i)
    cache_.write_page(sequence, int32_t(i), pages.data() + i * n_bytes);
  held.assign(tokens.begin(), tokens.end());
}

bool Context::cancelled() { return cancel_requested_.exchange(false) || (poll_ && poll_()); }

size_t Context::width(Result result) const {
  return size_t(result == Result::hidden ? model_->config().dim : model_->config().n_vocab);
}

std::span<const float> Context::embed(std::span<const BatchPiece> pieces) {
  evaluate(pieces, Result::hidden);
  return results_;
}

void Context::evaluate(std::span<const BatchPiece> pieces, Result result) {
  check(pieces);
  size_t n_outputs = 0;
  for (const BatchPiece& p : pieces)
    n_outputs += p.logits == WantLogits::all ? p.tokens.size()
                                             : p.logits == WantLogits::last && !p.tokens.empty();
  n_outputs_ = 0;
  std::vector<int32_t> before;  // lengths to return to
  try {
    results_.resize(n_outputs * width(result));
    for (const BatchPiece& p : pieces) {
      before.push_back(cache_.length(p.sequence));
      cache_.append(p.sequence, int32_t(p.tokens.size()));
    }
    run(pieces, before, result);
  } catch (const std::exception& e) {
    for (size_t i = 0; i < before.size(); ++i) cache_.trim(pieces[i].sequence, before[i]);
    if (dynamic_cast<const std::bad_alloc*>(&e))
      fail(ErrorKind::memory, "not enough memory for the results of ", n_outputs, " tokens");
    throw;
  }
  for (const BatchPiece& p : pieces) {
    auto& held = tokens_[size_t(p.sequence)];
    held.insert(held.end(), p.tokens.begin(), p.tokens.end());
  }
  if (result == Result::logits) n_outputs_ = int32_t(n_outputs);
}

// Cuts the pieces into batches of at most n_batch rows.
void Context::run(std::span<const BatchPiece> pieces, const std::vector<int32_t>& before,
                  Result result) {
  float* results = results_.data();
  batch_.clear();
  const auto flush = [&] {
    if (batch_.tokens.empty()) return;
    const int32_t n_rows = int32_t(batch_.tokens.size());
    const bool streamed = params_.stream_rows > 0 && n_rows >= params_.stream_rows;
    forward(
        *model_, streamed ? streamed_steps_ : steps_, cache_, batch_.view(), result, results,
        [](void* self) { return static_cast<Context*>(self)->cancelled(); }, this);
    results += batch_.outputs.size() * width(result);
    batch_.clear();
  };
  for (size_t i = 0; i < pieces.size(); ++i) {
    const BatchPiece& p = pieces[i];
    const int32_t n = int32_t(p.tokens.size());
    for (int32_t done = 0; done < n;) {
      const int32_t row = int32_t(batch_.tokens.size());
      const int32_t take = std::min(n - done, params_.n_batch - row);
      for (int32_t t = done; t < done + take; ++t) {
        if (p.logits == WantLogits::all || (p.logits == WantLogits::last && t == n - 1))
          batch_.outputs.push_back(row + t - done);
        batch_.tokens.push_back(p.tokens[size_t(t)]);
        batch_.positions.push_back(before[i] + t);
      }
      batch_.sequences.push_back(
          {row, row + take, cache_.pages(p.sequence), applied_[size_t(p.sequence)]});
      done += take;
      if (row + take == params_.n_batch) flush();
    }
  }
  flush();
  model_->files().require_unchanged();
}

}  // namespace pyllamacpp
