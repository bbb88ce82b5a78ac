"""The files beside a vocabulary: which tokens are special, and how a conversation is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyllamacpp.errors import FormatError
from pyllamacpp_convert.vocab.json_file import is_id, parse_object, read_bytes
from pyllamacpp_convert.vocab.model import AddedToken, Vocab

_ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}

# Tokens that end a turn: every reader of GGUF files stops at these, stated or not.
_END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|end_of_turn|>", "<end_of_turn>", "<EOT>")
_OTHER_ENDS = ("</s>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>")


class Companions:
    """The JSON files and templates in some folders; of each file the first one found counts.

    used: those that were found. Methods raise FileError and FormatError.
    """

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        self.used: list[Path] = []

    def find(self, name: str) -> Path | None:
        """Where a file is."""
        path = next((path for f in self._folders if (path := f / name).is_file()), None)
        if path is not None and path not in self.used:
            self.used.append(path)
        return path

    def json(self, name: str) -> dict[str, Any]:
        """A file's object, empty if there is none."""
        path = self.find(name)
        return {} if path is None else parse_object(path, read_bytes(path))

    def text(self, name: str) -> str | None:
        """A file's text."""
        path = self.find(name)
        if path is None:
            return None
        try:
            return read_bytes(path).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{path} is not UTF-8 text") from error


def apply_companions(vocab: Vocab, companions: Companions) -> None:
    """Adds to a vocabulary what the files beside it say.

    Raises FileError and FormatError.
    """
    config = companions.json("tokenizer_config.json")
    special_map = companions.json("special_tokens_map.json")
    vocab.add(_added_tokens(vocab, companions, config, special_map))
    _special_ids(vocab, companions, [config, special_map])
    for name, key in (("add_bos", "add_bos_token"), ("add_eos", "add_eos_token")):
        if isinstance(config.get(key), bool):
            setattr(vocab, name, config[key])
    if vocab.model == "llama" and isinstance(config.get("add_prefix_space"), bool):
        vocab.add_space_prefix = config["add_prefix_space"]
    vocab.chat_templates = _chat_templates(companions, config)


def _content(value: object) -> str | None:
    """A token as these files name it: a string, or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _added_tokens(
    vocab: Vocab, companions: Companions, config: dict[str, Any], special_map: dict[str, Any]
) -> dict[int, AddedToken]:
    special: set[str | None] = set()
    for table in (config, special_map):
        special.update(_content(table.get(f"{role}_token")) for role in _ROLES.values())
        more = table.get("additional_special_tokens")
        special.update(_content(one) for one in (more if isinstance(more, list) else []))
    added: dict[int, AddedToken] = {}
    path = companions.find("added_tokens.json")
    for text, i in companions.json("added_tokens.json").items():
        if not is_id(i):
            raise FormatError(f"{path}: the token {text!r:.80} has the id {i!r:.40}")
        # This file alone does not say which are special: what tokenizer.json said of one stands.
        if text in special or i >= len(vocab.tokens) or vocab.tokens[i] != text:
            added[i] = AddedToken(text, text in special)
    decoder = config.get("added_tokens_decoder")
    path = companions.find("tokenizer_config.json")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        content = _content(entry)
        if not key.isascii() or not key.isdigit() or len(key) > 9 or content is None:
            raise FormatError(f"{path}: the added token {key:.20}: {entry!r:.80} has no id or text")
        marked = isinstance(entry, dict) and bool(entry.get("special"))
        added[int(key)] = AddedToken(content, marked or content in special)
    return added


def _special_ids(vocab: Vocab, companions: Companions, named: list[dict[str, Any]]) -> None:
    generation = companions.json("generation_config.json")
    numbered = [generation, companions.json("config.json")]
    n = len(vocab.tokens)
    for name, role in _ROLES.items():
        texts = (_content(table.get(f"{role}_token")) for table in named)
        if text := next(filter(None, texts), None):
            if (found := vocab.find(text)) is not None:
                setattr(vocab, name, found)
                continue
            vocab.notes.append(f"the {role} token {text!r:.80} is not in the vocabulary")
        # Early conversions of LLaMA state wrong ids, so these count last.
        ids = [_ids(table.get(f"{role}_token_id"), n) for table in numbered]
        if getattr(vocab, name) is None and (first := next(filter(None, ids), None)):
            setattr(vocab, name, first[0])
    if vocab.eos is None and {*vocab.tokens}.isdisjoint((*_END_OF_TURN, *_OTHER_ENDS)):
        vocab.notes.append("no file says which token ends a text: generation may not end by itself")
    ends = next(filter(None, (_ids(t.get("eos_token_id"), n) for t in numbered)), [])
    others = [i for i in ends if i != vocab.eos]
    turns = [i for i in others if vocab.tokens[i] in _END_OF_TURN]
    unknown = [i for i in others if vocab.tokens[i] not in (*_END_OF_TURN, *_OTHER_ENDS)]
    vocab.eot = next(iter([*turns, *unknown]), vocab.eot)
    if vocab.eot == vocab.eos:
        vocab.eot = None
    for i in unknown:
        if i != vocab.eot:
            vocab.notes.append(
                f"generation_config.json ends texts at {vocab.tokens[i]!r:.80} too, for which a "
                "GGUF file has no place"
            )


def _ids(value: object, n: int) -> list[int]:
    """One id or a list of them: those that are tokens."""
    values = value if isinstance(value, list) else [value]
    return [i for i in values if type(i) is int and 0 <= i < n]


def _chat_templates(companions: Companions, config: dict[str, Any]) -> dict[str, str]:
    listed = config.get("chat_template")
    if listed is None:
        listed = companions.json("chat_template.json").get("chat_template")
    templates: dict[str, str] = {}
    if isinstance(listed, str):
        templates["default"] = listed
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict):
            continue
        name, template = entry.get("name"), entry.get("template")
        if isinstance(name, str) and isinstance(template, str):
            templates[name] = template
    if (text := companions.text("chat_template.jinja")) is not None:
        templates["default"] = text
    return templates
