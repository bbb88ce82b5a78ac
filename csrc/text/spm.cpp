#include "text/spm.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "text/seen_words.h"
#include "text/utf8.h"

namespace pyllamacpp {
namespace {

constexpr std::string_view kSpace = "\u2581";  // what stands for a space in the tokens

void append_unescaped(std::string_view token, std::string* out) {
  for (size_t at = 0; at < token.size();) {
    if (token.substr(at, kSpace.size()) == kSpace) {
      out->push_back(' ');
      at += kSpace.size();
    } else {
      out->push_back(token[at++]);
    }
  }
}

std::string escaped(std::string_view text, bool prefix) {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + kSpace.size());
  if (prefix) out.append(kSpace);
  for (const char c : text) {
    if (c == ' ') {
      out.append(kSpace);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

// The byte that the token <0xAB> stands for; -1 if it is not written so.
int byte_value(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = -1;
  const char* end = token.data() + 5;
  return std::from_chars(token.data() + 3, end, value, 16).ptr == end ? value : -1;
}

// Unused tokens are made on the way to others and taken apart in the end, as in sentencepiece.
bool mergeable(TokenType type) {
  return type == TokenType::normal || type == TokenType::undefined || type == TokenType::unused;
}

}  // namespace

SpmTokenizer::SpmTokenizer(VocabData data)
    : Tokenizer(std::move(data)), ids_(data_.tokens), neighbours_(0) {
  read_byte_tokens();
  rank_scores();
  for (TokenId id = 0; id < size(); ++id) {
    const std::string& token = data_.tokens[id];
    if (!mergeable(data_.types[id]) || token.empty()) continue;
    ids_.add(id);
    longest_ = std::max(longest_, token.size());
    note_neighbours(token);
  }
  set_pieces([this](TokenId id, std::string* out) {
    if (data_.types[id] == TokenType::byte) {
      out->push_back(static_cast<char>(byte_value(data_.tokens[id])));
    } else {
      append_unescaped(data_.tokens[id], out);
    }
  });
}

std::string_view SpmTokenizer::as_matched(std::string_view text, std::string* buffer) const {
  if (text.find(kSpace) == std::string_view::npos) return text;
  append_unescaped(text, buffer);
  return *buffer;
}

void SpmTokenizer::read_byte_tokens() {
  for (TokenId id = 0; id < size(); ++id) {
    if (data_.types[id] != TokenType::byte) continue;
    const int value = byte_value(data_.tokens[id]);
    if (value < 0) {
      fail(ErrorKind::format, "token ", id,
           " of the vocabulary is a byte but is not written as <0x00> to <0xFF>");
    }
    if (!byte_tokens_[value]) byte_tokens_[value] = id;
  }
  has_all_bytes_ = std::ranges::all_of(byte_tokens_, [](const auto& id) { return id.has_value(); });
  if (!has_all_bytes_ && !data_.unknown) {
    fail(ErrorKind::format,
         "the vocabulary has neither a token for each byte nor an unknown token, so there is "
         "text that it cannot express");
  }
}

// Scores are only ever compared, so their order is all that is kept: the highest is rank 0.
void SpmTokenizer::rank_scores() {
  const std::vector<float>& scores = data_.scores;
  if (scores.size() != data_.tokens.size()) {
    fail(ErrorKind::format, "the vocabulary has ", data_.tokens.size(), " tokens but ",
         scores.size(), " scores");
  }
  std::vector<TokenId> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  for (const TokenId id : order) {
    if (std::isnan(scores[id])) {
      fail(ErrorKind::format, "the score of token ", id, " of the vocabulary is not a number");
    }
  }
  std::ranges::sort(order, std::greater<>(), [&](TokenId id) { return scores[id]; });
  merges_.resize(scores.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && scores[order[i]] != scores[order[i - 1]]) ++rank;
    merges_[order[i]] = {rank, order[i]};
  }
}

void SpmTokenizer::note_neighbours(std::string_view token) {
  Utf8Char left = next_char(token, 0);
  for (size_t at = left.size; at < token.size();) {
    const Utf8Char right = next_char(token, at);
    if (left.code < 128 && right.code < 128) {
      ascii_neighbours_.set(left.code * 128 + right.code);
    } else {
      neighbours_.add(static_cast<int32_t>(left.code), static_cast<int32_t>(right.code), true);
    }
    at += right.size;
    left = right;
  }
}

bool SpmTokenizer::may_merge(char32_t left, char32_t right) const {
  if (left < 128 && right < 128) return ascii_neighbours_[left * 128 + right];
  return neighbours_.find(static_cast<int32_t>(left), static_cast<int32_t>(right)) != nullptr;
}

void SpmTokenizer::encode_text(std::string_view text, bool begins,
                               std::vector<TokenId>* out) const {
  const std::string bytes = escaped(text, begins && data_.add_space_prefix);
  UnusedParts parts;
  const auto find = [&](const Symbol& left, const Symbol& right) -> const Merge* {
    if (left.size + right.size > longest_) return nullptr;
    const TokenId id = ids_.find({bytes.data() + left.start, left.size + right.size});
    if (id == TokenMap::kAbsent) return nullptr;
    if (data_.types[id] == TokenType::unused) parts[id] = {left.size, left.id, right.id};
    return &merges_[id];
  };
  Merger merger;
  const auto make = [&](std::string_view word) {
    const auto start = static_cast<uint32_t>(word.data() - bytes.data());
    merger.clear();
    for (uint32_t at = 0; at < word.size();) {
      const uint32_t size = next_char(word, at).size;
      merger.add(start + at, size, ids_.find(word.substr(at, size)));
      at += size;
    }
    merger.run(find);
    merger.for_each([&](const Symbol& symbol) {
      append_ids({bytes.data() + symbol.start, symbol.size}, symbol.id, parts, out);
    });
  };
  SeenWords seen(bytes.size());
  // The bytes from `start` to `end`, across whose borders nothing merges.
  const auto put = [&](size_t start, size_t end) {
    const std::string_view word(bytes.data() + start, end - start);
    if (has_all_bytes_) {
      seen.append(word, [&] { make(word); }, out);
    } else {
      make(word);  // whether an unknown token is put out depends on the word before
    }
  };
  char32_t before = 0;
  size_t start = 0;
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Char read = next_char(bytes, at);
    if (at > start && !may_merge(before, read.code)) {
      put(start, at);
      start = at;
    }
    before = read.code;
    at += read.size;
  }
  if (start < bytes.size()) put(start, bytes.size());
}

// A character without a token is spelled in bytes; where a byte has no token either, a run of such
// characters is one unknown token, as in sentencepiece.
void SpmTokenizer::append_ids(std::string_view bytes, TokenId id, const UnusedParts& parts,
                              std::vector<TokenId>* out) const {
  if (id != TokenMap::kAbsent) {
    const auto found = parts.find(id);
    if (found == parts.end()) {
      out->push_back(id);
    } else {
      const Parts& part = found->second;  // each is shorter than `bytes`
      append_ids(bytes.substr(0, part.left_size), part.left, parts, out);
      append_ids(bytes.substr(part.left_size), part.right, parts, out);
    }
    return;
  }
  const auto token_of = [this](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  if (std::ranges::all_of(bytes, [&](char c) { return token_of(c).has_value(); })) {
    for (const char c : bytes) out->push_back(*token_of(c));
  } else if (out->empty() || out->back() != *data_.unknown) {
    out->push_back(*data_.unknown);
  }
}

}  // namespace pyllamacpp
