"""Measure what the choice of a model costs: microseconds of phase 4, and decisions in a second.

The planner alone, in this process, by the processor's time, for one caller with money left: a model named by the
client; `auto` for a short and for a long message; and `auto` where the project bounds what a request may cost.

Run it with `python -m bench.decision`; `--help` tells the knobs. Exit code 1: a target is missed.
"""

import argparse
import json
import random
import statistics
import sys
import time

from proxy.config.layers import load as load_layers
from proxy.config.project import DEFAULT, ProjectSettings, parse
from proxy.config.schema import Config, Limits, Prices
from proxy.exchange import Inbound, ParsedRequest, Principal
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.phases.planner import Planner
from proxy.routing.catalogue import Catalogue
from proxy.routing.health import Health
from proxy.upstream.pricing import load as load_prices

MOST_US = 100.0
TARGETS = f"targets: median < {MOST_US:.0f} us and so 10,000 decisions a second, in every case"
_PATH = "/v1/chat/completions"
_WHO = Principal("alice", "shop", "header")
_SENTENCE = "The parcel was to come on Tuesday, and the tracking page has said the same thing for four days now. "
_BOUNDED = parse({"routing": {"maxLayer": "L2", "maxCostPerRequest": 0.5}})[0]
_CASES = {
    "model named by the client": ("gpt-4o", 120, DEFAULT),
    "auto, 120 bytes": ("auto", 120, DEFAULT),
    "auto, 20 KB": ("auto", 20_000, DEFAULT),
    "auto, 120 bytes, bounded cost": ("auto", 120, _BOUNDED),
    "auto, 20 KB, bounded cost": ("auto", 20_000, _BOUNDED),
}


class _MoneyLeft:
    """Quotas of which only the money left is asked."""

    def left_nanos(self, _principal: Principal) -> int:
        return 10_000_000_000


def _asked(model: str, size: int) -> tuple[Inbound, ParsedRequest]:
    text = (_SENTENCE * (size // len(_SENTENCE) + 1))[:size]
    messages = [{"role": "system", "content": "You are the support desk of a shop."}, {"role": "user", "content": text}]
    body = json.dumps({"model": model, "messages": messages}).encode()
    operation = match("POST", _PATH, False)
    inbound = Inbound("POST", _PATH, _PATH, (), {}, operation, None, len(body), True)
    return inbound, parse_json(body, operation, limits=Limits(), force_stream_usage=True)


def _planner() -> Planner:
    config = Config()
    return Planner(
        config,
        catalogue=Catalogue(config.providers, load_layers(None, config.providers)),
        health=Health(config.providers, config.routing.breaker, random.random),
        prices=load_prices(None, Prices()),
        quotas=_MoneyLeft(),  # type: ignore[arg-type]  # of the quotas only this is asked
    )


def decisions_us(planner: Planner, model: str, size: int, project: ProjectSettings, rounds: int) -> list[float]:
    """Return the processor's time for each decision in microseconds."""
    inbound, request = _asked(model, size)
    times = []
    for _ in range(rounds):
        begun = time.thread_time_ns()
        planner.plan(inbound, request, _WHO, project)
        times.append((time.thread_time_ns() - begun) / 1000)
    return times


def main(options: argparse.Namespace) -> int:
    print(TARGETS)
    planner, worst = _planner(), 0.0
    for name, (model, size, project) in _CASES.items():
        decisions_us(planner, model, size, project, 200)
        times = decisions_us(planner, model, size, project, options.rounds)
        median = statistics.median(times)
        worst = max(worst, median)
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"{name:30} median {median:6.1f} us, p99 {p99:6.1f} us, {1e6 / median:8.0f}/s")
    return 0 if worst < MOST_US else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bench.decision", description=__doc__.split("\n\n")[0])
    made.add_argument("--rounds", type=int, default=2000, help="decisions of each case (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
