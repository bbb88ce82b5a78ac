// The character classes that the pre-tokenizers' patterns ask for.
#pragma once

#include <cstdint>

namespace pyllamacpp {

enum class CharClass : uint8_t {
  other,
  letter,  // \p{L}
  number,  // \p{N}
  space,   // White_Space
};

// A binary search outside ASCII.
CharClass class_of(char32_t code);

}  // namespace pyllamacpp
