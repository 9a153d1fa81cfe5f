#!/usr/bin/env python3
"""A gmqtt client on a leash; see paho_client.py for what it is told and what it tells."""

import argparse
import asyncio
import json
import logging
import os
import ssl
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311


async def main():
    # What it has to say, it tells here.
    logging.disable(logging.CRITICAL)
    options = arguments()
    client = await connect(options)
    orders = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, read_orders, loop, orders)
    while True:
        await carry_out(client, await orders.get())


def read_orders(loop, orders):
    for line in sys.stdin:
        loop.call_soon_threadsafe(orders.put_nowait, json.loads(line))
    # Gone without a DISCONNECT, as a device whose battery is empty.
    os._exit(0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--version", choices=["311", "5"], default="5")
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--persistent", action="store_true")
    parser.add_argument("--will", nargs=2, metavar=("TOPIC", "PAYLOAD"))
    return parser.parse_args()


async def connect(options):
    v5 = options.version == "5"
    settings = {}
    if v5:
        settings["session_expiry_interval"] = 3600 if options.persistent else 0
        settings["topic_alias_maximum"] = 10
    if options.will:
        topic, payload = options.will
        settings["will_message"] = gmqtt.Message(topic, payload, qos=1)
    client = gmqtt.Client(options.id, clean_session=not options.persistent, **settings)
    client.set_config({"reconnect_retries": 0, "reconnect_delay": 3600})
    client.on_connect = lambda _client, flags, reason, properties: tell(
        "connected", reason=reason, text=None, session_present=bool(flags)
    )
    client.on_subscribe = lambda _client, _mid, reasons, _properties: tell(
        "subscribed", reasons=list(reasons)
    )
    client.on_disconnect = lambda _client, _packet, exc=None: tell("disconnected", reason=0)
    client.on_message = on_message
    listen_to_acknowledgements(client)
    await client.connect(
        "localhost", options.port, ssl=context(options), version=MQTTv50 if v5 else MQTTv311
    )
    return client


def context(options):
    if not options.ca:
        return False
    made = ssl.create_default_context(cafile=options.ca)
    if options.cert:
        made.load_cert_chain(options.cert, options.key)
    return made


def listen_to_acknowledgements(client):
    """gmqtt tells nobody what the broker said to a PUBLISH: look over its shoulder."""
    handler = client._package_handler
    for name in ("puback", "pubrec", "pubcomp"):
        look_at(handler, name)


def look_at(handler, name):
    method = f"_handle_{name}_packet"
    inner = getattr(handler, method)

    def outer(command, packet):
        inner(command, packet)
        reason = packet[2] if len(packet) > 2 else 0
        if name != "pubrec" or reason >= 0x80:
            tell("published", reason=reason, text=None)

    setattr(handler, method, outer)


async def carry_out(client, command):
    match command["do"]:
        case "subscribe":
            client.subscribe(command["topic"], qos=command["qos"])
        case "publish":
            client.publish(
                command["topic"],
                command["payload"],
                qos=command["qos"],
                retain=command["retain"],
                **properties(command),
            )
            if command["qos"] == 0:
                tell("published", reason=0, text=None)
        case "disconnect":
            await client.disconnect()
        case other:
            raise ValueError(f"cannot {other}")


def properties(command):
    wanted = {}
    if command.get("user"):
        wanted["user_property"] = list(command["user"].items())
    if command.get("expiry") is not None:
        wanted["message_expiry_interval"] = command["expiry"]
    if command.get("alias") is not None:
        wanted["topic_alias"] = command["alias"]
    return wanted


def on_message(_client, topic, payload, qos, properties):
    expiry = properties.get("message_expiry_interval", [None])[0]
    tell(
        "message",
        topic=topic,
        payload=payload.decode(),
        qos=qos,
        retain=bool(properties["retain"]),
        user=dict(properties.get("user_property", [])),
        expiry=expiry,
    )
    return 0


def tell(event, **what):
    sys.stdout.write(json.dumps({"event": event, **what}) + "\n")
    sys.stdout.flush()


asyncio.run(main())
