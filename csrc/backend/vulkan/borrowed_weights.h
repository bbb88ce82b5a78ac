// Weights that another backend holds, for one product at a time: packed from where they were loaded
// from and copied in pieces, one while the device multiplies with the one before.
#pragma once

#include <cstdint>

#include "backend/vulkan/ops.h"
#include "base/thread_pool.h"

namespace pyllamacpp::vk {

class BorrowedWeights {
 public:
  // Bytes on the device, known without one; as much of the room for uploads is used.
  static uint64_t bytes(const StreamShape& shape);

  // `place`: where its part of the encoder's room for uploads begins.
  BorrowedWeights(Device& device, const StreamShape& shape, uint64_t place);

  uint64_t upload_bytes() const { return 2 * piece_bytes_; }

  // The values of a vector on the device, until the next is asked for.
  Slice vector(Encoder& encoder, const WeightSource& source);
  // As Ops::matmul. What was recorded before is submitted with the first piece.
  void matmul(Ops& ops, const WeightSource& source, const Rows& x, const Rows& y, uint32_t n_cols,
              bool accumulate);

 private:
  uint64_t place_, piece_bytes_;
  Memory pieces_[2], vector_;
  int turn_ = 0;
  ThreadPool pool_;
};

}  // namespace pyllamacpp::vk
