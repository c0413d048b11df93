"""A small consumer, as a county would write it: takes reports from MQTT and puts their numbers into PostgreSQL.

    consumer.py SOCKET_DIR MQTT_PORT CLIENT_ID TOPIC

A message is a report or a list of them, as JSON. All messages that have come meanwhile are one transaction, and are
acknowledged when it is committed: a crash loses nothing. A number that came again or late is settled by the upsert.
Says on stdout "ready", then for every transaction how many reports and when, and at SIGTERM what it took, as JSON.
"""

import json
import queue
import resource
import signal
import sys
import threading
import time

import paho.mqtt.client as mqtt
import psycopg2

MESSAGES_A_TRANSACTION = 2000
# One statement and so one transaction and one round trip; arrays are read faster than rows of VALUES.
UPSERT = """
INSERT INTO counts (facility, period, form, element, value, at)
SELECT facility, period, form, element, value, to_timestamp(at)
FROM unnest(%s::integer[], %s::date[], %s::smallint[], %s::smallint[], %s::integer[], %s::bigint[])
    AS given (facility, period, form, element, value, at)
ON CONFLICT (facility, period, form, element) DO UPDATE SET value = EXCLUDED.value, at = EXCLUDED.at
WHERE counts.at <= EXCLUDED.at
"""


class Client(mqtt.Client):
    """Acknowledges a message when told to, not when its callback returns: paho 1.6 has no setting for it."""

    def _send_puback(self, mid):
        return mqtt.MQTT_ERR_SUCCESS

    def acknowledge(self, mid):
        super()._send_puback(mid)


class Store:
    def __init__(self, folder):
        self.connection = psycopg2.connect(host=folder, dbname="counts", user="banyan")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()
        self.facilities = self.numbers("facility")
        self.forms = self.numbers("form")
        self.elements = self.numbers("element")

    def numbers(self, table):
        self.cursor.execute(f"SELECT code, {table} FROM {table}")
        return dict(self.cursor.fetchall())

    def take(self, reports):
        """Commits the reports; how many numbers they held."""
        rows, counts = {}, 0
        for report in reports:
            facility = self.facilities.get(report["facility"])
            form = self.forms.get(report["form"])
            if facility is None or form is None:
                print(f"not known here: {report['facility']} {report['form']}", file=sys.stderr)
                continue
            period, at = report["period"], report["at"]
            counts += len(report["values"])
            for element, value in report["values"].items():
                key = (facility, period, form, self.elements[element])
                known = rows.get(key)
                if known is None or known[1] <= at:
                    rows[key] = (value, at)
        if rows:
            # In the key's order: neighbours in the index, and two consumers cannot wait for each other.
            keys = sorted(rows)
            values = [rows[key] for key in keys]
            columns = [*zip(*keys), *zip(*values)]
            self.cursor.execute(UPSERT, ["{" + ",".join(map(str, column)) + "}" for column in columns])
        return counts


def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    folder, port, client_id, topic = sys.argv[1:]
    store = Store(folder)
    messages = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: messages.put(None))
    subscribed = threading.Event()
    # A session that lasts: what comes while this is away waits at the broker.
    client = Client(client_id, clean_session=False, protocol=mqtt.MQTTv311)
    client.on_connect = lambda *_: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: messages.put((message.mid, message.payload))
    client.connect("127.0.0.1", int(port))
    client.loop_start()
    if not subscribed.wait(30):
        sys.exit("the broker does not answer")
    print("ready", flush=True)
    before = used()
    done = {"messages": 0, "reports": 0, "counts": 0, "payload_bytes": 0, "transactions": 0}
    latencies = []
    going = True
    while going:
        taken = [messages.get()]
        try:
            while len(taken) < MESSAGES_A_TRANSACTION:
                taken.append(messages.get_nowait())
        except queue.Empty:
            pass
        if None in taken:
            going = False
            taken = [message for message in taken if message is not None]
        reports = []
        for _, payload in taken:
            content = json.loads(payload)
            reports.extend(content if isinstance(content, list) else [content])
        if not reports:
            continue
        done["counts"] += store.take(reports)
        now = time.time()
        for mid, payload in taken:
            client.acknowledge(mid)
            done["payload_bytes"] += len(payload)
        latencies.extend(now - report["sent"] for report in reports if "sent" in report)
        done["messages"] += len(taken)
        done["reports"] += len(reports)
        done["transactions"] += 1
        print(len(reports), now, flush=True)
    done["cpu_s"] = used() - before
    done["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    done["latencies_ms"] = [latency * 1000 for latency in latencies]
    print(json.dumps(done), flush=True)
    client.disconnect()
    client.loop_stop()


main()
