// The values of GGUF metadata: scalars, strings and (nested) arrays.

#include <iterator>

#include "gguf/byte_cursor.h"
#include "gguf/gguf_reader.h"

namespace pyllamacpp {

namespace {

// The specification allows nesting without a bound; no known file nests at all.
constexpr int kMaxArrayDepth = 8;

struct MetaTypeTraits {
  const char* name;
  uint32_t min_bytes;  // the smallest value of the type: an empty string, an empty array
  bool any_bytes;      // of fixed size, and every pattern of bytes is a value
};

constexpr MetaTypeTraits kMetaTypes[] = {
    {"u8", 1, true},      {"i8", 1, true},      {"u16", 2, true}, {"i16", 2, true},
    {"u32", 4, true},     {"i32", 4, true},     {"f32", 4, true}, {"bool", 1, false},
    {"string", 8, false}, {"array", 12, false}, {"u64", 8, true}, {"i64", 8, true},
    {"f64", 8, true},
};

const MetaTypeTraits& traits_of(MetaType type) { return kMetaTypes[uint32_t(type)]; }

MetaArray read_array(ByteCursor& in, int depth) {
  if (depth >= kMaxArrayDepth)
    in.error(ErrorKind::format, "arrays are nested deeper than ", kMaxArrayDepth, " levels");
  const MetaType type = read_meta_type(in, "an array element");
  const uint64_t count = in.read<uint64_t>("an array length");
  const MetaTypeTraits& element = traits_of(type);
  if (count > in.left() / element.min_bytes)
    in.error(ErrorKind::format, "an array says it has ", count, " elements of type ", element.name,
             ", but the file has only ", in.left(), " bytes left");
  const size_t begin = in.position();
  if (element.any_bytes) {
    in.take(count * element.min_bytes, "an array");
  } else {
    for (uint64_t i = 0; i < count; ++i) read_meta_content(in, type, depth + 1);
  }
  return {type, count, in.since(begin)};
}

bool read_bool(ByteCursor& in) {
  const unsigned value = in.read<uint8_t>("a bool");
  if (value > 1)
    in.error(ErrorKind::format, "a bool is stored as ", value, "; 0 or 1 was expected");
  return value == 1;
}

}  // namespace

const char* name_of(MetaType type) { return traits_of(type).name; }

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 100;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, kShown)) {
    const unsigned byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out + (text.size() > kShown ? "...'" : "'");
}

MetaType read_meta_type(ByteCursor& in, const char* what) {
  const uint32_t id = in.read<uint32_t>("a value type");
  if (id >= std::size(kMetaTypes))
    in.error(ErrorKind::format, what, " has type id ", id, "; ids 0 to ", std::size(kMetaTypes) - 1,
             " are known");
  return MetaType(id);
}

MetaContent read_meta_content(ByteCursor& in, MetaType type, int depth) {
  switch (type) {
    case MetaType::u8:
      return MetaScalar(uint64_t(in.read<uint8_t>("a u8")));
    case MetaType::i8:
      return MetaScalar(int64_t(in.read<int8_t>("an i8")));
    case MetaType::u16:
      return MetaScalar(uint64_t(in.read<uint16_t>("a u16")));
    case MetaType::i16:
      return MetaScalar(int64_t(in.read<int16_t>("an i16")));
    case MetaType::u32:
      return MetaScalar(uint64_t(in.read<uint32_t>("a u32")));
    case MetaType::i32:
      return MetaScalar(int64_t(in.read<int32_t>("an i32")));
    case MetaType::f32:
      return MetaScalar(double(in.read<float>("an f32")));
    case MetaType::boolean:
      return MetaScalar(read_bool(in));
    case MetaType::string:
      return MetaScalar(in.read_string("a string"));
    case MetaType::array:
      return read_array(in, depth);
    case MetaType::u64:
      return MetaScalar(in.read<uint64_t>("a u64"));
    case MetaType::i64:
      return MetaScalar(in.read<int64_t>("an i64"));
    case MetaType::f64:
      return MetaScalar(in.read<double>("an f64"));
  }
  in.error(ErrorKind::format, "value type id ", uint32_t(type), " is unknown");
}

MetaContent MetaArrayReader::next() {
  ByteCursor in(array_.data.subspan(position_), "GGUF");
  in.enter("array element");
  const MetaContent element = read_meta_content(in, array_.type, 0);
  position_ += in.position();
  ++index_;
  return element;
}

}  // namespace pyllamacpp
