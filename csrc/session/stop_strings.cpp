#include "session/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace pyllamacpp {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_)
    if (stop.empty()) fail(ErrorKind::invalid_argument, "a stop string is empty");
}

std::string StopStrings::push(std::string_view text) {
  held_ += text;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_)
    if (const size_t at = held_.find(stop); at < end) {
      end = at;
      found_ = stop;
    }
  if (end != std::string::npos) {
    held_.resize(end);
    return flush();
  }
  size_t keep = 0;  // the longest tail that begins a stop string
  for (const std::string& stop : stops_)
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopStrings::flush() { return std::exchange(held_, {}); }

}  // namespace pyllamacpp
