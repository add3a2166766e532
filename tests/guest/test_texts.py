"""Any text that a guest is described with arrives in it byte for byte, wherever it stands.

All texts of a run go through one build and one boot. They are some that have meant trouble before,
and others that hypothesis makes up.
"""

import base64
import json
import shlex
import shutil
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

TROUBLE = [
    "",
    "'",
    '"',
    "''${x}''",
    "$HOME ${HOME} $(id) `id`",
    "\\",
    "\\n\\t\\\\",
    "a\nb\n",
    "\n",
    " lead and trail ",
    "-n",
    "%s %d %%",
    "a\tb\rc",
    "\x01\x1b[31m\x7f",
    "ünïcödé ☃ \U0001f600",
    "*?[a-z]~!#&|;<>(){}",
    "EOF\n'EOF'\n",
    "x" * 5000,
]
MADE_UP = 40

# Nix strings hold no NUL, and neither do environments and arguments.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def made_up() -> list[str]:
    found: list[str] = []

    @settings(
        max_examples=MADE_UP,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(ANY_TEXT)
    def collect(text: str) -> None:
        found.append(text)

    collect()
    return found


def test_every_text_arrives_byte_for_byte(boot, bundle_of, tmp_path, rootfs):
    texts = TROUBLE + made_up()
    flake = tmp_path / "flake"
    shutil.copytree(Path(__file__).with_name("texts"), flake)
    listed = [{"text": text, "quoted": shlex.quote(text)} for text in texts]
    (flake / "texts.json").write_text(json.dumps(listed))
    with boot(bundle_of(rootfs, flake)) as machine:
        machine.up().eventually("test -e /home/svc-texts/done", 60)
        process = machine.run("head -n 1 /sys/fs/cgroup/mvm/service-texts/cgroup.procs").strip()
        environment = dict(
            entry.split(b"=", 1)
            for entry in base64.b64decode(machine.run(f"base64 /proc/{process}/environ")).split(
                b"\0"
            )
            if entry
        )
        for number, text in enumerate(texts):
            content = text.encode()
            assert environment[b"ENV_%d" % number] == content, text
            assert environment[b"PRE_%d" % number] == content, text
            for path in (f"/home/svc-texts/{number}", f"/srv/{number}"):
                assert base64.b64decode(machine.run(f"base64 {path}")) == content, (path, text)
        machine.healthy(60)
        with machine.agent() as agent:
            assert len(agent.integration_status()) == len(texts)
