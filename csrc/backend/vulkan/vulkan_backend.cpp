#include "backend/vulkan/vulkan_backend.h"

#include <algorithm>
#include <mutex>
#include <optional>

#include "backend/vulkan/vulkan_memory.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "quant/dequantize.h"

namespace pyllamacpp {

namespace vk {

namespace {

constexpr int32_t kPageTokens = 32;    // as attention.comp and rope_store.comp count
constexpr int32_t kMostHeadDim = 256;  // attention.comp's shared memory
constexpr uint64_t kUploadBytes = uint64_t{32} << 20;  // weights packed and copied at a time

// Of one head, of keys or values.
uint64_t page_bytes(DType type, int32_t head_dim) {
  return uint64_t(kPageTokens) * kv_token_words(type, head_dim) * sizeof(uint32_t);
}

class VulkanBackend final : public Backend {
 public:
  explicit VulkanBackend(const PhysicalDevice& physical)
      : device_(physical),
        weights_(device_, "weights"),
        ops_(device_),
        pool_(std::make_unique<ThreadPool>(default_thread_count())) {}

  bool supports(DType type) const override { return find_layout(type) != nullptr; }

  std::unique_ptr<Weight> load_matrix(const WeightSource& source) override {
    auto weight = std::make_unique<VulkanWeight>();
    weight->source = source;
    DeviceMatrix& m = weight->matrix;
    m.layout = find_layout(source.type);
    if (!m.layout)
      fail(ErrorKind::unsupported, "no GPU shaders for weights of type ", traits(source.type).name);
    m.rows = source.rows;
    m.cols = source.cols;
    const uint64_t panel = panel_bytes(*m.layout, m.cols);
    // An even number of panels is a multiple of 256 bytes, as aligned() has it.
    const int64_t panels = int64_t(device_.max_slice() / panel);
    const int64_t most = (panels > 1 ? panels / 2 * 2 : panels) * kPanelRows;
    if (most == 0)
      fail(ErrorKind::unsupported, device_.info().name, " binds ", device_.max_slice(),
           " bytes at a time, less than 32 rows of ", m.cols, " weights");
    for (int64_t row = 0; row < m.rows; row += most) {
      const int64_t n = std::min(most, m.rows - row);
      const int64_t n_panels = (n + kPanelRows - 1) / kPanelRows;
      m.parts.push_back({weights_.take(uint64_t(n_panels) * panel), row, n});
      upload(source, *m.layout, m.parts.back());
    }
    return weight;
  }

  size_t matrix_bytes(DType type, int64_t rows, int64_t cols) const override {
    return vulkan_matrix_bytes(type, rows, cols);
  }

  size_t vector_bytes(int64_t cols) const override { return vulkan_vector_bytes(cols); }

  size_t kv_bytes(const KvShape& shape) const override { return vulkan_kv_bytes(shape); }

  size_t stream_bytes(const StreamShape& shape) const override {
    return vulkan_stream_bytes(shape);
  }

  std::unique_ptr<Weight> load_table(const WeightSource& source) override {
    auto weight = std::make_unique<VulkanWeight>();
    weight->source = source;
    weight->is_table = true;
    return weight;
  }

  std::unique_ptr<Weight> load_vector(const WeightSource& source) override {
    auto weight = std::make_unique<VulkanWeight>();
    weight->source = source;
    const uint64_t n_bytes = uint64_t(source.cols) * sizeof(float);
    weight->vector = weights_.take(n_bytes);
    const std::lock_guard lock(mutex_);
    ops_.encoder.begin(n_bytes, 0);
    dequantize(source.type, source.data.data(),
               static_cast<float*>(ops_.encoder.upload(weight->vector)), source.cols);
    ops_.encoder.finish();
    return weight;
  }

  void expect(size_t n_bytes) override { weights_.reserve(n_bytes); }

  uint64_t device_bytes() const override { return device_.allocated(); }
  uint64_t device_bytes_free() const override { return device_.memory_free(); }

  void finish_loading() override {
    pool_.reset();
    ops_.encoder.drop_buffers();
  }

  size_t page_bytes(const KvLayer&) const override { refuse_pages(); }
  void read_page(const KvLayer&, int32_t, int32_t, std::byte*) override { refuse_pages(); }
  void write_page(KvLayer&, int32_t, const std::byte*) override { refuse_pages(); }

  int32_t kv_page_tokens() const override { return kPageTokens; }

  bool supports_kv(DType type, int32_t head_dim) const override {
    return vulkan_supports_kv(type, head_dim);
  }

  std::unique_ptr<KvLayer> make_kv(const KvShape& shape) override {
    auto layer = std::make_unique<VulkanKvLayer>();
    layer->kv.type_k = shape.type_k;
    layer->kv.type_v = shape.type_v;
    layer->k_page_bytes = vk::page_bytes(shape.type_k, shape.head_dim);
    layer->v_page_bytes = vk::page_bytes(shape.type_v, shape.head_dim);
    const uint64_t head_bytes =
        uint64_t(shape.n_pages) * std::max(layer->k_page_bytes, layer->v_page_bytes);
    const int32_t most =
        int32_t(std::min<uint64_t>(device_.max_slice() / head_bytes, uint64_t(shape.n_kv_heads)));
    if (most == 0)
      fail(ErrorKind::memory, device_.info().name, " binds ", device_.max_slice(),
           " bytes at a time; keys of ", shape.n_pages * kPageTokens, " tokens need ", head_bytes);
    for (int32_t head = 0; head < shape.n_kv_heads; head += most) {
      const int32_t n = std::min(most, shape.n_kv_heads - head);
      const auto memory = [&](uint64_t page_bytes) {
        return Memory(device_, uint64_t(n) * uint64_t(shape.n_pages) * page_bytes,
                      Memory::Kind::device, "KV cache");
      };
      layer->kv.parts.push_back(
          {memory(layer->k_page_bytes), memory(layer->v_page_bytes), head, n});
    }
    return layer;
  }

  void copy_page(KvLayer& layer, int32_t from, int32_t to) override {
    const VulkanKvLayer& kv = static_cast<VulkanKvLayer&>(layer);
    const std::lock_guard lock(mutex_);
    ops_.encoder.begin(0, 0);
    for (const DeviceKv::Part& part : kv.kv.parts) {
      const auto copy = [&](const Memory& side, uint64_t page_bytes) {
        const uint64_t bytes = uint64_t(part.n_heads) * page_bytes;
        ops_.encoder.copy(side.slice(uint64_t(from) * bytes, bytes),
                          side.slice(uint64_t(to) * bytes, bytes));
      };
      copy(part.k, kv.k_page_bytes);
      copy(part.v, kv.v_page_bytes);
    }
    ops_.encoder.finish();
  }

  std::unique_ptr<Stream> make_stream(const StreamShape& shape) override {
    return make_vulkan_stream(device_, shape);
  }

 private:
  [[noreturn]] static void refuse_pages() {
    fail(ErrorKind::unsupported,
         "keys and values that a GPU holds cannot be saved or loaded; layers on the CPU can");
  }

  // Packs and copies a part, kUploadBytes at a time.
  void upload(const WeightSource& source, const WeightLayout& layout,
              const DeviceMatrix::Part& part) {
    const uint64_t panel = panel_bytes(layout, source.cols);
    const int64_t n_panels = int64_t(part.data.size / panel);
    const int64_t step = std::max<int64_t>(1, int64_t(kUploadBytes / panel));
    const std::lock_guard lock(mutex_);
    for (int64_t first = 0; first < n_panels; first += step) {
      const int64_t n = std::min(step, n_panels - first);
      ops_.encoder.begin(uint64_t(n) * panel, 0);
      std::byte* out = static_cast<std::byte*>(ops_.encoder.upload(
          {part.data.buffer, part.data.offset + uint64_t(first) * panel, uint64_t(n) * panel}));
      pack_panels(*pool_, layout, source, part.first_row + first * kPanelRows, n, out);
      ops_.encoder.finish();
    }
  }

  Device device_;
  DeviceArena weights_;
  std::mutex mutex_;  // of ops_: contexts may copy pages at the same time
  Ops ops_;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace

}  // namespace vk

std::unique_ptr<Backend> make_vulkan_backend(size_t main_gpu) {
  const std::vector<vk::PhysicalDevice> devices = vk::physical_devices();
  std::vector<GpuInfo> list;
  list.reserve(devices.size());
  for (const vk::PhysicalDevice& d : devices) list.push_back(d.info);
  const std::optional<size_t> chosen = chosen_gpu(list, main_gpu);
  if (!chosen)
    fail(ErrorKind::unsupported,
         list.empty() ? "layers were asked to run on a GPU, and there is none here"
                      : "layers were asked to run on a GPU, and PYLLAMACPP_DEVICE is cpu");
  return std::make_unique<vk::VulkanBackend>(devices[*chosen]);
}

uint64_t vulkan_matrix_bytes(DType type, int64_t rows, int64_t cols) {
  const vk::WeightLayout* layout = vk::find_layout(type);
  const int64_t n_panels = (rows + vk::kPanelRows - 1) / vk::kPanelRows;
  return layout ? vk::aligned(uint64_t(n_panels) * vk::panel_bytes(*layout, cols)) : 0;
}

uint64_t vulkan_vector_bytes(int64_t cols) { return vk::aligned(uint64_t(cols) * sizeof(float)); }

uint64_t vulkan_kv_bytes(const KvShape& shape) {
  return uint64_t(shape.n_pages) * uint64_t(shape.n_kv_heads) *
         (vk::page_bytes(shape.type_k, shape.head_dim) +
          vk::page_bytes(shape.type_v, shape.head_dim));
}

bool vulkan_supports_kv(DType type, int32_t head_dim) {
  const bool blocks = type == DType::q8_0 || type == DType::q4_0;
  return (blocks || type == DType::f16) && head_dim % (blocks ? 32 : 2) == 0 &&
         head_dim <= vk::kMostHeadDim;
}

}  // namespace pyllamacpp
