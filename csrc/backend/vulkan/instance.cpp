#include "backend/vulkan/instance.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "base/error.h"

#ifdef _WIN32
#define NOMINMAX
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace pyllamacpp::vk {

namespace {

constexpr uint32_t version(uint32_t major, uint32_t minor) { return major << 22 | minor << 12; }
constexpr char kValidationLayer[] = "VK_LAYER_KHRONOS_validation";

// The loader stays open until the process ends: drivers do not all survive being unloaded.
PFN_vkGetInstanceProcAddr open_loader() {
#ifdef _WIN32
  const HMODULE library = LoadLibraryW(L"vulkan-1.dll");
  if (!library) return nullptr;
  return reinterpret_cast<PFN_vkGetInstanceProcAddr>(
      reinterpret_cast<void*>(GetProcAddress(library, "vkGetInstanceProcAddr")));
#else
  for (const char* name :
       {"libvulkan.so.1", "libvulkan.so", "libvulkan.1.dylib", "libMoltenVK.dylib"})
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL))
      return reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
  return nullptr;
#endif
}

std::mutex messages_mutex;
std::vector<std::string> messages;

VkBool32 on_message(VkFlags, VkFlags, const VkDebugUtilsMessengerCallbackDataEXT* data, void*) {
  const std::lock_guard lock(messages_mutex);
  messages.emplace_back(data->pMessage);
  return 0;
}

bool wants_validation() {
  const char* value = std::getenv("PYLLAMACPP_VK_VALIDATE");
  return value && std::string_view(value) == "1";
}

void require_validation_layer(const GlobalFunctions& global) {
  uint32_t n = 0;
  global.EnumerateInstanceLayerProperties(&n, nullptr);
  std::vector<VkLayerProperties> layers(n);
  global.EnumerateInstanceLayerProperties(&n, layers.data());
  for (const VkLayerProperties& layer : layers)
    if (std::strcmp(layer.layerName, kValidationLayer) == 0) return;
  fail(ErrorKind::unsupported,
       "PYLLAMACPP_VK_VALIDATE=1 needs Vulkan's validation layers "
       "(Debian: vulkan-validationlayers), which are not installed");
}

// False where no driver takes an instance.
bool create(PFN_vkGetInstanceProcAddr get, Instance& instance) {
  GlobalFunctions global;
#define PYLLAMACPP_VK_LOAD(Result, name, parameters) \
  global.name = reinterpret_cast<Result(*) parameters>(get(nullptr, "vk" #name));
  PYLLAMACPP_VK_GLOBAL(PYLLAMACPP_VK_LOAD)
#undef PYLLAMACPP_VK_LOAD
  uint32_t loader_version = 0;
  if (!global.EnumerateInstanceVersion || !global.CreateInstance ||
      global.EnumerateInstanceVersion(&loader_version) != VK_SUCCESS ||
      loader_version < version(1, 1))
    return false;
  const bool validate = wants_validation();
  if (validate) require_validation_layer(global);

  // The highest version whose structures this code may pass; devices are asked for their own.
  const VkApplicationInfo application{
      VK_STRUCTURE_TYPE_APPLICATION_INFO, nullptr, "pyllamacpp", 0, nullptr, 0, version(1, 3)};
  const int32_t synchronization = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
  const VkValidationFeaturesEXT validation{
      VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT, nullptr, 1, &synchronization, 0, nullptr};
  const char* layer = kValidationLayer;
  const char* extension = "VK_EXT_debug_utils";
  const VkInstanceCreateInfo info{VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                  validate ? &validation : nullptr,
                                  0,
                                  &application,
                                  validate ? 1u : 0u,
                                  &layer,
                                  validate ? 1u : 0u,
                                  &extension};
  if (global.CreateInstance(&info, nullptr, &instance.handle) != VK_SUCCESS) return false;

#define PYLLAMACPP_VK_LOAD(Result, name, parameters) \
  instance.call.name = reinterpret_cast<Result(*) parameters>(get(instance.handle, "vk" #name));
  PYLLAMACPP_VK_INSTANCE(PYLLAMACPP_VK_LOAD)
  PYLLAMACPP_VK_COOPERATIVE(PYLLAMACPP_VK_LOAD)
  if (validate) {
    PYLLAMACPP_VK_DEBUG(PYLLAMACPP_VK_LOAD)
    const VkDebugUtilsMessengerCreateInfoEXT messenger{
        VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        nullptr,
        0,
        VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        on_message,
        nullptr};
    VkDebugUtilsMessengerEXT handle;
    instance.call.CreateDebugUtilsMessengerEXT(instance.handle, &messenger, nullptr, &handle);
  }
#undef PYLLAMACPP_VK_LOAD

  uint32_t n = 0;
  if (instance.call.EnumeratePhysicalDevices(instance.handle, &n, nullptr) != VK_SUCCESS)
    return false;
  instance.devices.resize(n);
  const VkResult result =
      instance.call.EnumeratePhysicalDevices(instance.handle, &n, instance.devices.data());
  instance.devices.resize(n);
  return result == VK_SUCCESS || result == VK_INCOMPLETE;
}

}  // namespace

const Instance* instance() {
  static const std::unique_ptr<const Instance> made = []() -> std::unique_ptr<const Instance> {
    const PFN_vkGetInstanceProcAddr get = open_loader();
    auto instance = std::make_unique<Instance>();
    return get && create(get, *instance) ? std::move(instance) : nullptr;
  }();
  return made.get();
}

std::vector<std::string> take_validation_messages() {
  const std::lock_guard lock(messages_mutex);
  return std::exchange(messages, {});
}

const char* result_text(VkResult result) {
  switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      return "the driver is out of memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
      return "the device is out of memory";
    case VK_ERROR_DEVICE_LOST:
      return "the device was lost; the model must be loaded again";
    default:
      return "the driver failed";
  }
}

}  // namespace pyllamacpp::vk
