"""Reading guest specifications, and what is said about mistakes in them."""

import json
from pathlib import Path

import pytest

from mvm_guest import project
from mvm_guest.errors import MvmError, UsageError
from mvm_guest.spec import GuestSpec, read
from mvm_guest.spec.model import json_schema
from mvm_guest.spec.presets import write_preset


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "guest.yaml"


def mistake(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read(file)
    return str(caught.value).removeprefix(f"{file.parent}/")


def test_a_specification_is_read_with_the_lines_of_its_values(file: Path) -> None:
    file.write_text(
        "name: hello\npackages:\n  - python3\n  - python3Packages.flask\nservices:\n"
        '  web:\n    command: |\n      a\n      b\n    env: {A: "1"}\n'
    )
    document = read(file)
    assert document.spec.services["web"].command == "a\nb\n"
    assert document.spec.services["web"].env == {"A": "1"}
    assert document.where(("packages", 1)) == f"{file}:4: packages[1]"
    assert document.where(("services", "web", "user")) == f"{file}:6: services.web.user"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "name: x\nservices:\n  web:\n    comand: a\n",
            "guest.yaml:4: services.web.comand: unknown key, did you mean 'command'?",
        ),
        ("name: x\nzzz: 1\n", "guest.yaml:2: zzz: unknown key; known are name, packages"),
        ("packages: []\n", "guest.yaml:1: name: is required"),
        ("name: x\nname: y\n", "guest.yaml:2: 'name' is given twice"),
        ("name: Hello\n", "guest.yaml:1: name: 'Hello' does not fit"),
        ('name: "x\\n"\n', r"guest.yaml:1: name: 'x\n' does not fit"),
        ("name: x\nservices:\n  Web: {command: a}\n", "guest.yaml:3: services.Web: 'Web' does not"),
        ("name: x\nrootfs: btrfs\n", "guest.yaml:2: rootfs: expected 'ext4' or 'squashfs'"),
        (
            "name: x\nservices:\n  w:\n    command: a\n    env:\n      PORT: 8080\n",
            "guest.yaml:6: services.w.env.PORT: expected text; a number or truth value must",
        ),
        ("name: x\npackages: [a, 'b c']\n", "guest.yaml:2: packages[1]: 'b c' does not fit"),
        ("name: x\npackages: ['a; evil']\n", "guest.yaml:2: packages[0]"),
        (
            "name: x\nhealthChecks:\n  a: {healthCmd: b, healthIntervalSecs: 0}\n",
            "guest.yaml:3: healthChecks.a.healthIntervalSecs: must be at least 1",
        ),
        ('name: x\nservices: {w: {command: "\\0"}}\n', "services.w.command: text cannot hold"),
        ('name: x\nservices: {w: {command: "\\ud800"}}\n', "services.w.command: text cannot hold"),
        ("name: x\nusers: {root: {}}\n", "the user root is mkGuest's own"),
        ("name: x\nservices: {w: {command: a, user: mvm-agent}}\n", "services.w.user: the user"),
        ("name: x\nextraFiles: {etc/x: {content: a}}\n", "must be an absolute path"),
        ("name: x\nmountPoints: [/a/../b]\n", "mountPoints[0]: must be an absolute path"),
        ("name: x\nextraFiles: {/etc/x: {content: a, mode: 0644}}\n", "must stand in quotes"),
        ("name: x\nresources: {memMib: 0}\n", "resources.memMib: must be at least 1"),
        ("- name\n", "guest.yaml:1: expected keys and values"),
        ("? [a]\n: b\n", "guest.yaml:1: a key must be plain text"),
        ("name: [x\n", "guest.yaml:2: not YAML: expected ',' or ']'"),
        ("name: x\n---\nname: y\n", "guest.yaml:2: not YAML: but found another document"),
        ("name: !!python/object:os.system x\n", "guest.yaml:1: the tag"),
        ("name: !!int x\n", "guest.yaml:1: the tag"),
        ("a: &a [*a]\n", "guest.yaml:1: holds more than a guest could need"),
        ("", "guest.yaml is empty"),
        ("a: " + "[" * 5000, "guest.yaml is nested too deeply"),
        ("name: x\n#" + "a" * 1024 * 1024, "guest.yaml is larger than 1 MiB"),
        ("name: \x01\n", "guest.yaml: not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(file: Path, text: str, says: str) -> None:
    assert says in mistake(file, text)


def test_aliases_that_multiply_are_refused(file: Path) -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert "holds more than a guest could need" in mistake(file, text)


def test_an_alias_that_saves_typing_is_followed(file: Path) -> None:
    file.write_text("name: x\nservices:\n  a: &a {command: run}\n  b: *a\n")
    assert read(file).spec.services["b"].command == "run"


def test_words_that_old_yaml_took_for_truth_values_are_text(file: Path) -> None:
    file.write_text(
        "name: x\nservices: {w: {command: yes, env: {A: no, B: 1:30, C: 2026-01-01}}}\n"
    )
    service = read(file).spec.services["w"]
    assert (service.command, *service.env.values()) == ("yes", "no", "1:30", "2026-01-01")


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*guest\.yaml; `mvm-guest init`"):
        read(file)


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    file.write_bytes(b"name: \xff")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read(file)


def test_the_published_schema_is_that_of_the_model() -> None:
    published = json.loads((project.root() / "templates" / "guest.schema.json").read_text())
    assert published == json_schema()


@pytest.mark.parametrize(
    "preset", [path.name for path in (project.root() / "templates" / "presets").iterdir()]
)
def test_every_preset_is_a_valid_specification(preset: str, tmp_path: Path) -> None:
    assert isinstance(read(write_preset(preset, tmp_path / "new")).spec, GuestSpec)


def test_a_preset_never_overwrites_a_file(tmp_path: Path, file: Path) -> None:
    file.write_text("mine")
    with pytest.raises(MvmError, match=r"guest\.yaml exists already"):
        write_preset("python", tmp_path)
    assert file.read_text() == "mine"


def test_an_unknown_preset_is_refused_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no preset 'pyton'; known are python"):
        write_preset("pyton", tmp_path / "new")
    assert not (tmp_path / "new").exists()
