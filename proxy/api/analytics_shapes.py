"""JSON schemas of what `api.analytics_documents` builds; the tests hold every response to them."""

from typing import Final

from proxy.api.shapes import DAY, INTEGER, MOMENT, NUMBER, TEXT, Schema, array, by_name, nullable, obj

_RANGE: Final = obj(start=MOMENT, end=MOMENT)
_TOKENS: Final = obj(input=INTEGER, output=INTEGER, total=INTEGER)
_AVERAGE: Final = nullable(NUMBER)
_PERCENTILES: Final = obj(count=INTEGER, p50=nullable(NUMBER), p95=nullable(NUMBER), p99=nullable(NUMBER))
_MEASURES: Final = {"durationMs": _PERCENTILES, "firstByteMs": _PERCENTILES}
_FIGURES: Final = obj(requests=INTEGER, tokens=INTEGER, cost=NUMBER)

USAGE: Final = obj(
    "Usage",
    timeRange=_RANGE,
    totalRequests=INTEGER,
    totalTokens=_TOKENS,
    totalCost=NUMBER,
    breakdown=obj(
        byLayer=by_name(obj(requests=INTEGER, tokens=INTEGER, cost=NUMBER, avgDurationMs=_AVERAGE, successRate=NUMBER)),
        byModel=by_name(obj(requests=INTEGER, tokens=_TOKENS, cost=NUMBER, avgDurationMs=_AVERAGE, errors=INTEGER)),
        byDay=array(obj(date=DAY, requests=INTEGER, tokens=INTEGER, cost=NUMBER, avgDurationMs=_AVERAGE)),
    ),
)
ERROR_RATE: Final = obj(
    "ErrorRate",
    timeRange=_RANGE,
    totalRequests=INTEGER,
    errors=INTEGER,
    rejected=INTEGER,
    aborted=INTEGER,
    errorRate=NUMBER,
    byModel=by_name(obj(requests=INTEGER, calls=INTEGER, errors=INTEGER, errorRate=NUMBER)),
    byDay=array(obj(date=DAY, requests=INTEGER, errors=INTEGER, errorRate=NUMBER)),
)
_POINTS: Final = array(
    obj(date=DAY, requests=INTEGER, calls=INTEGER, errors=INTEGER, tokens=_TOKENS, cost=NUMBER, avgDurationMs=_AVERAGE)
)
SERIES: Final = obj("Series", timeRange=_RANGE, series=array(obj(name=TEXT, points=_POINTS)), other=_POINTS)
LATENCY: Final = obj(
    "Latency", timeRange=_RANGE, **_MEASURES, byLayer=by_name(obj(**_MEASURES)), byModel=by_name(obj(**_MEASURES))
)
CACHE: Final = obj(
    "CacheHits",
    timeRange=_RANGE,
    totalRequests=INTEGER,
    cacheHits=INTEGER,
    hitRate=NUMBER,
    byDay=array(obj(date=DAY, requests=INTEGER, cacheHits=INTEGER, hitRate=NUMBER)),
)
FINDINGS: Final = obj(
    "PolicyFindings",
    timeRange=_RANGE,
    findings=array(
        obj(
            rule=nullable(TEXT),
            category=nullable(TEXT),
            action=nullable(TEXT),
            direction=nullable(TEXT),
            findings=INTEGER,
            requests=INTEGER,
        )
    ),
)
EXPENSIVE: Final = obj(
    "DearestRequests",
    timeRange=_RANGE,
    requests=array(
        obj(
            traceId=TEXT,
            createdAt=MOMENT,
            projectId=nullable(TEXT),
            userId=nullable(TEXT),
            requestType=nullable(TEXT),
            model=nullable(TEXT),
            outcome=nullable(TEXT),
            calls=INTEGER,
            tokens=_TOKENS,
            cost=NUMBER,
            durationMs=nullable(NUMBER),
        )
    ),
)
CHECKED: Final = obj(
    "Checked",
    day=DAY,
    projects=array(obj(projectId=nullable(TEXT), differences=INTEGER, kept=_FIGURES, counted=_FIGURES)),
)


def shares(title: str, list_name: str, member: str) -> Schema:
    """Return the answer that lists users or projects by what they spent."""
    one = obj(
        **{member: nullable(TEXT)},
        requests=INTEGER,
        calls=INTEGER,
        errors=INTEGER,
        rejected=INTEGER,
        aborted=INTEGER,
        cacheHits=INTEGER,
        tokens=obj(input=INTEGER, output=INTEGER, total=INTEGER, cachedInput=INTEGER),
        cost=NUMBER,
        avgDurationMs=_AVERAGE,
    )
    return obj(title, **{"timeRange": _RANGE, list_name: array(one)})
