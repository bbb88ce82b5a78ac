// Stop strings found in text that arrives in pieces.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "session/stop_strings.h"

namespace {

using namespace pyllamacpp;
using Strings = std::vector<std::string>;

// Everything shown for `pieces`, the last of which is followed by the end of the text.
std::string shown(const Strings& stops, const Strings& pieces, bool* hit) {
  StopStrings search(stops);
  std::string all;
  for (const std::string& piece : pieces) {
    all += search.push(piece);
    if (search.hit()) break;
  }
  *hit = search.hit();
  return all + search.flush();
}

void check(const Strings& stops, const Strings& pieces, const std::string& expected,
           bool expected_hit) {
  bool hit;
  const std::string text = shown(stops, pieces, &hit);
  CHECK(text == expected);
  CHECK(hit == expected_hit);
}

void test_examples() {
  check({}, {"a", "b"}, "ab", false);
  check({"stop"}, {"a stop b"}, "a ", true);
  check({"stop"}, {"a s", "t", "op"}, "a ", true);
  check({"stop"}, {"a s", "t", "o"}, "a sto", false);
  check({"stop"}, {"stop"}, "", true);
  check({"stop"}, {"sstop"}, "s", true);
  check({"stop"}, {"sto", "stop"}, "sto", true);
  check({"aab"}, {"a", "a", "a", "b"}, "a", true);
  check({"b", "abc"}, {"xabc"}, "x", true);  // the earliest, not the first listed
  StopStrings search({"b", "abc"});
  CHECK(search.found() == "");
  search.push("xabc");
  CHECK(search.found() == "abc");
  check({"\n\n", "\n"}, {"a\n\nb"}, "a", true);
  check({"\xc3\xa9"}, {"caf\xc3", "\xa9!"}, "caf", true);  // within a character
  check({std::string("\0x", 2)}, {std::string("a\0", 2), "x"}, "a", true);
  check({"x"}, {"", "", "a", ""}, "a", false);
}

// What cannot begin a stop string any more is shown at once.
void test_only_a_possible_beginning_is_held() {
  StopStrings search({"stop", "\n\n"});
  CHECK(search.push("hello s") == "hello ");
  CHECK(search.push("t") == "");
  CHECK(search.push("a\n") == "sta");
  CHECK(search.push("b") == "\nb");
  CHECK(search.push("ststo") == "st");
  CHECK(search.flush() == "sto");
  CHECK(search.flush() == "");
  CHECK(!search.hit());
}

void test_empty_stop_string() {
  bool refused = false;
  try {
    StopStrings search({"a", ""});
  } catch (const Error& e) {
    refused = e.kind() == ErrorKind::invalid_argument;
  }
  CHECK(refused);
}

// Random texts over two letters in random pieces. A push stops as soon as the whole text so far has
// a stop string, at the earliest one; and at every moment what is held back may begin one.
void test_random_pieces() {
  std::mt19937 random(1);
  const auto word = [&](size_t least, size_t most) {
    std::string s(least + random() % (most - least + 1), 'a');
    for (char& c : s) c = char('a' + random() % 2);
    return s;
  };
  for (int round = 0; round < 20000; ++round) {
    Strings stops(random() % 4);
    for (std::string& stop : stops) stop = word(1, 5);
    StopStrings search(stops);
    std::string text, out;
    for (int i = 0; i < 12; ++i) {
      const std::string piece = word(0, 4);
      text += piece;
      out += search.push(piece);
      size_t end = std::string::npos;
      for (const std::string& stop : stops) end = std::min(end, text.find(stop));
      CHECK(search.hit() == (end != std::string::npos));
      if (search.hit()) {
        CHECK(out == text.substr(0, end));
        CHECK(search.flush().empty());
        break;
      }
      const std::string held = text.substr(out.size());
      CHECK(text.compare(0, out.size(), out) == 0);
      bool may_begin = held.empty();
      for (const std::string& stop : stops) may_begin |= stop.compare(0, held.size(), held) == 0;
      CHECK(may_begin);
      for (size_t at = 0; at < out.size(); ++at)  // nothing shown could have begun one
        for (const std::string& stop : stops)
          CHECK(text.size() - at >= stop.size() ||
                stop.compare(0, text.size() - at, text, at) != 0);
    }
    if (!search.hit()) CHECK(out + search.flush() == text);
  }
}

}  // namespace

int main() {
  test_examples();
  test_only_a_possible_beginning_is_held();
  test_empty_stop_string();
  test_random_pieces();
  return check_result();
}
