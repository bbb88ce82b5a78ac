// The merging that both kinds of BPE share: symbols in a linked list, candidate pairs in a queue.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "text/tokenizer.h"

namespace pyllamacpp {

// A run of bytes of the text; merging extends it over its right neighbour.
struct Symbol {
  uint32_t start;
  uint32_t size;  // 0 once merged into its left neighbour
  TokenId id;     // negative if no token is spelled so
  uint32_t previous, next;
};

// What two neighbours make: the token, and its place in the order of merging (lowest first).
struct Merge {
  uint32_t rank;
  TokenId id;
};

// Merges the best pair of neighbours until none is left, equal ranks from the left. O(n log n).
// An object is kept over many calls so that its memory is reused.
class Merger {
 public:
  void clear() { symbols_.clear(); }

  // Appends a symbol, in the order of the text. Bytes left out between two are as if not there.
  void add(uint32_t start, uint32_t size, TokenId id) {
    const auto at = static_cast<uint32_t>(symbols_.size());
    symbols_.push_back({start, size, id, at - 1, at + 1});  // the first has previous == kNone
  }

  // `find(left, right)` says with a pointer to Merge (or nullptr) what two symbols make. The
  // answer must depend on nothing but the bytes of both.
  template <class Find>
  void run(const Find& find) {
    if (symbols_.size() <= kFew) return run_few(find);
    queue_.clear();
    symbols_.back().next = kNone;
    for (uint32_t i = 0; i + 1 < symbols_.size(); ++i) offer(i, i + 1, find, false);
    std::make_heap(queue_.begin(), queue_.end(), std::greater<>());
    while (!queue_.empty()) {
      const Candidate best = queue_.front();
      std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
      queue_.pop_back();
      const auto at = static_cast<uint32_t>(best.order);
      Symbol& left = symbols_[at];
      // Stale when either side has been merged since: then the bytes or the border changed.
      if (left.size == 0 || left.next != best.right) continue;
      Symbol& right = symbols_[best.right];
      if (left.size + right.size != best.size) continue;
      left.size += right.size;
      left.id = best.id;
      left.next = right.next;
      right.size = 0;
      if (left.next != kNone) symbols_[left.next].previous = at;
      if (left.previous != kNone) offer(left.previous, at, find, true);
      if (left.next != kNone) offer(at, left.next, find, true);
    }
  }

  // Calls `visit` for each symbol that is left, in order.
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (const Symbol& symbol : symbols_) {
      if (symbol.size != 0) visit(symbol);
    }
  }

 private:
  static constexpr uint32_t kNone = ~0u;
  static constexpr size_t kFew = 32;

  // The same for a word: looking for the best pair each time costs less than a queue.
  template <class Find>
  void run_few(const Find& find) {
    std::array<Merge, kFew> made;  // of each symbol and its right neighbour
    constexpr Merge kNothing{kNone, -1};
    const auto look = [&](size_t i) {
      const Merge* merge = i + 1 < symbols_.size() ? find(symbols_[i], symbols_[i + 1]) : nullptr;
      made[i] = merge != nullptr ? *merge : kNothing;
    };
    for (size_t i = 0; i < symbols_.size(); ++i) look(i);
    while (symbols_.size() > 1) {
      size_t best = 0;
      for (size_t i = 1; i + 1 < symbols_.size(); ++i) {
        if (made[i].rank < made[best].rank) best = i;
      }
      if (made[best].rank == kNone) break;
      symbols_[best].size += symbols_[best + 1].size;
      symbols_[best].id = made[best].id;
      std::copy(made.begin() + best + 2, made.begin() + symbols_.size(), made.begin() + best + 1);
      symbols_.erase(symbols_.begin() + best + 1);
      look(best);
      if (best > 0) look(best - 1);
    }
  }

  struct Candidate {
    uint64_t order;  // rank, then the index of the left symbol
    uint32_t right;
    uint32_t size;  // bytes of both
    TokenId id;
    bool operator>(const Candidate& other) const { return order > other.order; }
  };

  template <class Find>
  void offer(uint32_t left, uint32_t right, const Find& find, bool sift) {
    const Merge* merge = find(symbols_[left], symbols_[right]);
    if (merge == nullptr) return;
    const uint64_t order = static_cast<uint64_t>(merge->rank) << 32 | left;
    queue_.push_back({order, right, symbols_[left].size + symbols_[right].size, merge->id});
    if (sift) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
  }

  std::vector<Symbol> symbols_;
  std::vector<Candidate> queue_;
};

}  // namespace pyllamacpp
