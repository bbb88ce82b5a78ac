// Conversations on disk, each a JSON file under its name in the user's data folder, as
// pyllamacpp/cli/chat/store.py has them: either program goes on with what the other saved.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pyllamacpp {

struct Exchange {
  std::string question, answer;
};

struct SavedConversation {
  std::optional<std::string> system;
  std::vector<Exchange> exchanges;
  std::string model;  // the name of the file it was held with
};

namespace store {

constexpr const char* kLast = "last";  // the conversation that is saved by itself

// Of all saved conversations, sorted.
std::vector<std::string> names();
// Throws Error(invalid_argument) for what is no name, as all that take one do.
bool exists(const std::string& name);
// In place of one of the same name, all or nothing. Returns the file; throws Error(io).
std::string save(const std::string& name, const SavedConversation& conversation);
// Throws Error(io) when there is none, Error(format) when its file is something else or newer.
SavedConversation load(const std::string& name);
// For others to read: Markdown (.md) or a list of messages (.json). Throws
// Error(invalid_argument) for another ending, Error(io) when the file is there already.
void export_to(const std::string& file, const SavedConversation& conversation);

// A path as typed, ~ being the user's folder; and as text. Both are UTF-8.
std::filesystem::path user_path(std::string_view typed);
std::string utf8(const std::filesystem::path& path);
// The bytes of a file. Throws Error(io) with `shown` as its name.
std::string read_file(const std::filesystem::path& path, const std::string& shown);

}  // namespace store
}  // namespace pyllamacpp
