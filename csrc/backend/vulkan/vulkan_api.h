// The part of Vulkan 1.1 (and of the extensions named) that this backend uses, declared from the
// specification: pip must build where no Vulkan SDK is, and the loader is opened at run time.
// Names are the specification's; tests/system/test_vulkan_api.py holds every size, offset and value
// to the Khronos header. Included by this folder's sources only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyllamacpp::vk {

using VkBool32 = uint32_t;
using VkDeviceSize = uint64_t;
using VkFlags = uint32_t;
using VkResult = int32_t;
using VkStructureType = int32_t;

// Handles: pointers to what the driver owns, or 64-bit names on every platform.
using VkInstance = struct VkInstance_T*;
using VkPhysicalDevice = struct VkPhysicalDevice_T*;
using VkDevice = struct VkDevice_T*;
using VkQueue = struct VkQueue_T*;
using VkCommandBuffer = struct VkCommandBuffer_T*;
enum class VkBuffer : uint64_t {};
enum class VkCommandPool : uint64_t {};
enum class VkDebugUtilsMessengerEXT : uint64_t {};
enum class VkDescriptorPool : uint64_t {};
enum class VkDescriptorSet : uint64_t {};
enum class VkDescriptorSetLayout : uint64_t {};
enum class VkDeviceMemory : uint64_t {};
enum class VkFence : uint64_t {};
enum class VkPipeline : uint64_t {};
enum class VkPipelineCache : uint64_t {};
enum class VkPipelineLayout : uint64_t {};
enum class VkShaderModule : uint64_t {};

inline constexpr VkResult VK_SUCCESS = 0;
inline constexpr VkResult VK_INCOMPLETE = 5;
inline constexpr VkResult VK_ERROR_OUT_OF_HOST_MEMORY = -1;
inline constexpr VkResult VK_ERROR_OUT_OF_DEVICE_MEMORY = -2;
inline constexpr VkResult VK_ERROR_DEVICE_LOST = -4;

inline constexpr VkStructureType VK_STRUCTURE_TYPE_APPLICATION_INFO = 0;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO = 1;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO = 2;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO = 3;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_SUBMIT_INFO = 4;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO = 5;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_FENCE_CREATE_INFO = 8;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO = 12;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO = 16;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO = 18;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO = 29;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO = 30;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO = 32;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO = 33;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO = 34;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET = 35;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO = 39;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO = 40;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO = 42;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_MEMORY_BARRIER = 46;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2 = 1000059000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2 = 1000059001;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2 = 1000059006;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES =
    1000082000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES =
    1000083000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES = 1000094000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT =
    1000128004;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES =
    1000168000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES =
    1000177000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES = 1000196000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES =
    1000211000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES =
    1000225002;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT =
    1000237000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT = 1000247000;
inline constexpr VkStructureType
    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES = 1000280000;
inline constexpr VkStructureType
    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES = 1000280001;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR =
    1000506000;
inline constexpr VkStructureType VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR = 1000506001;

inline constexpr uint32_t VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU = 1;
inline constexpr uint32_t VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU = 2;
inline constexpr uint32_t VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU = 3;
inline constexpr uint32_t VK_PHYSICAL_DEVICE_TYPE_CPU = 4;
inline constexpr VkFlags VK_QUEUE_COMPUTE_BIT = 2;
inline constexpr VkFlags VK_MEMORY_HEAP_DEVICE_LOCAL_BIT = 1;
inline constexpr VkFlags VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT = 1;
inline constexpr VkFlags VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT = 2;
inline constexpr VkFlags VK_MEMORY_PROPERTY_HOST_COHERENT_BIT = 4;
inline constexpr VkFlags VK_MEMORY_PROPERTY_HOST_CACHED_BIT = 8;
inline constexpr VkFlags VK_BUFFER_USAGE_TRANSFER_SRC_BIT = 1;
inline constexpr VkFlags VK_BUFFER_USAGE_TRANSFER_DST_BIT = 2;
inline constexpr VkFlags VK_BUFFER_USAGE_STORAGE_BUFFER_BIT = 32;
inline constexpr VkFlags VK_SHADER_STAGE_COMPUTE_BIT = 32;
inline constexpr VkFlags VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT = 2;
inline constexpr uint32_t VK_COMPONENT_TYPE_SINT8_KHR = 3;
inline constexpr uint32_t VK_COMPONENT_TYPE_SINT32_KHR = 5;
inline constexpr uint32_t VK_SCOPE_SUBGROUP_KHR = 3;
inline constexpr VkFlags VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT = 0x800;
inline constexpr VkFlags VK_PIPELINE_STAGE_TRANSFER_BIT = 0x1000;
inline constexpr VkFlags VK_PIPELINE_STAGE_HOST_BIT = 0x4000;
inline constexpr VkFlags VK_ACCESS_SHADER_READ_BIT = 0x20;
inline constexpr VkFlags VK_ACCESS_SHADER_WRITE_BIT = 0x40;
inline constexpr VkFlags VK_ACCESS_TRANSFER_READ_BIT = 0x800;
inline constexpr VkFlags VK_ACCESS_TRANSFER_WRITE_BIT = 0x1000;
inline constexpr VkFlags VK_ACCESS_HOST_READ_BIT = 0x2000;
inline constexpr VkFlags VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT = 2;
inline constexpr VkFlags VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT = 1;
inline constexpr uint32_t VK_DESCRIPTOR_TYPE_STORAGE_BUFFER = 7;
inline constexpr uint32_t VK_PIPELINE_BIND_POINT_COMPUTE = 1;
inline constexpr VkFlags VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT = 0x100;
inline constexpr VkFlags VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT = 0x1000;
inline constexpr VkFlags VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT = 2;
inline constexpr int32_t VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT = 4;

struct VkApplicationInfo {
  VkStructureType sType;
  const void* pNext;
  const char* pApplicationName;
  uint32_t applicationVersion;
  const char* pEngineName;
  uint32_t engineVersion;
  uint32_t apiVersion;
};

struct VkInstanceCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  const VkApplicationInfo* pApplicationInfo;
  uint32_t enabledLayerCount;
  const char* const* ppEnabledLayerNames;
  uint32_t enabledExtensionCount;
  const char* const* ppEnabledExtensionNames;
};

struct VkLayerProperties {
  char layerName[256];
  uint32_t specVersion;
  uint32_t implementationVersion;
  char description[256];
};

struct VkExtensionProperties {
  char extensionName[256];
  uint32_t specVersion;
};

struct VkValidationFeaturesEXT {
  VkStructureType sType;
  const void* pNext;
  uint32_t enabledValidationFeatureCount;
  const int32_t* pEnabledValidationFeatures;
  uint32_t disabledValidationFeatureCount;
  const int32_t* pDisabledValidationFeatures;
};

struct VkDebugUtilsMessengerCallbackDataEXT {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  const char* pMessageIdName;
  int32_t messageIdNumber;
  const char* pMessage;
  uint32_t queueLabelCount;
  const void* pQueueLabels;
  uint32_t cmdBufLabelCount;
  const void* pCmdBufLabels;
  uint32_t objectCount;
  const void* pObjects;
};

struct VkDebugUtilsMessengerCreateInfoEXT {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  VkFlags messageSeverity;
  VkFlags messageType;
  VkBool32 (*pfnUserCallback)(VkFlags severity, VkFlags types,
                              const VkDebugUtilsMessengerCallbackDataEXT* data, void* user);
  void* pUserData;
};

// Runs of members that nothing here reads are arrays called unused.
struct VkPhysicalDeviceLimits {
  uint32_t unused0[7];
  uint32_t maxStorageBufferRange;
  uint32_t maxPushConstantsSize;
  uint32_t maxMemoryAllocationCount;
  uint32_t unused1;
  VkDeviceSize unused2[2];
  uint32_t unused3[38];
  uint32_t maxComputeSharedMemorySize;
  uint32_t maxComputeWorkGroupCount[3];
  uint32_t maxComputeWorkGroupInvocations;
  uint32_t maxComputeWorkGroupSize[3];
  uint32_t unused4[13];
  size_t unused5;
  VkDeviceSize unused6[2];
  VkDeviceSize minStorageBufferOffsetAlignment;
  uint32_t unused7[22];
  float timestampPeriod;
  uint32_t unused8[12];
  VkDeviceSize unused9[2];
  VkDeviceSize nonCoherentAtomSize;
};

struct VkPhysicalDeviceProperties {
  uint32_t apiVersion;
  uint32_t driverVersion;
  uint32_t vendorID;
  uint32_t deviceID;
  uint32_t deviceType;
  char deviceName[256];
  uint8_t pipelineCacheUUID[16];
  VkPhysicalDeviceLimits limits;
  VkBool32 sparseProperties[5];
};

struct VkPhysicalDeviceProperties2 {
  VkStructureType sType;
  void* pNext;
  VkPhysicalDeviceProperties properties;
};

struct VkPhysicalDeviceDriverProperties {
  VkStructureType sType;
  void* pNext;
  int32_t driverID;
  char driverName[256];
  char driverInfo[256];
  uint8_t conformanceVersion[4];
};

struct VkPhysicalDeviceSubgroupProperties {
  VkStructureType sType;
  void* pNext;
  uint32_t subgroupSize;
  VkFlags supportedStages;
  VkFlags supportedOperations;
  VkBool32 quadOperationsInAllStages;
};

struct VkPhysicalDeviceMaintenance3Properties {
  VkStructureType sType;
  void* pNext;
  uint32_t maxPerSetDescriptors;
  VkDeviceSize maxMemoryAllocationSize;
};

struct VkPhysicalDeviceFeatures2 {
  VkStructureType sType;
  void* pNext;
  VkBool32 features[55];
};

struct VkPhysicalDevice16BitStorageFeatures {
  VkStructureType sType;
  void* pNext;
  VkBool32 storageBuffer16BitAccess;
  VkBool32 uniformAndStorageBuffer16BitAccess;
  VkBool32 storagePushConstant16;
  VkBool32 storageInputOutput16;
};

struct VkPhysicalDevice8BitStorageFeatures {
  VkStructureType sType;
  void* pNext;
  VkBool32 storageBuffer8BitAccess;
  VkBool32 uniformAndStorageBuffer8BitAccess;
  VkBool32 storagePushConstant8;
};

struct VkPhysicalDeviceShaderFloat16Int8Features {
  VkStructureType sType;
  void* pNext;
  VkBool32 shaderFloat16;
  VkBool32 shaderInt8;
};

struct VkPhysicalDeviceShaderIntegerDotProductFeatures {
  VkStructureType sType;
  void* pNext;
  VkBool32 shaderIntegerDotProduct;
};

struct VkPhysicalDeviceShaderIntegerDotProductProperties {
  VkStructureType sType;
  void* pNext;
  VkBool32 unused0[4];
  VkBool32 integerDotProduct4x8BitPackedSignedAccelerated;
  VkBool32 unused1[25];
};

struct VkPhysicalDeviceVulkanMemoryModelFeatures {
  VkStructureType sType;
  void* pNext;
  VkBool32 vulkanMemoryModel;
  VkBool32 vulkanMemoryModelDeviceScope;
  VkBool32 vulkanMemoryModelAvailabilityVisibilityChains;
};

struct VkPhysicalDeviceSubgroupSizeControlFeatures {
  VkStructureType sType;
  void* pNext;
  VkBool32 subgroupSizeControl;
  VkBool32 computeFullSubgroups;
};

struct VkPhysicalDeviceCooperativeMatrixFeaturesKHR {
  VkStructureType sType;
  void* pNext;
  VkBool32 cooperativeMatrix;
  VkBool32 cooperativeMatrixRobustBufferAccess;
};

struct VkCooperativeMatrixPropertiesKHR {
  VkStructureType sType;
  void* pNext;
  uint32_t MSize;
  uint32_t NSize;
  uint32_t KSize;
  uint32_t AType;
  uint32_t BType;
  uint32_t CType;
  uint32_t ResultType;
  VkBool32 saturatingAccumulation;
  uint32_t scope;
};

struct VkMemoryType {
  VkFlags propertyFlags;
  uint32_t heapIndex;
};

struct VkMemoryHeap {
  VkDeviceSize size;
  VkFlags flags;
};

struct VkPhysicalDeviceMemoryProperties {
  uint32_t memoryTypeCount;
  VkMemoryType memoryTypes[32];
  uint32_t memoryHeapCount;
  VkMemoryHeap memoryHeaps[16];
};

struct VkPhysicalDeviceMemoryProperties2 {
  VkStructureType sType;
  void* pNext;
  VkPhysicalDeviceMemoryProperties memoryProperties;
};

struct VkPhysicalDeviceMemoryBudgetPropertiesEXT {
  VkStructureType sType;
  void* pNext;
  VkDeviceSize heapBudget[16];
  VkDeviceSize heapUsage[16];
};

struct VkQueueFamilyProperties {
  VkFlags queueFlags;
  uint32_t queueCount;
  uint32_t timestampValidBits;
  uint32_t minImageTransferGranularity[3];
};

struct VkDeviceQueueCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  uint32_t queueFamilyIndex;
  uint32_t queueCount;
  const float* pQueuePriorities;
};

struct VkDeviceCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  uint32_t queueCreateInfoCount;
  const VkDeviceQueueCreateInfo* pQueueCreateInfos;
  uint32_t enabledLayerCount;
  const char* const* ppEnabledLayerNames;
  uint32_t enabledExtensionCount;
  const char* const* ppEnabledExtensionNames;
  const void* pEnabledFeatures;
};

struct VkBufferCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  VkDeviceSize size;
  VkFlags usage;
  int32_t sharingMode;
  uint32_t queueFamilyIndexCount;
  const uint32_t* pQueueFamilyIndices;
};

struct VkMemoryRequirements {
  VkDeviceSize size;
  VkDeviceSize alignment;
  uint32_t memoryTypeBits;
};

struct VkMemoryAllocateInfo {
  VkStructureType sType;
  const void* pNext;
  VkDeviceSize allocationSize;
  uint32_t memoryTypeIndex;
};

struct VkShaderModuleCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  size_t codeSize;
  const uint32_t* pCode;
};

struct VkDescriptorSetLayoutBinding {
  uint32_t binding;
  uint32_t descriptorType;
  uint32_t descriptorCount;
  VkFlags stageFlags;
  const void* pImmutableSamplers;
};

struct VkDescriptorSetLayoutCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  uint32_t bindingCount;
  const VkDescriptorSetLayoutBinding* pBindings;
};

struct VkPushConstantRange {
  VkFlags stageFlags;
  uint32_t offset;
  uint32_t size;
};

struct VkPipelineLayoutCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  uint32_t setLayoutCount;
  const VkDescriptorSetLayout* pSetLayouts;
  uint32_t pushConstantRangeCount;
  const VkPushConstantRange* pPushConstantRanges;
};

struct VkSpecializationMapEntry {
  uint32_t constantID;
  uint32_t offset;
  size_t size;
};

struct VkSpecializationInfo {
  uint32_t mapEntryCount;
  const VkSpecializationMapEntry* pMapEntries;
  size_t dataSize;
  const void* pData;
};

struct VkPipelineShaderStageCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  VkFlags stage;
  VkShaderModule module;
  const char* pName;
  const VkSpecializationInfo* pSpecializationInfo;
};

struct VkComputePipelineCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  VkPipelineShaderStageCreateInfo stage;
  VkPipelineLayout layout;
  VkPipeline basePipelineHandle;
  int32_t basePipelineIndex;
};

struct VkDescriptorPoolSize {
  uint32_t type;
  uint32_t descriptorCount;
};

struct VkDescriptorPoolCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  uint32_t maxSets;
  uint32_t poolSizeCount;
  const VkDescriptorPoolSize* pPoolSizes;
};

struct VkDescriptorSetAllocateInfo {
  VkStructureType sType;
  const void* pNext;
  VkDescriptorPool descriptorPool;
  uint32_t descriptorSetCount;
  const VkDescriptorSetLayout* pSetLayouts;
};

struct VkDescriptorBufferInfo {
  VkBuffer buffer;
  VkDeviceSize offset;
  VkDeviceSize range;
};

struct VkWriteDescriptorSet {
  VkStructureType sType;
  const void* pNext;
  VkDescriptorSet dstSet;
  uint32_t dstBinding;
  uint32_t dstArrayElement;
  uint32_t descriptorCount;
  uint32_t descriptorType;
  const void* pImageInfo;
  const VkDescriptorBufferInfo* pBufferInfo;
  const void* pTexelBufferView;
};

struct VkCommandPoolCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  uint32_t queueFamilyIndex;
};

struct VkCommandBufferAllocateInfo {
  VkStructureType sType;
  const void* pNext;
  VkCommandPool commandPool;
  int32_t level;
  uint32_t commandBufferCount;
};

struct VkCommandBufferBeginInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
  const void* pInheritanceInfo;
};

struct VkMemoryBarrier {
  VkStructureType sType;
  const void* pNext;
  VkFlags srcAccessMask;
  VkFlags dstAccessMask;
};

struct VkBufferCopy {
  VkDeviceSize srcOffset;
  VkDeviceSize dstOffset;
  VkDeviceSize size;
};

struct VkFenceCreateInfo {
  VkStructureType sType;
  const void* pNext;
  VkFlags flags;
};

struct VkSubmitInfo {
  VkStructureType sType;
  const void* pNext;
  uint32_t waitSemaphoreCount;
  const void* pWaitSemaphores;
  const VkFlags* pWaitDstStageMask;
  uint32_t commandBufferCount;
  const VkCommandBuffer* pCommandBuffers;
  uint32_t signalSemaphoreCount;
  const void* pSignalSemaphores;
};

// The functions: (result, name without "vk", parameters). Allocation callbacks are always null.
using PFN_vkVoidFunction = void (*)();
using PFN_vkGetInstanceProcAddr = PFN_vkVoidFunction (*)(VkInstance, const char*);
using PFN_vkGetDeviceProcAddr = PFN_vkVoidFunction (*)(VkDevice, const char*);

#define PYLLAMACPP_VK_GLOBAL(F)                                                  \
  F(VkResult, EnumerateInstanceLayerProperties, (uint32_t*, VkLayerProperties*)) \
  F(VkResult, EnumerateInstanceVersion, (uint32_t*))                             \
  F(VkResult, CreateInstance, (const VkInstanceCreateInfo*, const void*, VkInstance*))

#define PYLLAMACPP_VK_INSTANCE(F)                                                         \
  F(PFN_vkVoidFunction, GetDeviceProcAddr, (VkDevice, const char*))                       \
  F(VkResult, EnumeratePhysicalDevices, (VkInstance, uint32_t*, VkPhysicalDevice*))       \
  F(void, GetPhysicalDeviceProperties, (VkPhysicalDevice, VkPhysicalDeviceProperties*))   \
  F(void, GetPhysicalDeviceProperties2, (VkPhysicalDevice, VkPhysicalDeviceProperties2*)) \
  F(void, GetPhysicalDeviceFeatures2, (VkPhysicalDevice, VkPhysicalDeviceFeatures2*))     \
  F(void, GetPhysicalDeviceMemoryProperties2,                                             \
    (VkPhysicalDevice, VkPhysicalDeviceMemoryProperties2*))                               \
  F(void, GetPhysicalDeviceQueueFamilyProperties,                                         \
    (VkPhysicalDevice, uint32_t*, VkQueueFamilyProperties*))                              \
  F(VkResult, EnumerateDeviceExtensionProperties,                                         \
    (VkPhysicalDevice, const char*, uint32_t*, VkExtensionProperties*))                   \
  F(VkResult, CreateDevice, (VkPhysicalDevice, const VkDeviceCreateInfo*, const void*, VkDevice*))

// Of the validation layer's extension; absent without it.
#define PYLLAMACPP_VK_DEBUG(F)                                           \
  F(VkResult, CreateDebugUtilsMessengerEXT,                              \
    (VkInstance, const VkDebugUtilsMessengerCreateInfoEXT*, const void*, \
     VkDebugUtilsMessengerEXT*))

// Of VK_KHR_cooperative_matrix; absent where no driver has it.
#define PYLLAMACPP_VK_COOPERATIVE(F)                           \
  F(VkResult, GetPhysicalDeviceCooperativeMatrixPropertiesKHR, \
    (VkPhysicalDevice, uint32_t*, VkCooperativeMatrixPropertiesKHR*))

#define PYLLAMACPP_VK_DEVICE(F)                                                                   \
  F(void, DestroyDevice, (VkDevice, const void*))                                                 \
  F(void, GetDeviceQueue, (VkDevice, uint32_t, uint32_t, VkQueue*))                               \
  F(VkResult, DeviceWaitIdle, (VkDevice))                                                         \
  F(VkResult, AllocateMemory,                                                                     \
    (VkDevice, const VkMemoryAllocateInfo*, const void*, VkDeviceMemory*))                        \
  F(void, FreeMemory, (VkDevice, VkDeviceMemory, const void*))                                    \
  F(VkResult, MapMemory, (VkDevice, VkDeviceMemory, VkDeviceSize, VkDeviceSize, VkFlags, void**)) \
  F(VkResult, CreateBuffer, (VkDevice, const VkBufferCreateInfo*, const void*, VkBuffer*))        \
  F(void, DestroyBuffer, (VkDevice, VkBuffer, const void*))                                       \
  F(void, GetBufferMemoryRequirements, (VkDevice, VkBuffer, VkMemoryRequirements*))               \
  F(VkResult, BindBufferMemory, (VkDevice, VkBuffer, VkDeviceMemory, VkDeviceSize))               \
  F(VkResult, CreateShaderModule,                                                                 \
    (VkDevice, const VkShaderModuleCreateInfo*, const void*, VkShaderModule*))                    \
  F(void, DestroyShaderModule, (VkDevice, VkShaderModule, const void*))                           \
  F(VkResult, CreateDescriptorSetLayout,                                                          \
    (VkDevice, const VkDescriptorSetLayoutCreateInfo*, const void*, VkDescriptorSetLayout*))      \
  F(void, DestroyDescriptorSetLayout, (VkDevice, VkDescriptorSetLayout, const void*))             \
  F(VkResult, CreatePipelineLayout,                                                               \
    (VkDevice, const VkPipelineLayoutCreateInfo*, const void*, VkPipelineLayout*))                \
  F(void, DestroyPipelineLayout, (VkDevice, VkPipelineLayout, const void*))                       \
  F(VkResult, CreateComputePipelines,                                                             \
    (VkDevice, VkPipelineCache, uint32_t, const VkComputePipelineCreateInfo*, const void*,        \
     VkPipeline*))                                                                                \
  F(void, DestroyPipeline, (VkDevice, VkPipeline, const void*))                                   \
  F(VkResult, CreateDescriptorPool,                                                               \
    (VkDevice, const VkDescriptorPoolCreateInfo*, const void*, VkDescriptorPool*))                \
  F(void, DestroyDescriptorPool, (VkDevice, VkDescriptorPool, const void*))                       \
  F(VkResult, ResetDescriptorPool, (VkDevice, VkDescriptorPool, VkFlags))                         \
  F(VkResult, AllocateDescriptorSets,                                                             \
    (VkDevice, const VkDescriptorSetAllocateInfo*, VkDescriptorSet*))                             \
  F(void, UpdateDescriptorSets,                                                                   \
    (VkDevice, uint32_t, const VkWriteDescriptorSet*, uint32_t, const void*))                     \
  F(VkResult, CreateCommandPool,                                                                  \
    (VkDevice, const VkCommandPoolCreateInfo*, const void*, VkCommandPool*))                      \
  F(void, DestroyCommandPool, (VkDevice, VkCommandPool, const void*))                             \
  F(VkResult, AllocateCommandBuffers,                                                             \
    (VkDevice, const VkCommandBufferAllocateInfo*, VkCommandBuffer*))                             \
  F(VkResult, BeginCommandBuffer, (VkCommandBuffer, const VkCommandBufferBeginInfo*))             \
  F(VkResult, EndCommandBuffer, (VkCommandBuffer))                                                \
  F(VkResult, CreateFence, (VkDevice, const VkFenceCreateInfo*, const void*, VkFence*))           \
  F(void, DestroyFence, (VkDevice, VkFence, const void*))                                         \
  F(VkResult, ResetFences, (VkDevice, uint32_t, const VkFence*))                                  \
  F(VkResult, WaitForFences, (VkDevice, uint32_t, const VkFence*, VkBool32, uint64_t))            \
  F(VkResult, QueueSubmit, (VkQueue, uint32_t, const VkSubmitInfo*, VkFence))                     \
  F(void, CmdBindPipeline, (VkCommandBuffer, uint32_t, VkPipeline))                               \
  F(void, CmdBindDescriptorSets,                                                                  \
    (VkCommandBuffer, uint32_t, VkPipelineLayout, uint32_t, uint32_t, const VkDescriptorSet*,     \
     uint32_t, const uint32_t*))                                                                  \
  F(void, CmdPushConstants,                                                                       \
    (VkCommandBuffer, VkPipelineLayout, VkFlags, uint32_t, uint32_t, const void*))                \
  F(void, CmdDispatch, (VkCommandBuffer, uint32_t, uint32_t, uint32_t))                           \
  F(void, CmdPipelineBarrier,                                                                     \
    (VkCommandBuffer, VkFlags, VkFlags, VkFlags, uint32_t, const VkMemoryBarrier*, uint32_t,      \
     const void*, uint32_t, const void*))                                                         \
  F(void, CmdCopyBuffer, (VkCommandBuffer, VkBuffer, VkBuffer, uint32_t, const VkBufferCopy*))    \
  F(void, CmdFillBuffer, (VkCommandBuffer, VkBuffer, VkDeviceSize, VkDeviceSize, uint32_t))

// One table per level: a member for each function, called as instance.CreateDevice(...).
#define PYLLAMACPP_VK_MEMBER(Result, name, parameters) Result(*name) parameters = nullptr;
struct GlobalFunctions {
  PYLLAMACPP_VK_GLOBAL(PYLLAMACPP_VK_MEMBER)
};
struct InstanceFunctions {
  PYLLAMACPP_VK_INSTANCE(PYLLAMACPP_VK_MEMBER)
  PYLLAMACPP_VK_DEBUG(PYLLAMACPP_VK_MEMBER)
  PYLLAMACPP_VK_COOPERATIVE(PYLLAMACPP_VK_MEMBER)
};
struct DeviceFunctions {
  PYLLAMACPP_VK_DEVICE(PYLLAMACPP_VK_MEMBER)
};
#undef PYLLAMACPP_VK_MEMBER

}  // namespace pyllamacpp::vk
