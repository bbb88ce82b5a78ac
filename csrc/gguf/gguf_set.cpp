#include "gguf/gguf_set.h"

#include <algorithm>
#include <functional>
#include <sstream>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pyllamacpp {

namespace {

// "-00002-of-00003.gguf" for part 2 of 3.
std::string part_ending(uint64_t part, uint64_t count) {
  const auto digits = [](uint64_t n) {
    std::string text = std::to_string(n);
    return text.size() < 5 ? std::string(5 - text.size(), '0').append(text) : text;
  };
  return std::string("-").append(digits(part)).append("-of-").append(digits(count)).append(".gguf");
}

uint64_t split_count(const GgufFile& file) { return file.find_uint("split.count").value_or(1); }

}  // namespace

GgufSet GgufSet::open(const std::string& path) {
  GgufSet set;
  set.parts_.push_back(GgufFile::open(path));
  if (split_count(set.first()) > 1) set.open_others();
  set.index_tensors();
  return set;
}

GgufSet GgufSet::open(const std::string& path, const MetaOverrides& overrides) {
  GgufSet set = open(path);
  for (const auto& [key, value] : overrides) {
    set.parts_.front().override_value(key, value);
    std::ostringstream text;
    text.precision(17);
    text << key << ' ' << value.index() << ' ';
    std::visit([&](const auto& plain) { text << plain; }, value);
    set.overridden_ += text.str() + '\0';
  }
  return set;
}

void GgufSet::open_others() {
  const std::string path = name();
  const uint64_t count = split_count(first());
  const uint64_t part = first().find_uint("split.no").value_or(0) + 1;
  if (part < 1 || part > count)
    fail(ErrorKind::format, path, ": split.no is ", part - 1, ", but split.count is ", count);
  const std::string ending = part_ending(part, count);
  if (!path.ends_with(ending))
    fail(ErrorKind::format, path, ": this is part ", part, " of a model split into ", count,
         " files, whose name should end in ", ending, " so that the others can be found");
  const std::string stem = path.substr(0, path.size() - ending.size());
  if (part != 1)
    fail(ErrorKind::invalid_argument, path, ": this is part ", part, " of ", count,
         " of a model; open the first, ", stem, part_ending(1, count));
  for (uint64_t i = 1; i < count; ++i) {
    const std::string other = stem + part_ending(i + 1, count);
    try {
      parts_.push_back(GgufFile::open(other));
    } catch (const Error& e) {
      fail(e.kind(), "part ", i + 1, " of ", count, " of a model: ", e.what());
    }
    const GgufFile& file = parts_.back();
    if (split_count(file) != count || file.find_uint("split.no").value_or(0) != i)
      fail(ErrorKind::format, other, ": split.no is ", file.find_uint("split.no").value_or(0),
           " and split.count is ", split_count(file), "; its name says ", i, " and ", count);
  }
}

void GgufSet::index_tensors() {
  for (const GgufFile& file : parts_)
    tensors_.insert(tensors_.end(), file.tensors().begin(), file.tensors().end());
  for (const GgufFile& file : parts_)
    if (const auto n = file.find_uint("split.tensors.count"); n && *n != tensors_.size())
      fail(ErrorKind::format, file.name(), ": split.tensors.count is ", *n, ", but the files have ",
           tensors_.size(), " tensors");
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.push_back(i);
  const auto name_at = [&](size_t i) { return tensors_[i].name; };
  std::ranges::stable_sort(by_name_, {}, name_at);
  // No file has a name twice, so the second of two equal ones is a later file's.
  const auto twice = std::ranges::adjacent_find(by_name_, {}, name_at);
  if (twice == by_name_.end()) return;
  const std::string_view name = name_at(*twice);
  const auto holds = [&](const GgufFile& file) { return file.find_tensor(name) != nullptr; };
  const auto one = std::ranges::find_if(parts_, holds);
  const auto two = std::find_if(one + 1, parts_.end(), holds);
  fail(ErrorKind::format, two->name(), ": tensor '", name, "' is also in ", one->name());
}

const TensorInfo* GgufSet::find_tensor(std::string_view name) const {
  const auto at =
      std::ranges::lower_bound(by_name_, name, {}, [&](size_t i) { return tensors_[i].name; });
  return at != by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

void GgufSet::require_unchanged() const {
  for (const GgufFile& file : parts_) file.map()->require_unchanged();
}

std::string GgufSet::identity() const {
  constexpr size_t kSample = 256;
  const std::span<const std::byte> file = first().map()->bytes();
  uint64_t header = file.size();
  for (const TensorInfo& t : first().tensors()) header = std::min(header, t.offset);
  const auto chars = [](std::span<const std::byte> bytes) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  std::string all(chars(file.first(size_t(header))));
  all += overridden_;
  for (const TensorInfo& t : tensors_) {
    all.append(t.name).append(" ").append(traits(t.type).name);
    for (const uint64_t n : t.shape) all.append(" ").append(std::to_string(n));
    const size_t n = std::min(kSample, t.data.size());
    all.append("\n").append(chars(t.data.subspan((t.data.size() - n) / 2, n)));
  }
  return all;
}

void GgufSet::release(std::span<const std::byte> data) const {
  const std::less<const std::byte*> before;
  for (const GgufFile& file : parts_) {
    const std::span<const std::byte> bytes = file.map()->bytes();
    if (!before(data.data(), bytes.data()) && before(data.data(), bytes.data() + bytes.size())) {
      file.map()->release(data);
      return;
    }
  }
}

}  // namespace pyllamacpp
