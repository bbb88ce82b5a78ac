// The kernel table of one tier. Compiled once per tier, with that tier's flags and with
// PYLLAMACPP_TIER naming its namespace; nothing else in the tree gets ISA flags. Only plain structs
// come in from elsewhere: an inline function shared with other files might be kept by the linker
// in this file's version, and then run on a CPU that lacks the instructions.
#include <math.h>

#include <cstring>

#include "cpu/kernel_table.h"
#include PYLLAMACPP_SIMD_HEADER

#include "cpu/elementwise.h"
// (the order matters: each uses the ones before)
#include "cpu/codecs.h"
#include "cpu/kv_codecs.h"
// kv_codecs first
#include "cpu/attention.h"
#include "cpu/matmul_float.h"
#include "cpu/planes.h"
// used by the products of integers
#include "cpu/matmul_blocks.h"
#include "cpu/matmul_super_rows.h"
// used by matmul_super
#include "cpu/matmul_super.h"
#include "cpu/peak.h"
#include "cpu/quantize_search.h"
// used by the two below
#include "cpu/quantize_super.h"
// used by quantize_types
#include "cpu/quantize_types.h"

#define PYL_STRING(x) #x
#define PYL_NAME(x) PYL_STRING(x)

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

static constexpr TypeKernels kTypes[] = {
    FloatType<CodecF32>::entry(),  FloatType<CodecF16>::entry(),    FloatType<CodecBF16>::entry(),
    BlockType<CodecQ4_0>::entry(), BlockType<CodecQ4_1>::entry(),   BlockType<CodecQ5_0>::entry(),
    BlockType<CodecQ5_1>::entry(), BlockType<CodecQ8_0>::entry(),   SuperType<CodecQ2_K>::entry(),
    SuperType<CodecQ3_K>::entry(), SuperType<CodecQ4_K>::entry(),   SuperType<CodecQ5_K>::entry(),
    SuperType<CodecQ6_K>::entry(), BlockType<CodecIQ4_NL>::entry(), SuperType<CodecIQ4_XS>::entry(),
};

static constexpr KvKernels kKvTypes[] = {
    KvType<KvFloat<CodecF32, StoreF32>>::entry(),
    KvType<KvFloat<CodecF16, StoreF16>>::entry(),
    KvType<KvFloat<CodecBF16, StoreBF16>>::entry(),
    KvType<KvQ8_0>::entry(),
    KvType<KvQ4_0>::entry(),
};

static constexpr QuantizeKernels kQuantizers[] = {
    {DType::f32, quantize_f32},
    {DType::f16, quantize_f16},
    {DType::bf16, quantize_bf16},
    {DType::q4_0, quantize_scaled<ToQ4_0>},
    {DType::q4_1, quantize_affine<ToQ4_1>},
    {DType::q5_0, quantize_scaled<ToQ5_0>},
    {DType::q5_1, quantize_affine<ToQ5_1>},
    {DType::q8_0, quantize_q8_0},
    {DType::q2_k, quantize_super_affine<ToQ2_K>},
    {DType::q3_k, quantize_super<ToQ3_K>},
    {DType::q4_k, quantize_super_affine<ToQ4_K>},
    {DType::q5_k, quantize_super_affine<ToQ5_K>},
    {DType::q6_k, quantize_super<ToQ6_K>},
    {DType::iq4_nl, quantize_scaled<ToIQ4_NL>},
    {DType::iq4_xs, quantize_super<ToIQ4_XS>},
};

extern const KernelTable table;
const KernelTable table = {
    PYL_NAME(PYLLAMACPP_TIER),
    W,
    kTypes,
    sizeof kTypes / sizeof *kTypes,
    kKvTypes,
    sizeof kKvTypes / sizeof *kKvTypes,
    kQuantizers,
    sizeof kQuantizers / sizeof *kQuantizers,
    rms_norm,
    rope_interleaved,
    rope_halves,
    swiglu,
    softmax,
    add_to,
    scale_by,
    quantize_q8_32,
    quantize_q8_256,
    argmax,
    attention,
    int_peak,
    float_peak,
    read_memory,
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
