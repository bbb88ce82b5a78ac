// What /set shows and changes, under the names that `pyllamacpp chat` and Python have.
#pragma once

#include <string>

#include "chat/chat.h"

namespace pyllamacpp {

// "NAME VALUE" of one setting, or of all, each a line, for an empty name.
std::string shown_settings(const Chat& chat, const std::string& name);
// Both throw Error(invalid_argument) for an unknown name, this one also for a value that is no
// good, and then nothing changes.
void change_setting(Chat& chat, const std::string& name, const std::string& value);

}  // namespace pyllamacpp
