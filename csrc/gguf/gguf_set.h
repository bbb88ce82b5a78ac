// A model's GGUF file, or all the files of a model that was split: NAME-00001-of-0000N.gguf and so
// on. Metadata is the first file's; tensors of all files are looked up in one place.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_reader.h"

namespace pyllamacpp {

class GgufSet {
 public:
  // `path` is the only file or the first of them. Throws Error as GgufFile::open does, and
  // Error(format) naming the file that is not the part it should be.
  static GgufSet open(const std::string& path);
  // The same with values of the user's in place of the first file's; they are not asked for where
  // the files lie. Throws as GgufFile::override_value does.
  static GgufSet open(const std::string& path, const MetaOverrides& overrides);

  int n_parts() const { return int(parts_.size()); }
  const GgufFile& first() const { return parts_.front(); }
  const std::string& name() const { return first().name(); }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // file after file
  const TensorInfo* find_tensor(std::string_view name) const;          // nullptr: absent
  // What tells the model from others: the first file's header and what overrides it, and of every
  // tensor its name, type, shape and bytes from its middle.
  std::string identity() const;
  // Throws Error(io) if a file was shortened or written to since; see MappedFile.
  void require_unchanged() const;
  // Tells the system that these bytes of a tensor are no longer needed in memory.
  void release(std::span<const std::byte> data) const;

 private:
  GgufSet() = default;
  void open_others();
  void index_tensors();

  std::vector<GgufFile> parts_;
  std::string overridden_;  // keys and values, as text
  std::vector<TensorInfo> tensors_;
  std::vector<size_t> by_name_;  // indices of tensors_ in the order of their names
};

}  // namespace pyllamacpp
