#include "model/forward.h"

#include "base/error.h"

namespace pyllamacpp {

namespace {

void cross(Stream& from, Stream& to, const BatchView& batch, int64_t dim,
           std::vector<float>& rows) {
  rows.resize(batch.tokens.size() * size_t(dim));
  from.read_rows(rows.data());
  to.begin(batch);
  to.write_rows(rows.data());
}

}  // namespace

void forward(const Model& model, Steps& steps, KvCache& cache, const BatchView& batch,
             Result result, float* results, Cancelled cancelled, void* context) {
  const int32_t n_layers = model.config().n_layers;
  Stream* stream = steps.streams[0];
  stream->begin(batch);
  stream->embed(model.embedding());
  const auto step = [&](int32_t i) {
    Stream* next = steps.streams[size_t(i)];
    if (next != stream) cross(*stream, *next, batch, model.config().dim, steps.rows);
    stream = next;
  };
  for (int32_t i = 0; i < n_layers; ++i) {
    if (cancelled(context)) fail(ErrorKind::cancelled, "the evaluation was cancelled");
    const LayerWeights& layer = model.layers()[size_t(i)];
    step(2 * i);
    stream->project_qkv(layer, cache.layer(i));
    stream->attend(cache.layer(i));
    stream->project_attended(layer);
    step(2 * i + 1);
    stream->feed_forward(layer);
  }
  step(2 * n_layers);
  if (result == Result::hidden)
    stream->hidden(model.output_norm(), results);
  else
    stream->head(model.output_norm(), model.output(), results);
  stream->submit();
}

}  // namespace pyllamacpp
