// The tokenizer a GGUF file describes.
#pragma once

#include <memory>

#include "gguf/gguf_reader.h"
#include "text/tokenizer.h"

namespace pyllamacpp {

// Throws Error(format) naming the key that is missing or inconsistent, Error(unsupported) for a
// kind of tokenizer this version does not have.
std::unique_ptr<Tokenizer> load_tokenizer(const GgufFile& file);

}  // namespace pyllamacpp
