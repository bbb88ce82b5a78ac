#include "session/work.h"

#include <algorithm>
#include <string_view>

namespace pyllamacpp {

namespace {

bool is_float(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16;
}

// Keys that each of n tokens sees, the first one `first`.
double mean_keys(int32_t n, int32_t first, int32_t window) {
  double sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += window > 0 ? std::min(first + i, window) : first + i;
  return sum / n;
}

}  // namespace

Work::Ops Work::prompt_ops(int32_t n, int32_t depth) const {
  const double without = 1 - 1.0 / n;  // the output matrix is needed for one token of n
  return {int8_ops - head_int8_ops * without,
          float_ops - head_float_ops * without + attention_ops * mean_keys(n, depth + 1, window)};
}

double Work::token_bytes(int32_t n, int32_t depth) const {
  return weight_bytes + kv_bytes * mean_keys(n, depth, window);
}

Work work_of(const Model& model, DType type_k, DType type_v) {
  const ModelConfig& config = model.config();
  const std::string_view table = "token_embd.weight", output = "output.weight";
  const std::string_view head = model.files().find_tensor(output) ? output : table;
  Work work;
  for (const TensorInfo& tensor : model.files().tensors()) {
    const double n_bytes = double(tensor.data.size());
    if (tensor.name == table) work.weight_bytes += n_bytes / double(tensor.n_rows());  // one row
    if (tensor.name == table && head != table) continue;
    work.weight_bytes += n_bytes;
    if (tensor.shape.size() < 2) continue;
    const double ops = 2.0 * double(tensor.n_elements());
    (is_float(tensor.type) ? work.float_ops : work.int8_ops) += ops;
    if (tensor.name == head)
      (is_float(tensor.type) ? work.head_float_ops : work.head_int8_ops) = ops;
  }
  const double kv_values = double(config.n_layers) * config.n_kv_heads * config.head_dim;
  for (const DType type : {type_k, type_v})
    work.kv_bytes += kv_values * traits(type).block_bytes / traits(type).block_size;
  work.window = config.window;
  work.attention_ops = 4.0 * config.n_layers * config.n_heads * config.head_dim;
  return work;
}

}  // namespace pyllamacpp
