// Every allocation of a load and a generation fails once: each time an Error (or std::bad_alloc)
// comes out, nothing ends the process, and what is tried again afterwards works.
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>
#include <system_error>

#include "base/error.h"
#include "check.h"
#include "session/generation.h"
#include "session/memory_plan.h"
#include "tiny_model.h"

namespace {

// Allocations until one fails; below zero: none does.
std::atomic<long> countdown = -1;
std::atomic<bool> has_failed = false;

bool fails_now() {
  if (countdown < 0 || countdown-- != 0) return false;
  has_failed = true;
  return true;
}

void* allocate(size_t size, size_t alignment) {
  if (fails_now()) return nullptr;
  size = (size + alignment - 1) / alignment * alignment;
  return alignment <= alignof(std::max_align_t) ? std::malloc(size ? size : 1)
                                                : std::aligned_alloc(alignment, size);
}

void* allocate_or_throw(size_t size, size_t alignment) {
  void* p = allocate(size, alignment);
  if (!p) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(size_t size) { return allocate_or_throw(size, 1); }
void* operator new[](size_t size) { return allocate_or_throw(size, 1); }
void* operator new(size_t size, std::align_val_t a) { return allocate_or_throw(size, size_t(a)); }
void* operator new[](size_t size, std::align_val_t a) { return allocate_or_throw(size, size_t(a)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return allocate(size, 1); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return allocate(size, 1); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

using namespace pyllamacpp;

std::string run(const std::string& path, Repack repack) {
  ContextParams params;
  params.n_ctx = 64;
  params.n_batch = 16;
  params.n_threads = 2;
  params.n_threads_batch = 2;
  require_fit(path, plan_memory(path, params, repack));
  const auto model = std::make_shared<const Model>(
      path, ModelParams{.vocab_only = false, .repack = repack, .n_threads = 2});
  Context context(model, params);
  GenerationParams generation_params;
  generation_params.max_tokens = 4;
  generation_params.sampling.seed = 7;
  generation_params.stop = {"never"};
  Generation generation(context, 0, model->tokenizer().encode("hello", true, true),
                        generation_params);
  std::string text;
  for (GenerationStep step; step.finish_reason == FinishReason::none;) {
    step = generation.next();
    text += step.text;
  }
  return text;
}

void every_allocation_fails_once(const std::string& path, Repack repack) {
  const std::string expected = run(path, repack);
  long n = 0;
  for (;; ++n) {
    has_failed = false;
    countdown = n;
    bool threw = false;
    std::string text;
    try {
      text = run(path, repack);
    } catch (const Error& e) {
      threw = true;
      CHECK(e.kind() == ErrorKind::memory);
    } catch (const std::bad_alloc&) {
      threw = true;
    } catch (const std::system_error&) {  // a thread that cannot be made
      threw = true;
    }
    countdown = -1;
    if (!has_failed) break;
    // Hints of the standard library may fail without a consequence; nothing else may.
    CHECK(threw || text == expected);
    if (check_failures) {
      std::fprintf(stderr, "allocation %ld\n", n);
      return;
    }
  }
  CHECK(n > 300);
  CHECK(run(path, repack) == expected);
}

}  // namespace

int main() {
  const auto path = std::filesystem::temp_directory_path() / "pyllamacpp_out_of_memory.gguf";
  tiny_model::write_model(path);
  every_allocation_fails_once(path.string(), Repack::automatic);
  every_allocation_fails_once(path.string(), Repack::never);
  std::filesystem::remove(path);
  return check_result();
}
