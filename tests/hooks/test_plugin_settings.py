"""Variables belong to plugins, and unknown ones are refused."""

from __future__ import annotations

import pytest

from ctms.errors import PluginError
from ctms.hooks.manager import load_plugins
from ctms.settings import Settings
from tests.hooks.distributions import Site
from tests.hooks.refused import HUB, START
from tests.hooks.test_loading import WITH_SETTINGS, named, registered

OF_TWO = {
    "CTMS_PLUGIN_QUAY_NAME": "of quay",
    "CTMS_PLUGIN_QUAY_EAST_NAME_FILE": "",  # empty is unset
    "CTMS_PLUGIN_QUAY_EAST_LIMITS": "1",
    "CTMS_PLUGIN_ABSENT_NAME": "of a plugin that is not installed",
    "CTMS_PLUGIN_OFF_NAME": "of a plugin that is off",
}


def test_variables_belong_to_the_plugin_with_the_longest_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("quay", "quay_east", "off"):
        site.install(f"ctms-{name}", {name: START + WITH_SETTINGS.replace('"quay"', f'"{name}"')})
    for variable, value in OF_TWO.items():
        monkeypatch.setenv(variable, value)
    points = named("quay", "quay_east", "off")

    plugins = load_plugins(Settings(plugins_disabled=("off",)), points)
    assert registered(plugins) == ["of quay", "quay_east"]

    monkeypatch.setenv("CTMS_PLUGIN_QUAY_EAST_NAM", "slip")
    with pytest.raises(PluginError) as error:
        load_plugins(Settings(plugins_disabled=("off",)), points)
    assert error.value.plugins == ("quay_east",)
    assert error.value.message == (
        "plugin 'quay_east' of ctms-quay_east 1.2.3: there is no setting CTMS_PLUGIN_QUAY_EAST_NAM:"
        " did you mean CTMS_PLUGIN_QUAY_EAST_NAME?"
    )
    assert registered(load_plugins(Settings(plugins=("quay",)), points)) == ["of quay"]


def test_a_setting_of_either_plugin_is_right(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    source = START + WITH_SETTINGS
    site.install("ctms-quay", {"quay": source.replace('"NAME"', '"EAST_NAME"')})
    site.install("ctms-quay-east", {"quay_east": source.replace('"NAME"', '"OTHER"').replace('"quay"', '"east"')})
    monkeypatch.setenv("CTMS_PLUGIN_QUAY_EAST_NAME", "of quay")

    assert registered(load_plugins(Settings(), named("quay", "quay_east"))) == ["of quay", "east"]


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("CTMS_PLUGIN_DISABLED", "CTMS_PLUGINS_DISABLED"),
        ("CTMS_PLUGIN_TRACE", "CTMS_PLUGINS_TRACE"),
        ("CTMS_PLUGIN_DISABLED_FILE", "CTMS_PLUGINS_DISABLED_FILE"),
    ],
)
def test_a_setting_of_ours_that_is_misspelt_as_a_plugins(
    site: Site, monkeypatch: pytest.MonkeyPatch, slip: str, meant: str
) -> None:
    site.install("ctms-quay", {"quay": START + WITH_SETTINGS})
    monkeypatch.setenv(slip, "quay")

    with pytest.raises(PluginError, match=f"^there is no setting {slip}: did you mean {meant}[?]$"):
        load_plugins(Settings(), named("quay"))


FAILING_SETTINGS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Settings:
    keys: list[str] = setting("KEYS", "Some.", default=list, secret=True)

    def __post_init__(self):
        raise SystemExit(f"no good: {self.keys}")
"""


def test_settings_that_fail_do_not_show_secrets(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("ctms-quay", {"quay": START + FAILING_SETTINGS + HUB})
    monkeypatch.setenv("CTMS_PLUGIN_QUAY_KEYS", "hunter2,hunter3")

    with pytest.raises(PluginError) as error:
        load_plugins(Settings(), named("quay"))

    assert "its Settings failed with SystemExit: no good: ['***', '***']" in error.value.message
