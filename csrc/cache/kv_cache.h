// The paged KV cache: every sequence is a list of pages of kv_page_tokens() tokens; sequences that
// share a prefix share its pages, and a shared page is copied before it is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace pyllamacpp {

class KvCache {
 public:
  // `backends`: of each layer; all have the same kv_page_tokens(). `n_ctx`: tokens that one
  // sequence may hold. `n_tokens`: of all together, in whole pages; at least n_ctx. `shape`: of one
  // layer; its number of pages is set here.
  KvCache(std::vector<Backend*> backends, KvShape shape, int32_t n_ctx, int64_t n_tokens,
          int32_t max_sequences);

  int32_t n_ctx() const { return n_ctx_; }
  int32_t n_free_pages() const { return int32_t(free_.size()); }
  // Free pages that append(sequence, n) takes.
  int32_t pages_to_append(int32_t sequence, int32_t n) const;
  int32_t length(int32_t sequence) const { return at(sequence).length; }
  const int32_t* pages(int32_t sequence) const { return at(sequence).pages.data(); }
  // One page of all layers as bytes; see Backend.
  size_t page_bytes() const;
  // Of the page with tokens [index * page_tokens, ...) of a sequence; those from `length` on count
  // as not there. `out`: [page_bytes()].
  void read_page(int32_t sequence, int32_t index, int32_t length, std::byte* out) const;
  // The page is the sequence's own: append() gave it.
  void write_page(int32_t sequence, int32_t index, const std::byte* bytes);
  KvLayer& layer(int32_t i) { return *layers_[size_t(i)]; }

  // Makes room for n more tokens, whose pages are then this sequence's own. Throws
  // Error(context_full) and changes nothing when there is none.
  void append(int32_t sequence, int32_t n);
  // Keeps the first `length` tokens.
  void trim(int32_t sequence, int32_t length);
  // `to` gives up what it held and becomes equal to `from`.
  void fork(int32_t from, int32_t to);

 private:
  struct Sequence {
    std::vector<int32_t> pages;
    int32_t length = 0;
  };
  // Throws Error(invalid_argument) for an index out of range.
  const Sequence& at(int32_t sequence) const;
  Sequence& at(int32_t sequence);
  // Whether the page that append() writes first must be copied before.
  bool shares_last_page(const Sequence& sequence) const;
  void release(int32_t page);

  std::vector<Backend*> backends_;  // of each layer
  int32_t n_ctx_;
  int32_t page_tokens_;
  std::vector<std::unique_ptr<KvLayer>> layers_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> uses_;  // per page
  std::vector<int32_t> free_;
};

}  // namespace pyllamacpp
