// The rows of one forward pass. Prompt, decode and any mixture over several sequences are the same
// thing: rows of (token, position, sequence, wants its result).
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace pyllamacpp {

struct Batch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<SequenceRows> sequences;
  std::vector<int32_t> outputs;  // rows whose result is wanted, ascending

  void clear() {
    tokens.clear();
    positions.clear();
    sequences.clear();
    outputs.clear();
  }
  BatchView view() const { return {tokens, positions, sequences, outputs}; }
};

}  // namespace pyllamacpp
