// The paged KV cache over a backend that only remembers: what a sequence wrote is what it finds,
// pages are copied only when they are shared and about to be written, and none is ever lost.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "cache/kv_cache.h"
#include "check.h"

namespace {

using namespace pyllamacpp;

constexpr int32_t kPage = 4;

struct FakeKv : KvLayer {
  explicit FakeKv(const KvShape& s) : shape(s), tokens(size_t(s.n_pages * kPage), -1) {}
  KvShape shape;
  std::vector<int32_t> tokens;  // [n_pages][kPage]
};

struct FakeBackend : Backend {
  bool supports(DType) const override { return false; }
  std::unique_ptr<Weight> load_matrix(const WeightSource&) override { return nullptr; }
  size_t matrix_bytes(DType, int64_t, int64_t) const override { return 0; }
  size_t vector_bytes(int64_t) const override { return 0; }
  size_t kv_bytes(const KvShape&) const override { return 0; }
  size_t stream_bytes(const StreamShape&) const override { return 0; }
  std::unique_ptr<Weight> load_table(const WeightSource&) override { return nullptr; }
  std::unique_ptr<Weight> load_vector(const WeightSource&) override { return nullptr; }
  void expect(size_t) override {}
  uint64_t device_bytes() const override { return 0; }
  uint64_t device_bytes_free() const override { return 0; }
  void finish_loading() override {}
  std::unique_ptr<Stream> make_stream(const StreamShape&) override { return nullptr; }
  int32_t kv_page_tokens() const override { return kPage; }
  bool supports_kv(DType, int32_t) const override { return true; }
  std::unique_ptr<KvLayer> make_kv(const KvShape& shape) override {
    n_pages = shape.n_pages;
    return std::make_unique<FakeKv>(shape);
  }
  void copy_page(KvLayer& kv, int32_t from, int32_t to) override {
    if (fails) fail(ErrorKind::device, "the device was lost");
    copies.push_back({from, to});
    std::vector<int32_t>& tokens = static_cast<FakeKv&>(kv).tokens;
    std::copy_n(tokens.begin() + from * kPage, kPage, tokens.begin() + to * kPage);
  }
  size_t page_bytes(const KvLayer&) const override { return kPage * sizeof(int32_t); }
  void read_page(const KvLayer& kv, int32_t page, int32_t n_tokens, std::byte* out) override {
    std::vector<int32_t> tokens(kPage, 0);
    std::copy_n(static_cast<const FakeKv&>(kv).tokens.begin() + page * kPage, n_tokens,
                tokens.begin());
    std::memcpy(out, tokens.data(), page_bytes(kv));
  }
  void write_page(KvLayer& kv, int32_t page, const std::byte* bytes) override {
    std::memcpy(static_cast<FakeKv&>(kv).tokens.data() + page * kPage, bytes, page_bytes(kv));
  }
  int64_t n_pages = 0;
  bool fails = false;
  std::vector<std::pair<int32_t, int32_t>> copies;
};

int32_t pages_for(int64_t length) { return int32_t((length + kPage - 1) / kPage); }

// A cache beside what each of its sequences should hold.
class Checked {
 public:
  Checked(int32_t n_ctx, int32_t n_sequences)
      : cache(std::vector<Backend*>(kLayers, &backend), {0, 3, 8, DType::f16, DType::f16}, n_ctx,
              n_ctx + int64_t(n_sequences - 1) * kPage, n_sequences),
        held(size_t(n_sequences)) {}

  static constexpr int32_t kLayers = 2;
  FakeBackend backend;
  KvCache cache;
  std::vector<std::vector<int32_t>> held;

  std::vector<int32_t> pages(int32_t s) const {
    const int32_t* first = cache.pages(s);
    return {first, first + pages_for(cache.length(s))};
  }
  int uses(int32_t page) const {
    int n = 0;
    for (size_t s = 0; s < held.size(); ++s) {
      const std::vector<int32_t> all = pages(int32_t(s));
      n += int(std::count(all.begin(), all.end(), page));
    }
    return n;
  }
  int64_t free_pages() const {
    std::set<int32_t> used;
    for (size_t s = 0; s < held.size(); ++s)
      for (int32_t page : pages(int32_t(s))) used.insert(page);
    return backend.n_pages - int64_t(used.size());
  }

  // Appends n new tokens; whether there was room must be as computed here.
  void append(int32_t s, int32_t n) {
    std::vector<int32_t>& tokens = held[size_t(s)];
    const std::vector<int32_t> before = pages(s);
    const size_t copied = backend.copies.size();
    const bool copy = n > 0 && tokens.size() % kPage != 0 && uses(before.back()) > 1;
    const int64_t length = int64_t(tokens.size()) + n;
    const int64_t wanted = pages_for(length) - int64_t(before.size()) + copy;
    const bool fits = length <= cache.n_ctx() && wanted <= free_pages();
    bool full = false;
    try {
      cache.append(s, n);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::context_full);
      full = true;
    }
    CHECK(full == !fits);
    if (full) {
      CHECK(pages(s) == before && backend.copies.size() == copied);
    } else {
      CHECK(backend.copies.size() == copied + (copy ? kLayers : 0));
      const std::vector<int32_t> now = pages(s);
      for (size_t i = tokens.size() / kPage; n > 0 && i < now.size(); ++i) CHECK(uses(now[i]) == 1);
      for (int32_t i = 0; i < n; ++i) {
        const int32_t at = int32_t(tokens.size());
        tokens.push_back(++last_token_);
        for (int32_t l = 0; l < kLayers; ++l)
          layer(l).tokens[size_t(now[size_t(at / kPage)] * kPage + at % kPage)] = last_token_;
      }
    }
    check();
  }
  void trim(int32_t s, int32_t length) {
    cache.trim(s, length);
    held[size_t(s)].resize(size_t(length));
    check();
  }
  void fork(int32_t from, int32_t to) {
    const size_t copied = backend.copies.size();
    cache.fork(from, to);
    CHECK(backend.copies.size() == copied);  // copied when written
    held[size_t(to)] = held[size_t(from)];
    CHECK(pages(to) == pages(from));
    check();
  }
  void check() {
    for (size_t s = 0; s < held.size(); ++s) {
      CHECK(cache.length(int32_t(s)) == int32_t(held[s].size()));
      const std::vector<int32_t> all = pages(int32_t(s));
      CHECK(std::set<int32_t>(all.begin(), all.end()).size() == all.size());
      for (int32_t page : all) CHECK(page >= 0 && page < backend.n_pages);
      for (int32_t l = 0; l < kLayers; ++l)
        for (size_t i = 0; i < held[s].size(); ++i)
          CHECK(layer(l).tokens[size_t(all[i / kPage]) * kPage + i % kPage] == held[s][i]);
    }
  }

 private:
  FakeKv& layer(int32_t i) { return static_cast<FakeKv&>(cache.layer(i)); }
  int32_t last_token_ = 0;
};

template <class F>
void check_throws(ErrorKind kind, const F& f) {
  bool thrown = false;
  try {
    f();
  } catch (const Error& e) {
    thrown = e.kind() == kind;
  }
  CHECK(thrown);
}

void test_one_sequence() {
  Checked c(10, 1);
  CHECK(c.backend.n_pages == 3);
  const KvShape& shape = static_cast<FakeKv&>(c.cache.layer(1)).shape;
  CHECK(shape.n_pages == 3 && shape.n_kv_heads == 3 && shape.head_dim == 8);
  c.append(0, 0);
  c.append(0, -1);
  CHECK(c.cache.length(0) == 0);
  for (int i = 0; i < 10; ++i) c.append(0, 1);
  c.append(0, 1);  // full, though the last page has room
  CHECK(c.cache.length(0) == 10);
  c.trim(0, 5);
  c.append(0, 6);
  c.append(0, 5);
  CHECK(c.cache.length(0) == 10);
  c.trim(0, 0);
  c.append(0, 11);
  c.append(0, INT32_MAX);
  CHECK(c.cache.length(0) == 0);
  CHECK(c.backend.copies.empty());
}

void test_copies_on_write_only() {
  Checked c(20, 3);
  c.append(0, 6);  // one whole page and half of another
  c.fork(0, 1);
  c.append(1, 1);                       // into the shared half
  CHECK(c.backend.copies.size() == 2);  // once in each layer
  CHECK(c.pages(1)[0] == c.pages(0)[0] && c.pages(1)[1] != c.pages(0)[1]);
  c.append(0, 1);  // its own again
  CHECK(c.backend.copies.size() == 2);
  c.fork(0, 2);
  c.trim(2, 4);  // gives up the half: what comes next is a new page
  c.append(2, 3);
  CHECK(c.backend.copies.size() == 2);
  c.fork(0, 1);
  c.trim(0, 3);  // back into the first page, which all three share
  c.append(0, 1);
  CHECK(c.backend.copies.size() == 4);
  c.fork(1, 1);
  CHECK(c.cache.length(1) == 7);
}

// A device that fails while a shared page is copied: nothing has changed, no page is lost.
void test_a_copy_that_fails() {
  Checked c(8, 2);
  c.append(0, 6);
  c.fork(0, 1);
  const int32_t n_free = c.cache.n_free_pages();
  c.backend.fails = true;
  check_throws(ErrorKind::device, [&] { c.cache.append(1, 1); });
  c.check();
  CHECK(c.cache.n_free_pages() == n_free);
  c.backend.fails = false;
  c.append(1, 1);
}

void test_arguments() {
  Checked c(8, 2);
  c.append(0, 3);
  for (int32_t s : {-1, 2}) {
    check_throws(ErrorKind::invalid_argument, [&] { c.cache.append(s, 1); });
    check_throws(ErrorKind::invalid_argument, [&] { c.cache.trim(s, 0); });
    check_throws(ErrorKind::invalid_argument, [&] { c.cache.length(s); });
    check_throws(ErrorKind::invalid_argument, [&] { c.cache.fork(s, 0); });
    check_throws(ErrorKind::invalid_argument, [&] { c.cache.fork(0, s); });
  }
  check_throws(ErrorKind::invalid_argument, [&] { c.cache.trim(0, 4); });
  check_throws(ErrorKind::invalid_argument, [&] { c.cache.trim(0, -1); });
  c.check();
}

// Without sharing, all sequences together may hold n_ctx tokens, however they are split.
void test_all_together_hold_n_ctx() {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const int32_t n_sequences = int32_t(1 + random() % 5), n_ctx = int32_t(1 + random() % 40);
    Checked c(n_ctx, n_sequences);
    for (int32_t left = n_ctx; left > 0;) {
      const int32_t n = 1 + int32_t(random() % uint32_t(left));
      const int32_t s = int32_t(random() % uint32_t(n_sequences));
      const int32_t before = c.cache.length(s);
      c.append(s, n);
      CHECK(c.cache.length(s) == before + n);
      left -= n;
    }
  }
}

void test_random_walk() {
  std::mt19937 random(2);
  const auto below = [&](int32_t n) { return int32_t(random() % uint32_t(n)); };
  for (int round = 0; round < 40; ++round) {
    const int32_t n_sequences = 1 + below(5);
    Checked c(1 + below(60), n_sequences);
    for (int step = 0; step < 150; ++step) {
      const int32_t s = below(n_sequences);
      switch (below(5)) {
        case 0:
          c.trim(s, below(c.cache.length(s) + 1));
          break;
        case 1:
          c.fork(s, below(n_sequences));
          break;
        default:
          c.append(s, below(12));
      }
    }
    for (int32_t s = 0; s < n_sequences; ++s) c.trim(s, 0);
    CHECK(c.free_pages() == c.backend.n_pages);
    c.append(0, c.cache.n_ctx());  // every page came back
    CHECK(c.cache.length(0) == c.cache.n_ctx());
  }
}

// What is read of a sequence's pages makes another one equal to its first tokens.
void test_pages_as_bytes() {
  Checked c(20, 2);
  c.append(0, 11);
  const int32_t length = 10;
  const size_t n_bytes = c.cache.page_bytes();
  CHECK(n_bytes == Checked::kLayers * kPage * sizeof(int32_t));
  c.cache.append(1, length);
  std::vector<std::byte> page(n_bytes);
  for (int32_t i = 0; i < pages_for(length); ++i) {
    c.cache.read_page(0, i, length, page.data());
    c.cache.write_page(1, i, page.data());
  }
  c.held[1].assign(c.held[0].begin(), c.held[0].begin() + length);
  c.check();
  std::vector<int32_t> last(n_bytes / sizeof(int32_t));  // of `page`: two tokens, then nothing
  std::memcpy(last.data(), page.data(), n_bytes);
  for (int32_t l = 0; l < Checked::kLayers; ++l)
    for (int32_t i = length % kPage; i < kPage; ++i) CHECK(last[size_t(l * kPage + i)] == 0);
  const std::pair<int32_t, int32_t> none_there[] = {{-1, 10}, {3, 10}, {0, 12}, {0, 0}};
  for (const std::pair<int32_t, int32_t>& p : none_there)
    check_throws(ErrorKind::invalid_argument,
                 [&] { c.cache.read_page(0, p.first, p.second, page.data()); });
}

}  // namespace

int main() {
  test_one_sequence();
  test_copies_on_write_only();
  test_a_copy_that_fails();
  test_arguments();
  test_all_together_hold_n_ctx();
  test_random_walk();
  test_pages_as_bytes();
  return check_result();
}
