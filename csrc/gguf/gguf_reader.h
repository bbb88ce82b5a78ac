// Reads GGUF files (versions 2 and 3, little endian) from a memory map. Every count, length,
// offset and type of the file is checked against the file's size before it is used; nothing is
// allocated beyond a small multiple of what the file's header itself occupies.
// Source: the GGUF specification (ggml repository, docs/gguf.md). Where it leaves room:
//   keys and tensor names are printable ASCII, so they can stand in messages; string values are
//   any bytes (files with tokens that are not UTF-8 exist): whoever shows them checks them;
//   general.alignment is a power of two from 8 to 2 MiB, 32 when absent;
//   a file may end right after its last tensor, and bytes after it are ignored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "gguf/mapped_file.h"

namespace pyllamacpp {

// Type ids of metadata values in the file.
enum class MetaType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

const char* name_of(MetaType type);  // as messages write it: "u32", "bool", "string", "array"

struct MetaArray {
  MetaType type;  // of the elements
  uint64_t count;
  std::span<const std::byte> data;  // the elements as they lie in the file, already checked
};

// Unsigned integers of every width are uint64_t, signed ones int64_t, f32 and f64 double.
using MetaScalar = std::variant<uint64_t, int64_t, double, bool, std::string_view>;
using MetaContent = std::variant<MetaScalar, MetaArray>;

struct MetaValue {
  std::string_view key;
  MetaType type;
  MetaContent value;
};

// Walks the elements of an array in order. Elements of an array of arrays are MetaArray again.
class MetaArrayReader {
 public:
  explicit MetaArrayReader(const MetaArray& array) : array_(array) {}
  bool done() const { return index_ == array_.count; }
  MetaContent next();  // not after done()

 private:
  MetaArray array_;
  uint64_t index_ = 0;
  size_t position_ = 0;  // of the next element in array_.data
};

// Values that a user sets in place of a file's, by key.
using MetaOverride = std::variant<uint64_t, int64_t, double, bool, std::string>;
using MetaOverrides = std::vector<std::pair<std::string, MetaOverride>>;

struct TensorInfo {
  std::string_view name;
  DType type;
  std::vector<uint64_t> shape;      // as in the file: shape[0] is the length of a row; 1..4 entries
  std::span<const std::byte> data;  // inside the map
  uint64_t offset;                  // of `data` from the start of the file

  uint64_t n_elements() const;
  uint64_t n_rows() const { return n_elements() / shape[0]; }
};

class GgufFile {
 public:
  // `path` is UTF-8. Throws Error(io), Error(format), or Error(unsupported) (another version, byte
  // order or tensor type) with one sentence naming the file and the field, key or tensor at fault.
  static GgufFile open(const std::string& path);
  // Parses a buffer that outlives the result; `name` stands for the path in messages.
  static GgufFile parse(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  const std::vector<MetaValue>& metadata() const { return metadata_; }  // in file order
  const std::vector<TensorInfo>& tensors() const { return tensors_; }   // in file order
  const MetaValue* find(std::string_view key) const;                    // nullptr: absent
  const TensorInfo* find_tensor(std::string_view name) const;           // nullptr: absent
  // Puts a value in place of the file's, or beside its values where it has none of that key.
  // Throws Error(invalid_argument) for a value of another kind than the file's (integers of every
  // width are one), and for keys that say how the file itself lies.
  void override_value(const std::string& key, const MetaOverride& value);
  const MappedFile* map() const { return map_.get(); }  // nullptr after parse()

  // Typed access. A key of another type is Error(format) naming key, found and expected type; the
  // first form also when the key is absent. Integers of any width and sign convert when the value
  // fits; f32 and f64 convert to each other.
  uint64_t get_uint(std::string_view key) const;
  double get_float(std::string_view key) const;
  bool get_bool(std::string_view key) const;
  std::string_view get_string(std::string_view key) const;
  std::optional<uint64_t> find_uint(std::string_view key) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;

  // Arrays; absent is an empty result from the find_ form and an error from the get_ form.
  std::vector<std::string_view> get_strings(std::string_view key) const;
  std::vector<float> get_floats(std::string_view key) const;
  std::vector<int64_t> get_ints(std::string_view key) const;
  std::vector<std::string_view> find_strings(std::string_view key) const;
  std::vector<float> find_floats(std::string_view key) const;
  std::vector<int64_t> find_ints(std::string_view key) const;

 private:
  class Parser;  // gguf_parser.cpp

  explicit GgufFile(std::string name) : name_(std::move(name)) {}
  const MetaValue& require(std::string_view key) const;
  [[noreturn]] void wrong_type(const MetaValue& found, const char* expected) const;
  const MetaArray& array_of(const MetaValue& found, const char* expected) const;
  uint64_t to_uint(const MetaValue& found) const;
  double to_float(const MetaValue& found) const;
  bool to_bool(const MetaValue& found) const;
  std::string_view to_string(const MetaValue& found) const;
  std::vector<std::string_view> to_strings(const MetaValue& found) const;
  std::vector<float> to_floats(const MetaValue& found) const;
  std::vector<int64_t> to_ints(const MetaValue& found) const;

  std::string name_;
  std::unique_ptr<MappedFile> map_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  std::vector<MetaValue> metadata_;
  std::list<std::string> overrides_;  // text that metadata_ refers to: a list, since it stays put
  std::vector<TensorInfo> tensors_;
  // Indices in the order of the names. Sorted rather than hashed: a hostile file cannot make a
  // look-up slow by colliding names.
  std::vector<size_t> metadata_by_key_;
  std::vector<size_t> tensors_by_name_;
};

}  // namespace pyllamacpp
