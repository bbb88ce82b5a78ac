// The ops of a forward pass on the CPU. An op is one parallel region; inside it, threads meet only
// where one needs what another computed. How the work is split never changes a result: every
// output element is computed whole by one kernel call (cpu/kernel_table.h states the reductions).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "backend/cpu_memory.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "quant/dequantize.h"

namespace pyllamacpp {

namespace {

using cpu::ActKind;
using cpu::kRowGroup;

// Each thread has one contiguous range of a matrix's rows, which it reads in order. Batches up to
// this many rows are bound by reading; in larger ones threads go through their range in chunks, and
// then take chunks that others have left.
constexpr int kStreamedRows = 8;

// Rows that attention takes together, so that its tiles of queries are full.
constexpr int kAttentionRows = 8;

struct Range {
  int64_t begin, end;
};

// The part of [0, n) for one of n_threads, cut at multiples of `group`.
Range part_of(int64_t n, int64_t group, int thread, int n_threads) {
  const int64_t groups = (n + group - 1) / group;
  return {std::min(n, groups * thread / n_threads * group),
          std::min(n, groups * (thread + 1) / n_threads * group)};
}

// What one thread has for itself.
struct Private {
  Buffer panels;                // expanded weights
  Buffer acts[3];               // one row of activations of each kind
  Buffer floats;                // one row
  std::vector<const float*> q;  // the queries of one attention item
  std::vector<float*> out;
  std::vector<int32_t> first_key, n_keys;
};

// Rows taken from one thread's range, in each of the splits of a region.
struct alignas(64) Taken {
  std::atomic<int64_t> rows[4] = {};
};

// Activations of a batch in the form a weight type multiplies, [n_rows] columns of length k.
struct Acts {
  ActKind kind;
  int64_t k;
  std::byte* data;
  std::byte* column(int64_t i) const { return data + i * int64_t(cpu::act_bytes(kind, k)); }
};

ActKind kind_of(const Weight& w) { return as_cpu(w).kernels->act; }

constexpr auto every_row = [](int64_t i) { return i; };

class CpuStream final : public Stream {
 public:
  CpuStream(const cpu::KernelTable& kernels, const StreamShape& shape);

  void begin(const BatchView& batch) override;
  void embed(const Weight& table) override;
  void project_qkv(const LayerWeights& layer, KvLayer& kv) override;
  void attend(const KvLayer& kv) override;
  void project_attended(const LayerWeights& layer) override;
  void feed_forward(const LayerWeights& layer) override;
  void read_rows(float* x) override { std::copy_n(x_.as<float>(), n_rows() * shape_.dim, x); }
  void write_rows(const float* x) override {
    std::copy_n(x, n_rows() * shape_.dim, x_.as<float>());
  }
  void head(const Weight& norm, const Weight& output, float* logits) override;
  void hidden(const Weight& norm, float* rows) override;
  void submit() override {}
  void observe(InputObserver* observer) override { observer_ = observer; }

 private:
  int n_rows() const { return int(batch_.tokens.size()); }
  const AttentionShape& attention() const { return shape_.attention; }

  template <class Task>
  void run(const Task& task) {
    next_item_.store(0, std::memory_order_relaxed);
    for (Taken& taken : taken_)
      for (auto& rows : taken.rows) rows.store(0, std::memory_order_relaxed);
    pool_.run(n_threads_, task);
  }

  // Calls f(begin, end) for this thread's share of [0, n): see kStreamedRows. `phase` numbers the
  // splits of one region.
  template <class F>
  void for_share(int phase, int64_t n, int64_t group, int thread, const F& f) {
    if (n_rows() <= kStreamedRows) {
      const Range r = part_of(n, group, thread, n_threads_);
      if (r.begin < r.end) f(r.begin, r.end);
      return;
    }
    for (int i = 0; i < n_threads_; ++i) {
      const int owner = (thread + i) % n_threads_;
      const Range r = part_of(n, group, owner, n_threads_);
      std::atomic<int64_t>& taken = taken_[size_t(owner)].rows[phase];
      for (int64_t at; (at = r.begin + taken.fetch_add(group, std::memory_order_relaxed)) < r.end;)
        f(at, std::min(r.end, at + group));
    }
  }

  void quantize(const Acts& acts, int64_t column, int64_t from, const float* x, int64_t n) const;
  // Activations for `weight` of n rows, f(row) -> float[k]; returns when all rows are there. A
  // single row is done by every thread for itself, which is cheaper than waiting for another.
  template <class F>
  Acts fill(const Weight& weight, int64_t n, int thread, const F& f);
  // The same of norm(x), x being row row_of(i) of the residual.
  template <class F>
  Acts normed(const Weight& norm, const Weight& weight, int64_t n, int thread, const F& row_of);
  void matmul(const Weight& weight, const Acts& acts, int64_t n_cols, Range rows, float* y,
              int64_t y_stride, bool accumulate, int thread);
  void finish_heads(const Weight* bias, const Weight* norm, float* x, int32_t n_heads,
                    const float* cos_sin);
  // Calls f(sequence, change, scale, at) for each change of a layer's matrix that rows of the batch
  // use; `at` is where its products lie in low_.
  template <class F>
  void for_changes(const LayerWeights& layer, LowRank LayerAdapter::* matrix, const F& f) const;
  // normed_ = norm(x) of the rows that use adapters; returns when all are there.
  void norm_adapted(const Weight& norm, int thread);
  // low_[slot] = scale * a x of the rows that use adapters; threads must meet before it is used.
  void lower(const LayerWeights& layer, LowRank LayerAdapter::* matrix, const float* x, int64_t k,
             int slot, int thread);
  // y += b low_[slot], outputs [rows.begin, rows.end) of the same rows.
  void raise(const LayerWeights& layer, LowRank LayerAdapter::* matrix, int slot, Range rows,
             float* y, int64_t y_stride) const;
  // Shows the observer norm(x), which the ops themselves keep only as activations.
  void show_normed(const LayerWeights& layer, LayerInput input, const Weight& norm);

  const cpu::KernelTable& k_;
  StreamShape shape_;
  ThreadPool pool_;
  BatchView batch_;
  int n_threads_ = 1;
  bool adapted_ = false;                // whether a row uses adapters
  std::atomic<int64_t> next_item_ = 0;  // of attention
  std::vector<int64_t> slots_;  // [n_rows]: page * kPageTokens + offset of the row's own key

  Buffer x_;                  // [max_rows][dim]
  Buffer rope_;               // [max_rows][rope_dims]: cosines, then sines
  Buffer q_, k_new_, v_new_;  // [max_rows][heads * head_dim]
  Buffer attended_;           // [max_rows][n_heads * head_dim]
  Buffer gate_, up_;          // [max_rows][n_ff]
  Buffer acts_[3];   // [max_rows] columns of each kind; memory is committed for those in use
  Buffer ffn_acts_;  // rows of swiglu
  std::vector<Private> private_;  // per thread
  std::vector<Taken> taken_;      // per thread
  cpu::TypeKernels floats_ = {};  // of adapters' matrices
  std::vector<float> low_[3];     // of each adapter of each sequence [rows][rank]
  std::vector<float> normed_;     // [n_rows][dim]
  InputObserver* observer_ = nullptr;
  std::vector<float> shown_;  // [n_rows][dim], for the observer
};

// How long the stream's buffers are.
struct StreamSizes {
  StreamSizes(const cpu::KernelTable& kernels, const StreamShape& shape)
      : rows(size_t(shape.max_rows)),
        q_dim(int64_t(shape.attention.n_heads) * shape.attention.head_dim),
        kv_dim(int64_t(shape.attention.n_kv_heads) * shape.attention.head_dim),
        longest(std::max({shape.dim, shape.n_ff, q_dim})) {
    for (int i = 0; i < kernels.n_types; ++i)
      for (int64_t k : {shape.dim, shape.n_ff, q_dim})
        panels = std::max(panels, kernels.types[i].scratch_bytes(k));
  }
  size_t rows;
  int64_t q_dim, kv_dim, longest;
  size_t panels = 0;  // per thread
  // Quantized columns are smaller than floats by enough for any kind to fit.
  size_t act_row() const { return size_t(longest) * sizeof(float) + 64; }
};

CpuStream::CpuStream(const cpu::KernelTable& kernels, const StreamShape& shape)
    : k_(kernels), shape_(shape), pool_(std::max(shape.n_threads, shape.n_threads_batch)) {
  const StreamSizes sizes(kernels, shape);
  const size_t rows = sizes.rows, act_row = sizes.act_row();
  const int64_t q_dim = sizes.q_dim, kv_dim = sizes.kv_dim;
  const auto floats = [&](int64_t n) { return Buffer(rows * size_t(n) * sizeof(float), "batch"); };
  for (int i = 0; i < kernels.n_types; ++i)
    if (kernels.types[i].type == DType::f32) floats_ = kernels.types[i];
  x_ = floats(shape.dim);
  rope_ = floats(attention().rope_dims);
  q_ = floats(q_dim);
  k_new_ = floats(kv_dim);
  v_new_ = floats(kv_dim);
  attended_ = floats(q_dim);
  gate_ = floats(shape.n_ff);
  up_ = floats(shape.n_ff);
  for (Buffer& acts : acts_) acts = Buffer(rows * act_row, "batch");
  ffn_acts_ = Buffer(rows * act_row, "batch");
  const size_t queries =
      size_t(kAttentionRows) * size_t(attention().n_heads / attention().n_kv_heads);
  private_.resize(size_t(pool_.size()));
  taken_ = std::vector<Taken>(size_t(pool_.size()));
  for (Private& p : private_) {
    p.panels = Buffer(sizes.panels, "batch");
    for (Buffer& acts : p.acts) acts = Buffer(act_row, "batch");
    p.floats = Buffer(size_t(sizes.longest) * sizeof(float), "batch");
    p.q.reserve(queries);
    p.out.reserve(queries);
    p.first_key.reserve(queries);
    p.n_keys.reserve(queries);
  }
}

void CpuStream::begin(const BatchView& batch) {
  batch_ = batch;
  n_threads_ = n_rows() == 1 ? shape_.n_threads : shape_.n_threads_batch;
  slots_.resize(size_t(n_rows()));
  size_t n_low = 0;
  for (const SequenceRows& s : batch.sequences)
    for (const AppliedAdapter& a : s.adapters)
      n_low += size_t(s.row_end - s.row_begin) * size_t(a.most_rank);
  adapted_ = n_low > 0;
  if (adapted_) {
    for (std::vector<float>& low : low_) low.resize(n_low);
    normed_.resize(size_t(n_rows()) * size_t(shape_.dim));
  }
  for (const SequenceRows& s : batch.sequences)
    for (int32_t row = s.row_begin; row < s.row_end; ++row) {
      const int32_t position = batch.positions[size_t(row)];
      slots_[size_t(row)] = int64_t(s.pages[position / cpu::kPageTokens]) * cpu::kPageTokens +
                            position % cpu::kPageTokens;
    }
  const int half = attention().rope_dims / 2;
  run([&](int thread) {
    const Range r = part_of(n_rows(), 1, thread, n_threads_);
    for (int64_t row = r.begin; row < r.end; ++row) {
      float* out = rope_.as<float>() + row * attention().rope_dims;
      for (int i = 0; i < half; ++i) {
        const double angle = batch.positions[size_t(row)] * attention().rope_frequencies[size_t(i)];
        out[i] = float(std::cos(angle)) * attention().rope_scale;
        out[half + i] = float(std::sin(angle)) * attention().rope_scale;
      }
    }
  });
}

void CpuStream::embed(const Weight& table) {
  const WeightSource& s = as_cpu(table).source;
  const size_t row_bytes = bytes_of(s.type, uint64_t(s.cols));
  run([&](int thread) {
    const Range r = part_of(n_rows(), 1, thread, n_threads_);
    for (int64_t row = r.begin; row < r.end; ++row)
      dequantize(s.type, s.data.data() + size_t(batch_.tokens[size_t(row)]) * row_bytes,
                 x_.as<float>() + row * shape_.dim, shape_.dim);
  });
}

// Writes x[0 .. n) to the activations of `column` from element `from` on.
void CpuStream::quantize(const Acts& acts, int64_t column, int64_t from, const float* x,
                         int64_t n) const {
  std::byte* out = acts.column(column);
  switch (acts.kind) {
    case ActKind::q8_32:
      k_.quantize_q8_32(reinterpret_cast<cpu::ActBlock32*>(out) + from / kBlock, x, n);
      break;
    case ActKind::q8_256:
      k_.quantize_q8_256(reinterpret_cast<cpu::ActBlock256*>(out) + from / kSuperBlock, x, n);
      break;
    case ActKind::f32:
      std::copy(x, x + n, reinterpret_cast<float*>(out) + from);
      break;
  }
}

template <class F>
Acts CpuStream::fill(const Weight& weight, int64_t n, int thread, const F& f) {
  const CpuWeight& w = as_cpu(weight);
  const ActKind kind = w.kernels->act;
  const Private& own = private_[size_t(thread)];
  Acts acts{kind, w.source.cols, acts_[size_t(kind)].data()};
  if (n == 1) {
    acts.data = own.acts[size_t(kind)].data();
    quantize(acts, 0, 0, f(0, own.floats.as<float>()), acts.k);
    return acts;
  }
  const Range r = part_of(n, 1, thread, n_threads_);
  for (int64_t row = r.begin; row < r.end; ++row)
    quantize(acts, row, 0, f(row, own.floats.as<float>()), acts.k);
  pool_.barrier();
  return acts;
}

template <class F>
Acts CpuStream::normed(const Weight& norm, const Weight& weight, int64_t n, int thread,
                       const F& row_of) {
  return fill(weight, n, thread, [&](int64_t row, float* out) {
    k_.rms_norm(out, x_.as<float>() + row_of(row) * shape_.dim, as_cpu(norm).floats(), shape_.dim,
                attention().norm_eps);
    return static_cast<const float*>(out);
  });
}

void CpuStream::matmul(const Weight& weight, const Acts& acts, int64_t n_cols, Range rows, float* y,
                       int64_t y_stride, bool accumulate, int thread) {
  const CpuWeight& w = as_cpu(weight);
  const bool packed = w.packed != nullptr;
  const std::byte* data = packed ? w.packed : w.source.data.data();
  const cpu::MatmulArgs args{reinterpret_cast<const uint8_t*>(data),
                             w.source.rows,
                             w.source.cols,
                             rows.begin,
                             rows.end,
                             acts.data,
                             n_cols,
                             y,
                             y_stride,
                             accumulate,
                             private_[size_t(thread)].panels.as<uint8_t>()};
  (packed ? w.kernels->matmul_packed : w.kernels->matmul_rows)(args);
}

// What follows the projection of one row's queries or keys: bias, norm of each head, rotation.
void CpuStream::finish_heads(const Weight* bias, const Weight* norm, float* x, int32_t n_heads,
                             const float* cos_sin) {
  const AttentionShape& a = attention();
  const auto rotate = a.rope_layout == RopeLayout::halves ? k_.rope_halves : k_.rope_interleaved;
  if (bias) k_.add(x, as_cpu(*bias).floats(), int64_t(n_heads) * a.head_dim);
  for (int h = 0; h < n_heads; ++h, x += a.head_dim) {
    if (norm) k_.rms_norm(x, x, as_cpu(*norm).floats(), a.head_dim, a.norm_eps);
    rotate(x, cos_sin, a.rope_dims);
  }
}

template <class F>
void CpuStream::for_changes(const LayerWeights& layer, LowRank LayerAdapter::* matrix,
                            const F& f) const {
  int64_t at = 0;
  for (const SequenceRows& s : batch_.sequences)
    for (const AppliedAdapter& a : s.adapters) {
      const LowRank& change = a.layers[layer.index].*matrix;
      if (change.rank == 0) continue;
      f(s, change, a.scale * change.scale, at);
      at += (s.row_end - s.row_begin) * change.rank;
    }
}

void CpuStream::norm_adapted(const Weight& norm, int thread) {
  for (const SequenceRows& s : batch_.sequences) {
    if (s.adapters.empty()) continue;
    const Range r = part_of(s.row_end - s.row_begin, 1, thread, n_threads_);
    for (int64_t row = s.row_begin + r.begin; row < s.row_begin + r.end; ++row)
      k_.rms_norm(normed_.data() + row * shape_.dim, x_.as<float>() + row * shape_.dim,
                  as_cpu(norm).floats(), shape_.dim, attention().norm_eps);
  }
  pool_.barrier();
}

void CpuStream::lower(const LayerWeights& layer, LowRank LayerAdapter::* matrix, const float* x,
                      int64_t k, int slot, int thread) {
  for_changes(layer, matrix, [&](const SequenceRows& s, const LowRank& c, float scale, int64_t at) {
    const Range r = part_of(c.rank, 1, thread, n_threads_);
    if (r.begin == r.end) return;
    const int64_t n = r.end - r.begin, n_cols = s.row_end - s.row_begin;
    float* low = low_[slot].data() + at + r.begin;
    floats_.matmul_rows({reinterpret_cast<const uint8_t*>(c.a.data() + r.begin * k), n, k, 0, n,
                         x + s.row_begin * k, n_cols, low, c.rank, false, nullptr});
    for (int64_t col = 0; col < n_cols; ++col)
      for (int64_t i = 0; i < n; ++i) low[col * c.rank + i] *= scale;
  });
}

void CpuStream::raise(const LayerWeights& layer, LowRank LayerAdapter::* matrix, int slot,
                      Range rows, float* y, int64_t y_stride) const {
  for_changes(layer, matrix, [&](const SequenceRows& s, const LowRank& c, float, int64_t at) {
    floats_.matmul_rows({reinterpret_cast<const uint8_t*>(c.b.data()), y_stride, c.rank, rows.begin,
                         rows.end, low_[slot].data() + at, s.row_end - s.row_begin,
                         y + s.row_begin * y_stride, y_stride, true, nullptr});
  });
}

void CpuStream::show_normed(const LayerWeights& layer, LayerInput input, const Weight& norm) {
  shown_.resize(size_t(n_rows()) * size_t(shape_.dim));
  for (int64_t row = 0; row < n_rows(); ++row)
    k_.rms_norm(shown_.data() + row * shape_.dim, x_.as<float>() + row * shape_.dim,
                as_cpu(norm).floats(), shape_.dim, attention().norm_eps);
  observer_->see(layer, input, shown_.data(), n_rows(), shape_.dim);
}

void CpuStream::project_qkv(const LayerWeights& layer, KvLayer& kv) {
  if (observer_) show_normed(layer, LayerInput::attention, *layer.attention_norm);
  const AttentionShape& a = attention();
  const int64_t q_dim = int64_t(a.n_heads) * a.head_dim;
  const int64_t kv_dim = int64_t(a.n_kv_heads) * a.head_dim;
  const struct {
    const Weight& weight;
    LowRank LayerAdapter::* change;
    float* out;
    int64_t dim;
  } parts[] = {{*layer.q, &LayerAdapter::q, q_.as<float>(), q_dim},
               {*layer.k, &LayerAdapter::k, k_new_.as<float>(), kv_dim},
               {*layer.v, &LayerAdapter::v, v_new_.as<float>(), kv_dim}};
  const CpuKvLayer& cache = static_cast<CpuKvLayer&>(kv);
  run([&](int thread) {
    if (adapted_) {
      norm_adapted(*layer.attention_norm, thread);
      for (int i = 0; i < 3; ++i)
        lower(layer, parts[i].change, normed_.data(), shape_.dim, i, thread);
      pool_.barrier();
    }
    Acts acts{};
    for (int i = 0; i < 3; ++i) {
      const Weight& weight = parts[i].weight;
      if (i == 0 || kind_of(weight) != acts.kind)
        acts = normed(*layer.attention_norm, weight, n_rows(), thread, every_row);
      for_share(i, parts[i].dim, kRowGroup, thread, [&](int64_t begin, int64_t end) {
        matmul(weight, acts, n_rows(), {begin, end}, parts[i].out, parts[i].dim, false, thread);
        if (adapted_) raise(layer, parts[i].change, i, {begin, end}, parts[i].out, parts[i].dim);
      });
    }
    pool_.barrier();
    const float scale = 1.0f / std::sqrt(float(a.head_dim));
    const Range r = part_of(n_rows(), 1, thread, n_threads_);
    for (int64_t row = r.begin; row < r.end; ++row) {
      const float* cos_sin = rope_.as<float>() + row * a.rope_dims;
      float* q = q_.as<float>() + row * q_dim;
      float* k = k_new_.as<float>() + row * kv_dim;
      finish_heads(layer.q_bias.get(), layer.q_norm.get(), q, a.n_heads, cos_sin);
      k_.scale(q, scale, q_dim);
      finish_heads(layer.k_bias.get(), layer.k_norm.get(), k, a.n_kv_heads, cos_sin);
      float* v = v_new_.as<float>() + row * kv_dim;
      if (layer.v_bias) k_.add(v, as_cpu(*layer.v_bias).floats(), kv_dim);
      const int64_t slot = slots_[size_t(row)];
      const int64_t page = slot / cpu::kPageTokens;
      const int offset = int(slot % cpu::kPageTokens);
      for (int h = 0; h < a.n_kv_heads; ++h) {
        const int64_t at = int64_t(h) * a.head_dim;
        cache.k.type->store_key(cache.k.at(page, h), offset, k + at, a.head_dim);
        cache.v.type->store_value(cache.v.at(page, h), offset, v + at, a.head_dim);
      }
    }
  });
}

void CpuStream::attend(const KvLayer& layer) {
  const CpuKvLayer& kv = static_cast<const CpuKvLayer&>(layer);
  const AttentionShape& a = attention();
  const int group = a.n_heads / a.n_kv_heads;
  // With few rows the query heads of a KV head are parted, so that all threads have work.
  const int parts = n_rows() * a.n_kv_heads >= 2 * n_threads_ ? 1 : group;
  int64_t n_tiles = 0;
  for (const SequenceRows& s : batch_.sequences)
    n_tiles += (s.row_end - s.row_begin + kAttentionRows - 1) / kAttentionRows;
  const int64_t per_tile = int64_t(a.n_kv_heads) * parts;
  run([&](int thread) {
    auto& [panels, acts, floats, q, out, first_key, n_keys] = private_[size_t(thread)];
    for (int64_t item;
         (item = next_item_.fetch_add(1, std::memory_order_relaxed)) < n_tiles * per_tile;) {
      // The last tiles see the most keys: they go first, so that threads end together.
      int64_t tile = n_tiles - 1 - item / per_tile;
      const int kv_head = int(item % per_tile / parts), part = int(item % parts);
      const SequenceRows* s = batch_.sequences.data();
      for (;; ++s) {
        const int64_t tiles = (s->row_end - s->row_begin + kAttentionRows - 1) / kAttentionRows;
        if (tile < tiles) break;
        tile -= tiles;
      }
      const int32_t row_begin = s->row_begin + int32_t(tile) * kAttentionRows;
      const int32_t row_end = std::min(s->row_end, row_begin + kAttentionRows);
      q.clear();
      out.clear();
      first_key.clear();
      n_keys.clear();
      for (int32_t row = row_begin; row < row_end; ++row)
        for (int h = part * group / parts; h < (part + 1) * group / parts; ++h) {
          const int64_t at = (int64_t(row) * a.n_heads + kv_head * group + h) * a.head_dim;
          q.push_back(q_.as<float>() + at);
          out.push_back(attended_.as<float>() + at);
          const int32_t seen = batch_.positions[size_t(row)] + 1;
          first_key.push_back(a.window > 0 && seen > a.window ? seen - a.window : 0);
          n_keys.push_back(seen);
        }
      k_.attention({kv.k.type, kv.v.type, q.data(), out.data(), first_key.data(), n_keys.data(),
                    int32_t(q.size()), a.head_dim, s->pages, kv.k.at(0, kv_head),
                    kv.v.at(0, kv_head), kv.k.page_bytes, kv.v.page_bytes});
    }
  });
}

void CpuStream::project_attended(const LayerWeights& layer) {
  const int64_t q_dim = int64_t(attention().n_heads) * attention().head_dim;
  if (observer_)
    observer_->see(layer, LayerInput::attended, attended_.as<float>(), n_rows(), q_dim);
  run([&](int thread) {
    if (adapted_) {
      lower(layer, &LayerAdapter::attention_out, attended_.as<float>(), q_dim, 0, thread);
      pool_.barrier();
    }
    const Acts acts = fill(*layer.attention_out, n_rows(), thread, [&](int64_t row, float*) {
      return static_cast<const float*>(attended_.as<float>() + row * q_dim);
    });
    for_share(0, shape_.dim, kRowGroup, thread, [&](int64_t begin, int64_t end) {
      matmul(*layer.attention_out, acts, n_rows(), {begin, end}, x_.as<float>(), shape_.dim, true,
             thread);
      if (adapted_)
        raise(layer, &LayerAdapter::attention_out, 0, {begin, end}, x_.as<float>(), shape_.dim);
    });
  });
}

void CpuStream::feed_forward(const LayerWeights& layer) {
  if (observer_) show_normed(layer, LayerInput::feed_forward, *layer.ffn_norm);
  const CpuWeight& down = as_cpu(*layer.down);
  const Acts hidden{down.kernels->act, shape_.n_ff, ffn_acts_.data()};
  // A thread that has rows [begin, end) of gate and up can finish and quantize them alone, if
  // they are whole blocks of the activations.
  const int64_t chunk = hidden.kind == ActKind::q8_256 ? kSuperBlock : 2 * kRowGroup;
  run([&](int thread) {
    if (adapted_) {
      norm_adapted(*layer.ffn_norm, thread);
      lower(layer, &LayerAdapter::gate, normed_.data(), shape_.dim, 0, thread);
      lower(layer, &LayerAdapter::up, normed_.data(), shape_.dim, 1, thread);
      pool_.barrier();
    }
    const Acts gate_acts = normed(*layer.ffn_norm, *layer.gate, n_rows(), thread, every_row);
    const Acts up_acts = kind_of(*layer.up) == gate_acts.kind
                             ? gate_acts
                             : normed(*layer.ffn_norm, *layer.up, n_rows(), thread, every_row);
    for_share(0, shape_.n_ff, chunk, thread, [&](int64_t begin, int64_t end) {
      matmul(*layer.gate, gate_acts, n_rows(), {begin, end}, gate_.as<float>(), shape_.n_ff, false,
             thread);
      matmul(*layer.up, up_acts, n_rows(), {begin, end}, up_.as<float>(), shape_.n_ff, false,
             thread);
      if (adapted_) {
        raise(layer, &LayerAdapter::gate, 0, {begin, end}, gate_.as<float>(), shape_.n_ff);
        raise(layer, &LayerAdapter::up, 1, {begin, end}, up_.as<float>(), shape_.n_ff);
      }
      for (int64_t row = 0; row < n_rows(); ++row) {
        float* gate = gate_.as<float>() + row * shape_.n_ff + begin;
        k_.swiglu(gate, gate, up_.as<float>() + row * shape_.n_ff + begin, end - begin);
        quantize(hidden, row, begin, gate, end - begin);
      }
    });
    pool_.barrier();
    if (adapted_) {
      lower(layer, &LayerAdapter::down, gate_.as<float>(), shape_.n_ff, 2, thread);
      pool_.barrier();
    }
    for_share(1, shape_.dim, kRowGroup, thread, [&](int64_t begin, int64_t end) {
      matmul(*layer.down, hidden, n_rows(), {begin, end}, x_.as<float>(), shape_.dim, true, thread);
      if (adapted_) raise(layer, &LayerAdapter::down, 2, {begin, end}, x_.as<float>(), shape_.dim);
    });
  });
  if (observer_)
    observer_->see(layer, LayerInput::hidden, gate_.as<float>(), n_rows(), shape_.n_ff);
}

void CpuStream::head(const Weight& norm, const Weight& output, float* logits) {
  const int64_t n = int64_t(batch_.outputs.size());
  if (n == 0) return;
  run([&](int thread) {
    const Acts acts = normed(norm, output, n, thread,
                             [&](int64_t i) { return int64_t(batch_.outputs[size_t(i)]); });
    for_share(0, shape_.n_vocab, 4 * kRowGroup, thread, [&](int64_t begin, int64_t end) {
      matmul(output, acts, n, {begin, end}, logits, shape_.n_vocab, false, thread);
    });
  });
}

void CpuStream::hidden(const Weight& norm, float* rows) {
  const int64_t n = int64_t(batch_.outputs.size());
  if (n == 0) return;
  run([&](int thread) {
    const Range r = part_of(n, 1, thread, n_threads_);
    for (int64_t i = r.begin; i < r.end; ++i)
      k_.rms_norm(rows + i * shape_.dim, x_.as<float>() + batch_.outputs[size_t(i)] * shape_.dim,
                  as_cpu(norm).floats(), shape_.dim, attention().norm_eps);
  });
}

}  // namespace

size_t cpu_stream_bytes(const cpu::KernelTable& kernels, const StreamShape& shape) {
  const StreamSizes s(kernels, shape);
  const int64_t row_floats =
      shape.dim + shape.attention.rope_dims + 2 * s.q_dim + 2 * s.kv_dim + 2 * shape.n_ff;
  const size_t threads = size_t(std::max(shape.n_threads, shape.n_threads_batch));
  const size_t thread = s.panels + 3 * s.act_row() + size_t(s.longest) * sizeof(float);
  return s.rows * (size_t(row_floats) * sizeof(float) + 4 * s.act_row()) + threads * thread;
}

std::unique_ptr<Stream> make_cpu_stream(const cpu::KernelTable& kernels, const StreamShape& shape) {
  if (shape.attention.head_dim > cpu::kMaxHeadDim)
    fail(ErrorKind::unsupported, "heads of ", shape.attention.head_dim,
         " values are not supported; the most is ", cpu::kMaxHeadDim);
  return std::make_unique<CpuStream>(kernels, shape);
}

}  // namespace pyllamacpp
