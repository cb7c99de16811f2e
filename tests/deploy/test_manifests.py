"""The manifests are valid for current Kubernetes, and keep the promises that docs/kubernetes.md makes."""

import json
import re
import shutil
import subprocess
from itertools import chain

import kubernetes_validate
import pytest
import yaml

from proxy.config.load import load
from proxy.config.schema import Config
from tests.deploy.manifests import K8S, KUBECTL, ROOT, by_hand, by_kubectl, overlay

EXAMPLES = ["deployment", "statefulset", "job"]
VERSIONS = ["1.29.0", "1.37.0"]
OTHER_OWNERS = {"PodMonitor", "PrometheusRule", "Cluster"}
"""Kinds of operators: Kubernetes itself has no schema for them."""
OBSERVABILITY = K8S / "components" / "observability"


def everything():
    """Each document once: the examples share most of theirs."""
    places = [*(K8S / "examples").iterdir(), K8S / "hub"]
    return {json.dumps(d, sort_keys=True, default=str): d for place in places for d in overlay(place)}.values()


def workload(example):
    (found,) = [d for d in overlay(K8S / "examples" / example) if d["kind"] in ("Deployment", "StatefulSet", "Job")]
    return found["spec"]["template"]["spec"]


def sidecar(example):
    spec = workload(example)
    return next(c for c in chain(spec.get("initContainers", []), spec["containers"]) if c["name"] == "sidegate")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_when_validated_strictly_then_kubernetes_accepts_it(version):
    checked = 0
    for document in everything():
        if document["kind"] not in OTHER_OWNERS:
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    assert checked >= 12


@pytest.mark.parametrize("place", [*(f"examples/{name}" for name in (*EXAMPLES, "plain-container")), "hub"])
def test_overlay_when_built_without_kubectl_then_it_is_what_kubectl_builds(place):
    ours = {(d["kind"], d["metadata"]["name"]): d for d in by_hand(K8S / place)}
    assert all(d["metadata"]["name"] for d in ours.values())
    if KUBECTL is None:
        return
    theirs = {(d["kind"], d["metadata"]["name"]): d for d in by_kubectl(K8S / place)}
    assert ours.keys() == theirs.keys()
    for key, document in ours.items():
        if key[0] in ("Deployment", "StatefulSet", "Job"):
            assert document["spec"]["template"]["spec"] == theirs[key]["spec"]["template"]["spec"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_sidecar_when_added_then_it_starts_first_and_ends_last(example):
    spec = workload(example)
    assert spec["initContainers"][0]["name"] == "sidegate"
    assert spec["initContainers"][0]["restartPolicy"] == "Always"
    assert [c["name"] for c in spec["containers"]] == ["app"]


def test_sidecar_when_the_cluster_is_old_then_a_plain_container_that_outlives_the_application():
    spec = workload("plain-container")
    assert "initContainers" not in spec
    assert "sleep(15)" in " ".join(sidecar("plain-container")["lifecycle"]["preStop"]["exec"]["command"])


@pytest.mark.parametrize("example", [*EXAMPLES, "plain-container"])
def test_sidecar_when_added_then_restricted_and_models_only_over_loopback(example):
    container = sidecar(example)
    security = container["securityContext"]
    assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["SIDEGATE_LISTEN"].startswith("127.0.0.1:")
    assert [port["name"] for port in container["ports"]] == ["sidegate-ops"]
    assert all("subPath" not in mount for mount in container["volumeMounts"])
    application = next(c for c in workload(example)["containers"] if c["name"] == "app")
    assert {"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:8080/v1"} in application["env"]
    assert application["securityContext"]["runAsUser"] != security["runAsUser"]


@pytest.mark.parametrize("example", [*EXAMPLES, "plain-container"])
def test_probes_when_database_or_provider_are_away_then_they_do_not_ask_them(example):
    container = sidecar(example)
    paths = {kind: container[kind]["httpGet"]["path"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_journal_volume_when_the_journal_is_full_then_it_has_a_quarter_to_spare():
    (config,) = [d for d in overlay(K8S / "base") if d["kind"] == "ConfigMap"]
    bound = yaml.safe_load(config["data"]["sidegate.yaml"])["journal"]["max_bytes"]
    (volume,) = [v for v in workload("deployment")["volumes"] if v["name"] == "sidegate-journal"]
    size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Mi")) << 20
    assert size >= 1.25 * bound
    requests = sidecar("deployment")["resources"]["requests"]["ephemeral-storage"]
    assert int(requests.removesuffix("Mi")) << 20 >= size


def test_pod_when_the_component_is_applied_then_what_belongs_to_the_application_is_left_alone():
    patch = yaml.safe_load((K8S / "components" / "sidecar" / "patch.yaml").read_text())
    assert set(patch["spec"]["template"]["spec"]) == {"initContainers", "volumes"}


def test_grace_period_when_asked_for_then_longer_than_drain_and_flush():
    server = Config().server
    assert workload("deployment")["terminationGracePeriodSeconds"] >= 30 + server.drain_s + server.flush_s


@pytest.mark.parametrize("file", ["base/sidegate.yaml", "hub/sidegate.yaml"])
def test_configuration_when_checked_then_without_a_mistake_once_its_secrets_are_there(file, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("provider-api-key", "database-url", "admin-key"):
        (secrets / name).write_text("postgresql://a:b@c/d" if name == "database-url" else "k" * 40)
    text = (K8S / file).read_text().replace("/etc/sidegate/secrets", str(secrets))
    (tmp_path / "sidegate.yaml").write_text(text)
    loaded = load(tmp_path / "sidegate.yaml", {}, {})
    assert loaded.config.database.migrate_on_start is False
    assert not loaded.demo


def test_image_tag_when_released_then_it_is_the_version_of_the_project():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    tags = {match for path in K8S.rglob("*.yaml") for match in re.findall(r"image: sidegate:(\S+)", path.read_text())}
    assert tags == {version}


def queries():
    """Every query of alerts and dashboards, by the name of who asks."""
    (group,) = yaml.safe_load((OBSERVABILITY / "prometheusrule.yaml").read_text())["spec"]["groups"]
    yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    board = json.loads((OBSERVABILITY / "dashboards" / "sidegate.json").read_text())
    yield from ((panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"])


def sample_names():
    """Every name of a sample that a process can show: each family is named once in the code, with its endings here."""
    names = set(re.findall(r'"(sidegate_[a-z_]+)"', "".join(p.read_text() for p in (ROOT / "proxy").rglob("*.py"))))
    return {name + ending for name in names for ending in ("", "_total", "_bucket", "_count", "_sum")}


def test_queries_when_asked_then_only_of_metrics_that_exist():
    known = sample_names()
    for who, query in queries():
        asked = set(re.findall(r"sidegate_[a-z_]+", query))
        assert asked and asked <= known, (who, asked - known)


def test_dashboard_when_opened_then_every_panel_has_a_query_and_none_lies_on_another():
    board = json.loads((OBSERVABILITY / "dashboards" / "sidegate.json").read_text())
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["targets"] and panel["title"]


def test_rules_when_promtool_is_there_then_it_accepts_them_and_they_fire(tmp_path):
    spec = yaml.safe_load((OBSERVABILITY / "prometheusrule.yaml").read_text())["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    alerts = {rule["alert"]: rule for rule in spec["groups"][0]["rules"]}
    assert {rule["labels"]["severity"] for rule in alerts.values()} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in alerts.values())
    cases = [
        (
            "SidegateRecordsDropped",
            'sidegate_records_dropped_total{pod="p",kind="content",reason="space"}',
            "_x6 1+0x20",
        ),
        ("SidegateOverspend", 'sidegate_quota_overspend_units_total{pod="p",dimension="tokens"}', "0x10 5+0x20"),
        ("SidegateDatabaseDown", 'sidegate_database_up{pod="p"}', "1x5 0x20"),
        ("SidegateUpstreamUnusable", 'sidegate_upstream_usable{pod="p",upstream="a",credential="0"}', "1x3 0x20"),
        ("SidegateNoUpstreamUsable", 'sidegate_upstream_usable{pod="p",upstream="a",credential="0"}', "1x9 0x20"),
        ("SidegateKeysOld", 'sidegate_keys_age_seconds{pod="p"}', "0+400x30"),
        ("SidegateAccountingMismatch", 'sidegate_records_unaccounted{pod="p",before="database"}', "0 0 2x20"),
        ("SidegateConfigurationRefused", 'sidegate_config_last_reload_successful{pod="p"}', "1 0x20"),
        ("SidegateSpansDropped", 'sidegate_otel_spans_dropped_total{pod="p",reason="refused"}', "0x5 9x20"),
        ("SidegateJournalOld", 'sidegate_journal_oldest_seconds{pod="p"}', "0+60x30"),
    ]
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values}],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                        "eval_time": "15m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            }
            for name, series, values in cases
        ],
    }
    assert {name for name, _, _ in cases} <= alerts.keys()
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promtool = shutil.which("promtool")
    if promtool is None:
        return  # `.ci/run` says how to get it
    for command in (("check", "rules", "rules.yaml"), ("test", "rules", "tests.yaml")):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_hub_when_a_node_is_drained_then_one_replica_stays():
    found = {document["kind"]: document["spec"] for document in overlay(K8S / "hub") if "spec" in document}
    deployment, budget = found["Deployment"], found["PodDisruptionBudget"]
    assert budget["selector"] == deployment["selector"]
    assert deployment["replicas"] > budget["maxUnavailable"] == 1


def test_network_policies_when_pgbouncer_is_put_between_then_sidecars_and_hub_reach_it():
    policies = [
        d for place in ("hub", "examples/deployment") for d in overlay(K8S / place) if d["kind"] == "NetworkPolicy"
    ]
    assert len(policies) == 2
    for policy in policies:
        ports = {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}
        assert {53, 5432, 6432} <= ports


@pytest.mark.parametrize("place", ["examples/deployment", "hub"])
def test_pod_monitors_when_observability_is_added_then_they_find_the_pods_and_their_port(place):
    monitors = list(yaml.safe_load_all((OBSERVABILITY / "podmonitor.yaml").read_text()))
    [deployment] = [d for d in overlay(K8S / place) if d["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]
    ports = {p["name"] for c in _containers(pod["spec"]) for p in c.get("ports", [])}
    found = [m for m in monitors if _selects(m["spec"]["selector"], pod["metadata"]["labels"])]
    assert len(found) == 1
    assert {endpoint["port"] for endpoint in found[0]["spec"]["podMetricsEndpoints"]} <= ports


def _containers(spec):
    return [*spec["containers"], *spec.get("initContainers", [])]


def _selects(selector, labels):
    wanted = [(e["key"], e["values"]) for e in selector.get("matchExpressions", [])]
    wanted += [(key, [value]) for key, value in selector.get("matchLabels", {}).items()]
    return all(labels.get(key) in values for key, values in wanted)
