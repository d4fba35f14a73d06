"""Any causal LM: small random models of many architectures write what plain `generate` writes, by the loop or without it."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from hardsoft.config.schema import ModelConfig, QuantizationConfig
from hardsoft.core.chat import Chat, Completion
from hardsoft.core.errors import InputError
from hardsoft.core.paths import NO_READOUT
from hardsoft.engines.local.check import why_not
from hardsoft.engines.local.engine import LocalEngine
from hardsoft.engines.local.loading import load
from hardsoft.engines.local.tokens import Encoder
from tests.support.repositories import ROOT

CHECKPOINT = ROOT / "models/tiny/checkpoint"
NOT_QUANTISED = QuantizationConfig(method="none", double_quant=False, dequantize=False)
SHAPE: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT: dict[str, Any] = {"vocab_size": 2048, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaConfig(**{**SHAPE, "num_key_value_heads": 4}),
    "llama-gqa": lambda: hf.LlamaConfig(**SHAPE),
    "qwen2": lambda: hf.Qwen2Config(**SHAPE),
    "qwen3": lambda: hf.Qwen3Config(**SHAPE, head_dim=16),
    "gemma2": lambda: hf.Gemma2Config(**SHAPE, head_dim=16, sliding_window=16),
    "gemma3": lambda: hf.Gemma3TextConfig(**SHAPE, head_dim=16, sliding_window=16),
    "phi3": lambda: hf.Phi3Config(**SHAPE),
    "mistral": lambda: hf.MistralConfig(**SHAPE, sliding_window=None),
    "mistral-window": lambda: hf.MistralConfig(**SHAPE, sliding_window=16),
    "gpt2": lambda: hf.GPT2Config(**GPT, n_embd=64, n_layer=2, n_head=4, n_positions=512),
    "opt": lambda: hf.OPTConfig(**{**SHAPE, "init_std": 0.3}, ffn_dim=96, word_embed_proj_dim=64, do_layer_norm_before=True),
    "granite": lambda: hf.GraniteConfig(**SHAPE, attention_multiplier=0.25, logits_scaling=2.0),
    "olmo2": lambda: hf.Olmo2Config(**SHAPE),
    "smollm3": lambda: hf.SmolLM3Config(**SHAPE),
}
BY_THE_LOOP = ["llama", "llama-gqa", "qwen2", "qwen3", "phi3", "mistral", "gpt2", "granite", "olmo2", "smollm3"]
"""The others have windows, soft caps or positions that the loop does not know."""
SKILLS = [
    "V-Ray",
    "Empathy",
    "Welding",
    "Care And Repair Of Old Wooden Window Frames",
    "x",
    "SQL",
    "Tact",
    "Oslo",
    "Night Shifts",
]
LIMIT = 10


@cache
def tokenizer() -> Any:
    return hf.AutoTokenizer.from_pretrained(CHECKPOINT)


@cache
def network(name: str) -> Any:
    torch.manual_seed(len(name))
    return hf.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).eval()


def chats() -> list[Chat]:
    return [
        [{"role": "system", "content": "You label skills."}, {"role": "user", "content": f"Hard or Soft? Skill: {skill}"}]
        for skill in SKILLS
    ]


def complete(engine: LocalEngine, asked: list[Chat]) -> list[Completion]:
    completions: dict[int, Completion] = {}
    engine.complete(asked, completions.update)
    return [completions[row] for row in range(len(asked))]


def generated_alone(model: Any, prompt: list[int], ends: list[int]) -> list[int]:
    generation = hf.GenerationConfig(max_new_tokens=LIMIT, do_sample=False, eos_token_id=ends, pad_token_id=0)
    ids = torch.tensor([prompt])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=generation)[0].tolist()
    tokens: list[int] = written[len(prompt) :]
    return tokens


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_writes_what_plain_generate_writes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, encoder = network(name), Encoder(tokenizer())
    ends = sorted({2, tokenizer().eos_token_id})
    expected = [generated_alone(model, prompt, ends) for prompt in encoder.encode(chats())]
    before = model.config._attn_implementation
    written = complete(LocalEngine(model, encoder, 4, LIMIT, window=4), chats())
    assert [one.tokens for one in written] == [len(tokens) for tokens in expected]
    assert [one.text for one in written] == [tokenizer().decode(tokens, skip_special_tokens=True) for tokens in expected]
    assert model.config._attn_implementation == before
    assert ("this architecture gets plain generation" in capsys.readouterr().err) == (name not in BY_THE_LOOP)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "opt"])
def test_label_scores_are_those_of_plain_forward_passes(name: str) -> None:
    model, encoder = network(name), Encoder(tokenizer())
    asked = [[*chat, {"role": "assistant", "content": "Answer:"}] for chat in chats()]
    candidates = encoder.label_ids(asked[0])
    for prompt, one in zip(encoder.encode(asked), complete(LocalEngine(model, encoder, 4, 1, scoring=True), asked), strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([prompt])).logits[0, -1, candidates].softmax(-1)
        torch.testing.assert_close(torch.tensor(one.probabilities), expected, atol=1e-4, rtol=0)


def test_a_loop_that_computes_otherwise_is_found() -> None:
    """A Llama whose positions are not where they are asked for: its text would be wrong without a word."""
    model = hf.AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]()).eval()
    (prompt,) = Encoder(tokenizer()).encode(chats()[:1])
    assert why_not(model, prompt) is None
    rotary = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: rotary(x, position_ids - position_ids[:, :1])
    assert "its logits differ by" in str(why_not(model, prompt))
    model.model.rotary_emb.forward = lambda x, position_ids: 1 / 0 if x.shape[0] > 1 else rotary(x, position_ids)
    assert "ZeroDivisionError" in str(why_not(model, prompt))


def test_logits_that_are_not_finite_end_the_run_in_one_line() -> None:
    model = hf.AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]()).eval()
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(InputError, match=r"logits are not finite in torch\.float32; set model\.dtype"):
        complete(LocalEngine(model, Encoder(tokenizer()), 4, LIMIT), chats())


def test_a_prompt_longer_than_the_model_is_that_rows_error() -> None:
    model = network("gpt2")
    asked = chats()
    asked[3] = [*asked[3][:-1], {"role": "user", "content": "long " * 600}]
    written = complete(LocalEngine(model, Encoder(tokenizer()), 4, LIMIT), asked)
    assert [one.finish_reason == "error" for one in written] == [row == 3 for row in range(len(asked))]
    assert "the model has 512 positions" in written[3].text
    assert written[:3] == complete(LocalEngine(model, Encoder(tokenizer()), 4, LIMIT), chats())[:3]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A checkpoint folder of one's own, by its absolute path."""
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "mine"))


def option(folder: Path) -> ModelConfig:
    return ModelConfig(
        source="folder",
        name=str(folder),
        revision=None,
        gated=False,
        parameters=1722048,
        chat_template={},
        dtype="float32",
        dep=str(folder),
        readout=NO_READOUT,
    )


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_a_checkpoint_that_lacks_tensors_is_refused(mine: Path, method: Any) -> None:
    weights = load_file(mine / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.2." not in name}
    save_file(kept, mine / "model.safetensors", metadata={"format": "pt"})
    quantization = QuantizationConfig(method=method, double_quant=method == "nf4", dequantize=False)
    with pytest.raises(
        InputError, match=r"mine: the checkpoint lacks tensors of its architecture: model\.layers\.2\..* and 8 more"
    ):
        load(option(mine), quantization, "cpu")


@pytest.mark.parametrize("named", [None, 0])
def test_the_tokenizers_end_token_ends_a_message_whatever_the_configuration_says(mine: Path, named: int | None) -> None:
    shipped = complete(LocalEngine(*loaded(CHECKPOINT), 4, 60), chats())
    for file in ("config.json", "generation_config.json"):
        change(mine / file, eos_token_id=named)
    assert complete(LocalEngine(*loaded(mine), 4, 60), chats()) == shipped
    assert "stop" in {one.finish_reason for one in shipped}


def test_a_repetition_penalty_of_the_checkpoint_does_not_count(mine: Path) -> None:
    change(mine / "generation_config.json", repetition_penalty=5.0, no_repeat_ngram_size=2)
    shipped, own = loaded(CHECKPOINT), loaded(mine)
    engine = LocalEngine(*own, 4, 60)
    engine._go_plainly("for this test")
    texts = [[one.text for one in complete(one, chats())] for one in (engine, LocalEngine(*shipped, 4, 60))]
    assert texts[0] == texts[1]


def change(file: Path, **values: Any) -> None:
    """Write some values into a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def loaded(folder: Path) -> tuple[Any, Encoder]:
    model, its_tokenizer = load(option(folder), NOT_QUANTISED, "cpu")
    return model, Encoder(its_tokenizer)


REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def with_template(template: str) -> Any:
    changed = hf.AutoTokenizer.from_pretrained(CHECKPOINT)
    changed.chat_template = template
    return changed


def test_a_template_that_takes_no_system_message_gets_its_text_in_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    folded = [[{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}] for system, user in chats()]
    expected = Encoder(tokenizer()).encode(folded)
    drops = tokenizer().chat_template.replace(
        "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
    )
    for template, words in (
        (REFUSES_SYSTEM + tokenizer().chat_template, "System role not supported"),
        (drops, "leaves the system"),
    ):
        encoder = Encoder(with_template(template))
        assert encoder.encode(chats()) == expected
        assert encoder.encode(chats()) == expected
        told = capsys.readouterr().err
        assert told.count("its text goes into the user's message") == 1
        assert words in told


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('only tools') }}", "the chat template cannot render the prompt: only tools"),
        ("{{ bos_token }}<|user|>", "the chat template leaves the question out"),
        ("{{ bos_token }}{{ bos_token }}{{ messages[-1].content }}", "2 BOS tokens"),
        ("{% if %}", "the chat template cannot render the prompt"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_clear_line(template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Encoder(with_template(template)).encode([chat[1:] for chat in chats()])


def test_turns_that_begin_with_the_bos_token_are_no_fault() -> None:
    """ChatML: SmolLM2's and Qwen's BOS opens every turn."""
    template = "{% for message in messages %}{{ bos_token + message.role + '\n' + message.content + eos_token }}{% endfor %}"
    ids = Encoder(with_template(template)).encode(chats())
    assert all(one.count(tokenizer().bos_token_id) == 2 for one in ids)


def test_arguments_of_the_template_are_given_to_it_and_a_date_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    template = "{{ bos_token }}{{ date_string if date_string is defined else strftime_now('%d %b') }}{{ messages[-1].content }}"
    dated = Encoder(with_template(template), {"date_string": "26 Jul 2024"})
    assert capsys.readouterr().err == ""
    assert "26 Jul 2024" in tokenizer().decode(dated.encode([chats()[0][1:]])[0])
    Encoder(with_template(template))
    assert "writes today's date into every prompt" in capsys.readouterr().err


def test_a_message_that_the_template_begins_inside_reasoning_is_stopped_behind_it_only() -> None:
    """A model that thinks writes an answer line in its reasoning; the text that is kept shows where that began."""
    opens = tokenizer().chat_template.replace("'<|assistant|>' }}{% endif %}", "'<|assistant|><think>\n' }}{% endif %}")
    assert opens != tokenizer().chat_template
    model, _ = loaded(CHECKPOINT)
    one, *_ = complete(LocalEngine(model, Encoder(with_template(opens)), 4, 30), chats())
    assert one.text.startswith("<think>\n")
