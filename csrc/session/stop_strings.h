// Finds stop strings in text that arrives in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pyllamacpp {

class StopStrings {
 public:
  // Throws Error(invalid_argument) for an empty stop string.
  explicit StopStrings(std::vector<std::string> stops);

  // Appends `text` and returns what can be shown: everything before the earliest stop string, or
  // all but a tail that may turn out to begin one.
  std::string push(std::string_view text);
  // The tail held back; for the end of a text that was not stopped.
  std::string flush();
  // The one that was found; empty before.
  const std::string& found() const { return found_; }
  bool hit() const { return !found_.empty(); }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string found_;
};

}  // namespace pyllamacpp
