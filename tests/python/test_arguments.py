"""The peer's arguments: defaults never raise, hints warn once, the rest is refused by name."""

import warnings

import pytest

from pyllamacpp import (
    LLAMA_ATTENTION_TYPE_CAUSAL,
    LLAMA_ATTENTION_TYPE_NON_CAUSAL,
    Llama,
)
from pyllamacpp.errors import InvalidArgumentError, UnsupportedError

PEER_DEFAULTS = {
    "n_gpu_layers": 0,
    "split_mode": 1,
    "main_gpu": 0,
    "tensor_split": None,
    "vocab_only": False,
    "use_mmap": True,
    "use_mlock": False,
    "kv_overrides": None,
    "seed": 0xFFFFFFFF,
    "n_ctx": 512,
    "n_batch": 512,
    "n_ubatch": 512,
    "n_threads": None,
    "n_threads_batch": None,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "rope_freq_base": 0.0,
    "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_orig_ctx": 0,
    "logits_all": False,
    "embedding": False,
    "offload_kqv": True,
    "flash_attn": False,
    "op_offload": None,
    "swa_full": None,
    "no_perf": False,
    "last_n_tokens_size": 64,
    "lora_base": None,
    "lora_scale": 1.0,
    "lora_path": None,
    "numa": False,
    "chat_format": None,
    "chat_handler": None,
    "draft_model": None,
    "tokenizer": None,
    "type_k": None,
    "type_v": None,
    "spm_infill": False,
    "verbose": False,
}


def test_the_peers_defaults_neither_raise_nor_warn(default_model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Llama(str(default_model), **PEER_DEFAULTS).close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tensor_split", [0.5, 0.5]),
        ("use_mmap", False),
        ("use_mlock", True),
        ("flash_attn", True),
        ("numa", True),
        ("op_offload", True),
        ("lora_base", "base.gguf"),
    ],
)
def test_a_hint_gives_one_warning_with_its_reason(default_model, name, value) -> None:
    with pytest.warns(UserWarning, match=f"{name}=.* has no effect: ") as caught:
        llm = Llama(str(default_model), vocab_only=True, verbose=False, **{name: value})
    llm.close()
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_layers_for_a_gpu_that_is_not_there(default_model, monkeypatch) -> None:
    monkeypatch.setenv("PYLLAMACPP_DEVICE", "cpu")
    path = str(default_model)
    with pytest.warns(UserWarning, match="n_gpu_layers=-1: 0 of the 31 layers ") as caught:
        Llama(path, verbose=False, n_gpu_layers=-1).close()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Llama(path, verbose=False, n_gpu_layers="auto").close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_gpu_layers", -2),
        ("n_gpu_layers", "all"),
        ("n_gpu_layers", 2.0),
        ("main_gpu", -1),
        ("main_gpu", None),
        ("op_offload", 1),
        ("op_offload", "auto"),
    ],
)
def test_gpu_arguments_out_of_range(default_model, name, value) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        Llama(str(default_model), verbose=False, **{name: value})


def test_keys_and_values_are_where_their_layers_are(default_model) -> None:
    with pytest.raises(UnsupportedError, match="offload_kqv"):
        Llama(str(default_model), verbose=False, n_gpu_layers=1, offload_kqv=False)


def test_attention_of_later_tokens_is_refused(default_model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (None, -1, LLAMA_ATTENTION_TYPE_CAUSAL):
            Llama(str(default_model), vocab_only=True, verbose=False, attention_type=same).close()
    with pytest.raises(UnsupportedError, match="attention_type=1 is not supported: a token"):
        Llama(str(default_model), verbose=False, attention_type=LLAMA_ATTENTION_TYPE_NON_CAUSAL)
    with pytest.raises(UnsupportedError, match=r"llama\.attention\.causal is false"):
        Llama(str(default_model), verbose=False, kv_overrides={"llama.attention.causal": False})


def test_empty_collections_ask_for_nothing(llm: Llama) -> None:
    assert llm("Hello", max_tokens=1, logit_bias={}, logits_processor=[], stop=[])["choices"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", -1),
        ("top_logprobs", 3),
        ("n", 0),
        ("best_of", 1000),
        ("stopping_criteria", [3]),
        ("logits_processor", "none"),
        ("when_full", "explode"),
        ("n_keep", -1),
        ("grammar", object()),
    ],
)
def test_values_out_of_range_are_named(llm: Llama, name, value) -> None:
    with pytest.raises(InvalidArgumentError, match="log-prob" if name == "logprobs" else name):
        llm.create_chat_completion(
            [{"role": "user", "content": "Hi"}], max_tokens=1, **{name: value}
        ) if name == "top_logprobs" else llm("Hello", max_tokens=1, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_ctx", -1),
        ("n_batch", 0),
        ("n_threads", -1),
        ("seed", -5),
        ("n_parallel", 0),
        ("lora_scale", 0.5),
        ("draft_model", object()),
    ],
)
def test_sizes_out_of_range_are_named(default_model, name, value) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        Llama(str(default_model), verbose=False, **{name: value})


def test_what_old_front_ends_pass(default_model) -> None:
    """LangChain's adapters do; the model's base is 100,000."""
    says = {
        "n_parts": -1,
        "f16_kv": True,
        "device": None,
        "rope_freq_base": 100000.0,
        "rope_freq_scale": 1.0,
    }
    with Llama(str(default_model), n_ctx=64, n_batch=32, verbose=False, **says) as llm:
        assert llm.metadata["llama.rope.freq_base"] == "100000"
        assert (llm.context_params.n_ctx, llm.context_params.n_batch) == (64, 32)
    with Llama(str(default_model), f16_kv=False, type_v="q8_0", verbose=False) as llm:
        assert llm.engine.context.kv_layout.startswith("keys f32, values q8_0")
    for name, value in (("n_parts", 2), ("device", "cuda")):
        with pytest.raises(UnsupportedError, match=name):
            Llama(str(default_model), verbose=False, **{name: value})


def test_an_unknown_argument_is_a_type_error(default_model) -> None:
    with pytest.raises(TypeError, match="n_gqa"):
        Llama(str(default_model), n_gqa=8)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "f32"), (1, "f16"), (8, "q8_0"), (2, "q4_0"), (30, "bf16")]
)
def test_cache_types_by_number_and_by_name(default_model, number, name) -> None:
    logits = []
    for value in (number, name):
        with Llama(str(default_model), type_k=value, type_v=value, n_ctx=64, verbose=False) as llm:
            llm.eval(llm.tokenize(b"The capital of France is"))
            logits.append(llm.scores[llm.n_tokens - 1].copy())
            assert llm.detokenize([int(logits[-1].argmax())]) == b" Paris"
    assert (logits[0] == logits[1]).all()


@pytest.mark.parametrize("value", [7, "q5_0", "none"])
def test_other_cache_types_are_refused(default_model, value) -> None:
    with pytest.raises(UnsupportedError, match=r"type_k=.*supported: f32 \(0\)"):
        Llama(str(default_model), type_k=value, verbose=False)


def test_n_ctx_zero_is_the_models_own(default_model) -> None:
    with Llama(str(default_model), n_ctx=0, verbose=False) as llm:
        assert llm.n_ctx() == 8192
