#include "backend/vulkan/borrowed_weights.h"

#include <algorithm>

#include "base/error.h"
#include "quant/dequantize.h"

namespace pyllamacpp::vk {

namespace {

// Enough that a piece's rows keep a device busy and that waiting for it is nothing beside packing.
constexpr uint64_t kPieceBytes = uint64_t{16} << 20;

int64_t longest_row(const StreamShape& s) {
  return std::max({s.dim, s.n_ff, int64_t(s.attention.n_heads) * s.attention.head_dim});
}

// A panel of any type fits.
uint64_t most_piece_bytes(const StreamShape& s) {
  return std::max(kPieceBytes, aligned(panel_bytes(*find_layout(DType::f32), longest_row(s))));
}

uint64_t vector_bytes(const StreamShape& s) { return aligned(uint64_t(s.dim) * sizeof(float)); }

}  // namespace

uint64_t BorrowedWeights::bytes(const StreamShape& shape) {
  return 2 * most_piece_bytes(shape) + vector_bytes(shape);
}

BorrowedWeights::BorrowedWeights(Device& device, const StreamShape& shape, uint64_t place)
    : place_(place),
      // Both are in one allocation of uploads, beside what else is uploaded.
      piece_bytes_(std::min(
          {most_piece_bytes(shape), device.max_slice(), device.max_allocation() / 1024 * 256})),
      vector_(device, vector_bytes(shape), Memory::Kind::device, "weights of CPU layers"),
      pool_(shape.n_threads_batch) {
  for (Memory& piece : pieces_)
    piece = Memory(device, piece_bytes_, Memory::Kind::device, "weights of CPU layers");
}

Slice BorrowedWeights::vector(Encoder& encoder, const WeightSource& source) {
  encoder.finish();  // frees the room for uploads
  const Slice slice = vector_.slice(0, uint64_t(source.cols) * sizeof(float));
  dequantize(source.type, source.data.data(), static_cast<float*>(encoder.upload(slice)),
             source.cols);
  return slice;
}

void BorrowedWeights::matmul(Ops& ops, const WeightSource& source, const Rows& x, const Rows& y,
                             uint32_t n_cols, bool accumulate) {
  const WeightLayout* layout = find_layout(source.type);
  if (!layout)
    fail(ErrorKind::unsupported, "no GPU shaders for weights of type ", traits(source.type).name);
  const uint64_t panel = panel_bytes(*layout, source.cols);
  const int64_t most = int64_t(piece_bytes_ / panel) * kPanelRows;
  if (most == 0)
    fail(ErrorKind::unsupported, "the GPU binds ", piece_bytes_,
         " bytes at a time, less than 32 rows of ", source.cols, " weights");
  for (int64_t row = 0; row < source.rows; row += most) {
    const int64_t n = std::min(most, source.rows - row);
    const int64_t n_panels = (n + kPanelRows - 1) / kPanelRows;
    const Slice piece = pieces_[turn_].slice(0, uint64_t(n_panels) * panel);
    // A piece is one submission: what this place held is no longer read.
    void* out = ops.encoder.upload_from(place_ + uint64_t(turn_) * piece_bytes_, piece);
    pack_panels(pool_, *layout, source, row, n_panels, static_cast<std::byte*>(out));
    ops.matmul({layout, source.rows, source.cols, {{piece, row, n}}}, x, y, n_cols, accumulate);
    ops.encoder.submit();
    turn_ = 1 - turn_;
  }
}

}  // namespace pyllamacpp::vk
