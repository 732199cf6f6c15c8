"""The dashboard CTMS Telemetry: what the service does."""

from __future__ import annotations

from tools.dashboards.grafana import Dashboard, InfluxQuery, Panel, Query
from tools.dashboards.queries import query as _q

DAY = 86400.0
MIB = 1024.0**2


def _stat(
    title: str, description: str, query: Query, unit: str = "short", thresholds: tuple[tuple[str, float], ...] = ()
) -> Panel:
    return Panel(title, description, [query], "stat", unit, width=4, height=4, thresholds=thresholds)


_ERRORS = 'sum(rate(ctms_requests_total{ENV, API, status_code_family="5xx"}[R]))'
_REQUESTS = "sum(rate(ctms_requests_total{ENV, API}[R]))"
_DURATIONS = "rate(ctms_requests_duration_seconds_bucket{ENV, API}[R])"

_AT_A_GLANCE = [
    _stat("Requests per second", "Requests per second, without those for health and metrics.", _q(_REQUESTS), "reqps"),
    _stat(
        "Failing",
        "The share of requests that is answered with 5xx.",
        _q(f"{_ERRORS} / {_REQUESTS}"),
        "percentunit",
        (("red", 0.05),),
    ),
    _stat(
        "95th percentile",
        "Nineteen of twenty requests take no longer than this.",
        _q(f"histogram_quantile(0.95, sum by (le) ({_DURATIONS}))"),
        "s",
        (("orange", 0.5), ("red", 5)),
    ),
    _stat(
        "Contacts",
        "Contacts that the database holds, as its planner estimates.",
        _q("max(ctms_contacts_total{ENV})"),
    ),
    _stat(
        "Instances up",
        "Instances of the API, and workers, that answer Prometheus.",
        _q('sum by (job) (up{ENV, job=~"ctms-.*"})', "{{job}}"),
    ),
    _stat(
        "Open erasures",
        "Erasures that a deletion handler or backend has not finished.",
        _q("max(ctms_erasures_open{ENV})"),
    ),
]

_REQUEST_PANELS = [
    Panel(
        "Requests by status",
        "Requests per second by the first digit of their status.",
        [_q("sum by (status_code_family) (rate(ctms_requests_total{ENV, API}[R]))", "{{status_code_family}}")],
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Requests by route",
        "Requests per second by method and route; `unmatched` are paths that no route has.",
        [
            _q(
                "sum by (method, path_template) (rate(ctms_requests_total{ENV, API}[R])) > 0",
                "{{method}} {{path_template}}",
            )
        ],
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Refused and failed by status",
        "Requests per second that are answered with 4xx or 5xx.",
        [_q('sum by (status_code) (rate(ctms_requests_total{ENV, API, status_code=~"[45].."}[R]))', "{{status_code}}")],
        unit="reqps",
    ),
    Panel(
        "Durations",
        "How many requests take how long.",
        [_q("sum by (le) (increase(ctms_requests_duration_seconds_bucket{ENV, API}[R]))", "{{le}}")],
        "heatmap",
    ),
    Panel(
        "Percentiles",
        "The times within which half, 95 % and 99 % of the requests are answered.",
        [
            _q(f"histogram_quantile({share}, sum by (le) ({_DURATIONS}))", legend)
            for share, legend in ((0.5, "50 %"), (0.95, "95 %"), (0.99, "99 %"))
        ],
        unit="s",
    ),
    Panel(
        "95th percentile by route",
        "Which routes are slow.",
        [
            _q(
                f"histogram_quantile(0.95, sum by (le, method, path_template) ({_DURATIONS})) > 0",
                "{{method}} {{path_template}}",
            )
        ],
        unit="s",
    ),
]

_CLIENT_PANELS = [
    Panel(
        "Requests by client",
        "Requests per second of each API client, as its token proves it.",
        [_q("sum by (client_id) (rate(ctms_api_requests_total{ENV}[R]))", "{{client_id}}")],
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Refused and failed by client",
        "Requests per second that are answered with 4xx or 5xx, by API client.",
        [
            _q(
                "sum by (client_id, status_code_family)"
                ' (rate(ctms_api_requests_total{ENV, status_code_family=~"[45]xx"}[R]))',
                "{{client_id}} {{status_code_family}}",
            )
        ],
        unit="reqps",
    ),
    Panel(
        "Tokens not given",
        "Requests per second at `/token` that got none, by cause.",
        [_q("sum by (cause) (rate(ctms_token_failures_total{ENV}[R]))", "{{cause}}")],
        unit="reqps",
        width=4,
    ),
    Panel(
        "Callers not let in",
        "Requests per second that were refused for their token or for a permission, by cause.",
        [_q("sum by (cause) (rate(ctms_auth_failures_total{ENV}[R]))", "{{cause}}")],
        unit="reqps",
        width=4,
    ),
]

_DATABASE_PANELS = [
    Panel(
        "Connections",
        "Connections that requests use, requests that wait for one, and how many connections there may be.",
        [
            _q("sum by (state) (ctms_database_connections{ENV})", "{{state}}"),
            _q("sum(ctms_database_connections_limit{ENV})", "limit"),
        ],
    ),
    Panel(
        "Time in the database",
        "Seconds of each second that requests wait for PostgreSQL, all of them together.",
        [_q("sum by (kind) (rate(ctms_database_seconds_sum{ENV}[R]))", "{{kind}}")],
        width=4,
    ),
    Panel(
        "Waited in vain",
        "Requests per second that waited for a connection and got none: 503.",
        [_q("sum by (instance) (rate(ctms_database_connection_timeouts_total{ENV}[R]))", "{{instance}}")],
        unit="reqps",
        width=4,
    ),
    Panel(
        "Contacts over time",
        "Contacts that the database holds, as its planner estimates.",
        [_q("max(ctms_contacts_total{ENV})", "contacts")],
        from_zero=False,
    ),
]

_PLUGIN_PANELS = [
    Panel(
        "Time of waitlist rules",
        "95th percentile of the time that the waitlist rules of each plugin take for one subscription.",
        [
            _q(
                "histogram_quantile(0.95, sum by (le, plugin) (rate(ctms_waitlist_rules_seconds_bucket{ENV}[R])))",
                "{{plugin}}",
            )
        ],
        unit="s",
    ),
    Panel(
        "Faults of waitlist rules",
        "Unexpected errors of the waitlist rules of plugins in each minute: each failed a request.",
        [_q("sum by (plugin) (rate(ctms_waitlist_rules_failures_total{ENV}[R])) * 60", "{{plugin}}")],
    ),
    Panel(
        "Oldest open erasure",
        "Age of the oldest erasure that a deletion handler or backend has not finished.",
        [_q("max(ctms_erasures_oldest_seconds{ENV})", "oldest")],
        unit="s",
        thresholds=[("orange", 25 * DAY), ("red", 28 * DAY)],
    ),
]

_BACKGROUND_PANELS = [
    Panel(
        "Backlog",
        "Contacts that each backend is still to be told of.",
        [_q("max by (backend) (ctms_background_sync_backlog{ENV})", "{{backend}}")],
    ),
    Panel(
        "Oldest waiting",
        "How long the oldest of them has waited.",
        [_q("max by (backend) (ctms_background_sync_age_seconds{ENV})", "{{backend}}")],
        unit="s",
        thresholds=[("orange", 900)],
    ),
    Panel(
        "Parked and tried again",
        "Contacts that a backend refused, and those that wait for another try.",
        [
            _q("max by (backend) (ctms_background_sync_parked{ENV})", "{{backend}} parked"),
            _q("max by (backend) (ctms_background_sync_retries{ENV})", "{{backend}} tried again"),
        ],
    ),
    Panel(
        "Contacts told",
        "Contacts per second that backends were told of, by what came of it.",
        [_q("sum by (backend, status) (rate(ctms_background_sync_total{ENV}[R]))", "{{backend}} {{status}}")],
        unit="cps",
    ),
    Panel(
        "Calls",
        "Calls per second to backends and deletion handlers.",
        [
            _q(
                "sum by (backend, method, status) (rate(ctms_background_requests_total{ENV}[R]))",
                "{{backend}} {{method}} {{status}}",
            )
        ],
        unit="reqps",
    ),
    Panel(
        "95th percentile of calls",
        "How long backends and deletion handlers take to answer.",
        [
            _q(
                "histogram_quantile(0.95,"
                " sum by (le, backend, method) (rate(ctms_background_requests_duration_seconds_bucket{ENV}[R])))",
                "{{backend}} {{method}}",
            )
        ],
        unit="s",
    ),
    Panel(
        "Since the last loop",
        "How long ago each worker last looked for work.",
        [_q("time() - ctms_background_last_loop_timestamp_seconds{ENV}", "{{instance}}")],
        unit="s",
        thresholds=[("red", 300)],
    ),
    Panel(
        "Files of the metrics",
        "What the files take in which the processes of an instance add up their metrics.",
        [_q("max by (instance) (ctms_metrics_files_bytes{ENV})", "{{instance}}")],
        unit="bytes",
        thresholds=[("orange", 256 * MIB)],
    ),
]

_IN_RANGE = "$timeFilter AND \"environment\" = '$environment'"
_YEAR_PANELS = [
    Panel(
        "Requests by day",
        "Requests of each API client by day. Choose a range of weeks.",
        [
            InfluxQuery(
                'SELECT sum("more") FROM (SELECT non_negative_difference(max("value")) AS "more"'
                f' FROM "ctms_api_requests_total" WHERE {_IN_RANGE} GROUP BY time($__interval), *)'
                ' WHERE $timeFilter GROUP BY time($__interval), "client_id" fill(none)',
                "$tag_client_id",
            )
        ],
        width=12,
        bars=True,
    ),
    Panel(
        "Contacts by day",
        "The most contacts that the database held on each day, as its planner estimates.",
        [
            InfluxQuery(
                f'SELECT max("value") FROM "ctms_contacts_total" WHERE {_IN_RANGE}'
                " GROUP BY time($__interval) fill(none)",
                "contacts",
            )
        ],
        width=12,
        bars=True,
    ),
]

TELEMETRY = Dashboard(
    "ctms-telemetry",
    "CTMS Telemetry",
    "What the contact service does: its requests, clients, database, erasures and background work.",
    [
        ("At a glance", _AT_A_GLANCE),
        ("Requests and their times", _REQUEST_PANELS),
        ("API clients", _CLIENT_PANELS),
        ("Database", _DATABASE_PANELS),
        ("Plugins and erasures", _PLUGIN_PANELS),
        ("Background service", _BACKGROUND_PANELS),
        ("The year, from InfluxDB", _YEAR_PANELS),
    ],
)
