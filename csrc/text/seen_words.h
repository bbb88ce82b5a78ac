// The words of a text that were met before, so that each is merged once: most of a text are few.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/hash_map.h"

namespace pyllamacpp {

// For one text: a slot refers to a word of it, and to the ids where they were first put out. A word
// pushes out another one that has its slot.
class SeenWords {
 public:
  explicit SeenWords(size_t text_size)
      : slots_(std::bit_ceil(std::clamp<size_t>(text_size / 8, 16, 4096))) {}

  // Appends the ids of `word` to `ids`. `make()` appends those of a word that is not here; the
  // bytes of words must stay, and so must what was appended to `ids`.
  template <class Make>
  void append(std::string_view word, const Make& make, std::vector<int32_t>* ids) {
    Slot& slot = slots_[hash_bytes(word) & (slots_.size() - 1)];
    const size_t start = ids->size();
    if (slot.word == word) {
      ids->resize(start + slot.count);
      std::copy_n(ids->begin() + static_cast<std::ptrdiff_t>(slot.start), slot.count,
                  ids->begin() + static_cast<std::ptrdiff_t>(start));
      return;
    }
    make();
    slot = {word, start, ids->size() - start};
  }

 private:
  struct Slot {
    std::string_view word;  // empty, as no word is, if the slot is free
    size_t start = 0, count = 0;
  };

  std::vector<Slot> slots_;
};

}  // namespace pyllamacpp
