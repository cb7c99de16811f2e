"""The manifests as a cluster would get them, with and without kubectl.

`overlay` is what `kubectl kustomize` prints where kubectl is installed. Without it the few things that the examples use
are done here: resources, components, and patches that add list items by name, each before what is there already.
"""

import copy
import fnmatch
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "deploy" / "k8s"
KUBECTL = shutil.which("kubectl")

Document = dict[str, Any]


@cache
def overlay(directory: Path) -> list[Document]:
    """Everything that applying a directory creates. Not to be changed."""
    return by_kubectl(directory) if KUBECTL else by_hand(directory)


@cache
def by_kubectl(directory: Path) -> list[Document]:
    assert KUBECTL
    done = subprocess.run([KUBECTL, "kustomize", str(directory)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def by_hand(directory: Path) -> list[Document]:
    return _built(directory, [])


def _built(directory: Path, given: list[Document]) -> list[Document]:
    plan = yaml.safe_load((directory / "kustomization.yaml").read_text())
    documents = copy.deepcopy(given)
    for resource in plan.get("resources", []):
        path = directory / resource
        documents += _built(path, []) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for entry in plan.get("configMapGenerator", []):
        data = {Path(name).name: (directory / name).read_text() for name in entry["files"]}
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": entry["name"]}, "data": data})
    for component in plan.get("components", []):
        documents = _built(directory / component, documents)
    for patch in plan.get("patches", []):
        for document in documents:
            if _is_target(document, patch["target"]):
                _apply(document, directory, patch)
    return documents


def _is_target(document: Document, target: dict[str, str]) -> bool:
    key, value = target["labelSelector"].split("=")
    labels = document["metadata"].get("labels", {})
    return document["kind"] == target["kind"] and fnmatch.fnmatch(labels.get(key, ""), value)


def _apply(document: Document, directory: Path, patch: dict[str, Any]) -> None:
    if "path" in patch:
        changes = yaml.safe_load((directory / patch["path"]).read_text())
        _merge(document["spec"]["template"]["spec"], changes["spec"]["template"]["spec"])
        return
    (step,) = yaml.safe_load(patch["patch"])
    assert step["op"] == "add"
    document["spec"]["template"]["spec"][step["path"].rpartition("/")[2]] = step["value"]


def _merge(spec: Document, changes: Document) -> None:
    for name, items in changes.items():
        spec[name] = [*items, *spec.get(name, [])]
