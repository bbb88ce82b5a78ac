#include "gguf/gguf_reader.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "base/error.h"
#include "gguf/byte_cursor.h"
#include "gguf/gguf_parser.h"

namespace pyllamacpp {

namespace {

template <class T>
const T* find_sorted(const std::vector<T>& items, const std::vector<size_t>& order,
                     std::string_view T::* name, std::string_view wanted) {
  const auto at =
      std::lower_bound(order.begin(), order.end(), wanted,
                       [&](size_t i, std::string_view text) { return items[i].*name < text; });
  return at != order.end() && items[*at].*name == wanted ? &items[*at] : nullptr;
}

// nullptr: an array, or a scalar of another kind.
template <class T>
const T* scalar_as(const MetaContent& content) {
  const MetaScalar* scalar = std::get_if<MetaScalar>(&content);
  return scalar ? std::get_if<T>(scalar) : nullptr;
}

MetaType type_of(const MetaOverride& value) {
  constexpr MetaType kTypes[] = {MetaType::u64, MetaType::i64, MetaType::f64, MetaType::boolean,
                                 MetaType::string};
  return kTypes[value.index()];
}

bool is_integer(MetaType type) {
  switch (type) {
    case MetaType::u8:
    case MetaType::i8:
    case MetaType::u16:
    case MetaType::i16:
    case MetaType::u32:
    case MetaType::i32:
    case MetaType::u64:
    case MetaType::i64:
      return true;
    default:
      return false;
  }
}

// What a value has to be to stand in place of one of this type.
const char* kind_of(MetaType type) {
  if (is_integer(type)) return "an integer";
  if (type == MetaType::f32 || type == MetaType::f64) return "a float";
  if (type == MetaType::boolean) return "a bool";
  return type == MetaType::string ? "a string" : "an array";
}

}  // namespace

uint64_t TensorInfo::n_elements() const {
  uint64_t n = 1;
  for (const uint64_t dim : shape) n *= dim;
  return n;
}

GgufFile GgufFile::open(const std::string& path) {
  GgufFile file(path);
  file.map_ = std::make_unique<MappedFile>(path);
  Parser(file, file.map_->bytes()).run();
  return file;
}

GgufFile GgufFile::parse(std::span<const std::byte> bytes, std::string name) {
  GgufFile file(std::move(name));
  Parser(file, bytes).run();
  return file;
}

const MetaValue* GgufFile::find(std::string_view key) const {
  return find_sorted(metadata_, metadata_by_key_, &MetaValue::key, key);
}

void GgufFile::override_value(const std::string& key, const MetaOverride& value) {
  const auto printable = [](char c) { return c > 0x20 && c < 0x7f; };
  if (key.empty() || !std::ranges::all_of(key, printable))
    fail(ErrorKind::invalid_argument, "kv_overrides: ", quoted(key), " is no key of a GGUF file");
  if (key == "general.alignment" || key.starts_with("split."))
    fail(ErrorKind::invalid_argument, "kv_overrides: ", quoted(key),
         " says how the file lies and cannot be overridden");
  MetaValue set{{}, type_of(value), MetaScalar()};
  std::visit(
      [&](const auto& plain) {
        if constexpr (std::is_same_v<std::decay_t<decltype(plain)>, std::string>)
          set.value = MetaScalar(std::string_view(overrides_.emplace_back(plain)));
        else
          set.value = MetaScalar(plain);
      },
      value);
  const auto at = std::ranges::lower_bound(metadata_by_key_, std::string_view(key), {},
                                           [&](size_t i) { return metadata_[i].key; });
  if (at != metadata_by_key_.end() && metadata_[*at].key == key) {
    MetaValue& found = metadata_[*at];
    if (std::string_view(kind_of(found.type)) != kind_of(set.type))
      fail(ErrorKind::invalid_argument, "kv_overrides: ", quoted(key), " is ", kind_of(set.type),
           "; in ", name_, " it is ", kind_of(found.type));
    found.value = set.value;
    return;
  }
  set.key = overrides_.emplace_back(key);
  metadata_by_key_.insert(at, metadata_.size());
  metadata_.push_back(set);
}

const TensorInfo* GgufFile::find_tensor(std::string_view name) const {
  return find_sorted(tensors_, tensors_by_name_, &TensorInfo::name, name);
}

const MetaValue& GgufFile::require(std::string_view key) const {
  const MetaValue* found = find(key);
  if (!found) fail(ErrorKind::format, name_, ": key ", quoted(key), " is missing");
  return *found;
}

void GgufFile::wrong_type(const MetaValue& found, const char* expected) const {
  const MetaArray* array = std::get_if<MetaArray>(&found.value);
  const char* of = array ? " of " : "";
  fail(ErrorKind::format, name_, ": key ", quoted(found.key), " is of type ", name_of(found.type),
       of, array ? name_of(array->type) : "", "; ", expected, " was expected");
}

const MetaArray& GgufFile::array_of(const MetaValue& found, const char* expected) const {
  const MetaArray* array = std::get_if<MetaArray>(&found.value);
  if (!array) wrong_type(found, expected);
  return *array;
}

uint64_t GgufFile::to_uint(const MetaValue& found) const {
  if (const uint64_t* value = scalar_as<uint64_t>(found.value)) return *value;
  const int64_t* value = scalar_as<int64_t>(found.value);
  if (!value) wrong_type(found, "an integer");
  if (*value < 0)
    fail(ErrorKind::format, name_, ": key ", quoted(found.key), " is ", *value,
         "; an integer of zero or more was expected");
  return uint64_t(*value);
}

double GgufFile::to_float(const MetaValue& found) const {
  const double* value = scalar_as<double>(found.value);
  if (!value) wrong_type(found, "a float");
  return *value;
}

bool GgufFile::to_bool(const MetaValue& found) const {
  const bool* value = scalar_as<bool>(found.value);
  if (!value) wrong_type(found, "a bool");
  return *value;
}

std::string_view GgufFile::to_string(const MetaValue& found) const {
  const std::string_view* value = scalar_as<std::string_view>(found.value);
  if (!value) wrong_type(found, "a string");
  return *value;
}

// The counts of arrays were checked against the file's size, so that reserving them is safe.
std::vector<std::string_view> GgufFile::to_strings(const MetaValue& found) const {
  const MetaArray& array = array_of(found, "an array of strings");
  if (array.type != MetaType::string) wrong_type(found, "an array of strings");
  std::vector<std::string_view> out;
  out.reserve(size_t(array.count));
  for (MetaArrayReader in(array); !in.done();)
    out.push_back(*scalar_as<std::string_view>(in.next()));
  return out;
}

std::vector<float> GgufFile::to_floats(const MetaValue& found) const {
  const MetaArray& array = array_of(found, "an array of floats");
  if (array.type != MetaType::f32 && array.type != MetaType::f64)
    wrong_type(found, "an array of floats");
  std::vector<float> out;
  out.reserve(size_t(array.count));
  for (MetaArrayReader in(array); !in.done();) {
    const MetaContent element = in.next();
    out.push_back(float(*scalar_as<double>(element)));
  }
  return out;
}

std::vector<int64_t> GgufFile::to_ints(const MetaValue& found) const {
  const MetaArray& array = array_of(found, "an array of integers");
  if (!is_integer(array.type)) wrong_type(found, "an array of integers");
  std::vector<int64_t> out;
  out.reserve(size_t(array.count));
  for (MetaArrayReader in(array); !in.done();) {
    const MetaContent element = in.next();
    if (const int64_t* value = scalar_as<int64_t>(element)) {
      out.push_back(*value);
      continue;
    }
    const uint64_t value = *scalar_as<uint64_t>(element);
    if (value > uint64_t(std::numeric_limits<int64_t>::max()))
      fail(ErrorKind::format, name_, ": key ", quoted(found.key), " has ", value, " at index ",
           out.size(), "; integers below 2^63 were expected");
    out.push_back(int64_t(value));
  }
  return out;
}

uint64_t GgufFile::get_uint(std::string_view key) const { return to_uint(require(key)); }
double GgufFile::get_float(std::string_view key) const { return to_float(require(key)); }
bool GgufFile::get_bool(std::string_view key) const { return to_bool(require(key)); }
std::string_view GgufFile::get_string(std::string_view key) const {
  return to_string(require(key));
}

std::optional<uint64_t> GgufFile::find_uint(std::string_view key) const {
  const MetaValue* found = find(key);
  return found ? std::optional(to_uint(*found)) : std::nullopt;
}

std::optional<double> GgufFile::find_float(std::string_view key) const {
  const MetaValue* found = find(key);
  return found ? std::optional(to_float(*found)) : std::nullopt;
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  const MetaValue* found = find(key);
  return found ? std::optional(to_bool(*found)) : std::nullopt;
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
  const MetaValue* found = find(key);
  return found ? std::optional(to_string(*found)) : std::nullopt;
}

std::vector<std::string_view> GgufFile::get_strings(std::string_view key) const {
  return to_strings(require(key));
}

std::vector<float> GgufFile::get_floats(std::string_view key) const {
  return to_floats(require(key));
}

std::vector<int64_t> GgufFile::get_ints(std::string_view key) const {
  return to_ints(require(key));
}

std::vector<std::string_view> GgufFile::find_strings(std::string_view key) const {
  const MetaValue* found = find(key);
  return found ? to_strings(*found) : std::vector<std::string_view>();
}

std::vector<float> GgufFile::find_floats(std::string_view key) const {
  const MetaValue* found = find(key);
  return found ? to_floats(*found) : std::vector<float>();
}

std::vector<int64_t> GgufFile::find_ints(std::string_view key) const {
  const MetaValue* found = find(key);
  return found ? to_ints(*found) : std::vector<int64_t>();
}

}  // namespace pyllamacpp
