"""Golden renders of five families of chat templates, whose templates are written here in the form that each family has."""

from pathlib import Path

import pytest

from valueflow.errors import InputError
from valueflow.llm.chat import chat_text, has_system_role
from valueflow.llm.configs import Sampling, VllmModel
from valueflow.records import ValueId
from valueflow.steering.conditions import Condition, messages
from valueflow.steering.model_checks import added_text, check_engine, check_system_role, rendered
from valueflow.steering.plan import Plan
from valueflow.steering.queries import Query

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}[INST] {{ system if loop.first else '' }}{{ m['content'] }}[/INST]{% endfor %}"
)
HYBRID = (
    CHATML.replace("assistant\n{% endif %}", "assistant\n{% if enable_thinking is defined and not enable_thinking %}")
    + "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ADDING = "<|im_start|>system\nYou are Tiny, a helpful assistant made by somebody.<|im_end|>\n" + CHATML
SPECIAL = {
    "chatml": ["<|im_start|>", "<|im_end|>"], "llama3": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "gemma": ["<start_of_turn>", "<end_of_turn>"], "mistral": ["[INST]", "[/INST]"],
}  # fmt: skip
BARE = Condition("control", "bare", "user", (), (), 0, "")
USER = Condition("intensity_anchor", "value", "user", (ValueId("svt:power"),), (2,), 0, "You lead.")
SYSTEM = USER._replace(turn="system")


def family(folder: Path, name: str, template: str) -> Path:
    """A model folder with a tokenizer of a few words and this template."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    words = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *SPECIAL.get(name, SPECIAL["chatml"])])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=list(words)[3:],
    )  # fmt: skip
    fast.chat_template = template
    target = folder / name
    fast.save_pretrained(target)
    transformers.LlamaConfig(vocab_size=len(words)).save_pretrained(target)
    return target


GOLDEN = {
    "chatml": (
        CHATML,
        "<|im_start|>user\nWhy? Be brief.<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nYou lead.\n\nWhy? Be brief.<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nYou lead.<|im_end|>\n<|im_start|>user\nWhy? Be brief.<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama3": (
        LLAMA3,
        "<s><|start_header_id|>user<|end_header_id|>\n\nWhy? Be brief.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>user<|end_header_id|>\n\nYou lead.\n\nWhy? Be brief.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>system<|end_header_id|>\n\nYou lead.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Why? Be brief.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        GEMMA,
        "<s><start_of_turn>user\nWhy? Be brief.<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nYou lead.\n\nWhy? Be brief.<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nYou lead.\n\nWhy? Be brief.<end_of_turn>\n<start_of_turn>model\n",
    ),
    "mistral": (
        MISTRAL,
        "<s>[INST] Why? Be brief.[/INST]",
        "<s>[INST] You lead.\n\nWhy? Be brief.[/INST]",
        "<s>[INST] You lead.\n\nWhy? Be brief.[/INST]",
    ),
    "hybrid": (
        HYBRID,
        "<|im_start|>user\nWhy? Be brief.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>user\nYou lead.\n\nWhy? Be brief.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>system\nYou lead.<|im_end|>\n<|im_start|>user\nWhy? Be brief.<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_conditions_are_rendered_as_each_family_writes_them(tmp_path, name):
    template, *golden = GOLDEN[name]
    args = {"enable_thinking": False} if name == "hybrid" else {}
    model = VllmModel(name=name, model=str(family(tmp_path, name, template)), chat_template_args=args)
    chats = [messages(condition, "Why?", "Be brief.") for condition in (BARE, USER, SYSTEM)]
    assert [chat_text(model.model, "", chat, False, args) for chat in chats] == golden
    plan = Plan("m", (BARE, USER, SYSTEM), (Query("q", "d", "Why?"),), 1, Sampling(), "Be brief.")
    assert list(rendered(model, plan).values()) == golden
    assert has_system_role(model.model, "", False, args) == (name != "gemma")


def test_a_hybrid_model_thinks_unless_it_is_told_not_to(tmp_path):
    folder = str(family(tmp_path, "hybrid", HYBRID))
    chat = messages(BARE, "Why?", "")
    assert chat_text(folder, "", chat, False, {}).endswith("assistant\n")


def test_a_model_without_a_system_role_gets_no_system_conditions(tmp_path):
    model = VllmModel(name="gemma", model=str(family(tmp_path, "gemma", GEMMA)))
    check_system_role(model, [BARE, USER])
    with pytest.raises(InputError, match=r"takes no system turn.*user_turn_only"):
        check_system_role(model, [BARE, SYSTEM])


def test_text_that_a_template_adds_is_seen(tmp_path):
    chat = messages(BARE, "Why?", "")
    adding, plain = str(family(tmp_path, "adding", ADDING)), str(family(tmp_path, "chatml", CHATML))
    assert added_text(chat_text(adding, "", chat, False), "Why?") == "You are Tiny, a helpful assistant made by somebody"
    assert added_text(chat_text(plain, "", chat, False), "Why?") == ""


def test_an_engine_on_cpus_that_would_end_is_refused():
    engine = {"max_model_len": 512}
    with pytest.raises(InputError, match="enable_chunked_prefill to false"):
        check_engine(VllmModel(name="v", model="m", engine=engine, gpus_per_engine=0))
    check_engine(VllmModel(name="v", model="m", engine=engine | {"enable_chunked_prefill": False}, gpus_per_engine=0))
    check_engine(VllmModel(name="v", model="m", engine=engine))
