"""Banyan and the peer pipeline, one after the other, with the same counts; started by `run`, which cleans up.

`fleet` makes a year of daily reports of village clinics, delivers them to a real aggregator and writes down what was
typed; that goes to mosquitto, from there by consumer.py to PostgreSQL. Then both are asked the same, and every sum
must be equal.
"""

import argparse
import calendar
import csv
import http.client
import io
import itertools
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path

import paho.mqtt.client as mqtt
import psycopg2

HERE = Path(__file__).parent
TOPIC = "counts"
PUBLISHERS = 4
REPORTS_A_MESSAGE = 30
# A message's own bytes on the wire beside its topic and payload: type, length, length of the topic, number.
PUBLISH_BYTES = 1 + 2 + 2
# As much as a machine of this size gives its database.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "effective_cache_size": "8GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
}
TICKS = os.sysconf("SC_CLK_TCK")
READY_WITHIN_S = 60


def fail(text):
    sys.exit(f"peer: {text}")


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


# ---- What processes use


def stat(pid):
    """Of a process: its parent, and its seconds of CPU with those of children that have ended."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), sum(map(int, fields[11:15])) / TICKS


def number(path, name):
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    fail(f"{path} has no {name}")


class Tree:
    """A process and its children."""

    def __init__(self, pid):
        self.pid = pid

    def pids(self):
        found = [self.pid]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if stat(entry.name)[0] == self.pid:
                        found.append(int(entry.name))
                except (FileNotFoundError, ProcessLookupError):
                    pass
        return found

    def sum(self, of):
        total = 0
        for pid in self.pids():
            try:
                total += of(pid)
            except (FileNotFoundError, ProcessLookupError):
                pass
        return total

    def cpu_s(self):
        return self.sum(lambda pid: stat(pid)[1])

    def written(self):
        return self.sum(lambda pid: number(Path(f"/proc/{pid}/io"), "write_bytes:"))

    def memory_mib(self):
        """What is shared counts once."""
        return self.sum(lambda pid: number(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")) / 1024


class Peak(threading.Thread):
    """The most memory each of some trees had while it ran."""

    def __init__(self, trees):
        super().__init__(daemon=True)
        self.trees, self.over = trees, threading.Event()
        self.peak = {name: 0.0 for name in trees}

    def run(self):
        last = False
        while not last:
            # To look at the memory of all of PostgreSQL's processes takes time from the same cores.
            last = self.over.wait(2)
            for name, tree in self.trees.items():
                self.peak[name] = max(self.peak[name], tree.memory_mib())

    def end(self):
        self.over.set()
        self.join()
        return self.peak


# ---- Programs


class Work:
    """The directory of a run, and its processes."""

    def __init__(self, folder, programs):
        self.folder, self.programs, self.running = folder, programs, []

    def start(self, name, command, **more):
        with open(self.folder / f"{name}.log", "ab") as log:
            more = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **more}
            process = subprocess.Popen(command, **more)
        self.running.append((name, process))
        return process

    def until(self, what, ready, name, process):
        """Waits for a condition; whatever it gives."""
        end = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < end:
            found = ready()
            if found:
                return found
            if process.poll() is not None:
                fail(f"{name} ended with {process.returncode}:\n{self.log(name)}")
            time.sleep(0.02)
        fail(f"{what}: not within {READY_WITHIN_S} s:\n{self.log(name)}")

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def stop(self, process, how=signal.SIGTERM):
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end(self):
        for name, process in reversed(self.running):
            # PostgreSQL: at once, its clients' sessions ended.
            self.stop(process, signal.SIGINT if name == "postgres" else signal.SIGTERM)

    def program(self, name, *arguments):
        return [self.programs / name, *map(str, arguments)]


# Systems give away ports from 32,768 or 49,152 on; below this, those of well-known services lie.
FIRST_PORT = 10_000
PORTS = 22_000
next_port = itertools.count(os.getpid() * 547)


def free_port():
    """A port nothing listens on, and that no one is given who asks for any; each of them once."""
    for _ in range(PORTS):
        port = FIRST_PORT + next(next_port) % PORTS
        with socket.socket() as listener:
            try:
                listener.bind(("", port))
            except OSError:
                continue
            return port
    fail(f"no port from {FIRST_PORT} on is free")


# ---- Banyan


def fleet(work, scenario, *arguments):
    """A run of the simulator with all proofs but the queries, which are asked here."""
    say(f"fleet {scenario} {' '.join(map(str, arguments))}")
    aggregator = work.programs / "banyan-aggregator"
    process = work.start(
        "fleet",
        work.program("fleet", scenario, "--no-queries", "--aggregator", aggregator, *arguments),
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(work.folder)},
    )
    answer, _ = process.communicate()
    if process.returncode != 0:
        fail(f"fleet {scenario} ended with {process.returncode}:\n{answer.decode()}{work.log('fleet')}")
    return json.loads(answer)


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Banyan:
    """The aggregator over the year."""

    def __init__(self, work, centre):
        addresses = centre / "run/addresses.json"
        addresses.unlink(missing_ok=True)
        arguments = ("--data-dir", centre, "serve", "--mqtt-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
        self.process = work.start("aggregator", work.program("banyan-aggregator", *arguments))
        work.until("the aggregator is ready", addresses.exists, "aggregator", self.process)
        address = json.loads(addresses.read_text())["http"]
        self.connection = http.client.HTTPConnection(address)
        token = (centre / "run/admin.token").read_text().strip()
        self.headers = {"authorization": f"Bearer {token}"}

    def connect(self):
        """Anew: the aggregator hangs up on those who say nothing for long."""
        self.connection.close()
        self.connection.connect()

    def ask(self, unit, span, elements):
        path = f"/v1/query?unit={unit}&period={span[0]}..{span[1]}&element={','.join(elements)}"
        self.connection.request("GET", path, headers=self.headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            fail(f"{path}: {answer.status} {content.decode()}")
        return content

    def sums(self, content, elements):
        (row,) = json.loads(content)["rows"]
        found = {element: row["elements"][element] for element in elements}
        return {element: (one["value"], one["reports"]) for element, one in found.items() if one["reports"]}


# ---- The peer


class Mosquitto:
    def __init__(self, work):
        self.port = free_port()
        store = work.folder / "mosquitto"
        store.mkdir()
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {store}/",
            # Nothing is dropped, and nobody waits for twenty messages to be acknowledged.
            "max_queued_messages 0",
            "max_inflight_messages 5000",
            "set_tcp_nodelay true",
            "log_type error",
            "log_type warning",
        ]
        if os.geteuid() == 0:
            lines.append("user root")
        settings = work.folder / "mosquitto.conf"
        settings.write_text("\n".join(lines) + "\n")
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.process = work.start("mosquitto", [program, "-c", settings])
        self.tree = Tree(self.process.pid)
        work.until("mosquitto listens", self.listens, "mosquitto", self.process)

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False


class Postgres:
    def __init__(self, work):
        (initdb,) = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1:]
        self.folder = work.folder / "postgres"
        self.folder.mkdir()
        as_user = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        data = self.folder / "data"
        made = subprocess.run(
            [*as_user, initdb, "-D", data, "-U", "banyan", "-A", "trust", "-E", "UTF8", "--no-locale"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.folder,
        )
        if made.returncode != 0:
            fail(f"initdb: {made.stdout}{made.stderr}")
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [*as_user, initdb.with_name("postgres"), "-D", data, "-k", self.folder, *settings]
        self.process = work.start("postgres", command, cwd=self.folder)
        self.tree = Tree(self.process.pid)
        work.until("PostgreSQL answers", self.answers, "postgres", self.process)
        connection = self.connect("postgres")
        connection.cursor().execute("CREATE DATABASE counts")
        connection.close()
        self.connection = self.connect("counts")
        self.cursor = self.connection.cursor()
        self.cursor.execute((HERE / "schema.sql").read_text())

    def connect(self, database):
        connection = psycopg2.connect(host=str(self.folder), dbname=database, user="banyan")
        connection.autocommit = True
        return connection

    def answers(self):
        try:
            self.connect("postgres").close()
            return True
        except psycopg2.OperationalError:
            return False

    def ask(self, sql, *given):
        self.cursor.execute(sql, given)
        return self.cursor.fetchall()

    def one(self, sql, *given):
        return self.ask(sql, *given)[0][0]

    def learn(self, facilities, forms, elements):
        """The small tables; a facility's number by its code."""
        for table, codes in (("form", forms), ("element", elements)):
            for place, code in enumerate(codes, 1):
                self.cursor.execute(f"INSERT INTO {table} VALUES (%s, %s)", (place, code))
        for place, row in enumerate(facilities, 1):
            values = (place, row["facility"], row["county"], row["city"])
            self.cursor.execute("INSERT INTO facility VALUES (%s, %s, %s, %s)", values)
        self.cursor.execute("ANALYZE facility")


class Consumers:
    """Consumers of one topic, each with a share of it."""

    def __init__(self, work, postgres, mosquitto, n):
        self.work, self.taken, self.last = work, 0, 0.0
        self.changed = threading.Condition()
        self.results = []
        topic = TOPIC if n == 1 else f"$share/counts/{TOPIC}"
        self.processes, self.threads = [], []
        for place in range(n):
            # The same names each time: a session left behind would be kept supplied.
            given = [postgres.folder, str(mosquitto.port), f"consumer-{place}", topic]
            command = [sys.executable, "-B", HERE / "consumer.py", *given]
            process = work.start("consumer", command, stdout=subprocess.PIPE, text=True)
            if process.stdout.readline() != "ready\n":
                fail(f"the consumer did not start:\n{work.log('consumer')}")
            thread = threading.Thread(target=self.listen, args=(process,), daemon=True)
            thread.start()
            self.processes.append(process)
            self.threads.append(thread)

    def listen(self, process):
        for line in process.stdout:
            with self.changed:
                if line.startswith("{"):
                    self.results.append(json.loads(line))
                else:
                    reports, when = line.split()
                    self.taken += int(reports)
                    self.last = max(self.last, float(when))
                self.changed.notify_all()

    def wait(self, reports, within):
        """Until so many are committed; when the last was."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.taken >= reports, within):
                fail(f"{self.taken} of {reports} reports are committed after {within} s:\n{self.work.log('consumer')}")
            return self.last

    def end(self):
        for process in self.processes:
            self.work.stop(process)
        for thread in self.threads:
            thread.join()
        if len(self.results) != len(self.processes):
            fail(f"a consumer ended early:\n{self.work.log('consumer')}")
        sums = {}
        for result in self.results:
            for name, value in result.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums


def publish(work, mosquitto, messages, name):
    """Starts the clients that publish the messages as fast as the broker takes them."""
    shares = [messages[place::PUBLISHERS] for place in range(PUBLISHERS)]
    processes = []
    for place, share in enumerate(shares):
        path = work.folder / f"{name}-{place}.messages"
        path.write_text("".join(message + "\n" for message in share))
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(mosquitto.port), "-q", "1", "-t", TOPIC, "-l"]
        with open(path) as file:
            processes.append(work.start("publisher", [*command, "-i", path], stdin=file))
    return processes


def through_pipeline(work, postgres, mosquitto, lines, reports_a_message, consumers):
    """Delivers reports; what it took."""
    name = f"messages-of-{reports_a_message}"
    say(f"peer: {len(lines)} reports, {reports_a_message} a message")
    if reports_a_message == 1:
        messages = lines
    else:
        # A clinic's days together, as it would send what has waited.
        by_clinic = {}
        for line in lines:
            by_clinic.setdefault(json.loads(line)["facility"], []).append(line)
        messages = []
        for own in by_clinic.values():
            for first in range(0, len(own), reports_a_message):
                messages.append("[" + ",".join(own[first : first + reports_a_message]) + "]")
    trees = {"mosquitto": mosquitto.tree, "postgres": postgres.tree}
    before = {what: (tree.cpu_s(), tree.written()) for what, tree in trees.items()}
    wal = postgres.one("SELECT pg_current_wal_lsn()")
    taking = Consumers(work, postgres, mosquitto, consumers)
    peak = Peak(trees)
    peak.start()
    begun = time.time()
    publishers = publish(work, mosquitto, messages, name)
    seconds = taking.wait(len(lines), 600) - begun
    clients_cpu = 0.0
    for publisher in publishers:
        _, status, usage = os.wait4(publisher.pid, 0)
        publisher.returncode = os.waitstatus_to_exitcode(status)
        if publisher.returncode != 0:
            fail(f"a publisher ended with {publisher.returncode}")
        clients_cpu += usage.ru_utime + usage.ru_stime
    used = {what: tree.cpu_s() - before[what][0] for what, tree in trees.items()}
    done = taking.end()
    peak = peak.end()
    used["consumer"] = done["cpu_s"]
    # Pages changed in memory go to the disk sooner or later.
    postgres.cursor.execute("CHECKPOINT")
    written = sum(tree.written() - before[what][1] for what, tree in trees.items())
    counts = done["counts"]
    payload = done["payload_bytes"]
    return {
        "reports": len(lines),
        "messages": len(messages),
        "counts": counts,
        "transactions": done["transactions"],
        "seconds": seconds,
        "reports_per_s": len(lines) / seconds,
        "counts_per_s": counts / seconds,
        "cpu_s_per_million": {what: s / counts * 1e6 for what, s in sorted(used.items())},
        "cpu_s_per_million_in_all": sum(used.values()) / counts * 1e6,
        "clients_cpu_s": clients_cpu,
        "memory_mib": {**peak, "consumer": done["rss_mib"]},
        "payload_bytes_per_count": payload / counts,
        "mqtt_bytes_per_count": (payload + len(messages) * (PUBLISH_BYTES + len(TOPIC))) / counts,
        "written_bytes_per_count": written / counts,
        "wal_bytes_per_count": float(postgres.one("SELECT pg_current_wal_lsn() - %s::pg_lsn", wal)) / counts,
    }


def latency(work, postgres, mosquitto, lines, seconds, consumers):
    """Publishes at an even pace; from the call that publishes to the transaction's end, in ms."""
    say(f"peer: {len(lines) / seconds:.0f} reports a second for {seconds} s")
    taking = Consumers(work, postgres, mosquitto, consumers)
    client = mqtt.Client("clinics", protocol=mqtt.MQTTv311)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    begun = time.time()
    for place, line in enumerate(lines):
        time.sleep(max(0.0, begun + seconds * place / len(lines) - time.time()))
        # In place of the closing bracket.
        client.publish(TOPIC, f'{line[:-1]},"sent":{time.time()}}}', qos=1)
    taking.wait(len(lines), 60)
    client.disconnect()
    client.loop_stop()
    found = sorted(taking.end()["latencies_ms"])
    return {"n": len(found), "p50": at(found, 0.5), "p99": at(found, 0.99), "max": found[-1]}


def copy(postgres, lines):
    """Puts the rest in as fast as PostgreSQL takes it; in s."""
    say(f"peer: {len(lines)} reports by COPY")
    begun = time.monotonic()
    facilities = dict(postgres.ask("SELECT code, facility FROM facility"))
    forms = dict(postgres.ask("SELECT code, form FROM form"))
    elements = dict(postgres.ask("SELECT code, element FROM element"))
    for first in range(0, len(lines), 20_000):
        text = []
        for line in lines[first : first + 20_000]:
            report = json.loads(line)
            typed = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(report["at"]))
            start = f"{facilities[report['facility']]}\t{report['period']}\t{forms[report['form']]}\t"
            text.extend(f"{start}{elements[e]}\t{value}\t{typed}\n" for e, value in report["values"].items())
        postgres.cursor.copy_expert("COPY counts FROM STDIN", io.StringIO("".join(text)))
    return time.monotonic() - begun


# ---- Questions


def at(sorted_values, share):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def months_of(first, last):
    found, (year, month) = [], (first.year, first.month)
    while (year, month) <= (last.year, last.month):
        found.append(f"{year}-{month:02}")
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return found


def days(month):
    year, number_ = map(int, month.split("-"))
    return date(year, number_, 1), date(year, number_, calendar.monthrange(year, number_)[1])


GROUPED = """SELECT element, sum(value), count(*) FROM counted
WHERE {area} = %s AND period BETWEEN %s AND %s GROUP BY element"""
# Nothing is left out: no need to look at where a facility is.
GROUPED_ALL = "SELECT element, sum(value), count(*) FROM counts WHERE period BETWEEN %s AND %s GROUP BY element"
STORED = """SELECT element, sum(value), sum(reports) FROM by_county_month
WHERE {area} = %s AND month BETWEEN %s AND %s GROUP BY element"""
STORED_ALL = "SELECT element, sum(value), sum(reports) FROM by_county_month WHERE month BETWEEN %s AND %s GROUP BY element"


def questions(facilities, first, last):
    """By kind: the area, the unit, and the first and last month, in an order of no meaning."""
    months = months_of(first, last)
    pick = random.Random(7)
    found = {}
    for area in ("county", "city"):
        units = sorted({row[area] for row in facilities})
        found[f"{area}, month"] = [(area, unit, (month, month)) for unit in units for month in months]
        found[f"{area}, year"] = [(area, unit, (months[0], months[-1])) for unit in units]
    # The registry's top: what all have in common.
    found["province, month"] = [(None, "52", (month, month)) for month in months]
    found["province, year"] = [(None, "52", (months[0], months[-1]))]
    for asked in found.values():
        pick.shuffle(asked)
    return found


def timed(work, rounds):
    begun = time.monotonic()
    taken, answers = [], []
    for one in rounds:
        asked = time.monotonic()
        answers.append(work(one))
        taken.append((time.monotonic() - asked) * 1000)
        if time.monotonic() - begun > 20:
            break
    taken.sort()
    return {"n": len(taken), "p50": at(taken, 0.5), "p99": at(taken, 0.99)}, answers


def ask_both(banyan, postgres, facilities, elements, first, last):
    names = dict(postgres.ask("SELECT element, code FROM element"))
    order = sorted(elements)

    def grouped(question, some, all_):
        area, unit, (start, end) = question
        span = (days(start)[0], days(end)[1])
        if area is None:
            return postgres.ask(all_, *span)
        return postgres.ask(some.format(area=area), unit, *span)

    def of(answer):
        return {names[element]: (int(value), int(reports)) for element, value, reports in answer}

    result, equal = {}, 0
    for name, asked in questions(facilities, first, last).items():
        # A few questions are asked more than once, or one time would say all.
        again = asked * max(1, 30 // len(asked))
        row = {}
        banyan.connect()
        row["banyan_first"], ours = timed(lambda q: banyan.ask(q[1], q[2], order), asked)
        row["banyan_again"], _ = timed(lambda q: banyan.ask(q[1], q[2], order), again)
        row["group_by_first"], theirs = timed(lambda q: grouped(q, GROUPED, GROUPED_ALL), asked)
        row["group_by_again"], _ = timed(lambda q: grouped(q, GROUPED, GROUPED_ALL), again)
        row["stored"], stored = timed(lambda q: grouped(q, STORED, STORED_ALL), again)
        for question, one, other in zip(asked, ours, theirs):
            one = banyan.sums(one, order)
            if one != of(other):
                fail(f"{name} {question}: Banyan says {one}, PostgreSQL {of(other)}")
            equal += len(one)
        for question, one, other in zip(asked, stored, theirs):
            if of(one) != of(other):
                fail(f"{name} {question}: the materialized view says {of(one)}, the counts {of(other)}")
        result[name] = row
    return result, equal


# ---- The run


def table(rows):
    lines = ["| what | Banyan | peer | ratio |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def times(better):
    return f"{better:.{0 if better >= 10 else 1 if better >= 1 else 2}f} ×"


def rows_of(result):
    banyan, peer, rows = result["banyan"], result["peer"], []

    def row(what, ours, theirs, unit, rate=False, digits=2):
        ratio = ours / theirs if rate else theirs / ours
        show = lambda value: f"{value:,.{digits}f} {unit}".strip()
        rows.append((what, show(ours), show(theirs), times(ratio)))

    for name, what in (("batches", f"{REPORTS_A_MESSAGE} reports a message"), ("lone", "a report a message")):
        one, other = banyan[name], peer[name]
        row(f"{what}: reports a second", one["reports_per_s"], other["reports_per_s"], "", True, 0)
        row(f"{what}: counts a second", one["counts_per_s"], other["counts_per_s"], "", True, 0)
        ours = (one["cpu"]["centre_user_s"] + one["cpu"]["centre_system_s"]) / one["counts"] * 1e6
        parts = ", ".join(f"{part} {value:.1f}" for part, value in other["cpu_s_per_million"].items())
        row(f"{what}: CPU s a million counts (peer: {parts})", ours, other["cpu_s_per_million_in_all"], "")
        row(f"{what}: bytes a count, payload", one["bytes"]["payload"]["up_per_count"], other["payload_bytes_per_count"], "")
        row(f"{what}: bytes a count, MQTT", one["bytes"]["mqtt"]["up_per_count"], other["mqtt_bytes_per_count"], "")
        row(f"{what}: written to disk a count", one["disk"]["written_per_count"], other["written_bytes_per_count"], "bytes")
        memory = ", ".join(f"{part} {value:.0f}" for part, value in other["memory_mib"].items())
        row(f"{what}: memory (peer: {memory})", one["memory"]["centre_peak_mib"], sum(other["memory_mib"].values()), "MiB", digits=0)
    ours, theirs = banyan["paced"]["latency_ms"]["typed_to_receipt"], peer["paced"]
    row("paced: typed → receipt; publish → committed, p50", ours["p50"], theirs["p50"], "ms")
    row("paced: the same, p99", ours["p99"], theirs["p99"], "ms")
    row("at rest, bytes a count (ledger and derived.db; table and key)", banyan["rest_per_count"], peer["rest_per_count"], "")
    for name, one in result["questions"].items():
        row(f"{name}: first, p50 (GROUP BY)", one["banyan_first"]["p50"], one["group_by_first"]["p50"], "ms")
        row(f"{name}: again, p50 (GROUP BY)", one["banyan_again"]["p50"], one["group_by_again"]["p50"], "ms")
        row(f"{name}: again, p50 (materialized view)", one["banyan_again"]["p50"], one["stored"]["p50"], "ms")
    refresh = peer["refresh_s"]
    rows.append((f"refreshing the materialized view after any change", "not needed", f"{refresh:.2f} s", ""))
    return rows


def measure(work, options):
    result = {"options": {k: v for k, v in vars(options).items() if isinstance(v, int)}, "cores": os.cpu_count()}
    kept, export = work.folder / "year", work.folder / "export"
    batches = fleet(
        work, "return", "--agents", options.agents, "--days", options.days, "--batch", REPORTS_A_MESSAGE,
        "--keep", kept, "--export", export,
    )
    # Registry and enrolments were in the ledger before.
    derived = size_of(kept / "centre" / "derived") / batches["counts"]
    rest = {"ledger": batches["disk"]["ledger_per_count"], "derived": derived}
    lone = fleet(work, "trickle", "--agents", options.lone_agents, "--days", options.lone_days)
    paced = fleet(work, "steady", "--agents", options.rate, "--days", options.paced, "--over", options.paced)
    result["banyan"] = {
        "batches": batches, "lone": lone, "paced": paced, "rest": rest, "rest_per_count": sum(rest.values())
    }
    with open(export / "facilities.csv") as file:
        facilities = list(csv.DictReader(file))
    lines = (export / "reports.jsonl").read_text().splitlines()
    first, last = (json.loads(line) for line in (lines[0], lines[-1]))
    elements = sorted({element for line in lines[: 10 * options.agents] for element in json.loads(line)["values"]})

    postgres, mosquitto = Postgres(work), Mosquitto(work)
    postgres.learn(facilities, [first["form"]], elements)
    # The newest days one by one, those before as a backlog, a few at an even pace, and the rest by COPY.
    pace = options.rate * options.paced
    lone_lines, lines = lines[-options.lone_reports :], lines[: -options.lone_reports]
    paced_lines, lines = lines[-pace:], lines[:-pace]
    backlog_lines, lines = lines[-options.backlog :], lines[: -options.backlog]
    peer = result["peer"] = {"consumers": options.consumers}
    through = lambda given, n: through_pipeline(work, postgres, mosquitto, given, n, options.consumers)
    peer["batches"] = through(backlog_lines, REPORTS_A_MESSAGE)
    peer["lone"] = through(lone_lines, 1)
    peer["paced"] = latency(work, postgres, mosquitto, paced_lines, options.paced, options.consumers)
    peer["copy_s"] = copy(postgres, lines)
    postgres.cursor.execute("VACUUM ANALYZE counts")
    counts = postgres.one("SELECT count(*) FROM counts")
    if counts != batches["counts"]:
        fail(f"{batches['counts']} counts were typed, PostgreSQL holds {counts}")
    peer["counts"] = counts
    peer["rest_per_count"] = postgres.one("SELECT pg_total_relation_size('counts')") / counts
    begun = time.monotonic()
    postgres.cursor.execute("REFRESH MATERIALIZED VIEW by_county_month")
    peer["refresh_s"] = time.monotonic() - begun
    postgres.cursor.execute("ANALYZE by_county_month")
    say("questions")
    banyan = Banyan(work, kept / "centre")
    span = (date.fromisoformat(first["period"]), date.fromisoformat(last["period"]))
    result["questions"], result["equal_sums"] = ask_both(banyan, postgres, facilities, elements, *span)
    peer["memory_mib_after_questions"] = postgres.tree.memory_mib()
    result["banyan"]["memory_mib_after_questions"] = Tree(banyan.process.pid).memory_mib()
    return result


def main():
    parser = argparse.ArgumentParser(prog="tests/peer/run", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--programs", type=Path, required=True, help="fleet and banyan-aggregator, instead of building them")
    parser.add_argument("--json", type=Path, help="writes all figures into this file")
    parser.add_argument("--small", action="store_true", help="a trial: figures of it say nothing")
    parser.add_argument("--agents", type=int, default=2000, help="village clinics")
    parser.add_argument("--days", type=int, default=365, help="daily reports of each")
    parser.add_argument("--consumers", type=int, default=1, help="of the peer, each with a share of the messages")
    options = parser.parse_args()
    if options.small:
        options.agents, options.days = 60, 70
    share = 1 if options.small else 10
    options.rate, options.paced = (40, 5) if options.small else (200, 15)
    options.lone_agents, options.lone_days = (60, 20) if options.small else (500, 200)
    options.lone_reports = min(100_000, options.agents * options.days // 7)
    options.backlog = min(20_000 * share, options.agents * options.days // 7 * 3)
    work = Work(options.work, options.programs.resolve())
    begun = time.monotonic()
    try:
        result = measure(work, options)
    finally:
        work.end()
    result["seconds"] = time.monotonic() - begun
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(rows_of(result)))
    print(f"\n{result['equal_sums']} sums asked of both are equal; {result['seconds']:.0f} s in all.")


main()
