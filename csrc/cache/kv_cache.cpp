#include "cache/kv_cache.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace pyllamacpp {

KvCache::KvCache(std::vector<Backend*> backends, KvShape shape, int32_t n_ctx, int64_t n_tokens,
                 int32_t max_sequences)
    : backends_(std::move(backends)),
      n_ctx_(n_ctx),
      page_tokens_(backends_.front()->kv_page_tokens()) {
  const int32_t n_pages = int32_t((n_tokens + page_tokens_ - 1) / page_tokens_);
  shape.n_pages = n_pages;
  for (Backend* backend : backends_) layers_.push_back(backend->make_kv(shape));
  sequences_.resize(size_t(max_sequences));
  uses_.assign(size_t(n_pages), 0);
  // The lowest pages are handed out first, so that memory is touched only as it fills.
  for (int32_t page = n_pages - 1; page >= 0; --page) free_.push_back(page);
}

const KvCache::Sequence& KvCache::at(int32_t sequence) const {
  if (sequence < 0 || size_t(sequence) >= sequences_.size())
    fail(ErrorKind::invalid_argument, "sequence ", sequence, " does not exist; this context has ",
         sequences_.size());
  return sequences_[size_t(sequence)];
}

KvCache::Sequence& KvCache::at(int32_t sequence) {
  return const_cast<Sequence&>(static_cast<const KvCache*>(this)->at(sequence));
}

void KvCache::release(int32_t page) {
  if (--uses_[size_t(page)] == 0) free_.push_back(page);
}

bool KvCache::shares_last_page(const Sequence& s) const {
  return s.length % page_tokens_ != 0 && uses_[size_t(s.pages.back())] > 1;
}

int32_t KvCache::pages_to_append(int32_t sequence, int32_t n) const {
  const Sequence& s = at(sequence);
  if (n <= 0) return 0;
  const int64_t n_pages = (int64_t(s.length) + n + page_tokens_ - 1) / page_tokens_;
  return int32_t(n_pages - int64_t(s.pages.size())) + shares_last_page(s);
}

void KvCache::append(int32_t sequence, int32_t n) {
  Sequence& s = at(sequence);
  if (n <= 0) return;
  const int64_t length = int64_t(s.length) + n;
  if (length > n_ctx_)
    fail(ErrorKind::context_full, "Requested tokens (", length, ") exceed context window of ",
         n_ctx_);
  if (pages_to_append(sequence, n) > n_free_pages())
    fail(ErrorKind::context_full, "no room for ", n, " more tokens of sequence ", sequence,
         ": other sequences hold the rest of the cache");
  const size_t n_pages = size_t((length + page_tokens_ - 1) / page_tokens_);
  const bool copy = shares_last_page(s);
  const auto take = [this] {
    const int32_t page = free_.back();
    free_.pop_back();
    uses_[size_t(page)] = 1;
    return page;
  };
  if (copy) {
    const int32_t page = take();
    try {
      for (size_t i = 0; i < layers_.size(); ++i)
        backends_[i]->copy_page(*layers_[i], s.pages.back(), page);
    } catch (...) {  // a device may fail
      release(page);
      throw;
    }
    release(s.pages.back());
    s.pages.back() = page;
  }
  while (s.pages.size() < n_pages) s.pages.push_back(take());
  s.length = int32_t(length);
}

void KvCache::trim(int32_t sequence, int32_t length) {
  Sequence& s = at(sequence);
  if (length < 0 || length > s.length)
    fail(ErrorKind::invalid_argument, "cannot trim sequence ", sequence, " of ", s.length,
         " tokens to ", length);
  const size_t n_pages = size_t((length + page_tokens_ - 1) / page_tokens_);
  for (; s.pages.size() > n_pages; s.pages.pop_back()) release(s.pages.back());
  s.length = length;
}

void KvCache::fork(int32_t from, int32_t to) {
  if (from == to) return;
  const Sequence& source = at(from);
  trim(to, 0);
  for (int32_t page : source.pages) ++uses_[size_t(page)];
  at(to) = source;
}

size_t KvCache::page_bytes() const {
  size_t n = 0;
  for (size_t i = 0; i < layers_.size(); ++i) n += backends_[i]->page_bytes(*layers_[i]);
  return n;
}

void KvCache::read_page(int32_t sequence, int32_t index, int32_t length, std::byte* out) const {
  const Sequence& s = at(sequence);
  if (length > s.length || index < 0 || int64_t(index) * page_tokens_ >= length)
    fail(ErrorKind::invalid_argument, "page ", index, " of the first ", length,
         " tokens does not exist: sequence ", sequence, " has ", s.length);
  const int32_t n = std::min(length - index * page_tokens_, page_tokens_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    backends_[i]->read_page(*layers_[i], s.pages[size_t(index)], n, out);
    out += backends_[i]->page_bytes(*layers_[i]);
  }
}

void KvCache::write_page(int32_t sequence, int32_t index, const std::byte* bytes) {
  const int32_t page = at(sequence).pages[size_t(index)];
  for (size_t i = 0; i < layers_.size(); ++i) {
    backends_[i]->write_page(*layers_[i], page, bytes);
    bytes += backends_[i]->page_bytes(*layers_[i]);
  }
}

}  // namespace pyllamacpp
