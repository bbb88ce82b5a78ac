#include "cpu/isa.h"

#include <cstdlib>
#include <string>

#include "base/error.h"

#if defined(_MSC_VER)
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#elif defined(PYLLAMACPP_HAVE_NEON) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(PYLLAMACPP_HAVE_NEON) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace pyllamacpp::cpu {

namespace scalar {
extern const KernelTable table;
}
#ifdef PYLLAMACPP_HAVE_AVX2
namespace avx2 {
extern const KernelTable table;
}
namespace avx512vnni {
extern const KernelTable table;
}
#endif
#ifdef PYLLAMACPP_HAVE_AVXVNNI
namespace avxvnni {
extern const KernelTable table;
}
#endif
#ifdef PYLLAMACPP_HAVE_NEON
namespace neon {
extern const KernelTable table;
}
namespace neon_dotprod {
extern const KernelTable table;
}
namespace neon_i8mm {
extern const KernelTable table;
}
#endif

namespace {

#if defined(PYLLAMACPP_HAVE_AVX2) && defined(_MSC_VER)
// CPUID leaf 7 and the register state that the system saves (XCR0).
struct Features {
  int leaf1[4], leaf7[4];
  unsigned long long saved = 0;
  Features() {
    __cpuidex(leaf1, 1, 0);
    __cpuidex(leaf7, 7, 0);
    if (leaf1[2] >> 27 & 1) saved = _xgetbv(0);
  }
};

bool has_avx2() {
  const Features f;
  const bool fma = f.leaf1[2] >> 12 & 1, f16c = f.leaf1[2] >> 29 & 1;
  return (f.saved & 6) == 6 && fma && f16c && (f.leaf7[1] >> 5 & 1);
}

bool has_avx512vnni() {
  const Features f;
  const unsigned ebx = unsigned(f.leaf7[1]);
  const bool base = (ebx >> 16 & 1) && (ebx >> 17 & 1) && (ebx >> 30 & 1) && (ebx >> 31 & 1);
  return has_avx2() && (f.saved & 0xe6) == 0xe6 && base && (f.leaf7[2] >> 11 & 1);
}
#elif defined(PYLLAMACPP_HAVE_AVX2)
bool has_avx2() {
  unsigned a = 0, b = 0, c = 0, d = 0;  // clang 14 does not know the name f16c
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
}

bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

#ifdef PYLLAMACPP_HAVE_AVXVNNI
bool has_avxvnni() {
#if defined(PYLLAMACPP_AVXVNNI_BY_AVX512)
  return has_avx512vnni();
#elif defined(_MSC_VER)
  int subleaf1[4];
  __cpuidex(subleaf1, 7, 1);
  return has_avx2() && (subleaf1[0] >> 4 & 1);
#else
  unsigned a = 0, b = 0, c = 0, d = 0;  // clang 14 does not know the name avxvnni
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#endif
}
#endif

#ifdef PYLLAMACPP_HAVE_NEON
// NEON itself is part of every AArch64 system; the dot product came with ARMv8.2 to 8.4, products
// of byte matrices with ARMv8.6. Old headers lack the names of the bits.
#if defined(__APPLE__)
bool has(const char* feature) {
  int present = 0;
  size_t size = sizeof present;
  return sysctlbyname(feature, &present, &size, nullptr, 0) == 0 && present;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_dotprod() && has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }                 // HWCAP_ASIMDDP
bool has_i8mm() { return has_dotprod() && getauxval(AT_HWCAP2) >> 13 & 1; }  // HWCAP2_I8MM
#else
bool has_dotprod() { return false; }
bool has_i8mm() { return false; }
#endif
#endif

}  // namespace

const std::vector<const KernelTable*>& available_tiers() {
  static const std::vector<const KernelTable*> tiers = [] {
    std::vector<const KernelTable*> found;
#ifdef PYLLAMACPP_HAVE_AVX2
    if (has_avx512vnni()) found.push_back(&avx512vnni::table);
#endif
#ifdef PYLLAMACPP_HAVE_AVXVNNI
    if (has_avxvnni()) found.push_back(&avxvnni::table);
#endif
#ifdef PYLLAMACPP_HAVE_AVX2
    if (has_avx2()) found.push_back(&avx2::table);
#endif
#ifdef PYLLAMACPP_HAVE_NEON
    if (has_i8mm()) found.push_back(&neon_i8mm::table);
    if (has_dotprod()) found.push_back(&neon_dotprod::table);
    found.push_back(&neon::table);
#endif
    found.push_back(&scalar::table);
    return found;
  }();
  return tiers;
}

const KernelTable& tier_named(std::string_view name) {
  std::string names;
  for (const KernelTable* table : available_tiers()) {
    if (name == table->name) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  fail(ErrorKind::invalid_argument, "no kernels '", name, "' on this machine; it has ", names);
}

const KernelTable& active_tier() {
  const char* forced = std::getenv("PYLLAMACPP_ISA");
  return forced && *forced ? tier_named(forced) : *available_tiers().front();
}

}  // namespace pyllamacpp::cpu
