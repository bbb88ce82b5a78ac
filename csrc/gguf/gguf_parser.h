// Fills a GgufFile from the bytes of a file.
#pragma once

#include "gguf/byte_cursor.h"
#include "gguf/gguf_reader.h"

namespace pyllamacpp {

class GgufFile::Parser {
 public:
  Parser(GgufFile& file, std::span<const std::byte> bytes)
      : file_(file), bytes_(bytes), in_(bytes, file.name_) {}

  void run();

 private:
  void check_magic();
  void read_header();
  void read_metadata();
  void read_alignment();
  void read_tensor_infos();
  void place_tensors();
  void check_overlaps() const;
  std::string_view read_name(const char* what, size_t max_bytes);
  DType read_dtype();

  GgufFile& file_;
  const std::span<const std::byte> bytes_;
  ByteCursor in_;
  uint64_t n_tensors_ = 0;
  uint64_t n_metadata_ = 0;
};

}  // namespace pyllamacpp
