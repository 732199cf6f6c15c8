"""The retention file: what it may say, and the messages about what it may not."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from ctms.addresses import comparison_key
from ctms.retention.policy import DEFAULT_MAX, PolicyError, read_policy
from tests.retention.rules import write

HELD = uuid.uuid4()

FULL = f"""
max_contacts = 25_000

[hold]
ids = ["{HELD}"]
lists = ["cases.txt", "more/cases.txt"]

[rules.unconfirmed]
description = "Never confirmed"
action = "erase"
when.double_opt_in = false
when.create_timestamp.older_than = "90d"

[rules.inactive-2]
action = "anonymise"
[rules.inactive-2.when]
update_timestamp.before = 2024-05-01
not.newsletters = {{name = "security", state = "any"}}
or = [{{has_fxa = false}}, {{account_deleted = true}}]
"""

RULE = '[rules.old]\naction = "erase"\nwhen.double_opt_in = false\n'


def test_a_file_has_rules_in_their_order_a_hold_and_a_maximum(tmp_path: Path) -> None:
    other = uuid.uuid4()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "cases.txt").write_text(
        "\ufeff# case 2\r\n\r\n Jane <JANE@Example.com> \r\n", encoding="utf-8"
    )

    policy = read_policy(write(tmp_path, FULL, cases=f"{other}\nmailto:joe@bücher.example\n"))

    assert [(rule.name, rule.action, rule.description) for rule in policy.rules] == [
        ("unconfirmed", "erase", "Never confirmed"),
        ("inactive-2", "anonymise", ""),
    ]
    assert policy.rules[0].origin == "retention:unconfirmed"
    assert policy.max_contacts == 25_000
    assert policy.hold.ids == {HELD, other}
    assert policy.hold.keys == {comparison_key("jane@example.com"), comparison_key("joe@xn--bcher-kva.example")}


def test_only_rules_are_required(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, RULE))

    assert policy.max_contacts == DEFAULT_MAX
    assert not policy.hold.covers(HELD, ["jane@example.com"])


@pytest.mark.parametrize("address", ["jane@example.com", "JANE@EXAMPLE.COM", "Jane <jane@example.com>"])
def test_a_hold_covers_ids_and_addresses_in_any_spelling(tmp_path: Path, address: str) -> None:
    hold = read_policy(write(tmp_path, f'hold.lists = ["l.txt"]\n{RULE}', l=f"{HELD}\njane@example.com")).hold

    assert hold.covers(uuid.uuid4(), ["other@example.com", address])
    assert hold.covers(HELD, [])
    assert not hold.covers(uuid.uuid4(), ["other@example.com"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rules: must be a table with one or more rules, by name"),
        ("rules = {}", "rules: must be a table with one or more rules, by name"),
        ("rule = 1\n", "has rule, but may have max_contacts, hold, rules"),
        (f"max_contacts = 0\n{RULE}", "max_contacts: must be a whole number from 1 to 100,000,000"),
        (f"max_contacts = true\n{RULE}", "max_contacts: must be a whole number from 1 to 100,000,000"),
        (f"hold = []\n{RULE}", "hold: must be a table with ids, lists"),
        (f"hold.id = []\n{RULE}", "hold: has id, but may have ids, lists"),
        (f"hold.ids = ['x']\n{RULE}", "hold.ids[1]: must be the id of a contact, a UUID"),
        (f"hold.lists = 'x'\n{RULE}", "hold.lists: must be a list of texts"),
        ("[rules.Old]", "rules.Old: the name of a rule has 1 to 40 lower-case letters, digits, - and _, and begins "),
        (f"[rules.{'x' * 41}]", f"rules.{'x' * 41}: the name of a rule has 1 to 40 lower-case letters, digits, - and "),
        ("rules.old = 5", "rules.old: must be a table with description, when, action"),
        ("[rules.old]\nwhere = 1", "rules.old: has where, but may have description, when, action"),
        ("[rules.old]", "rules.old: needs when and action"),
        ("[rules.old]\naction = 'erase'", "rules.old: needs when"),
        ("[rules.old]\naction = 'drop'\nwhen.has_fxa = true", "rules.old.action: must be erase or anonymise"),
        ("[rules.old]\naction = ['erase']\nwhen.has_fxa = true", "rules.old.action: must be erase or anonymise"),
        ("[rules.old]\ndescription = 1\naction = 'erase'\nwhen.has_fxa = true", "rules.old.description: must be text"),
        ("[rules.old]\naction = 'erase'\nwhen = {}", "rules.old.when: is empty, but an empty condition would match "),
        ("[rules.old]\naction = 'erase'\nwhen.country = 'ca'", "rules.old.when.country: there is no such test; the "),
    ],
)
def test_what_a_file_may_not_say_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(PolicyError) as refused:
        read_policy(path)

    assert refused.value.message.startswith(f"{path}: {message}")


def test_an_error_of_toml_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"{RULE}when.has_fxa = yes\n")

    with pytest.raises(PolicyError) as refused:
        read_policy(path)

    assert refused.value.message.startswith(f"{path}, line 4: ")


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is nested too deeply"):
        read_policy(write(tmp_path, f"x = {'[' * 100_000}"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"/none\.toml: cannot be read as UTF-8 text \(FileNotFoundError\)"):
        read_policy(tmp_path / "none.toml")


@pytest.mark.parametrize("line", ["jane", "jane@", "*@example.com", "jane@example.com,joe@example.com", "12345"])
def test_an_unreadable_line_of_a_hold_stops_everything_and_is_not_repeated(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f'hold.lists = ["cases.txt"]\n{RULE}', cases=f"# case 1\n{line}\n")

    with pytest.raises(PolicyError) as refused:
        read_policy(path)

    assert refused.value.message.startswith(
        f"{tmp_path}/cases.txt, line 2: is neither the id of a contact nor an address; nothing is erased"
    )
    assert line not in refused.value.message.removeprefix(str(tmp_path))


def test_a_missing_list_of_a_hold_stops_everything(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"^the list of a legal hold, .*/cases\.txt: cannot be read as UTF-8 text"):
        read_policy(write(tmp_path, f'hold.lists = ["cases.txt"]\n{RULE}'))
