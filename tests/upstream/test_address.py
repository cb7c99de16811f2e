import pytest

from proxy.upstream.address import azure_url, openai_url

BASE = "https://r.openai.azure.com/openai"


def test_url_in_the_usual_style_is_the_base_and_what_followed_v1():
    assert openai_url("https://h/v1", "/v1/chat/completions?a=%20") == "https://h/v1/chat/completions?a=%20"


@pytest.mark.parametrize(
    ("target", "deployment", "expected"),
    [
        ("/v1/chat/completions", "gpt-4o", "/deployments/gpt-4o/chat/completions?api-version=v"),
        ("/v1/embeddings?a=1", "e", "/deployments/e/embeddings?a=1&api-version=v"),
        ("/v1/files", "gpt-4o", "/files?api-version=v"),
        ("/v1/chat/completions?api-version=mine", "m", "/deployments/m/chat/completions?api-version=mine"),
        ("/v1/chat/completions", None, "/chat/completions?api-version=v"),
        ("/v1/chat/completions", "../x?y", "/deployments/..%2Fx%3Fy/chat/completions?api-version=v"),
    ],
)
def test_url_of_azure_names_deployment_and_version(target, deployment, expected):
    assert azure_url(BASE, target, "v", deployment) == BASE + expected
