#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <chrono>
#include <memory>
#include <vector>

#include "base/error.h"
#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

PyContext::PyContext(std::shared_ptr<const Model> model, const ContextParams& params)
    : context(std::move(model), params) {
  using Clock = std::chrono::steady_clock;
  // Asking Python costs the GIL: often enough for a person, seldom enough to cost nothing.
  context.set_poll([last = Clock::now()]() mutable {
    const auto now = Clock::now();
    if (now - last < std::chrono::milliseconds(20)) return false;
    last = now;
    const py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
  });
}

DType kv_type_named(const char* argument, const std::string& name) {
  const DTypeTraits* type = find_dtype(name);
  if (!type)
    fail(ErrorKind::invalid_argument, argument, " is '", name, "', which is no tensor type");
  return type->type;
}

namespace {

WantLogits want_named(const std::string& name) {
  if (name == "none") return WantLogits::none;
  if (name == "last") return WantLogits::last;
  if (name == "all") return WantLogits::all;
  fail(ErrorKind::invalid_argument, "logits is '", name, "', expected 'none', 'last' or 'all'");
}

using Pieces = std::vector<std::tuple<int32_t, std::vector<int32_t>, std::string>>;

// They refer to the tokens in `pieces`.
std::vector<BatchPiece> batch_of(const Pieces& pieces) {
  std::vector<BatchPiece> batch;
  for (const auto& [sequence, tokens, logits] : pieces)
    batch.push_back({sequence, tokens, want_named(logits)});
  return batch;
}

void decode(PyContext& self, const Pieces& pieces) {
  const std::vector<BatchPiece> batch = batch_of(pieces);
  self.exclusive([&] { self.context.decode(batch); });
}

// An array [n][width] that owns `rows`.
py::array_t<float> array_of(std::unique_ptr<std::vector<float>> rows, py::ssize_t width) {
  const py::ssize_t n_rows = py::ssize_t(rows->size()) / width;
  const float* data = rows->data();
  const py::capsule owner(rows.get(), [](void* p) { delete static_cast<std::vector<float>*>(p); });
  rows.release();
  return py::array_t<float>({n_rows, width}, data, owner);
}

py::array_t<float> embed(PyContext& self, const Pieces& pieces) {
  const std::vector<BatchPiece> batch = batch_of(pieces);
  auto copy = std::make_unique<std::vector<float>>(self.exclusive([&] {
    const std::span<const float> rows = self.context.embed(batch);
    return std::vector<float>(rows.begin(), rows.end());
  }));
  return array_of(std::move(copy), self.context.model().config().dim);
}

py::array_t<float> logits(PyContext& self) {
  // Copied under the lock, as another thread may decode.
  auto copy = std::make_unique<std::vector<float>>(self.exclusive([&] {
    const Context& c = self.context;
    std::vector<float> rows;
    rows.reserve(size_t(c.n_outputs()) * size_t(c.model().config().n_vocab));
    for (int32_t i = 0; i < c.n_outputs(); ++i) {
      const std::span<const float> row = c.logits(i);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    return rows;
  }));
  return array_of(std::move(copy), self.context.model().config().n_vocab);
}

py::dict input_squares(PyContext& self) {
  struct Copy {
    std::string matrix;
    InputSquares::Sum sum;
  };
  const std::vector<Copy> copies = self.exclusive([&] {
    const InputSquares* squares = self.context.input_squares();
    if (!squares) fail(ErrorKind::invalid_argument, "this context was made without measure_inputs");
    std::vector<Copy> all;
    for (const InputSquares::Entry& e : squares->entries()) all.push_back({e.matrix, *e.sum});
    return all;
  });
  py::dict dict;
  for (const Copy& c : copies)
    dict[py::str(c.matrix)] = py::make_tuple(
        py::array_t<double>(py::ssize_t(c.sum.squares.size()), c.sum.squares.data()), c.sum.n_rows);
  return dict;
}

using PyAdapters = std::vector<std::pair<std::shared_ptr<Adapter>, float>>;

std::vector<AdapterUse> uses_of(const PyAdapters& adapters) {
  std::vector<AdapterUse> uses;
  for (const auto& [adapter, scale] : adapters) {
    if (!adapter) fail(ErrorKind::invalid_argument, "an adapter is None");
    if (scale != 0) uses.push_back({adapter, scale});
  }
  return uses;
}

py::bytes save_page(PyContext& self, int32_t sequence, int32_t index, int32_t length) {
  const std::string bytes = self.exclusive([&] {
    std::string page(self.context.page_bytes(), '\0');
    self.context.save_page(sequence, index, length, reinterpret_cast<std::byte*>(page.data()));
    return page;
  });
  return py::bytes(bytes);
}

void load(PyContext& self, int32_t sequence, const std::vector<int32_t>& tokens,
          const py::buffer& pages) {
  const py::buffer_info info = pages.request();
  if (info.ndim != 1 || info.itemsize != 1 || info.strides[0] != 1)
    fail(ErrorKind::invalid_argument, "pages must be contiguous bytes");
  const std::span bytes(static_cast<const std::byte*>(info.ptr), size_t(info.size));
  self.exclusive([&] { self.context.load(sequence, tokens, bytes); });
}

}  // namespace

void register_context(py::module_& m) {
  py::class_<PyContext, std::shared_ptr<PyContext>>(m, "Context", "A model with a KV cache.")
      .def(py::init([](std::shared_ptr<Model> model, int32_t n_ctx, int32_t n_batch,
                       int32_t n_threads, int32_t n_threads_batch, int32_t max_sequences,
                       const std::string& type_k, const std::string& type_v, bool measure_inputs,
                       int32_t n_parallel, const RopeOverrides& rope, int32_t stream_rows) {
             return std::make_shared<PyContext>(
                 std::move(model),
                 ContextParams{n_ctx, n_batch, n_threads, n_threads_batch, max_sequences,
                               kv_type_named("type_k", type_k), kv_type_named("type_v", type_v),
                               measure_inputs, n_parallel, rope, stream_rows});
           }),
           py::arg("model"), py::kw_only(), py::arg("n_ctx") = 0, py::arg("n_batch") = 512,
           py::arg("n_threads") = 0, py::arg("n_threads_batch") = 0, py::arg("max_sequences") = 1,
           py::arg("type_k") = "f16", py::arg("type_v") = "f16", py::arg("measure_inputs") = false,
           py::arg("n_parallel") = 0, py::arg("rope") = RopeOverrides(), py::arg("stream_rows") = 0)
      .def_property_readonly("max_sequences",
                             [](PyContext& c) { return c.context.params().max_sequences; })
      .def_property_readonly(
          "page_tokens", [](PyContext& c) { return c.context.model().backend(0).kv_page_tokens(); },
          "Tokens of a page of the KV cache.")
      .def_property_readonly(
          "n_free_pages",
          [](PyContext& c) { return c.exclusive([&] { return c.context.n_free_pages(); }); },
          "Pages of the KV cache that no sequence holds.")
      .def(
          "pages_to_append",
          [](PyContext& c, int32_t sequence, int32_t n) {
            return c.exclusive([&] { return c.context.pages_to_append(sequence, n); });
          },
          py::arg("sequence"), py::arg("n"), "Free pages that n more tokens take.")
      .def(
          "best_match",
          [](PyContext& c, const std::vector<int32_t>& tokens, const PyAdapters& adapters) {
            const std::vector<AdapterUse> uses = uses_of(adapters);
            const Context::Match found =
                c.exclusive([&] { return c.context.best_match(tokens, uses); });
            return std::pair(found.sequence, found.length);
          },
          py::arg("tokens"), py::arg("adapters") = PyAdapters{},
          "(sequence, n): the sequence that begins with the most of `tokens`, and how many, of "
          "those that use these adapters.")
      .def(
          "set_adapters",
          [](PyContext& c, int32_t sequence, const PyAdapters& adapters) {
            std::vector<AdapterUse> uses = uses_of(adapters);
            c.exclusive([&] { c.context.set_adapters(sequence, std::move(uses)); });
          },
          py::arg("sequence"), py::arg("adapters"),
          "The (adapter, scale) pairs that the sequence is evaluated with from now on. A change "
          "forgets all of its tokens; the same pairs again change nothing.")
      .def(
          "n_adapters",
          [](PyContext& c, int32_t sequence) {
            return c.exclusive([&] { return c.context.adapters(sequence).size(); });
          },
          py::arg("sequence"), "How many adapters the sequence is evaluated with.")
      .def_property_readonly("n_ctx", [](PyContext& c) { return c.context.params().n_ctx; })
      .def_property_readonly(
          "stream_rows", [](PyContext& c) { return c.context.params().stream_rows; },
          "Batches of so many tokens or more stream the feed-forward weights of layers on the CPU "
          "through the GPU; 0: none does, be it for want of memory there.")
      .def_property_readonly("n_batch", [](PyContext& c) { return c.context.params().n_batch; })
      .def_property_readonly("n_threads", [](PyContext& c) { return c.context.params().n_threads; })
      .def_property_readonly("n_threads_batch",
                             [](PyContext& c) { return c.context.params().n_threads_batch; })
      .def("decode", &decode, py::arg("pieces"),
           "Appends (sequence, tokens, 'none' | 'last' | 'all' logits) pieces: all or nothing.")
      .def("logits", &logits, "float32 [n_outputs, n_vocab] of the last decode.")
      .def("embed", &embed, py::arg("pieces"),
           "As decode, with hidden states in place of logits: float32 [n_wanted, n_embd], the "
           "residual after the last norm. logits() is empty then.")
      .def("input_squares", &input_squares,
           "With measure_inputs: per matrix the sum over all rows evaluated so far of the squares "
           "of its inputs, float64 [columns], and the number of rows.")
      .def(
          "length", [](PyContext& c, int32_t s) { return c.context.length(s); },
          py::arg("sequence"))
      .def(
          "tokens", [](PyContext& c, int32_t s) { return c.context.tokens(s); },
          py::arg("sequence"))
      .def(
          "trim",
          [](PyContext& c, int32_t sequence, int32_t length) {
            c.exclusive([&] { c.context.trim(sequence, length); });
          },
          py::arg("sequence"), py::arg("length"))
      .def(
          "fork",
          [](PyContext& c, int32_t from, int32_t to) {
            c.exclusive([&] { c.context.fork(from, to); });
          },
          py::arg("from_"), py::arg("to"))
      .def_property_readonly(
          "kv_layout", [](PyContext& c) { return c.context.kv_layout(); },
          "How keys and values lie in a page: contexts that agree in it can load each other's.")
      .def_property_readonly(
          "page_bytes", [](PyContext& c) { return c.context.page_bytes(); },
          "Bytes of save_page(). Raises UnsupportedError where layers run on a GPU.")
      .def("save_page", &save_page, py::arg("sequence"), py::arg("index"), py::arg("length"),
           "Keys and values of page `index` of the sequence's first `length` tokens.")
      .def("load", &load, py::arg("sequence"), py::arg("tokens"), py::arg("pages"),
           "Makes a sequence hold tokens whose pages save_page() gave, one after another.")
      .def(
          "cancel", [](PyContext& c) { c.context.cancel(); },
          "Stops the evaluation that runs, or else the next one. Any thread may call it.");
}

}  // namespace pyllamacpp
