// gate = silu(gate) * up (Shazeer 2020), for every row.
#version 450

layout(local_size_x = 256) in;
layout(set = 0, binding = 0) buffer Gate { float gate[]; };
layout(set = 0, binding = 1) readonly buffer Up { float up[]; };
layout(push_constant) uniform Arguments {
  uint n;
  uint stride;
};

void main() {
  const uint i = gl_GlobalInvocationID.x, at = gl_WorkGroupID.y * stride + i;
  if (i < n) gate[at] = gate[at] / (1 + exp(-gate[at])) * up[at];
}
