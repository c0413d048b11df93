"""Paho, as anybody may use it: subscribes to a topic, publishes a file, writes the first message to stdout.

ask.py HOST PORT CA CERTIFICATE KEY CLIENT_ID FILE UP DOWN

Ends with 0 when a message came, with 1 otherwise and says why on stderr.
"""

import ssl
import sys

import paho.mqtt.client as mqtt

SECONDS = 15
host, port, ca, certificate, key, client_id, path, up, down = sys.argv[1:]
with open(path, "rb") as file:
    payload = file.read()

answers = []


def on_connect(client, _data, _flags, code):
    if code != 0:
        sys.exit(f"CONNACK {code}")
    client.subscribe(down, qos=1)


def on_subscribe(client, _data, _number, granted):
    if granted[0] > 1:
        sys.exit(f"SUBACK {granted[0]}")
    client.publish(up, payload, qos=1)


def on_message(client, _data, message):
    answers.append(message.payload)
    client.disconnect()


client = mqtt.Client(client_id, clean_session=True, protocol=mqtt.MQTTv311)
client.tls_set(ca, certificate, key, tls_version=ssl.PROTOCOL_TLS_CLIENT)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port), keepalive=SECONDS)
waited = 0.0
while not answers and waited < SECONDS:
    if client.loop(timeout=0.5) != mqtt.MQTT_ERR_SUCCESS:
        sys.exit("the connection was lost")
    waited += 0.5
if not answers:
    sys.exit("no answer")
sys.stdout.buffer.write(answers[0])
