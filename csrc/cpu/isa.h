// Which tier of kernels runs: the best that this CPU has, or the one PYLLAMACPP_ISA names.
#pragma once

#include <string_view>
#include <vector>

#include "cpu/kernel_table.h"

namespace pyllamacpp::cpu {

// Tables of the tiers in this build that this CPU can run, best first; the last is "scalar".
const std::vector<const KernelTable*>& available_tiers();

// Throws Error(invalid_argument) for a tier unknown or beyond this CPU, naming those available.
const KernelTable& tier_named(std::string_view name);

// The tier in use: PYLLAMACPP_ISA when set, else the best. Read at every call, so that a test may
// change it; callers keep the reference.
const KernelTable& active_tier();

}  // namespace pyllamacpp::cpu
