// What a model and a context will take, known from the file's header before anything is loaded.
#pragma once

#include <cstdint>
#include <string>

#include "backend/cpu_backend.h"
#include "session/context.h"

namespace pyllamacpp {

// In bytes. Memory of our own can only be swapped; what is read from the file's map the system can
// drop and read again.
struct MemoryPlan {
  uint64_t mapped = 0;     // weights read from the file's map
  uint64_t packed = 0;     // weights in memory of our own, in the kernels' layout
  uint64_t kv = 0;         // keys and values of n_ctx tokens
  uint64_t scratch = 0;    // one batch, and the logits of its last token
  uint64_t available = 0;  // what this process may still take
  Repack repack = Repack::never;
  ContextParams context;  // with the defaults filled in
  // The largest contexts that fit, beside weights that are mapped: with these types of keys and
  // values, and with q8_0 for both (0 where heads do not allow it).
  int64_t most_ctx = 0;
  int64_t most_ctx_q8_0 = 0;

  uint64_t own() const { return packed + kv + scratch; }
  bool fits() const { return own() <= available; }
  // All of the weights can stay in memory while it runs.
  bool fits_in_memory() const { return own() + mapped <= available; }
};

// Repack::automatic packs where weights, context and a tenth more fit into what is available.
// available: 0 is what this process may take now. overrides: of the file's metadata. Throws Error
// as loading the file would.
MemoryPlan plan_memory(const std::string& path, const ContextParams& params, Repack repack,
                       uint64_t available = 0, const MetaOverrides& overrides = {});

// Throws Error(memory) that says what would fit unless the plan fits.
void require_fit(const std::string& path, const MemoryPlan& plan);

}  // namespace pyllamacpp
