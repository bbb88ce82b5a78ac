"""Several contexts of one model, progress callbacks, drafting by a small model, sample()."""

from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import Llama, _core
from pyllamacpp.drafting import SmallModelDrafting
from pyllamacpp.errors import CancelledError, InvalidArgumentError

PROMPT = "Once upon a time"


def text_of(llm: Llama, **options) -> str:
    return llm(PROMPT, max_tokens=12, temperature=0.0, **options)["choices"][0]["text"]


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_contexts_share_the_weights(default_model: Path) -> None:
    with Llama(str(default_model), n_ctx=256, verbose=False) as llm:
        expected = text_of(llm)
        before = resident_bytes()
        others = [llm.new_context(n_ctx=64) for _ in range(3)]
        assert [text_of(other) for other in others] == [expected] * 3
        assert resident_bytes() - before < 3 * 25e6  # the packed weights alone are 92 MB
        assert [other.n_ctx() for other in others] == [64] * 3
        others[0].close()
        assert text_of(others[1]) == expected
        with pytest.raises(TypeError, match="model_path"):
            llm.new_context(model_path="other.gguf")
        with pytest.raises(MemoryError, match="a context of"):
            llm.new_context(n_ctx=1 << 26)
    assert text_of(others[1]) == expected  # each keeps the weights


def test_loading_tells_how_far_it_is(default_model: Path) -> None:
    shares: list[float] = []
    Llama(str(default_model), n_ctx=64, verbose=False, progress_callback=shares.append).close()
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(shares) > 20
    with pytest.raises(CancelledError, match="loading"):
        Llama(str(default_model), verbose=False, progress_callback=lambda share: share < 0.5)
    with pytest.raises(ZeroDivisionError):
        Llama(str(default_model), verbose=False, progress_callback=lambda share: 1 / share > 0)


def test_a_prompt_tells_how_far_it_is(default_model: Path) -> None:
    with Llama(str(default_model), n_ctx=256, n_batch=32, verbose=False) as llm:
        ids = llm.tokenize(PROMPT.encode()) * 25
        seen: list[tuple[int, int]] = []
        llm(ids, max_tokens=3, prompt_progress=lambda *numbers: seen.append(numbers))
        n = len(ids)
        assert seen == [*((done, n) for done in range(32, n, 32)), (n, n)]


def test_a_small_model_drafts(default_model: Path) -> None:
    with Llama(str(default_model), n_ctx=128, verbose=False) as plain:
        expected = text_of(plain)
    draft = SmallModelDrafting(default_model, 4, n_ctx=128)
    with Llama(str(default_model), n_ctx=128, verbose=False, draft_model=draft) as llm:
        assert text_of(llm) == expected
    assert draft(np.arange(3, 9, dtype=np.intc)).shape == (4,)
    assert draft(np.full(128, 5, dtype=np.intc)).size == 0
    with pytest.raises(InvalidArgumentError, match="num_pred_tokens"):
        SmallModelDrafting(default_model, 0)


def test_sample_takes_the_last_logits(default_model: Path) -> None:
    with Llama(str(default_model), n_ctx=64, verbose=False, logits_all=True) as llm:
        with pytest.raises(InvalidArgumentError, match="no logits"):
            llm.sample()
        llm.eval(llm.tokenize(PROMPT.encode()))
        best = llm.scores[: llm.n_tokens].argmax(axis=1)
        assert llm.sample(temp=0.0) == best[-1]
        assert [llm.sample(temp=0.0, idx=i) for i in range(llm.n_tokens)] == best.tolist()

        def only(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
            assert len(ids) == llm.n_tokens
            scores[:] = -np.inf
            scores[7] = 0
            return scores

        assert llm.sample(logits_processor=[only]) == 7
        assert llm.sample(temp=0.0) == best[-1]
        drawn = {llm.sample(temp=3.0, top_p=1.0, min_p=0.0, top_k=0) for _ in range(8)}
        assert len(drawn) > 1
        with pytest.raises(InvalidArgumentError, match="no logits"):
            llm.sample(idx=llm.n_tokens)


def test_an_extension_model_may_be_built_with_progress(default_model: Path) -> None:
    shares: list[float] = []
    model = _core.Model(str(default_model), progress=shares.append)
    assert model.n_params > 0
    assert len(shares) == model.config.n_layers + 2
