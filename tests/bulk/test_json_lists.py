"""Lists in JSON: the place of their records, bad records, and their cost."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctms.bulk import json_values
from ctms.bulk.columns import ReadOptions
from ctms.bulk.entries import Entry
from ctms.bulk.json_lists import MAX_PATHS, SAMPLE
from ctms.bulk.json_values import MAX_DEPTH, MAX_VALUE, SLICE, replace_lone_surrogates
from ctms.bulk.lines import NOT_TEXT
from ctms.bulk.lists import read
from ctms.errors import ListError

A, B, C = "u10@example.net", "u11@example.net", "u12@example.net"
LONG = "x" * 2 * SAMPLE


def read_all(content: bytes | str | Any, wanted: ReadOptions | None = None) -> list[Entry]:
    if not isinstance(content, (bytes, str)):
        content = json.dumps(content)
    content = content.encode() if isinstance(content, str) else content
    return list(read(io.BytesIO(content), wanted or ReadOptions()))


def addresses(content: bytes | str | Any) -> list[str | None]:
    """Return the addresses of a list without bad lines."""
    entries = read_all(content)
    assert not any(entry.problem for entry in entries), entries
    return [entry.address for entry in entries]


def lines_of(*documents: Any) -> str:
    return "\n".join(map(json.dumps, documents))


def mail(address: str, **more: Any) -> dict[str, Any]:
    return {"email": address, **more}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([mail(A, referrer=mail(B)), mail(C)], [A, C]),
        ([{"referrer": mail(B), "email": A}, mail(C)], [A, C]),
        ([mail(A, referrers=[mail(B), mail(B)]), mail(C)], [A, C]),
        ([{"aliases": [B], "email": A}, mail(C)], [A, C]),
        ([{"email": A, "referrers": [{"by": mail(B), "note": LONG}]}, mail(C)], [A, C]),
        ([mail(A), mail(C, referrer={"by": mail(B, mail=B)})], [A, C]),
        ([{"referrer": {"email": B, "mail": B}, "email": A}], [A]),
        ({"data": {"items": [{"user": mail(A, by=mail(B))}, {"user": mail(C)}]}}, [A, C]),
        ({"SuppressedDestination": {"EmailAddress": A, "Attributes": {"MessageId": "x"}}}, [A]),
        ({"emails": [A, C]}, [A, C]),
        ([[A], [C]], [A, C]),
        ({"a": {"b": [[A, B], []]}, "total": 2}, [A, B]),
        ({"results": [{"id": "1", "properties": {"email": A}}, {"id": "2", "properties": {"email": B}}]}, [A, B]),
        ({"meta": {"text": LONG}, "items": [mail(A)]}, [A]),
        ({"ids": list(range(50_000)), "items": [mail(A)]}, [A]),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_outermost_record_counts(document: Any, expected: list[str]) -> None:
    assert addresses(document) == expected
    assert addresses(json.dumps(document, indent=1)) == expected
    assert addresses(lines_of(document, document)) == expected * 2


@pytest.mark.parametrize("whole", [True, False])
def test_an_object_with_two_addresses_is_bad(whole: bool) -> None:
    records = [mail(A), mail(B, primary_email=B.upper()), mail(B, primary_email=C, name="x@y")]
    content = json.dumps(records) if whole else lines_of(*records)

    *good, bad = read_all(content)

    assert [entry.address for entry in good] == [A, B]
    assert (bad.problem or "").endswith("several addresses: choose their member, such as email, with --column")
    assert [one.address for one in read_all(content, ReadOptions(address="email"))] == [A, B, B]


@pytest.mark.parametrize(
    "documents",
    [
        [{"bounces": [mail(A)], "complaints": [mail(B)]}],
        [{"bounces": [mail(A)] * 5000, "complaints": [mail(B)]}],
        [{"bounces": [A], "complaints": [B]}],
        [{"data": [mail(A)]}, {"items": [mail(B)]}],
        [{"data": [mail(A)]}, [mail(B)]],
        [{"data": [mail(A)]}, mail(B)],
        [[mail(A)], {"to": mail(B)}],
        [{"from": mail(A), "to": mail(B)}],
        [[{"from": mail(A), "to": mail(B)}]],
        [{"id1": mail(A), "id2": mail(B)}],
        [{"items": [mail(A)], "exported_by": mail(B)}],
        [{"items": [{"note": LONG, **mail(A)}], "exported_by": mail(B)}],
        [{"items": [mail(A)] * 5000, "email": B}],
        [{"email": B, "items": [mail(A)] * 5000}],
        [{"email": B, "items": [mail(A), mail(C)]}],
        [{"email": None, "items": [mail(A), mail(C)]}],
        [{"email": B, "items": [mail(A)]}, {"email": B, "items": [mail(C)]}],
        [{"items": [mail(A)], "email": B}],
        [{"email": B, "emails": [A, C]}],
        [[{"email": B, "members": [mail(A), mail(C)]}]],
        [[{"referrers": [{"by": mail(B), "note": LONG}], "email": A}, mail(C)]],
        [{"items": [A]}, [B]],
    ],
    ids=lambda documents: json.dumps(documents)[:80],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_records_at_several_places_are_refused(documents: list[Any], indent: int | None) -> None:
    text = "\n".join(json.dumps(document, indent=indent) for document in documents)
    with pytest.raises(ListError) as caught:
        read_all(text)
    assert caught.value.exit_code == 2
    assert "example" not in caught.value.message
    assert "known" in caught.value.message


def test_objects_on_lines_may_have_addresses_within() -> None:
    records = [mail(A, friends=[mail(B)]), mail(C, friends=[mail(B)])]
    assert addresses(lines_of(*records)) == [A, C]
    assert addresses(lines_of(mail(A), *records)) == [A, A, C]


@pytest.mark.parametrize(
    "documents",
    [
        [{"emails": 5}],
        [{"emails": ["nobody"]}],
        [[5, None]],
        [[{"name": "Jane"}]],
        [{"message": "Forbidden"}],
        [{"a": {"b": {}}}],
        [{"Suppressions": [], "errors": ["forbidden"]}],
        [{"data": [mail(A)]}, {"message": "Too many requests"}],
        [{"message": "Too many requests"}, {"data": [mail(A)]}],
        [{"data": [mail(A)]}, {"items": [5]}],
        [{"data": [mail(A)]}, 5],
        [{"data": [mail(A)]}, "x"],
        [[{"note": LONG}, {"note": LONG}, mail(A)]],
        [[[index] for index in range(40_000)] + [A]],
        [{str(index): [index] for index in range(40_000)} | {"emails": [A]}],
    ],
    ids=lambda documents: json.dumps(documents)[:80],
)
def test_document_without_addresses_is_refused(documents: list[Any]) -> None:
    with pytest.raises(ListError) as caught:
        read_all(lines_of(*documents))
    assert caught.value.exit_code == 2
    assert not any(text in caught.value.message for text in ("Jane", "example"))


def test_many_documents_without_addresses_are_refused() -> None:
    document = {"user": mail(A)}
    bare = [{"user": None}] * (MAX_PATHS // 2)

    entries = read_all(lines_of(*bare, document))

    assert [entry.line for entry in entries if entry.problem] == list(range(1, len(bare) + 1))
    with pytest.raises(ListError):
        read_all(lines_of(*bare * 3, document))


@pytest.mark.parametrize(
    "documents",
    [
        [{"SuppressedDestinationSummaries": []}],
        [{"items": [], "paging": {"first": "https://api.example.com/?limit=2", "next": ""}}],
        [[]],
        [{}],
        [[], [], {"Suppressions": []}],
        [{"Suppressions": [], "total": 0}, {"Suppressions": []}],
    ],
    ids=str,
)
def test_empty_document_is_an_empty_list(documents: list[Any]) -> None:
    assert read_all(lines_of(*documents)) == []
    assert read_all(json.dumps(documents[0], indent=1)) == []


def test_empty_page_is_none_too_many() -> None:
    page = {"Suppressions": [mail(A)]}
    assert addresses(lines_of({"Suppressions": []}, page, {"Suppressions": []}, page, {})) == [A, A]


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        (
            [A, 5, None, [C], {"email": C}, {}, "nobody", B],
            {
                2: "no address: it is not text",
                3: "no address: it is not text",
                4: "no address: it is not text",
                5: "no address: it is not text",
                6: "no address: it is not text",
                7: "no address: there is no @",
            },
        ),
        ([[A], B], {1: "no address: it is not text"}),
        ({"emails": [5, "odd", A]}, {1: "no address: it is not text", 2: "no address: there is no @"}),
        (
            [{"Reason": "x"}, mail(A), "b@example.net", None, [B], {"email": 5}, {"Email": B}],
            {
                1: "no address: there is no text in email",
                3: "not a JSON object",
                4: "not a JSON object",
                5: "not a JSON object",
                6: "no address: there is no text in email",
                7: "no address: there is no text in email",
            },
        ),
        ([{"user": None}, {"user": mail(A)}, {"x": 1}, 5], {1: "no address", 3: "no address", 4: "no address"}),
    ],
    ids=["addresses", "addresses and an array", "addresses in an object", "objects", "objects in objects"],
)
def test_other_elements_are_bad_records(document: Any, problems: dict[int, str]) -> None:
    entries = read_all(document)

    assert {number: entry.problem for number, entry in enumerate(entries, 1) if entry.problem} == {
        number: f"record {number}: {problem}" for number, problem in problems.items()
    }
    assert {entry.line for entry in entries} == {1}
    many = [mail(A)] * 2000
    assert [one.problem for one in read_all([*many, {}]) if one.problem] == [
        "record 2,001: no address: there is no text in email"
    ]


def test_column_that_is_given_is_none_of_an_array_of_text() -> None:
    for document in ([A], {"emails": [A]}):
        with pytest.raises(ListError, match="--column"):
            read_all(document, ReadOptions("login"))
    assert [one.address for one in read_all([{"login": A, "emails": [B]}, {"login": C}], ReadOptions("login"))] == [
        A,
        C,
    ]


def test_contradicting_repeated_member_is_a_bad_record() -> None:
    twice = f'{{"email": "{A}", "email": "{B}"}}'
    same = f'{{"email": "{A}", "email": "{A}"}}'
    for text in (f"{same}\n{twice}", f"[{same}, {twice}]"):
        first, second = read_all(text)
        assert first.address == A
        assert (second.problem or "").endswith("no address: there is no text in email")


@pytest.mark.parametrize("half", [r"\ud800", r"\uDBFF", r"\udc00", r"\uDFFF", r"\udc00\ud800", r"\ud800\u0041"])
@pytest.mark.parametrize("form", ['["%s"]', '[{"email": "%s"}]', '{"Suppressions": [\n{"email": "%s"}]}'])
def test_half_of_a_character_makes_a_bad_record(half: str, form: str) -> None:
    for text in (f"{half}b@example.com", f"b@example.com{half}", f"b{half}@example.com", f"\\\\{half}@example.com"):
        (entry,) = read_all(form % text)
        assert entry.address is None
        assert "not text" in (entry.problem or "")


def test_whole_characters_are_kept() -> None:
    text = '["\\ud83d\\ude00@example.com", "\\u00fc@example.com", "Sam \\"\\\\ud800\\" <sam@example.com>"]'
    assert [entry.given or entry.address for entry in read_all(text)] == [
        "\N{GRINNING FACE}@example.com",
        "ü@example.com",
        'Sam "\\ud800" <sam@example.com>',
    ]


@given(
    st.lists(st.sampled_from([*"\\uda", "d800", "\\ud83d", "\\ude00", "\\u00fc", "\\\\", "\\n", "8", "0"])).map(
        "".join
    ),
    st.integers(1, 9),
)
@settings(max_examples=300)
def test_halves_are_found_wherever_the_text_is_cut(text: str, size: int) -> None:
    """The slices together equal the result of `json`, with lone surrogates replaced."""
    try:
        expected = json.loads(f'"{text}"')
    except ValueError:
        return
    expected = "".join(NOT_TEXT if "\ud800" <= character <= "\udfff" else character for character in expected)

    parts, rest = [], ""
    for start in range(0, len(text) + 1, size):
        part, rest = replace_lone_surrogates(rest + text[start : start + size])
        parts.append(part)
    part, rest = replace_lone_surrogates(f'{rest}"')

    assert rest == ""
    assert json.loads('"' + "".join(parts) + part) == expected


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":', "[ \n", '{"email": "a@b.example", "a":'])
@pytest.mark.parametrize("compressed", [False, True])
def test_brackets_cost_no_memory(opening: str, compressed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    take = json_values.JsonValues._take

    def counted(self: json_values.JsonValues, number: int, event: str, value: Any) -> json_values.JsonValue | None:
        nonlocal taken
        taken += 1
        return take(self, number, event, value)

    monkeypatch.setattr(json_values.JsonValues, "_take", counted)
    for count in (MAX_DEPTH + 1, 20_000, 65_536, 400_000):
        content = (opening * count).encode()
        taken = 0
        tracemalloc.start()
        try:
            with pytest.raises(ListError, match="nested too deeply"):
                read_all(gzip.compress(content) if compressed else content)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken <= 5 * MAX_DEPTH
        assert peak < 6_000_000 + len(content)


def test_depth_that_is_allowed() -> None:
    depth = MAX_DEPTH - 1
    assert addresses("[" * depth + f'{{"email": "{A}"}}' + "]" * depth) == [A]


def test_events_of_a_slice_are_all_that_is_in_memory() -> None:
    content = b"[" + b"[],\n" * 200_000 + b'"a@b.example"]'
    tracemalloc.start()
    try:
        with pytest.raises(ListError):
            for _ in read(io.BytesIO(content)):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000
    assert SLICE * 100 < MAX_VALUE


@pytest.mark.parametrize("number", ["1" * 20, "1" * 400, "1e999", "1.5"])
def test_large_numbers_are_read(number: str) -> None:
    assert addresses(f'[{{"id": {number}, "created": {number}, "email": "{A}"}}]') == [A]
    assert read_all(f'[{{"created": {number}, "email": "{A}"}}]', ReadOptions(opt_outs=True)) == [Entry(1, A)]


@pytest.mark.parametrize("number", ["1" * 5000, "1" * 100_000, "1e99999999999999999999999"])
def test_numbers_that_are_too_large_are_no_json(number: str) -> None:
    with pytest.raises(ListError):
        read_all(f'[{{"id": {number}, "email": "{A}"}}]')


@pytest.mark.parametrize(
    "line",
    [
        "[u7@example.com](mailto:u7@example.com)",
        "[7@example.com](mailto:7@example.com)",
        "[true@example.com](mailto:true@example.com)",
        "{u7@example.com}",
        "[ ] u7@example.com",
        "[null] u7@example.com",
    ],
)
def test_line_without_json_is_a_bad_line(line: str) -> None:
    for text in (f"{line}\n{A}\n{line}", f"{A}\n{line}"):
        entries = read_all(text)
        assert [entry.address for entry in entries if entry.address] == [A]
        assert [entry.line for entry in entries if entry.problem] == ([1, 3] if text.startswith(line) else [2])


@pytest.mark.parametrize("text", ['[{"email": "a@b.example"},,]', '{"email" "a@b.example"}', '["a@b.example" 5]'])
def test_json_with_a_fault_is_refused(text: str) -> None:
    with pytest.raises(ListError, match="line 1 is not JSON"):
        read_all(text)
