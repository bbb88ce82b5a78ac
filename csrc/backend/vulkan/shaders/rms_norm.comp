// y = x / rms(x) * weight (Zhang and Sennrich 2019), a workgroup a row.
#version 450

layout(local_size_x = 256) in;
layout(set = 0, binding = 0) buffer X { float x[]; };
layout(set = 0, binding = 1) readonly buffer Weight { float weight[]; };
layout(set = 0, binding = 2) buffer Y { float y[]; };  // may be x
layout(set = 0, binding = 3) readonly buffer Source { uint source[]; };
layout(push_constant) uniform Arguments {
  uint n;             // values of a row
  uint x_stride;      // floats
  uint y_stride;
  uint inner_stride;  // workgroups in x: rows side by side in one of x (the heads of a token)
  uint gather;        // 0: row i is row i of x; n + 1: it is row source[n + i]
  float eps;
};

shared float sums[256];

void main() {
  const uint t = gl_LocalInvocationID.x, i = gl_WorkGroupID.y, inner = gl_WorkGroupID.x * inner_stride;
  const uint from = (gather > 0 ? source[gather - 1 + i] : i) * x_stride + inner, to = i * y_stride + inner;
  float sum = 0;
  for (uint k = t; k < n; k += 256) sum = fma(x[from + k], x[from + k], sum);
  sums[t] = sum;
  for (uint half_size = 128; half_size > 0; half_size /= 2) {
    barrier();
    if (t < half_size) sums[t] += sums[t + half_size];
  }
  barrier();
  const float scale = 1 / sqrt(sums[0] / float(n) + eps);
  for (uint k = t; k < n; k += 256) y[to + k] = x[from + k] * scale * weight[k];
}
