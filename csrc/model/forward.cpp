#include "model/forward.h"

#include "base/error.h"

namespace pyllamacpp {

void forward(const Model& model, Stream& stream, KvCache& cache, const BatchView& batch,
             float* logits, Cancelled cancelled, void* context) {
  stream.begin(batch);
  stream.embed(model.embedding());
  for (int32_t i = 0; i < model.config().n_layers; ++i) {
    if (cancelled(context)) fail(ErrorKind::cancelled, "the evaluation was cancelled");
    const LayerWeights& layer = model.layers()[size_t(i)];
    stream.project_qkv(layer, cache.layer(i));
    stream.attend(cache.layer(i));
    stream.project_attended(layer);
    stream.feed_forward(layer);
  }
  stream.head(model.output_norm(), model.output(), logits);
  stream.submit();
}

}  // namespace pyllamacpp
