"""What a Prometheus gets from a running process, and whether alerts and dashboards ask for what is there.

Where Prometheus is installed it scrapes and answers itself; `.ci/run` fetches it where it can.
"""

import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.manifests import K8S
from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import script, whole
from tests.fakes.wire import exchange, post

OBSERVABILITY = K8S / "components" / "observability"
CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
ADDED = {"namespace", "pod", "instance", "le"}
"""Labels that Prometheus adds, and that of buckets."""


def queries() -> list[tuple[str, str]]:
    (group,) = yaml.safe_load((OBSERVABILITY / "prometheusrule.yaml").read_text())["spec"]["groups"]
    asked = [(rule["alert"], rule["expr"]) for rule in group["rules"]]
    for file in sorted((OBSERVABILITY / "dashboards").glob("*.json")):
        panels = json.loads(file.read_text())["panels"]
        asked += [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]
    return asked


@pytest.fixture(scope="module")
def proxy(
    provider: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidegate]:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "SIDEGATE__METRICS__GEN_AI": "true"}
    running = Sidegate(tmp_path_factory.mktemp("metrics"), provider.base_url, session_database_url, settings).start()
    yield running
    running.stop()


async def use(proxy: Sidegate, provider: Provider, case: str) -> None:
    provider.on(f"{case}-fails", script(whole(b"{}", status="503 Service Unavailable")))
    for name, body in (("good", CHAT), ("fails", CHAT), ("stream", CHAT[:-1] + b',"stream":true}'), ("bad", b"{")):
        await exchange(proxy.address, post("/v1/chat/completions", body, case=f"{case}-{name}"))


async def test_queries_when_a_process_has_worked_then_every_metric_and_label_they_name_is_there(
    proxy: Sidegate, provider: Provider, case: str
) -> None:
    await use(proxy, provider, case)
    families = list(text_string_to_metric_families(proxy.ops("/metrics")[1]))
    shown: dict[str, set[str]] = {}
    for family in families:
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        shown |= {family.name + end: set() for end in ends}
        for sample in family.samples:
            shown.setdefault(sample.name, set()).update(sample.labels)
    for who, query in queries():
        asked = re.findall(r"(sidegate_[a-z_]+|gen_ai_[a-z_]+)(?:\{([^}]*)\})?", query)
        assert asked, who
        for name, matchers in asked:
            assert name in shown, f"{who} asks for {name}"
            grouped = re.findall(r"\bby \(([^)]*)\)", query)
            labels = {label.strip() for part in grouped for label in part.split(",")}
            labels |= set(re.findall(r"([a-z_]+)\s*(?:=~?|!~?)", matchers))
            missing = labels - ADDED - shown[name]
            assert not missing or not shown[name], f"{who} asks {name} for {missing}"


async def test_accounting_when_all_is_stored_then_nothing_is_missing(
    proxy: Sidegate, provider: Provider, case: str
) -> None:
    await use(proxy, provider, case)
    eventually(lambda: proxy.metrics()["sidegate_records_stored_total"] >= 4, within_s=20)
    places = [f'sidegate_records_unaccounted{{before="{where}"}}' for where in ("journal", "database")]
    eventually(lambda: all(proxy.metrics()[place] == 0 for place in places), within_s=10)
    assert proxy.metrics()["sidegate_keys_age_seconds"] < 60


async def test_prometheus_when_it_scrapes_then_alerts_and_dashboards_get_answers(
    proxy: Sidegate, provider: Provider, case: str, tmp_path: Path
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        return  # `.ci/run` says how to get it
    target = f"{proxy.ops_address[0]}:{proxy.ops_address[1]}"
    spec = yaml.safe_load((OBSERVABILITY / "prometheusrule.yaml").read_text())["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    labels = {"namespace": "shop", "pod": "app-1"}
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "s", "static_configs": [{"targets": [target], "labels": labels}]}],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with running_prometheus(program, tmp_path) as server:
        await use(proxy, provider, case)
        eventually(lambda: server.ask("count_over_time(up[1m]) >= 3"), within_s=30)
        await use(proxy, provider, f"{case}-again")
        eventually(lambda: server.ask('sum(rate(sidegate_requests_total{operation!="x"}[10s])) > 0'), within_s=15)
        for who, query in queries():
            query = query.replace("$namespace", "shop").replace("$__rate_interval", "10s")
            assert server.ask(query) or who.startswith("Sidegate"), f"{who} is empty: {query}"
        firing = {alert["metric"]["alertname"] for alert in server.ask("ALERTS")}
    assert firing <= {"SidegateUpstreamFailing", "SidegateSpansDropped"}


class running_prometheus:
    """A Prometheus of our own; `ask` answers a query."""

    def __init__(self, program: str, directory: Path) -> None:
        self.command = [program, f"--config.file={directory / 'prometheus.yaml'}"]
        with socket.create_server(("127.0.0.1", 0)) as free:  # it does not tell which port it took
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.command += [f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address={address}"]
        self.url = f"http://{address}"
        self.log = directory / "prometheus.log"

    def __enter__(self) -> "running_prometheus":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        eventually(self._is_ready, within_s=30)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready") as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        parameters = urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{parameters}") as got:
                answer = json.load(got)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read()!r}") from error
        assert answer["status"] == "success"
        return list(answer["data"]["result"])
