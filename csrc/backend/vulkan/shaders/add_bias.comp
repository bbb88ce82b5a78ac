// y += bias, for every row.
#version 450

layout(local_size_x = 256) in;
layout(set = 0, binding = 0) buffer Y { float y[]; };
layout(set = 0, binding = 1) readonly buffer Bias { float bias[]; };
layout(push_constant) uniform Arguments {
  uint n;
  uint y_stride;
};

void main() {
  const uint i = gl_GlobalInvocationID.x;
  if (i < n) y[gl_WorkGroupID.y * y_stride + i] += bias[i];
}
