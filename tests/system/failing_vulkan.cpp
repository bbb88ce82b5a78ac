// A Vulkan loader that hands everything on to the real one, and fails where the environment says so
// at that moment: FAIL_SUBMIT=N, FAIL_WAIT=N: the N-th such call from then on gives FAIL_RESULT (a
// VkResult; without it: device lost). FAIL_OVER=BYTES: memory beyond that is refused.
// INTEGER_DOT=none: the device says that it has no integer dot products; fast: that its own are
// fast.
#include <dlfcn.h>
#include <vulkan/vulkan.h>

#include <cstdlib>
#include <cstring>
#include <map>

namespace {

PFN_vkGetInstanceProcAddr real_instance_proc() {
  static const auto get = reinterpret_cast<PFN_vkGetInstanceProcAddr>(
      dlsym(dlopen(std::getenv("REAL_VULKAN"), RTLD_NOW), "vkGetInstanceProcAddr"));
  return get;
}

PFN_vkGetPhysicalDeviceFeatures2 real_features;
PFN_vkGetPhysicalDeviceProperties2 real_properties;
PFN_vkGetDeviceProcAddr real_device_proc;
PFN_vkQueueSubmit real_submit;
PFN_vkWaitForFences real_wait;
PFN_vkAllocateMemory real_allocate;
PFN_vkFreeMemory real_free;
std::map<VkDeviceMemory, VkDeviceSize> sizes;

long number(const char* variable) {
  const char* text = std::getenv(variable);
  return text ? std::atol(text) : 0;
}

bool fails(const char* variable, long& n_calls) {
  const long n = number(variable);
  n_calls = n > 0 ? n_calls + 1 : 0;
  return n > 0 && n_calls >= n;
}

VkResult failure() { return VkResult(std::getenv("FAIL_RESULT") ? number("FAIL_RESULT") : -4); }

VkResult submit(VkQueue queue, uint32_t n, const VkSubmitInfo* infos, VkFence fence) {
  static long n_calls = 0;
  return fails("FAIL_SUBMIT", n_calls) ? failure() : real_submit(queue, n, infos, fence);
}

VkResult wait(VkDevice device, uint32_t n, const VkFence* fences, VkBool32 all, uint64_t timeout) {
  static long n_calls = 0;
  const VkResult result = real_wait(device, n, fences, all, timeout);
  return fails("FAIL_WAIT", n_calls) ? failure() : result;
}

VkResult allocate(VkDevice device, const VkMemoryAllocateInfo* info,
                  const VkAllocationCallbacks* callbacks, VkDeviceMemory* memory) {
  VkDeviceSize total = info->allocationSize;
  for (const auto& [_, size] : sizes) total += size;
  if (const long most = number("FAIL_OVER"); most > 0 && total > VkDeviceSize(most))
    return VK_ERROR_OUT_OF_DEVICE_MEMORY;
  const VkResult result = real_allocate(device, info, callbacks, memory);
  if (result == VK_SUCCESS) sizes[*memory] = info->allocationSize;
  return result;
}

void free_memory(VkDevice device, VkDeviceMemory memory, const VkAllocationCallbacks* callbacks) {
  sizes.erase(memory);
  real_free(device, memory, callbacks);
}

bool integer_dot_is(const char* what) {
  const char* text = std::getenv("INTEGER_DOT");
  return text && std::strcmp(text, what) == 0;
}

template <class Struct>
Struct* find(void* chain, VkStructureType type) {
  for (auto* link = static_cast<VkBaseOutStructure*>(chain); link; link = link->pNext)
    if (link->sType == type) return reinterpret_cast<Struct*>(link);
  return nullptr;
}

void features(VkPhysicalDevice device, VkPhysicalDeviceFeatures2* out) {
  real_features(device, out);
  auto* dot = find<VkPhysicalDeviceShaderIntegerDotProductFeatures>(
      out->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES);
  if (dot && integer_dot_is("none")) dot->shaderIntegerDotProduct = VK_FALSE;
}

void properties(VkPhysicalDevice device, VkPhysicalDeviceProperties2* out) {
  real_properties(device, out);
  auto* dot = find<VkPhysicalDeviceShaderIntegerDotProductProperties>(
      out->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES);
  if (dot && integer_dot_is("fast")) dot->integerDotProduct4x8BitPackedSignedAccelerated = VK_TRUE;
}

template <class Function>
PFN_vkVoidFunction in_place_of(Function& real, PFN_vkVoidFunction found, Function ours) {
  real = reinterpret_cast<Function>(found);
  return reinterpret_cast<PFN_vkVoidFunction>(ours);
}

PFN_vkVoidFunction device_proc(VkDevice device, const char* name) {
  const PFN_vkVoidFunction found = real_device_proc(device, name);
  const auto is = [&](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("vkQueueSubmit")) return in_place_of(real_submit, found, &submit);
  if (is("vkWaitForFences")) return in_place_of(real_wait, found, &wait);
  if (is("vkAllocateMemory")) return in_place_of(real_allocate, found, &allocate);
  if (is("vkFreeMemory")) return in_place_of(real_free, found, &free_memory);
  return found;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) PFN_vkVoidFunction
vkGetInstanceProcAddr(VkInstance instance, const char* name) {
  const PFN_vkVoidFunction found = real_instance_proc()(instance, name);
  const auto is = [&](const char* other) { return found && std::strcmp(name, other) == 0; };
  if (is("vkGetDeviceProcAddr")) return in_place_of(real_device_proc, found, &device_proc);
  if (is("vkGetPhysicalDeviceFeatures2")) return in_place_of(real_features, found, &features);
  if (is("vkGetPhysicalDeviceProperties2")) return in_place_of(real_properties, found, &properties);
  return found;
}
