#include "session/input_squares.h"

#include <utility>

namespace pyllamacpp {

InputSquares::InputSquares(const Model& model) : model_(model), layers_(model.layers().size()) {}

void InputSquares::see(const LayerWeights& layer, LayerInput input, const float* rows,
                       int64_t n_rows, int64_t n) {
  const size_t index = size_t(&layer - model_.layers().data());
  Sum& sum = layers_[index][size_t(input)];
  sum.squares.resize(size_t(n));
  double* squares = sum.squares.data();
  for (int64_t row = 0; row < n_rows; ++row, rows += n)
    for (int64_t i = 0; i < n; ++i) squares[i] += double(rows[i]) * double(rows[i]);
  sum.n_rows += n_rows;
}

std::vector<InputSquares::Entry> InputSquares::entries() const {
  static constexpr std::pair<const char*, LayerInput> kMatrices[] = {
      {"attn_q", LayerInput::attention},      {"attn_k", LayerInput::attention},
      {"attn_v", LayerInput::attention},      {"attn_output", LayerInput::attended},
      {"ffn_gate", LayerInput::feed_forward}, {"ffn_up", LayerInput::feed_forward},
      {"ffn_down", LayerInput::hidden},
  };
  std::vector<Entry> entries;
  for (size_t i = 0; i < layers_.size(); ++i)
    for (const auto& [part, input] : kMatrices)
      entries.push_back(
          {"blk." + std::to_string(i) + "." + part + ".weight", &layers_[i][size_t(input)]});
  return entries;
}

}  // namespace pyllamacpp
