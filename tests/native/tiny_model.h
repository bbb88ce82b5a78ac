// A small random LLaMA, written as a GGUF file for the native tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/half.h"
#include "gguf/gguf_reader.h"

namespace tiny_model {

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
inline std::string random_weights(std::mt19937& random, DType type, uint64_t n, float spread) {
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

inline void write_model(const std::filesystem::path& path) {
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

}  // namespace tiny_model
