// Attention of a few queries that share one KV head, with the softmax taken online.
//
// The reduction, for every tile: a page's scores are chains of head_dim fused multiply-adds; within
// a segment of kSegmentTokens keys the pages update (maximum, sum, output) in ascending order; the
// segments, each begun afresh, are merged in ascending order. So segments could be computed by
// different threads and still give the same bits.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// What a segment, or all merged so far, knows of one query.
struct SoftmaxState {
  alignas(64) float out[kMaxHeadDim];  // sum of exp(score - top) * value
  F total;                             // lanes of the sum of exp(score - top)
  float top;
};

// state[i].out = state[i].out * decay[i] + sum over keys of p[i][key] * value[key], for the keys
// [begin, end) of a page.
template <class V, int NQ>
static void page_values(SoftmaxState* state, const float* decay, const float (*p)[kPageTokens],
                        const uint8_t* page, int begin, int end, int head_dim) {
  constexpr int N = kValueVectors;
  int d = 0;
  for (; d + N * W <= head_dim; d += N * W) {
    F acc[NQ][N];
    for (int i = 0; i < NQ; ++i)
      for (int v = 0; v < N; ++v) acc[i][v] = mul(load(state[i].out + d + v * W), splat(decay[i]));
    for (int key = begin; key < end; ++key) {
      const uint8_t* row = V::row(page, key, head_dim);
      F value[N];
      for (int v = 0; v < N; ++v) value[v] = V::value(row, d + v * W);
      for (int i = 0; i < NQ; ++i) {
        const F weight = splat(p[i][key]);
        for (int v = 0; v < N; ++v) acc[i][v] = fma(weight, value[v], acc[i][v]);
      }
    }
    for (int i = 0; i < NQ; ++i)
      for (int v = 0; v < N; ++v) store(state[i].out + d + v * W, acc[i][v]);
  }
  for (; d < head_dim; d += W) {
    const int part = head_dim - d < W ? head_dim - d : W;
    for (int i = 0; i < NQ; ++i) {
      F acc = mul(load_n(state[i].out + d, part), splat(decay[i]));
      for (int key = begin; key < end; ++key)
        acc = fma(splat(p[i][key]), V::value_part(V::row(page, key, head_dim), d, part), acc);
      store_n(state[i].out + d, acc, part);
    }
  }
}

// Up to this many queries share the registers of page_values.
inline constexpr int kValueTile = kQueryTile < 4 ? kQueryTile : 4;

// A type's page readers by number of queries less one. Keys and values may differ in type, so
// attention calls them through pointers, once per page.
struct PageReaders {
  using ScoresOf = void (*)(const float* const*, const uint8_t*, int, Scores*);
  using ValuesOf = void (*)(SoftmaxState*, const float*, const float (*)[kPageTokens],
                            const uint8_t*, int, int, int);
  ScoresOf scores[kQueryTile];
  ValuesOf values[kValueTile];
};

template <class Kv, int NQ = 1>
static constexpr void fill_readers(PageReaders& r) {
  r.scores[NQ - 1] = Kv::template scores<NQ>;
  if constexpr (NQ <= kValueTile) r.values[NQ - 1] = page_values<Kv, NQ>;
  if constexpr (NQ < kQueryTile) fill_readers<Kv, NQ + 1>(r);
}

template <class Kv>
struct KvType {
  static constexpr PageReaders readers = [] {
    PageReaders r{};
    fill_readers<Kv>(r);
    return r;
  }();
  static constexpr KvKernels entry() {
    return {Kv::kType, Kv::kMultiple, Kv::page_bytes, Kv::store_key, Kv::store_value, &readers};
  }
};

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

// Sets scores outside [begin, end) to minus infinity.
static inline void mask(F* scores, int begin, int end) {
  float lanes[kPageTokens];
  for (int v = 0; v < kKeyVectors; ++v) store(lanes + v * W, scores[v]);
  for (int t = 0; t < begin; ++t) lanes[t] = -INFINITY;
  for (int t = end; t < kPageTokens; ++t) lanes[t] = -INFINITY;
  for (int v = 0; v < kKeyVectors; ++v) scores[v] = load(lanes + v * W);
}

// One step of the online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867): weights p of a
// page's keys [begin, end); returns by how much what was summed before shrinks.
static inline float take_page(SoftmaxState& state, F* scores, int begin, int end, float* p) {
  if (begin >= end) {  // p = 0 and no shrinking leave the state as it is
    for (int v = 0; v < kKeyVectors; ++v) store(p + v * W, splat(0));
    return 1;
  }
  if (begin > 0 || end < kPageTokens) mask(scores, begin, end);
  F peak = scores[0];
  for (int v = 1; v < kKeyVectors; ++v) peak = max(peak, scores[v]);
  const float page_top = largest(peak);
  const float top = page_top > state.top ? page_top : state.top;
  const float decay = top > state.top ? decay_of(state.top, top) : 1;
  state.total = mul(state.total, splat(decay));
  for (int v = 0; v < kKeyVectors; ++v) {
    const F weight = exp(sub(scores[v], splat(top)));
    store(p + v * W, weight);
    state.total = add(state.total, weight);
  }
  state.top = top;
  return decay;
}

static inline int clamp_to_page(int key) {
  return key < 0 ? 0 : key > kPageTokens ? kPageTokens : key;
}

// Asks for a page of keys or values: the next may lie anywhere.
static inline void ask_page(const KvKernels& type, const uint8_t* page, int32_t head_dim) {
  const int64_t n = int64_t(type.page_bytes(head_dim));
  for (int64_t i = 0; i < n; i += 64) prefetch(page + i);
}

template <int NQ>
static void attend_tile(const AttentionArgs& a, int first) {
  const PageReaders& keys = *static_cast<const PageReaders*>(a.k_type->readers);
  const PageReaders& values = *static_cast<const PageReaders*>(a.v_type->readers);
  const int32_t* first_key = a.first_key + first;
  const int32_t* n_keys = a.n_keys + first;
  int least = first_key[0], most = n_keys[0];
  for (int i = 1; i < NQ; ++i) {
    least = first_key[i] < least ? first_key[i] : least;
    most = n_keys[i] > most ? n_keys[i] : most;
  }
  const bool is_only = a.n_queries <= kQueryTile;  // else pages are in cache from the tile before
  SoftmaxState all[NQ], segment[NQ];
  for (int i = 0; i < NQ; ++i) reset(all[i], a.head_dim);
  alignas(64) float p[NQ][kPageTokens];

  for (int start = least - least % kSegmentTokens; start < most; start += kSegmentTokens) {
    for (int i = 0; i < NQ; ++i) reset(segment[i], a.head_dim);
    const int stop = most - start < kSegmentTokens ? most : start + kSegmentTokens;
    const int from = start < least ? least - least % kPageTokens : start;
    for (int key = from; key < stop; key += kPageTokens) {
      const int64_t page = a.pages[key / kPageTokens];
      const bool asks = is_only && key + kPageTokens < most;
      const int64_t next = asks ? a.pages[key / kPageTokens + 1] : 0;
      if (asks) ask_page(*a.k_type, a.k + next * a.k_stride, a.head_dim);
      Scores scores[NQ];
      keys.scores[NQ - 1](a.q + first, a.k + page * a.k_stride, a.head_dim, scores);
      if (asks) ask_page(*a.v_type, a.v + next * a.v_stride, a.head_dim);
      float decay[NQ];
      int begin = kPageTokens, end = 0;  // keys of this page that any query sees
      for (int i = 0; i < NQ; ++i) {
        const int b = clamp_to_page(first_key[i] - key), e = clamp_to_page(n_keys[i] - key);
        decay[i] = take_page(segment[i], scores[i], b, e, p[i]);
        if (b < e) {
          begin = b < begin ? b : begin;
          end = e > end ? e : end;
        }
      }
      for (int i = 0; i < NQ; i += kValueTile) {
        const int n = NQ - i < kValueTile ? NQ - i : kValueTile;
        values.values[n - 1](segment + i, decay + i, p + i, a.v + page * a.v_stride, begin, end,
                             a.head_dim);
      }
    }
    for (int i = 0; i < NQ; ++i)
      if (segment[i].top > -INFINITY) merge(all[i], segment[i], a.head_dim);
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
