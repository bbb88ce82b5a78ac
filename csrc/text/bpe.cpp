#include "text/bpe.h"

#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/seen_words.h"
#include "text/utf8.h"

namespace pyllamacpp {
namespace {

// GPT-2 writes each byte of a token as one printable character: itself where Latin-1 has a visible
// one, otherwise the next free code point from U+0100 on (bytes_to_unicode in its encoder.py).
struct ByteAlphabet {
  std::array<std::string, 256> spelling;  // UTF-8 of each byte's character
  std::array<int16_t, 512> byte;          // of a code point, -1 if it spells none

  ByteAlphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int value = 0; value < 256; ++value) {
      const bool visible = (value >= 0x21 && value <= 0x7E) || (value >= 0xA1 && value != 0xAD);
      const char32_t code = visible ? static_cast<char32_t>(value) : next++;
      append_utf8(&spelling[value], code);
      byte[code] = static_cast<int16_t>(value);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet made;
  return made;
}

// The bytes that `token` spells. Tokens added to a vocabulary can be plain text: a token with any
// other character in it is taken as it is.
void append_bytes_of(const std::string& token, std::string* out) {
  const size_t start = out->size();
  for (size_t at = 0; at < token.size();) {
    const Utf8Char read = next_char(token, at);
    const int byte = read.code < alphabet().byte.size() ? alphabet().byte[read.code] : -1;
    if (byte < 0) {
      out->replace(start, std::string::npos, token);
      return;
    }
    out->push_back(static_cast<char>(byte));
    at += read.size;
  }
}

}  // namespace

BpeTokenizer::BpeTokenizer(VocabData data)
    : Tokenizer(std::move(data)),
      pretokenizer_(find_pretokenizer(data_.pre.empty() || data_.pre == "default"
                                          ? guess_pretokenizer(data_.tokens)
                                          : data_.pre)),
      ids_(data_.tokens),
      merges_(data_.merges.size()) {
  for (TokenId id = 0; id < size(); ++id) {
    if (data_.types[id] != TokenType::user_defined && !hidden(id)) ids_.add(id);
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_tokens_[byte] = ids_.find(alphabet().spelling[byte]);
  }
  read_merges();
  set_pieces([this](TokenId id, std::string* out) {
    if (data_.types[id] == TokenType::user_defined) {
      out->append(data_.tokens[id]);
    } else {
      append_bytes_of(data_.tokens[id], out);
    }
  });
}

void BpeTokenizer::read_merges() {
  if (data_.merges.size() > std::numeric_limits<uint32_t>::max()) {
    fail(ErrorKind::format, "the vocabulary has ", data_.merges.size(), " merges, the most is ",
         std::numeric_limits<uint32_t>::max());
  }
  uint32_t rank = 0;
  for (std::string& merge : data_.merges) {
    // No character of the byte alphabet is a space, so the first one separates.
    const size_t space = merge.find(' ');
    if (space == std::string::npos) {
      fail(ErrorKind::format, "merge ", rank, " of the vocabulary, '", printable(merge),
           "', is not two tokens separated by a space");
    }
    const std::string_view text = merge;
    const TokenId left = ids_.find(text.substr(0, space));
    const TokenId right = ids_.find(text.substr(space + 1));
    merge.erase(space, 1);
    const TokenId merged = ids_.find(merge);
    if (left < 0 || right < 0 || merged < 0) {
      merge.insert(space, 1, ' ');
      fail(ErrorKind::format, "merge ", rank, " of the vocabulary, '", printable(merge),
           "', names a text that is not a token");
    }
    merges_.add(left, right, {rank++, merged});
  }
  data_.merges = {};
}

// The token that is spelled like the word, if there is one.
TokenId BpeTokenizer::whole_word(std::string_view word, std::string* spelled) const {
  spelled->clear();
  for (const char c : word) spelled->append(alphabet().spelling[static_cast<unsigned char>(c)]);
  return ids_.find(*spelled);
}

void BpeTokenizer::encode_text(std::string_view text, bool /*begins*/,
                               std::vector<TokenId>* out) const {
  const auto find = [this](const Symbol& left, const Symbol& right) {
    return merges_.find(left.id, right.id);
  };
  const auto append = [out](const Symbol& symbol) { out->push_back(symbol.id); };
  Merger merger;
  std::string spelled;
  std::string_view word;
  const auto make = [&] {
    if (pretokenizer_.ignore_merges) {
      if (const TokenId id = whole_word(word, &spelled); id != TokenMap::kAbsent) {
        out->push_back(id);
        return;
      }
    }
    merger.clear();
    for (uint32_t i = 0; i < word.size(); ++i) {
      const TokenId id = byte_tokens_[static_cast<unsigned char>(word[i])];
      if (id != TokenMap::kAbsent) merger.add(i, 1, id);
    }
    merger.run(find);
    merger.for_each(append);
  };
  SeenWords seen(text.size());
  WordSplitter words(pretokenizer_, text);
  while (words.next(&word)) seen.append(word, make, out);
}

}  // namespace pyllamacpp
