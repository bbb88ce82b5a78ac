// How large the inputs of each matrix are: what quantizing calls the importance of its columns.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/model.h"

namespace pyllamacpp {

class InputSquares final : public InputObserver {
 public:
  // Sums over all rows that were evaluated, those of a cancelled evaluation included.
  struct Sum {
    std::vector<double> squares;  // per column
    int64_t n_rows = 0;
  };
  struct Entry {
    std::string matrix;  // its name in the file
    const Sum* sum;
  };

  explicit InputSquares(const Model& model);

  void see(const LayerWeights& layer, LayerInput input, const float* rows, int64_t n_rows,
           int64_t n) override;
  // Every matrix of every layer; those with the same input share a sum.
  std::vector<Entry> entries() const;

 private:
  const Model& model_;
  std::vector<std::array<Sum, 4>> layers_;  // by LayerInput
};

}  // namespace pyllamacpp
