"""The `.cfg` syntax: read as DIRAC reads it, refused with file and line, written so that it reads the same."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.configuration.dirac.cfg import Option, Section, items, parse, read, write
from pilotage.configuration.document import ConfigurationError


def plain(section: Section) -> dict[str, object]:
    return {
        name: plain(entry) if isinstance(entry, Section) else entry.value for name, entry in section.entries.items()
    }


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "dirac.cfg")
    return str(caught.value)


def test_sections_nest_and_values_keep_what_follows_the_first_equals_sign() -> None:
    root = parse(
        "# installation\n"
        "DIRAC\n{\n"
        "  Setup = Prod # not a comment for DIRAC\n"
        "  Security { \n"
        "    DN = /O=Grid/CN=host {x}\n"
        "  }\n"
        "}\n"
        "Empty =\n"
        "Two words = a\n"
    )
    assert plain(root) == {
        "DIRAC": {"Setup": "Prod # not a comment for DIRAC", "Security": {"DN": "/O=Grid/CN=host {x}"}},
        "Empty": "",
        "Two words": "a",
    }
    assert root.entries["DIRAC"].comment == ["installation"]
    option = root.option("DIRAC", "Security", "DN")
    assert option is not None
    assert option.line == 6


def test_plus_equals_appends_and_lists_are_split_at_commas() -> None:
    root = parse("Servers = dips://a:9135/x\nServers += dips://b:9135/x\nServers+=c,, d\nUrl = https://x/?a=b+=c\n")
    servers = root.option("Servers")
    assert servers is not None
    assert servers.items == ["dips://a:9135/x", "dips://b:9135/x", "c", "d"]
    assert root.entries["Url"] == Option("https://x/?a=b+=c")
    assert items(" a ,b,, ") == ["a", "b"]


def test_both_kinds_of_comment_lines() -> None:
    root = parse("// one\n  ## two\nA\n{\n// three = 3\n  b = //host/path\n}\n")
    assert plain(root) == {"A": {"b": "//host/path"}}
    assert root.entries["A"].comment == ["one", "# two"]


def test_a_name_with_slashes_leads_into_a_section() -> None:
    root = parse("A\n{\n  B\n  {\n  }\n}\nA/B/c = 1\nA/B/D\n{\n  e = 2\n}\nA/X/y = 3\n")
    assert plain(root) == {"A": {"B": {"c": "1", "D": {"e": "2"}}}}
    assert root.remarks == [(12, "'y' is for a section that is not there; DIRAC leaves it out")]


def test_an_option_set_twice_keeps_the_last_value_and_says_so() -> None:
    root = parse("a = 1\nb = 2\na = 3\n")
    assert plain(root) == {"a": "3", "b": "2"}
    assert root.remarks == [(3, "'a' is set again (first in line 1); DIRAC takes the last")]


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("A\n{\n  B\n  {\n  }\n", "dirac.cfg:1:1", "the section 'A' is opened here and never closed"),
        ("A\n{\n}\n}\n", "dirac.cfg:4:1", "this '}' closes nothing"),
        ("{\n}\n", "dirac.cfg:1:1", "a section without a name"),
        ("A\nB\n{\n}\n", "dirac.cfg:1:1", "'A' is neither an option (NAME = VALUE) nor a section"),
        ("A\n{\n  CheckWorkerNode\n}\n", "dirac.cfg:3:1", "'CheckWorkerNode' is neither"),
        ("a = 1\nword", "dirac.cfg:2:1", "'word' is neither"),
        ("A\n{\n}\nA\n{\n}\n", "dirac.cfg:4:1", "'A' is here already as a section, in line 1"),
        ("A = 1\nA\n{\n}\n", "dirac.cfg:2:1", "'A' is here already as an option, in line 1"),
        ("A\n{\n}\nA = 1\n", "dirac.cfg:4:1", "'A' is a section already, in line 1"),
        ("a += 1\n", "dirac.cfg:1:1", "'a +=' appends to an option that is not there yet"),
        (" = 1\n", "dirac.cfg:1:1", "a value without a name"),
        ("x\n{\n" * 60, "dirac.cfg:82:1", "is nested deeper than 40 sections"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_line(text: str, where: str, words: str) -> None:
    sentence = refused(text)
    assert sentence.startswith(f"{where}: ")
    assert words in sentence
    assert "\n" not in sentence


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.cfg: cannot be read"):
        read(tmp_path / "none.cfg")
    (tmp_path / "latin.cfg").write_bytes(b"a = 1\nb = \xe9\n")
    with pytest.raises(ConfigurationError, match=r"latin\.cfg:2:5: is not UTF-8"):
        read(tmp_path / "latin.cfg")
    (tmp_path / "windows.cfg").write_bytes(b"\xef\xbb\xbfA\r\n{\r\n  b = 1\r\n}\r\n")
    assert plain(read(tmp_path / "windows.cfg")) == {"A": {"b": "1"}}


@pytest.mark.parametrize("name", ["", " a", "a{", "a=b", "a/b", "a+", "#a", "a\nb"])
def test_names_that_the_syntax_cannot_hold_are_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        write(Section({name: Option("1")}))


def test_values_that_the_syntax_cannot_hold_are_not_written() -> None:
    for value in (" a", "a\nb"):
        with pytest.raises(ValueError, match="the value of 'x' cannot be written"):
            write(Section({"x": Option(value)}))


_LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Z"])
_TEXT = st.text(_LETTERS | st.just(" "), max_size=12).map(str.strip)
_NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="{}=/+#"), min_size=1, max_size=8
)
_COMMENTS = st.lists(_TEXT, max_size=2)
_OPTIONS = st.builds(lambda value, comment: Option(value, comment=comment), _TEXT, _COMMENTS)
_SECTIONS = st.recursive(
    _OPTIONS,
    lambda inner: st.builds(
        lambda entries, comment: Section(entries, comment=comment),
        st.dictionaries(_NAMES, inner, max_size=4),
        _COMMENTS,
    ),
    max_leaves=12,
)


@given(st.dictionaries(_NAMES, _SECTIONS, max_size=4).map(Section))
def test_what_is_written_reads_the_same(root: Section) -> None:
    assert parse(write(root)) == root


@given(st.text(st.sampled_from("AB{}=+#/, \n\tx"), max_size=60))
def test_any_text_is_read_or_refused_with_a_line_never_crashes(text: str) -> None:
    try:
        root = parse(text, "x.cfg")
    except ConfigurationError as error:
        assert error.where is not None
        assert 1 <= error.where.line <= text.count("\n") + 1
    else:
        try:
            written = write(root)
        except ValueError:
            return  # a name like `+`, which is read (`+/=`) and cannot be written
        assert plain(parse(written)) == plain(root)
