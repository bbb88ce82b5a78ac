#include <pybind11/stl.h>

#include "bind/bindings.h"
#include "model/load_vocab.h"
#include "text/utf8.h"

namespace py = pybind11;

namespace pyllamacpp {

void register_tokenizer(py::module_& m) {
  using Id = std::optional<TokenId>;
  py::class_<Tokenizer>(m, "Tokenizer", "A tokenizer made of the vocabulary of a GGUF file.")
      .def(py::init([](std::string model, std::vector<std::string> tokens,
                       std::vector<float> scores, const std::vector<int32_t>& types,
                       std::vector<std::string> merges, std::string pre, Id bos, Id eos, Id unknown,
                       bool add_bos, bool add_space_prefix) {
             VocabData data;
             data.model = std::move(model);
             data.pre = std::move(pre);
             data.tokens = std::move(tokens);
             data.scores = std::move(scores);
             for (int32_t type : types) data.types.push_back(TokenType(type));
             data.merges = std::move(merges);
             data.bos = bos;
             data.eos = eos;
             data.unknown = unknown;
             data.add_bos = add_bos;
             data.add_space_prefix = add_space_prefix;
             return Tokenizer::make(std::move(data));
           }),
           py::kw_only(), py::arg("model"), py::arg("tokens"),
           py::arg("scores") = std::vector<float>{}, py::arg("types"),
           py::arg("merges") = std::vector<std::string>{}, py::arg("pre") = "",
           py::arg("bos") = py::none(), py::arg("eos") = py::none(),
           py::arg("unknown") = py::none(), py::arg("add_bos") = false,
           py::arg("add_space_prefix") = true)
      .def_static(
          "from_gguf", [](const std::string& path) { return load_tokenizer(GgufFile::open(path)); },
          py::arg("path"), py::call_guard<py::gil_scoped_release>())
      .def(
          "encode",
          [](const Tokenizer& t, const std::string& text, bool add_special, bool parse_special,
             const std::string& mark) {
            const py::gil_scoped_release release;
            return t.encode(text, add_special, parse_special, mark);
          },
          py::arg("text"), py::arg("add_special"), py::arg("parse_special"), py::arg("mark") = "")
      .def(
          "marked",
          [](const Tokenizer& t, const std::string& text, const std::string& mark) {
            return py::bytes(t.marked(text, mark));
          },
          py::arg("text"), py::arg("mark"))
      .def(
          "decode",
          [](const Tokenizer& t, const std::vector<TokenId>& ids, bool special) {
            return py::bytes(t.decode(ids, special));
          },
          py::arg("ids"), py::arg("special"))
      .def(
          "piece",
          [](const Tokenizer& t, TokenId id, bool special) {
            const std::string_view piece = t.piece(id, special);
            return py::bytes(piece.data(), piece.size());
          },
          py::arg("id"), py::arg("special"))
      .def("ends_generation", &Tokenizer::ends_generation, py::arg("id"))
      .def(
          "types",
          [](const Tokenizer& t, TokenId id) {
            t.piece(id, false);  // checks the id
            return int32_t(t.data().types[size_t(id)]);
          },
          py::arg("id"), "The token_type of the GGUF file.")
      .def_property_readonly("size", &Tokenizer::size)
      .def_property_readonly("model", [](const Tokenizer& t) { return t.data().model; })
      .def_property_readonly("pre", [](const Tokenizer& t) { return t.data().pre; })
      .def_property_readonly("bos", [](const Tokenizer& t) { return t.data().bos; })
      .def_property_readonly("eos", [](const Tokenizer& t) { return t.data().eos; })
      .def_property_readonly("eot", [](const Tokenizer& t) { return t.data().eot; })
      .def_property_readonly("unknown", [](const Tokenizer& t) { return t.data().unknown; })
      .def_property_readonly("padding", [](const Tokenizer& t) { return t.data().padding; })
      .def_property_readonly("add_bos", [](const Tokenizer& t) { return t.data().add_bos; });

  py::class_<Utf8Stream>(m, "Utf8Stream",
                         "Bytes in, text out; a character cut in two waits for its rest.")
      .def(py::init<>())
      .def(
          "push", [](Utf8Stream& s, const std::string& data) { return to_str(s.push(data)); },
          py::arg("data"))
      .def("flush", [](Utf8Stream& s) { return to_str(s.flush()); });
}

}  // namespace pyllamacpp
