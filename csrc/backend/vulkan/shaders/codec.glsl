// Weights as they lie in device memory (weight_layout.h): a tile holds 256 columns of 32 rows,
// `kTileWords` words a row; word j of all 32 rows lies together, so that 32 lanes, one row each,
// read 128 bytes in order. What a driver knows of a type are the specialization constants below; it
// keeps of this file what that one type needs.

layout(constant_id = 0) const uint kType = 2;       // GGUF's number of the type
layout(constant_id = 1) const uint kLowBits = 4;    // bits of a code in the first plane
layout(constant_id = 2) const uint kHighBits = 0;   // further bits, in the second plane
layout(constant_id = 3) const uint kHighWord = 0;   // where that begins
layout(constant_id = 4) const uint kScaleWord = 0;  // where the scales begin
layout(constant_id = 5) const uint kTileWords = 0;

const uint F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8;
const uint Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, IQ4_NL = 20, IQ4_XS = 23;

const bool kIsTable = kType == IQ4_NL || kType == IQ4_XS;  // codes are places in a table
const int kZero = kType == Q4_0 ? 8 : kType == Q5_0 ? 16 : kType == Q3_K ? 4 : kType == Q6_K ? 32 : 0;
const bool kHasOffset = kType == Q4_1 || kType == Q5_1 || kType == Q2_K || kType == Q4_K || kType == Q5_K;

layout(set = 0, binding = 0) readonly restrict buffer Weights { uint weights[]; };

// Where a row of a tile begins; its word j is weights[row + 32 * j].
uint word(uint row, uint j) { return weights[row + 32 * j]; }

float low_half(uint w) { return unpackHalf2x16(w).x; }
float half_at(uint w, uint odd) {
  const vec2 both = unpackHalf2x16(w);
  return odd == 0 ? both.x : both.y;
}
int signed_byte(uint w, uint i) { return bitfieldExtract(int(w), int(8 * i), 8); }

// Byte i of those that begin at word j.
uint byte_at(uint row, uint j, uint i) { return bitfieldExtract(word(row, j + i / 4), int(i % 4) * 8, 8); }

// Six bits, (scale, minimum), of sub-block b of Q4_K and Q5_K: their bytes 0-3 and 4-7 hold the
// low ones, with the high bits of the last four on top; bytes 8-11 the rest.
uvec2 six_bits(uint row, uint b) {
  const uint j = kScaleWord + 1;
  if (b < 4) return uvec2(byte_at(row, j, b), byte_at(row, j, b + 4)) & 63;
  const uint low = byte_at(row, j, b + 4);
  return uvec2((low & 15) | (byte_at(row, j, b - 4) >> 6 << 4), (low >> 4) | (byte_at(row, j, b) >> 6 << 4));
}

// What codes 16 g .. 16 g + 15 of a tile's row are multiplied by, and what is then added.
vec2 scale_of(uint row, uint g) {
  const uint b = g / 2;
  switch (kType) {
    case Q4_1:
    case Q5_1:
      return unpackHalf2x16(word(row, kScaleWord + b));
    case Q2_K: {
      const vec2 d = unpackHalf2x16(word(row, kScaleWord + 4));
      const uint both = byte_at(row, kScaleWord, g);
      return vec2(d.x * float(both & 15), -d.y * float(both >> 4));
    }
    case Q3_K: {
      const uint low = byte_at(row, kScaleWord, g % 8) >> (g / 8 * 4) & 15;
      const uint high = byte_at(row, kScaleWord + 2, g % 4) >> (g / 4 * 2) & 3;
      return vec2(low_half(word(row, kScaleWord + 3)) * float(int(low | high << 4) - 32), 0);
    }
    case Q4_K:
    case Q5_K: {
      const vec2 d = unpackHalf2x16(word(row, kScaleWord));
      const uvec2 both = six_bits(row, b);
      return vec2(d.x * float(both.x), -d.y * float(both.y));
    }
    case Q6_K: {
      const int scale = signed_byte(word(row, kScaleWord + g / 4), g % 4);
      return vec2(low_half(word(row, kScaleWord + 4)) * float(scale), 0);
    }
    case IQ4_XS: {
      const uint head = word(row, kScaleWord);
      const uint low = word(row, kScaleWord + 1) >> (4 * b) & 15;
      const uint high = head >> (16 + 2 * b) & 3;
      return vec2(low_half(head) * float(int(low | high << 4) - 32), 0);
    }
  }
  return vec2(half_at(word(row, kScaleWord + b / 2), b & 1), 0);
}

// The codes 32 b + 4 t .. + 3 of a tile's row, a byte each.
uint four_codes(uint row, uint b, uint t) {
  const uint fours = kLowBits < 8 ? 8 / kLowBits : 1;  // in a word
  const uint shift = kLowBits * (t % fours), mask = 0x01010101 * ((1u << kLowBits) - 1);
  const uint low = word(row, kLowBits * b + t / fours) >> shift & mask;
  if (kHighBits == 0) return low;
  const uint high_fours = kHighBits == 2 ? 4 : 8, high_shift = kHighBits * (t % high_fours);
  const uint high = word(row, kHighWord + kHighBits * b + t / high_fours) >> high_shift;
  return low | (high & (kHighBits == 2 ? 0x03030303u : 0x01010101u)) << kLowBits;
}

// What byte i of four_codes stands for, before kZero is taken off, and scale and offset.
int code_value(uint codes, uint i) {
  if (!kIsTable) return kType == Q8_0 ? signed_byte(codes, i) : int(codes >> (8 * i) & 255);
  // kIq4Values of base/formats.h, four to a word.
  const uint q = codes >> (8 * i) & 15;
  const uint w = q < 8 ? (q < 4 ? 0xbfad9881u : 0xf6eaddcfu) : (q < 12 ? 0x26190d01u : 0x71594535u);
  return signed_byte(w, q & 3);
}

// The weights 32 b + 8 u .. + 7 of a tile's row as floats: exactly what csrc/quant gives.
void decode(uint row, uint b, uint u, out float w[8]) {
  if (kLowBits == 32) {
    for (uint i = 0; i < 8; ++i) w[i] = uintBitsToFloat(word(row, 32 * b + 8 * u + i));
    return;
  }
  if (kLowBits == 16) {
    for (uint i = 0; i < 4; ++i) {
      const uint both = word(row, 16 * b + 4 * u + i);
      const vec2 f = kType == F16 ? unpackHalf2x16(both)
                                  : vec2(uintBitsToFloat(both << 16), uintBitsToFloat(both & 0xffff0000u));
      w[2 * i] = f.x;
      w[2 * i + 1] = f.y;
    }
    return;
  }
  const vec2 scale = scale_of(row, 2 * b + u / 2);
  for (uint i = 0; i < 8; ++i) {
    const int code = code_value(four_codes(row, b, 2 * u + i / 4), i % 4) - kZero;
    // Two roundings, as on the CPU: the same weight wherever it is used.
    precise const float scaled = scale.x * float(code);
    precise const float sum = scaled + scale.y;
    w[i] = kHasOffset ? sum : scaled;
  }
}
