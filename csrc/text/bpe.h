// Byte-level BPE ("gpt2"): Radford et al. 2019; Llama 3, SmolLM2 and kin.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "text/hash_map.h"
#include "text/merge.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"

namespace pyllamacpp {

// Gives the ids of the `tokenizers` package for a tokenizer.json without a normalizer: text is
// taken as it is (Qwen's file asks for NFC, which the GGUF does not state). A byte for which the
// vocabulary has no token is left out, as there: SmolLM2 lacks 21 (some controls, and bytes that
// occur in no assigned character). A vocabulary with all 256 loses nothing, valid UTF-8 or not.
class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(VocabData data);

 private:
  void encode_text(std::string_view text, bool begins, std::vector<TokenId>* out) const override;
  bool has_space_prefix() const override { return false; }

  void read_merges();
  TokenId whole_word(std::string_view word, std::string* spelled) const;

  const Pretokenizer& pretokenizer_;
  std::array<TokenId, 256> byte_tokens_;
  TokenMap ids_;  // by the text stored in the file
  PairMap<Merge> merges_;
};

}  // namespace pyllamacpp
