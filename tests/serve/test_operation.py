"""The files in docs/operation are valid and name what exists; replicas are restarted without a lost request."""

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
import tomllib
from pathlib import Path

import httpx
import openai
import pytest
import typer
import uvicorn
import yaml

from sanbu.cli.main import app as command_line
from sanbu.serve.app import application
from sanbu.serve.server import Server
from sanbu.serve.service import Service

PLACE = Path(__file__).parents[2] / "docs" / "operation"
PAGE = (PLACE.parent / "service.md").read_text(encoding="utf-8")


def checked(program, *words, **more):
    """Run a checker that this machine may have; its output must be empty or say that all is well."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_nginx_accepts_its_configuration(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed here")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    subprocess.run(["openssl", *words, "-keyout", key, "-out", cert], check=True, capture_output=True)
    text = (PLACE / "nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r"ssl_certificate +\S+;", f"ssl_certificate {cert};", text)
    text = re.sub(r"ssl_certificate_key +\S+;", f"ssl_certificate_key {key};", text)
    temporary = [
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ]
    text = text.replace("http {", "\n".join(["http {", "access_log off;", *temporary]), 1)
    (tmp_path / "nginx.conf").write_text(text.replace("listen 443", "listen 127.0.0.1:18443"))
    more = f"pid {tmp_path}/pid; error_log stderr;"
    assert "successful" in checked("nginx", "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", more)


def test_caddy_accepts_its_configuration(tmp_path):
    said = checked("caddy", "validate", "--adapter", "caddyfile", "--config", PLACE / "Caddyfile")
    assert "Valid configuration" in said


def test_systemd_accepts_the_unit(tmp_path):
    unit = tmp_path / "sanbu@8001.service"
    unit.write_text((PLACE / "sanbu@.service").read_text().replace("/opt/sanbu/bin/sanbu", "/bin/true"))
    assert "sanbu@8001" not in checked("systemd-analyze", "verify", unit)
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert "protect home" in done.stderr.lower()  # the checker does read the file


def test_prometheus_accepts_the_rules():
    checked("promtool", "check", "rules", PLACE / "alarms.yml")


def expressions():
    """(where, PromQL) of every alarm and every curve; Grafana's variables are filled in."""
    for rule in yaml.safe_load((PLACE / "alarms.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]:
        yield rule["alert"], rule["expr"]
    for panel in json.loads((PLACE / "grafana.json").read_text(encoding="utf-8"))["panels"]:
        for target in panel["targets"]:
            filled = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            yield f"{panel['title']}, {target['refId']}", filled


def test_every_expression_is_promql():
    parse = pytest.importorskip("promql_parser", reason="pip install promql-parser").parse
    assert len([parse(text) for _, text in expressions()]) > 20
    for wrong in ("rate(sanbu:num_preemptions_total)", "sum by (x) (up", "histogram_quantile(up)"):
        with pytest.raises(ValueError):
            parse(wrong)


def test_alarms_have_durations_and_tell_labels_that_they_have():
    for rule in yaml.safe_load((PLACE / "alarms.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"} and re.fullmatch(r"\d+[smh]", rule["for"])
        kept = {"instance"} if " by " not in rule["expr"] else set()
        for names in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            kept |= {name.strip() for name in names.split(",")}
        told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert told and told <= kept, rule["alert"]


def test_the_image_gets_what_the_package_is_built_of():
    root = PLACE.parents[1]
    kept = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    named = [project["project"]["readme"], *project["project"]["license-files"], *build, "pyproject.toml"]
    assert kept == set(named) and all((root / name).exists() for name in kept)


def test_the_container_file_has_no_fault_that_hadolint_knows():
    checked("hadolint", PLACE / "Containerfile")


def test_the_container_file_has_known_instructions_and_files():
    text = (PLACE / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    known = {"FROM", "RUN", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert lines[0][0] == "FROM" and {name for name, _ in lines} <= known
    for name, rest in lines:
        if name in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(word, str) for word in json.loads(rest))
    health = next(rest for name, rest in lines if name == "HEALTHCHECK")
    compile(json.loads(health.partition("CMD")[2])[2], "health", "exec")
    project = (PLACE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.search(r'requires-python = ">=([\d.]+)"', project)
    assert f"FROM python:{wanted[1]}" in text


def serve_lines():
    """The words after `sanbu serve` in every file and on the page."""
    unit = (PLACE / "sanbu@.service").read_text(encoding="utf-8")
    yield shlex.split(re.search(r"ExecStart=\S+ serve (.*)", unit)[1])
    yield json.loads(re.search(r"^CMD (.*)$", (PLACE / "Containerfile").read_text(encoding="utf-8"), re.M)[1])
    for line in re.findall(r"sanbu serve ([^`\n]*)", PAGE):
        yield shlex.split(line, comments=True)


def test_every_option_that_is_shown_exists():
    command = typer.main.get_command(command_line).commands["serve"]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    lines = list(serve_lines())
    assert len(lines) >= 4
    for words in lines:
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, words
    for option in ("--name", "--notice", "--drain", "--ping", "--keys", "--origin", "--seconds", "--blocks", "--rows"):
        assert option in known and option in PAGE, option


def test_dashboard_and_alarms_ask_for_metrics_that_exist(client, served):
    client.chat.completions.create(model="talk", messages=[{"role": "user", "content": "x"}], max_tokens=2)
    lines = httpx.get(served.url + "/metrics").text.splitlines()
    have = {re.match(r"[\w:]+", line)[0] for line in lines if line and line[0] != "#"}
    have |= {line.split()[2] + "_total" for line in lines if line.startswith("# TYPE") and line.endswith("counter")}
    have |= {line.split()[2] for line in lines if line.startswith("# TYPE")}
    board = json.loads((PLACE / "grafana.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((PLACE / "alarms.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = [*shown, *(rule["expr"] for rule in rules)]
    named = {name for text in asked for name in re.findall(r"sanbu:[a-z_0-9]+", text)}
    assert named <= have and len(named) >= 12, named - have
    labels = {label for text in asked for label in re.findall(r"by \(([^)]*)\)", text)}
    known = {"instance", "model", "le", "status", "finished_reason", "key"}
    assert {name.strip() for label in labels for name in label.split(",")} <= known
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in board["panels"]})
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "action"} and f"`{rule['alert']}`" in PAGE, rule["alert"]


def test_the_page_names_every_file():
    for file in PLACE.iterdir():
        assert f"operation/{file.name}" in PAGE, file.name


class Replica:
    """A replica in a thread, with the server of `sanbu serve`."""

    def __init__(self, folder):
        self.app = application(Service.open([folder]))
        config = uvicorn.Config(self.app, port=0, log_level="critical", timeout_graceful_shutdown=20)
        self.server = Server(config, self.app, notice=0.5)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def healthy(self):
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url + "/health").status_code == 200
        return False

    def end(self):
        self.server.handle_exit(signal.SIGTERM, None)


def test_two_replicas_answer_alike_and_are_restarted_without_a_lost_request(runs):
    replicas = [Replica(runs[0]), Replica(runs[0])]
    up, answers, lost, going = list(replicas), [], [], True
    how = {
        "model": "talk",
        "messages": [{"role": "user", "content": "x"}],
        "logit_bias": {"0": -100},
        "max_tokens": 120,
    }

    def balance():
        """Ask every replica for its health more often than `notice`, as a balancer does."""
        while going:
            up[:] = [one for one in replicas if one.healthy()] or up
            time.sleep(0.05)

    def ask(number):
        turn = number
        while going:
            turn += 1
            try:
                with openai.OpenAI(base_url=up[turn % len(up)].url + "/v1", api_key="x", max_retries=0) as client:
                    stream = client.chat.completions.create(**how, stream=True)
                    answers.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))
            except openai.OpenAIError as error:
                lost.append(error)

    jobs = [(balance, ()), *((ask, (number,)) for number in range(3))]
    threads = [threading.Thread(target=job, args=given, daemon=True) for job, given in jobs]
    for thread in threads:
        thread.start()
    for place in (0, 1):
        time.sleep(0.5)
        old = replicas[place]
        old.end()
        assert not old.healthy() and old.thread.is_alive()  # it says so, and still serves
        old.thread.join(20)
        assert not old.thread.is_alive()
        replicas[place] = Replica(runs[0])
    time.sleep(0.3)
    going = False
    for thread in threads:
        thread.join(20)
    for one in replicas:
        one.end()
        one.end()  # a second signal ends the notice
        one.thread.join(20)
    assert not lost and len(answers) > 10
    assert len(set(answers)) == 1  # a seed gives the same answer on every replica
