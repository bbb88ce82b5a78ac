// A whole model through Context and Generation, so that the sanitizers see the forward pass and its
// threads: a small random LLaMA is written to a file, run with different threads and batches, cut
// off by other threads, and generated from.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "check.h"
#include "session/generation.h"
#include "tiny_model.h"

namespace {

using namespace pyllamacpp;
using namespace tiny_model;

std::vector<int32_t> tokens(int n) {
  std::mt19937 random(5);
  std::vector<int32_t> out;
  for (int i = 0; i < n; ++i) out.push_back(int32_t(3 + random() % 256));
  return out;
}

ContextParams params(int n_threads, int n_batch = 512, int max_sequences = 1) {
  ContextParams p;
  p.n_threads = n_threads;
  p.n_batch = n_batch;
  p.max_sequences = max_sequences;
  return p;
}

std::vector<float> all_logits(const std::shared_ptr<const Model>& model, const ContextParams& p,
                              const std::vector<int32_t>& text) {
  Context context(model, p);
  const BatchPiece piece{0, text, WantLogits::all};
  context.decode({&piece, 1});
  std::vector<float> out;
  for (int32_t i = 0; i < context.n_outputs(); ++i)
    out.insert(out.end(), context.logits(i).begin(), context.logits(i).end());
  return out;
}

void test_threads_and_batches(const std::shared_ptr<const Model>& model) {
  const std::vector<int32_t> text = tokens(100);
  const std::vector<float> expected = all_logits(model, params(1), text);
  CHECK(expected.size() == 100 * kVocab);
  for (int n_threads : {2, 3, 5})
    for (int n_batch : {1, 7, 512})
      CHECK(all_logits(model, params(n_threads, n_batch), text) == expected);
}

void test_hidden_states(const std::shared_ptr<const Model>& model) {
  const std::vector<int32_t> text = tokens(60);
  const std::span<const int32_t> all(text);
  const BatchPiece whole[] = {{0, all, WantLogits::all}};
  Context alone(model, params(1));
  const std::span<const float> expected = alone.embed(whole);
  CHECK(expected.size() == 60 * kDim);
  CHECK(alone.n_outputs() == 0);
  for (int n_threads : {2, 5})
    for (int n_batch : {1, 7, 512}) {
      Context context(model, params(n_threads, n_batch, 2));
      const BatchPiece together[] = {{1, all.first(45), WantLogits::last},
                                     {0, all, WantLogits::all}};
      const std::span<const float> rows = context.embed(together);
      CHECK(rows.size() == 61 * kDim);
      CHECK(std::equal(rows.begin(), rows.begin() + kDim, expected.begin() + 44 * kDim));
      CHECK(std::equal(rows.begin() + kDim, rows.end(), expected.begin()));
    }
}

void test_sequences(const std::shared_ptr<const Model>& model) {
  const std::vector<int32_t> text = tokens(60);
  const std::vector<float> expected = all_logits(model, params(2), text);
  Context context(model, params(2, 16, 3));
  const std::span<const int32_t> all(text);
  const BatchPiece together[] = {{0, all, WantLogits::last}, {1, all.first(45), WantLogits::last}};
  context.decode(together);
  const auto equal = [&](std::span<const float> row, size_t at) {
    return std::equal(row.begin(), row.end(), expected.begin() + std::ptrdiff_t(at * kVocab));
  };
  CHECK(equal(context.logits(0), 59));
  CHECK(equal(context.logits(1), 44));
  context.fork(1, 2);
  context.trim(1, 30);
  const BatchPiece on[] = {{1, all.subspan(30, 5), WantLogits::last},
                           {2, all.subspan(45, 10), WantLogits::last}};
  context.decode(on);
  CHECK(equal(context.logits(0), 34));
  CHECK(equal(context.logits(1), 54));
}

void test_cancel(const std::shared_ptr<const Model>& model) {
  Context context(model, params(2, 8));
  const std::vector<int32_t> text = tokens(400);
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) context.cancel();
  });
  int cancelled = 0;
  for (int i = 0; i < 20; ++i) {
    try {
      const BatchPiece piece{0, text, WantLogits::last};
      context.decode({&piece, 1});
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::cancelled);
      ++cancelled;
    }
    CHECK(context.length(0) == 0 || context.length(0) == 400);
    context.trim(0, 0);
  }
  done = true;
  other.join();
  CHECK(cancelled > 0);
}

// Whenever a cancel comes during a prompt, the layer at hand is the last.
void test_cancel_ends_with_a_layer(const std::shared_ptr<const Model>& model) {
  const std::vector<int32_t> text = tokens(100);  // four batches
  const BatchPiece piece{0, text, WantLogits::last};
  const int n_layers = 4 * model->config().n_layers;
  for (int at = 0; at < n_layers; ++at) {
    Context context(model, params(2, 32));
    int n_begun = 0;
    context.set_poll([&] {
      if (n_begun++ == at) context.cancel();
      return false;
    });
    bool is_cancelled = false;
    try {
      context.decode({&piece, 1});
    } catch (const Error& e) {
      is_cancelled = e.kind() == ErrorKind::cancelled;
    }
    CHECK(is_cancelled == (at + 1 < n_layers));
    CHECK(n_begun == at + 1);
    CHECK(context.length(0) == (is_cancelled ? 0 : 100));
  }
}

// Two contexts of one model at the same time, each with its own threads.
void test_shared_weights(const std::shared_ptr<const Model>& model) {
  const std::vector<int32_t> text = tokens(80);
  const std::vector<float> expected = all_logits(model, params(1), text);
  std::vector<float> a, b;
  std::thread other([&] { a = all_logits(model, params(2), text); });
  b = all_logits(model, params(2), text);
  other.join();
  CHECK(a == expected);
  CHECK(b == expected);
}

void test_generation(const std::shared_ptr<const Model>& model) {
  std::string texts[2];
  Context context(model, params(2));
  for (std::string& text : texts) {
    GenerationParams p;
    p.max_tokens = 50;
    p.sampling.seed = 4;
    p.ignore_eos = true;
    Generation generation(context, 0, tokens(20), p);
    for (GenerationStep step; step.finish_reason == FinishReason::none; text += step.text)
      step = generation.next();
    CHECK(generation.n_generated() == 50);
    CHECK(generation.n_reused() == (&text == &texts[0] ? 0 : 19));
  }
  CHECK(texts[0] == texts[1]);

  GenerationParams full;
  full.ignore_eos = true;
  Context small(model, [] {
    ContextParams p = params(2);
    p.n_ctx = 40;
    return p;
  }());
  Generation generation(small, 0, tokens(20), full);
  FinishReason reason = FinishReason::none;
  while (reason == FinishReason::none) reason = generation.next().finish_reason;
  CHECK(reason == FinishReason::length);
  CHECK(small.length(0) == 40);
}

GenerationParams drawn(int i) {
  GenerationParams p;
  p.max_tokens = 30 + i;
  p.sampling.seed = uint64_t(i);
  p.ignore_eos = true;
  p.n_log_probs = i % 3;
  return p;
}

std::vector<int32_t> prompt(int i) {
  std::vector<int32_t> text = tokens(40);
  text.resize(size_t(5 + 7 * i));
  text.back() = 3 + i;
  return text;
}

std::vector<int32_t> alone(const std::shared_ptr<const Model>& model, int i) {
  Context context(model, params(2));
  Generation generation(context, 0, prompt(i), drawn(i));
  std::vector<int32_t> text;
  for (GenerationStep step; step.finish_reason == FinishReason::none;) {
    step = generation.next();
    text.push_back(step.token);
    CHECK(step.log_probs && step.log_probs->top.size() == size_t(i % 3));
  }
  return text;
}

// Several texts in each evaluation, one of them interrupted and resumed in another sequence, one
// with guesses that are right, wrong and half right.
void test_together(const std::shared_ptr<const Model>& model) {
  constexpr int kTexts = 4;
  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < kTexts; ++i) expected.push_back(alone(model, i));
  Context context(model, params(2, 16, kTexts + 1));
  std::vector<Generation> generations;
  generations.reserve(kTexts);
  for (int i = 0; i < kTexts; ++i) generations.emplace_back(context, i, prompt(i), drawn(i));
  std::vector<std::vector<int32_t>> texts(kTexts);
  for (int round = 0; round < 400; ++round) {
    std::vector<Generation*> running;
    for (Generation& g : generations)
      if (!g.finished()) running.push_back(&g);
    if (running.empty()) break;
    if (round == 12) {
      generations[1].interrupt();
      generations[1].resume(kTexts);
    }
    std::vector<int32_t>& guessed = texts[2];
    if (!guessed.empty()) {
      const auto begin = expected[2].begin() + std::ptrdiff_t(guessed.size());
      std::vector<int32_t> guesses(begin, std::min(begin + 5, expected[2].end()));
      if (round % 3 > 0 && !guesses.empty()) guesses[guesses.size() / size_t(round % 3 + 1)] ^= 1;
      generations[2].guess(std::move(guesses));
    }
    Generation::evaluate(running);
    for (Generation* g : running) {
      if (!g->ready()) continue;
      for (const GenerationStep& step : g->sample())
        texts[size_t(g - generations.data())].push_back(step.token);
    }
  }
  CHECK(texts == expected);
}

void test_shift(const std::shared_ptr<const Model>& model) {
  ContextParams small = params(2);
  small.n_ctx = 40;
  Context context(model, small);
  GenerationParams p = drawn(0);
  p.max_tokens = 100;
  p.when_full = WhenFull::shift;
  p.n_keep = 3;
  Generation generation(context, 0, tokens(20), p);
  while (generation.next().finish_reason == FinishReason::none) CHECK(context.length(0) <= 40);
  CHECK(generation.n_generated() == 100);
  CHECK(generation.n_shifts() > 2);
  for (size_t i = 0; i < 3; ++i) CHECK(context.tokens(0)[i] == tokens(20)[i]);
}

}  // namespace

int main() {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() /
      ("pyllamacpp_test_session_" + std::to_string(std::random_device()()) + ".gguf");
  write_model(path);
  for (Repack repack : {Repack::automatic, Repack::never}) {
    ModelParams p;
    p.repack = repack;
    p.n_threads = 2;
    const auto model = std::make_shared<const Model>(path.string(), p);
    test_threads_and_batches(model);
    test_hidden_states(model);
    test_sequences(model);
    test_cancel(model);
    test_cancel_ends_with_a_layer(model);
    test_shared_weights(model);
    test_generation(model);
    test_together(model);
    test_shift(model);
  }
  std::filesystem::remove(path);
  return check_result();
}
