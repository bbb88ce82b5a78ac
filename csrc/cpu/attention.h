// Attention of a few queries that share one KV head, with the softmax taken online.
//
// The reduction, for every tile: a page's scores are chains of head_dim fused multiply-adds; within
// a segment of kSegmentTokens keys the pages update (maximum, sum, output) in ascending order; the
// segments, each begun afresh, are merged in ascending order. So segments could be computed by
// different threads and still give the same bits.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

inline constexpr int kKeyVectors = kPageTokens / W;

// What a segment, or all merged so far, knows of one query.
struct SoftmaxState {
  alignas(64) float out[kMaxHeadDim];  // sum of exp(score - top) * value
  F total;                             // lanes of the sum of exp(score - top)
  float top;
};

// scores[q][key] = dot(query q, key) of one page.
template <int NQ>
static inline void page_scores(const float* const* q, const half_t* k, int head_dim,
                               F (*scores)[kKeyVectors]) {
  F acc[NQ][kKeyVectors];
  for (int i = 0; i < NQ; ++i)
    for (int v = 0; v < kKeyVectors; ++v) acc[i][v] = splat(0);
  for (int d = 0; d < head_dim; ++d, k += kPageTokens) {
    F keys[kKeyVectors];
    for (int v = 0; v < kKeyVectors; ++v) keys[v] = load_half(k + v * W);
    for (int i = 0; i < NQ; ++i) {
      const F x = splat(q[i][d]);
      for (int v = 0; v < kKeyVectors; ++v) acc[i][v] = fma(x, keys[v], acc[i][v]);
    }
  }
  for (int i = 0; i < NQ; ++i)
    for (int v = 0; v < kKeyVectors; ++v) scores[i][v] = acc[i][v];
}

// state[i].out = state[i].out * decay[i] + sum over keys of p[i][key] * value[key].
template <int NQ>
static inline void page_values(SoftmaxState* state, const float* decay,
                               const float (*p)[kPageTokens], const half_t* values, int n_keys,
                               int head_dim) {
  constexpr int V = kValueVectors;
  int d = 0;
  for (; d + V * W <= head_dim; d += V * W) {
    F acc[NQ][V];
    for (int i = 0; i < NQ; ++i)
      for (int v = 0; v < V; ++v) acc[i][v] = mul(load(state[i].out + d + v * W), splat(decay[i]));
    for (int key = 0; key < n_keys; ++key) {
      F value[V];
      for (int v = 0; v < V; ++v)
        value[v] = load_half(values + int64_t(key) * head_dim + d + v * W);
      for (int i = 0; i < NQ; ++i) {
        const F weight = splat(p[i][key]);
        for (int v = 0; v < V; ++v) acc[i][v] = fma(weight, value[v], acc[i][v]);
      }
    }
    for (int i = 0; i < NQ; ++i)
      for (int v = 0; v < V; ++v) store(state[i].out + d + v * W, acc[i][v]);
  }
  for (; d < head_dim; d += W) {
    const int part = head_dim - d < W ? head_dim - d : W;
    for (int i = 0; i < NQ; ++i) {
      F acc = mul(load_n(state[i].out + d, part), splat(decay[i]));
      for (int key = 0; key < n_keys; ++key)
        acc = fma(splat(p[i][key]), load_half_n(values + int64_t(key) * head_dim + d, part), acc);
      store_n(state[i].out + d, acc, part);
    }
  }
}

static inline void reset(SoftmaxState& s, int head_dim) {
  for (int d = 0; d < head_dim; ++d) s.out[d] = 0;
  s.total = splat(0);
  s.top = -INFINITY;
}

// exp(a - b) where a may be minus infinity.
static inline float decay_of(float a, float b) {
  float lanes[W];
  store(lanes, exp(splat(a - b)));
  return lanes[0];
}

static inline void merge(SoftmaxState& all, const SoftmaxState& segment, int head_dim) {
  const float top = all.top > segment.top ? all.top : segment.top;
  const float a = decay_of(all.top, top), b = decay_of(segment.top, top);
  for (int d = 0; d < head_dim; d += W) {
    const int part = head_dim - d < W ? head_dim - d : W;
    const F kept = mul(load_n(all.out + d, part), splat(a));
    store_n(all.out + d, fma(load_n(segment.out + d, part), splat(b), kept), part);
  }
  all.total = fma(segment.total, splat(b), mul(all.total, splat(a)));
  all.top = top;
}

template <int NQ>
static void attend_tile(const AttentionArgs& a, int first) {
  const float* const* q = a.q + first;
  const int32_t* n_keys = a.n_keys + first;
  int most = 0;
  for (int i = 0; i < NQ; ++i) most = n_keys[i] > most ? n_keys[i] : most;
  SoftmaxState all[NQ], segment[NQ];
  alignas(64) float p[NQ][kPageTokens];

  for (int begin = 0; begin < most; begin += kSegmentTokens) {
    SoftmaxState* state = begin == 0 ? all : segment;
    for (int i = 0; i < NQ; ++i) reset(state[i], a.head_dim);
    const int end = most - begin < kSegmentTokens ? most : begin + kSegmentTokens;
    for (int key = begin; key < end; key += kPageTokens) {
      const int64_t page = a.pages[key / kPageTokens] * a.page_stride;
      F scores[NQ][kKeyVectors];
      page_scores<NQ>(q, a.k + page, a.head_dim, scores);
      float decay[NQ];
      int used = 0;  // keys of this page that any query sees
      for (int i = 0; i < NQ; ++i) {
        const int seen = n_keys[i] - key;
        if (seen <= 0) {  // p = 0 and decay 1 leave the state as it is
          for (int v = 0; v < kKeyVectors; ++v) store(p[i] + v * W, splat(0));
          decay[i] = 1;
          continue;
        }
        const int n = seen < kPageTokens ? seen : kPageTokens;
        used = n > used ? n : used;
        if (n < kPageTokens) {
          float masked[kPageTokens];
          for (int v = 0; v < kKeyVectors; ++v) store(masked + v * W, scores[i][v]);
          for (int t = n; t < kPageTokens; ++t) masked[t] = -INFINITY;
          for (int v = 0; v < kKeyVectors; ++v) scores[i][v] = load(masked + v * W);
        }
        F peak = scores[i][0];
        for (int v = 1; v < kKeyVectors; ++v) peak = max(peak, scores[i][v]);
        const float page_top = largest(peak);
        const float top = page_top > state[i].top ? page_top : state[i].top;
        decay[i] = top > state[i].top ? decay_of(state[i].top, top) : 1;
        F total = mul(state[i].total, splat(decay[i]));
        for (int v = 0; v < kKeyVectors; ++v) {
          const F weight = exp(sub(scores[i][v], splat(top)));
          store(p[i] + v * W, weight);
          total = add(total, weight);
        }
        state[i].total = total;
        state[i].top = top;
      }
      // Two halves, so that the accumulators stay in registers.
      constexpr int kHalf = NQ > 4 ? 4 : NQ;
      page_values<kHalf>(state, decay, p, a.v + page, used, a.head_dim);
      if constexpr (NQ > kHalf)
        page_values<NQ - kHalf>(state + kHalf, decay + kHalf, p + kHalf, a.v + page, used,
                                a.head_dim);
    }
    if (begin > 0)
      for (int i = 0; i < NQ; ++i)
        if (n_keys[i] > begin) merge(all[i], segment[i], a.head_dim);
  }
  for (int i = 0; i < NQ; ++i) {
    const F scale = splat(1.0f / sum(all[i].total));
    float* out = a.out[first + i];
    for (int d = 0; d < a.head_dim; d += W) {
      const int part = a.head_dim - d < W ? a.head_dim - d : W;
      store_n(out + d, mul(load_n(all[i].out + d, part), scale), part);
    }
  }
}

template <int NQ = kQueryTile>
static void attend_rest(const AttentionArgs& a, int first) {
  if (a.n_queries - first >= NQ)
    attend_tile<NQ>(a, first);
  else if constexpr (NQ > 1)
    attend_rest<NQ - 1>(a, first);
}

static void attention(const AttentionArgs& a) {
  for (int first = 0; first < a.n_queries; first += kQueryTile) attend_rest(a, first);
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
