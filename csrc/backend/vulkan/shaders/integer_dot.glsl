// Products of quantized weights with activations that quantize.comp made bytes: exact within 16
// columns, then a few multiply-adds for a block of 32.

// OpSDot of four signed bytes a word, whose packed vector format is 0; glslc of Debian 12 has no name
// for it. The including file requires GL_EXT_spirv_intrinsics.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int packed_dot(uint a, uint b, spirv_literal int format);

int dot4(uint a, uint b) { return packed_dot(a, b, 0); }

// [n_cols][x_stride / 32][3]: the bytes of a block in the first two; then its scale, a float, and
// the sums of its first and last 16 bytes, 16 bits each.
layout(set = 0, binding = 1) readonly restrict buffer X { uvec4 x[]; };

uint block_of_x(uint col, uint block) { return (col * (x_stride / 32) + block) * 3; }

const bool kHalves = kType == Q2_K || kType == Q3_K || kType == Q6_K;  // a scale for 16 codes

// The weights 32 b + 4 t .. + 3 of a tile's row as signed bytes, before kZero is taken off.
uint four_bytes(uint row, uint b, uint t) {
  const uint codes = four_codes(row, b, t);
  if (!kIsTable) return codes;
  uint bytes = 0;
  for (uint i = 0; i < 4; ++i) bytes |= uint(code_value(codes, i) & 255) << (8 * i);
  return bytes;
}

// Of block b: the scales of its first and last 16 weights, and their offsets.
vec4 block_scale(uint row, uint b) {
  const vec2 first = scale_of(row, 2 * b), last = kHalves ? scale_of(row, 2 * b + 1) : first;
  return vec4(first.x, last.x, first.y, last.y);
}

// `sum` and a block: what dot4 gave for its first and last 16 columns, scaled. `x` is the block's
// scale and sums. Written out, as two shaders have to round alike.
float add_products(ivec2 products, vec4 scale, uvec2 x, float sum) {
  const ivec2 sums = ivec2(bitfieldExtract(int(x.y), 0, 16), int(x.y) >> 16);
  const ivec2 exact = products - kZero * sums;
  precise float block = scale.x * float(kHalves ? exact.x : exact.x + exact.y);
  if (kHalves) block = fma(scale.y, float(exact.y), block);
  if (kHasOffset) block = fma(scale.z, float(kHalves ? sums.x : sums.x + sums.y), block);
  if (kHasOffset && kHalves) block = fma(scale.w, float(sums.y), block);
  precise const float result = fma(uintBitsToFloat(x.x), block, sum);
  return result;
}
