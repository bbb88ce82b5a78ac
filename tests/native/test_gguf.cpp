// The GGUF reader on small files made here: what a good file gives, and that every truncation and
// corruption ends in Error and nothing else.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "gguf/gguf_reader.h"

namespace {

using namespace pyllamacpp;

// Appends little-endian values as GGUF stores them.
struct Writer {
  std::string out;

  template <class T>
  Writer& put(T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& text(std::string_view s) {
    put<uint64_t>(s.size());
    out.append(s);
    return *this;
  }
  Writer& header(uint32_t version, uint64_t n_tensors, uint64_t n_metadata) {
    out.append("GGUF");
    return put(version).put(n_tensors).put(n_metadata);
  }
  Writer& key(std::string_view name, MetaType type) { return text(name).put(uint32_t(type)); }
  Writer& tensor(std::string_view name, std::vector<uint64_t> shape, uint32_t type,
                 uint64_t offset) {
    text(name).put(uint32_t(shape.size()));
    for (const uint64_t n : shape) put(n);
    return put(type).put(offset);
  }
  Writer& pad(size_t alignment) {
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return *this;
  }
  Writer& zeros(size_t n) {
    out.append(n, '\0');
    return *this;
  }
};

// Parsed from a heap copy of exactly the file's size, so that a sanitizer sees any read past it.
struct Parsed {
  explicit Parsed(const std::string& bytes)
      : copy(new std::byte[bytes.size()]), file(parse(bytes)) {}
  GgufFile parse(const std::string& bytes) {
    std::memcpy(copy.get(), bytes.data(), bytes.size());
    return GgufFile::parse({copy.get(), bytes.size()}, "test.gguf");
  }
  std::unique_ptr<std::byte[]> copy;
  GgufFile file;
};

bool throws(ErrorKind kind, const std::function<void()>& action, std::string_view part) {
  try {
    action();
  } catch (const Error& error) {
    if (error.kind() == kind && std::string_view(error.what()).find(part) != std::string::npos)
      return true;
    std::fprintf(stderr, "kind %d: %s\n", int(error.kind()), error.what());
    return false;
  }
  std::fprintf(stderr, "no error, expected: %s\n", std::string(part).c_str());
  return false;
}

bool refused(const std::string& bytes, std::string_view part, ErrorKind kind = ErrorKind::format) {
  return throws(kind, [&] { Parsed parsed(bytes); }, part);
}

std::string small_file(uint32_t version) {
  Writer w;
  w.header(version, 2, 17);
  w.key("general.alignment", MetaType::u32).put<uint32_t>(64);
  w.key("u8", MetaType::u8).put<uint8_t>(200);
  w.key("i8", MetaType::i8).put<int8_t>(-3);
  w.key("u16", MetaType::u16).put<uint16_t>(60000);
  w.key("i16", MetaType::i16).put<int16_t>(-30000);
  w.key("u32", MetaType::u32).put<uint32_t>(4000000000u);
  w.key("i32", MetaType::i32).put<int32_t>(5);
  w.key("f32", MetaType::f32).put<float>(0.5f);
  w.key("bool", MetaType::boolean).put<uint8_t>(1);
  w.key("string", MetaType::string).text("llama");
  w.key("u64", MetaType::u64).put<uint64_t>(~uint64_t(0));
  w.key("i64", MetaType::i64).put<int64_t>(-1);
  w.key("f64", MetaType::f64).put<double>(1e300);
  w.key("strings", MetaType::array).put(uint32_t(MetaType::string)).put<uint64_t>(2);
  w.text("a").text("");
  w.key("ints", MetaType::array).put(uint32_t(MetaType::i16)).put<uint64_t>(2);
  w.put<int16_t>(-7).put<int16_t>(7);
  w.key("floats", MetaType::array).put(uint32_t(MetaType::f32)).put<uint64_t>(1).put<float>(2.5f);
  w.key("nested", MetaType::array).put(uint32_t(MetaType::array)).put<uint64_t>(2);
  w.put(uint32_t(MetaType::u8)).put<uint64_t>(1).put<uint8_t>(9);
  w.put(uint32_t(MetaType::boolean)).put<uint64_t>(2).put<uint8_t>(0).put<uint8_t>(1);
  w.tensor("q", {32, 2}, uint32_t(DType::q4_1), 0);
  w.tensor("norm", {3}, uint32_t(DType::f32), 64);
  return w.pad(64).zeros(64).zeros(12).out;
}

void test_values(uint32_t version) {
  const Parsed parsed(small_file(version));
  const GgufFile& f = parsed.file;
  CHECK(f.name() == "test.gguf");
  CHECK(f.version() == version);
  CHECK(f.alignment() == 64);
  CHECK(f.map() == nullptr);
  CHECK(f.metadata().size() == 17);
  CHECK(f.metadata()[1].key == "u8");
  CHECK(f.get_uint("u8") == 200);
  CHECK(f.get_uint("u16") == 60000);
  CHECK(f.get_uint("u32") == 4000000000u);
  CHECK(f.get_uint("u64") == ~uint64_t(0));
  CHECK(f.get_uint("i32") == 5);
  CHECK(f.get_float("f32") == 0.5);
  CHECK(f.get_float("f64") == 1e300);
  CHECK(f.get_bool("bool"));
  CHECK(f.get_string("string") == "llama");
  CHECK((f.get_strings("strings") == std::vector<std::string_view>{"a", ""}));
  CHECK((f.get_ints("ints") == std::vector<int64_t>{-7, 7}));
  CHECK((f.get_floats("floats") == std::vector<float>{2.5f}));
  CHECK(!f.find_uint("absent") && !f.find_float("absent") && !f.find_bool("absent"));
  CHECK(!f.find_string("absent") && f.find_strings("absent").empty());
  CHECK(f.find_floats("absent").empty() && f.find_ints("absent").empty());
  CHECK(throws(ErrorKind::format, [&] { f.get_uint("absent"); }, "key 'absent' is missing"));
  CHECK(throws(ErrorKind::format, [&] { f.get_uint("i8"); }, "key 'i8' is -3"));
  CHECK(throws(ErrorKind::format, [&] { f.find_uint("f32"); }, "'f32' is of type f32; an integer"));
  CHECK(throws(ErrorKind::format, [&] { f.get_float("u8"); }, "'u8' is of type u8; a float"));
  CHECK(throws(ErrorKind::format, [&] { f.get_bool("u8"); }, "'u8' is of type u8; a bool"));
  CHECK(throws(ErrorKind::format, [&] { f.get_string("ints"); }, "array of i16; a string"));
  CHECK(
      throws(ErrorKind::format, [&] { f.get_ints("strings"); }, "array of string; an array of i"));
  CHECK(throws(ErrorKind::format, [&] { f.get_strings("string"); }, "of type string; an array"));

  MetaArrayReader outer(std::get<MetaArray>(f.find("nested")->value));
  const MetaArray first = std::get<MetaArray>(outer.next());
  const MetaArray second = std::get<MetaArray>(outer.next());
  CHECK(outer.done());
  CHECK(first.type == MetaType::u8 && first.count == 1 && first.data[0] == std::byte(9));
  MetaArrayReader inner(second);
  CHECK(std::get<MetaScalar>(inner.next()) == MetaScalar(false));
  CHECK(std::get<MetaScalar>(inner.next()) == MetaScalar(true));
  CHECK(inner.done());

  const TensorInfo* q = f.find_tensor("q");
  CHECK(q && q->type == DType::q4_1 && q->data.size() == 40 && q->n_elements() == 64);
  CHECK(q->n_rows() == 2 && q->offset % 64 == 0 && q->data.data() == parsed.copy.get() + q->offset);
  const TensorInfo* norm = f.find_tensor("norm");
  CHECK(norm && norm->offset == q->offset + 64 && norm->data.size() == 12);
  CHECK(!f.find_tensor("absent"));
}

void test_truncations() {
  const std::string whole = small_file(3);
  for (size_t size = 0; size < whole.size(); ++size)
    CHECK(refused(whole.substr(0, size), "test.gguf: "));
  Parsed padded(whole + std::string(100, 'x'));
  // Without tensors the data section and its padding may be absent.
  Parsed empty(Writer().header(3, 0, 0).out);
  CHECK(empty.file.metadata().empty() && empty.file.tensors().empty());
}

// Every value of every byte up to the tensors' data: Error or a file that can be walked.
void test_corruptions() {
  const std::string whole = small_file(3);
  for (size_t at = 0; at < whole.size() - 76; ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string bytes = whole;
      bytes[at] = char(value);
      try {
        const Parsed parsed(bytes);
        for (const TensorInfo& t : parsed.file.tensors())
          CHECK(t.data.data() + t.data.size() <= parsed.copy.get() + bytes.size());
      } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::format || error.kind() == ErrorKind::unsupported);
      }
    }
  }
}

void test_header() {
  const ErrorKind unsupported = ErrorKind::unsupported;
  CHECK(refused("", "it is empty"));
  CHECK(refused("tjgg\1\0\0\0", "an old GGML file"));
  CHECK(refused("PK\3\4 rest", "a zip archive"));
  CHECK(refused("\x80\2}q", "a Python pickle"));
  CHECK(refused("version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"));
  CHECK(refused(Writer().text("{\"a\":{}}").out, "safetensors"));
  CHECK(refused("abc\xff", "begins with 'abc\\xff'"));
  CHECK(refused(Writer().header(1, 0, 0).out, "GGUF version 1,", unsupported));
  CHECK(refused(Writer().header(4, 0, 0).out, "GGUF version 4", unsupported));
  CHECK(refused(Writer().header(0x03000000, 0, 0).out, "big-endian (version 3", unsupported));
  CHECK(refused(Writer().header(3, 0, 1).out, "metadata count is 1"));
  CHECK(refused(Writer().header(3, ~uint64_t(0), 0).out, "tensor count is 18446744073709551615"));
}

void test_metadata() {
  const auto entry = [](auto fill) {
    Writer w;
    fill(w.header(3, 0, 1));
    return w.zeros(32).out;
  };
  CHECK(refused(entry([](Writer& w) { w.put(uint64_t(1) << 63); }), "the key has 92233720368547"));
  CHECK(refused(entry([](Writer& w) { w.key("", MetaType::u8); }), "the key has 0 bytes"));
  CHECK(refused(entry([](Writer& w) { w.key("a\n", MetaType::u8); }), "'a\\x0a' is not printable"));
  CHECK(refused(entry([](Writer& w) { w.key("k", MetaType(13)); }), "key 'k': the value has type"));
  CHECK(refused(entry([](Writer& w) { w.key("k", MetaType::boolean).put<uint8_t>(2); }),
                "a bool is stored as 2"));
  CHECK(refused(entry([](Writer& w) { w.key("k", MetaType::string).put(uint64_t(1) << 63); }),
                "key 'k': a string takes 9223372036854775808 bytes"));
  CHECK(refused(entry([](Writer& w) {
                  w.key("k", MetaType::array).put(uint32_t(MetaType::u64)).put(uint64_t(1) << 61);
                }),
                "2305843009213693952 elements of type u64"));
  const auto nested = [&](int depth) {
    return entry([&](Writer& w) {
      w.key("k", MetaType::array);
      for (int i = 1; i < depth; ++i) w.put(uint32_t(MetaType::array)).put<uint64_t>(1);
      w.put(uint32_t(MetaType::u8)).put<uint64_t>(0);
    });
  };
  Parsed deepest(nested(8));
  CHECK(refused(nested(9), "nested deeper than 8"));
  CHECK(refused(nested(5000), "nested deeper than 8"));
  Writer twice;
  twice.header(3, 0, 2).key("k", MetaType::u8).put<uint8_t>(0).key("k", MetaType::u8);
  CHECK(refused(twice.zeros(9).out, "key 'k' appears twice"));
  for (const uint32_t alignment : {0u, 1u, 3u, 4u, 24u, 1u << 31}) {
    Writer w;
    w.header(3, 0, 1).key("general.alignment", MetaType::u32).put(alignment);
    CHECK(refused(w.out, "key 'general.alignment' is " + std::to_string(alignment)));
  }
}

void test_tensors() {
  const auto one = [](std::vector<uint64_t> shape, uint32_t type, uint64_t offset) {
    return Writer()
        .header(3, 1, 0)
        .tensor("t", std::move(shape), type, offset)
        .pad(32)
        .zeros(64)
        .out;
  };
  const uint64_t huge = uint64_t(1) << 62;
  Parsed good(one({2, 2, 2, 2}, 0, 0));
  CHECK(refused(one({}, 0, 0), "tensor 't': it has 0 dimensions"));
  CHECK(refused(one({1, 1, 1, 1, 1}, 0, 0), "it has 5 dimensions"));
  CHECK(refused(one({4, 0}, 0, 0), "a dimension of its shape is zero"));
  CHECK(refused(one({huge, 4}, 0, 0), "more than 2^63 elements"));
  CHECK(refused(one({huge}, 0, 0), "ends past the end"));
  CHECK(refused(one({17}, 0, 0), "ends past the end"));
  CHECK(refused(one({16}, 0, 32), "ends past the end"));
  CHECK(refused(one({16}, 0, ~uint64_t(31)), "ends past the end"));
  CHECK(refused(one({8}, 0, 16), "is not a multiple of the alignment 32"));
  CHECK(refused(one({48}, uint32_t(DType::q4_1), 0), "a multiple of 32 was expected for q4_1"));
  CHECK(refused(one({256}, 16, 0), "iq2_xxs (id 16)", ErrorKind::unsupported));
  CHECK(refused(one({256}, 999, 0), "type id 999 is unknown"));
  const auto two = [](std::string_view a, std::string_view b, uint64_t offset) {
    return Writer()
        .header(3, 2, 0)
        .tensor(a, {16}, 0, offset)
        .tensor(b, {9}, 0, 0)
        .pad(32)
        .zeros(128)
        .out;
  };
  CHECK(refused(two("a", "a", 64), "tensor 'a' appears twice"));
  CHECK(refused(two("a", "b", 0), "overlaps tensor"));
  CHECK(refused(two("a", "b", 32), "tensor 'a' overlaps tensor 'b'"));
  Parsed apart(two("a", "b", 64));
  CHECK(refused(two(std::string(256, 'a'), "b", 64), "the name has 256 bytes"));
}

void test_files() {
  CHECK(throws(ErrorKind::io, [] { GgufFile::open("no/such/file.gguf"); }, "no/such/file.gguf"));
  CHECK(throws(ErrorKind::io, [] { GgufFile::open("."); }, "it is a directory"));
  CHECK(throws(ErrorKind::io, [] { GgufFile::open(std::string("a\0b", 3)); }, "a zero byte"));
  const std::string bytes = small_file(3);
  std::FILE* out = std::fopen("test_gguf.tmp", "wb");
  CHECK(out && std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size());
  if (out) std::fclose(out);
  {
    GgufFile opened = GgufFile::open("test_gguf.tmp");
    const GgufFile moved = std::move(opened);
    CHECK(moved.map() && moved.map()->bytes().size() == bytes.size());
    const TensorInfo* norm = moved.find_tensor("norm");
    moved.map()->will_need(norm->data);
    moved.map()->release(moved.map()->bytes());
    CHECK(norm->data.back() == std::byte(0) && moved.get_string("string") == "llama");
  }
  std::remove("test_gguf.tmp");
}

}  // namespace

int main() {
  test_values(2);
  test_values(3);
  test_truncations();
  test_corruptions();
  test_header();
  test_metadata();
  test_tensors();
  test_files();
  return check_result();
}
