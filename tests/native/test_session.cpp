// A whole model through Context and Generation, so that the sanitizers see the forward pass and its
// threads: a small random LLaMA is written to a file, run with different threads and batches, cut
// off by other threads, and generated from.
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

namespace {

using namespace pyllamacpp;

constexpr uint32_t kDim = 64, kFf = 96, kHeads = 4, kKvHeads = 2, kLayers = 2, kVocab = 259;

// Writes GGUF version 3 value by value.
class Writer {
 public:
  template <class T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void string(const std::string& text) {
    put(uint64_t(text.size()));
    bytes_ += text;
  }
  void uint(const std::string& key, uint32_t value) {
    string(key);
    put(uint32_t(MetaType::u32));
    put(value);
    ++n_keys_;
  }
  void text(const std::string& key, const std::string& value) {
    string(key);
    put(uint32_t(MetaType::string));
    string(value);
    ++n_keys_;
  }
  void array(const std::string& key, MetaType type, size_t count) {
    string(key);
    put(uint32_t(MetaType::array));
    put(uint32_t(type));
    put(uint64_t(count));
    ++n_keys_;
  }
  void tensor(const std::string& name, DType type, std::vector<uint64_t> shape, std::string data) {
    Tensor t{name, type, std::move(shape), std::move(data)};
    tensors_.push_back(std::move(t));
  }
  void save(const std::filesystem::path& path) {
    Writer head;
    head.put(uint32_t(0x46554747));  // "GGUF"
    head.put(uint32_t(3));
    head.put(uint64_t(tensors_.size()));
    head.put(n_keys_);
    std::string out = head.bytes_ + bytes_;
    std::string data;
    for (const Tensor& t : tensors_) {
      Writer info;
      info.string(t.name);
      info.put(uint32_t(t.shape.size()));
      for (uint64_t n : t.shape) info.put(n);
      info.put(uint32_t(t.type));
      info.put(uint64_t(data.size()));
      out += info.bytes_;
      data += t.data;
      data.resize((data.size() + 31) / 32 * 32);
    }
    out.resize((out.size() + 31) / 32 * 32);
    std::ofstream(path, std::ios::binary) << out << data;
  }

 private:
  struct Tensor {
    std::string name;
    DType type;
    std::vector<uint64_t> shape;
    std::string data;
  };
  std::string bytes_;
  uint64_t n_keys_ = 0;
  std::vector<Tensor> tensors_;
};

// Random weights; types of 32 get random blocks with scales that keep the rows near unit length.
std::string random_weights(std::mt19937& random, DType type, uint64_t n, float spread) {
  std::string out(bytes_of(type, n), '\0');
  if (type == DType::f32) {
    std::normal_distribution<float> normal(0, spread);
    for (uint64_t i = 0; i < n; ++i) {
      const float value = normal(random);
      std::copy_n(reinterpret_cast<const char*>(&value), 4, out.begin() + std::ptrdiff_t(4 * i));
    }
    return out;
  }
  for (char& byte : out) byte = char(random());
  const size_t block = traits(type).block_bytes;
  const uint16_t d = float_to_half(spread / (type == DType::q8_0 ? 74 : 5));
  for (size_t i = 0; i < out.size(); i += block)
    std::copy_n(reinterpret_cast<const char*>(&d), 2, out.begin() + std::ptrdiff_t(i));
  return out;
}

void write_model(const std::filesystem::path& path) {
  Writer w;
  w.text("general.architecture", "llama");
  w.uint("llama.block_count", kLayers);
  w.uint("llama.context_length", 512);
  w.uint("llama.embedding_length", kDim);
  w.uint("llama.feed_forward_length", kFf);
  w.uint("llama.attention.head_count", kHeads);
  w.uint("llama.attention.head_count_kv", kKvHeads);
  w.text("tokenizer.ggml.model", "llama");
  w.array("tokenizer.ggml.tokens", MetaType::string, kVocab);
  for (const char* name : {"<unk>", "<s>", "</s>"}) w.string(name);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", unsigned(byte));
    w.string(name);
  }
  w.array("tokenizer.ggml.scores", MetaType::f32, kVocab);
  for (uint32_t i = 0; i < kVocab; ++i) w.put(0.0f);
  w.array("tokenizer.ggml.token_type", MetaType::i32, kVocab);
  for (uint32_t i = 0; i < kVocab; ++i) w.put(int32_t(i == 0 ? 2 : i < 3 ? 3 : 6));
  w.uint("tokenizer.ggml.bos_token_id", 1);
  w.uint("tokenizer.ggml.eos_token_id", 2);

  std::mt19937 random(3);
  const auto matrix = [&](const std::string& name, DType type, uint64_t rows, uint64_t cols) {
    const float spread = 1.0f / std::sqrt(float(cols));
    w.tensor(name, type, {cols, rows}, random_weights(random, type, rows * cols, spread));
  };
  const auto vector = [&](const std::string& name) {
    w.tensor(name, DType::f32, {kDim}, random_weights(random, DType::f32, kDim, 1));
  };
  const uint32_t kv_dim = kDim / kHeads * kKvHeads;
  matrix("token_embd.weight", DType::q8_0, kVocab, kDim);
  for (uint32_t i = 0; i < kLayers; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    vector(p + "attn_norm.weight");
    matrix(p + "attn_q.weight", DType::q4_0, kDim, kDim);
    matrix(p + "attn_k.weight", DType::f32, kv_dim, kDim);
    matrix(p + "attn_v.weight", DType::q8_0, kv_dim, kDim);
    matrix(p + "attn_output.weight", DType::q4_0, kDim, kDim);
    vector(p + "ffn_norm.weight");
    matrix(p + "ffn_gate.weight", DType::q8_0, kFf, kDim);
    matrix(p + "ffn_up.weight", DType::f32, kFf, kDim);
    matrix(p + "ffn_down.weight", DType::q4_0, kDim, kFf);
  }
  vector("output_norm.weight");
  w.save(path);
}

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
    test_sequences(model);
    test_cancel(model);
    test_shared_weights(model);
    test_generation(model);
  }
  std::filesystem::remove(path);
  return check_result();
}
