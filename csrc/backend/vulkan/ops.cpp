#include "backend/vulkan/ops.h"

#include <algorithm>
#include <cmath>

namespace pyllamacpp::vk {

namespace {

// Up to this many columns the weights are read by matvec.comp, which is bound by memory.
constexpr uint32_t kMatvecCols = 8;

constexpr uint32_t groups_of(uint64_t n, uint32_t size) { return uint32_t((n + size - 1) / size); }

}  // namespace

void Ops::quantize(const Rows& x, uint32_t n_rows) {
  if (x.codes.size == 0) return;
  const struct {
    uint32_t n_blocks;
  } arguments{x.stride / 32};
  encoder.dispatch(Shader::quantize, {}, {x.data, x.codes}, arguments,
                   {groups_of(x.stride, 4 * 64), n_rows});
}

void Ops::matmul(const DeviceMatrix& weight, const Rows& x, const Rows& y, uint32_t n_cols,
                 bool accumulate, Order order) {
  const WeightLayout& l = *weight.layout;
  const uint32_t n_blocks = groups_of(uint64_t(weight.cols), 32);
  Constants constants{l.type, l.low_bits, l.high_bits, l.high_word, l.scale_word, l.tile_words};
  const bool few = n_cols <= kMatvecCols, dot = x.codes.size > 0 && l.low_bits <= 8;
  const Shader shader = few                          ? (dot ? Shader::matvec_dot : Shader::matvec)
                        : !dot                       ? Shader::matmul
                        : device_.uses_cooperative() ? Shader::matmul_cooperative
                                                     : Shader::matmul_dot;
  if (few) {
    const uint32_t most = std::min(512u, device_.limits().maxComputeWorkGroupInvocations) / 32;
    constants[6] = n_blocks <= 4 * 8 ? 4 : std::min(16u, most);
    constants[7] = n_cols == 1 ? 1 : n_cols == 2 ? 2 : 4;
  } else if (shader == Shader::matmul_cooperative) {
    const CooperativeShape& shape = device_.cooperative();
    constants[6] = shape.m;
    constants[7] = shape.n;
    constants[8] = shape.k;
    constants[9] = shape.span;
  }
  for (const DeviceMatrix::Part& part : weight.parts) {
    const struct {
      uint32_t n_rows, n_blocks, n_cols, x_stride, y_stride, y_offset, accumulate;
    } arguments{uint32_t(part.n_rows),    n_blocks,  n_cols, x.stride, y.stride,
                uint32_t(part.first_row), accumulate};
    const uint64_t cost = uint64_t(part.n_rows) * uint64_t(weight.cols) * n_cols;
    const Encoder::Groups groups =
        few ? Encoder::Groups{groups_of(uint64_t(part.n_rows), 32), groups_of(n_cols, constants[7])}
            : Encoder::Groups{groups_of(uint64_t(part.n_rows), 64), groups_of(n_cols, 64)};
    encoder.dispatch(shader, constants, {part.data, dot ? x.codes : x.data, y.data}, arguments,
                     groups, order, cost);
    order = Order::with_last;  // parts write different rows
  }
}

void Ops::norm(const Rows& x, Slice weight, const Rows& y, Slice source, Encoder::Groups groups,
               uint32_t n, uint32_t gather, float eps) {
  const struct {
    uint32_t n, x_stride, y_stride, inner_stride, gather;
    float eps;
  } arguments{n, x.stride, y.stride, n, gather, eps};
  encoder.dispatch(Shader::rms_norm, {}, {x.data, weight, y.data, source}, arguments, groups);
}

void Ops::rms_norm(const Rows& x, Slice weight, const Rows& y, uint32_t n_rows, uint32_t n,
                   float eps, Slice source, uint32_t first) {
  norm(x, weight, y, source, {1, n_rows}, n, first + 1, eps);
}

void Ops::rms_norm(const Rows& x, Slice weight, const Rows& y, uint32_t n_rows, uint32_t n,
                   float eps) {
  norm(x, weight, y, weight, {1, n_rows}, n, 0, eps);
}

void Ops::rms_norm_heads(const Rows& x, Slice weight, uint32_t n_rows, uint32_t n_heads,
                         uint32_t head_dim, float eps) {
  norm(x, weight, x, weight, {n_heads, n_rows}, head_dim, 0, eps);
}

void Ops::add_bias(const Rows& y, Slice bias, uint32_t n_rows, uint32_t n) {
  const struct {
    uint32_t n, stride;
  } arguments{n, y.stride};
  encoder.dispatch(Shader::add_bias, {}, {y.data, bias}, arguments, {groups_of(n, 256), n_rows});
}

void Ops::swiglu(const Rows& gate, const Rows& up, uint32_t n_rows, uint32_t n) {
  const struct {
    uint32_t n, stride;
  } arguments{n, gate.stride};
  encoder.dispatch(Shader::swiglu, {}, {gate.data, up.data}, arguments,
                   {groups_of(n, 256), n_rows});
}

void Ops::rope_store(const AttentionShape& shape, const Positions& p, const Rows& q, const Rows& k,
                     const Rows& v, const Rows& q_rotated, const DeviceKv& kv) {
  enum What : uint32_t { queries, keys, values };
  const uint32_t words = uint32_t(shape.head_dim) / 2;
  const auto record = [&](What what, const Rows& x, DType type, Slice cache, int32_t first_head,
                          int32_t n_heads, Order order) {
    const struct {
      uint32_t what, head_words, n_heads, first_head, x_stride, rope_dims, halves;
      float scale;
    } arguments{what,
                words,
                uint32_t(n_heads),
                uint32_t(first_head),
                x.stride,
                uint32_t(shape.rope_dims),
                shape.rope_layout == RopeLayout::halves,
                1.0f / std::sqrt(float(shape.head_dim))};
    const bool halves = type == DType::f16;
    const uint32_t n_groups = halves ? groups_of(uint64_t(n_heads) * words, 64)
                                     : uint32_t(n_heads) * groups_of(words, 32);
    encoder.dispatch(halves ? Shader::rope_store : Shader::store_blocks, {uint32_t(type)},
                     {x.data, p.rope, p.slots, q_rotated.data, cache}, arguments,
                     {n_groups, p.n_rows}, order);
  };
  record(queries, q, DType::f16, kv.parts[0].k.all(), 0, shape.n_heads, Order::after_last);
  for (const DeviceKv::Part& part : kv.parts) {
    record(keys, k, kv.type_k, part.k.all(), part.first_head, part.n_heads, Order::with_last);
    record(values, v, kv.type_v, part.v.all(), part.first_head, part.n_heads, Order::with_last);
  }
}

void Ops::attention(const AttentionShape& shape, const Positions& p, const Rows& q,
                    const DeviceKv& kv, const Rows& out) {
  const uint32_t group = uint32_t(shape.n_heads / shape.n_kv_heads);
  Order order = Order::after_last;
  for (const DeviceKv::Part& part : kv.parts) {
    const struct {
      uint32_t head_words, n_kv_heads, group, first_head, stride;
    } arguments{uint32_t(shape.head_dim) / 2, uint32_t(part.n_heads), group,
                uint32_t(part.first_head) * group, q.stride};
    encoder.dispatch(Shader::attention, {uint32_t(kv.type_k), uint32_t(kv.type_v)},
                     {q.data, part.k.all(), part.v.all(), p.pages, p.rows, out.data}, arguments,
                     {uint32_t(part.n_heads) * group, p.n_rows}, order);
    order = Order::with_last;
  }
}

}  // namespace pyllamacpp::vk
