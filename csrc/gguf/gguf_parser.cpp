#include "gguf/gguf_parser.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace pyllamacpp {

namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr size_t kMaxKey = 65535;  // the specification's bound
// The specification says 64, but programs built with a larger bound have written longer ones.
constexpr size_t kMaxTensorName = 255;
constexpr uint32_t kMaxDims = 4;
// The specification wants a multiple of 8, ggml a power of two. The upper bound is a huge page.
constexpr uint64_t kMinAlignment = 8;
constexpr uint64_t kMaxAlignment = 1 << 21;
// The least bytes of a metadata entry (length, one byte of key, type, one byte of value) and of a
// tensor (length, one byte of name, dimension count, one dimension, type, offset).
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

struct Lookalike {
  std::string_view prefix;
  const char* what;
};

constexpr const char* kOldGgml =
    "an old GGML file from before GGUF; get the model as GGUF, or convert the original again";
constexpr const char* kPickle =
    "a Python pickle, probably a PyTorch checkpoint; convert it with pyllamacpp_convert";
constexpr const char* kWebPage = "a web page, not a model; download the file again";

// The first bytes of what people open by mistake. The old magics are little-endian words.
constexpr Lookalike kLookalikes[] = {
    {"lmgg", kOldGgml},  // 'ggml', no version
    {"fmgg", kOldGgml},  // 'ggmf'
    {"tjgg", kOldGgml},  // 'ggjt'
    {"algg", "an old GGML LoRA adapter, not a model"},
    {std::string_view("PK\x03\x04", 4),
     "a zip archive, probably a PyTorch checkpoint; convert it with pyllamacpp_convert"},
    {std::string_view("\x80\x02", 2), kPickle},
    {std::string_view("\x80\x03", 2), kPickle},
    {std::string_view("\x80\x04", 2), kPickle},
    {std::string_view("\x80\x05", 2), kPickle},
    {"version https://git-lfs", "a Git LFS pointer; fetch the model itself with 'git lfs pull'"},
    {"<!DOCTYPE", kWebPage},
    {"<!doctype", kWebPage},
    {"<html", kWebPage},
    {std::string_view("\x1f\x8b", 2), "a gzip archive; unpack it first"},
    {std::string_view("\0\0\0\0", 4), "zeros, probably an unfinished download"},
};

// Types of ggml that this engine has no traits for, so that messages can name them.
struct ForeignType {
  uint32_t id;
  const char* name;
};
constexpr ForeignType kForeignTypes[] = {
    {4, "q4_2"},    {5, "q4_3"},      {9, "q8_1"},      {15, "q8_k"},     {16, "iq2_xxs"},
    {17, "iq2_xs"}, {18, "iq3_xxs"},  {19, "iq1_s"},    {21, "iq3_s"},    {22, "iq2_s"},
    {29, "iq1_m"},  {31, "q4_0_4_4"}, {32, "q4_0_4_8"}, {33, "q4_0_8_8"}, {34, "tq1_0"},
    {35, "tq2_0"},  {39, "mxfp4"},    {40, "nvfp4"},    {41, "q1_0"},
};

uint32_t byteswap(uint32_t v) {
  return (v >> 24) | ((v >> 8) & 0xff00u) | ((v << 8) & 0xff0000u) | (v << 24);
}

// A safetensors file is a u64 length and a JSON object of that length.
bool looks_like_safetensors(std::string_view text) {
  if (text.size() < 10 || text[8] != '{') return false;
  uint64_t length;
  std::memcpy(&length, text.data(), sizeof length);
  return length <= text.size() - 8;
}

template <class T>
std::vector<size_t> sorted_index(const std::vector<T>& items, std::string_view T::* name) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return items[a].*name < items[b].*name; });
  return order;
}

template <class T>
void check_unique(const std::vector<T>& items, const std::vector<size_t>& order,
                  std::string_view T::* name, const char* what, const std::string& file) {
  const auto same = [&](size_t a, size_t b) { return items[a].*name == items[b].*name; };
  const auto twice = std::adjacent_find(order.begin(), order.end(), same);
  if (twice != order.end())
    fail(ErrorKind::format, file, ": ", what, " ", quoted(items[*twice].*name), " appears twice");
}

}  // namespace

void GgufFile::Parser::run() {
  check_magic();
  read_header();
  read_metadata();
  read_alignment();
  read_tensor_infos();
  place_tensors();
  check_overlaps();
}

void GgufFile::Parser::check_magic() {
  const std::string& name = file_.name_;
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
  if (text.starts_with(kMagic)) return;
  if (text.empty()) fail(ErrorKind::format, name, ": not a GGUF file: it is empty");
  for (const Lookalike& other : kLookalikes)
    if (text.starts_with(other.prefix))
      fail(ErrorKind::format, name, ": not a GGUF file: it looks like ", other.what);
  if (looks_like_safetensors(text))
    fail(ErrorKind::format, name,
         ": not a GGUF file: it looks like safetensors; convert it with pyllamacpp_convert");
  fail(ErrorKind::format, name, ": not a GGUF file: it begins with ", quoted(text.substr(0, 4)),
       ", 'GGUF' was expected");
}

void GgufFile::Parser::read_header() {
  in_.enter("header");
  in_.take(kMagic.size(), "the magic");
  const uint32_t version = in_.read<uint32_t>("the version");
  // Big-endian files differ only in byte order, the version's included (the specification gives no
  // other mark); no real version reaches 65536.
  if (version && (version & 0xffffu) == 0)
    in_.error(ErrorKind::unsupported, "the file is big-endian (version ", byteswap(version),
              " in that order); only little-endian files can be read, so convert the model again");
  if (version == 1)
    in_.error(ErrorKind::unsupported,
              "the file is GGUF version 1, which was in use for a few days of August 2023; only "
              "versions 2 and 3 can be read, so convert the model again");
  if (version != 2 && version != 3)
    in_.error(ErrorKind::unsupported, "the file is GGUF version ", version,
              "; only versions 2 and 3 can be read");
  file_.version_ = version;
  n_tensors_ = in_.read<uint64_t>("the tensor count");
  n_metadata_ = in_.read<uint64_t>("the metadata count");
  if (n_metadata_ > in_.left() / kMinMetadataBytes)
    in_.error(ErrorKind::format, "the metadata count is ", n_metadata_,
              ", which cannot fit in the ", in_.left(), " bytes left of the file");
  if (n_tensors_ > in_.left() / kMinTensorBytes)
    in_.error(ErrorKind::format, "the tensor count is ", n_tensors_, ", which cannot fit in the ",
              in_.left(), " bytes left of the file");
}

// Space to '~' only: the specification wants ASCII keys, converters write ASCII tensor names, and
// the model layer knows no others.
std::string_view GgufFile::Parser::read_name(const char* what, size_t max_bytes) {
  const uint64_t length = in_.read<uint64_t>("the length of the name");
  if (length == 0 || length > max_bytes)
    in_.error(ErrorKind::format, what, " has ", length, " bytes; 1 to ", max_bytes,
              " were expected");
  const std::span<const std::byte> bytes = in_.take(length, what);
  const std::string_view name(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x20 && c < 0x7f; }))
    in_.error(ErrorKind::format, what, " ", quoted(name), " is not printable ASCII");
  return name;
}

void GgufFile::Parser::read_metadata() {
  for (uint64_t i = 0; i < n_metadata_; ++i) {
    in_.enter("metadata entry " + std::to_string(i));
    const std::string_view key = read_name("the key", kMaxKey);
    in_.enter("key " + quoted(key));
    const MetaType type = read_meta_type(in_, "the value");
    file_.metadata_.push_back({key, type, read_meta_content(in_, type, 0)});
  }
  file_.metadata_by_key_ = sorted_index(file_.metadata_, &MetaValue::key);
  check_unique(file_.metadata_, file_.metadata_by_key_, &MetaValue::key, "key", file_.name_);
}

void GgufFile::Parser::read_alignment() {
  const uint64_t a = file_.find_uint("general.alignment").value_or(file_.alignment_);
  if (a < kMinAlignment || a > kMaxAlignment || (a & (a - 1)) != 0)
    fail(ErrorKind::format, file_.name_, ": key 'general.alignment' is ", a,
         "; a power of two from ", kMinAlignment, " to ", kMaxAlignment, " was expected");
  file_.alignment_ = a;
}

DType GgufFile::Parser::read_dtype() {
  const uint32_t id = in_.read<uint32_t>("the type");
  if (find_dtype(id)) return DType(id);
  for (const ForeignType& foreign : kForeignTypes)
    if (foreign.id == id)
      in_.error(ErrorKind::unsupported, "its type ", foreign.name, " (id ", id,
                ") is not supported");
  in_.error(ErrorKind::format, "its type id ", id, " is unknown");
}

void GgufFile::Parser::read_tensor_infos() {
  for (uint64_t i = 0; i < n_tensors_; ++i) {
    in_.enter("tensor " + std::to_string(i));
    const std::string_view name = read_name("the name", kMaxTensorName);
    in_.enter("tensor " + quoted(name));
    const uint32_t n_dims = in_.read<uint32_t>("the dimension count");
    if (n_dims == 0 || n_dims > kMaxDims)
      in_.error(ErrorKind::format, "it has ", n_dims, " dimensions; 1 to ", kMaxDims,
                " were expected");
    std::vector<uint64_t> shape(n_dims);
    for (uint64_t& n : shape) n = in_.read<uint64_t>("the shape");
    const DType type = read_dtype();
    // Relative to the data section, which begins after all infos; place_tensors() makes it so.
    const uint64_t offset = in_.read<uint64_t>("the data offset");
    file_.tensors_.push_back({name, type, std::move(shape), {}, offset});
  }
  file_.tensors_by_name_ = sorted_index(file_.tensors_, &TensorInfo::name);
  check_unique(file_.tensors_, file_.tensors_by_name_, &TensorInfo::name, "tensor", file_.name_);
}

void GgufFile::Parser::place_tensors() {
  const uint64_t align = file_.alignment_;
  const uint64_t data_start = (in_.position() + align - 1) / align * align;
  for (TensorInfo& t : file_.tensors_) {
    in_.enter("tensor " + quoted(t.name));
    uint64_t n = 1;
    for (const uint64_t dim : t.shape) {
      if (dim == 0) in_.error(ErrorKind::format, "a dimension of its shape is zero");
      if (dim > uint64_t(std::numeric_limits<int64_t>::max()) / n)
        in_.error(ErrorKind::format, "its shape has more than 2^63 elements");
      n *= dim;
    }
    const DTypeTraits& type = traits(t.type);
    if (t.shape[0] % type.block_size != 0)
      in_.error(ErrorKind::format, "its rows have ", t.shape[0], " elements; a multiple of ",
                type.block_size, " was expected for ", type.name);
    if (t.offset % align != 0)
      in_.error(ErrorKind::format, "its data offset ", t.offset,
                " is not a multiple of the alignment ", align);
    const uint64_t blocks = n / type.block_size;
    const uint64_t space = bytes_.size() > data_start ? bytes_.size() - data_start : 0;
    if (t.offset > space || blocks > (space - t.offset) / type.block_bytes)
      in_.error(ErrorKind::format, "its data (", n, " elements of ", type.name, " at offset ",
                t.offset, ") ends past the end of the data section (", space,
                " bytes); the file is damaged or not complete");
    t.offset += data_start;
    t.data = bytes_.subspan(size_t(t.offset), size_t(blocks * type.block_bytes));
  }
}

void GgufFile::Parser::check_overlaps() const {
  const std::vector<TensorInfo>& tensors = file_.tensors_;
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return tensors[a].offset < tensors[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorInfo& first = tensors[order[i - 1]];
    const TensorInfo& second = tensors[order[i]];
    if (first.offset + first.data.size() > second.offset)
      fail(ErrorKind::format, file_.name_, ": tensor ", quoted(second.name), " overlaps tensor ",
           quoted(first.name), " (which has bytes ", first.offset, " to ",
           first.offset + first.data.size(), " of the file) at ", second.offset);
  }
}

}  // namespace pyllamacpp
