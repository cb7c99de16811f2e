import json

from proxy.config.document import json_schema, yaml_document
from proxy.config.keys import KEYS

CANARY = "zqCANARYzq0123456789"


def test_check_of_sound_settings_says_where_requests_go(sidegate, tmp_path):
    (tmp_path / "c.yaml").write_text("data_dir: d\nserver: {drain_s: 1}")
    done = sidegate("config", "check", "--config", "c.yaml")
    count = len(KEYS)
    expected = f"The configuration is valid (c.yaml; 2 of {count} keys set; requests go to the demo upstream).\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    done = sidegate("config", "check", OPENAI_API_KEY="sk-1")
    expected = (
        f"The configuration is valid (no file; 1 of {count} keys set; requests go to https://api.openai.com/v1).\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_check_of_a_literal_secret_warns_and_succeeds(sidegate, tmp_path):
    (tmp_path / "c.yaml").write_text(f"upstream:\n  api_key: {CANARY}\n")
    done = sidegate("config", "check", SIDEGATE_CONFIG="c.yaml")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: c.yaml:2: upstream.api_key: the secret itself stands in the file; use ${NAME} or file:/path\n"
    )
    assert CANARY not in done.stdout


def test_check_reads_the_files_that_the_configuration_names_and_reports_all_their_mistakes(sidegate, tmp_path):
    (tmp_path / "layers.yaml").write_text("L0: [{model: m, upstream: nobody}]\nL9: []\n")
    (tmp_path / "prices.yaml").write_text("m: {input: -1}\n")
    (tmp_path / "rules.yaml").write_text("rules: [{id: x}]\n")
    named = {"routing": {"layers_file": "layers.yaml"}, "prices": {"file": "prices.yaml"}}
    (tmp_path / "c.yaml").write_text(json.dumps({**named, "policy": {"rules_file": "rules.yaml"}}))
    done = sidegate("config", "check", "--config", "c.yaml")
    assert (done.returncode, done.stdout) == (78, "")
    for file in ("routing.layers_file: layers.yaml: L9", "prices.file: prices of 'm'", "policy.rules_file: x:"):
        assert file in done.stderr
    (tmp_path / "layers.yaml").write_text("L0: [{model: m, upstream: nobody}]\n")
    done = sidegate("config", "check", "--config", "c.yaml")
    assert "layers.yaml: L0.0.upstream: 'nobody' is not one of default" in done.stderr


def test_show_prints_every_key_with_its_origin_and_no_secret(sidegate, tmp_path):
    (tmp_path / "c.yaml").write_text("upstream:\n  headers:\n    X-Key: ${SECRET}\ntimeouts: {gap_s: 30}\n")
    environ = {"SECRET": CANARY, "OPENAI_API_KEY": CANARY, "SIDEGATE_ADMIN_KEY": CANARY}
    environ["DATABASE_URL"] = f"postgresql://u:{CANARY}@h/d"
    done = sidegate("config", "show", "--config", "c.yaml", **environ)
    lines = {line.split(":")[0]: " ".join(line.split()) for line in done.stdout.splitlines()}
    assert done.returncode == 0
    assert list(lines) == [key.name for key in KEYS.values()]
    assert lines["timeouts.gap_s"] == "timeouts.gap_s: 30 # c.yaml:4"
    assert lines["data_dir"] == "data_dir: var # default"
    assert lines["upstream.headers"] == "upstream.headers: {X-Key: ********} # c.yaml:2"
    assert lines["upstream.api_key"] == "upstream.api_key: ******** # environment OPENAI_API_KEY"
    assert CANARY not in done.stdout + done.stderr


def test_show_as_json_holds_the_same_for_machines(sidegate):
    done = sidegate("config", "show", "--json", OPENAI_API_KEY=CANARY, SIDEGATE__PRICES__OVERRIDES="{m: {input: 0.10}}")
    rows = json.loads(done.stdout)
    assert list(rows) == [key.name for key in KEYS.values()]
    assert rows["server.listen.port"] == {"value": 8080, "origin": "default"}
    assert rows["upstream.api_key"] == {"value": "********", "origin": "environment OPENAI_API_KEY"}
    assert rows["prices.overrides"]["value"] == {"m": {"input": "0.10"}}
    assert rows["database.url"]["value"] is None
    assert CANARY not in done.stdout


def test_schema_and_template_print_the_documents(sidegate):
    assert sidegate("config", "schema").stdout == json_schema()
    assert sidegate("config", "template").stdout == yaml_document()


def test_schema_is_printed_whatever_the_environment_holds(sidegate):
    assert sidegate("config", "schema", SIDEGATE_NONSENSE="x").returncode == 0
