// The GPU implementation of the backend. Knows no Vulkan type: anything may include it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "backend/backend.h"

namespace pyllamacpp {

// On the GPU that chosen_gpu() names. Throws Error(unsupported) where there is none, Error(device)
// where it cannot be opened.
std::unique_ptr<Backend> make_vulkan_backend(size_t main_gpu);

// What the backend's functions of these names say, known without a device.
uint64_t vulkan_matrix_bytes(DType type, int64_t rows, int64_t cols);
uint64_t vulkan_vector_bytes(int64_t cols);
uint64_t vulkan_kv_bytes(const KvShape& shape);
uint64_t vulkan_stream_bytes(const StreamShape& shape);
// What a stream takes of the machine's memory beside that: buffers between it and the device.
uint64_t vulkan_stream_host_bytes(const StreamShape& shape);
bool vulkan_supports_kv(DType type, int32_t head_dim);

}  // namespace pyllamacpp
