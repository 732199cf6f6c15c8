"""The dashboard CTMS Telemetry: traffic, errors, latency and background work of the service."""

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
    _stat("Requests per second", "Requests per second, without health checks and metrics.", _q(_REQUESTS), "reqps"),
    _stat(
        "Error rate",
        "Share of requests that got a 5xx response.",
        _q(f"{_ERRORS} / {_REQUESTS}"),
        "percentunit",
        (("red", 0.05),),
    ),
    _stat(
        "95th percentile",
        "Latency that 95 % of requests do not exceed.",
        _q(f"histogram_quantile(0.95, sum by (le) ({_DURATIONS}))"),
        "s",
        (("orange", 0.5), ("red", 5)),
    ),
    _stat(
        "Contacts",
        "Contacts in the database, as estimated by its planner.",
        _q("max(ctms_contacts_total{ENV})"),
    ),
    _stat(
        "Instances up",
        "API instances and workers that respond to Prometheus.",
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
        "Requests per second, by class of status code.",
        [_q("sum by (status_code_family) (rate(ctms_requests_total{ENV, API}[R]))", "{{status_code_family}}")],
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Requests by route",
        "Requests per second, by method and route; `unmatched` are paths without a route.",
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
        "Errors by status",
        "4xx and 5xx responses per second, by status code.",
        [_q('sum by (status_code) (rate(ctms_requests_total{ENV, API, status_code=~"[45].."}[R]))', "{{status_code}}")],
        unit="reqps",
    ),
    Panel(
        "Latency distribution",
        "Number of requests in each latency bucket.",
        [_q("sum by (le) (increase(ctms_requests_duration_seconds_bucket{ENV, API}[R]))", "{{le}}")],
        "heatmap",
    ),
    Panel(
        "Latency percentiles",
        "Latency that 50 %, 95 % and 99 % of requests do not exceed.",
        [
            _q(f"histogram_quantile({share}, sum by (le) ({_DURATIONS}))", legend)
            for share, legend in ((0.5, "50 %"), (0.95, "95 %"), (0.99, "99 %"))
        ],
        unit="s",
    ),
    Panel(
        "95th percentile by route",
        "95th percentile of latency, by method and route.",
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
        "Requests per second of each API client, identified by its token.",
        [_q("sum by (client_id) (rate(ctms_api_requests_total{ENV}[R]))", "{{client_id}}")],
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Errors by client",
        "4xx and 5xx responses per second, by API client.",
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
        "Rate-limited requests",
        "Requests per second refused with 429 because of a rate limit, by API client.",
        [_q("sum by (client_id) (rate(ctms_rate_limited_requests_total{ENV}[R]))", "{{client_id}}")],
        unit="reqps",
        width=4,
    ),
    Panel(
        "Token failures",
        "Failed requests to `/token` per second, by cause.",
        [_q("sum by (cause) (rate(ctms_token_failures_total{ENV}[R]))", "{{cause}}")],
        unit="reqps",
        width=4,
    ),
    Panel(
        "Authorization failures",
        "Requests per second refused for a token or a missing permission, by cause.",
        [_q("sum by (cause) (rate(ctms_auth_failures_total{ENV}[R]))", "{{cause}}")],
        unit="reqps",
        width=4,
    ),
]

_DATABASE_PANELS = [
    Panel(
        "Connections",
        "Connections in use, requests waiting for one, and the limit of connections.",
        [
            _q("sum by (state) (ctms_database_connections{ENV})", "{{state}}"),
            _q("sum(ctms_database_connections_limit{ENV})", "limit"),
        ],
    ),
    Panel(
        "Time in the database",
        "Seconds per second that all requests together wait for PostgreSQL.",
        [_q("sum by (kind) (rate(ctms_database_seconds_sum{ENV}[R]))", "{{kind}}")],
        width=4,
    ),
    Panel(
        "Connection timeouts",
        "Requests per second that timed out waiting for a connection (503).",
        [_q("sum by (instance) (rate(ctms_database_connection_timeouts_total{ENV}[R]))", "{{instance}}")],
        unit="reqps",
        width=4,
    ),
    Panel(
        "Contacts over time",
        "Contacts in the database, as estimated by its planner.",
        [_q("max(ctms_contacts_total{ENV})", "contacts")],
        from_zero=False,
    ),
]

_PLUGIN_PANELS = [
    Panel(
        "Waitlist rule time",
        "95th percentile of the time that a plugin's waitlist rules take for one subscription.",
        [
            _q(
                "histogram_quantile(0.95, sum by (le, plugin) (rate(ctms_waitlist_rules_seconds_bucket{ENV}[R])))",
                "{{plugin}}",
            )
        ],
        unit="s",
    ),
    Panel(
        "Waitlist rule errors",
        "Unexpected errors in the waitlist rules of plugins per minute; each failed a request.",
        [_q("sum by (plugin) (rate(ctms_waitlist_rules_failures_total{ENV}[R])) * 60", "{{plugin}}")],
    ),
    Panel(
        "Unavailable newsletters",
        "New subscriptions per minute to newsletters that are unknown or retired, while `CTMS_NEWSLETTERS` is warn or"
        " enforce.",
        [
            _q(
                "sum by (cause, outcome) (rate(ctms_unavailable_newsletter_subscriptions_total{ENV}[R])) * 60",
                "{{cause}}, {{outcome}}",
            )
        ],
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
        "Contacts pending for each backend.",
        [_q("max by (backend) (ctms_background_sync_backlog{ENV})", "{{backend}}")],
    ),
    Panel(
        "Oldest pending contact",
        "Age of the oldest pending contact of each backend.",
        [_q("max by (backend) (ctms_background_sync_age_seconds{ENV})", "{{backend}}")],
        unit="s",
        thresholds=[("orange", 900)],
    ),
    Panel(
        "Parked and retried",
        "Parked contacts, and contacts that wait for a retry.",
        [
            _q("max by (backend) (ctms_background_sync_parked{ENV})", "{{backend}} parked"),
            _q("max by (backend) (ctms_background_sync_retries{ENV})", "{{backend}} retried"),
        ],
    ),
    Panel(
        "Contacts pushed",
        "Contacts pushed to backends per second, by outcome.",
        [_q("sum by (backend, status) (rate(ctms_background_sync_total{ENV}[R]))", "{{backend}} {{status}}")],
        unit="cps",
    ),
    Panel(
        "Calls",
        "Calls to backends and deletion handlers per second, by outcome.",
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
        "95th percentile of the duration of calls to backends and deletion handlers.",
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
        "Time since last loop",
        "Time since each worker last polled for work.",
        [_q("time() - ctms_background_last_loop_timestamp_seconds{ENV}", "{{instance}}")],
        unit="s",
        thresholds=[("red", 300)],
    ),
    Panel(
        "Retention",
        "Time since the retention rules were applied completely, in days.",
        [_q("(time() - max(ctms_retention_last_success_timestamp_seconds{ENV})) / 86400", "days")],
        thresholds=[("orange", 8)],
    ),
    Panel(
        "Metrics files",
        "Size of the metrics files of each instance.",
        [_q("max by (instance) (ctms_metrics_files_bytes{ENV})", "{{instance}}")],
        unit="bytes",
        thresholds=[("orange", 256 * MIB)],
    ),
]

_IN_RANGE = "$timeFilter AND \"environment\" = '$environment'"
_YEAR_PANELS = [
    Panel(
        "Requests by day",
        "Requests of each API client per day. Select a range of weeks.",
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
        "Highest number of contacts in the database on each day, as estimated by its planner.",
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
    "Requests, clients, database, erasures and background work of the contact service.",
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
