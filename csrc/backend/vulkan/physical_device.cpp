#include "backend/vulkan/physical_device.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "backend/vulkan/instance.h"
#include "base/error.h"

namespace pyllamacpp {

namespace vk {

namespace {

constexpr uint32_t kVersion1_1 = 1u << 22 | 1u << 12;
constexpr uint32_t kVersion1_2 = 1u << 22 | 2u << 12;
constexpr uint32_t kVersion1_3 = 1u << 22 | 3u << 12;

// What the shaders take for granted; every desktop GPU since 2012 has it.
constexpr uint32_t kLeastInvocations = 256;

constexpr uint32_t kCooperativeSharedBytes = 24064;  // of matmul_cooperative.comp

const char* kind_name(uint32_t type) {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return "discrete";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return "virtual";
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return "integrated";
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
      return "software";
    default:
      return "";  // "other": nothing is known of it
  }
}

int rank(const std::string& kind) {
  constexpr std::string_view kOrder[] = {"discrete", "virtual", "integrated", "software"};
  return int(std::find(std::begin(kOrder), std::end(kOrder), kind) - kOrder);
}

bool has_extension(const Instance& vulkan, VkPhysicalDevice device, std::string_view name) {
  uint32_t n = 0;
  vulkan.call.EnumerateDeviceExtensionProperties(device, nullptr, &n, nullptr);
  std::vector<VkExtensionProperties> extensions(n);
  vulkan.call.EnumerateDeviceExtensionProperties(device, nullptr, &n, extensions.data());
  return std::any_of(extensions.begin(), extensions.end(),
                     [&](const auto& e) { return name == e.extensionName; });
}

void read_memory(const Instance& vulkan, PhysicalDevice& d) {
  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT, nullptr, {}, {}};
  d.has_budget = has_extension(vulkan, d.handle, "VK_EXT_memory_budget");
  VkPhysicalDeviceMemoryProperties2 memory{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, d.has_budget ? &budget : nullptr, {}};
  vulkan.call.GetPhysicalDeviceMemoryProperties2(d.handle, &memory);
  d.memory = memory.memoryProperties;
  d.info.memory = 0;
  for (uint32_t i = 0; i < d.memory.memoryHeapCount; ++i) {
    const VkMemoryHeap& heap = d.memory.memoryHeaps[i];
    if (!(heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) || heap.size <= d.info.memory) continue;
    d.info.memory = heap.size;
    d.info.memory_free =
        d.has_budget ? budget.heapBudget[i] - std::min(budget.heapBudget[i], budget.heapUsage[i])
                     : heap.size;
  }
  d.info.memory_free =
      std::min(d.info.memory_free, size_from("PYLLAMACPP_VK_MEM_LIMIT", UINT64_MAX));
}

constexpr char kCore[] = "core";  // 32-bit words and floats: what every device has
constexpr char kIntegerDot[] = "integer_dot";
constexpr char kCooperative[] = "cooperative_matrix";  // of bytes, for prompts; else integer_dot

// The tier of the shaders: what PYLLAMACPP_VK_TIER names, or the device's best.
const char* choose_tier(bool fast_integer_dot, bool cooperative) {
  const char* wanted = std::getenv("PYLLAMACPP_VK_TIER");
  if (!wanted || !*wanted)
    return !fast_integer_dot ? kCore : cooperative ? kCooperative : kIntegerDot;
  for (const char* tier : {kCore, kIntegerDot, kCooperative})
    if (std::string_view(wanted) == tier) return tier;
  fail(ErrorKind::invalid_argument, "PYLLAMACPP_VK_TIER is '", wanted, "', expected ", kCore, ", ",
       kIntegerDot, " or ", kCooperative);
}

// The largest shape that matmul_cooperative.comp takes.
CooperativeShape cooperative_shape(const Instance& vulkan, VkPhysicalDevice device) {
  uint32_t n = 0;
  vulkan.call.GetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &n, nullptr);
  std::vector<VkCooperativeMatrixPropertiesKHR> list(
      n, {VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR, nullptr, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  vulkan.call.GetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &n, list.data());
  CooperativeShape best;
  for (const VkCooperativeMatrixPropertiesKHR& p : list) {
    const bool bytes = p.AType == VK_COMPONENT_TYPE_SINT8_KHR &&
                       p.BType == VK_COMPONENT_TYPE_SINT8_KHR &&
                       p.CType == VK_COMPONENT_TYPE_SINT32_KHR &&
                       p.ResultType == VK_COMPONENT_TYPE_SINT32_KHR && !p.saturatingAccumulation;
    const auto divides = [](uint32_t size, uint32_t whole) {
      return size >= 8 && whole % size == 0;
    };
    if (!bytes || p.scope != VK_SCOPE_SUBGROUP_KHR || !divides(p.MSize, 64) ||
        !divides(p.NSize, 64) || !divides(p.KSize, 32))
      continue;
    if (p.MSize * p.NSize * p.KSize > best.m * best.n * best.k)
      best = {p.MSize, p.NSize, p.KSize, std::max(16u, p.KSize)};
  }
  return best;
}

void read_features(const Instance& vulkan, uint32_t version, PhysicalDevice& d) {
  const bool cooperative = version >= kVersion1_3 &&
                           has_extension(vulkan, d.handle, kCooperativeExtension) &&
                           d.limits.maxComputeSharedMemorySize >= kCooperativeSharedBytes;
  VkPhysicalDeviceVulkanMemoryModelFeatures model{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, nullptr, 0, 0, 0};
  VkPhysicalDeviceSubgroupSizeControlFeatures subgroups{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, &model, 0, 0};
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, &subgroups, 0, 0};
  VkPhysicalDeviceShaderIntegerDotProductFeatures dot{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
      cooperative ? &matrices : nullptr, 0};
  VkPhysicalDeviceShaderFloat16Int8Features small{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
      version >= kVersion1_3 ? &dot : nullptr, 0, 0};
  VkPhysicalDeviceFeatures2 features{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, version >= kVersion1_2 ? &small : nullptr, {}};
  vulkan.call.GetPhysicalDeviceFeatures2(d.handle, &features);
  if (small.shaderFloat16) d.info.features.push_back("fp16");
  if (small.shaderInt8) d.info.features.push_back("int8");
  if (dot.shaderIntegerDotProduct) d.info.features.push_back("dot");
  d.has_integer_dot = dot.shaderIntegerDotProduct;
  if (d.has_integer_dot && small.shaderInt8 && matrices.cooperativeMatrix &&
      subgroups.computeFullSubgroups && model.vulkanMemoryModel)
    d.cooperative = cooperative_shape(vulkan, d.handle);
  if (d.cooperative.m > 0) d.info.features.push_back("matrix");
  VkPhysicalDeviceShaderIntegerDotProductProperties speed{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES, nullptr, {}, 0, {}};
  VkPhysicalDeviceProperties2 properties{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, d.has_integer_dot ? &speed : nullptr, {}};
  vulkan.call.GetPhysicalDeviceProperties2(d.handle, &properties);
  d.info.tier =
      choose_tier(speed.integerDotProduct4x8BitPackedSignedAccelerated != 0, d.cooperative.m > 0);
  d.uses_integer_dot = d.info.tier != kCore;
  d.uses_cooperative = d.info.tier == kCooperative;
}

bool find_queue(const Instance& vulkan, PhysicalDevice& d) {
  uint32_t n = 0;
  vulkan.call.GetPhysicalDeviceQueueFamilyProperties(d.handle, &n, nullptr);
  std::vector<VkQueueFamilyProperties> families(n);
  vulkan.call.GetPhysicalDeviceQueueFamilyProperties(d.handle, &n, families.data());
  for (d.queue_family = 0; d.queue_family < n; ++d.queue_family)
    if (families[d.queue_family].queueFlags & VK_QUEUE_COMPUTE_BIT) return true;
  return false;
}

// False for a device that cannot run the shaders.
bool read(const Instance& vulkan, PhysicalDevice& d) {
  VkPhysicalDeviceProperties plain;
  vulkan.call.GetPhysicalDeviceProperties(d.handle, &plain);
  if (plain.apiVersion < kVersion1_1) return false;
  VkPhysicalDeviceDriverProperties driver{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, nullptr, 0, {}, {}, {}};
  VkPhysicalDeviceMaintenance3Properties sizes{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES,
      plain.apiVersion >= kVersion1_2 ? &driver : nullptr, 0, 0};
  VkPhysicalDeviceProperties2 properties{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &sizes, {}};
  vulkan.call.GetPhysicalDeviceProperties2(d.handle, &properties);
  d.limits = properties.properties.limits;
  d.max_allocation = sizes.maxMemoryAllocationSize;
  d.info.name = plain.deviceName;
  d.info.kind = kind_name(plain.deviceType);
  d.info.driver = driver.driverName;
  if (driver.driverInfo[0]) d.info.driver += std::string(" ") + driver.driverInfo;
  if (d.info.kind.empty() || d.limits.maxComputeWorkGroupInvocations < kLeastInvocations ||
      !find_queue(vulkan, d))
    return false;
  read_memory(vulkan, d);
  read_features(vulkan, plain.apiVersion, d);
  return true;
}

}  // namespace

uint64_t memory_free(PhysicalDevice device) {
  read_memory(*instance(), device);
  return device.info.memory_free;
}

uint64_t size_from(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  if (!text || !*text) return otherwise;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  constexpr char kUnits[] = "KMGT";
  const char* unit =
      *end ? std::strchr(kUnits, std::toupper(static_cast<unsigned char>(*end))) : nullptr;
  const int shift = unit ? 10 * int(unit - kUnits + 1) : 0;
  if (error != std::errc() || value == 0 || value >> (50 - shift) != 0 ||
      (*end && (!unit || end[1])))
    fail(ErrorKind::invalid_argument, name, " is '", text, "', expected a size such as 512M or 4G");
  return value << shift;
}

std::vector<PhysicalDevice> physical_devices() {
  std::vector<PhysicalDevice> found;
  const Instance* vulkan = instance();
  if (!vulkan) return found;
  const char* allow = std::getenv("PYLLAMACPP_VK_ALLOW_CPU");
  const bool software = allow && std::string_view(allow) == "1";
  for (VkPhysicalDevice handle : vulkan->devices) {
    PhysicalDevice d;
    d.handle = handle;
    if (read(*vulkan, d) && (software || d.info.kind != "software")) found.push_back(std::move(d));
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return rank(a.info.kind) < rank(b.info.kind);
  });
  return found;
}

}  // namespace vk

std::vector<GpuInfo> list_gpus() {
  std::vector<GpuInfo> list;
  for (vk::PhysicalDevice& d : vk::physical_devices()) list.push_back(std::move(d.info));
  return list;
}

std::vector<std::string> take_gpu_messages() { return vk::take_validation_messages(); }

std::optional<size_t> chosen_gpu(const std::vector<GpuInfo>& gpus, size_t main_gpu) {
  const auto lower = [](std::string text) {
    for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
    return text;
  };
  const char* value = std::getenv("PYLLAMACPP_DEVICE");
  const std::string wanted = lower(value ? value : "");
  if (wanted == "cpu") return std::nullopt;
  if (wanted.empty()) {
    if (gpus.empty()) return std::nullopt;
    if (main_gpu < gpus.size()) return main_gpu;
    fail(ErrorKind::invalid_argument, "main_gpu is ", main_gpu, "; the GPUs here are 0 to ",
         gpus.size() - 1);
  }
  size_t index = 0;
  const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), index);
  if (error == std::errc() && *end == 0) {
    if (index < gpus.size()) return index;
  } else {
    for (size_t i = 0; i < gpus.size(); ++i)
      if (lower(gpus[i].name).find(wanted) != std::string::npos) return i;
  }
  std::string names;
  for (size_t i = 0; i < gpus.size(); ++i)
    names += (i ? ", " : "") + std::to_string(i) + " (" + gpus[i].name + ")";
  fail(ErrorKind::invalid_argument, "PYLLAMACPP_DEVICE is '", value,
       "', which is no device here; there are: cpu", names.empty() ? "" : ", ", names);
}

}  // namespace pyllamacpp
