"""Makes golden.json: what a float32 run of the default model by other code says.

Made with Python 3.11, torch==2.13.0 (CPU), transformers==5.23.0, gguf==0.19.0, accelerate==1.15.0,
tokenizers==0.23.3, numpy==2.4.6; these are needed only to make the file anew, never to run tests:

    python tests/data/make_golden.py SmolLM2-135M-Instruct.Q4_1.gguf

The model is the GGUF itself, dequantized by transformers and run in float32. Its weights are
compared with the `gguf` package's bit by bit, its logits of the prompts with those of
../oracle/llama_numpy.py in float64; the script stops if either disagrees.

Perplexity follows llama.cpp's rule: the text is tokenized once, without a BOS for this model, and
cut into consecutive windows of 512 tokens (an incomplete last one is dropped). Each window is
evaluated alone; its positions 256..510 predict tokens 257..511.

transformers takes the vocabulary of a GGUF but not its pre-tokenizer, so the tokenizer is put
together here: SmolLM's is `Digits(individual) + ByteLevel`, as in the model's own tokenizer.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
import tokenizers
import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "oracle"))
from llama_numpy import LlamaNumpy  # noqa: E402

MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WINDOW = 512
FIRST_SCORED = WINDOW // 2
N_GREEDY = 32
TOP = 20
# Token ids whose logits are kept at the last position of each prompt, whatever their rank.
PROBES = [int(i) for i in np.linspace(0, 49151, 32)]
PROMPTS = {
    "capital": "The capital of France is",
    "story": "Once upon a time, in a small village by the sea, there lived an old fisherman who",
    "code": "def fibonacci(n):\n    if n < 2:\n        return",
}
CHAT = "Name the capital city of France."
# Tokenization alone: digits one by one, contractions, runs of white space, scripts, special tokens.
TEXTS = [
    "It's 1234567 o'clock,  isn't it?\n\n\tYes -- 3.14159!",
    "naïve café, Straße, Привет мир, 你好世界, こんにちは, 🦙🦙",
    "  leading and trailing spaces  ",
    "x = [i**2 for i in range(10)]\r\nprint(x)",
    "",
]


def make_tokenizer(reader: gguf.GGUFReader) -> tokenizers.Tokenizer:
    tokens: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    types: list[int] = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    bpe = tokenizers.models.BPE({t: i for i, t in enumerate(tokens)}, merges)
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    tokenizer.add_special_tokens(
        [t for t, kind in zip(tokens, types, strict=True) if kind == control]
    )
    return tokenizer


def check_weights(model: torch.nn.Module, reader: gguf.GGUFReader) -> None:
    """Every tensor of the file against what transformers made of it, bit for bit."""
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = model.state_dict()
    n_heads = {
        "attn_q": model.config.num_attention_heads,
        "attn_k": model.config.num_key_value_heads,
    }
    for tensor in reader.tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            if parts[2] in n_heads:  # neighbours (2i, 2i+1) lie at (i, i + d/2) in transformers
                heads = n_heads[parts[2]]
                pairs = expected.reshape(heads, -1, 2, expected.shape[-1])
                expected = pairs.swapaxes(1, 2).reshape(expected.shape)
            name = f"model.layers.{parts[1]}.{names[parts[2]]}.weight"
        else:
            name = {
                "token_embd": "model.embed_tokens.weight",
                "output_norm": "model.norm.weight",
            }[parts[0]]
        if not np.array_equal(state[name].numpy(), expected.reshape(state[name].shape)):
            raise SystemExit(f"{tensor.name}: transformers' {name} differs from the file")
    if not torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"]):
        raise SystemExit("the head is not tied to the embedding")
    expected_theta = float(reader.fields["llama.rope.freq_base"].contents())
    theta = model.config.rope_parameters["rope_theta"]
    if theta != expected_theta:
        raise SystemExit(f"rope theta is {theta}, the file says {expected_theta}")


def logits_of(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """(n_tokens, n_vocab) float32"""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


def nll_of_window(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """Negative log-likelihoods of tokens 257..511, in float64 from float32 logits."""
    logits = logits_of(model, ids)[FIRST_SCORED:-1].astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    targets = np.array(ids[FIRST_SCORED + 1 :])
    return log_sum - logits[np.arange(targets.size), targets]


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))


def prompt_record(
    model: torch.nn.Module, oracle: LlamaNumpy, text: str, ids: list[int], eos: int
) -> dict[str, Any]:
    logits = logits_of(model, ids)
    exact = oracle.forward(ids)
    worst = float(np.abs(logits - exact).max())
    if worst > 2e-3:
        raise SystemExit(f"{text!r}: transformers and numpy float64 differ by {worst}")
    last = logits[-1]
    top = [int(i) for i in np.argsort(-last, kind="stable")[:TOP]]

    continuation: list[int] = []
    gaps: list[float] = []
    seconds: list[int] = []
    while len(continuation) < N_GREEDY:
        step = logits_of(model, ids + continuation)[-1]
        second, best = (int(i) for i in np.argpartition(step, -2)[-2:])
        continuation.append(best)
        seconds.append(second)
        gaps.append(round(float(step[best] - step[second]), 4))
        if best == eos:
            break
    print(f"{text!r}: float64 differs by {worst:.2g}", file=sys.stderr)

    # What 8-bit activations do to these logits: the yardstick for an engine's tolerance.
    tokens = ids + continuation[:-1]
    moved = oracle.forward(tokens, activation_block=32) - oracle.forward(tokens)
    moved = moved[len(ids) - 1 :]  # (n_greedy, n_vocab)
    steps = np.arange(len(continuation))
    gaps_moved = moved[steps, continuation] - moved[steps, seconds]
    return {
        "text": text,
        "ids": ids,
        "greedy": continuation,
        "gaps": gaps,
        "top": [[i, round(float(last[i]), 4)] for i in top],
        "probes": [[i, round(float(last[i]), 4)] for i in PROBES],
        "argmax": [int(i) for i in logits.argmax(axis=-1)],
        "max_difference_to_float64": worst,
        "rms_of_logits": round(rms(last), 4),
        "int8_activations": {
            "rms_error_of_last_logits": round(rms(moved[0]), 5),
            "rms_error_of_gaps": round(rms(gaps_moved), 5),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make golden.json.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, default=HERE / "english.txt")
    parser.add_argument("--output", type=Path, default=HERE / "golden.json")
    args = parser.parse_args()

    sha256 = hashlib.sha256(args.model.read_bytes()).hexdigest()
    if sha256 != MODEL_SHA256:
        raise SystemExit(f"{args.model}: sha256 is {sha256}, not the default model's")
    reader = gguf.GGUFReader(str(args.model))
    tokenizer = make_tokenizer(reader)
    model = AutoModelForCausalLM.from_pretrained(
        args.model.parent, gguf_file=args.model.name, dtype=torch.float32
    ).eval()
    check_weights(model, reader)
    oracle = LlamaNumpy.from_gguf(args.model)

    def encode(text: str, specials: bool = False) -> list[int]:
        tokenizer.encode_special_tokens = not specials  # True: spell them out as plain text
        return tokenizer.encode(text, add_special_tokens=False).ids

    eos = int(reader.fields["tokenizer.ggml.eos_token_id"].contents())
    template = reader.fields["tokenizer.chat_template"].contents()
    chat = (
        jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(messages=[{"role": "user", "content": CHAT}], add_generation_prompt=True)
    )
    prompts = {k: prompt_record(model, oracle, t, encode(t), eos) for k, t in PROMPTS.items()}
    prompts["chat"] = prompt_record(model, oracle, chat, encode(chat, specials=True), eos)

    text_bytes = args.text.read_bytes()
    ids = encode(text_bytes.decode("utf-8"))
    nll: list[np.ndarray] = []
    started = time.monotonic()
    for start in range(0, len(ids) - WINDOW + 1, WINDOW):
        nll.append(nll_of_window(model, ids[start : start + WINDOW]))
        ppl = np.exp(np.concatenate(nll).mean())
        print(f"{len(nll):3} {ppl:.4f} {time.monotonic() - started:.0f} s", file=sys.stderr)

    scored = np.concatenate(nll)
    record = {
        "model": {"file": args.model.name, "sha256": sha256},
        "made_with": {
            "python": ".".join(map(str, sys.version_info[:3])),
            **{p: version(p) for p in ("torch", "transformers", "gguf", "tokenizers", "numpy")},
        },
        "text": {
            "file": args.text.name,
            "sha256": hashlib.sha256(text_bytes).hexdigest(),
            "n_tokens": len(ids),
            "first_tokens": ids[:64],
            "tokens_sha256": hashlib.sha256(np.array(ids, dtype="<i4").tobytes()).hexdigest(),
        },
        "perplexity": {
            "window": WINDOW,
            "first_scored": FIRST_SCORED,
            "ppl": float(np.exp(scored.mean())),
            "n_evaluated": len(nll) * WINDOW,
            "n_scored": int(scored.size),
            "mean_nll_per_window": [round(float(w.mean()), 6) for w in nll],
        },
        "tokenization": [{"text": t, "ids": encode(t)} for t in TEXTS],
        "prompts": prompts,
    }
    compact = json.dumps(record, ensure_ascii=False, indent=1)
    args.output.write_text(compact + "\n", encoding="utf-8")
    print(f"{args.output}: perplexity {record['perplexity']['ppl']:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
