#!/usr/bin/env python3
"""A paho-mqtt client on a leash.

Connects as its arguments say, then carries out what comes on standard input, one JSON object per
line, and prints what happens on standard output, one JSON object per line:

    {"do": "subscribe", "topic": "a/#", "qos": 1}
    {"do": "publish", "topic": "a", "payload": "x", "qos": 1, "retain": false,
     "user": {"name": "value"}, "expiry": 60, "alias": 1}
    {"do": "disconnect"}

    {"event": "connected", "reason": 0, "text": null, "session_present": false}
    {"event": "subscribed", "reasons": [1]}
    {"event": "published", "reason": 0, "text": null}
    {"event": "message", "topic": "a", "payload": "x", "qos": 1, "retain": false, "user": {},
     "expiry": null}
    {"event": "disconnected", "reason": 0}

At the end of its input it goes without a DISCONNECT, as a device does whose battery is empty.
"""

import argparse
import json
import os
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def main():
    options = arguments()
    client = connect(options)
    client.loop_start()
    for line in sys.stdin:
        carry_out(client, json.loads(line))
    os._exit(0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--version", choices=["311", "5"], default="5")
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("--persistent", action="store_true")
    parser.add_argument("--will", nargs=2, metavar=("TOPIC", "PAYLOAD"))
    return parser.parse_args()


def connect(options):
    v5 = options.version == "5"
    settings = {} if v5 else {"clean_session": not options.persistent}
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=options.id,
        protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
        transport="websockets" if options.websocket else "tcp",
        reconnect_on_failure=False,
        **settings,
    )
    client.on_connect = on_connect
    client.on_disconnect = on_disconnect
    client.on_subscribe = on_subscribe
    client.on_publish = on_publish
    client.on_message = on_message
    if options.ca:
        client.tls_set(ca_certs=options.ca, certfile=options.cert, keyfile=options.key)
    if options.user:
        client.username_pw_set(options.user, options.password)
    if options.will:
        topic, payload = options.will
        client.will_set(topic, payload, qos=1)
    how = {}
    if v5:
        how["clean_start"] = not options.persistent
        how["properties"] = Properties(PacketTypes.CONNECT)
        how["properties"].SessionExpiryInterval = 3600 if options.persistent else 0
    client.connect("localhost", options.port, **how)
    return client


def carry_out(client, command):
    match command["do"]:
        case "subscribe":
            client.subscribe(command["topic"], command["qos"])
        case "publish":
            client.publish(
                command["topic"],
                command["payload"],
                command["qos"],
                command["retain"],
                properties=properties_of(command),
            )
        case "disconnect":
            client.disconnect()
        case other:
            raise ValueError(f"cannot {other}")


def properties_of(command):
    wanted = Properties(PacketTypes.PUBLISH)
    if command.get("user"):
        wanted.UserProperty = list(command["user"].items())
    if command.get("expiry") is not None:
        wanted.MessageExpiryInterval = command["expiry"]
    if command.get("alias") is not None:
        wanted.TopicAlias = command["alias"]
    return None if wanted.isEmpty() else wanted


def on_connect(_client, _data, flags, reason, properties):
    present = flags.session_present
    tell("connected", reason=reason.value, text=text_of(properties), session_present=present)


def on_disconnect(_client, _data, _flags, reason, _properties):
    tell("disconnected", reason=reason.value)


def on_subscribe(_client, _data, _mid, reasons, _properties):
    tell("subscribed", reasons=[reason.value for reason in reasons])


def on_publish(_client, _data, _mid, reason, properties):
    tell("published", reason=reason.value, text=text_of(properties))


def on_message(_client, _data, message):
    user = dict(getattr(message.properties, "UserProperty", []))
    tell(
        "message",
        topic=message.topic,
        payload=message.payload.decode(),
        qos=message.qos,
        retain=message.retain,
        user=user,
        expiry=getattr(message.properties, "MessageExpiryInterval", None),
    )


def text_of(properties):
    return getattr(properties, "ReasonString", None)


def tell(event, **what):
    # One write, so that lines of two threads do not mix.
    sys.stdout.write(json.dumps({"event": event, **what}) + "\n")
    sys.stdout.flush()


main()
