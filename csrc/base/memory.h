// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <string>

namespace pyllamacpp {

// Bytes that can be taken before the system swaps or kills: what is free or can be reclaimed at
// once, within the limits of the control groups (containers) this process is in and of its address
// space. `root` is where /proc and /sys are looked for (Linux; tests give a folder of their own).
uint64_t available_memory(const std::string& root = "");

}  // namespace pyllamacpp
