// The commands of the chat: a table of names, what they take, what they do.
#pragma once

#include <string>

#include "chat/chat.h"

namespace pyllamacpp {

// Runs "/NAME ARGUMENT". Throws Error(invalid_argument) for an unknown one, and what it throws.
void run_command(Chat& chat, const std::string& line);

}  // namespace pyllamacpp
