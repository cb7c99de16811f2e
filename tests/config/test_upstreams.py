import pytest
from pydantic import ValidationError

from proxy.config.layers import Layers
from proxy.config.load import load
from proxy.config.problems import ConfigError
from proxy.config.schema import Config, UpstreamEntry
from proxy.resources import ROOT
from proxy.routing.catalogue import Catalogue


@pytest.mark.parametrize(
    ("models", "asked", "own"),
    [
        ({}, "gpt-4o", "gpt-4o"),
        ({"gpt-4o": "prod"}, "gpt-4o", "prod"),
        ({"gpt-4o": "prod"}, "gpt-4o-mini", None),
        ({"gpt-4o": "*"}, "gpt-4o", "gpt-4o"),
        ({"gpt-*": "*"}, "gpt-4o", "gpt-4o"),
        ({"gpt-*": "*", "gpt-4*": "four"}, "gpt-4o", "four"),
        ({"*": "*"}, "anything", "anything"),
    ],
)
def test_own_name_of_a_model_follows_the_closest_entry(models, asked, own):
    assert UpstreamEntry(models=models).own_name(asked) == own


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"api_key": "a", "credentials": [{"api_key": "b"}]}, "both api_key and credentials"),
        ({"kind": "azure"}, "needs api_version"),
        ({"models": {"a*b": "x"}}, "only at the end"),
        ({"models": {"a": "b*"}}, "only at the end"),
        ({"models": {"": "b"}}, "printable"),
        ({"credentials": [{"api_key": "a", "weight": 0}]}, "greater than or equal to 1"),
    ],
)
def test_entry_that_contradicts_itself_is_refused(entry, text):
    with pytest.raises(ValidationError, match=text):
        UpstreamEntry(**entry)


def test_providers_are_the_list_or_the_one_of_the_simple_form():
    assert [one.name for one in Config().providers] == ["default"]
    listed = Config(upstreams=({"name": "a"}, {"name": "b"}))
    assert [one.name for one in listed.providers] == ["a", "b"]
    with pytest.raises(ValidationError, match="more than one upstream with the name a"):
        Config(upstreams=({"name": "a"}, {"name": "a"}))


def test_shipped_example_of_providers_can_be_used_and_asks_each_for_its_own_models():
    names = ("OPENAI_KEY_1", "OPENAI_KEY_2", "AZURE_OPENAI_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    environ = {name: f"key-of-{name}" for name in (*names, "OPENROUTER_API_KEY")}
    config = load(ROOT / "config" / "upstreams.example.yaml", environ, {}).config
    assert config.upstreams[0].keys[0].api_key.get_secret_value() == "key-of-OPENAI_KEY_1"
    catalogue = Catalogue(config.providers, Layers())
    hosts = {
        "gpt-5": ("openai", "gpt-5"),
        "gpt-4o": ("azure", "my-gpt-4o-deployment"),
        "claude-sonnet-4-5": ("anthropic", "claude-sonnet-4-5"),
        "gemini-2.5-pro": ("gemini", "gemini-2.5-pro"),
        "meta-llama/llama-3.3-70b": ("openrouter", "meta-llama/llama-3.3-70b"),
        "qwen2.5-coder": ("vllm", "Qwen/Qwen2.5-Coder-32B-Instruct"),
        "llama3.2": ("ollama", "llama3.2:3b"),
    }
    for model, (upstream, own) in hosts.items():
        assert [(offer.upstream, offer.own_name) for offer in catalogue.hosts(model)] == [(upstream, own)]


def test_mistakes_in_the_list_are_told_with_their_line(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        "upstreams:\n"
        "  - name: a\n"
        "    base_ulr: http://h/v1\n"
        "  - name: b\n"
        "    base_url: ftp://h\n"
        "    credentials:\n"
        "      - api_key: ${NOT_SET}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    assert [str(problem) for problem in caught.value.problems] == [
        f"{file}:3: upstreams.0.base_ulr: unknown key; did you mean base_url?",
        f"{file}:5: upstreams.1.base_url: must be an absolute http:// or https:// URL",
        f"{file}:7: upstreams.1.credentials.0.api_key: refers to the environment variable NOT_SET, which is not set",
    ]


def test_advice_names_keys_in_the_file_clear_text_and_a_form_that_is_not_used(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("upstreams:\n  - {name: a, base_url: 'http://10.0.0.1/v1', api_key: sk-literal}\n")
    warnings = [str(problem) for problem in load(file, {"OPENAI_API_KEY": "sk-1"}, {}).warnings]
    assert len(warnings) == 3
    assert "a key of a stands in the file itself" in warnings[0]
    assert any("clear text" in one for one in warnings)
    assert any("takes the place of upstream" in one for one in warnings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "openai"),
        ({"base_url": "http://localhost:8000/v1"}, "openai"),
        ({"base_url": "https://api.mistral.ai/v1"}, "mistral_ai"),
        ({"base_url": "https://generativelanguage.googleapis.com/v1beta/openai"}, "gcp.gemini"),
        ({"base_url": "https://us-central1-aiplatform.googleapis.com/v1"}, "gcp.vertex_ai"),
        ({"base_url": "https://mine.openai.azure.com/openai/v1"}, "azure.ai.openai"),
        ({"base_url": "https://notx.ai/v1"}, "openai"),
        ({"kind": "azure", "api_version": "1", "base_url": "https://gateway.example/x"}, "azure.ai.openai"),
    ],
)
def test_gen_ai_provider_when_asked_then_the_well_known_name_of_who_answers(settings, name):
    assert UpstreamEntry(name="a", **settings).gen_ai_provider == name
