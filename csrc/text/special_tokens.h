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

  bool one_begins_with(char c) const { return first_bytes_[static_cast<unsigned char>(c)]; }

  // Bytes of the longest one.
  size_t longest() const { return longest_; }

 private:
  Match match_at(std::string_view text, size_t at) const;

  std::vector<Entry> entries_;    // sorted by text: used as a trie by narrowing a range of it
  std::bitset<256> first_bytes_;  // most positions of a text end here
  size_t longest_ = 0;
};

}  // namespace pyllamacpp
