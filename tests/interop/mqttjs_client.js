#!/usr/bin/env node
// An MQTT.js client on a leash; see paho_client.py for what it is told and what it tells.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const { parseArgs } = require("node:util");

const mqtt = require("mqtt");

// `--will TOPIC PAYLOAD`: the second of them stands alone.
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    port: { type: "string" },
    id: { type: "string" },
    version: { type: "string", default: "5" },
    ca: { type: "string" },
    cert: { type: "string" },
    key: { type: "string" },
    user: { type: "string" },
    password: { type: "string" },
    websocket: { type: "boolean", default: false },
    persistent: { type: "boolean", default: false },
    will: { type: "string" },
  },
});
const v5 = options.version === "5";

function scheme() {
  if (options.websocket) return options.ca ? "wss" : "ws";
  return options.ca ? "mqtts" : "mqtt";
}

function settings() {
  const read = (path) => (path ? fs.readFileSync(path) : undefined);
  const made = {
    clientId: options.id,
    protocolVersion: v5 ? 5 : 4,
    clean: !options.persistent,
    reconnectPeriod: 0,
    resubscribe: false,
    ca: read(options.ca),
    cert: read(options.cert),
    key: read(options.key),
    username: options.user,
    password: options.password,
  };
  if (v5) {
    const sessionExpiryInterval = options.persistent ? 3600 : 0;
    made.properties = { sessionExpiryInterval, topicAliasMaximum: 10 };
  }
  if (options.will) {
    made.will = { topic: options.will, payload: positionals[0], qos: 1, retain: false };
  }
  return made;
}

const client = mqtt.connect(`${scheme()}://localhost:${options.port}`, settings());
client.on("connect", (connack) => {
  const text = connack.properties?.reasonString ?? null;
  tell("connected", { reason: 0, text, session_present: connack.sessionPresent });
});
client.on("error", (error) => {
  // Refused: the reason code of the CONNACK, where there was one.
  tell("connected", { reason: error.code, text: error.message, session_present: false });
});
client.on("close", () => tell("disconnected", { reason: 0 }));
// The library keeps a code that is no error to itself.
let acknowledged = 0;
client.on("packetreceive", (packet) => {
  if (packet.cmd === "puback") acknowledged = packet.reasonCode ?? 0;
});
client.on("message", (topic, payload, packet) => {
  tell("message", {
    topic,
    payload: payload.toString(),
    qos: packet.qos,
    retain: packet.retain,
    user: { ...packet.properties?.userProperties },
    expiry: packet.properties?.messageExpiryInterval ?? null,
  });
});

function carryOut(command) {
  switch (command.do) {
    case "subscribe":
      client.subscribe(command.topic, { qos: command.qos }, (error, granted, packet) => {
        tell("subscribed", { reasons: packet?.granted ?? [error.code] });
      });
      break;
    case "publish":
      publish(command);
      break;
    case "disconnect":
      client.end();
      break;
    default:
      throw new Error(`cannot ${command.do}`);
  }
}

function publish({ topic, payload, qos, retain, user, expiry, alias }) {
  const properties = {};
  if (user) properties.userProperties = user;
  if (expiry != null) properties.messageExpiryInterval = expiry;
  if (alias != null) properties.topicAlias = alias;
  acknowledged = 0;
  client.publish(topic, payload, { qos, retain, properties }, (error) => {
    tell("published", { reason: error ? error.code : acknowledged, text: null });
  });
}

function tell(event, what) {
  process.stdout.write(`${JSON.stringify({ event, ...what })}\n`);
}

const orders = readline.createInterface({ input: process.stdin });
orders.on("line", (line) => carryOut(JSON.parse(line)));
// Gone without a DISCONNECT, as a device whose battery is empty.
orders.on("close", () => process.exit(0));
