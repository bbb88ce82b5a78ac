// Finding tokens such as <|im_end|> in a text.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pyllamacpp {

using TokenId = int32_t;

class SpecialTokens {
 public:
  struct Entry {
    std::string text;
    TokenId id;
  };
  struct Match {
    size_t at;  // the size of the text if there is none
    size_t size;
    TokenId id;
  };

  SpecialTokens() = default;

  // Empty texts never match; of equal texts the one given first counts.
  explicit SpecialTokens(std::vector<Entry> entries);

  // The leftmost match at or after `from`, the longest one there.
  Match find(std::string_view text, size_t from) const;

 private:
  Match match_at(std::string_view text, size_t at) const;

  std::vector<Entry> entries_;    // sorted by text: used as a trie by narrowing a range of it
  std::bitset<256> first_bytes_;  // most positions of a text end here
};

}  // namespace pyllamacpp
