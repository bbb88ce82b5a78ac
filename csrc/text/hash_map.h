// Two open-addressing tables that are filled once and then only read: they make loading a
// vocabulary of 128k tokens and 280k merges quick, and a lookup one or two cache lines.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pyllamacpp {

// Spreads the entropy of `value` over all bits: the finalizer of MurmurHash3 (Appleby, public
// domain).
inline uint64_t mix_bits(uint64_t value) {
  value ^= value >> 33;
  value *= 0xFF51AFD7ED558CCDull;
  value ^= value >> 33;
  value *= 0xC4CEB9FE1A85EC53ull;
  return value ^ value >> 33;
}

// Hash of a short string, eight bytes a step.
inline uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = bytes.size();
  size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    hash = mix_bits(hash ^ word);
  }
  uint64_t tail = 0;
  for (int shift = 0; at < bytes.size(); ++at, shift += 8) {
    tail |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[at])) << shift;
  }
  return mix_bits(hash ^ tail);
}

// At least a third of the slots stay empty, so that a search for what is absent ends soon.
inline size_t slots_for(size_t entries) { return std::bit_ceil(entries + entries / 2 + 2); }

// (int32, int32) -> Value, keys not negative.
template <class Value>
class PairMap {
 public:
  // Room for `entries`; it grows when more come.
  explicit PairMap(size_t entries) : slots_(slots_for(entries)), mask_(slots_.size() - 1) {}

  // Keeps the first value given for a key.
  void add(int32_t left, int32_t right, Value value) {
    Slot* slot = &slots_[find_slot(key_of(left, right))];
    if (slot->key != kEmpty) return;
    *slot = {key_of(left, right), value};
    if (slots_for(++used_) > slots_.size()) grow();
  }

  // nullptr if absent, which negative keys always are.
  const Value* find(int32_t left, int32_t right) const {
    if (left < 0 || right < 0) return nullptr;
    const Slot& slot = slots_[find_slot(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.value;
  }

 private:
  static constexpr uint64_t kEmpty = ~0ull;

  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }

  size_t find_slot(uint64_t key) const {
    size_t at = mix_bits(key) & mask_;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask_;
    return at;
  }

  void grow() {
    const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.size() * 2));
    mask_ = slots_.size() - 1;
    for (const Slot& slot : old) {
      if (slot.key != kEmpty) slots_[find_slot(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t mask_;
  size_t used_ = 0;
};

// The ids of strings that are elements of one vector, which must outlive the map and not change.
// A slot is 8 bytes, so that the table of a large vocabulary stays in the cache.
class TokenMap {
 public:
  explicit TokenMap(const std::vector<std::string>& tokens)
      : tokens_(tokens), slots_(slots_for(tokens.size())), mask_(slots_.size() - 1) {}

  // Makes tokens[id] findable; of equal tokens the first one added counts.
  void add(int32_t id) {
    const uint64_t hash = hash_bytes(tokens_[id]);
    Slot& slot = slots_[find_slot(tokens_[id], hash)];
    if (slot.id == kAbsent) slot = {tag_of(hash), id};
  }

  // kAbsent if there is none.
  int32_t find(std::string_view token) const {
    return slots_[find_slot(token, hash_bytes(token))].id;
  }

  static constexpr int32_t kAbsent = -1;

 private:
  struct Slot {
    uint32_t tag = 0;  // upper half of the hash: spares most comparisons of strings
    int32_t id = kAbsent;
  };

  static uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

  size_t find_slot(std::string_view token, uint64_t hash) const {
    size_t at = hash & mask_;
    while (slots_[at].id != kAbsent &&
           (slots_[at].tag != tag_of(hash) || tokens_[slots_[at].id] != token)) {
      at = (at + 1) & mask_;
    }
    return at;
  }

  const std::vector<std::string>& tokens_;
  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace pyllamacpp
