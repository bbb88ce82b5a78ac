// Activations as bytes, one scale for 32 of them, as the CPU quantizes those of its types of 32. An
// invocation takes four values, eight of them a block; integer_dot.glsl has the layout.
#version 450

layout(local_size_x = 64) in;
layout(set = 0, binding = 0) readonly buffer X { vec4 x[]; };        // [rows][n_blocks][8]
layout(set = 0, binding = 1) writeonly buffer Codes { uint codes[]; };  // [rows][n_blocks][12]
layout(push_constant) uniform Arguments {
  uint n_blocks;  // of a row
};

shared uint peaks[64];
shared int sums[64];

void main() {
  const uint t = gl_LocalInvocationID.x, in_block = t % 8;
  const uint four = gl_GlobalInvocationID.x, block = gl_WorkGroupID.y * n_blocks + four / 8;
  const bool exists = four / 8 < n_blocks;
  const vec4 value = exists ? x[block * 8 + in_block] : vec4(0);
  // As integers, the largest last: numbers, infinity, what is no number.
  const uvec4 sizes = floatBitsToUint(value) & 0x7fffffffu;
  peaks[t] = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
  for (uint n = 4; n > 0; n /= 2) {
    barrier();
    if (in_block < n) peaks[t] = max(peaks[t], peaks[t + n]);
  }
  barrier();
  // Below 1e-36 the inverse would not be finite; such blocks count as zero.
  const uint peak_bits = peaks[t - in_block];
  const bool finite = peak_bits < 0x7f800000u;
  const float peak = uintBitsToFloat(peak_bits);
  const bool counts = finite && peak > 1e-36;
  const ivec4 q = counts ? ivec4(roundEven(value * (127 / peak))) : ivec4(0);
  sums[t] = q.x + q.y + q.z + q.w;
  barrier();
  if (!exists) return;
  codes[block * 12 + in_block] = (q.x & 255) | (q.y & 255) << 8 | (q.z & 255) << 16 | q.w << 24;
  if (in_block > 0) return;
  // A scale that is no number makes every product of the block show it.
  codes[block * 12 + 8] = counts ? floatBitsToUint(peak / 127) : finite ? 0u : 0x7fc00000u;
  ivec2 halves = ivec2(0);
  for (uint i = 0; i < 4; ++i) halves += ivec2(sums[t + i], sums[t + 4 + i]);
  codes[block * 12 + 9] = (halves.x & 0xffff) | halves.y << 16;
}
