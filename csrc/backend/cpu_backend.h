// The CPU implementation of the backend: the kernels of one tier, split over a thread pool.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace pyllamacpp {

enum class Repack {
  automatic,  // types that gain by it are copied into the kernels' own layout at load
  never,      // weights are used where they lie in the map
};

// n_threads: threads that pack; 0: default_thread_count().
std::unique_ptr<Backend> make_cpu_backend(Repack repack, int n_threads);

}  // namespace pyllamacpp
