#include "chat/store.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <system_error>

#include "base/error.h"
#include "chat/json.h"
#include "text/utf8.h"

namespace pyllamacpp::store {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFormat = "pyllamacpp-conversation", kVersion = "1";

fs::path path_of(std::string_view utf8) { return {std::u8string(utf8.begin(), utf8.end())}; }

std::optional<fs::path> from_environment(const char* name) {
  const char* value = std::getenv(name);
  if (!value || !*value) return std::nullopt;
  return fs::path(value);
}

fs::path home() {
#if defined(_WIN32)
  return from_environment("USERPROFILE").value_or(".");
#else
  return from_environment("HOME").value_or(".");
#endif
}

fs::path folder() {
  if (const auto chosen = from_environment("PYLLAMACPP_DATA"))
    return user_path(utf8(*chosen)) / "conversations";
#if defined(_WIN32)
  const fs::path base = from_environment("LOCALAPPDATA").value_or(home() / "AppData" / "Local");
#elif defined(__APPLE__)
  const fs::path base = home() / "Library" / "Application Support";
#else
  const fs::path base = from_environment("XDG_DATA_HOME").value_or(home() / ".local" / "share");
#endif
  return base / "pyllamacpp" / "conversations";
}

bool is_name(std::string_view text) {
  constexpr std::string_view kFirst =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return text.find_first_of("._-") != 0 && !text.empty() &&
         text.find_first_not_of(kFirst) == std::string_view::npos;
}

fs::path path_to(const std::string& name) {
  if (!is_name(name))
    fail(ErrorKind::invalid_argument, "'", printable(name),
         "' is not a name: letters, digits and ._- make one, a letter or digit first");
  return folder() / (name + ".json");
}

[[noreturn]] void refuse_write(const fs::path& path, const std::error_code& why) {
  fail(ErrorKind::io, "cannot write ", utf8(path), ": ", why.message());
}

std::error_code last_error() { return {errno, std::generic_category()}; }

void write_file(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) refuse_write(path, last_error());
}

// No conversation is lost when writing its next state fails, or this program ends meanwhile.
void write_whole(const fs::path& path, const std::string& text) {
  std::ostringstream name;
  name << '.' << path.filename().string() << '.' << std::hex << std::random_device()();
  const fs::path part = path.parent_path() / name.str();
  std::error_code failed;
  try {
    // What is said is nobody else's business.
    write_file(part, "");
    fs::permissions(part, fs::perms::owner_read | fs::perms::owner_write);
    write_file(part, text);
    fs::rename(part, path);
    return;
  } catch (const fs::filesystem_error& e) {
    failed = e.code();
  } catch (const Error&) {
    failed = last_error();
  }
  std::error_code ignored;
  fs::remove(part, ignored);
  refuse_write(path, failed);
}

// As Python's json.dumps with an indent of 1, whose files these are.
std::string messages(const SavedConversation& conversation, bool with_system,
                     const std::string& indent, bool ascii) {
  std::string text;
  const auto add = [&](const char* role, const std::string& content) {
    if (!text.empty()) text += ',';
    text += '\n' + indent + " {\n" + indent + R"(  "role": ")" + role + "\",\n" + indent +
            R"(  "content": )" + quoted(content, ascii) + '\n' + indent + " }";
  };
  if (with_system && conversation.system) add("system", *conversation.system);
  for (const Exchange& exchange : conversation.exchanges) {
    add("user", exchange.question);
    add("assistant", exchange.answer);
  }
  return text.empty() ? "[]" : "[" + text + "\n" + indent + "]";
}

std::string markdown(const SavedConversation& conversation) {
  std::string text;
  const auto add = [&](const char* role, const std::string& content) {
    text += (text.empty() ? "" : "\n\n") + ("## " + std::string(role)) + "\n\n" + content;
  };
  if (conversation.system) add("System", *conversation.system);
  for (const Exchange& exchange : conversation.exchanges) {
    add("User", exchange.question);
    add("Assistant", exchange.answer);
  }
  return text;
}

// Nothing unless questions and answers take turns.
std::optional<std::vector<Exchange>> exchanges_of(const JsonValue& messages) {
  if (messages.kind != JsonValue::Kind::array || messages.values.size() % 2) return std::nullopt;
  std::vector<Exchange> found;
  for (size_t i = 0; i < messages.values.size(); ++i) {
    const JsonValue* role = messages.values[i].find("role");
    const JsonValue* content = messages.values[i].find("content");
    if (!role || !role->is_string() || role->text != (i % 2 ? "assistant" : "user") || !content ||
        !content->is_string())
      return std::nullopt;
    if (i % 2)
      found.back().answer = content->text;
    else
      found.push_back({content->text, ""});
  }
  return found;
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text.empty() ? "none" : text;
}

}  // namespace

fs::path user_path(std::string_view typed) {
  if (typed == "~") return home();
  return typed.starts_with("~/") ? home() / path_of(typed.substr(2)) : path_of(typed);
}

std::string utf8(const fs::path& path) {
  const std::u8string text = path.u8string();
  return {text.begin(), text.end()};
}

std::string read_file(const fs::path& path, const std::string& shown) {
  std::error_code failed;
  if (fs::is_directory(path, failed))
    fail(ErrorKind::io, "cannot read ", shown, ": ",
         std::make_error_code(std::errc::is_a_directory).message());
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in.is_open() || in.bad())
    fail(ErrorKind::io, "cannot read ", shown, ": ", last_error().message());
  return text;
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  std::error_code none;
  for (fs::directory_iterator entry(folder(), none), end; !none && entry != end;
       entry.increment(none)) {
    const fs::path path = entry->path();
    if (path.extension() == ".json" && is_name(utf8(path.stem())))
      found.push_back(utf8(path.stem()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool exists(const std::string& name) {
  std::error_code ignored;
  return fs::exists(path_to(name), ignored);
}

std::string save(const std::string& name, const SavedConversation& conversation) {
  const fs::path path = path_to(name);
  const std::string text =
      "{\n \"format\": \"" + std::string(kFormat) + "\",\n \"version\": " + std::string(kVersion) +
      ",\n \"model\": " + quoted(conversation.model, true) +
      ",\n \"system\": " + (conversation.system ? quoted(*conversation.system, true) : "null") +
      ",\n \"messages\": " + messages(conversation, false, " ", true) + "\n}";
  std::error_code failed;
  const bool is_new = fs::create_directories(path.parent_path(), failed);
  if (!failed && is_new) fs::permissions(path.parent_path(), fs::perms::owner_all, failed);
  if (failed) refuse_write(path, failed);
  write_whole(path, text);
  return utf8(path);
}

SavedConversation load(const std::string& name) {
  const fs::path path = path_to(name);
  if (!exists(name))
    fail(ErrorKind::io, "there is no conversation '", name, "'; saved are: ", join(names()));
  const std::optional<JsonValue> found = parse_json(read_file(path, utf8(path)));
  if (!found) fail(ErrorKind::format, utf8(path), " is not JSON");
  const JsonValue* format = found->find("format");
  if (!format || !format->is_string() || format->text != kFormat)
    fail(ErrorKind::format, utf8(path), " is not a saved conversation");
  const JsonValue* version = found->find("version");
  if (!version || version->kind != JsonValue::Kind::number || version->text != kVersion)
    fail(ErrorKind::format, utf8(path), " is of version ",
         version ? printable(version->text) : "none", ", this program reads ", kVersion);
  const JsonValue* system = found->find("system");
  const JsonValue* model = found->find("model");
  const JsonValue* messages = found->find("messages");
  auto exchanges = messages ? exchanges_of(*messages) : std::vector<Exchange>();
  const bool has_system = system && system->kind != JsonValue::Kind::null;
  if (!exchanges || (has_system && !system->is_string()))
    fail(ErrorKind::format, utf8(path), " does not hold questions and answers in turn");
  SavedConversation saved;
  if (has_system) saved.system = system->text;
  if (model) saved.model = model->text;
  saved.exchanges = *std::move(exchanges);
  return saved;
}

void export_to(const std::string& file, const SavedConversation& conversation) {
  const fs::path path = user_path(file);
  if (path.extension() != ".md" && path.extension() != ".json")
    fail(ErrorKind::invalid_argument, file, " must end in .md or .json");
  std::error_code failed;
  if (fs::exists(path, failed)) refuse_write(path, std::make_error_code(std::errc::file_exists));
  write_file(path, (path.extension() == ".md" ? markdown(conversation)
                                              : messages(conversation, true, "", false)) +
                       "\n");
}

}  // namespace pyllamacpp::store
