"""The dashboard CTMS Alerts: firing alerts, their history, and the distance of each from its threshold."""

from __future__ import annotations

from collections.abc import Sequence

from tools.dashboards.grafana import Dashboard, Panel, Query
from tools.dashboards.queries import query as _q

DAY = 86400.0
MIB = 1024.0**2

# Alerts about Prometheus itself have no environment.
_FIRING = 'ALERTS{environment=~"$environment|", alertname=~"Ctms.*", alertstate="firing"'


def _alert(
    name: str,
    description: str,
    runbook: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    thresholds: Sequence[tuple[str, float]] = (),
) -> Panel:
    return Panel(name, f"{description} Runbook: {runbook}", queries, unit=unit, thresholds=thresholds)


_NOW = [
    Panel(
        "Pages",
        "Firing alerts that page the engineer on call.",
        [_q(f'count({_FIRING}, severity="page"}}) or vector(0)')],
        "stat",
        width=4,
        height=6,
        thresholds=[("red", 1)],
    ),
    Panel(
        "Tickets",
        "Firing alerts that open a ticket.",
        [_q(f'count({_FIRING}, severity="ticket"}}) or vector(0)')],
        "stat",
        width=4,
        height=6,
        thresholds=[("orange", 1)],
    ),
    Panel(
        "Firing",
        "Firing alerts. Each has a runbook in docs/runbooks.",
        [_q(f"{_FIRING}}}")],
        "table",
        width=16,
        height=6,
    ),
    Panel(
        "Alert history",
        "Times at which each alert fired.",
        [_q(f"count by (alertname, severity) ({_FIRING}}})", "{{alertname}} ({{severity}})")],
        "state-timeline",
        width=24,
    ),
]

_API = [
    _alert(
        "CtmsRequestsFail",
        "Share of requests that got a 5xx response.",
        "docs/runbooks/requests-fail.md",
        [
            _q(
                'sum(rate(ctms_requests_total{ENV, API, status_code_family="5xx"}[5m]))'
                " / sum(rate(ctms_requests_total{ENV, API}[5m]))",
                "failing",
            )
        ],
        unit="percentunit",
        thresholds=[("red", 0.05)],
    ),
    _alert(
        "CtmsRequestsSlow",
        "Share of requests that take longer than 0.5 s (ticket) or 5 s (page).",
        "docs/runbooks/requests-slow.md",
        [
            _q(
                f'1 - sum(rate(ctms_requests_duration_seconds_bucket{{ENV, API, le="{seconds}"}}[5m]))'
                " / sum(rate(ctms_requests_duration_seconds_count{ENV, API}[5m]))",
                f"longer than {seconds} s",
            )
            for seconds in ("0.5", "5.0")
        ],
        unit="percentunit",
        thresholds=[("red", 0.05)],
    ),
    _alert(
        "CtmsInstanceDown",
        "1: the instance responds to Prometheus; 0: it does not.",
        "docs/runbooks/instance-down.md",
        [_q('up{ENV, job="ctms-api"}', "{{instance}}")],
    ),
    _alert(
        "CtmsNotScraped",
        "API instances among the scrape targets.",
        "docs/runbooks/not-scraped.md",
        [_q('count(up{ENV, job="ctms-api"}) or vector(0)', "instances")],
    ),
    _alert(
        "CtmsTokenFailures",
        "Failed requests to `/token` within 5 minutes, by cause.",
        "docs/runbooks/token-failures.md",
        [_q("sum by (cause) (increase(ctms_token_failures_total{ENV}[5m]))", "{{cause}}")],
        thresholds=[("orange", 50)],
    ),
    _alert(
        "CtmsPoolExhausted",
        "Requests that wait for a database connection, and those that timed out waiting within 5 minutes.",
        "docs/runbooks/pool-exhausted.md",
        [
            _q('sum by (instance) (ctms_database_connections{ENV, state="waiting"})', "{{instance}} waiting"),
            _q(
                "sum by (instance) (increase(ctms_database_connection_timeouts_total{ENV}[5m]))",
                "{{instance}} timed out",
            ),
        ],
        thresholds=[("orange", 0)],
    ),
    _alert(
        "CtmsErasureLate",
        "Age of the oldest unfinished erasure, including deletions at backends: ticket at 25 days, page at 28.",
        "docs/runbooks/erasure-late.md",
        [_q("max(ctms_erasures_oldest_seconds{ENV})", "oldest")],
        unit="s",
        thresholds=[("orange", 25 * DAY), ("red", 28 * DAY)],
    ),
    _alert(
        "CtmsWaitlistRulesFail",
        "Unexpected errors in the waitlist rules of plugins within 15 minutes.",
        "docs/runbooks/waitlist-rules-fail.md",
        [_q("sum by (plugin) (increase(ctms_waitlist_rules_failures_total{ENV}[15m]))", "{{plugin}}")],
        thresholds=[("orange", 0)],
    ),
    _alert(
        "CtmsMetricsFilesLarge",
        "Size of the metrics files of each instance.",
        "docs/runbooks/metrics-files-large.md",
        [_q("max by (instance) (ctms_metrics_files_bytes{ENV})", "{{instance}}")],
        unit="bytes",
        thresholds=[("orange", 256 * MIB)],
    ),
]

_WORKER = [
    _alert(
        "CtmsWorkerDown",
        "1: the worker responds to Prometheus; 0: it does not.",
        "docs/runbooks/worker-down.md",
        [_q('up{ENV, job="ctms-worker"}', "{{instance}}")],
    ),
    _alert(
        "CtmsWorkerSilent",
        "Time since any worker last polled for work.",
        "docs/runbooks/worker-silent.md",
        [_q("time() - max(last_over_time(ctms_background_last_loop_timestamp_seconds{ENV}[1d]))", "last loop")],
        unit="s",
        thresholds=[("red", 300)],
    ),
    _alert(
        "CtmsWorkerNotScraped",
        "Workers among the scrape targets.",
        "docs/runbooks/not-scraped.md",
        [_q('count(up{ENV, job="ctms-worker"}) or vector(0)', "workers")],
    ),
    _alert(
        "CtmsSyncLate",
        "Age of the oldest pending contact of each backend.",
        "docs/runbooks/sync-late.md",
        [_q("max by (backend) (ctms_background_sync_age_seconds{ENV})", "{{backend}}")],
        unit="s",
        thresholds=[("orange", 900)],
    ),
    _alert(
        "CtmsParkedGrowing",
        "Increase in parked contacts over the minimum of the past hour.",
        "docs/runbooks/parked-growing.md",
        [
            _q(
                "max by (backend) (ctms_background_sync_parked{ENV})"
                " - min by (backend) (min_over_time(ctms_background_sync_parked{ENV}[1h]))",
                "{{backend}}",
            )
        ],
        thresholds=[("orange", 0)],
    ),
    _alert(
        "CtmsHousekeepingFails",
        "Failed housekeeping jobs of the last three hours.",
        "docs/runbooks/housekeeping-fails.md",
        [_q("sum by (task) (increase(ctms_background_housekeeping_failures_total{ENV}[3h]))", "{{task}}")],
        thresholds=[("orange", 1.5)],
    ),
    _alert(
        "CtmsStoredDocumentsDiffer",
        "Stored documents of the last three hours that differ from rendered ones.",
        "docs/runbooks/stored-documents-differ.md",
        [_q('sum(increase(ctms_stored_documents_checked_total{ENV,result="different"}[3h]))', "different")],
        thresholds=[("orange", 0)],
    ),
    _alert(
        "CtmsRetentionOverMax",
        "Contacts that the retention rules match, if more than their maximum.",
        "docs/runbooks/retention-over-max.md",
        [_q("max(ctms_retention_over_max_contacts{ENV})", "contacts")],
        thresholds=[("orange", 0)],
    ),
    _alert(
        "CtmsRetentionLate",
        "Time since the retention rules were applied completely.",
        "docs/runbooks/retention-late.md",
        [
            _q(
                "time() - max(ctms_retention_last_success_timestamp_seconds{ENV})"
                " unless max(ctms_retention_over_max_contacts{ENV}) > 0",
                "last run",
            )
        ],
        unit="s",
        thresholds=[("orange", 8 * DAY)],
    ),
]

_PIPELINE = [
    _alert(
        "CtmsMetricsNotStored",
        "Lag of InfluxDB behind Prometheus.",
        "docs/runbooks/metrics-not-stored.md",
        [
            _q(
                "max(prometheus_remote_storage_highest_timestamp_in_seconds)"
                " - (min(prometheus_remote_storage_queue_highest_sent_timestamp_seconds) or vector(0))",
                "behind",
            )
        ],
        unit="s",
        thresholds=[("orange", 300)],
    ),
]

ALERTS = Dashboard(
    "ctms-alerts",
    "CTMS Alerts",
    "Firing alerts, their history, and the distance of each from its threshold.",
    [("Now", _NOW), ("The API", _API), ("The background service", _WORKER), ("The way to InfluxDB", _PIPELINE)],
)
