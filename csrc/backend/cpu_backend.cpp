#include "backend/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu_memory.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "cpu/isa.h"
#include "quant/dequantize.h"

namespace pyllamacpp {

namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(Repack repack, int n_threads)
      : kernels_(cpu::active_tier()),
        repack_(repack),
        pool_(std::make_unique<ThreadPool>(n_threads > 0 ? n_threads : default_thread_count())) {}

  bool supports(DType type) const override { return kernels_.find(type) != nullptr; }

  std::unique_ptr<Weight> load_matrix(const WeightSource& source) override {
    auto weight = std::make_unique<CpuWeight>();
    weight->source = source;
    weight->kernels = kernels_.find(source.type);
    if (!weight->kernels)
      fail(ErrorKind::unsupported, "no CPU kernels for weights of type ", traits(source.type).name);
    if (repack_ == Repack::automatic && weight->kernels->pack) pack(*weight);
    return weight;
  }

  size_t matrix_bytes(DType type, int64_t rows, int64_t cols) const override {
    const cpu::TypeKernels* k = kernels_.find(type);
    const bool packs = k && k->pack && repack_ == Repack::automatic;
    return packs ? k->packed_bytes(rows, cols) : 0;
  }

  size_t vector_bytes(int64_t cols) const override { return size_t(cols) * sizeof(float); }

  size_t kv_bytes(const KvShape& shape) const override {
    size_t page = 0;
    for (const DType type : {shape.type_k, shape.type_v})
      if (const cpu::KvKernels* k = kernels_.find_kv(type)) page += k->page_bytes(shape.head_dim);
    return size_t(shape.n_pages) * size_t(shape.n_kv_heads) * page;
  }

  size_t stream_bytes(const StreamShape& shape) const override {
    return cpu_stream_bytes(kernels_, shape);
  }

  std::unique_ptr<Weight> load_table(const WeightSource& source) override {
    auto weight = std::make_unique<CpuWeight>();
    weight->source = source;
    return weight;
  }

  std::unique_ptr<Weight> load_vector(const WeightSource& source) override {
    auto weight = std::make_unique<CpuWeight>();
    weight->source = source;
    weight->packed = arena_.take(size_t(source.cols) * sizeof(float), "weights");
    dequantize(source.type, source.data.data(), reinterpret_cast<float*>(weight->packed),
               source.cols);
    return weight;
  }

  void expect(size_t) override {}  // memory that is not written yet costs nothing

  uint64_t device_bytes() const override { return 0; }
  uint64_t device_bytes_free() const override { return 0; }

  void finish_loading() override { pool_.reset(); }

  bool supports_kv(DType type, int32_t head_dim) const override {
    const cpu::KvKernels* k = kernels_.find_kv(type);
    return k && head_dim % k->head_multiple == 0;
  }

  std::unique_ptr<KvLayer> make_kv(const KvShape& shape) override {
    auto kv = std::make_unique<CpuKvLayer>();
    const auto make = [&](CpuKvSide& side, DType type) {
      side.type = kernels_.find_kv(type);
      side.head_bytes = int64_t(side.type->page_bytes(shape.head_dim));
      side.page_bytes = side.head_bytes * shape.n_kv_heads;
      side.data = Buffer(size_t(shape.n_pages) * size_t(side.page_bytes), "KV cache");
    };
    make(kv->k, shape.type_k);
    make(kv->v, shape.type_v);
    kv->head_dim = shape.head_dim;
    kv->n_heads = shape.n_kv_heads;
    return kv;
  }

  void copy_page(KvLayer& layer, int32_t from, int32_t to) override {
    CpuKvLayer& kv = static_cast<CpuKvLayer&>(layer);
    for (const CpuKvSide* side : {&kv.k, &kv.v})
      std::memcpy(side->at(to, 0), side->at(from, 0), size_t(side->page_bytes));
  }

  size_t page_bytes(const KvLayer& layer) const override {
    const CpuKvLayer& kv = static_cast<const CpuKvLayer&>(layer);
    return size_t(kv.k.page_bytes + kv.v.page_bytes);
  }

  void read_page(const KvLayer& layer, int32_t page, int32_t n_tokens, std::byte* out) override {
    const CpuKvLayer& kv = static_cast<const CpuKvLayer&>(layer);
    read_side(kv.k, kv.k.type->store_key, kv, page, n_tokens, out);
    read_side(kv.v, kv.v.type->store_value, kv, page, n_tokens, out + kv.k.page_bytes);
  }

  void write_page(KvLayer& layer, int32_t page, const std::byte* bytes) override {
    CpuKvLayer& kv = static_cast<CpuKvLayer&>(layer);
    std::memcpy(kv.k.at(page, 0), bytes, size_t(kv.k.page_bytes));
    std::memcpy(kv.v.at(page, 0), bytes + kv.k.page_bytes, size_t(kv.v.page_bytes));
  }

  int32_t kv_page_tokens() const override { return cpu::kPageTokens; }

  std::unique_ptr<Stream> make_stream(const StreamShape& shape) override {
    return make_cpu_stream(kernels_, shape);
  }

 private:
  using Store = void (*)(uint8_t* page, int offset, const float* x, int32_t head_dim);

  static void read_side(const CpuKvSide& side, Store store, const CpuKvLayer& kv, int32_t page,
                        int32_t n_tokens, std::byte* out) {
    std::memcpy(out, side.at(page, 0), size_t(side.page_bytes));
    const float zeros[cpu::kMaxHeadDim] = {};
    for (int64_t head = 0; head < kv.n_heads; ++head)
      for (int32_t i = n_tokens; i < cpu::kPageTokens; ++i)
        store(reinterpret_cast<uint8_t*>(out) + head * side.head_bytes, i, zeros, kv.head_dim);
  }

  void pack(CpuWeight& weight) {
    const WeightSource& s = weight.source;
    const cpu::TypeKernels& k = *weight.kernels;
    weight.packed = arena_.take(k.packed_bytes(s.rows, s.cols), "packed weights");
    const int64_t groups = (s.rows + cpu::kRowGroup - 1) / cpu::kRowGroup;
    pool_->run(pool_->size(), [&](int thread) {
      const int64_t begin = groups * thread / pool_->size() * cpu::kRowGroup;
      const int64_t end = groups * (thread + 1) / pool_->size() * cpu::kRowGroup;
      k.pack(reinterpret_cast<const uint8_t*>(s.data.data()), s.rows, s.cols, begin,
             std::min(end, s.rows), reinterpret_cast<uint8_t*>(weight.packed));
    });
  }

  const cpu::KernelTable& kernels_;
  Repack repack_;
  Arena arena_;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(Repack repack, int n_threads) {
  return std::make_unique<CpuBackend>(repack, n_threads);
}

}  // namespace pyllamacpp
