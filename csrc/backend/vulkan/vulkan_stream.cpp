// The ops of a forward pass on the GPU: recorded as they are called, submitted when there is enough
// of it or at the end. Norms, products, rotation, attention: one dispatch each.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "backend/vulkan/borrowed_weights.h"
#include "backend/vulkan/vulkan_backend.h"
#include "backend/vulkan/vulkan_memory.h"
#include "base/error.h"
#include "quant/dequantize.h"

namespace pyllamacpp::vk {

namespace {

constexpr int32_t kPageTokens = 32;
constexpr uint32_t kHeadRows = 32;  // rows whose logits are computed and read at a time

// How many floats a row of each of the stream's buffers has.
struct StreamRows {
  explicit StreamRows(const StreamShape& s)
      : dim(padded(s.dim)),
        n_ff(padded(s.n_ff)),
        q(padded(int64_t(s.attention.n_heads) * s.attention.head_dim)),
        kv(padded(int64_t(s.attention.n_kv_heads) * s.attention.head_dim)),
        vocab(padded(s.n_vocab)),
        rotated(std::max(q, padded(dim / 32 * kCodeWords))) {}
  int64_t dim, n_ff, q, kv, vocab;
  int64_t rotated;  // of q_rotated_, where codes may lie
  int64_t longest() const { return std::max({dim, n_ff, q}); }
};

// What a stream allocates, in bytes.
struct StreamBytes {
  explicit StreamBytes(const StreamShape& s) {
    const StreamRows rows(s);
    const auto words = [](int64_t n_rows, int64_t n) {
      return aligned(uint64_t(n_rows) * uint64_t(n) * sizeof(uint32_t));
    };
    const int64_t n = s.max_rows, head_rows = std::min<int64_t>(n, kHeadRows);
    buffers = 2 * words(n, rows.dim) + 2 * words(n, rows.q) + words(n, rows.rotated) +
              2 * words(n, rows.kv) + 2 * words(n, rows.n_ff) + words(head_rows, rows.vocab);
    // As begin() lays them out; an empty one still has four words.
    inputs = words(n, s.attention.rope_dims) + words(n, 1) + words(n, 4) + words(s.max_pages, 1) +
             words(n, 1) + 5 * aligned(16);
    upload = inputs + words(n, rows.dim) + 64;
    borrowed = s.borrows ? BorrowedWeights::bytes(s) : 0;
    readback = std::max(words(head_rows, rows.vocab), words(n, rows.dim));
  }
  uint64_t buffers, inputs;   // on the device
  uint64_t borrowed;          // on the device, and as much for uploads on the machine
  uint64_t upload, readback;  // on the machine
};

class VulkanStream final : public Stream {
 public:
  VulkanStream(Device& device, const StreamShape& shape)
      : device_(device), shape_(shape), memory_(device, "batch"), ops_(device) {
    const StreamRows rows(shape);
    const uint64_t longest = uint64_t(shape.max_rows) * uint64_t(rows.longest()) * sizeof(float);
    if (longest > device.max_slice() || shape.max_rows > int32_t(kMostGroups))
      fail(
          ErrorKind::unsupported, "a batch of ", shape.max_rows, " tokens is too large for ",
          device.info().name, "; the most is ",
          std::min<uint64_t>(kMostGroups, uint64_t(shape.max_rows) * device.max_slice() / longest));
    const StreamBytes bytes(shape);
    if (shape.borrows) borrowed_.emplace(device, shape, bytes.upload);
    ops_.encoder.begin(bytes.upload + (borrowed_ ? borrowed_->upload_bytes() : 0), bytes.readback);
    memory_.reserve(bytes.buffers + bytes.inputs);
    const auto make = [&](int64_t stride, int64_t n_rows) {
      const Slice slice = memory_.take(uint64_t(n_rows * stride) * sizeof(float));
      ops_.encoder.zero(slice);
      return Rows{slice, uint32_t(stride)};
    };
    x_ = make(rows.dim, shape.max_rows);
    normed_ = make(rows.dim, shape.max_rows);
    q_ = make(rows.q, shape.max_rows);
    q_rotated_ = make(rows.rotated, shape.max_rows);
    q_rotated_.stride = q_.stride;
    attended_ = make(rows.q, shape.max_rows);
    k_ = make(rows.kv, shape.max_rows);
    v_ = make(rows.kv, shape.max_rows);
    gate_ = make(rows.n_ff, shape.max_rows);
    up_ = make(rows.n_ff, shape.max_rows);
    logits_ = make(rows.vocab, std::min<int64_t>(shape.max_rows, kHeadRows));
    if (device.uses_integer_dot()) {
      // Codes take the place of what holds nothing while they are used: rotated queries are made
      // after the products of the first norm, and read before the next codes are made.
      normed_.codes = attended_.codes = q_rotated_.data;
      gate_.codes = up_.data;
    }
    inputs_ = memory_.take(bytes.inputs);
    ops_.encoder.finish();
  }

  void begin(const BatchView& batch) override;
  void embed(const Weight& table) override;
  void project_qkv(const LayerWeights& layer, KvLayer& kv) override;
  void attend(const KvLayer& kv) override;
  void project_attended(const LayerWeights& layer) override;
  void feed_forward(const LayerWeights& layer) override;
  void head(const Weight& norm, const Weight& output, float* logits) override;
  void hidden(const Weight& norm, float* rows) override;
  void read_rows(float* x) override { read(x_, n_rows(), shape_.dim, x); }
  void write_rows(const float* x) override;
  void submit() override { ops_.encoder.finish(); }
  void observe(InputObserver* observer) override { observer_ = observer; }

 private:
  uint32_t n_rows() const { return uint32_t(batch_.tokens.size()); }
  const AttentionShape& attention() const { return shape_.attention; }
  void norm(const Weight& weight) {
    const Slice vector = is_vulkan(weight) ? as_vulkan(weight).vector
                                           : borrowed_->vector(ops_.encoder, weight.source);
    ops_.rms_norm(x_, vector, normed_, n_rows(), uint32_t(shape_.dim), attention().norm_eps);
    ops_.quantize(normed_, n_rows());
  }
  void matmul(const Weight& weight, const Rows& x, const Rows& y, bool accumulate = false,
              Order order = Order::after_last) {
    if (is_vulkan(weight))
      ops_.matmul(as_vulkan(weight).matrix, x, y, n_rows(), accumulate, order);
    else
      borrowed_->matmul(ops_, weight.source, x, y, n_rows(), accumulate);
  }
  // The first n_rows rows, without the padding; returns when they are there.
  void read(const Rows& rows, uint32_t n_rows, int64_t n, float* out);
  void show(const LayerWeights& layer, LayerInput input, const Rows& rows, int64_t n);
  void finish_heads(const Weight* bias, const Weight* norm, const Rows& x, int32_t n_heads);

  Device& device_;
  StreamShape shape_;
  DeviceArena memory_;
  std::optional<BorrowedWeights> borrowed_;  // before ops_, which may still be at them
  Ops ops_;
  BatchView batch_;
  Ops::Positions positions_{};
  Slice outputs_;  // uint32: the rows whose logits are wanted
  Slice inputs_;   // what begin() uploads
  InputObserver* observer_ = nullptr;
  std::vector<float> shown_;  // [n_rows][n], for the observer
  Rows x_, normed_, q_, q_rotated_, attended_, k_, v_, gate_, up_, logits_;
};

void VulkanStream::begin(const BatchView& batch) {
  batch_ = batch;
  uint64_t n_pages = 0;
  const auto pages_of = [&](const SequenceRows& s) {
    return uint64_t(batch.positions[size_t(s.row_end) - 1] / kPageTokens) + 1;
  };
  for (const SequenceRows& s : batch.sequences)
    if (s.row_begin < s.row_end) n_pages += pages_of(s);
  // The parts of the one upload.
  uint64_t size = 0;
  const auto part = [&](uint64_t n_words) {
    const Slice slice{{}, size, std::max<uint64_t>(n_words, 4) * sizeof(uint32_t)};
    size = device_.align(size + slice.size);
    return slice;
  };
  const uint32_t rope_dims = uint32_t(attention().rope_dims);
  positions_ = {part(uint64_t(n_rows()) * rope_dims), part(n_rows()), part(uint64_t(n_rows()) * 4),
                part(n_pages), n_rows()};
  outputs_ = part(batch.outputs.size());
  const uint64_t x_bytes = uint64_t(n_rows()) * x_.stride * sizeof(float);
  const uint64_t logit_bytes =
      std::min<uint64_t>(batch.outputs.size(), kHeadRows) * logits_.stride * sizeof(float);
  const uint64_t row_bytes =
      uint64_t(observer_ ? StreamRows(shape_).longest() : int64_t(x_.stride)) * sizeof(float);
  ops_.encoder.begin(size + x_bytes + 64, std::max(logit_bytes, n_rows() * row_bytes));
  for (Slice* slice :
       {&positions_.rope, &positions_.slots, &positions_.rows, &positions_.pages, &outputs_}) {
    slice->buffer = inputs_.buffer;
    slice->offset += inputs_.offset;
  }
  std::byte* out =
      static_cast<std::byte*>(ops_.encoder.upload({inputs_.buffer, inputs_.offset, size}));
  const auto words = [&](const Slice& slice) {
    return reinterpret_cast<uint32_t*>(out + (slice.offset - inputs_.offset));
  };
  float* rope = reinterpret_cast<float*>(words(positions_.rope));
  const uint32_t half = rope_dims / 2;
  for (uint32_t row = 0; row < n_rows(); ++row, rope += rope_dims)
    for (uint32_t i = 0; i < half; ++i) {
      const double angle = batch.positions[row] * attention().rope_frequencies[i];
      rope[i] = float(std::cos(angle)) * attention().rope_scale;
      rope[half + i] = float(std::sin(angle)) * attention().rope_scale;
    }
  uint32_t* pages = words(positions_.pages);
  uint32_t first_page = 0;
  for (const SequenceRows& s : batch.sequences) {
    if (s.row_begin == s.row_end) continue;
    for (int32_t row = s.row_begin; row < s.row_end; ++row) {
      const int32_t position = batch.positions[size_t(row)], end = position + 1;
      const int32_t window = attention().window;
      words(positions_.slots)[row] =
          uint32_t(s.pages[position / kPageTokens] * kPageTokens + position % kPageTokens);
      uint32_t* info = words(positions_.rows) + size_t(row) * 4;
      info[0] = first_page;
      info[1] = uint32_t(window > 0 && end > window ? end - window : 0);
      info[2] = uint32_t(end);
      info[3] = 0;
    }
    const uint64_t n = pages_of(s);
    for (uint64_t i = 0; i < n; ++i) pages[first_page + i] = uint32_t(s.pages[i]);
    first_page += uint32_t(n);
  }
  std::copy(batch.outputs.begin(), batch.outputs.end(), words(outputs_));
}

void VulkanStream::embed(const Weight& table) {
  const WeightSource& s = as_vulkan(table).source;
  const size_t row_bytes = bytes_of(s.type, uint64_t(s.cols));
  const Slice rows{x_.data.buffer, x_.data.offset, uint64_t(n_rows()) * x_.stride * sizeof(float)};
  float* out = static_cast<float*>(ops_.encoder.upload(rows));
  for (uint32_t row = 0; row < n_rows(); ++row, out += x_.stride) {
    dequantize(s.type, s.data.data() + size_t(batch_.tokens[row]) * row_bytes, out, shape_.dim);
    std::fill(out + shape_.dim, out + x_.stride, 0.0f);
  }
}

void VulkanStream::write_rows(const float* x) {
  const Slice rows{x_.data.buffer, x_.data.offset, uint64_t(n_rows()) * x_.stride * sizeof(float)};
  float* out = static_cast<float*>(ops_.encoder.upload(rows));
  for (uint32_t row = 0; row < n_rows(); ++row, x += shape_.dim, out += x_.stride) {
    std::copy_n(x, shape_.dim, out);
    std::fill(out + shape_.dim, out + x_.stride, 0.0f);
  }
}

void VulkanStream::read(const Rows& rows, uint32_t n_rows, int64_t n, float* out) {
  const Slice wanted{rows.data.buffer, rows.data.offset,
                     uint64_t(n_rows) * rows.stride * sizeof(float)};
  const float* from = static_cast<const float*>(ops_.encoder.read(wanted));
  ops_.encoder.finish();
  for (uint32_t row = 0; row < n_rows; ++row, from += rows.stride, out += n)
    std::copy_n(from, n, out);
}

void VulkanStream::show(const LayerWeights& layer, LayerInput input, const Rows& rows, int64_t n) {
  if (!observer_) return;
  shown_.resize(size_t(n_rows()) * size_t(n));
  read(rows, n_rows(), n, shown_.data());
  observer_->see(layer, input, shown_.data(), n_rows(), n);
}

// What follows the projection of queries or keys, before the rotation.
void VulkanStream::finish_heads(const Weight* bias, const Weight* norm, const Rows& x,
                                int32_t n_heads) {
  const uint32_t head_dim = uint32_t(attention().head_dim);
  if (bias) ops_.add_bias(x, as_vulkan(*bias).vector, n_rows(), uint32_t(n_heads) * head_dim);
  if (norm)
    ops_.rms_norm_heads(x, as_vulkan(*norm).vector, n_rows(), uint32_t(n_heads), head_dim,
                        attention().norm_eps);
}

void VulkanStream::project_qkv(const LayerWeights& layer, KvLayer& kv) {
  const AttentionShape& a = attention();
  norm(*layer.attention_norm);
  show(layer, LayerInput::attention, normed_, shape_.dim);
  matmul(*layer.q, normed_, q_);
  matmul(*layer.k, normed_, k_, false, Order::with_last);
  matmul(*layer.v, normed_, v_, false, Order::with_last);
  finish_heads(layer.q_bias.get(), layer.q_norm.get(), q_, a.n_heads);
  finish_heads(layer.k_bias.get(), layer.k_norm.get(), k_, a.n_kv_heads);
  finish_heads(layer.v_bias.get(), nullptr, v_, a.n_kv_heads);
  ops_.rope_store(a, positions_, q_, k_, v_, q_rotated_, static_cast<VulkanKvLayer&>(kv).kv);
}

void VulkanStream::attend(const KvLayer& kv) {
  ops_.attention(attention(), positions_, q_rotated_, static_cast<const VulkanKvLayer&>(kv).kv,
                 attended_);
}

void VulkanStream::project_attended(const LayerWeights& layer) {
  show(layer, LayerInput::attended, attended_, int64_t(attention().n_heads) * attention().head_dim);
  ops_.quantize(attended_, n_rows());
  matmul(*layer.attention_out, attended_, x_, true);
}

void VulkanStream::feed_forward(const LayerWeights& layer) {
  norm(*layer.ffn_norm);
  show(layer, LayerInput::feed_forward, normed_, shape_.dim);
  matmul(*layer.gate, normed_, gate_);
  matmul(*layer.up, normed_, up_, false, Order::with_last);
  ops_.swiglu(gate_, up_, n_rows(), uint32_t(shape_.n_ff));
  show(layer, LayerInput::hidden, gate_, shape_.n_ff);
  ops_.quantize(gate_, n_rows());
  matmul(*layer.down, gate_, x_, true);
  ops_.encoder.submit_if_long();
}

void VulkanStream::head(const Weight& norm, const Weight& output, float* logits) {
  const uint32_t n_outputs = uint32_t(batch_.outputs.size());
  for (uint32_t first = 0; first < n_outputs; first += kHeadRows) {
    const uint32_t n = std::min(kHeadRows, n_outputs - first);
    ops_.rms_norm(x_, as_vulkan(norm).vector, normed_, n, uint32_t(shape_.dim),
                  attention().norm_eps, outputs_, first);
    ops_.quantize(normed_, n);
    ops_.matmul(as_vulkan(output).matrix, normed_, logits_, n);
    const Slice wanted{logits_.data.buffer, logits_.data.offset,
                       uint64_t(n) * logits_.stride * sizeof(float)};
    const float* read = static_cast<const float*>(ops_.encoder.read(wanted));
    ops_.encoder.finish();
    for (uint32_t i = 0; i < n; ++i, read += logits_.stride, logits += shape_.n_vocab)
      std::copy_n(read, shape_.n_vocab, logits);
  }
}

void VulkanStream::hidden(const Weight& norm, float* rows) {
  const uint32_t n_outputs = uint32_t(batch_.outputs.size());
  if (n_outputs == 0) return;
  ops_.rms_norm(x_, as_vulkan(norm).vector, normed_, n_outputs, uint32_t(shape_.dim),
                attention().norm_eps, outputs_, 0);
  read(normed_, n_outputs, shape_.dim, rows);
}

}  // namespace

std::unique_ptr<Stream> make_vulkan_stream(Device& device, const StreamShape& shape) {
  return std::make_unique<VulkanStream>(device, shape);
}

}  // namespace pyllamacpp::vk

uint64_t pyllamacpp::vulkan_stream_bytes(const StreamShape& shape) {
  const vk::StreamBytes bytes(shape);
  return bytes.buffers + bytes.inputs + bytes.borrowed;
}

uint64_t pyllamacpp::vulkan_stream_host_bytes(const StreamShape& shape) {
  const vk::StreamBytes bytes(shape);
  return bytes.upload + bytes.borrowed + bytes.readback;
}
