// How the cache holds a token of a head, in words: halves, two dimensions a word; or blocks of 32
// dimensions, whose codes lie first, 8 bits (q8_0) or 4 (q4_0) each, and then their scales, halves,
// two a word (ops.h counts them too).

const uint F16 = 1, Q4_0 = 2, Q8_0 = 8;  // GGUF's numbers

uint codes_per_word(uint type) { return type == Q8_0 ? 4 : 8; }

uint token_words(uint type, uint head_words) {
  if (type == F16) return head_words;
  return 2 * head_words / codes_per_word(type) + (head_words / 16 + 1) / 2;
}

// Code i of a word as a number.
float code_at(uint type, uint w, uint i) {
  return type == Q8_0 ? float(bitfieldExtract(int(w), int(8 * i), 8)) : float(int(w >> (4 * i) & 15) - 8);
}

float half_at(uint w, uint odd) {
  const vec2 both = unpackHalf2x16(w);
  return odd == 0 ? both.x : both.y;
}
