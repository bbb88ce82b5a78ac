#include "text/special_tokens.h"

#include <algorithm>
#include <utility>

namespace pyllamacpp {

SpecialTokens::SpecialTokens(std::vector<Entry> entries) : entries_(std::move(entries)) {
  std::erase_if(entries_, [](const Entry& entry) { return entry.text.empty(); });
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.text < b.text; });
  const auto same = [](const Entry& a, const Entry& b) { return a.text == b.text; };
  entries_.erase(std::unique(entries_.begin(), entries_.end(), same), entries_.end());
  for (const Entry& entry : entries_) {
    first_bytes_.set(static_cast<unsigned char>(entry.text[0]));
    longest_ = std::max(longest_, entry.text.size());
  }
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, size_t from) const {
  if (entries_.empty()) return {text.size(), 0, 0};
  for (size_t at = from; at < text.size(); ++at) {
    if (!first_bytes_[static_cast<unsigned char>(text[at])]) continue;
    const Match match = match_at(text, at);
    if (match.size != 0) return match;
  }
  return {text.size(), 0, 0};
}

SpecialTokens::Match SpecialTokens::match_at(std::string_view text, size_t at) const {
  Match match{at, 0, 0};
  // [first, last): the entries that begin with the bytes read so far, all longer than `depth`.
  auto first = entries_.begin(), last = entries_.end();
  for (size_t depth = 0; at + depth < text.size(); ++depth) {
    const auto byte = static_cast<unsigned char>(text[at + depth]);
    const auto byte_of = [depth](const Entry& e) {
      return static_cast<unsigned char>(e.text[depth]);
    };
    first = std::partition_point(first, last, [&](const Entry& e) { return byte_of(e) < byte; });
    last = std::partition_point(first, last, [&](const Entry& e) { return byte_of(e) == byte; });
    if (first == last) break;
    if (first->text.size() == depth + 1) {  // the shortest is first
      match.size = depth + 1;
      match.id = first->id;
      if (++first == last) break;
    }
  }
  return match;
}

}  // namespace pyllamacpp
